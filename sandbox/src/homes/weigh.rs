//! What a home weighs, whatever its owner made of it: directories deeper than a path is long, and a hundred thousand of
//! them in one.
//!
//! It is walked by descriptors, never by paths, and kept are a few open directories and, for each above these, its number
//! and a place in it. The invariant: we never follow a symbolic link, and go back up only to where we came from.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat};

/// What an entry counts besides its blocks: an empty file takes an inode.
pub const ENTRY_BYTES: u64 = 4096;
/// Directories in each other that are open at once.
const OPEN_MAX: usize = 16;

/// Bytes on the disk beneath a directory, as far as so many entries tell.
#[must_use]
pub fn weigh(dir: &Path, entries: u32) -> u64 {
    let entries = usize::try_from(entries).unwrap_or(usize::MAX);
    let weight = |stat: Stat| {
        let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
        blocks * 512 + ENTRY_BYTES
    };
    Walk::into(dir).take(entries).map(weight).sum()
}

/// All entries beneath a directory, each once. One that is moved meanwhile may end it.
#[derive(Debug)]
struct Walk {
    /// From the top to where we are. Only the last [`OPEN_MAX`] are open, and the very last always is.
    levels: Vec<Level>,
}

struct Level {
    /// Its file system and number.
    id: (u64, u64),
    dir: Option<Box<Dir>>,
    /// Behind the entry that was read last.
    place: i64,
}

// === impl Level ===

impl fmt::Debug for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Level").field(&self.id).finish()
    }
}

impl Level {
    fn of(dir: OwnedFd) -> Option<Self> {
        let stat = fstat(&dir).ok()?;
        Some(Self {
            id: (stat.st_dev, stat.st_ino),
            dir: Some(Box::new(Dir::new(dir).ok()?)),
            place: 0,
        })
    }

    /// The directory of this name in it.
    fn beneath<P: rustix::path::Arg>(&self, name: P) -> Option<OwnedFd> {
        let at = self.dir.as_ref()?.fd().ok()?;
        openat(at, name, DIRECTORY, Mode::empty()).ok()
    }
}

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

// === impl Walk ===

impl Walk {
    /// Nothing, where there is no directory.
    fn into(dir: &Path) -> Self {
        let opened = openat(CWD, dir, DIRECTORY, Mode::empty()).ok();
        let top = opened.and_then(Level::of);
        Self {
            levels: top.into_iter().collect(),
        }
    }

    fn enter(&mut self, level: Level) {
        self.levels.push(level);
        let far = self.levels.len().checked_sub(OPEN_MAX + 1);
        if let Some(above) = far.and_then(|far| self.levels.get_mut(far)) {
            above.dir = None;
        }
    }

    /// Back up; `None` at the end.
    fn leave(&mut self) -> Option<()> {
        let left = self.levels.pop()?;
        let above = self.levels.last_mut()?;
        if above.dir.is_none() {
            let again = Level::of(left.beneath("..")?)?;
            if again.id != above.id {
                return None;
            }
            let mut dir = again.dir?;
            dir.seek(above.place).ok()?;
            above.dir = Some(dir);
        }
        Some(())
    }
}

impl Iterator for Walk {
    type Item = Stat;

    fn next(&mut self) -> Option<Stat> {
        loop {
            let level = self.levels.last_mut()?;
            let Some(Ok(entry)) = level.dir.as_mut()?.read() else {
                self.leave()?;
                continue;
            };
            level.place = entry.offset();
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            // Of a link itself, not of where it leads.
            let at = level.dir.as_ref()?.fd().ok()?;
            let Ok(stat) = statat(at, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode).is_dir()
                && let Some(inner) = level.beneath(name).and_then(Level::of)
            {
                self.enter(inner);
            }
            return Some(stat);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use rustix::fs::mkdirat;

    use super::*;

    #[test]
    fn a_home_is_weighed_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![7; 1 << 20]).unwrap();
        symlink("/", dir.path().join("all")).unwrap();
        let bytes = weigh(dir.path(), 1000);
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(weigh(dir.path(), 0), 0);
        assert_eq!(weigh(Path::new("/nowhere"), 1000), 0);
        assert_eq!(weigh(&dir.path().join("all"), 1000), 0);
    }

    /// As their owner can make them: each step in the last.
    #[test]
    fn what_lies_deeper_than_a_path_is_long_is_weighed_all_the_same() {
        const DEEP: usize = 3 * OPEN_MAX;
        let dir = tempfile::tempdir().unwrap();
        let mut at = openat(CWD, dir.path(), DIRECTORY, Mode::empty()).unwrap();
        let file = |at: &OwnedFd, name: &str, bytes: usize| {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let fd = openat(at, name, flags, 0o600.into()).unwrap();
            fs::File::from(fd).write_all(&vec![7; bytes]).unwrap();
        };
        let mut made = 0;
        for _ in 0..DEEP {
            // Some are read before the one that leads on, some after.
            for n in 0..9 {
                let name = format!("{n}{}", "s".repeat(200));
                mkdirat(&at, &name, 0o700.into()).unwrap();
                let inner = openat(&at, &name, DIRECTORY, Mode::empty()).unwrap();
                file(&inner, "file", 1);
                made += 2;
            }
            let name = "d".repeat(250);
            mkdirat(&at, &name, 0o700.into()).unwrap();
            at = openat(&at, &name, DIRECTORY, Mode::empty()).unwrap();
            made += 1;
        }
        file(&at, "big", 8 << 20);
        made += 1;
        assert_eq!(Walk::into(dir.path()).count(), made);
        assert!(weigh(dir.path(), 10_000) > 8 << 20);
        let mut walk = Walk::into(dir.path());
        let mut open = 0;
        while walk.next().is_some() {
            open = open.max(walk.levels.iter().filter(|one| one.dir.is_some()).count());
        }
        assert!((2..=OPEN_MAX).contains(&open), "{open}");
    }
}
