//! Lines of the AI tool. One that is too long is dropped to its end, and the next one is read.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for in one read.
const READ_BYTES: usize = 64 << 10;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line without its break; never empty.
    Whole(Bytes),
    /// One of more bytes than a line may have.
    TooLong,
}

/// Splits what is read into lines of at most `most` bytes.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    scanned: usize,
    most: usize,
    dropping: bool,
    ended: bool,
}

// === impl Lines ===

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, most: usize) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            scanned: 0,
            most,
            dropping: false,
            ended: false,
        }
    }

    /// The next line that is not blank; `None` at the end. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            let found = memchr::memchr(b'\n', fresh).map(|at| self.scanned + at + 1);
            if let Some(end) = found.or_else(|| self.rest()) {
                let line = self.buffer.split_to(end).freeze();
                self.scanned = 0;
                if std::mem::take(&mut self.dropping) {
                    continue;
                }
                let line = line.slice_ref(line.trim_ascii());
                if line.len() > self.most {
                    return Ok(Some(Line::TooLong));
                }
                if !line.is_empty() {
                    return Ok(Some(Line::Whole(line)));
                }
                continue;
            }
            if self.ended {
                return Ok(None);
            }
            self.scanned = self.buffer.len();
            if self.scanned > self.most + READ_BYTES {
                self.buffer = BytesMut::new();
                self.scanned = 0;
                if !std::mem::replace(&mut self.dropping, true) {
                    return Ok(Some(Line::TooLong));
                }
            }
            self.buffer.reserve(READ_BYTES);
            self.ended = self.reader.read_buf(&mut self.buffer).await? == 0;
        }
    }

    /// The last line counts even without a break.
    fn rest(&self) -> Option<usize> {
        (self.ended && !self.buffer.is_empty()).then_some(self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(input: &[u8], most: usize) -> Vec<Line> {
        let mut lines = Lines::new(input, most);
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push(line);
        }
        found
    }

    fn whole(text: &'static str) -> Line {
        Line::Whole(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn blank_lines_are_passed_over_and_the_last_one_counts() {
        let found = all(b"a\r\n\n  \nbb\nlast", 10).await;
        assert_eq!(found, [whole("a"), whole("bb"), whole("last")]);
    }

    #[tokio::test]
    async fn after_a_line_that_is_too_long_the_next_is_read() {
        for size in [11, READ_BYTES * 3] {
            let mut input = vec![b'x'; size];
            input.extend_from_slice(b"\nnext\n");
            let found = all(&input, 10).await;
            assert_eq!(found, [Line::TooLong, whole("next")], "{size}");
        }
    }
}
