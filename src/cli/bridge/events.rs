//! A stream of events, taken apart as the HTML standard says: `data` lines make a message, a blank
//! line ends it, everything else is not for us.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::domain::limits::{BRIDGE_ANSWER_BYTES_MAX, BRIDGE_SILENCE_MAX};

/// Why a stream is of no more use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    #[error("the connection was lost: {0}")]
    Lost(String),
    #[error("the stream was silent for {0:?}")]
    Silent(Duration),
    #[error("an event of more than {BRIDGE_ANSWER_BYTES_MAX} bytes")]
    TooLong,
}

/// The messages of a body.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    parser: Parser,
}

/// Bytes to messages, without any reading.
#[derive(Debug, Default)]
struct Parser {
    buffer: BytesMut,
    /// Bytes of the buffer that have no line break.
    scanned: usize,
    data: BytesMut,
    has_data: bool,
    other: bool,
    after_cr: bool,
}

// === impl Events ===

impl Events {
    pub(super) fn new(body: Incoming) -> Self {
        Self {
            body,
            parser: Parser::default(),
        }
    }

    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        loop {
            if let Some(message) = self.parser.next()? {
                return Ok(Some(message));
            }
            let frame = timeout(BRIDGE_SILENCE_MAX, self.body.frame())
                .await
                .map_err(|_| StreamError::Silent(BRIDGE_SILENCE_MAX))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(StreamError::Lost(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.parser.buffer.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }
}

// === impl Parser ===

impl Parser {
    /// The next whole message that is in the buffer.
    fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        while let Some(line) = self.line() {
            if let Some(message) = self.take(&line) {
                return Ok(Some(message));
            }
            if self.data.len() > BRIDGE_ANSWER_BYTES_MAX {
                return Err(StreamError::TooLong);
            }
        }
        if self.buffer.len() > BRIDGE_ANSWER_BYTES_MAX {
            return Err(StreamError::TooLong);
        }
        Ok(None)
    }

    /// A line without its break: `\n`, `\r\n` or `\r`.
    fn line(&mut self) -> Option<Bytes> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer.first() == Some(&b'\n') {
                _ = self.buffer.split_to(1);
            }
        }
        let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr::memchr2(b'\n', b'\r', fresh) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let mut line = self.buffer.split_to(self.scanned + at + 1);
        self.scanned = 0;
        self.after_cr = line.last() == Some(&b'\r');
        line.truncate(line.len() - 1);
        Some(line.freeze())
    }

    /// Takes a line; gives a message if it ends one.
    fn take(&mut self, line: &[u8]) -> Option<Bytes> {
        if line.is_empty() {
            let data = std::mem::take(&mut self.data);
            let is_ours = self.has_data && !self.other && !data.is_empty();
            (self.has_data, self.other) = (false, false);
            return is_ours.then(|| data.freeze());
        }
        let at = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, rest) = line.split_at(at);
        let value = rest.strip_prefix(b":").unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.has_data {
                    self.data.extend_from_slice(b"\n");
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.other = value != b"message" && !value.is_empty(),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for chunk in chunks {
            parser.buffer.extend_from_slice(chunk);
            while let Some(message) = parser.next().unwrap() {
                found.push(String::from_utf8(message.to_vec()).unwrap());
            }
        }
        found
    }

    const STREAM: &[u8] = b": alive\n\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":1}\r\n\r\n\
        event: other\ndata: no\n\ndata: {\rdata: }\r\rdata: last\n\n\ndata: cut";

    #[test]
    fn messages_are_found_between_comments_and_other_events() {
        assert_eq!(all(&[STREAM]), ["{\"a\":1}", "{\n}", "last"]);
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut parser = Parser::default();
        parser.buffer.extend_from_slice(b"data: ");
        parser.buffer.resize(BRIDGE_ANSWER_BYTES_MAX + 8, b'x');
        assert_eq!(parser.next(), Err(StreamError::TooLong));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_messages_are_the_same(at in 0..STREAM.len(), and in 0..STREAM.len()) {
            let (first, then) = (at.min(and), at.max(and));
            let chunks = [&STREAM[..first], &STREAM[first..then], &STREAM[then..]];
            prop_assert_eq!(all(&chunks), all(&[STREAM]));
        }
    }
}
