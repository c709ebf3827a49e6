//! Who is behind a call: what lists of calls show, and what cancelling one goes by.
//!
//! A call in flight carries its [`Tag`] in the pending table of its run. A call that waits for a
//! server to start has a seat in [`Waiting`]; calls that never wait never touch it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::domain::ids::{CallId, McpId};
use crate::domain::kill::{Caller, Deny, Target};
use crate::domain::limits::CALLS_WAITING_MAX;
use crate::domain::name::{Name, ToolName};
use crate::domain::talk::{Level, Question};
use crate::protocol::tasks::Seen;

use super::handle::{Asked, Turn};
use super::session::SessionHandle;
use super::sync::Mutex;
use super::tasks::TaskQuestion;

/// Who calls what, since when. Cloning it allocates nothing.
#[derive(Debug, Clone)]
pub struct Tag {
    /// The call.
    pub call: CallId,
    /// Whose it is.
    pub session: Arc<SessionHandle>,
    /// The tool, by its own name.
    pub tool: ToolName,
    /// What is learned of the same as of this.
    pub what: u64,
    /// When it was admitted.
    pub since: Instant,
    /// When it is over at the latest.
    pub until: Instant,
    /// Who hears what its server says meanwhile.
    pub news: Option<mpsc::Sender<News>>,
    /// What says whether it is the one whose server may ask now, if it waited for that.
    pub turn: Option<Arc<Turn>>,
    /// Whether its caller can be asked when it is over.
    pub late: bool,
    /// From which level on its caller hears what the server logs.
    pub level: Option<Level>,
    /// Whether it waits for the end of a task of its server.
    pub task: bool,
}

/// What a server says while it works on a call.
#[derive(Debug)]
pub enum News {
    /// How far it is.
    Progress(Progress),
    /// What it logs; the line as it wrote it.
    Log(Bytes),
    /// A question to who called.
    Asked(Box<Asked>),
    /// The same for a task, which may be asked by whoever waits for it.
    AskedForTask(Arc<TaskQuestion>),
    /// It would have asked this, had its caller said that it can answer.
    Lacks(Question),
    /// How a task stands.
    Stands(Seen),
}

/// A line that tells of progress, and where our token is in it.
#[derive(Debug)]
pub struct Progress {
    /// As the server wrote it.
    pub line: Bytes,
    /// The token.
    pub token: Range<usize>,
}

impl Progress {
    /// The line with a client's token in place of ours.
    #[must_use]
    pub fn with(&self, token: &str) -> Bytes {
        let mut out = BytesMut::with_capacity(self.line.len() + token.len());
        out.put_slice(self.line.get(..self.token.start).unwrap_or_default());
        out.put_slice(token.as_bytes());
        out.put_slice(self.line.get(self.token.end..).unwrap_or_default());
        out.freeze()
    }
}

impl SessionHandle {
    /// Who calls, as the deny table asks.
    #[must_use]
    pub fn caller(&self) -> Caller<'_> {
        Caller {
            user: &self.user.id,
            key: &self.key,
        }
    }
}

impl Tag {
    /// A call of nobody in particular.
    #[cfg(test)]
    pub(crate) fn for_tests(bits: [u8; crate::domain::ids::ID_BYTES]) -> Self {
        use crate::domain::account::{Session, User};
        use crate::domain::ids::{ConnectionId, KeyId, SessionId, UserId};
        use crate::domain::talk::Questions;
        let user = User {
            id: UserId::from_random(bits),
            name: Name::parse("ada").unwrap(),
            created_at: 0,
        };
        let row = Session {
            id: SessionId::from_random(bits),
            key: KeyId::from_random(bits),
            user: user.id.clone(),
            connection: ConnectionId::from_random(bits),
            friendly_name: String::new(),
            host_tool: String::new(),
            questions: Questions::NONE,
            created_at: 0,
            seen_at: 0,
            expires_at: 0,
        };
        Self {
            call: CallId::from_random(bits),
            session: Arc::new(SessionHandle::new(row, user, None)),
            tool: ToolName::parse("echo").unwrap(),
            what: 0,
            since: Instant::now(),
            until: Instant::now(),
            news: None,
            turn: None,
            late: false,
            level: None,
            task: false,
        }
    }

    /// Whether a deny of this target is meant for this call of an mcp.
    #[must_use]
    pub fn is_hit(&self, target: &Target, mcp: &McpId) -> bool {
        match target {
            Target::Tool(of, tool) => of == mcp && *tool == self.tool,
            Target::Mcp(of) => of == mcp,
            Target::User(user) => *user == self.session.user.id,
            Target::Client(key) => *key == self.session.key,
            Target::All => true,
        }
    }
}

/// Why a call was cut off while its server lives on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// A deny came into force.
    Denied(Arc<Deny>),
    /// An administrator cancelled this very call, with these words.
    Asked(Arc<str>),
    /// Its key was revoked, or has expired.
    Revoked,
}

impl Why {
    /// The reason, as its author put it.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Denied(deny) => &deny.reason,
            Self::Asked(reason) => reason,
            Self::Revoked => "its key was revoked or has expired",
        }
    }
}

/// One call that waits.
#[derive(Debug)]
struct Waiter {
    tag: Tag,
    mcp: McpId,
    name: Name,
    cancelled: watch::Sender<Option<Arc<str>>>,
}

/// A call that waits, for who looks.
#[derive(Debug, Clone)]
pub struct Seated {
    /// Who calls what.
    pub tag: Tag,
    /// Of which mcp.
    pub mcp: McpId,
    /// What that is called.
    pub name: Name,
}

/// The calls that wait, or have waited and are now in flight.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<CallId, Waiter>>);

/// More calls wait than there are seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoSeat;

impl Waiting {
    /// Takes a seat for the rest of the call.
    pub(super) fn sit(&self, tag: Tag, mcp: McpId, name: Name) -> Result<Seat<'_>, NoSeat> {
        let mut waiters = self.0.lock();
        if waiters.len() >= CALLS_WAITING_MAX {
            return Err(NoSeat);
        }
        let call = tag.call.clone();
        let (cancelled, told) = watch::channel(None);
        let waiter = Waiter {
            tag,
            mcp,
            name,
            cancelled,
        };
        waiters.insert(call.clone(), waiter);
        Ok(Seat {
            waiting: self,
            call,
            told,
        })
    }

    /// Cancels a call that waits; tells whether there was one. If it is in flight by now it is
    /// found there, or sees this before it is sent.
    pub(super) fn cancel(&self, call: &CallId, reason: &Arc<str>) -> bool {
        let waiters = self.0.lock();
        let Some(waiter) = waiters.get(call) else {
            return false;
        };
        waiter.cancelled.send_replace(Some(Arc::clone(reason)));
        true
    }

    /// All that wait.
    #[must_use]
    pub fn all(&self) -> Vec<Seated> {
        let waiters = self.0.lock();
        let seated = waiters.values().map(|waiter| Seated {
            tag: waiter.tag.clone(),
            mcp: waiter.mcp.clone(),
            name: waiter.name.clone(),
        });
        seated.collect()
    }
}

/// A seat; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    waiting: &'a Waiting,
    call: CallId,
    told: watch::Receiver<Option<Arc<str>>>,
}

impl Seat<'_> {
    /// Why the call was cancelled, if it was.
    pub(super) fn cancelled(&self) -> Option<Arc<str>> {
        self.told.borrow().clone()
    }

    /// Resolves when the call is cancelled.
    pub(super) async fn hear(&mut self) {
        // Its sender goes only with this seat.
        let _ = self.told.wait_for(Option::is_some).await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn sit(waiting: &Waiting, n: u8) -> Result<Seat<'_>, NoSeat> {
        let mut bits = [n; ID_BYTES];
        bits[9] = 1;
        let mcp = McpId::from_random(bits);
        waiting.sit(Tag::for_tests(bits), mcp, Name::parse("demo").unwrap())
    }

    #[test]
    fn progress_is_told_with_the_client_s_token() {
        let line = br#"{"params":{"progressToken":7,"progress":1}}"#;
        let progress = Progress {
            line: Bytes::from_static(line),
            token: 27..28,
        };
        let told = progress.with("\"mine\"");
        assert_eq!(told, r#"{"params":{"progressToken":"mine","progress":1}}"#);
    }

    #[tokio::test]
    async fn a_seat_hears_of_its_own_cancelling_and_is_given_back() {
        let waiting = Waiting::default();
        let (mut one, other) = (sit(&waiting, 1).unwrap(), sit(&waiting, 2).unwrap());
        assert_eq!(waiting.all().len(), 2);
        let call = one.call.clone();
        assert!(waiting.cancel(&call, &"enough".into()));
        one.hear().await;
        assert_eq!(one.cancelled().as_deref(), Some("enough"));
        assert_eq!(other.cancelled(), None);
        drop(one);
        assert!(!waiting.cancel(&call, &"enough".into()));
        assert_eq!(waiting.all().len(), 1);
    }

    #[test]
    fn there_are_so_many_seats_and_no_more() {
        let waiting = Waiting::default();
        let mut seats = Vec::new();
        for n in 0..CALLS_WAITING_MAX {
            let mut bits = [0; ID_BYTES];
            bits[..8].copy_from_slice(&n.to_be_bytes());
            let mcp = McpId::from_random(bits);
            let name = Name::parse("demo").unwrap();
            seats.push(waiting.sit(Tag::for_tests(bits), mcp, name).unwrap());
        }
        assert_eq!(sit(&waiting, 255).unwrap_err(), NoSeat);
        seats.pop();
        sit(&waiting, 255).unwrap();
    }
}
