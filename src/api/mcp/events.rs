//! The answer to one request as a stream of events: what its server tells meanwhile, then the answer,
//! then the end. A client that does not read misses news, never the answer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::HttpBody;
use bytes::{BufMut, Bytes, BytesMut};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answer::unread;
use crate::actors::front::Progress;
use crate::api::shares::Pieces;
use crate::domain::ids::KeyId;
use crate::domain::limits::MCP_KEEP_ALIVE;

/// A stream that ends with its answer.
#[derive(Debug)]
pub(super) struct Events {
    news: mpsc::Receiver<Progress>,
    /// The client's token, raw.
    token: String,
    key: KeyId,
    /// What the client calls its request; raw.
    id: String,
    task: Option<JoinHandle<Bytes>>,
    answer: Option<Pieces>,
    alive: Interval,
    /// Whether who lets go of the stream cancels the request.
    cancels: bool,
}

impl Drop for Events {
    fn drop(&mut self) {
        if let Some(task) = self.task.take().filter(|_| self.cancels) {
            task.abort();
        }
    }
}

impl Events {
    pub(super) fn new(
        news: mpsc::Receiver<Progress>,
        token: String,
        task: JoinHandle<Bytes>,
        key: KeyId,
        id: String,
    ) -> Self {
        let mut alive = interval(MCP_KEEP_ALIVE);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive.reset();
        Self {
            news,
            token,
            key,
            id,
            task: Some(task),
            answer: None,
            alive,
            cancels: false,
        }
    }

    pub(super) const fn cancels(mut self, cancels: bool) -> Self {
        self.cancels = cancels;
        self
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        // The answer first: what was told before it is in the queue by then, and is shown before it.
        if let Some(task) = &mut self.task
            && let Poll::Ready(answer) = Pin::new(task).poll(context)
        {
            self.task = None;
            // Cancelled: the stream ends without an answer.
            self.answer = answer.ok().and_then(|answer| {
                Pieces::of(event(&answer), &self.key).or_else(|| {
                    let refusal = unread(&self.id, answer.len());
                    Pieces::of(event(&refusal), &self.key)
                })
            });
        }
        if let Poll::Ready(Some(progress)) = self.news.poll_recv(context) {
            return frame(event(&told(&progress, &self.token)));
        }
        if self.task.is_none() {
            return match self.answer.as_mut().and_then(Pieces::next) {
                Some(piece) => frame(piece),
                None => Poll::Ready(None),
            };
        }
        match self.alive.poll_tick(context) {
            Poll::Ready(_) => frame(Bytes::from_static(b": still at work\n\n")),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The server's line, with the client's token in place of ours.
fn told(progress: &Progress, token: &str) -> Bytes {
    let (line, place) = (&progress.line, &progress.token);
    let mut out = BytesMut::with_capacity(line.len() + token.len());
    out.put_slice(line.get(..place.start).unwrap_or_default());
    out.put_slice(token.as_bytes());
    out.put_slice(line.get(place.end..).unwrap_or_default());
    out.freeze()
}

/// One message on one line, as everybody's reader takes it.
fn event(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 24);
    out.put_slice(b"event: message\ndata: ");
    // A server may put a raw carriage return between two tokens, where it means nothing; here it would
    // end the line.
    let message = message.trim_ascii_end();
    if memchr::memchr2(b'\r', b'\n', message).is_none() {
        out.put_slice(message);
    } else {
        let plain = |byte: &u8| {
            if matches!(byte, b'\r' | b'\n') {
                b' '
            } else {
                *byte
            }
        };
        out.extend(message.iter().map(plain));
    }
    out.put_slice(b"\n\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_its_server_put_between_tokens() {
        assert_eq!(
            event(b"{\"a\":1}\r\n"),
            "event: message\ndata: {\"a\":1}\n\n"
        );
        assert_eq!(
            event(b"{\r\"a\":\r1}"),
            "event: message\ndata: { \"a\": 1}\n\n"
        );
    }

    #[test]
    fn progress_is_told_with_the_client_s_token() {
        let line = Bytes::from_static(br#"{"params":{"progressToken":7,"progress":1}}"#);
        let progress = Progress {
            line,
            token: 27..28,
        };
        let told = told(&progress, "\"mine\"");
        assert_eq!(told, r#"{"params":{"progressToken":"mine","progress":1}}"#);
    }
}
