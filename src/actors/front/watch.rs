//! Subscriptions to resources: kept by isolate and resource, so that its server is asked once however many subscribe.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::domain::code::Code;
use crate::domain::ids::CallId;
use crate::domain::limits::{LISTEN_OPEN_WAIT, WATCHED_URI_BYTES_MAX};
use crate::domain::talk::Questions;
use crate::telemetry::metrics::mcp::CallMeter;

use super::super::catalog::Published;
use super::super::clock::id_bits;
use super::super::ears::Subscriber;
use super::super::failure::Reason;
use super::super::router;
use super::super::session::SessionHandle;
use super::ask::LOOK;
use super::{Answer, Aside, Front, Outcome};

pub(super) const SUBSCRIBE: &str = "resources/subscribe";
pub(super) const UNSUBSCRIBE: &str = "resources/unsubscribe";

impl Front {
    /// Subscribes to a resource in the name of `who`, or ends that.
    pub(super) async fn watch(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        (method, params): (&str, &RawValue),
        aside: &Aside<'_>,
        who: Subscriber,
    ) -> Outcome {
        let uri = match uri_of(params) {
            Some(uri) if uri.len() <= WATCHED_URI_BYTES_MAX => uri,
            _ => {
                let text = format!("`uri` must be text of at most {WATCHED_URI_BYTES_MAX} bytes");
                return self.unfit(published, Reason::new(Code::InvalidRequest, text));
            }
        };
        let ctx = &self.ctx;
        let slot = router::find(ctx, session, published, aside.questions);
        let ends = method == UNSUBSCRIBE;
        // One that does not run is told when it begins what it is to tell, and has nothing to end.
        if ends && !(slot.watched.remove(&uri, who) && slot.is_running()) {
            return nothing_to_do(published);
        }
        // Which way it goes, the run that is there decides: one user's server may be another than is published.
        if slot.ready().is_none() {
            match self.look(session, published, aside).await {
                Outcome::Answered(_) => {}
                failed @ Outcome::Failed(_) => return failed,
            }
        }
        let is_modern = slot.ready().is_some_and(|run| run.is_modern());
        if ends {
            return match is_modern {
                true => nothing_to_do(published),
                false => self.asked(session, published, method, params, aside).await,
            };
        }
        // Who left without a word makes room.
        slot.watched
            .keep(|who| ctx.sessions.pin().contains_key(who) || ctx.ears.is_open(who));
        if slot.watched.add(&uri, who).is_err() {
            let text =
                "too many resources of this server are subscribed to; end some of that first";
            return self.unfit(published, Reason::new(Code::Busy, text));
        }
        let outcome = match is_modern {
            true => self.watch_modern(session, published, aside).await,
            false => self.asked(session, published, method, params, aside).await,
        };
        if matches!(outcome, Outcome::Failed(_)) {
            slot.watched.remove(&uri, who);
        }
        outcome
    }

    /// Waits until servers without sessions tell of these resources of theirs; not for long.
    pub async fn told_of(
        &self,
        session: &SessionHandle,
        resources: &[(String, String)],
        questions: Questions,
    ) {
        let until = Instant::now() + LISTEN_OPEN_WAIT;
        for (mcp, uri) in resources {
            let Some(published) = self.published(session, mcp) else {
                continue;
            };
            let slot = router::find(&self.ctx, session, &published, questions);
            let is_modern = slot.ready().is_some_and(|run| run.is_modern());
            // While nobody listens, it is not told to tell.
            if is_modern && self.ctx.ears.listen(&slot.key) {
                let _ = timeout_at(until, slot.watched.is_told(uri)).await;
            }
        }
    }

    /// A server without sessions is listened to ([`super::super::run`]), as far as it is there and can do this.
    async fn watch_modern(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        aside: &Aside<'_>,
    ) -> Outcome {
        let mcp = published.mcp.name.as_str();
        let able = self.abilities(session, aside.questions, mcp).await;
        if !able.unwrap_or_default().subscribe {
            let text = format!("the server of mcp `{mcp}` tells nothing of single resources");
            return self.unfit(published, Reason::new(Code::ServerError, text));
        }
        match self.look(session, published, aside).await {
            Outcome::Answered(_) => nothing_to_do(published),
            failed @ Outcome::Failed(_) => failed,
        }
    }

    /// Starts its server, if it does not run.
    async fn look(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        aside: &Aside<'_>,
    ) -> Outcome {
        match serde_json::from_str("{}") {
            Ok(none) => self.asked(session, published, LOOK, none, aside).await,
            Err(_) => nothing_to_do(published),
        }
    }

    fn unfit(&self, published: &Published, reason: Reason) -> Outcome {
        let meter = CallMeter::refused(Arc::clone(&published.meter));
        let call = CallId::from_random(id_bits());
        let admitted = Instant::now();
        self.failed(
            call,
            Some(published.mcp.name.clone()),
            reason,
            admitted,
            &meter,
        )
    }
}

/// The resource that is subscribed to.
pub(super) fn uri_of(params: &RawValue) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        uri: Cow<'a, str>,
    }
    let params: Params<'_> = serde_json::from_str(params.get()).ok()?;
    Some(params.uri)
}

/// Others are subscribed still, so its server is not told.
fn nothing_to_do(published: &Published) -> Outcome {
    let meter = CallMeter::begin(Arc::clone(&published.meter), 0);
    meter.answered(2);
    Outcome::Answered(Answer {
        call: CallId::from_random(id_bits()),
        mcp: published.mcp.name.clone(),
        line: Bytes::from_static(b"{}"),
        result: 0..2,
        modern: false,
        took: Duration::ZERO,
        meter,
    })
}
