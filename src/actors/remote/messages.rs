//! A stream of messages.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::domain::limits::{
    REMOTE_PARTIAL_BYTES_MAX, REMOTE_STREAM_RETRY_MAX, REMOTE_STREAM_RETRY_MIN,
};
use crate::domain::verdict::Verdict;
use crate::protocol::sse::{Event, Parser};

use super::client::{Ask, Lost};
use super::heard::Heard;
use super::parts::{Partial, Shared};
use super::paths::on_one_line;

/// The header that says where to take a stream up again.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// However short a server says the pause is.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Why a body is of no more use.
#[derive(Debug)]
pub(super) enum Cut {
    /// It ended, in whatever way.
    Ended(String),
    /// It breaks a bound.
    TooMuch(Verdict),
}

/// A message, and the room that it takes until it has been passed on.
pub(super) struct Whole<'a> {
    pub(super) line: Bytes,
    pub(super) room: Partial<'a>,
}

/// A stream of messages.
pub(super) struct Messages {
    heard: Heard,
    parser: Parser,
}

// === impl Messages ===

impl Messages {
    pub(super) fn new(heard: Heard, max: usize) -> Self {
        let parser = Parser::new(max);
        Self { heard, parser }
    }

    /// The next message.
    pub(super) async fn next<'s>(&mut self, shared: &'s Shared) -> Result<Whole<'s>, Cut> {
        loop {
            shared.pace().await;
            let (event, mut room) = self.event(shared).await?;
            if event.name.is_empty() && !event.data.is_empty() {
                let line = on_one_line(event.data);
                // It is whole and goes; those that are not yet find less room.
                room.keep(line.len() + self.parser.kept());
                return Ok(Whole { line, room });
            }
        }
    }

    /// The next event, and the room that it takes.
    pub(super) async fn event<'s>(
        &mut self,
        shared: &'s Shared,
    ) -> Result<(Event, Partial<'s>), Cut> {
        let mut partial = shared.partial();
        loop {
            match self.parser.event() {
                Ok(Some(event)) => return Ok((event, partial)),
                Ok(None) => {}
                Err(long) => {
                    let detail = long.to_string();
                    return Err(Cut::TooMuch(Verdict::Protocol { detail }));
                }
            }
            if !partial.keep(self.parser.kept()) {
                return Err(Cut::TooMuch(crowded()));
            }
            match self.heard.bytes().await {
                Ok(Some(bytes)) => self.parser.feed(&bytes),
                Ok(None) => return Err(Cut::Ended("it was closed".to_owned())),
                Err(why) => return Err(Cut::Ended(why)),
            }
        }
    }

    /// The stream goes on in another answer.
    pub(super) fn again(&mut self, heard: Heard) {
        self.heard = heard;
        self.parser.again();
    }

    /// Whether it ends within a time, so that its connection can be used again.
    pub(super) async fn drain(&mut self, wait: Duration) {
        // One that goes on is cut.
        let _ = tokio::time::timeout(wait, self.heard.bytes()).await;
    }

    /// Where it was.
    pub(super) fn last_id(&self) -> Option<HeaderValue> {
        let last = self.parser.last_id()?;
        HeaderValue::from_bytes(last).ok()
    }

    /// How long to wait before it is asked for again.
    pub(super) fn pause(&self) -> Duration {
        let said = self.parser.retry().unwrap_or(REMOTE_STREAM_RETRY_MIN);
        said.clamp(PAUSE_MIN, REMOTE_STREAM_RETRY_MAX)
    }
}

/// Asks for a stream.
pub(super) async fn listen(shared: &Shared, headers: HeaderMap) -> Result<Heard, Lost> {
    let asked = shared.client.send(Ask {
        method: Method::GET,
        target: shared.remote.url.target(),
        headers,
        body: Bytes::new(),
    });
    asked.await
}

pub(super) fn crowded() -> Verdict {
    Verdict::Protocol {
        detail: format!("more than {REMOTE_PARTIAL_BYTES_MAX} bytes of answers in part at once"),
    }
}
