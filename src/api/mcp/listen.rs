//! `GET`: a stream of what is about no request. One for each session; a newer one takes the place of an
//! older, whose connection may be dead without anybody's knowing.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::call::streamed;
pub(super) use crate::actors::front::Told as OfServer;
use crate::actors::front::{ListChange, Lists};
use crate::actors::session::SessionHandle;
use crate::api::shares::Pieces;
use crate::domain::ids::{ID_BYTES, KeyId};
use crate::domain::limits::{MCP_LISTENS_MAX, MCP_UNREAD_MAX};

/// What a client with a session hears when the list of tools has changed.
pub(super) const CHANGED: &[u8] =
    b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}";
const ALIVE: &[u8] = b": nothing new\n\n";
/// Messages between the one who tells and the connection.
const UNREAD_MAX: usize = 4;

type Open = HashMap<[u8; ID_BYTES], CancellationToken>;

/// Who listens.
#[derive(Debug, Default, Clone)]
pub(super) struct Listeners(Arc<Mutex<Open>>);

/// A place among them.
pub(super) struct Place {
    open: Listeners,
    session: [u8; ID_BYTES],
    /// A newer one has it.
    pub(super) over: CancellationToken,
}

impl Listeners {
    /// A place; whoever has the session's is told that it is over.
    pub(super) fn enter(&self, session: &SessionHandle) -> Place {
        let over = CancellationToken::new();
        let session = session.id().bits();
        if let Some(before) = lock(&self.0).insert(session, over.clone()) {
            before.cancel();
        }
        Place {
            open: self.clone(),
            session,
            over,
        }
    }
}

/// How many subscriptions each key has open.
#[derive(Debug, Default, Clone)]
pub(super) struct Listening(Arc<Mutex<HashMap<KeyId, usize>>>);

/// One of them.
pub(super) struct Seat(Listening, KeyId);

impl Listening {
    /// A place for another one; `None` if the key has its fill.
    pub(super) fn enter(&self, key: &KeyId) -> Option<Seat> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = open.entry(key.clone()).or_default();
        (*own < MCP_LISTENS_MAX).then(|| *own += 1)?;
        Some(Seat(self.clone(), key.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = open.get_mut(&self.1) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.1);
            }
        }
    }
}

/// As a client with a session hears it.
pub(super) fn of_server(told: &OfServer) -> Option<Bytes> {
    let changed = |what: &str| {
        let method = format!("notifications/{what}/list_changed");
        Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"method\":\"{method}\"}}"))
    };
    Some(match told {
        OfServer::Resources => changed("resources"),
        OfServer::Prompts => changed("prompts"),
        OfServer::Updated(line) | OfServer::Elicited(line) | OfServer::OfTask(line) => line.clone(),
        OfServer::Task(_) => return None,
    })
}

/// What is said of what a server tells, if anything is.
type OfServers = Box<dyn Fn(&OfServer) -> Option<Bytes> + Send + Sync>;

/// What is said on a stream.
pub(super) struct Words {
    /// Who holds what is large until it is read.
    pub(super) key: KeyId,
    /// At once.
    pub(super) first: Option<Bytes>,
    /// When the list of tools has changed, if that is told.
    pub(super) changed: Option<Bytes>,
    /// When a server tells of itself.
    pub(super) told: OfServers,
    /// When nothing else will come.
    pub(super) last: Option<Bytes>,
}

impl Words {
    /// A stream that ends with the session or the server, and gives back its place then.
    pub(super) fn tell(self, mut lists: Lists, place: impl Send + 'static) -> Response {
        let (tell, told) = mpsc::channel(UNREAD_MAX);
        let task = tokio::spawn(async move {
            // Unread for long, or gone.
            let say = async |bytes: Option<Bytes>| match bytes {
                Some(bytes) => tell.send_timeout(bytes, MCP_UNREAD_MAX).await.is_ok(),
                None => true,
            };
            let telling = async {
                let mut reads = say(self.first).await;
                while reads {
                    reads = match lists.next().await {
                        ListChange::Told(told) => match (self.told)(&told) {
                            Some(event) => whole(&tell, event, &self.key).await,
                            None => true,
                        },
                        ListChange::Changed => say(self.changed.clone()).await,
                        ListChange::Same => say(Some(Bytes::from_static(ALIVE))).await,
                        ListChange::Over => {
                            say(self.last).await;
                            return;
                        }
                    };
                }
            };
            telling.await;
            drop(place);
        });
        streamed(Body::new(Told::new(told, task)))
    }
}

/// Says what may be large. Without room for it it is not said: what a task ended with is there for who asks.
async fn whole(tell: &mpsc::Sender<Bytes>, event: Bytes, key: &KeyId) -> bool {
    let Some(mut pieces) = Pieces::of(event, key) else {
        return true;
    };
    while let Some(piece) = pieces.next() {
        if tell.send_timeout(piece, MCP_UNREAD_MAX).await.is_err() {
            return false;
        }
    }
    true
}

impl Drop for Place {
    fn drop(&mut self) {
        // A successor has cancelled us, and has the place.
        if !self.over.is_cancelled() {
            lock(&self.open.0).remove(&self.session);
        }
    }
}

fn lock(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends its task with itself.
struct Aborts<T>(JoinHandle<T>);

impl<T> Drop for Aborts<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A stream of what a task tells, which ends with it.
pub(super) struct Told<T> {
    told: mpsc::Receiver<Bytes>,
    _task: Aborts<T>,
}

impl<T> Told<T> {
    pub(super) fn new(told: mpsc::Receiver<Bytes>, task: JoinHandle<T>) -> Self {
        let _task = Aborts(task);
        Self { told, _task }
    }
}

impl<T: Send + 'static> HttpBody for Told<T> {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = self.told.poll_recv(context);
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
