//! Connections of the transport of 2024-11-05 that are open: so many of a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use tokio::sync::{
    Mutex as Turns, MutexGuard as Turn, Notify, OwnedSemaphorePermit, Semaphore, mpsc,
};
use tokio_util::sync::CancellationToken;

use crate::actors::clock::random;
use crate::actors::front::Bearer;
use crate::actors::session::SessionHandle;
use crate::domain::hex::hex;
use crate::domain::ids::KeyId;
use crate::domain::limits::{MCP_CALLS_MAX, MCP_SSE_KEY_MAX, MCP_UNREAD_MAX};

/// One of them.
#[derive(Debug)]
pub(super) struct Line {
    /// What messages name it by.
    pub(super) id: String,
    key: KeyId,
    /// The mcp whose address it came to.
    pub(super) view: Option<String>,
    /// What opened it.
    pub(super) bearer: Bearer,
    session: OnceLock<Arc<SessionHandle>>,
    begun: Notify,
    /// Who holds it may tell something; an event is told as a whole.
    tell: Turns<mpsc::Sender<Bytes>>,
    /// Requests that wait for their answers to be taken.
    places: Arc<Semaphore>,
    /// It ends.
    pub(super) over: CancellationToken,
}

type Open = HashMap<String, Arc<Line>>;

/// All of them.
#[derive(Debug, Default, Clone)]
pub(in crate::api::mcp) struct Lines(Arc<Mutex<Open>>);

/// A place among them, given back when it is dropped.
pub(super) struct Place {
    lines: Lines,
    pub(super) line: Arc<Line>,
}

impl Lines {
    /// Takes a new one in; `None` if its key has its fill.
    pub(super) fn open(&self, line: Line) -> Option<Place> {
        let mut open = lock(&self.0);
        let own = open.values().filter(|other| other.key == line.key);
        if own.count() >= MCP_SSE_KEY_MAX {
            return None;
        }
        let line = Arc::new(line);
        open.insert(line.id.clone(), Arc::clone(&line));
        drop(open);
        let lines = self.clone();
        Some(Place { lines, line })
    }

    /// The one of this id, if it is this key's.
    pub(super) fn find(&self, id: &str, key: &KeyId) -> Option<Arc<Line>> {
        let open = lock(&self.0);
        open.get(id).filter(|line| line.key == *key).cloned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.lines.0).remove(&self.line.id);
    }
}

impl Line {
    pub(super) fn new(
        key: KeyId,
        view: Option<String>,
        bearer: Bearer,
        tell: mpsc::Sender<Bytes>,
    ) -> Self {
        Self {
            id: hex(&random::<16>()),
            key,
            view,
            bearer,
            session: OnceLock::new(),
            begun: Notify::new(),
            tell: Turns::new(tell),
            places: Arc::new(Semaphore::new(MCP_CALLS_MAX)),
            over: CancellationToken::new(),
        }
    }

    /// Its session, once it has begun.
    pub(super) fn session(&self) -> Option<Arc<SessionHandle>> {
        self.session.get().cloned()
    }

    /// Its client has begun; gives the session back if another one has, or the client is gone already.
    pub(super) fn begins(&self, session: Arc<SessionHandle>) -> Option<Arc<SessionHandle>> {
        let second = self.session.set(Arc::clone(&session)).err();
        // Who ends it looks for a session after that: one of both sees the other, and a session may end twice.
        if self.over.is_cancelled() {
            return Some(session);
        }
        self.begun.notify_one();
        second
    }

    /// Waits until its client has begun.
    pub(super) async fn begun(&self) -> Arc<SessionHandle> {
        loop {
            if let Some(session) = self.session() {
                return session;
            }
            self.begun.notified().await;
        }
    }

    /// A place for one more request.
    pub(super) fn enter(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Waits for its turn to tell something.
    pub(super) async fn turn(&self) -> Turn<'_, mpsc::Sender<Bytes>> {
        self.tell.lock().await
    }

    /// Tells this; `None` if nobody reads.
    pub(super) async fn say(&self, event: Bytes) -> Option<()> {
        put(&*self.turn().await, event).await
    }
}

/// Tells a part of something; `None` if it is unread for long, or nobody is there.
pub(super) async fn put(tell: &mpsc::Sender<Bytes>, part: Bytes) -> Option<()> {
    tell.send_timeout(part, MCP_UNREAD_MAX).await.ok()
}

fn lock(open: &Mutex<Open>) -> MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::calls::Tag;
    use crate::domain::ids::ID_BYTES;

    #[test]
    fn a_connection_has_one_session_and_none_once_it_is_over() {
        let session = |n| Tag::for_tests([n; ID_BYTES]).session;
        let line = || {
            let key = session(1).key.clone();
            let (tell, _) = mpsc::channel(1);
            Line::new(key, None, Bearer::new("x".into(), None), tell)
        };
        let open = line();
        assert!(open.begins(session(1)).is_none());
        assert_eq!(open.begins(session(2)).unwrap().id(), session(2).id());
        let over = line();
        over.over.cancel();
        assert_eq!(over.begins(session(3)).unwrap().id(), session(3).id());
    }
}
