//! The range of uids isolates run as: a setting, claimed for this server's life by a lock that all
//! servers of the host see, and checked against the accounts the host knows.

pub mod subordinate;

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

use crate::plan::Identity;

/// Where servers of this host meet.
pub const CLAIMS: &str = "/run/legation";
/// Byte `n` of this file stands for uid `n`.
const LOCK: &str = "uids";
/// Uids below are the host's own.
const FIRST: u32 = 10_000;

/// A range of uids; the same numbers are used as gids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    base: u32,
    count: u32,
}

/// Why a range cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// It holds ids that are nobody's to give.
    #[error(
        "uids {0} cannot be given to isolates; set sandbox.uid_base to {FIRST} or more, and \
         sandbox.uid_count so that the range ends before 4294967294"
    )]
    Invalid(Range),
    /// An account or a subordinate range is in it.
    #[error("uids {range} overlap with {with}; set sandbox.uid_base to a free range")]
    Overlap {
        /// The range.
        range: Range,
        /// Whose ids, and where that is written.
        with: String,
    },
    /// Another server has some of it.
    #[error(
        "uids {0} are in use by another legation server on this host; give each its own \
         sandbox.uid_base"
    )]
    Taken(Range),
    /// The lock could not be taken.
    #[error("cannot claim uids in {path}: {source}", path = path.display())]
    Io {
        /// The lock's path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A range that is ours while this lives; the kernel frees it with the process.
#[derive(Debug)]
pub struct Claim {
    range: Range,
    _lock: File,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.base, self.last())
    }
}

impl Range {
    /// `count` uids from `base` on.
    ///
    /// # Errors
    /// [`RangeError::Invalid`].
    pub const fn new(base: u32, count: u32) -> Result<Self, RangeError> {
        let range = Self { base, count };
        match base.checked_add(count) {
            Some(end) if base >= FIRST && count > 0 && end < u32::MAX - 1 => Ok(range),
            _ => Err(RangeError::Invalid(range)),
        }
    }

    const fn last(self) -> u32 {
        self.base.saturating_add(self.count.saturating_sub(1))
    }

    /// Whether it holds this id.
    #[must_use]
    pub const fn contains(self, id: u32) -> bool {
        id >= self.base && id <= self.last()
    }

    /// All of them, in order.
    pub(crate) fn ids(self) -> impl Iterator<Item = u32> {
        self.base..=self.last()
    }

    /// The range of the same size behind it.
    ///
    /// # Errors
    /// [`RangeError::Invalid`] past the last.
    pub const fn next(self) -> Result<Self, RangeError> {
        Self::new(self.base.saturating_add(self.count), self.count)
    }

    /// Its last id: nobody's, for the probe.
    #[must_use]
    pub const fn probe(self) -> Identity {
        let id = self.last();
        Identity { uid: id, gid: id }
    }

    /// Claims it for this process, on this host.
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn claim(self, folder: &Path) -> Result<Claim, RangeError> {
        // A host without these files has no accounts to overlap with.
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        if let Some(with) = self.overlap(&text("/etc/passwd"), &text("/etc/subuid")) {
            return Err(RangeError::Overlap { range: self, with });
        }
        self.claim_given(folder)
    }

    /// Claims a range that the host gave this account, in its own place ([`subordinate::claims`]).
    ///
    /// # Errors
    /// [`RangeError`].
    pub fn claim_given(self, folder: &Path) -> Result<Claim, RangeError> {
        let path = folder.join(LOCK);
        let broken = |source: io::Error| RangeError::Io {
            path: path.clone(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(broken)?;
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(broken)?;
        let wanted = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
            l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
            l_start: i64::from(self.base),
            l_len: i64::from(self.count),
            l_pid: 0,
        };
        match fcntl(&lock, FcntlArg::F_OFD_SETLK(&wanted)) {
            Ok(_) => Ok(Claim {
                range: self,
                _lock: lock,
            }),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Err(RangeError::Taken(self)),
            Err(error) => Err(broken(error.into())),
        }
    }

    /// Whose ids are in it, by the texts of `/etc/passwd` and `/etc/subuid`.
    fn overlap(self, passwd: &str, subuid: &str) -> Option<String> {
        let account = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid: u32 = fields.nth(1)?.trim().parse().ok()?;
            self.contains(uid)
                .then(|| format!("account {name} ({uid} in /etc/passwd)"))
        });
        account.or_else(|| {
            subuid.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next()?;
                let first: u64 = fields.next()?.trim().parse().ok()?;
                let count: u64 = fields.next()?.trim().parse().ok()?;
                let end = first.saturating_add(count);
                let meets = first <= u64::from(self.last()) && end > u64::from(self.base);
                (count > 0 && meets).then(|| format!("{name}'s {first}-{} in /etc/subuid", end - 1))
            })
        })
    }
}

impl Claim {
    /// What was claimed.
    #[must_use]
    pub const fn range(&self) -> Range {
        self.range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_never_root_s_or_nobody_s() {
        assert!(Range::new(0, 10).is_err());
        assert!(Range::new(9_999, 10).is_err());
        assert!(Range::new(200_000, 0).is_err());
        assert!(Range::new(u32::MAX - 10, 100).is_err());
        let range = Range::new(200_000, 100).unwrap();
        assert_eq!(range.to_string(), "200000-200099");
        assert_eq!(range.next().unwrap().to_string(), "200100-200199");
        assert!(range.contains(range.probe().uid));
    }

    #[test]
    fn accounts_and_subordinate_ranges_are_respected() {
        let range = Range::new(200_000, 100).unwrap();
        let passwd = "root:x:0:0::/:/bin/sh\nbad line\nada:x:200099:7::/:/bin/sh\n";
        assert!(range.overlap(passwd, "").unwrap().contains("ada (200099"));
        let subuid = "ada:165536:34464\nbob:200000:1\n";
        assert_eq!(
            range.overlap("", subuid).unwrap(),
            "bob's 200000-200000 in /etc/subuid"
        );
        assert_eq!(
            range.overlap("x:y", "ada:165536:34464\n:\nx:y:z\nq:1:0\n"),
            None
        );
        let all = format!("x:{}:{}", 0, u64::MAX);
        assert!(range.overlap("", &all).is_some());
    }

    #[test]
    fn ranges_that_meet_are_one_server_s() {
        let folder = tempfile::tempdir().unwrap();
        let range = Range::new(1_600_000_000, 100).unwrap();
        let held = range.claim(folder.path()).unwrap();
        let meets = Range::new(1_600_000_099, 5).unwrap();
        assert!(matches!(
            meets.claim(folder.path()),
            Err(RangeError::Taken(_))
        ));
        range.next().unwrap().claim(folder.path()).unwrap();
        drop(held);
        meets.claim(folder.path()).unwrap();
    }
}
