//! `kill.journal`: what was switched, on the disk before it takes effect.
//!
//! One line for each change: sixteen hex digits of the SHA-256 of the rest, a space, JSON. A last
//! line without its end was never acknowledged and is cut off; any other line that does not fit its
//! checksum stops the start, because what it denied must not be forgotten silently. The file always
//! holds all that is in force; it is written anew, by a rename, when most of it is past. Disk blocks
//! for what comes next are taken in advance, so that a full disk does not stop a kill switch.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::code::Code;
use crate::domain::hex::hex;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Lifted};
use crate::domain::limits::{
    KILL_JOURNAL_BYTES_MAX, KILL_JOURNAL_COMPACT_BYTES, KILL_JOURNAL_LINE_BYTES_MAX,
    KILL_JOURNAL_RESERVE_BYTES,
};

/// Its name in the data directory.
pub(super) const FILE: &str = "kill.journal";
/// Hex digits of a line's checksum.
const SUM_CHARS: usize = 16;

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Record {
    /// A deny came into force.
    On {
        /// Which.
        deny: Deny,
    },
    /// A deny is over.
    Off {
        /// Which.
        id: DenyId,
        /// When, by whom and how.
        lifted: Lifted,
    },
}

/// Why the journal does not do it.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk refuses: nothing was switched.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It may grow no further.
    #[error(
        "{} has {bytes} bytes, which is the most, because the store does not take over what is \
         past: see legation status", path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// A line is not what was written.
    #[error(
        "{} is damaged at line {line}: {why}. A kill switch may be on that line, so the server does \
         not start without it. Restore the file from a backup; or set it aside (mv), start, compare \
         `legation kill-switch list` with it and switch on again what is missing", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Which line, from one.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl JournalError {
    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Io { .. } | Self::Full { .. } => Code::KillJournalUnavailable,
            Self::Damaged { .. } => Code::KillJournalDamaged,
        }
    }
}

/// What an opened journal holds.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) records: Vec<Record>,
    /// Bytes of a last line that was never acknowledged.
    pub(super) torn: usize,
}

/// The open file. Everything here blocks.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Where the last acknowledged line ends.
    length: u64,
    /// The size after it was last written anew.
    compact: u64,
    /// Up to where the disk has blocks for it.
    reserved: u64,
    /// A write failed and what it left could not be cut off.
    untidy: bool,
    sync: fn(&File) -> std::io::Result<()>,
}

impl Journal {
    /// Opens or makes the journal of a data directory and reads it.
    pub(super) fn open(dir: &Path) -> Result<Opened, JournalError> {
        let path = dir.join(FILE);
        let io = |doing| {
            let path = path.clone();
            move |source| JournalError::Io {
                doing,
                path,
                source,
            }
        };
        let known = path.try_exists().map_err(io("find"))?;
        let mut file = options().create(true).open(&path).map_err(io("open"))?;
        if !known {
            file.sync_all().map_err(io("make"))?;
            sync_dir(dir).map_err(io("make"))?;
        }
        let meta = file.metadata().map_err(io("read"))?;
        if !meta.is_file() {
            let source = std::io::Error::other("it is no plain file");
            return Err(io("use")(source));
        }
        if meta.len() > KILL_JOURNAL_BYTES_MAX {
            let bytes = meta.len();
            return Err(JournalError::Full { path, bytes });
        }
        let mut bytes = Vec::new();
        Read::by_ref(&mut file)
            .take(KILL_JOURNAL_BYTES_MAX)
            .read_to_end(&mut bytes)
            .map_err(io("read"))?;
        let (records, whole) = read(&path, &bytes)?;
        let torn = bytes.len() - whole;
        let mut journal = Self {
            file,
            length: whole as u64,
            compact: 0,
            reserved: 0,
            untidy: torn > 0,
            sync: File::sync_data,
            path: path.clone(),
        };
        journal.tidy().map_err(io("cut a torn line off"))?;
        journal.reserve();
        Ok(Opened {
            journal,
            records,
            torn,
        })
    }

    /// Appends changes, all or none, and returns when they are on the disk.
    ///
    /// # Errors
    /// Nothing of it counts, and it was cut off again if that was possible.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for record in records {
            self.line(record, &mut bytes)?;
        }
        if self.length + bytes.len() as u64 > KILL_JOURNAL_BYTES_MAX {
            return Err(JournalError::Full {
                path: self.path.clone(),
                bytes: self.length,
            });
        }
        let written = self.tidy().and_then(|()| {
            let written = self.file.write_all(&bytes);
            written.and_then(|()| (self.sync)(&self.file))
        });
        match written {
            Ok(()) => {
                self.length += bytes.len() as u64;
                self.reserve();
                Ok(())
            }
            Err(source) => {
                self.untidy = true;
                // If it cannot be cut off now, then before the next line.
                let _ = self.tidy();
                Err(self.io("append to", source))
            }
        }
    }

    /// Whether most of it is past.
    pub(super) fn is_large(&self) -> bool {
        self.length > KILL_JOURNAL_COMPACT_BYTES.max(self.compact.saturating_mul(2))
    }

    /// Whether the file at its path is still this one: somebody may have removed it.
    pub(super) fn is_in_place(&self) -> bool {
        let at_path = std::fs::metadata(&self.path);
        match (at_path, self.file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        }
    }

    /// Writes it anew with these records alone; until the rename the old one counts.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> Result<(), JournalError> {
        let mut bytes = Vec::new();
        for record in records {
            self.line(record, &mut bytes)?;
        }
        let new = self.path.with_extension("journal.new");
        let written = (|| {
            let _ = std::fs::remove_file(&new);
            let mut file = options().create_new(true).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&new, &self.path)?;
            Ok(file)
        })();
        let file = written.map_err(|source| self.io("write anew", source))?;
        // Renamed: from here on the new file is ours, also if the directory cannot be synced.
        self.file = file;
        self.length = bytes.len() as u64;
        self.compact = self.length;
        self.untidy = false;
        self.reserved = 0;
        self.reserve();
        let dir = self.path.parent().unwrap_or(Path::new("."));
        sync_dir(dir).map_err(|source| self.io("make the new", source))
    }

    fn line(&self, record: &Record, out: &mut Vec<u8>) -> Result<(), JournalError> {
        let json = serde_json::to_string(record)
            .map_err(|error| self.io("write", std::io::Error::other(error)))?;
        if json.len() + SUM_CHARS + 2 > KILL_JOURNAL_LINE_BYTES_MAX {
            let text = format!("a record has more than {KILL_JOURNAL_LINE_BYTES_MAX} bytes");
            return Err(self.io("write", std::io::Error::other(text)));
        }
        out.extend_from_slice(checksum(json.as_bytes()).as_bytes());
        out.push(b' ');
        out.extend_from_slice(json.as_bytes());
        out.push(b'\n');
        Ok(())
    }

    /// Takes blocks for the lines to come while there are some. Where the file system has no such
    /// thing, or the disk is full already, an append takes what it finds.
    fn reserve(&mut self) {
        let wanted = self.length + KILL_JOURNAL_RESERVE_BYTES;
        if self.reserved >= self.length + KILL_JOURNAL_RESERVE_BYTES / 2 {
            return;
        }
        let (from, bytes) = (self.length, KILL_JOURNAL_RESERVE_BYTES);
        if fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, bytes).is_ok() {
            self.reserved = wanted;
        }
    }

    /// Cuts off what a failed write left.
    fn tidy(&mut self) -> std::io::Result<()> {
        if self.untidy {
            self.file.set_len(self.length)?;
            // What was reserved behind the end went with it.
            self.reserved = 0;
            self.reserve();
            (self.sync)(&self.file)?;
            self.untidy = false;
        }
        Ok(())
    }

    fn io(&self, doing: &'static str, source: std::io::Error) -> JournalError {
        JournalError::Io {
            doing,
            path: self.path.clone(),
            source,
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).mode(0o600);
    options
}

fn sync_dir(dir: &Path) -> std::io::Result<()> {
    File::open(dir)?.sync_all()
}

fn checksum(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    hex(digest.get(..SUM_CHARS / 2).unwrap_or_default())
}

/// The records, and how many bytes of whole lines there are.
fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<Record>, usize), JournalError> {
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = bytes.get(..whole).unwrap_or_default();
    let mut records = Vec::new();
    for (number, line) in (1..).zip(lines.split_inclusive(|byte| *byte == b'\n')) {
        let record = record(line).map_err(|why| JournalError::Damaged {
            path: path.to_owned(),
            line: number,
            why,
        })?;
        records.push(record);
    }
    Ok((records, whole))
}

fn record(line: &[u8]) -> Result<Record, String> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let (sum, json) = line
        .split_at_checked(SUM_CHARS)
        .and_then(|(sum, rest)| Some((sum, rest.strip_prefix(b" ")?)))
        .ok_or("it has no checksum")?;
    if sum != checksum(json).as_bytes() {
        return Err("its checksum does not fit".to_owned());
    }
    serde_json::from_slice(json).map_err(|error| format!("another version wrote it ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ID_BYTES, McpId};
    use crate::domain::kill::{Ending, Kind, Target};

    fn on(n: u8) -> Record {
        Record::On {
            deny: Deny {
                id: DenyId::from_random([n; ID_BYTES]),
                kind: Kind::KillSwitch,
                target: Target::Mcp(McpId::from_random([n; ID_BYTES])),
                label: "demo".into(),
                reason: "line\nbreak \u{1}\"".into(),
                author: "root".into(),
                created_at: 1,
                expires_at: None,
                lifted: None,
            },
        }
    }

    fn off(n: u8) -> Record {
        Record::Off {
            id: DenyId::from_random([n; ID_BYTES]),
            lifted: Lifted {
                at: 5,
                by: "root".into(),
                how: Ending::Lifted,
            },
        }
    }

    fn written(dir: &Path) -> Vec<Record> {
        let mut opened = Journal::open(dir).unwrap();
        assert!(opened.records.is_empty());
        let all = vec![on(1), on(2), off(1)];
        opened.journal.append(&all[..1]).unwrap();
        opened.journal.append(&all[1..]).unwrap();
        all
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path());
        let opened = Journal::open(dir.path()).unwrap();
        assert_eq!((opened.records, opened.torn), (all, 0));
        let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_torn_last_line_is_cut_off_wherever_it_was_torn() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path());
        let path = dir.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        let last = bytes[..bytes.len() - 1]
            .iter()
            .rposition(|b| *b == b'\n')
            .unwrap()
            + 1;
        for end in last + 1..bytes.len() {
            std::fs::write(&path, &bytes[..end]).unwrap();
            let mut opened = Journal::open(dir.path()).unwrap();
            assert_eq!(opened.records, all[..2]);
            assert_eq!(opened.torn, end - last);
            opened.journal.append(&[off(1)]).unwrap();
            assert_eq!(Journal::open(dir.path()).unwrap().records, all);
        }
    }

    #[test]
    fn any_other_damage_refuses_to_start_and_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let path = dir.path().join(FILE);
        let bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() - 1 {
            let mut bad = bytes.clone();
            // A line break, made or lost, damages two lines into one or one into two.
            bad[at] ^= 0x04;
            std::fs::write(&path, &bad).unwrap();
            let line = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
            match Journal::open(dir.path()) {
                Err(error @ JournalError::Damaged { line: named, .. }) => {
                    assert_eq!(named, line, "byte {at}: {error}");
                    assert!(error.to_string().contains("kill.journal"), "{error}");
                }
                other => panic!("byte {at}: {other:?}"),
            }
            assert_eq!(std::fs::read(&path).unwrap(), bad, "nothing is repaired");
        }
    }

    #[test]
    fn a_failed_append_leaves_nothing_and_the_next_one_works() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path());
        let mut journal = Journal::open(dir.path()).unwrap().journal;
        journal.sync = |_| Err(std::io::Error::other("no space"));
        let error = journal.append(&[on(3)]).unwrap_err();
        assert_eq!(error.code(), Code::KillJournalUnavailable);
        assert!(error.to_string().contains("no space"), "{error}");
        journal.sync = File::sync_data;
        journal.append(&[on(4)]).unwrap();
        let read = Journal::open(dir.path()).unwrap().records;
        assert_eq!(read, [&all[..], &[on(4)]].concat());
    }

    #[test]
    fn it_is_written_anew_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let mut journal = Journal::open(dir.path()).unwrap().journal;
        journal.rewrite(&[on(2)]).unwrap();
        assert!(journal.is_in_place() && !journal.is_large());
        journal.append(&[on(5)]).unwrap();
        let read = Journal::open(dir.path()).unwrap().records;
        assert_eq!(read, [on(2), on(5)]);
        std::fs::remove_file(dir.path().join(FILE)).unwrap();
        assert!(!journal.is_in_place());
    }

    #[test]
    fn what_was_renamed_half_way_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let all = written(dir.path());
        std::fs::write(dir.path().join("kill.journal.new"), b"half").unwrap();
        let mut opened = Journal::open(dir.path()).unwrap();
        assert_eq!(opened.records, all);
        opened.journal.rewrite(&[on(2)]).unwrap();
        assert_eq!(Journal::open(dir.path()).unwrap().records, [on(2)]);
    }
}
