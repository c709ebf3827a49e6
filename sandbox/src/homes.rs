//! Homes: `<root>/<owner>/<name>`, each owner's with a uid of its own.
//!
//! The record of a uid is the group of the owner's directory, which stays the gateway's: so it is kept
//! with the home, never given to another while that is there, and moves with a backup. It stays, empty, when
//! the homes are removed ([`retire`]): their owner may have left files elsewhere. The
//! invariant: we never follow a symbolic link beneath the root, and give away only what belonged to
//! the home before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, fchown, fchownat};

use crate::Host;
use crate::plan::Identity;
use crate::plan::errand::Errand;
use crate::uids::{Claim, Range};

/// Directories in each other when a home changes its owner.
const DEPTH_MAX: usize = 256;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 255;

/// The homes of an installation.
#[derive(Debug)]
pub struct Homes {
    root: PathBuf,
    /// Where we may choose.
    uids: Option<Uids>,
    /// Who gives homes to their owners, where we are not root.
    host: Option<Host>,
}

#[derive(Debug)]
struct Uids {
    claim: Claim,
    given: Mutex<BTreeMap<String, u32>>,
}

/// A home that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Where.
    pub path: PathBuf,
    /// Whose, where we may choose.
    pub identity: Option<Identity>,
}

impl Homes {
    /// Opens the homes beneath `root`, made if missing; reads who has which uid. Who is not root and has a
    /// claim has a host as well.
    ///
    /// # Errors
    /// The root cannot be made or read.
    pub fn open(root: &Path, claim: Option<Claim>, host: Option<Host>) -> io::Result<Self> {
        // Passed by all, read by nobody.
        let mode = if claim.is_some() { 0o711 } else { 0o700 };
        DirBuilder::new().recursive(true).mode(mode).create(root)?;
        no_link(root)?;
        let root = root.canonicalize()?;
        let uids = match claim {
            None => None,
            Some(claim) => {
                fchmod(File::open(&root)?, Mode::from_bits_truncate(mode))?;
                Some(Uids {
                    given: Mutex::new(given(&root, claim.range())?),
                    claim,
                })
            }
        };
        Ok(Self { root, uids, host })
    }

    /// Where they are, without symbolic links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes the home if it is missing, and its owner's if it is not.
    ///
    /// # Errors
    /// A name is none, all uids are given, or the disk.
    pub fn prepare(&self, owner: &str, name: &str) -> io::Result<Home> {
        for part in [owner, name] {
            if part.is_empty()
                || part.len() > NAME_BYTES_MAX
                || part.starts_with('.')
                || part.contains(['/', '\0'])
            {
                return Err(io::Error::other(format!("`{part}` is no name of a home")));
            }
        }
        let root = directory(nix::fcntl::AT_FDCWD, &self.root)?;
        let path = self.root.join(owner).join(name);
        let Some(uids) = &self.uids else {
            let owners = made(root.as_fd(), owner, 0o700)?;
            made(owners.as_fd(), name, 0o700)?;
            return Ok(Home {
                path,
                identity: None,
            });
        };
        let id = uids.of(owner)?;
        match &self.host {
            None => settle(&root, owner, name, id)?,
            Some(_) if is_settled(&root, owner, name, id) => {}
            Some(host) => {
                host.errand(Errand::Settle {
                    root: self.root.clone(),
                    owner: owner.to_owned(),
                    name: name.to_owned(),
                    id,
                })?;
            }
        }
        Ok(Home {
            path,
            identity: Some(Identity { uid: id, gid: id }),
        })
    }
}

/// Makes a home, and gives it and what is in it its owner's id.
fn settle(root: &OwnedFd, owner: &str, name: &str, id: u32) -> io::Result<()> {
    let own = nix::unistd::geteuid();
    let owners = made(root.as_fd(), owner, 0o710)?;
    let found = fstat(&owners)?;
    if (found.st_uid, found.st_gid) != (own.as_raw(), id) || found.st_mode & 0o7777 != 0o710 {
        fchown(&owners, Some(own), Some(Gid::from_raw(id)))?;
        fchmod(&owners, Mode::from_bits_truncate(0o710))?;
    }
    let home = made(owners.as_fd(), name, 0o700)?;
    let was = fstat(&home)?;
    if (was.st_uid, was.st_gid) != (id, id) {
        let to = (Uid::from_raw(id), Gid::from_raw(id));
        give(&home, was.st_uid, to, (Names::One, DEPTH_MAX))?;
        fchown(&home, Some(to.0), Some(to.1))?;
    }
    Ok(())
}

/// Whether all of that has been done: what the gateway can see without its owner's id.
fn is_settled(root: &OwnedFd, owner: &str, name: &str, id: u32) -> bool {
    let look = |path: &Path| fstatat(root, path, AtFlags::AT_SYMLINK_NOFOLLOW).ok();
    let own = nix::unistd::geteuid().as_raw();
    let owners = look(Path::new(owner))
        .is_some_and(|dir| (dir.st_uid, dir.st_gid, dir.st_mode & 0o7777) == (own, id, 0o710));
    let home = look(&Path::new(owner).join(name));
    owners && home.is_some_and(|dir| (dir.st_uid, dir.st_gid) == (id, id))
}

/// Does an errand, as init in the spawner's user namespace; gives its number, if it has one.
///
/// # Errors
/// The disk.
pub(crate) fn run(errand: &Errand) -> io::Result<u64> {
    let open = |path: &Path| directory(nix::fcntl::AT_FDCWD, path);
    match errand {
        Errand::Settle {
            root,
            owner,
            name,
            id,
        } => settle(&open(root)?, owner, name, *id).map(|()| 0),
        Errand::Reclaim { dir, uid, gid } => {
            let top = open(dir)?;
            let from = fstat(&top)?.st_uid;
            let to = (Uid::from_raw(*uid), Gid::from_raw(*gid));
            // Package managers link their files from a cache.
            give(&top, from, to, (Names::Any, DEPTH_MAX))?;
            fchown(&top, Some(to.0), Some(to.1))?;
            Ok(0)
        }
        Errand::Weigh { dir, entries } => Ok(weigh(dir, *entries)),
    }
}

/// What an entry counts besides its blocks: an empty file takes an inode.
pub const ENTRY_BYTES: u64 = 4096;

/// Bytes on the disk beneath a directory, as far as so many entries tell.
#[must_use]
pub fn weigh(dir: &Path, entries: u32) -> u64 {
    let mut sum = 0;
    let mut left = entries;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if left == 0 {
                return sum;
            }
            left -= 1;
            // Of a link itself, not of where it leads.
            let Ok(meta) = entry.metadata() else { continue };
            sum += meta.blocks() * 512 + ENTRY_BYTES;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    sum
}

/// Refuses a directory of ours that became a link: what it leads to is not ours to open to everybody.
///
/// # Errors
/// It is one; or the disk.
pub fn no_link(dir: &Path) -> io::Result<()> {
    if dir.symlink_metadata()?.is_symlink() {
        let text = "it is a symbolic link, and its modes and owners are set; put a directory there, and \
                    mount another disk on it if that was the reason";
        return Err(io::Error::other(text));
    }
    Ok(())
}

/// Removes an owner's directory, when nothing is in it. Where it is the record of a uid it stays: what its owner left
/// elsewhere is nobody else's to read.
///
/// # Errors
/// Something is in it, or the disk.
pub fn retire(dir: &Path) -> io::Result<()> {
    match dir.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() && meta.gid() != nix::unistd::getegid().as_raw() => Ok(()),
        Ok(_) => std::fs::remove_dir(dir),
    }
}

impl Uids {
    /// The uid of an owner: the one it has, or the lowest nobody has.
    fn of(&self, owner: &str) -> io::Result<u32> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = given.get(owner) {
            return Ok(*id);
        }
        let taken: BTreeSet<u32> = given.values().copied().collect();
        let range = self.claim.range();
        // The last is the probe's.
        let free = range
            .ids()
            .find(|id| !taken.contains(id) && *id != range.probe().uid);
        let id = free.ok_or_else(|| {
            io::Error::other(format!(
                "all uids of {range} are given, those of users who were removed among them; raise \
                 sandbox.uid_count"
            ))
        })?;
        given.insert(owner.to_owned(), id);
        Ok(id)
    }
}

/// Who has which uid, by the group of their directory. One that two have is the first one's.
fn given(root: &Path, range: Range) -> io::Result<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let own = nix::unistd::geteuid().as_raw();
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        let id = meta.gid();
        if meta.is_dir()
            && meta.uid() == own
            && range.contains(id)
            && let Ok(owner) = entry.file_name().into_string()
            && taken.insert(id)
        {
            found.insert(owner, id);
        }
    }
    Ok(found)
}

fn directory(at: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    Ok(openat(at, path, flags, Mode::empty())?)
}

/// The directory of this name, made if missing; a link in its place is an error.
fn made(at: BorrowedFd<'_>, name: &str, mode: u32) -> io::Result<OwnedFd> {
    match mkdirat(at, name, Mode::from_bits_truncate(mode)) {
        Ok(()) | Err(nix::Error::EEXIST) => directory(at, Path::new(name)),
        Err(error) => Err(error.into()),
    }
}

/// Which files are given away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Those with one name: a second one may be in another's home.
    One,
    /// All: `from` is nobody else's uid.
    Any,
}

/// Gives what belonged to `from` in this directory, and beneath it, to `to`.
fn give(
    dir: &OwnedFd,
    from: u32,
    to: (Uid, Gid),
    (names, depth): (Names, usize),
) -> io::Result<()> {
    if depth == 0 {
        return Err(io::Error::other(format!(
            "more than {DEPTH_MAX} directories deep"
        )));
    }
    let (uid, gid) = to;
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", dir.as_raw_fd()))? {
        let entry = entry?;
        let (name, meta) = (entry.file_name(), entry.metadata()?);
        if meta.uid() != from {
            continue;
        }
        if meta.is_dir() {
            // Opened first: what is beneath it is reached by this very directory.
            let inner = directory(dir.as_fd(), Path::new(&name))?;
            give(&inner, from, to, (names, depth - 1))?;
            fchown(&inner, Some(uid), Some(gid))?;
        } else if names == Names::Any || meta.nlink() == 1 {
            let flags = AtFlags::AT_SYMLINK_NOFOLLOW;
            fchownat(dir, name.as_os_str(), Some(uid), Some(gid), flags)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    struct Place {
        dir: tempfile::TempDir,
        claims: tempfile::TempDir,
        base: u32,
    }

    impl Place {
        /// Only root may give files away; without, there is nothing to test.
        fn new(base: u32) -> Option<Self> {
            nix::unistd::geteuid().is_root().then(|| Self {
                dir: tempfile::tempdir().unwrap(),
                claims: tempfile::tempdir().unwrap(),
                base,
            })
        }

        fn homes(&self, base: u32, count: u32) -> Homes {
            let range = Range::new(base, count).unwrap();
            let claim = range.claim(self.claims.path()).unwrap();
            Homes::open(&self.dir.path().join("homes"), Some(claim), None).unwrap()
        }
    }

    fn owner(path: &Path) -> (u32, u32, u32) {
        let meta = fs::symlink_metadata(path).unwrap();
        (meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777)
    }

    #[test]
    fn each_owner_has_a_uid_for_good() {
        let Some(place) = Place::new(1_700_000_000) else {
            return;
        };
        let homes = place.homes(place.base, 4);
        let ada = homes.prepare("ada", "one").unwrap();
        let bob = homes.prepare("bob", "one").unwrap();
        assert_eq!(ada.identity.unwrap().uid, place.base);
        assert_eq!(bob.identity.unwrap().uid, place.base + 1);
        assert_eq!(owner(&ada.path), (place.base, place.base, 0o700));
        assert_eq!(owner(ada.path.parent().unwrap()), (0, place.base, 0o710));
        assert_eq!(homes.prepare("ada", "two").unwrap().identity, ada.identity);
        drop(homes);
        fs::remove_dir_all(ada.path.parent().unwrap()).unwrap();
        let homes = place.homes(place.base, 4);
        assert_eq!(homes.prepare("bob", "one").unwrap(), bob);
        let eve = homes.prepare("eve", "one").unwrap();
        assert_eq!(eve.identity, ada.identity, "free once the home is gone");
        homes.prepare("mal", "one").unwrap();
        let full = homes.prepare("zoe", "one").unwrap_err().to_string();
        assert!(full.contains("raise sandbox.uid_count"), "{full}");
    }

    #[test]
    fn a_uid_stays_with_the_name_of_who_was_removed() {
        let Some(place) = Place::new(1_700_003_000) else {
            return;
        };
        let homes = place.homes(place.base, 4);
        let ada = homes.prepare("ada", "one").unwrap();
        let owners = ada.path.parent().unwrap();
        retire(&owners.join("none")).unwrap();
        fs::remove_dir(&ada.path).unwrap();
        retire(owners).unwrap();
        assert_eq!(owner(owners), (0, place.base, 0o710));
        drop(homes);
        let homes = place.homes(place.base, 4);
        let eve = homes.prepare("eve", "one").unwrap();
        assert_eq!(eve.identity.unwrap().uid, place.base + 1);
        // One that records nothing goes.
        let plain = homes.root().join("plain");
        fs::create_dir(&plain).unwrap();
        chown(&plain, None, Some(nix::unistd::getegid().as_raw())).unwrap();
        retire(&plain).unwrap();
        assert!(!plain.exists());
    }

    #[test]
    fn a_home_that_moves_takes_its_own_files_and_no_others() {
        let Some(place) = Place::new(1_700_001_000) else {
            return;
        };
        let other = place.dir.path().join("others");
        fs::write(&other, "x").unwrap();
        let home = place
            .homes(place.base, 4)
            .prepare("ada", "one")
            .unwrap()
            .path;
        fs::create_dir(home.join("deep")).unwrap();
        fs::write(home.join("deep/file"), "x").unwrap();
        fs::write(home.join("roots"), "x").unwrap();
        symlink(&other, home.join("link")).unwrap();
        for mine in ["deep", "deep/file"] {
            chown(home.join(mine), Some(place.base), Some(place.base)).unwrap();
        }
        std::os::unix::fs::lchown(home.join("link"), Some(place.base), Some(place.base)).unwrap();
        let moved = place.homes(place.base + 100, 4);
        moved.prepare("ada", "one").unwrap();
        let new = place.base + 100;
        for mine in ["", "deep", "deep/file", "link"] {
            assert_eq!(owner(&home.join(mine)).0, new, "{mine}");
        }
        assert_eq!(owner(&home.join("roots")).0, 0);
        assert_eq!(owner(&other).0, 0, "the link was not followed");
    }

    #[test]
    fn a_link_in_a_home_s_place_is_refused() {
        let Some(place) = Place::new(1_700_002_000) else {
            return;
        };
        let homes = place.homes(place.base, 4);
        homes.prepare("ada", "one").unwrap();
        symlink("/etc", homes.root().join("ada/two")).unwrap();
        assert!(homes.prepare("ada", "two").is_err());
        for name in ["", "..", ".hidden", "a/b", "a\0b"] {
            assert!(homes.prepare("ada", name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_home_is_weighed_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![7; 1 << 20]).unwrap();
        symlink("/", dir.path().join("all")).unwrap();
        let bytes = weigh(dir.path(), 1000);
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(weigh(Path::new("/nowhere"), 1000), 0);
    }
}
