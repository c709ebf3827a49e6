//! One task: how it stands, what is asked for it, and what it ended with.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::account::Millis;
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, McpId, TaskId, UserId};
use crate::domain::limits::{
    MCP_NEWS_MAX, TASK_FRESH, TASK_NEWS_MAX, TASK_POLL, TASK_TTL, TASK_TTL_MAX, millis,
};
use crate::domain::name::ToolName;
use crate::domain::talk::Level;
use crate::protocol::tasks::{Seen, Shown, Status};

use super::super::calls::News;
use super::super::clock::Clock;
use super::super::ears::Ears;
use super::super::front::Failure;
use super::super::handle::Handle;
use super::super::session::SessionHandle;
use super::super::sync::Mutex;
use super::TaskQuestion;
use super::looking::Look;

/// Who makes a task.
#[derive(Debug, Clone, Default)]
pub struct Maker {
    /// For how long it is to be kept, in milliseconds.
    pub ttl: Option<u64>,
    /// What its client calls its progress; raw.
    pub token: Option<Box<str>>,
    /// From which level on its client hears what its server logs.
    pub level: Option<Level>,
    /// Whether its client knows of no sessions.
    pub stateless: bool,
    /// Whether it was made where all servers are.
    pub everywhere: bool,
}

/// What a task ended with.
#[derive(Debug, Clone)]
pub enum End {
    /// A result, which may say that it failed.
    Result {
        /// As its server wrote it, but for whose task it is.
        result: Bytes,
        /// Whether it says so.
        is_error: bool,
    },
    /// None, and why.
    Failed(Failure),
}

/// See the module.
#[derive(Debug)]
pub struct Task {
    /// What it is called.
    pub id: TaskId,
    /// Whose it is.
    pub key: KeyId,
    /// Whose that key is.
    pub user: UserId,
    /// What was called.
    pub mcp: McpId,
    /// Its tool.
    pub tool: ToolName,
    pub(super) session: Arc<SessionHandle>,
    pub(super) maker: Maker,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) ears: Arc<Ears>,
    created_at: Millis,
    born: Instant,
    tell: mpsc::Sender<News>,
    /// What its client with a session hears of it on a stream.
    pub(super) lines: broadcast::Sender<Bytes>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) look: Look,
    pub(super) over: CancellationToken,
    kept: AtomicUsize,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) begun: bool,
    pub(super) message: Option<Box<str>>,
    pub(super) updated_at: Millis,
    /// The status that was told last.
    told: Status,
    ttl: Duration,
    pub(super) poll: Duration,
    /// What its server said beside it when it made it; an object.
    meta: Option<Box<str>>,
    pub(super) questions: Vec<Arc<TaskQuestion>>,
    pub(super) asked: u16,
    server: Option<(Weak<Handle>, Box<str>)>,
    pub(super) looked: Instant,
    pub(super) end: Option<(Instant, Status, End)>,
}

impl Task {
    /// One that its server has not made yet, and where its news come.
    pub(in crate::actors) fn new(
        session: &Arc<SessionHandle>,
        (mcp, tool): (McpId, ToolName),
        maker: Maker,
        (id, clock, ears): (TaskId, Arc<dyn Clock>, Arc<Ears>),
    ) -> (Arc<Self>, mpsc::Receiver<News>) {
        let (tell, news) = mpsc::channel(MCP_NEWS_MAX);
        let now = clock.wall_ms();
        let state = State {
            begun: false,
            message: None,
            updated_at: now,
            told: Status::Working,
            ttl: kept_for(maker.ttl),
            poll: TASK_POLL,
            meta: None,
            questions: Vec::new(),
            asked: 0,
            server: None,
            looked: Instant::now(),
            end: None,
        };
        let task = Self {
            id,
            key: session.key.clone(),
            user: session.user.id.clone(),
            mcp,
            tool,
            session: Arc::clone(session),
            maker,
            clock,
            ears,
            created_at: now,
            born: Instant::now(),
            tell,
            lines: broadcast::Sender::new(TASK_NEWS_MAX),
            changes: watch::Sender::new(0),
            look: Look::default(),
            over: CancellationToken::new(),
            kept: AtomicUsize::new(0),
            state: Mutex::new(state),
        };
        (Arc::new(task), news)
    }

    /// Where what its server says of it goes.
    pub(in crate::actors) fn listener(&self) -> mpsc::Sender<News> {
        self.tell.clone()
    }

    /// For how long its client wants it to be kept, within the bound.
    pub(in crate::actors) fn wished_ms(&self) -> Option<u64> {
        self.maker.ttl.map(|ttl| ttl.min(millis(TASK_TTL_MAX)))
    }

    /// Until when it is kept, as its server says.
    pub(in crate::actors) fn until(&self, seen: &Seen) -> Instant {
        self.born + kept_for(seen.ttl.or(self.maker.ttl))
    }

    /// Its server has made it.
    pub(in crate::actors) fn begins(
        &self,
        handle: &Arc<Handle>,
        seen: &Seen,
        meta: Option<&RawValue>,
    ) {
        {
            let mut state = self.state.lock();
            state.begun = true;
            state.ttl = kept_for(seen.ttl.or(self.maker.ttl));
            state.poll = seen.poll;
            state.message.clone_from(&seen.message);
            state.meta = meta.map(|meta| meta.get().into());
            state.server = Some((Arc::downgrade(handle), seen.id.clone()));
            state.looked = Instant::now();
        }
        self.changed();
    }

    /// Whether it can be found: its server has made it, or it has ended.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.state.lock().begun
    }

    /// Waits for that.
    pub(in crate::actors) async fn begun(&self) {
        let mut changes = self.changes.subscribe();
        while !self.has_begun() {
            // It is we who hold the sender.
            let _ = changes.changed().await;
        }
    }

    /// Whether nothing comes after.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.lock().end.is_some()
    }

    pub(super) fn ended_at(&self) -> Option<Instant> {
        self.state.lock().end.as_ref().map(|(at, ..)| *at)
    }

    /// Whether its time is over.
    pub(in crate::actors) fn is_over(&self, now: Instant) -> bool {
        let state = self.state.lock();
        state.end.is_some() && now >= self.born + state.ttl
    }

    pub(super) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    pub(super) fn keeps(&self, bytes: usize) {
        self.kept.store(bytes, Ordering::Relaxed);
    }

    /// How it stands and what it ended with, if it has.
    #[must_use]
    pub fn look(&self) -> (Shown, Option<End>) {
        let state = self.state.lock();
        let shown = Shown {
            id: self.id.as_str().into(),
            status: state.status(),
            message: state.message.clone(),
            created_at: self.created_at,
            updated_at: state.updated_at,
            ttl: millis(state.ttl),
            poll: state.poll,
        };
        (shown, state.end.as_ref().map(|(.., end)| end.clone()))
    }

    /// What its server said beside it when it made it: members of `_meta`, as an object.
    #[must_use]
    pub fn meta(&self) -> Option<Box<str>> {
        self.state.lock().meta.clone()
    }

    /// Whether it was made where all servers are.
    pub(in crate::actors) const fn is_everywhere(&self) -> bool {
        self.maker.everywhere
    }

    /// Whether the key that made it has expired.
    pub(in crate::actors) fn is_key_expired(&self, now: Millis) -> bool {
        self.session.is_key_expired(now)
    }

    /// Whether the session that made it is no more.
    pub(in crate::actors) fn is_session_revoked(&self) -> bool {
        self.session.is_revoked()
    }

    /// Whether its client knows of no sessions.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.maker.stateless
    }

    /// What is asked and not answered.
    #[must_use]
    pub fn questions(&self) -> Vec<Arc<TaskQuestion>> {
        let state = self.state.lock();
        let open = state.questions.iter().filter(|question| question.is_open());
        open.cloned().collect()
    }

    /// Answers what was asked under this name, if it waits for that still; raw.
    pub fn answer(self: &Arc<Self>, key: &str, result: Bytes) {
        let questions = self.questions();
        let meant = questions.iter().find(|question| *question.key == *key);
        let Some(asked) = meant.and_then(|question| question.take()) else {
            return;
        };
        // It waits for the server to read.
        tokio::spawn(asked.answer(Ok(result)));
    }

    /// Where its server can be asked how it stands, if it was not asked a moment ago.
    pub(in crate::actors) fn stale(&self) -> Option<(Arc<Handle>, Box<str>)> {
        let mut state = self.state.lock();
        if state.end.is_some() || state.looked.elapsed() < TASK_FRESH {
            return None;
        }
        let (handle, name) = state.server.as_ref()?;
        let found = (handle.upgrade()?, name.clone());
        state.looked = Instant::now();
        Some(found)
    }

    /// Something of what is asked has changed.
    pub fn settle(&self) {
        let is_news = {
            let mut state = self.state.lock();
            let status = state.status();
            let is_news = status != state.told && state.end.is_none();
            if is_news {
                state.told = status;
                state.updated_at = self.clock.wall_ms();
            }
            is_news
        };
        if is_news {
            self.tell_status();
        }
        self.changed();
    }

    /// It has ended, the first time this is said.
    pub(in crate::actors) fn end(&self, end: End) -> bool {
        let questions = {
            let mut state = self.state.lock();
            if state.end.is_some() {
                return false;
            }
            let status = status_of(&end);
            state.begun = true;
            state.told = status;
            state.updated_at = self.clock.wall_ms();
            match &end {
                End::Failed(failure) => state.message = Some(failure.text.as_str().into()),
                End::Result { is_error: true, .. } if state.message.is_none() => {
                    state.message =
                        Some("the tool says that it failed; its result has more".into());
                }
                End::Result { .. } => {}
            }
            state.end = Some((Instant::now(), status, end));
            state.server = None;
            std::mem::take(&mut state.questions)
        };
        self.over.cancel();
        // Whoever was asked need not answer any more.
        for question in questions {
            drop(question.take());
        }
        self.tell_status();
        self.changed();
        true
    }

    /// Resolves when it has ended, or is cancelled.
    pub(in crate::actors) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.over.clone().cancelled_owned()
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }
}

impl State {
    fn status(&self) -> Status {
        match &self.end {
            Some((_, status, _)) => *status,
            None if self.questions.iter().any(|question| question.is_open()) => {
                Status::InputRequired
            }
            None => Status::Working,
        }
    }
}

/// Within the bound.
fn kept_for(ttl: Option<u64>) -> Duration {
    ttl.map_or(TASK_TTL, Duration::from_millis)
        .min(TASK_TTL_MAX)
}

/// What is taken away is cancelled; so is what nobody wants any more.
fn status_of(end: &End) -> Status {
    match end {
        End::Result {
            is_error: false, ..
        } => Status::Completed,
        End::Result { is_error: true, .. } => Status::Failed,
        End::Failed(failure) => match failure.code {
            Code::Cancelled
            | Code::KillSwitchActive
            | Code::UserDisabled
            | Code::NotSubscribed
            | Code::SessionSuspended => Status::Cancelled,
            _ => Status::Failed,
        },
    }
}
