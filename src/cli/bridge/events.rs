//! The messages of a server's stream: events without a name, or with the name `message`.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::domain::limits::{
    BRIDGE_ANSWER_BYTES_MAX, BRIDGE_RETRY_CAP, BRIDGE_RETRY_FLOOR, BRIDGE_SILENCE_MAX,
};
use crate::protocol::sse::{Parser, TooLong};

/// Why a stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the stream was silent for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

/// The messages of a body.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
}

// === impl Events ===

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            parser: Parser::new(BRIDGE_ANSWER_BYTES_MAX),
        }
    }

    /// The value of the header that says where to go on, if the server keeps what it tells.
    pub(super) fn last(&self) -> Option<HeaderValue> {
        let id = self.parser.last_id().filter(|id| !id.is_empty())?;
        HeaderValue::from_bytes(id).ok()
    }

    /// How long to wait before the stream is asked for again, if the server said so: neither at once nor for ever.
    pub(super) fn retry(&self) -> Option<Duration> {
        let wait = self.parser.retry()?;
        Some(wait.clamp(BRIDGE_RETRY_FLOOR, BRIDGE_RETRY_CAP))
    }

    /// Goes on with the body of another answer.
    pub(super) fn again(&mut self, body: Incoming) {
        self.parser.again();
        self.body = body;
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            while let Some(event) = self.parser.event()? {
                if event.name.is_empty() && !event.data.is_empty() {
                    return Ok(Some(event.data));
                }
            }
            let frame = timeout(BRIDGE_SILENCE_MAX, self.body.frame())
                .await
                .map_err(|_| StreamError::Silent(BRIDGE_SILENCE_MAX))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(StreamError::Lost(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.parser.feed(&bytes);
                    }
                }
            }
        }
    }
}
