//! stdio framing: lines with a cap, from any reader.
//!
//! A reader keeps at most one partial line and one read-ahead; memory that a large line needed is
//! given back after it. A line over the cap is an error here: the caller decides what that means
//! (for stdout: the run ends; for stderr: the line is cut).

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for in one read: least and most. What an idle reader waits with is the least.
const READ_BYTES: (usize, usize) = (1 << 10, 8 << 10);
/// A buffer this many times larger than the next read is not kept for it.
const KEEP_READS: usize = 4;

/// Why there is no next line.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The line is longer than the cap.
    #[error("a line of more than {cap} bytes without a line break")]
    TooLong {
        /// The cap.
        cap: usize,
    },
    /// The pipe failed.
    #[error("the pipe failed")]
    Io(#[from] std::io::Error),
}

/// Splits a byte stream into lines.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    scanned: usize,
    cap: usize,
    /// Bytes to ask for next: more after a read that was full, less after one that was not.
    ask: usize,
    ended: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Lines of `reader`, each of at most `cap` bytes.
    pub fn new(reader: R, cap: usize) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            scanned: 0,
            cap,
            ask: READ_BYTES.0,
            ended: false,
        }
    }

    /// The next line without its line break (`\n` or `\r\n`); `None` at the end. The last line
    /// counts even if the stream ends without a break. Cancel-safe.
    ///
    /// # Errors
    /// [`FrameError`]; after it the stream is of no more use.
    pub async fn next(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            let fresh = self.buffer.get(self.scanned..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', fresh) {
                let line = self.buffer.split_to(self.scanned + at + 1);
                self.scanned = 0;
                if line.len() - 1 > self.cap {
                    return Err(FrameError::TooLong { cap: self.cap });
                }
                return Ok(Some(trim(line.freeze())));
            }
            self.scanned = self.buffer.len();
            if self.scanned > self.cap {
                return Err(FrameError::TooLong { cap: self.cap });
            }
            if self.ended {
                self.scanned = 0;
                let rest = std::mem::take(&mut self.buffer);
                return Ok((!rest.is_empty()).then(|| trim(rest.freeze())));
            }
            if self.buffer.is_empty() && self.buffer.capacity() > KEEP_READS * self.ask {
                self.buffer = BytesMut::new();
            }
            // Doubling keeps a large line linear; small reads keep an idle reader small.
            self.buffer
                .reserve(self.ask.max(self.buffer.len().min(1 << 20)));
            let room = self.buffer.capacity() - self.buffer.len();
            let read = self.reader.read_buf(&mut self.buffer).await?;
            self.ask = if read == room {
                (self.ask * 2).min(READ_BYTES.1)
            } else {
                (self.ask / 2).max(READ_BYTES.0)
            };
            self.ended = read == 0;
        }
    }
}

fn trim(mut line: Bytes) -> Bytes {
    if line.last() == Some(&b'\n') {
        line.truncate(line.len() - 1);
    }
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    async fn all(input: &[u8], cap: usize) -> Result<Vec<Bytes>, FrameError> {
        let mut lines = Lines::new(input, cap);
        let mut out = Vec::new();
        while let Some(line) = lines.next().await? {
            out.push(line);
        }
        Ok(out)
    }

    #[tokio::test]
    async fn splits_trims_and_keeps_the_last() {
        let lines = all(b"a\r\n\nbb\nlast", 10).await.unwrap();
        assert_eq!(lines, ["a", "", "bb", "last"]);
    }

    #[tokio::test]
    async fn a_line_over_the_cap_is_an_error_however_it_arrives() {
        assert_eq!(all(b"0123456789\n", 10).await.unwrap().len(), 1);
        assert!(matches!(
            all(b"0123456789x\n", 10).await,
            Err(FrameError::TooLong { cap: 10 })
        ));
        let endless = tokio::io::AsyncReadExt::take(tokio::io::repeat(b'x'), 1 << 30);
        let mut lines = Lines::new(endless, 1 << 20);
        assert!(matches!(
            lines.next().await,
            Err(FrameError::TooLong { .. })
        ));
        assert!(
            lines.buffer.capacity() <= 4 << 20,
            "{}",
            lines.buffer.capacity()
        );
    }

    #[tokio::test]
    async fn memory_of_a_large_line_is_given_back() {
        let mut input = vec![b'x'; 4 << 20];
        input.extend_from_slice(b"\nsmall\n");
        let (mut write, read) = tokio::io::duplex(1 << 16);
        let feed = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, &input)
                .await
                .unwrap();
            write
        });
        let mut lines = Lines::new(read, 16 << 20);
        assert_eq!(lines.next().await.unwrap().unwrap().len(), 4 << 20);
        assert_eq!(lines.next().await.unwrap().unwrap(), "small");
        drop(feed.await.unwrap());
        assert!(lines.next().await.unwrap().is_none());
        assert!(lines.buffer.capacity() <= KEEP_READS * READ_BYTES.1);
    }

    proptest! {
        #[test]
        fn joins_back(parts in prop::collection::vec("[a-z{}\"]{0,30}", 0..20)) {
            let text: String = parts.iter().map(|part| format!("{part}\n")).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let lines = runtime.block_on(all(text.as_bytes(), 64)).unwrap();
            prop_assert_eq!(lines.len(), parts.len());
            prop_assert!(lines.iter().zip(&parts).all(|(a, b)| a == b.as_bytes()));
        }
    }
}
