//! Whether the list of tools that a session sees has changed: by what is published, subscribed and granted,
//! and by what is denied.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::limits::{LIST_SETTLE, MCP_KEEP_ALIVE};

use super::super::ctx::Ctx;
use super::super::ears::{Hearing, Subscriber, Told};
use super::super::session::SessionHandle;
use super::Front;

/// What happens to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChange {
    /// A server tells of itself.
    Told(Told),
    /// It is another one now.
    Changed,
    /// Nothing, for a while.
    Same,
    /// Nobody may see it any more: the session has ended, or the server stops.
    Over,
}

/// Follows the tools of a session at one address.
pub struct Lists {
    front: Front,
    session: Arc<SessionHandle>,
    view: Option<String>,
    routes: watch::Receiver<u64>,
    denies: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    hearing: Option<Hearing>,
    seen: u64,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").finish_non_exhaustive()
    }
}

impl Front {
    /// Follows the tools that a session sees: of one mcp, or all.
    #[must_use]
    pub fn follow(
        &self,
        session: Arc<SessionHandle>,
        view: Option<String>,
        who: Subscriber,
    ) -> Lists {
        let ctx = &self.ctx;
        let published = view
            .as_deref()
            .and_then(|mcp| self.published(&session, mcp));
        let mcp = published.map(|found| found.mcp.id.clone());
        let hearing = Some(ctx.ears.open(&session, who, mcp));
        let mut lists = Lists {
            front: self.clone(),
            session,
            view,
            routes: ctx.rerouted.subscribe(),
            denies: ctx.kill.changes(),
            stopping: ctx.stopping.subscribe(),
            hearing,
            seen: 0,
        };
        lists.seen = lists.digest();
        lists
    }
}

impl Front {
    /// Whether a session may still be told anything.
    #[must_use]
    pub fn is_live(&self, session: &SessionHandle) -> bool {
        is_live(&self.ctx, session)
    }
}

impl Lists {
    /// What happens next. Dropping the future loses nothing.
    pub async fn next(&mut self) -> ListChange {
        let until = Instant::now() + MCP_KEEP_ALIVE;
        loop {
            if *self.stopping.borrow() || !is_live(&self.front.ctx, &self.session) {
                return ListChange::Over;
            }
            let seen = self.digest();
            if seen != self.seen {
                self.seen = seen;
                return ListChange::Changed;
            }
            tokio::select! {
                told = hear(&mut self.hearing) => return ListChange::Told(told),
                told = self.routes.changed() => if told.is_err() { return ListChange::Over },
                told = self.denies.changed() => if told.is_err() { return ListChange::Over },
                told = self.stopping.changed() => if told.is_err() { return ListChange::Over },
                () = sleep_until(until) => return ListChange::Same,
            }
            // What changes together is told once.
            sleep(LIST_SETTLE).await;
        }
    }

    fn digest(&self) -> u64 {
        let tools = match &self.view {
            None => self.front.tools(&self.session),
            Some(mcp) => self.front.tools_of(&self.session, mcp).unwrap_or_default(),
        };
        let mut hasher = DefaultHasher::new();
        for tool in &tools {
            (&tool.name, tool.definition.get()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What a server tells; never, if none is listened to.
async fn hear(hearing: &mut Option<Hearing>) -> Told {
    match hearing {
        Some(open) => match open.next().await {
            Some(told) => told,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn is_live(ctx: &Ctx, session: &SessionHandle) -> bool {
    !session.is_revoked()
        && ctx.suspension(session.caller()).is_none()
        && ctx.sessions.pin().contains_key(&session.id().bits())
}
