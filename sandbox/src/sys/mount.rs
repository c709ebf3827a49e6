//! Mounts by descriptor (kernel 5.12): a source is opened once, and what is done to it afterwards
//! is done to that and nothing else, whatever becomes of its path.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

/// `OPEN_TREE_CLONE` of `linux/mount.h`.
const OPEN_TREE_CLONE: u32 = 1;
/// `OPEN_TREE_CLOEXEC`.
const OPEN_TREE_CLOEXEC: u32 = libc::O_CLOEXEC.unsigned_abs();
/// `MOVE_MOUNT_F_EMPTY_PATH`.
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
/// `AT_RECURSIVE` of `linux/fcntl.h`.
const AT_RECURSIVE: u32 = 0x8000;

/// Attributes a mount is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attributes(u64);

impl Attributes {
    /// Nothing is written.
    pub(crate) const READ_ONLY: Self = Self(libc::MOUNT_ATTR_RDONLY);
    /// No program gains rights by its file, and no file is a device.
    pub(crate) const NO_SUID_NO_DEV: Self = Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV);
    /// No program gains rights by its file, and none is executed.
    pub(crate) const NO_SUID_NO_EXEC: Self =
        Self(libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC);

    /// Both.
    pub(crate) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How far a change of attributes goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// This mount.
    One,
    /// And all beneath it.
    All,
}

/// A copy of the mount tree at `path`, attached nowhere yet. If it is known where `path` must lead and
/// it leads elsewhere, that is an error, `ESTALE`.
pub(crate) fn copy_tree(path: &Path, links: Links, end: Option<&Path>) -> io::Result<OwnedFd> {
    let resolve = match links {
        Links::Follow => ResolveFlag::empty(),
        Links::Refuse => ResolveFlag::RESOLVE_NO_SYMLINKS,
    };
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let source = openat2(AT_FDCWD, path, how)?;
    if let Some(end) = end {
        let opened = std::fs::read_link(format!("/proc/self/fd/{}", source.as_raw_fd()))?;
        if opened != end {
            return Err(io::Error::from_raw_os_error(libc::ESTALE));
        }
    }
    let flags =
        OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE | libc::AT_EMPTY_PATH.unsigned_abs();
    // SAFETY: the path is a static C string; `source` is open until after the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, source.as_raw_fd(), c"".as_ptr(), flags) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is done about symbolic links anywhere in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// They are followed.
    Follow,
    /// They are an error, `ELOOP`.
    Refuse,
}

/// Gives a mount that was opened these attributes, and makes it private.
pub(crate) fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: Attributes,
    reach: Reach,
) -> io::Result<()> {
    let wanted = libc::mount_attr {
        attr_set: attributes.0,
        attr_clr: 0,
        // What is mounted on the host later is no matter of an isolate's, nor the other way round.
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let recursive = if reach == Reach::All { AT_RECURSIVE } else { 0 };
    let flags = libc::AT_EMPTY_PATH.unsigned_abs() | recursive;
    // SAFETY: the path is a static C string, `wanted` is a whole mount_attr and outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const wanted,
            size_of::<libc::mount_attr>(),
        )
    };
    done(result)
}

/// Attaches a copied tree at `to`.
pub(crate) fn attach(mount: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
    let to = text(to)?;
    // SAFETY: both paths are C strings that outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    done(result)
}

fn text(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
