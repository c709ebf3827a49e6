//! Lists where all servers of a key are: each server that has such a list is asked, a few at a time, and what they
//! say is put together in the order of the key's subscriptions. One that fails, or takes too long, hides no other:
//! the list says that it is missing.

mod listing;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use crate::domain::code::Code;
use crate::domain::ids::CallId;
use crate::domain::limits::{
    GATHER_ALL_WAIT, GATHER_BYTES_MAX, GATHER_ITEMS_MAX, GATHER_PAGES_MAX, GATHER_SERVER_BYTES_MAX,
    GATHER_SERVERS_MAX, GATHER_WAIT,
};
use crate::domain::uri;
use crate::protocol::handshake::{self, Abilities};
use crate::protocol::splice::{self, Place};
use crate::telemetry::metrics::mcp::CallMeter;

use super::super::catalog::Published;
use super::super::clock::id_bits;
use super::super::failure::{self, Reason};
use super::super::session::SessionHandle;
use super::admit::within_rate;
use super::ask::tool_of;
use super::{Aside, Failure, Front, Outcome};
pub use listing::{Gathered, Listing, Missing};
pub use turns::Gathering;

use listing::Page;

/// What JSON-RPC says of a method that a server does not have.
const METHOD_NOT_FOUND: i64 = -32601;

/// Items of one server, with what is renamed in them.
type Items = Vec<(String, Place)>;
/// What a server says: its items, and whether there are more.
type Part = Result<(Items, bool), Failure>;

impl Front {
    /// Gathers a list from all servers of a session's key that have it. Those that do not run are started; those of
    /// which it is known that they have no such list are left alone.
    ///
    /// # Errors
    /// The key asks too often, or its other lists take too long: nobody was asked.
    pub async fn gather(
        &self,
        session: &Arc<SessionHandle>,
        listing: Listing,
        aside: &Aside<'_>,
    ) -> Result<Gathered, Outcome> {
        if let Err(reason) = within_rate(&self.ctx, session) {
            return Err(self.not_asked(session, listing.method(), reason).await);
        }
        let turns = self.ctx.gathering.turns(&session.key);
        let turn = timeout(GATHER_ALL_WAIT, turns.2.lists.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            let text =
                "other lists of this key are being gathered, and take long; try again in a moment";
            let reason = Reason::new(Code::Busy, text).retry(GATHER_WAIT);
            return Err(self.not_asked(session, listing.method(), reason).await);
        };
        let parts = self.parts(session, listing, aside, &turns.2.asks).await;
        let mut gathered = Gathered::default();
        let mut taken: Vec<(Published, Items)> = Vec::new();
        for (published, part) in parts {
            let mcp = published.mcp.name.clone();
            let (items, missing) = match part {
                Ok((items, false)) => (items, None),
                Ok((items, true)) => (items, Some((Code::ListCut, None))),
                Err(failure) => (Items::new(), Some((failure.code, failure.retry_after))),
            };
            gathered
                .missing
                .extend(missing.map(|(code, retry_after)| Missing {
                    mcp,
                    code,
                    retry_after,
                }));
            taken.push((published, items));
        }
        match listing {
            Listing::Prompts => self.name_prompts(session, taken, &mut gathered).await,
            Listing::Resources | Listing::Templates => {
                for (published, items) in taken {
                    let mcp = &published.mcp.name;
                    gathered
                        .items
                        .extend(items.into_iter().map(|(item, place)| {
                            splice::put(&item, &[place], |own| uri::exposed(mcp, own))
                        }));
                }
            }
        }
        Ok(gathered)
    }

    /// What each server says, in the order of the subscriptions, as far as there is room for it. Once there is none,
    /// nobody is asked any more.
    async fn parts(
        &self,
        session: &Arc<SessionHandle>,
        listing: Listing,
        aside: &Aside<'_>,
        asks: &Semaphore,
    ) -> Vec<(Published, Part)> {
        let whole = Instant::now() + GATHER_ALL_WAIT;
        let able = self.mcps_that(session, |able| listing.is_of(able));
        let full = &AtomicBool::new(false);
        let parts = able.into_iter().map(|published| async move {
            let part = async {
                let Ok(_turn) = asks.acquire().await else {
                    return Err(late(&published));
                };
                if full.load(Ordering::Relaxed) {
                    return Ok((Items::new(), true));
                }
                let until = whole.min(Instant::now() + GATHER_WAIT);
                let asked = self.items(session, &published, listing, aside);
                match timeout_at(until, asked).await {
                    Ok(part) => part,
                    Err(_) => Err(late(&published)),
                }
            };
            let part = match timeout_at(whole, part).await {
                Ok(part) => part,
                Err(_) => Err(late(&published)),
            };
            if matches!(&part, Err(failure) if failure.code == Code::ListLate) {
                self.tell_when_ready(session, &published, listing, aside);
            }
            (published, part)
        });
        let mut parts = std::pin::pin!(stream::iter(parts).buffered(GATHER_SERVERS_MAX));
        let (mut all, mut bytes) = (Vec::new(), 0);
        while let Some((published, part)) = parts.next().await {
            let part = part.map(|(items, more)| fitting(items, more, &mut bytes));
            full.store(bytes > GATHER_BYTES_MAX, Ordering::Relaxed);
            all.push((published, part));
        }
        all
    }

    /// The items of one server, and whether there are more.
    async fn items(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        listing: Listing,
        aside: &Aside<'_>,
    ) -> Part {
        // A switch that is on is no news to the log with every list.
        let deny = tool_of(listing.method())
            .ok()
            .and_then(|tool| self.ctx.denies_call(session, &published.mcp.id, &tool));
        if let Some(deny) = deny {
            return Err(failed(published, failure::denied(&deny)));
        }
        let (mut items, mut cut) = (Items::new(), false);
        let (mut cursor, mut bytes) = (None::<String>, 0);
        for _ in 0..GATHER_PAGES_MAX {
            let params = handshake::list_params(cursor.as_deref());
            let Ok(params) = serde_json::from_slice(&params) else {
                return Ok((items, true));
            };
            let asked = self.passed(session, published, listing.method(), params, aside);
            let answer = match asked.await {
                Outcome::Answered(answer) => answer,
                Outcome::Failed(failure) if has_no_such(&failure) => return Ok((items, cut)),
                Outcome::Failed(failure) => return Err(failure),
            };
            let result = answer.line.get(answer.result.clone()).unwrap_or_default();
            let Ok(page) = serde_json::from_slice::<Page<'_>>(result) else {
                let text = format!(
                    "mcp `{}` answered {} with what is no list",
                    published.mcp.name,
                    listing.method()
                );
                return Err(failed(published, Reason::new(Code::ServerError, text)));
            };
            let (key, longest) = listing.renamed();
            for raw in page.items(listing) {
                let place = splice::find(raw.get(), &[key])
                    .filter(|place| (1..=longest).contains(&place.text.len()));
                bytes += raw.get().len();
                if items.len() >= GATHER_ITEMS_MAX || bytes > GATHER_SERVER_BYTES_MAX {
                    return Ok((items, true));
                }
                match place {
                    Some(place) => items.push((raw.get().to_owned(), place)),
                    None => cut = true,
                }
            }
            cursor = page.next_cursor.map(|cursor| cursor.get().to_owned());
            if cursor.as_deref().is_none_or(|cursor| cursor == "null") {
                return Ok((items, cut));
            }
        }
        Ok((items, true))
    }

    /// The mcps of a session's key whose servers can do something, or may: those that were never started.
    pub(super) fn mcps_that(
        &self,
        session: &SessionHandle,
        can: impl Fn(Abilities) -> bool,
    ) -> Vec<Published> {
        let routes = self.ctx.routes.load();
        let own = routes.view(&session.key).map(|view| view.mcps());
        let able = |published: &&Published| self.ctx.abilities.of(published).is_none_or(&can);
        own.unwrap_or_default()
            .iter()
            .filter(able)
            .cloned()
            .collect()
    }

    /// Refuses what goes to no server, or to nobody knows which. It counts as one that does.
    pub(super) async fn unknown(
        &self,
        session: &SessionHandle,
        method: &str,
        reason: Reason,
    ) -> Outcome {
        let reason = within_rate(&self.ctx, session).err().unwrap_or(reason);
        self.not_asked(session, method, reason).await
    }

    /// Refuses it, and records that.
    async fn not_asked(&self, session: &SessionHandle, method: &str, reason: Reason) -> Outcome {
        let call = CallId::from_random(id_bits());
        self.ctx.totals.calls.fetch_add(1, Ordering::Relaxed);
        let meter = CallMeter::refused(Arc::clone(self.ctx.metrics.no_mcp()));
        self.refused(session, &call, (None, method), &reason).await;
        self.failed(call, None, reason, Instant::now(), &meter)
    }
}

/// Items that there is room for beside these bytes, and whether there are more.
fn fitting(mut items: Items, more: bool, bytes: &mut usize) -> (Items, bool) {
    let whole = items.len();
    let fits = |(item, _): &&(String, Place)| {
        *bytes += item.len();
        *bytes <= GATHER_BYTES_MAX
    };
    let fitting = items.iter().take_while(fits).count();
    items.truncate(fitting);
    (items, more || fitting < whole)
}

fn late(published: &Published) -> Failure {
    let text = format!(
        "mcp `{}` had not answered when the list was given",
        published.mcp.name
    );
    let reason = Reason::new(Code::ListLate, text).retry(GATHER_WAIT);
    failed(published, reason)
}

/// A failure that is told in a list and nowhere else.
fn failed(published: &Published, reason: Reason) -> Failure {
    Failure {
        call: CallId::from_random(id_bits()),
        code: reason.code,
        text: reason.text,
        mcp: Some(published.mcp.name.clone()),
        retry_after: reason.retry_after,
        verdict: None,
        deny: reason.deny,
        error: None,
        modern: false,
        took: Duration::ZERO,
    }
}

/// Many servers with resources have no templates, and say so by not knowing the method.
fn has_no_such(failure: &Failure) -> bool {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    let error = failure.error.as_deref().unwrap_or_default();
    serde_json::from_slice::<Error>(error).is_ok_and(|error| error.code == METHOD_NOT_FOUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_servers_so_many_bytes_are_taken() {
        let items = |count: usize| -> Items {
            let item = format!("{{\"uri\":\"{}\"}}", "a".repeat((1 << 20) - 10));
            assert_eq!(item.len(), 1 << 20);
            let place = || splice::find(&item, &["uri"]).unwrap();
            (0..count).map(|_| (item.clone(), place())).collect()
        };
        let most = GATHER_BYTES_MAX >> 20;
        let mut bytes = 0;
        let (kept, more) = fitting(items(most), false, &mut bytes);
        assert_eq!((kept.len(), more), (most, false));
        let (kept, more) = fitting(items(2), false, &mut bytes);
        assert_eq!((kept.len(), more), (0, true));
        let (kept, more) = fitting(items(0), false, &mut bytes);
        assert_eq!((kept.len(), more), (0, false));
    }
}
