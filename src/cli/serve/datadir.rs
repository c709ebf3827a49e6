//! The data directory: made if missing, private, and one server's alone.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::cli::error::CliError;

/// Held by the server that uses the directory; says its pid.
const LOCK_NAME: &str = "lock";
/// Bytes of a pid, generously.
const PID_BYTES_MAX: u64 = 32;

/// A data directory that is ours while this lives. The kernel frees the lock with the process,
/// however it ends, so a lock file without a holder means nothing.
#[derive(Debug)]
pub(super) struct DataDir {
    _lock: File,
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
                    holder: holder(&lock),
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
        Ok(Self { _lock: lock })
    }
}

fn holder(lock: &File) -> Option<String> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().parse().ok()?;
    Some(format!("pid {pid}"))
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
    fn what_a_dead_server_left_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(LOCK_NAME), "999999999\nlonger than the new pid").unwrap();
        let _held = DataDir::take(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(LOCK_NAME)).unwrap();
        assert_eq!(text.trim(), std::process::id().to_string());
    }

    #[test]
    fn a_place_that_will_not_do_is_named() {
        let error = DataDir::take(Path::new("/proc/nowhere/x")).unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere/x"), "{error}");
        assert_eq!(error.exit().code(), 1);
    }
}
