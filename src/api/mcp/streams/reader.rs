//! The body of an answer that follows a stream, for as long as its connection lives.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::time::{Instant, Sleep, sleep};

use super::log::After;
use super::stream::{Given, Stream};
use super::table::Streams;
use crate::api::mcp::call::streamed;
use crate::domain::limits::MCP_KEEP_ALIVE;

/// What is said where there is nothing to say.
const ALIVE: Bytes = Bytes::from_static(b": nothing new\n\n");

/// Reads a stream. When it goes, somebody else may.
struct Reader {
    streams: Streams,
    stream: Arc<Stream>,
    number: u64,
    /// When it is time to say that the stream lives.
    silent: Pin<Box<Sleep>>,
}

impl Streams {
    /// An answer that tells what comes after the event of this number.
    ///
    /// # Errors
    /// Nothing will come, or what would is not kept.
    pub(super) fn told_after(&self, stream: Arc<Stream>, number: u64) -> Result<Response, After> {
        let number = stream.read_after(number)?;
        self.here(&stream);
        Ok(streamed(Body::new(Reader {
            streams: self.clone(),
            stream,
            number,
            silent: Box::pin(sleep(MCP_KEEP_ALIVE)),
        })))
    }
}

impl HttpBody for Reader {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let told = |bytes| Poll::Ready(Some(Ok(Frame::data(bytes))));
        match self.stream.take(self.number, context.waker()) {
            Given::Over => return Poll::Ready(None),
            Given::Piece(piece) => {
                let next = Instant::now() + MCP_KEEP_ALIVE;
                self.silent.as_mut().reset(next);
                return told(piece);
            }
            Given::Wait => {}
        }
        if self.silent.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let next = Instant::now() + MCP_KEEP_ALIVE;
        self.silent.as_mut().reset(next);
        told(ALIVE)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.stream.leave(self.number) {
            self.streams.away(&self.stream);
        }
    }
}
