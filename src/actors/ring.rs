//! The last lines a process wrote, in bounded memory.

use std::collections::VecDeque;

use super::sync::Mutex;

/// Keeps the newest lines within a number of bytes and lines.
#[derive(Debug)]
pub struct Ring {
    lines_max: usize,
    line_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    bytes_max: usize,
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
            lines_max,
            line_max,
            kept: Mutex::new(Kept {
                bytes_max,
                lines: VecDeque::new(),
                bytes: 0,
                seen: 0,
                dropped_bytes: 0,
            }),
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
        kept.trim(self.lines_max);
    }

    /// From now on keeps at most this many bytes, and gives back the memory of the rest.
    pub fn shrink(&self, bytes: usize) {
        let mut kept = self.kept.lock();
        kept.bytes_max = kept.bytes_max.min(bytes);
        kept.trim(self.lines_max);
        kept.lines.shrink_to_fit();
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

impl Kept {
    fn trim(&mut self, lines_max: usize) {
        while self.bytes > self.bytes_max || self.lines.len() > lines_max {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
            self.dropped_bytes += oldest.len() as u64;
        }
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

    #[test]
    fn what_is_shrunk_stays_small() {
        let ring = Ring::new(100, 100, 10);
        for n in 0..20 {
            ring.push(format!("{n:05}").as_bytes());
        }
        ring.shrink(12);
        assert_eq!(ring.lines(), ["00018", "00019"]);
        assert_eq!(ring.dropped_bytes(), 18 * 5);
        ring.push(b"late");
        assert_eq!(ring.lines(), ["00019", "late"]);
        ring.shrink(100);
        ring.push(b"later");
        assert_eq!(ring.lines(), ["late", "later"], "it never grows again");
    }
}
