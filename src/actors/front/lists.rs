//! Whether the lists that a session sees have changed: by what is published, subscribed and granted, by what is
//! denied, and by what servers tell of themselves.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::domain::ids::McpId;
use crate::domain::limits::{LIST_SETTLE, MCP_KEEP_ALIVE};
use crate::domain::name::ToolName;
use crate::domain::uri;
use crate::protocol::handshake::Abilities;
use crate::protocol::splice;

use super::super::ctx::Ctx;
use super::super::ears::{Hearing, Subscriber, Told};
use super::super::session::SessionHandle;
use super::Front;

/// What happens to a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListChange {
    /// A server tells of itself.
    Told(Told),
    /// The list of tools is another one now.
    Changed,
    /// Nothing, for a while.
    Same,
    /// Nobody may see it any more: the session has ended, or the server stops.
    Over,
}

/// Follows the lists of a session at one address.
pub struct Lists {
    front: Front,
    session: Arc<SessionHandle>,
    view: Option<String>,
    routes: watch::Receiver<u64>,
    denies: watch::Receiver<u64>,
    stopping: watch::Receiver<bool>,
    who: Subscriber,
    hearing: Option<Hearing>,
    /// Whose servers are heard at the address of one mcp: another mcp may have its name later.
    heard: Option<McpId>,
    news: [News; 2],
    seen: Seen,
}

impl std::fmt::Debug for Lists {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lists").finish_non_exhaustive()
    }
}

/// What lists were like, in short: tools as they are, and of resources and prompts whose they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Seen {
    tools: u64,
    resources: u64,
    prompts: u64,
}

/// That a list of servers has changed: told at once, and what comes soon after is gathered and told once.
struct News {
    what: Told,
    told: Option<Instant>,
    more: bool,
}

impl News {
    const fn new(what: Told) -> Self {
        Self {
            what,
            told: None,
            more: false,
        }
    }

    /// Whether this is told now; not if it is what was told a moment ago, and then it is remembered.
    fn is_told(&mut self, what: &Told) -> bool {
        if *what != self.what {
            return true;
        }
        let is_new = self.told.is_none_or(|told| told.elapsed() >= LIST_SETTLE);
        if is_new {
            self.told = Some(Instant::now());
        }
        self.more = !is_new;
        is_new
    }

    /// When what was gathered is told, if anything was.
    fn due(&self) -> Option<Instant> {
        self.told
            .filter(|_| self.more)
            .map(|told| told + LIST_SETTLE)
    }

    fn take_due(&mut self) -> Option<Told> {
        let is_due = self.due().is_some_and(|due| due <= Instant::now());
        is_due.then(|| {
            self.more = false;
            self.told = Some(Instant::now());
            self.what.clone()
        })
    }
}

impl Front {
    /// Follows what a session sees: of one mcp, or all.
    #[must_use]
    pub fn follow(
        &self,
        session: Arc<SessionHandle>,
        view: Option<String>,
        who: Subscriber,
    ) -> Lists {
        let ctx = &self.ctx;
        let mut lists = Lists {
            front: self.clone(),
            session,
            view,
            routes: ctx.rerouted.subscribe(),
            denies: ctx.kill.changes(),
            stopping: ctx.stopping.subscribe(),
            who,
            hearing: None,
            heard: None,
            news: [News::new(Told::Resources), News::new(Told::Prompts)],
            seen: Seen::default(),
        };
        // After whoever changes what is there has a watcher: nothing falls in between.
        lists.tune();
        lists.seen = lists.now();
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
        let left = self.session.key_lives_for(self.front.ctx.wall_ms());
        let until = Instant::now() + left.map_or(MCP_KEEP_ALIVE, |left| left.min(MCP_KEEP_ALIVE));
        let mut looks = true;
        loop {
            if *self.stopping.borrow() || !is_live(&self.front.ctx, &self.session) {
                return ListChange::Over;
            }
            if looks && let Some(change) = self.change() {
                return change;
            }
            looks = false;
            let gathered = self.news.iter().filter_map(News::due).min();
            tokio::select! {
                () = at(gathered) => match self.news.iter_mut().find_map(News::take_due) {
                    Some(told) => return ListChange::Told(told),
                    None => continue,
                },
                (mcp, told) = hear(&mut self.hearing) => match self.told(&mcp, told) {
                    Some(told) if self.news.iter_mut().all(|news| news.is_told(&told)) => {
                        return ListChange::Told(told);
                    }
                    _ => continue,
                },
                told = self.routes.changed() => if told.is_err() { return ListChange::Over },
                told = self.denies.changed() => if told.is_err() { return ListChange::Over },
                told = self.stopping.changed() => if told.is_err() { return ListChange::Over },
                () = sleep_until(until) => match is_live(&self.front.ctx, &self.session) {
                    true => return ListChange::Same,
                    false => return ListChange::Over,
                },
            }
            looks = true;
            self.tune();
            // What changes together is told once.
            sleep(LIST_SETTLE).await;
        }
    }

    /// Hears the servers of the mcp that has the address's name now. Those of the one before are heard until then: it
    /// may come back.
    fn tune(&mut self) {
        let Some(name) = self.view.as_deref() else {
            if self.hearing.is_none() {
                let ears = &self.front.ctx.ears;
                self.hearing = Some(ears.open(&self.session, self.who, None));
            }
            return;
        };
        let Some(published) = self.front.published(&self.session, name) else {
            return;
        };
        let id = &published.mcp.id;
        if self.heard.as_ref() != Some(id) {
            self.heard = Some(id.clone());
            let ears = &self.front.ctx.ears;
            self.hearing = Some(ears.open(&self.session, self.who, self.heard.clone()));
        }
    }

    /// A list that is another one than when it was looked at, which it counts as from now on.
    fn change(&mut self) -> Option<ListChange> {
        let now = self.now();
        if now.tools != self.seen.tools {
            self.seen.tools = now.tools;
            return Some(ListChange::Changed);
        }
        if now.resources != self.seen.resources {
            self.seen.resources = now.resources;
            return Some(ListChange::Told(Told::Resources));
        }
        if now.prompts != self.seen.prompts {
            self.seen.prompts = now.prompts;
            return Some(ListChange::Told(Told::Prompts));
        }
        None
    }

    fn now(&self) -> Seen {
        let tools = match &self.view {
            None => self.front.tools(&self.session),
            Some(mcp) => self.front.tools_of(&self.session, mcp).unwrap_or_default(),
        };
        let mut hasher = DefaultHasher::new();
        for tool in &tools {
            (&tool.name, tool.definition.get()).hash(&mut hasher);
        }
        Seen {
            tools: hasher.finish(),
            resources: self.owners("resources.list", |able| able.resources),
            prompts: self.owners("prompts.list", |able| able.prompts),
        }
    }

    /// Who has such a list, in short. What is in it only servers know, and tell.
    fn owners(&self, method: &str, has: impl Fn(Abilities) -> bool) -> u64 {
        let mut hasher = DefaultHasher::new();
        let tool = ToolName::parse(method).ok();
        for published in self.front.mcps_that(&self.session, has) {
            let (mcp, view) = (&published.mcp, self.view.as_deref());
            let denied = |tool| {
                let ctx = &self.front.ctx;
                ctx.denies_call(&self.session, &mcp.id, tool).is_some()
            };
            if view.is_none_or(|name| name == mcp.name.as_str())
                && !tool.as_ref().is_some_and(denied)
            {
                (mcp.id.as_str(), &*published.config).hash(&mut hasher);
            }
        }
        hasher.finish()
    }

    /// What a server tells, as it is told here; nothing, if its mcp is not in the view, or not any more: one that is
    /// shared goes on telling others.
    fn told(&self, mcp: &McpId, told: Told) -> Option<Told> {
        let routes = self.front.ctx.routes.load();
        let mut own = routes.view(&self.session.key)?.mcps().iter();
        let published = own.find(|published| published.mcp.id == *mcp)?;
        if self.view.is_some() {
            return Some(told);
        }
        let Told::Updated(line) = told else {
            return Some(told);
        };
        let line = std::str::from_utf8(&line).ok()?;
        let place = splice::find(line, &["params", "uri"])?;
        let exposed = |own: &str| uri::exposed(&published.mcp.name, own);
        Some(Told::Updated(splice::put(line, &[place], exposed).into()))
    }
}

/// What a server tells; never, if none is listened to.
async fn hear(hearing: &mut Option<Hearing>) -> (McpId, Told) {
    match hearing {
        Some(open) => match open.next().await {
            Some(told) => told,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// At that time; never, if there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn is_live(ctx: &Ctx, session: &SessionHandle) -> bool {
    !session.is_revoked()
        && !session.is_key_expired(ctx.wall_ms())
        && ctx.suspension(session.caller()).is_none()
        && ctx.sessions.pin().contains_key(&session.id().bits())
}
