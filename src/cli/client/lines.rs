//! An answer that comes line by line, and may never end.

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio_util::task::AbortOnDropHandle;

use super::super::error::CliError;
use crate::domain::limits::ADMIN_ANSWER_BYTES_MAX;

/// An answer's lines, as they come.
#[derive(Debug)]
pub(in crate::cli) struct Lines {
    body: Incoming,
    buffer: Buffer,
    /// Moves the bytes; ends with this.
    _moving: AbortOnDropHandle<()>,
}

impl Lines {
    pub(super) fn new(body: Incoming, moving: AbortOnDropHandle<()>) -> Self {
        Self {
            body,
            buffer: Buffer::default(),
            _moving: moving,
        }
    }

    /// The next line, without its newline; `None` at the end. Dropping the future loses nothing.
    pub(in crate::cli) async fn next(&mut self) -> Result<Option<Vec<u8>>, CliError> {
        let broken = |why: String| Err(CliError::BrokenAnswer(why));
        loop {
            if let Some(line) = self.buffer.next() {
                return Ok(Some(line));
            }
            let frame = match self.body.frame().await {
                None if self.buffer.bytes.is_empty() => return Ok(None),
                None => return broken("its last line is cut off".to_owned()),
                Some(Err(error)) => return broken(error.to_string()),
                Some(Ok(frame)) => frame,
            };
            if let Ok(bytes) = frame.into_data()
                && !self.buffer.push(&bytes)
            {
                return broken(format!(
                    "a line has more than {ADMIN_ANSWER_BYTES_MAX} bytes"
                ));
            }
        }
    }
}

/// Bytes as they come, lines as they are whole.
#[derive(Debug, Default)]
struct Buffer {
    bytes: BytesMut,
    /// How far there is no line break.
    seen: usize,
}

impl Buffer {
    /// Takes bytes; `false` if a line would be too long.
    fn push(&mut self, bytes: &Bytes) -> bool {
        self.bytes.extend_from_slice(bytes);
        self.bytes.len() <= ADMIN_ANSWER_BYTES_MAX
    }

    fn next(&mut self) -> Option<Vec<u8>> {
        let unseen = self.bytes.get(self.seen..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', unseen) else {
            self.seen = self.bytes.len();
            return None;
        };
        let mut line = self.bytes.split_to(self.seen + at + 1);
        self.seen = 0;
        line.truncate(line.len() - 1);
        Some(line.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut buffer = Buffer::default();
        let mut got = Vec::new();
        for piece in ["{\"a\":1}\n{\"a\"", ":2", "}", "\n\n", "rest"] {
            assert!(buffer.push(&Bytes::from_static(piece.as_bytes())));
            while let Some(line) = buffer.next() {
                got.push(String::from_utf8(line).unwrap());
            }
        }
        assert_eq!(got, ["{\"a\":1}", "{\"a\":2}", ""]);
        assert_eq!(&buffer.bytes[..], b"rest");
    }
}
