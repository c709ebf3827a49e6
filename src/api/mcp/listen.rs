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
use crate::actors::front::{ListChange, Lists};
use crate::actors::session::SessionHandle;
use crate::domain::ids::ID_BYTES;
use crate::domain::limits::MCP_UNREAD_MAX;

const CHANGED: &[u8] = b"event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
const ALIVE: &[u8] = b": nothing new\n\n";
/// Messages between the one who tells and the connection.
const UNREAD_MAX: usize = 4;

type Open = HashMap<[u8; ID_BYTES], CancellationToken>;

/// Who listens.
#[derive(Debug, Default, Clone)]
pub(super) struct Listeners(Arc<Mutex<Open>>);

/// A place among them.
struct Place {
    open: Listeners,
    session: [u8; ID_BYTES],
    over: CancellationToken,
}

impl Listeners {
    /// Answers with a stream that ends with the session, the server, or its successor.
    pub(super) fn listen(&self, session: &SessionHandle, mut lists: Lists) -> Response {
        let place = self.enter(session);
        let (tell, told) = mpsc::channel(UNREAD_MAX);
        let task = tokio::spawn(async move {
            let over = place.over.clone();
            let telling = async {
                loop {
                    let bytes = match lists.next().await {
                        ListChange::Changed => Bytes::from_static(CHANGED),
                        ListChange::Same => Bytes::from_static(ALIVE),
                        ListChange::Over => return,
                    };
                    // Unread for long, or gone.
                    if tell.send_timeout(bytes, MCP_UNREAD_MAX).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = telling => {}
                () = over.cancelled() => {}
            }
            drop(place);
        });
        streamed(Body::new(Told {
            told,
            _task: Aborts(task),
        }))
    }

    fn enter(&self, session: &SessionHandle) -> Place {
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
struct Aborts(JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The stream.
struct Told {
    told: mpsc::Receiver<Bytes>,
    _task: Aborts,
}

impl HttpBody for Told {
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
