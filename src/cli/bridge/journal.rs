//! The bridge's log: a file that is begun anew when it is large, and warnings on stderr. Never stdout,
//! which belongs to the protocol; never the key, which no message is given.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::domain::limits::{BRIDGE_LOG_BYTES_MAX, BRIDGE_LOG_FILES_MAX};

/// Overrides the level, in tracing's filter syntax.
const FILTER_VARIABLE: &str = "LEGATION_LOG";
/// What is logged otherwise.
const FILTER: &str = "warn,legation=info";

/// Starts logging for the rest of the process. Without a file, stderr has to do.
pub(super) fn start(path: Option<&Path>) {
    let filter = std::env::var(FILTER_VARIABLE)
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(FILTER));
    let opened = path.map(|path| Journal::open(path, BRIDGE_LOG_BYTES_MAX));
    let (journal, why) = match opened {
        Some(Ok(journal)) => (Some(journal), None),
        Some(Err(error)) => (None, Some(error.to_string())),
        None => (
            None,
            Some("there is no home directory to put it in".to_owned()),
        ),
    };
    let file = journal.map(|journal| {
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(Mutex::new(journal))
            .with_filter(filter)
    });
    let stderr = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(io::stderr)
        .with_filter(LevelFilter::WARN);
    let started = tracing_subscriber::registry()
        .with(file)
        .with(stderr)
        .try_init();
    if started.is_ok()
        && let Some(why) = why
    {
        tracing::warn!(why, "there is no log file");
    }
}

/// A file, and those it was before.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    most: u64,
    /// Bytes of our own since we looked how large it is.
    unlooked: u64,
}

/// After so many bytes of ours it is looked at again: other bridges write into it as well.
const LOOK_AFTER: u64 = 64 << 10;

// === impl Journal ===

impl Journal {
    fn open(path: &Path, most: u64) -> io::Result<Self> {
        if let Some(folder) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let file = appended(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            most,
            unlooked: 0,
        })
    }

    /// Begins a new file; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        // Another bridge with the same log may have done so already.
        let is_current = match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            _ => false,
        };
        if is_current {
            for number in (1..BRIDGE_LOG_FILES_MAX).rev() {
                let from = match number {
                    1 => self.path.clone(),
                    _ => numbered(&self.path, number - 1),
                };
                // One that is not there yet is no failure.
                _ = fs::rename(from, numbered(&self.path, number));
            }
        }
        self.file = appended(&self.path)?;
        self.bytes = self.file.metadata()?.len();
        self.unlooked = 0;
        Ok(())
    }

    /// Whether it is full, with what others have written.
    fn is_full(&mut self, more: u64) -> io::Result<bool> {
        self.unlooked += more;
        if self.unlooked >= LOOK_AFTER.min(self.most / 8) {
            self.unlooked = 0;
            self.bytes = self.file.metadata()?.len();
            let named = fs::metadata(&self.path).map(|named| (named.dev(), named.ino()));
            let open = self.file.metadata()?;
            if named.ok() != Some((open.dev(), open.ino())) {
                // Another bridge has begun the next one.
                return Ok(true);
            }
        }
        Ok(self.bytes + more > self.most && self.bytes > 0)
    }
}

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_full(bytes.len() as u64)? {
            self.turn()?;
        }
        // A whole line at once: those of other bridges do not mix into it.
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_never_has_more_than_its_files_and_their_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/bridge.log");
        let mut journal = Journal::open(&path, 100).unwrap();
        let mut other = Journal::open(&path, 100).unwrap();
        for number in 0..200 {
            for (one, name) in [(&mut journal, "one"), (&mut other, "another")] {
                let line = format!("line {number} of {name}\n");
                one.write_all(line.as_bytes()).unwrap();
            }
        }
        let files: Vec<_> = fs::read_dir(path.parent().unwrap())
            .unwrap()
            .flatten()
            .collect();
        assert_eq!(files.len(), BRIDGE_LOG_FILES_MAX);
        // Each may add what it writes between two looks.
        let largest = files.iter().map(|file| file.metadata().unwrap().len());
        assert!(largest.max().unwrap() <= 140);
        let newest = fs::read_to_string(&path).unwrap();
        assert!(newest.contains("line 199"), "{newest}");
    }
}
