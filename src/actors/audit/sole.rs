//! One log, one writer: what keeps a second server, or another installation's, away from a
//! directory. Two that write one chain break it for good.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::domain::audit::check::head;

use super::files::{self, Lines};

/// Held by the server that writes the log; says its pid. Not `lock`: the directory may be the data
/// directory.
const LOCK_NAME: &str = "audit.lock";
/// Before the pid: no line of it is to look like a record.
const PID: &str = "pid ";
/// Bytes of a pid, generously.
const PID_BYTES_MAX: u64 = 32;

/// Why a log is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server writes it.
    #[error("{} writes the audit log in {}", .holder.as_deref().unwrap_or("another server"), .dir.display())]
    Held {
        /// Where.
        dir: PathBuf,
        /// Who, if that can be said.
        holder: Option<String>,
    },
    /// It is the log of another installation.
    #[error("the audit log in {} is of installation {theirs}, and this is {ours}", .dir.display())]
    Foreign {
        /// Where.
        dir: PathBuf,
        /// Whose it is.
        theirs: String,
        /// Who we are.
        ours: String,
    },
    /// The file system refuses.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Takes the directory for this process; the kernel gives it back however the process ends.
pub(super) fn take(dir: &Path) -> Result<File, OpenError> {
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK_NAME))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Held {
                dir: dir.to_owned(),
                holder: holder(&lock),
            });
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    let pid = format!("{PID}{}\n", std::process::id());
    // For people; on a full disk it is missing.
    let _ = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| lock.write_all(pid.as_bytes()));
    Ok(lock)
}

fn holder(lock: &File) -> Option<String> {
    let mut text = String::new();
    lock.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    let pid: u32 = text.trim().strip_prefix(PID)?.parse().ok()?;
    Some(format!("{PID}{pid}"))
}

/// Looks whose log it is, before anything is touched: the newest segment with a head says.
pub(super) fn look(dir: &Path, ours: Option<&str>) -> Result<(), OpenError> {
    let Some(ours) = ours.filter(|name| !name.is_empty()) else {
        return Ok(());
    };
    for segment in files::segments(dir)?.iter().rev() {
        let about = files::about(&segment.path);
        let mut lines = Lines::open(&segment.path, 0).map_err(&about)?;
        // One without a right head is damaged, and for others to judge.
        let Some(head) = lines.next().map_err(&about)?.and_then(head) else {
            continue;
        };
        if head.installation == ours {
            return Ok(());
        }
        return Err(OpenError::Foreign {
            dir: dir.to_owned(),
            theirs: head.installation,
            ours: ours.to_owned(),
        });
    }
    Ok(())
}
