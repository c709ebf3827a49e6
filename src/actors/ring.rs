//! The last lines a process wrote, in bounded memory.

use std::collections::VecDeque;

use super::sync::Mutex;

/// Keeps the newest lines within a number of bytes and lines.
#[derive(Debug)]
pub struct Ring {
    bytes_max: usize,
    lines_max: usize,
    line_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    seen: u64,
    dropped_bytes: u64,
}

impl Ring {
    /// A ring of at most `bytes_max` bytes in `lines_max` lines of at most `line_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize, lines_max: usize, line_max: usize) -> Self {
        Self {
            bytes_max,
            lines_max,
            line_max,
            kept: Mutex::default(),
        }
    }

    /// Keeps a line, cut to the longest allowed; control characters but tab are replaced, so that
    /// a server cannot draw on the terminal of whoever reads its log.
    pub fn push(&self, line: &[u8]) {
        let cut = line.get(..self.line_max).unwrap_or(line);
        let text: Box<str> = String::from_utf8_lossy(cut)
            .chars()
            .map(|c| {
                if c.is_control() && c != '\t' {
                    char::REPLACEMENT_CHARACTER
                } else {
                    c
                }
            })
            .collect::<String>()
            .into();
        let mut kept = self.kept.lock();
        kept.seen += 1;
        kept.dropped_bytes += (line.len() - cut.len()) as u64;
        kept.bytes += text.len();
        kept.lines.push_back(text);
        while kept.bytes > self.bytes_max || kept.lines.len() > self.lines_max {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.len();
            kept.dropped_bytes += oldest.len() as u64;
        }
    }

    /// Bytes that were read and not kept, besides those of cut lines.
    pub fn dropped(&self, bytes: u64) {
        self.kept.lock().dropped_bytes += bytes;
    }

    /// The kept lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.kept
            .lock()
            .lines
            .iter()
            .map(|line| line.to_string())
            .collect()
    }

    /// The newest line that is not blank.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        let kept = self.kept.lock();
        kept.lines
            .iter()
            .rev()
            .find(|line| !line.trim().is_empty())
            .map(|line| line.to_string())
    }

    /// Lines ever pushed.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.kept.lock().seen
    }

    /// Bytes read and no longer kept.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.kept.lock().dropped_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_newest_within_its_bounds() {
        let ring = Ring::new(10, 3, 4);
        for line in ["one", "two", "three", "\x1b[2J", ""] {
            ring.push(line.as_bytes());
        }
        assert_eq!(ring.lines(), ["thre", "\u{fffd}[2J", ""]);
        assert_eq!(ring.last().unwrap(), "\u{fffd}[2J");
        assert_eq!(ring.seen(), 5);
        assert_eq!(ring.dropped_bytes(), 1 + 3 + 3);
        for _ in 0..1000 {
            ring.push(b"xxxx");
        }
        assert!(ring.lines().len() <= 3);
    }
}
