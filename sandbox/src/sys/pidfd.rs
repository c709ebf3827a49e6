//! Processes by descriptors: a number that is given away again never means another one.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::Ended;

/// A namespace of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    /// What is mounted.
    Mounts,
    /// The network.
    Network,
}

impl Namespace {
    /// `PIDFD_GET_MNT_NAMESPACE` and `PIDFD_GET_NET_NAMESPACE`.
    const fn request(self) -> libc::c_ulong {
        match self {
            Self::Mounts => 0xff03,
            Self::Network => 0xff04,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Mounts => "mnt",
            Self::Network => "net",
        }
    }
}

/// A namespace of the process behind a pidfd, whose number is `pid`. Kernels before 6.11 are asked through `/proc`,
/// where each look costs ten times as much.
pub(crate) fn namespace(pidfd: BorrowedFd<'_>, pid: i32, which: Namespace) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::ioctl(pidfd.as_raw_fd(), which.request() as libc::Ioctl, 0) };
    if fd >= 0 {
        // SAFETY: the kernel has just made this descriptor for us.
        return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let name = which.name();
    File::open(format!("/proc/{pid}/ns/{name}")).map(OwnedFd::from)
}

/// Reaps the child behind a pidfd if it has ended; `Ok(None)` while it lives.
pub(crate) fn wait(pidfd: BorrowedFd<'_>) -> io::Result<Option<Ended>> {
    let id = libc::id_t::try_from(pidfd.as_raw_fd()).map_err(io::Error::other)?;
    // SAFETY: all-zero is a valid siginfo_t, and the kernel leaves it so when nothing has ended.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` outlives the call.
    let result = unsafe {
        libc::waitid(
            libc::P_PIDFD,
            id,
            &raw mut info,
            libc::WEXITED | libc::WNOHANG | libc::__WALL,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid has filled in the fields of a child's end, or left zeroes.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok(match (pid, info.si_code) {
        (0, _) => None,
        (_, libc::CLD_EXITED) => Some(Ended::Code(status)),
        _ => Some(Ended::Signal(status)),
    })
}

/// Sends a signal through a pidfd, so that a reused pid is never hit.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no pointers but a null siginfo, which means "as kill(2)".
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A pidfd for a child of ours.
pub(crate) fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_pidfd_leads_to_the_namespaces_that_proc_shows() {
        let own = i32::try_from(std::process::id()).unwrap();
        let pidfd = open(own).unwrap();
        for which in [Namespace::Mounts, Namespace::Network] {
            let found = File::from(namespace(pidfd.as_fd(), own, which).unwrap());
            let shown = std::fs::metadata(format!("/proc/self/ns/{}", which.name())).unwrap();
            assert_eq!(found.metadata().unwrap().ino(), shown.ino(), "{which:?}");
        }
    }
}
