//! Reading the log forwards, record by record, from any of them on, over the ends of segments and
//! along with whoever writes.

use std::io;
use std::path::PathBuf;

use crate::domain::audit::chain::{Line, Tip};

use super::files::{self, Lines, Segment};

/// One record where it was found.
#[derive(Debug, Clone)]
pub struct Record {
    /// Its number and hash.
    pub tip: Tip,
    /// The first record of its segment.
    pub segment: u64,
    /// Where its line begins in the segment.
    pub place: u64,
    /// The line.
    pub line: Vec<u8>,
}

/// A reader on its way through the log.
#[derive(Debug)]
pub struct Follow {
    dir: PathBuf,
    /// The next record that is wanted.
    next: u64,
    at: Option<(Segment, Lines)>,
}

impl Follow {
    /// From this record on.
    #[must_use]
    pub fn from(dir: PathBuf, next: u64) -> Self {
        Self {
            dir,
            next: next.max(1),
            at: None,
        }
    }

    /// The next record that comes.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next
    }

    /// The next record, if its number is at most `upto`; `None` if it is not there. Lines that are
    /// no records are passed over: a check names them.
    ///
    /// # Errors
    /// What the file system says.
    pub fn next(&mut self, upto: u64) -> io::Result<Option<Record>> {
        while self.next <= upto {
            let Some((segment, lines)) = &mut self.at else {
                if self.enter()? {
                    continue;
                }
                return Ok(None);
            };
            let place = lines.at();
            match lines.next()? {
                Some(bytes) => {
                    let Some(line) = Line::parse(bytes).filter(|line| line.seq >= self.next) else {
                        continue;
                    };
                    if line.seq > upto {
                        // Come back to it.
                        let path = segment.path.clone();
                        *lines = Lines::open(&path, place)?;
                        return Ok(None);
                    }
                    self.next = line.seq + 1;
                    return Ok(Some(Record {
                        tip: line.tip(),
                        segment: segment.first,
                        place,
                        line: bytes.to_vec(),
                    }));
                }
                None => {
                    let (path, first) = (segment.path.clone(), segment.first);
                    // Whatever came meanwhile is read from where this line begins.
                    *lines = Lines::open(&path, place)?;
                    if !self.leave(first)? {
                        return Ok(None);
                    }
                }
            }
        }
        Ok(None)
    }

    /// Finds the segment that holds the next record.
    fn enter(&mut self) -> io::Result<bool> {
        let segments = files::segments(&self.dir)?;
        let holds = segments
            .iter()
            .rev()
            .find(|segment| segment.first <= self.next)
            .or(segments.first());
        let Some(segment) = holds.cloned() else {
            return Ok(false);
        };
        let lines = Lines::open(&segment.path, 0)?;
        self.at = Some((segment, lines));
        Ok(true)
    }

    /// Goes on to the segment behind this one, if there is one.
    fn leave(&mut self, first: u64) -> io::Result<bool> {
        let segments = files::segments(&self.dir)?;
        let Some(after) = segments.into_iter().find(|segment| segment.first > first) else {
            return Ok(false);
        };
        if after.first > self.next {
            // Records between them are missing; a check says so.
            self.next = after.first;
        }
        let lines = Lines::open(&after.path, 0)?;
        self.at = Some((after, lines));
        Ok(true)
    }
}
