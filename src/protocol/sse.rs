//! A stream of events, taken apart as the HTML standard says: `data` lines make a message, a blank line
//! ends it, lines without meaning are skipped. Bytes in, events out; nothing is read here.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::domain::limits::REMOTE_EVENT_NAME_BYTES_MAX;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty for `message`, which is what one without a name is.
    pub name: Bytes,
    /// Its lines of data, joined by line breaks; empty if it had none.
    pub data: Bytes,
}

/// An event, or a line, of more bytes than are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {0} bytes")]
pub struct TooLong(pub usize);

/// Takes a stream apart.
#[derive(Debug)]
pub struct Parser {
    max: usize,
    buffer: BytesMut,
    /// Bytes of the buffer that have no line break.
    scanned: usize,
    name: Bytes,
    data: BytesMut,
    has_data: bool,
    after_cr: bool,
    last_id: Option<Bytes>,
    retry: Option<Duration>,
}

impl Parser {
    /// Takes events of at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            buffer: BytesMut::new(),
            scanned: 0,
            name: Bytes::new(),
            data: BytesMut::new(),
            has_data: false,
            after_cr: false,
            last_id: None,
            retry: None,
        }
    }

    /// More of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The stream begins again where it was cut: what was not whole is forgotten, where it was is not.
    pub fn again(&mut self) {
        let (last_id, retry) = (self.last_id.take(), self.retry);
        *self = Self {
            last_id,
            retry,
            ..Self::new(self.max)
        };
    }

    /// Bytes that are kept for an event that is not whole.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.buffer.len() + self.data.len()
    }

    /// The id of the last event that had one: where to take the stream up again.
    #[must_use]
    pub const fn last_id(&self) -> Option<&Bytes> {
        self.last_id.as_ref()
    }

    /// How long to wait before the stream is asked for again, if it said so.
    #[must_use]
    pub const fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The next whole event; `None` until there is more.
    ///
    /// # Errors
    /// [`TooLong`]; the stream is of no more use.
    pub fn event(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.line() {
            if let Some(event) = self.take(&line) {
                return Ok(Some(event));
            }
            if self.data.len() > self.max {
                return Err(TooLong(self.max));
            }
        }
        match self.buffer.len() > self.max {
            true => Err(TooLong(self.max)),
            false => Ok(None),
        }
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

    /// Takes a line; gives an event if it ends one.
    fn take(&mut self, line: &Bytes) -> Option<Event> {
        if line.is_empty() {
            let event = Event {
                name: std::mem::take(&mut self.name),
                data: std::mem::take(&mut self.data).freeze(),
            };
            let whole = std::mem::take(&mut self.has_data);
            return whole.then_some(event);
        }
        let at = memchr::memchr(b':', line).unwrap_or(line.len());
        let (field, rest) = line.split_at(at);
        let value = rest.strip_prefix(b":").unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let short = value.len() <= REMOTE_EVENT_NAME_BYTES_MAX;
        match field {
            b"data" => {
                if self.has_data {
                    self.data.extend_from_slice(b"\n");
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" if value == b"message" => self.name = Bytes::new(),
            b"event" => {
                let kept = value.get(..REMOTE_EVENT_NAME_BYTES_MAX).unwrap_or(value);
                self.name = Bytes::copy_from_slice(kept);
            }
            b"id" if short && !value.contains(&0) => {
                self.last_id = (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
            }
            b"retry" => {
                let text = std::str::from_utf8(value).unwrap_or_default();
                let digits = text.bytes().all(|b| b.is_ascii_digit());
                if let (true, Ok(ms)) = (digits, text.parse()) {
                    self.retry = Some(Duration::from_millis(ms));
                }
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]]) -> Vec<(String, String)> {
        let mut parser = Parser::new(1 << 20);
        let mut found = Vec::new();
        let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        for chunk in chunks {
            parser.feed(chunk);
            while let Some(event) = parser.event().unwrap() {
                found.push((text(event.name), text(event.data)));
            }
        }
        found
    }

    fn pair(name: &str, data: &str) -> (String, String) {
        (name.to_owned(), data.to_owned())
    }

    const STREAM: &[u8] = b": alive\n\nid: 1\ndata:\n\nevent: message\ndata: {\"a\":1}\r\n\r\n\
        event: endpoint\ndata: /m\n\ndata: {\rdata: }\r\rretry: 250\ndata: last\n\n\nevent: gone\n\ndata: cut";

    fn expected() -> Vec<(String, String)> {
        vec![
            pair("", ""),
            pair("", "{\"a\":1}"),
            pair("endpoint", "/m"),
            pair("", "{\n}"),
            pair("", "last"),
        ]
    }

    #[test]
    fn events_are_found_between_comments() {
        assert_eq!(all(&[STREAM]), expected());
    }

    #[test]
    fn ids_and_pauses_are_kept() {
        let mut parser = Parser::new(64);
        parser.feed(STREAM);
        while parser.event().unwrap().is_some() {}
        assert_eq!(parser.last_id().map(|id| &id[..]), Some(&b"1"[..]));
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
        parser.feed(b"\n\nretry: +7\nid\n\n");
        while parser.event().unwrap().is_some() {}
        assert_eq!(
            parser.last_id(),
            None,
            "an empty id takes the last one back"
        );
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut parser = Parser::new(100);
        parser.feed(b"data: ");
        parser.feed(&[b'x'; 101]);
        assert_eq!(parser.event(), Err(TooLong(100)));
        let mut parser = Parser::new(100);
        for _ in 0..60 {
            parser.feed(b"data: x\n");
        }
        assert_eq!(parser.event(), Err(TooLong(100)));
    }

    proptest! {
        #[test]
        fn how_it_is_cut_changes_nothing(cuts in proptest::collection::vec(0..STREAM.len(), 0..40)) {
            let mut cuts = cuts;
            cuts.extend([0, STREAM.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|two| &STREAM[two[0]..two[1]]).collect();
            prop_assert_eq!(all(&chunks), expected());
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut parser = Parser::new(64);
            parser.feed(&bytes);
            while let Ok(Some(_)) = parser.event() {}
        }
    }
}
