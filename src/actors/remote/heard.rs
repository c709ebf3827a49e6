//! What a server answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::client::Client;
use super::line::{Line, chain};

/// The head of an answer, and its body to be read.
pub(super) struct Heard {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    line: Option<Line>,
    client: Arc<Client>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Events,
    Other,
}

// === impl Heard ===

impl Heard {
    pub(super) fn new(answer: Response<Incoming>, line: Line, client: &Arc<Client>) -> Self {
        let (head, body) = answer.into_parts();
        Self {
            status: head.status,
            headers: head.headers,
            body,
            line: Some(line),
            client: Arc::clone(client),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        let value = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let first = value.unwrap_or_default().split(|byte| *byte == b';').next();
        let first = first.unwrap_or_default().trim_ascii();
        if first.eq_ignore_ascii_case(b"application/json") {
            Kind::Json
        } else if first.eq_ignore_ascii_case(b"text/event-stream") {
            Kind::Events
        } else {
            Kind::Other
        }
    }

    /// The next bytes of the body; `None` at its end, when the connection is free for the next request.
    pub(super) async fn bytes(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.body.frame().await {
                None => {
                    if let Some(line) = self.line.take() {
                        self.client.keep(line);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => return Err(chain(&error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        let length = bytes.len() as u64;
                        self.client.received.fetch_add(length, Ordering::Relaxed);
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// What it says of itself, for people: the beginning of the body, within a bound and a time.
    pub(super) async fn said(mut self, max: usize, wait: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        let read = async {
            while let Ok(Some(bytes)) = self.bytes().await {
                let room = max.saturating_sub(all.len());
                all.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
                if all.len() >= max {
                    return;
                }
            }
        };
        // What was read until then is what there is.
        let _ = timeout(wait, read).await;
        all
    }
}
