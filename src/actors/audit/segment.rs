//! The segment that is written: its file, and what may have happened to it behind our back.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::domain::account::Millis;

/// The segment that is written.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) first: u64,
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Acknowledged bytes.
    pub(super) bytes: u64,
    pub(super) born: Millis,
    /// A write failed: what stands behind `bytes` is nobody's.
    pub(super) dirty: bool,
}

/// What happened to the open segment behind our back.
#[derive(Debug)]
pub(super) enum Tampered {
    /// The file is no longer at its path; our descriptor still has it.
    Gone,
    /// Acknowledged bytes are gone.
    Shorter(u64),
    /// Somebody else wrote into it.
    Longer(u64),
}

impl Open {
    /// Whether it is still what was written.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn tampered(&self) -> io::Result<Option<Tampered>> {
        let ours = self.file.metadata()?;
        let there = match std::fs::metadata(&self.path) {
            Ok(there) => Some((there.dev(), there.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(match (there, ours.len()) {
            (there, _) if there != Some((ours.dev(), ours.ino())) => Some(Tampered::Gone),
            (_, bytes) if bytes < self.bytes => Some(Tampered::Shorter(bytes)),
            // What a failed write of ours left is cut off by the next.
            (_, bytes) if bytes > self.bytes && !self.dirty => {
                Some(Tampered::Longer(bytes - self.bytes))
            }
            _ => None,
        })
    }

    /// Makes the file anew from the descriptor that still has it.
    pub(super) fn restore(&mut self) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        if self.path.exists() {
            set_aside(&self.path, "foreign")?;
        }
        let beside = self.path.with_extension("restored");
        let _ = std::fs::remove_file(&beside);
        let mut file = open_file(&beside, true)?;
        let (mut at, mut chunk) = (0, vec![0; 256 << 10]);
        while at < self.bytes {
            let read = self.file.read_at(&mut chunk, at)?;
            let wanted = usize::try_from(self.bytes - at)
                .unwrap_or(usize::MAX)
                .min(read);
            if wanted == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            file.write_all(chunk.get(..wanted).unwrap_or_default())?;
            at += wanted as u64;
        }
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        if let Some(dir) = self.path.parent() {
            sync_dir(dir)?;
        }
        self.file = file;
        self.dirty = false;
        Ok(())
    }

    /// Moves the last bytes into a file of their own.
    pub(super) fn cut_to(&mut self, bytes: u64, to: &Path) -> io::Result<()> {
        move_tail(&self.file, self.bytes, bytes, to)
    }
}

/// Copies what stands behind `at` into a file of its own, then cuts it off.
pub(super) fn move_tail(file: &File, at: u64, bytes: u64, to: &Path) -> io::Result<()> {
    let mut kept = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(to)?;
    let (mut from, end, mut chunk) = (at, at + bytes, vec![0; 64 << 10]);
    while from < end {
        let read = file.read_at(&mut chunk, from)? as u64;
        let read = usize::try_from(read.min(end - from)).unwrap_or(0);
        if read == 0 {
            break;
        }
        kept.write_all(chunk.get(..read).unwrap_or_default())?;
        from += read as u64;
    }
    kept.sync_all()?;
    file.set_len(at)?;
    file.sync_all()
}

/// Gives a file another name in its directory, one that is free.
pub(super) fn set_aside(path: &Path, why: &str) -> io::Result<String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for number in 0..u32::MAX {
        let aside = match number {
            0 => format!("{why}-{name}"),
            more => format!("{why}-{name}.{more}"),
        };
        let to = path.with_file_name(&aside);
        if !to.exists() {
            std::fs::rename(path, to)?;
            return Ok(aside);
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

pub(super) fn open_file(path: &Path, new: bool) -> io::Result<File> {
    OpenOptions::new()
        .create_new(new)
        .read(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
