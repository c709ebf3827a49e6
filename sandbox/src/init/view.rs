//! Building a view: sources first, while the host's paths still mean what they did; then the new
//! root, what stands on it, and the way into it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use nix::unistd::{chdir, pivot_root};

use super::failed;
use crate::plan::Place;
use crate::plan::view::{Access, Base, Kind, Mount, Presence, View};
use crate::status::Failure;
use crate::sys::mount::{Attributes, Links, Reach, attach, copy_tree, set_attributes};

/// Where the new root is put together; every host has it, and only the isolate sees it there.
const STAGE: &str = "/tmp";
/// Of `/proc` these cannot be written to.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// And these read as empty.
const PROC_HIDDEN: [&str; 5] = ["kcore", "keys", "key-users", "timer_list", "sched_debug"];

/// Builds the view and enters it.
pub(super) fn build(view: &View) -> Result<(), Failure> {
    // Others must pass the places we make, whatever the gateway's mask.
    umask(Mode::from_bits_truncate(0o022));
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|e| told("make all mounts private", Path::new("/"), &e.into()))?;
    let sources = view
        .mounts
        .iter()
        .map(|mount| {
            let end = view.ends.get(&mount.at);
            open(mount, end.map(PathBuf::as_path)).map_err(|e| told("open", &mount.at, &e))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let root = match view.base {
        Base::Host => PathBuf::from("/"),
        Base::Empty => {
            tmpfs(Path::new(STAGE), &View::root_options())
                .map_err(|e| told("mount the root on", Path::new(STAGE), &e))?;
            PathBuf::from(STAGE)
        }
    };
    // Neighbours stand beside each other: their directory is made once.
    let mut made = PathBuf::new();
    for (mount, source) in view.mounts.iter().zip(sources) {
        let place = inside(&root, &mount.at);
        let put = match place.parent() {
            Some(parent) if parent != made && !matches!(source, Source::Absent) => {
                fs::create_dir_all(parent).map(|()| parent.clone_into(&mut made))
            }
            _ => Ok(()),
        }
        .and_then(|()| put(mount, source, &place));
        put.map_err(|e| told("put into the view", &mount.at, &e))?;
    }
    match view.base {
        Base::Host => Ok(()),
        Base::Empty => enter(&root).map_err(|e| told("enter", &root, &e)),
    }
}

/// What is at the source.
enum Source {
    /// A copy of the host's mount.
    Tree(OwnedFd),
    /// A link into `/usr`, which is shown as what it is.
    Link(PathBuf),
    /// Not there, and need not be.
    Absent,
    /// Nothing of the host's.
    Own,
}

fn open(mount: &Mount, end: Option<&Path>) -> io::Result<Source> {
    let Kind::Bind(access, presence) = &mount.kind else {
        return Ok(Source::Own);
    };
    let (access, presence) = (*access, *presence);
    let found = match fs::symlink_metadata(&mount.at) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && presence == Presence::IfThere => {
            return Ok(Source::Absent);
        }
        other => other?,
    };
    if access == Access::Read && found.is_symlink() {
        match fs::canonicalize(&mount.at) {
            Ok(end) if end.starts_with("/usr") => return Ok(Source::Link(end)),
            // A link to nowhere.
            Err(_) if presence == Presence::IfThere => return Ok(Source::Absent),
            _ => {}
        }
    }
    // What can be written to is not reached by a link: that is how one would lead us elsewhere.
    let links = match access {
        Access::Write => Links::Refuse,
        Access::Read | Access::Device => Links::Follow,
    };
    let tree = copy_tree(&mount.at, links, end)?;
    let attributes = match access {
        Access::Read => Attributes::READ_ONLY.and(Attributes::NO_SUID_NO_DEV),
        Access::Write => Attributes::NO_SUID_NO_DEV,
        Access::Device => Attributes::NO_SUID_NO_EXEC,
    };
    set_attributes(tree.as_fd(), attributes, Reach::All)?;
    Ok(Source::Tree(tree))
}

/// Makes the place, whose directory is there, and puts there what belongs there.
fn put(mount: &Mount, source: Source, place: &Path) -> io::Result<()> {
    match (&mount.kind, source) {
        (_, Source::Absent) => Ok(()),
        (_, Source::Link(to)) => std::os::unix::fs::symlink(to, place),
        (_, Source::Tree(tree)) => {
            if is_dir(&tree)? {
                fs::create_dir_all(place)?;
            } else if fs::symlink_metadata(place).is_err() {
                fs::File::create(place)?;
            }
            attach(tree.as_fd(), place)
        }
        (Kind::Tmpfs { bytes, files, mode }, Source::Own) => {
            fs::create_dir_all(place)?;
            tmpfs(
                place,
                &format!("mode={mode:o},size={bytes},nr_inodes={files}"),
            )
        }
        (Kind::Proc, Source::Own) => {
            fs::create_dir_all(place)?;
            proc(place)
        }
        (Kind::Dir, Source::Own) => fs::create_dir_all(place),
        (Kind::Text(text), Source::Own) => {
            fs::write(place, text)?;
            fs::set_permissions(place, fs::Permissions::from_mode(0o444))
        }
        (Kind::Link(to), Source::Own) => std::os::unix::fs::symlink(to, place),
        (Kind::Cover, Source::Own) => hide(place),
        (Kind::Bind(..), Source::Own) => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

fn is_dir(tree: &OwnedFd) -> io::Result<bool> {
    let mode = SFlag::from_bits_truncate(fstat(tree)?.st_mode);
    Ok(mode & SFlag::S_IFMT == SFlag::S_IFDIR)
}

fn tmpfs(place: &Path, options: &str) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some(options))?;
    Ok(())
}

/// The isolate's own processes, and of the kernel's knobs only the sight. Not `subset=pid`: node
/// would count no processors.
fn proc(place: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("proc"),
        place,
        Some("proc"),
        flags,
        Some("hidepid=invisible"),
    )?;
    for name in PROC_READ_ONLY {
        cover(&place.join(name), &place.join(name))?;
    }
    for name in PROC_HIDDEN {
        cover(Path::new("/dev/null"), &place.join(name))?;
    }
    Ok(())
}

/// Nothing over what is there, if anything is.
fn hide(what: &Path) -> io::Result<()> {
    match fs::symlink_metadata(what) {
        Ok(meta) if meta.is_dir() => {
            tmpfs(what, "mode=555,size=4k,nr_inodes=1")?;
            let own = fs::File::open(what)?;
            set_attributes(own.as_fd(), Attributes::READ_ONLY, Reach::One)
        }
        // A link shows no more than where it leads, which is in the view by itself or not at all.
        Ok(meta) if meta.is_file() => cover(Path::new("/dev/null"), what),
        _ => Ok(()),
    }
}

/// A read-only `with` over `what`, if it is there.
fn cover(with: &Path, what: &Path) -> io::Result<()> {
    if fs::symlink_metadata(what).is_err() {
        return Ok(());
    }
    let tree = copy_tree(with, Links::Follow, None)?;
    set_attributes(tree.as_fd(), Attributes::READ_ONLY, Reach::All)?;
    attach(tree.as_fd(), what)
}

/// Makes `root` the root of everything, lets go of the old one, and forbids changes.
fn enter(root: &Path) -> io::Result<()> {
    chdir(root)?;
    // Both in one place: the old root comes to lie on the new one, and is taken off again.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    let own = fs::File::open("/")?;
    set_attributes(own.as_fd(), Attributes::READ_ONLY, Reach::One)
}

fn inside(root: &Path, at: &Path) -> PathBuf {
    at.strip_prefix("/")
        .map_or_else(|_| at.to_owned(), |rest| root.join(rest))
}

fn told(what: &str, path: &Path, error: &io::Error) -> Failure {
    failed(
        Place::Mounts,
        &format!("{what} `{}`", path.display()),
        error,
    )
}
