//! The log's files, for those who read them: which segments there are, and their lines.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::domain::audit::check::{first_seq, segment_name};
use crate::domain::audit::checkpoint::Checkpoint;
use crate::domain::limits::AUDIT_LINE_BYTES_MAX;

/// The newest checkpoint, outside the chain.
pub(super) const CHECKPOINT_NAME: &str = "checkpoint";
/// The log of versions without a chain.
pub(super) const EARLIER_NAME: &str = "audit.jsonl";

/// Bytes of the checkpoint's file that are read.
const CHECKPOINT_BYTES_MAX: u64 = 4 << 10;

/// One segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its first record.
    pub(super) first: u64,
    /// Where it is.
    pub(super) path: PathBuf,
    /// Its bytes, when it was looked at.
    pub(super) bytes: u64,
}

impl Segment {
    /// Its file's name.
    #[must_use]
    pub(super) fn name(&self) -> String {
        segment_name(self.first)
    }
}

/// The segments of a log, oldest first. Other files are nobody's business.
///
/// # Errors
/// What the file system says.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<Segment>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(first) = entry.file_name().to_str().and_then(first_seq) else {
            continue;
        };
        // Retention may take it away under our eyes.
        let Ok(meta) = entry.metadata() else { continue };
        found.push(Segment {
            first,
            path: entry.path(),
            bytes: meta.len(),
        });
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

/// Says in an error which file it is about.
pub(super) fn about(path: &Path) -> impl Fn(io::Error) -> io::Error + '_ {
    |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The newest checkpoint, as the file beside the segments has it; `None` if there is none.
///
/// # Errors
/// What the file system says, or that it is no checkpoint.
pub(super) fn checkpoint(file: &Path) -> io::Result<Option<Checkpoint>> {
    let mut text = String::new();
    match File::open(file) {
        Ok(file) => file.take(CHECKPOINT_BYTES_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(io::Error::other)
}

/// Lines of one segment, each with where it begins.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<File>,
    at: u64,
    line: Vec<u8>,
}

impl Lines {
    /// From this byte of the file on, which must be the beginning of a line.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn open(path: &Path, at: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(at))?;
        Ok(Self {
            reader: BufReader::with_capacity(256 << 10, file),
            at,
            line: Vec::new(),
        })
    }

    /// Where the next line begins.
    #[must_use]
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next whole line without its newline. `None` at the end, also if the last line is not
    /// finished: then [`Lines::partial`] says how much of it there is.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        let max = AUDIT_LINE_BYTES_MAX as u64;
        let read = (&mut self.reader)
            .take(max)
            .read_until(b'\n', &mut self.line)? as u64;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
            self.at += read;
            return Ok(Some(&self.line));
        }
        if read == max {
            // No record of ours is that long: whoever checks it says so.
            self.at += read;
            return Ok(Some(&self.line));
        }
        Ok(None)
    }

    /// Bytes of an unfinished last line, once [`Lines::next`] gave `None`.
    #[must_use]
    pub(super) fn partial(&self) -> u64 {
        self.line.len() as u64
    }
}

/// One line of a segment, by where it begins.
///
/// # Errors
/// What the file system says; there is no line there.
pub(super) fn line_at(path: &Path, at: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(4 << 10, file).take(AUDIT_LINE_BYTES_MAX as u64);
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(line),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
