//! Taking over a tree that others wrote: a copy of ours, which nobody else writes to.
//!
//! What the install's processes made is not trusted: nothing of it is kept but names, contents, links as
//! texts, and whether a file is executable. The copy has fresh inodes, no other user's owner, no set-uid
//! bit, no second name. No link is followed. Its digest is over all of that, in the order of names.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Dir, Mode, OFlags, Timespec, Timestamps, futimens, openat, readlinkat};
use sha2::{Digest, Sha256};

use crate::domain::limits::{PACKAGE_BYTES_MAX, PACKAGE_DEPTH_MAX, PACKAGE_ENTRIES_MAX};

/// What was taken over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// SHA-256 over names, kinds, contents and links, in hex.
    pub(super) digest: String,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Files, directories and links.
    pub(super) entries: u64,
}

struct Copy<'a> {
    stop: &'a dyn Fn() -> Option<String>,
    /// Whose all of it must be: that of the tree itself.
    owner: u32,
    hasher: Sha256,
    bytes: u64,
    entries: u64,
    buffer: Vec<u8>,
}

/// Copies the tree at `from` to `to`, which is made; asks `stop` on the way whether to go on. Blocks.
///
/// # Errors
/// The disk, a stop, or a tree that is none of a package: too large, or with devices, pipes and sockets in it.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    stop: &dyn Fn() -> Option<String>,
) -> io::Result<Sealed> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = rustix::fs::open(from, flags, Mode::empty())?;
    let owner = rustix::fs::fstat(&top)?.st_uid;
    let mut copy = Copy {
        stop,
        owner,
        hasher: Sha256::new(),
        bytes: 0,
        entries: 0,
        buffer: vec![0; 256 << 10],
    };
    copy.dir(&top, to, PACKAGE_DEPTH_MAX)?;
    Ok(Sealed {
        digest: super::hex(&copy.hasher.finalize()),
        bytes: copy.bytes,
        entries: copy.entries,
    })
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::other(why.into())
}

impl Copy<'_> {
    fn go_on(&self) -> io::Result<()> {
        (self.stop)().map_or(Ok(()), |why| Err(refused(why)))
    }

    fn dir(&mut self, from: &OwnedFd, to: &Path, depth: usize) -> io::Result<()> {
        if depth == 0 {
            return Err(refused(format!(
                "it is more than {PACKAGE_DEPTH_MAX} directories deep"
            )));
        }
        DirBuilder::new().mode(0o755).create(to)?;
        // Whatever the umask is.
        std::fs::set_permissions(to, Permissions::from_mode(0o755))?;
        let mut names = Vec::new();
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
            if self.entries + names.len() as u64 > PACKAGE_ENTRIES_MAX {
                return Err(refused(format!(
                    "it has more than {PACKAGE_ENTRIES_MAX} files"
                )));
            }
        }
        self.entries += names.len() as u64;
        names.sort();
        for name in names {
            let name = std::ffi::OsString::from(os(&name));
            self.entry(from.as_fd(), &name, &to.join(&name), depth)?;
        }
        self.told(b'^', b"", &[]);
        Ok(())
    }

    fn entry(
        &mut self,
        at: BorrowedFd<'_>,
        name: &std::ffi::OsStr,
        to: &Path,
        depth: usize,
    ) -> io::Result<()> {
        self.go_on()?;
        let bytes = name.as_encoded_bytes();
        // A pipe would be waited for; a link says so.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(at, name, flags, Mode::empty()) {
            Ok(file) => file,
            Err(rustix::io::Errno::LOOP) => {
                let target = readlinkat(at, name, Vec::new())?;
                self.told(b'l', bytes, target.as_bytes());
                return symlink(std::ffi::OsString::from(os(target.as_bytes())), to);
            }
            Err(error) => {
                let shown = String::from_utf8_lossy(bytes).into_owned();
                return Err(refused(format!("`{shown}` cannot be read: {error}")));
            }
        };
        let file = File::from(file);
        let meta = file.metadata()?;
        if meta.uid() != self.owner {
            // A second name of somebody else's file.
            let shown = String::from_utf8_lossy(bytes).into_owned();
            return Err(refused(format!("`{shown}` is not the installer's own")));
        }
        if meta.is_dir() {
            self.told(b'd', bytes, &[]);
            return self.dir(&file.into(), to, depth - 1);
        }
        if !meta.is_file() {
            let shown = String::from_utf8_lossy(bytes).into_owned();
            return Err(refused(format!(
                "`{shown}` is neither file, directory nor link"
            )));
        }
        self.file(file, &meta, bytes, to)
    }

    fn file(
        &mut self,
        mut from: File,
        meta: &std::fs::Metadata,
        name: &[u8],
        to: &Path,
    ) -> io::Result<()> {
        let is_program = meta.mode() & 0o111 != 0;
        let mode = if is_program { 0o755 } else { 0o644 };
        let mut options = File::options();
        let mut copied = options.write(true).create_new(true).mode(mode).open(to)?;
        let mut hasher = Sha256::new();
        loop {
            let read = from.read(&mut self.buffer)?;
            let part = self.buffer.get(..read).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            self.bytes += read as u64;
            if self.bytes > PACKAGE_BYTES_MAX {
                return Err(refused(format!(
                    "it is larger than {} MiB",
                    PACKAGE_BYTES_MAX >> 20
                )));
            }
            hasher.update(part);
            if part.iter().all(|byte| *byte == 0) {
                // Holes stay holes.
                copied.seek_relative(i64::try_from(read).unwrap_or(i64::MAX))?;
            } else {
                copied.write_all(part)?;
            }
            self.go_on()?;
        }
        // A hole at the end.
        let length = copied.stream_position()?;
        copied.set_len(length)?;
        copied.set_permissions(Permissions::from_mode(mode))?;
        // Compiled Python is good for the source of this very time only.
        let time = Timespec {
            tv_sec: meta.mtime(),
            tv_nsec: 0,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        futimens(&copied, &times)?;
        let kind = if is_program { b'x' } else { b'f' };
        self.told(kind, name, &hasher.finalize());
        Ok(())
    }

    /// One entry into the digest: nothing of it can be taken for a part of another.
    fn told(&mut self, kind: u8, name: &[u8], content: &[u8]) {
        self.hasher.update([kind]);
        for part in [name, content] {
            self.hasher.update((part.len() as u64).to_le_bytes());
            self.hasher.update(part);
        }
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Trees(tempfile::TempDir);

    impl Trees {
        fn new() -> Self {
            let trees = Self(tempfile::tempdir().unwrap());
            let from = trees.from();
            fs::create_dir_all(from.join("node_modules/x")).unwrap();
            fs::write(from.join("node_modules/x/run.js"), "#!/usr/bin/env node\n").unwrap();
            fs::set_permissions(
                from.join("node_modules/x/run.js"),
                Permissions::from_mode(0o4777),
            )
            .unwrap();
            fs::write(from.join("data"), vec![7; 300 << 10]).unwrap();
            symlink("/etc/shadow", from.join("link")).unwrap();
            trees
        }

        fn from(&self) -> std::path::PathBuf {
            self.0.path().join("from")
        }

        fn copy(&self, to: &str) -> io::Result<Sealed> {
            copy(&self.from(), &self.0.path().join(to), &|| None)
        }
    }

    #[test]
    fn a_tree_is_copied_without_owners_bits_and_second_names() {
        let trees = Trees::new();
        fs::hard_link(trees.from().join("data"), trees.from().join("second")).unwrap();
        let sealed = trees.copy("to").unwrap();
        assert_eq!(sealed.entries, 6);
        let to = trees.0.path().join("to");
        let program = to.join("node_modules/x/run.js").metadata().unwrap();
        assert_eq!(program.mode() & 0o7777, 0o755, "not set-uid any more");
        for name in ["data", "second"] {
            let (was, is) = (
                trees.from().join(name).metadata().unwrap(),
                to.join(name).metadata().unwrap(),
            );
            assert_eq!(
                (is.nlink(), is.mode() & 0o7777, is.len()),
                (1, 0o644, 300 << 10)
            );
            assert_eq!(is.mtime(), was.mtime());
        }
        assert_eq!(
            fs::read_link(to.join("link")).unwrap(),
            Path::new("/etc/shadow")
        );
        assert_eq!(trees.copy("again").unwrap(), sealed);
        assert!(trees.copy("again").is_err(), "never over something");
    }

    #[test]
    fn every_change_changes_the_digest() {
        let trees = Trees::new();
        let mut digests = vec![trees.copy("0").unwrap().digest];
        let file = trees.from().join("node_modules/x/run.js");
        let mut after = |change: &dyn Fn()| {
            change();
            let digest = trees.copy(&digests.len().to_string()).unwrap().digest;
            assert!(!digests.contains(&digest));
            digests.push(digest);
        };
        after(&|| fs::write(&file, "#!/usr/bin/env node\n//").unwrap());
        after(&|| fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap());
        after(&|| fs::rename(&file, file.with_file_name("run")).unwrap());
        after(&|| fs::rename(file.with_file_name("run"), trees.from().join("run")).unwrap());
        after(&|| {
            fs::remove_file(trees.from().join("link")).unwrap();
            symlink("/etc/passwd", trees.from().join("link")).unwrap();
        });
    }

    #[test]
    fn what_is_in_no_package_is_refused() {
        let trees = Trees::new();
        nix::unistd::mkfifo(&trees.from().join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let text = trees.copy("to").unwrap_err().to_string();
        assert!(text.contains("`pipe` is neither"), "{text}");
        fs::remove_file(trees.from().join("pipe")).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", PACKAGE_DEPTH_MAX).collect();
        fs::create_dir_all(trees.from().join(deep)).unwrap();
        let text = trees.copy("deep").unwrap_err().to_string();
        assert!(text.contains("128 directories deep"), "{text}");
        let outside = trees.0.path().join("link");
        symlink(trees.from(), &outside).unwrap();
        assert!(copy(&outside, &trees.0.path().join("other"), &|| None).is_err());
    }
}
