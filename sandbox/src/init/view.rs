//! Building a view: sources first, while the host's paths still mean what they did; then the new
//! root, what stands on it, and the way into it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, fstat, umask};
use nix::unistd::{chdir, pivot_root};

use super::failed;
use crate::plan::Place;
use crate::plan::view::{Access, Base, Kind, Mount, Presence, View};
use crate::status::Failure;
use crate::sys::mount::{Attributes, Links, Reach, attach, copy_tree, set_attributes};

/// What every view has. Made once by the spawner, inherited by its clones.
pub(crate) static IN_ADVANCE: LazyLock<View> = LazyLock::new(View::in_advance);

/// Where the new root is put together; every host has it, and only the isolate sees it there.
const STAGE: &str = "/tmp";
/// Of `/proc` these cannot be written to.
const PROC_READ_ONLY: [&str; 5] = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
/// And these read as empty.
const PROC_HIDDEN: [&str; 5] = ["kcore", "keys", "key-users", "timer_list", "sched_debug"];

/// Builds the view and enters it. `made` is a mount namespace where what every view has stands already.
pub(super) fn build(view: &View, made: Option<BorrowedFd<'_>>) -> Result<(), Failure> {
    umask_for_others();
    if let Some(made) = made {
        if let Some(rest) = view.beyond(&IN_ADVANCE) {
            let sources = open_all(&rest, &view.ends)?;
            setns(made, CloneFlags::CLONE_NEWNS)
                .map_err(|e| told("enter what was made of", Path::new("/"), &e.into()))?;
            put_all(Path::new("/"), &rest, sources)?;
            return seal().map_err(|e| told("seal", Path::new("/"), &e));
        }
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(|e| told("have own mounts on", Path::new("/"), &e.into()))?;
    }
    let root = begin(view)?;
    match view.base {
        Base::Host => Ok(()),
        Base::Empty => enter(&root)
            .and_then(|()| seal())
            .map_err(|e| told("enter", &root, &e)),
    }
}

/// Builds what every view has, in new namespaces, and enters it; its root stays open for what is an
/// isolate's own. What cannot be followed to its end by [`is_fixed`] is not for making in advance.
pub(crate) fn make_in_advance() -> Result<(), Failure> {
    umask_for_others();
    let moving = |mount: &&Mount| !is_fixed(mount);
    if let Some(mount) = IN_ADVANCE.mounts.iter().find(moving) {
        let error = io::Error::from_raw_os_error(libc::ELOOP);
        return Err(told("make in advance", &mount.at, &error));
    }
    let root = begin(&IN_ADVANCE)?;
    enter(&root).map_err(|e| told("enter", &root, &e))
}

/// Whether nothing but a change of its directory can make it another: it is no link, or one that the
/// view keeps as a link.
fn is_fixed(mount: &Mount) -> bool {
    !matches!(mount.kind, Kind::Bind(..))
        || fs::symlink_metadata(&mount.at).map_or(true, |found| !found.is_symlink())
        || fs::canonicalize(&mount.at).map_or(true, |end| end.starts_with("/usr"))
}

/// Others must pass the places we make, whatever the gateway's mask.
fn umask_for_others() {
    umask(Mode::from_bits_truncate(0o022));
}

/// Puts a view together in a mount namespace that is ours; gives where its root is.
fn begin(view: &View) -> Result<PathBuf, Failure> {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(|e| told("make all mounts private", Path::new("/"), &e.into()))?;
    let mounts: Vec<&Mount> = view.mounts.iter().collect();
    let sources = open_all(&mounts, &view.ends)?;
    let root = match view.base {
        Base::Host => PathBuf::from("/"),
        Base::Empty => {
            tmpfs(Path::new(STAGE), &View::root_options())
                .map_err(|e| told("mount the root on", Path::new(STAGE), &e))?;
            PathBuf::from(STAGE)
        }
    };
    put_all(&root, &mounts, sources)?;
    Ok(root)
}

/// The sources, while the host's paths mean what they did.
fn open_all(mounts: &[&Mount], ends: &BTreeMap<PathBuf, PathBuf>) -> Result<Vec<Source>, Failure> {
    let open = |mount: &&Mount| {
        let end = ends.get(&mount.at).map(PathBuf::as_path);
        open(mount, end).map_err(|e| told("open", &mount.at, &e))
    };
    mounts.iter().map(open).collect()
}

/// Puts everything into its place beneath `root`.
fn put_all(root: &Path, mounts: &[&Mount], sources: Vec<Source>) -> Result<(), Failure> {
    // Neighbours stand beside each other: their directory is made once.
    let mut made = PathBuf::new();
    for (mount, source) in mounts.iter().zip(sources) {
        let place = inside(root, &mount.at);
        let put = match place.parent() {
            Some(parent) if parent != made && !matches!(source, Source::Absent) => {
                fs::create_dir_all(parent).map(|()| parent.clone_into(&mut made))
            }
            _ => Ok(()),
        }
        .and_then(|()| put(mount, source, &place));
        put.map_err(|e| told("put into the view", &mount.at, &e))?;
    }
    // What stands on them is there: nobody else puts anything into them, also not who is their owner.
    for mount in mounts.iter().filter(|mount| mount.kind == Kind::StandIn) {
        fs::File::open(inside(root, &mount.at))
            .and_then(|own| set_attributes(own.as_fd(), Attributes::READ_ONLY, Reach::One))
            .map_err(|e| told("close", &mount.at, &e))?;
    }
    Ok(())
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
        (Kind::StandIn, Source::Own) => {
            fs::create_dir_all(place)?;
            tmpfs(place, &format!("mode=755,{}", View::root_size()))
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
    let attributes = Attributes::READ_ONLY.and(Attributes::NO_SUID_NO_EXEC);
    set_attributes(tree.as_fd(), attributes, Reach::All)?;
    attach(tree.as_fd(), what)
}

/// Makes `root` the root of everything, and lets go of the old one.
fn enter(root: &Path) -> io::Result<()> {
    chdir(root)?;
    // Both in one place: the old root comes to lie on the new one, and is taken off again.
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    Ok(())
}

/// Nothing more is put into the root.
fn seal() -> io::Result<()> {
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
