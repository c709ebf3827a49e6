//! The data directory: made if missing, private, one server's alone, and named for ever.
//!
//! Its lock says who holds it, and whether that one is stopping: its admin socket is gone by then, and who looks
//! for it (`holder`) can be told why.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::actors::clock::random;
use crate::cli::error::CliError;
use crate::domain::hex::hex;

/// Held by the server that uses the directory; says its pid.
const LOCK_NAME: &str = "lock";
/// Holds the installation's id.
const ID_NAME: &str = "installation";
/// Bytes of the id; twice as many hex digits.
const ID_BYTES: usize = 6;
/// What the lock's second line says when its holder stops.
const STOPPING: &str = "stopping\n";
/// Bytes read of its file.
const ID_BYTES_MAX: u64 = 64;
/// Bytes of a pid, generously.
const PID_BYTES_MAX: u64 = 32;

/// A data directory that is ours while this lives. The kernel frees the lock with the process,
/// however it ends, so a lock file without a holder means nothing.
#[derive(Debug)]
pub(super) struct DataDir {
    folder: PathBuf,
    lock: File,
}

/// Who holds a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) struct Holder {
    pub(in crate::cli) pid: u32,
    pub(in crate::cli) is_stopping: bool,
}

impl DataDir {
    /// Makes the directory (0700) if there is none, and locks it.
    ///
    /// # Errors
    /// [`CliError::LockHeld`] with the holder's pid, or [`CliError::DataDir`].
    pub(super) fn take(folder: &Path) -> Result<Self, CliError> {
        let broken = |what: &str, error: std::io::Error| CliError::DataDir {
            path: folder.to_owned(),
            cause: format!("{what}: {error}"),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|error| broken("it cannot be made", error))?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(folder.join(LOCK_NAME))
            .map_err(|error| broken("its lock cannot be opened", error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::LockHeld {
                    path: folder.to_owned(),
                    holder: read(&lock).map(|holder| holder.to_string()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(broken("it cannot be locked", error)),
        }
        let pid = format!("{}\n", std::process::id());
        let written = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(pid.as_bytes()));
        written.map_err(|error| broken("it cannot be written", error))?;
        Ok(Self {
            folder: folder.to_owned(),
            lock,
        })
    }

    /// Says so to who finds no server where one was. Said once; it is no failure if it cannot be.
    pub(super) fn say_stopping(&self) {
        let mut lock = &self.lock;
        if let Err(error) = lock.write_all(STOPPING.as_bytes()) {
            tracing::debug!(%error, "the lock does not say that this server stops");
        }
    }

    /// What this installation's cgroups are named after: drawn at the first start, kept for ever,
    /// so that the boot sweep finds what an earlier life left and touches nobody else's.
    ///
    /// # Errors
    /// [`CliError::DataDir`] if it cannot be read or kept.
    pub(super) fn installation_id(&self) -> Result<String, CliError> {
        let path = self.folder.join(ID_NAME);
        let broken = |what: &str, why: String| CliError::DataDir {
            path: self.folder.clone(),
            cause: format!("{what} {}: {why}", path.display()),
        };
        let unread = |error: std::io::Error| broken("cannot read", error.to_string());
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => {
                file.take(ID_BYTES_MAX)
                    .read_to_string(&mut text)
                    .map_err(unread)?;
                let id = text.trim();
                if id.len() == 2 * ID_BYTES && id.bytes().all(|b| b.is_ascii_hexdigit()) {
                    Ok(id.to_lowercase())
                } else {
                    let why = format!("it does not hold {} hex digits; restore it", 2 * ID_BYTES);
                    Err(broken("cannot use", why))
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let bytes: [u8; ID_BYTES] = random();
                let id = hex(&bytes);
                keep(&path, &id).map_err(|error| broken("cannot write", error.to_string()))?;
                Ok(id)
            }
            Err(error) => Err(unread(error)),
        }
    }
}

/// Writes a small file whole or not at all, and durably.
fn keep(path: &Path, text: &str) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// What the lock says.
fn read(lock: &File) -> Option<Holder> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let mut words = text.split_whitespace();
    Some(Holder {
        pid: words.next()?.parse().ok()?,
        is_stopping: words.next() == Some(STOPPING.trim()),
    })
}

/// The server that holds this directory now, as far as this account may see. Asked of the kernel, since taking the lock
/// to see whether it is free would keep out a server that starts.
pub(in crate::cli) fn holder(folder: &Path) -> Option<Holder> {
    let lock = File::open(folder.join(LOCK_NAME)).ok()?;
    let inode = lock.metadata().ok()?.ino();
    let holder = read(&lock)?;
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    locks
        .lines()
        .any(|line| is_held(line, holder.pid, inode))
        .then_some(holder)
}

/// Whether a line of `/proc/locks` (proc_locks(5)) is this file's lock by this process:
/// `1: FLOCK ADVISORY WRITE 708 00:13:16015 0 EOF`.
fn is_held(line: &str, pid: u32, inode: u64) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "WRITE", by, file, ..] = words[..] else {
        return false;
    };
    let number = file.rsplit(':').next().and_then(|inode| inode.parse().ok());
    by.parse() == Ok(pid) && number == Some(inode)
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopping = if self.is_stopping {
            ", which is stopping"
        } else {
            ""
        };
        write!(f, "pid {}{stopping}", self.pid)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn one_server_at_a_time_and_the_second_learns_whose_it_is() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("a/b");
        let held = DataDir::take(&folder).unwrap();
        let mode = std::fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = DataDir::take(&folder).unwrap_err();
        assert_eq!(error.exit().code(), 6);
        let pid = format!("in use by pid {}", std::process::id());
        assert!(error.to_string().contains(&pid), "{error}");
        drop(held);
        DataDir::take(&folder).unwrap();
    }

    #[test]
    fn who_holds_it_is_told_while_it_is_held() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(holder(folder.path()), None);
        let held = DataDir::take(folder.path()).unwrap();
        let pid = std::process::id();
        let is = |is_stopping| Some(Holder { pid, is_stopping });
        assert_eq!(holder(folder.path()), is(false));
        held.say_stopping();
        assert_eq!(holder(folder.path()), is(true));
        let error = DataDir::take(folder.path()).unwrap_err();
        assert!(error.to_string().contains("which is stopping"), "{error}");
        drop(held);
        assert_eq!(holder(folder.path()), None);
    }

    #[test]
    fn what_a_dead_server_left_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join(LOCK_NAME),
            "999999999\nlonger than the new pid",
        )
        .unwrap();
        let _held = DataDir::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(LOCK_NAME)).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn an_installation_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let held = DataDir::take(folder.path()).unwrap();
        let id = held.installation_id().unwrap();
        assert_eq!(id.len(), 12);
        assert_eq!(held.installation_id().unwrap(), id);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(
            DataDir::take(other.path())
                .unwrap()
                .installation_id()
                .unwrap(),
            id
        );
        for broken in ["", "../../../../x", "0123456789abcdef"] {
            std::fs::write(folder.path().join(ID_NAME), broken).unwrap();
            let error = held.installation_id().unwrap_err();
            assert!(error.to_string().contains("installation"), "{error}");
        }
    }

    #[test]
    fn a_place_that_will_not_do_is_named() {
        let error = DataDir::take(Path::new("/proc/nowhere/x")).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/x"), "{error}");
        assert_eq!(error.exit().code(), 1);
    }
}
