//! Questions of servers that clients with sessions were asked, until they answer: in a request of its own, which
//! names the session and our id.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::{BufMut, Bytes, BytesMut};

use crate::actors::clock::random;
use crate::actors::front::{Asked, TaskQuestion};
use crate::actors::session::SessionHandle;
use crate::api::shares;
use crate::domain::hex::hex;
use crate::domain::ids::ID_BYTES;
use crate::domain::limits::{MCP_LATE_ANSWER, MCP_QUESTIONS_MAX};
use crate::domain::talk::Question;

/// So often those are let go of whose clients do not come back.
const SWEEP_EVERY: u64 = 256;

type Open = HashMap<[u8; ID_BYTES], HashMap<String, Put>>;

/// What was put to a client.
#[derive(Debug)]
enum Put {
    /// For a call: over with its stream.
    OfCall(Box<Asked>),
    /// For a task: its client may let go of a stream and answer all the same.
    /// It is the task that keeps it.
    OfTask(Weak<TaskQuestion>),
}

/// All of them.
#[derive(Debug, Clone)]
pub(super) struct Inquiries {
    /// In each id: sessions outlive the process, and a number that meant a question before must not mean another one.
    life: Arc<str>,
    open: Arc<Mutex<Open>>,
    asked: Arc<AtomicU64>,
    /// How often one of a task was put.
    of_tasks: Arc<AtomicU64>,
}

/// A question that was put to a client. Its server is told that nobody answers when this is dropped.
pub(super) struct Inquiry {
    open: Arc<Mutex<Open>>,
    session: [u8; ID_BYTES],
    /// Our id; raw.
    id: String,
    /// Whether it is of no concern to the request on whose stream it was told; `None` if it is its task's, which
    /// knows when it is over.
    beside: Option<bool>,
    /// What its client is told counts as its key's until it has answered.
    _request: Bytes,
    /// Its server takes it back.
    pub(super) withdrawn: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Default for Inquiries {
    fn default() -> Self {
        Self {
            life: hex(&random::<4>()).into(),
            open: Arc::default(),
            asked: Arc::default(),
            of_tasks: Arc::default(),
        }
    }
}

impl Inquiries {
    /// Puts a question to a session's client: what to tell it. `None` if it has its fill.
    pub(super) fn put(
        &self,
        session: &SessionHandle,
        asked: Box<Asked>,
    ) -> Option<(Inquiry, Bytes)> {
        let (session, key) = (session.id().bits(), &session.key);
        let id = self.id();
        let request = shares::kept(&request(&id, asked.method, &asked.params), key)?;
        let withdrawn = Box::pin(asked.withdrawn());
        let beside = Some(asked.question == Question::Roots);
        let mut open = lock(&self.open);
        let own = open.entry(session).or_default();
        own.retain(|_, put| put.is_open());
        if own.len() >= MCP_QUESTIONS_MAX {
            return None;
        }
        own.insert(id.clone(), Put::OfCall(asked));
        let inquiry = Inquiry {
            open: Arc::clone(&self.open),
            session,
            id,
            beside,
            _request: request.clone(),
            withdrawn,
        };
        Some((inquiry, request))
    }

    /// Puts a question of a task to a session's client, or puts it again under the same id.
    pub(super) fn put_of_task(
        &self,
        session: &SessionHandle,
        question: Arc<TaskQuestion>,
    ) -> Option<(Inquiry, Bytes)> {
        let (session, key) = (session.id().bits(), &session.key);
        let withdrawn = Box::pin(question.withdrawn());
        let mut open = lock(&self.open);
        let puts = self.of_tasks.fetch_add(1, Ordering::Relaxed);
        if puts.is_multiple_of(SWEEP_EVERY) {
            sweep(&mut open);
        }
        let own = open.entry(session).or_default();
        own.retain(|_, put| put.is_open());
        let asked = Arc::downgrade(&question);
        let same = |put: &Put| matches!(put, Put::OfTask(other) if other.ptr_eq(&asked));
        let known = own.iter().find(|(_, put)| same(put));
        let id = match known.map(|(id, _)| id.clone()) {
            Some(id) => id,
            None if own.len() >= MCP_QUESTIONS_MAX => return None,
            None => self.id(),
        };
        let request = shares::kept(&request(&id, question.method, &question.params), key)?;
        own.insert(id.clone(), Put::OfTask(asked));
        let inquiry = Inquiry {
            open: Arc::clone(&self.open),
            session,
            id,
            beside: None,
            _request: request.clone(),
            withdrawn,
        };
        Some((inquiry, request))
    }

    /// The question that a session's client answers.
    pub(super) fn answered(&self, session: &SessionHandle, id: &str) -> Option<Box<Asked>> {
        match take(&self.open, session.id().bits(), id)? {
            Put::OfCall(asked) => Some(asked),
            Put::OfTask(question) => question.upgrade()?.take(),
        }
    }

    /// An id that no other question has; raw.
    fn id(&self) -> String {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        format!("\"legation-{}-{number}\"", self.life)
    }
}

impl Inquiry {
    /// Whether the client may still answer it.
    pub(super) fn is_open(&self) -> bool {
        let open = lock(&self.open);
        let own = open.get(&self.session);
        own.is_some_and(|own| own.contains_key(&self.id))
    }

    /// Whether it is open and of no use without its call.
    pub(super) fn ends_with_its_call(&self) -> bool {
        self.beside == Some(false) && self.is_open()
    }

    /// What a client is told when its server does not want an answer any more.
    pub(super) fn taken_back(&self) -> Bytes {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":{},\
             \"reason\":\"the server does not want an answer any more\"}}}}",
            self.id
        )
        .into()
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        let (open, session, id) = (Arc::clone(&self.open), self.session, self.id.clone());
        let Some(beside) = self.beside else {
            // What is open still may be answered without this stream.
            forget_closed(&mut lock(&open), &session);
            return;
        };
        if !beside {
            // Outside of the lock: what goes tells its server.
            drop(take(&open, session, &id));
        } else if lock(&open)
            .get(&session)
            .is_some_and(|own| own.contains_key(&id))
        {
            // A client that was told in time answers when it can.
            tokio::spawn(async move {
                tokio::time::sleep(MCP_LATE_ANSWER).await;
                drop(take(&open, session, &id));
            });
        }
    }
}

impl Put {
    fn is_open(&self) -> bool {
        match self {
            Self::OfCall(_) => true,
            Self::OfTask(question) => question.upgrade().is_some_and(|one| one.is_open()),
        }
    }
}

fn request(id: &str, method: &str, params: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(96 + id.len() + params.len());
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.put_slice(id.as_bytes());
    out.put_slice(b",\"method\":\"");
    out.put_slice(method.as_bytes());
    out.put_slice(b"\",\"params\":");
    out.put_slice(params);
    out.put_u8(b'}');
    out.freeze()
}

fn take(open: &Mutex<Open>, session: [u8; ID_BYTES], id: &str) -> Option<Put> {
    let mut open = lock(open);
    let own = open.get_mut(&session)?;
    let asked = own.remove(id);
    if own.is_empty() {
        open.remove(&session);
    }
    asked
}

/// Lets go of what a session's client need not answer any more.
fn forget_closed(open: &mut Open, session: &[u8; ID_BYTES]) {
    let Some(own) = open.get_mut(session) else {
        return;
    };
    own.retain(|_, put| put.is_open());
    if own.is_empty() {
        open.remove(session);
    }
}

/// The same of all sessions: of one that is gone nobody else does.
fn sweep(open: &mut Open) {
    open.retain(|_, own| {
        own.retain(|_, put| put.is_open());
        !own.is_empty()
    });
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}
