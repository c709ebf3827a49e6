//! The gateway's hold on an init: its pidfd and its lifeline.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::HostError;
use crate::procfs;
use crate::spawnd::{INIT_NAME, SPAWND_NAME};
use crate::sys::pidfd::{self, Namespace};
use crate::sys::{self, Ended};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// `exit(code)`.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

/// Every child of ours that is accounted for, spawners and inits of all hosts in this process.
static KNOWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A child of ours that somebody will reap; forgotten when this is dropped.
#[derive(Debug)]
pub(super) struct Known(i32);

impl Known {
    pub(super) fn new(pid: i32) -> Self {
        known().insert(pid);
        Self(pid)
    }
}

impl Drop for Known {
    fn drop(&mut self) {
        known().remove(&self.0);
    }
}

fn known() -> MutexGuard<'static, BTreeSet<i32>> {
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps inits nobody knows: a spawner that dies between its clone and its answer leaves one. They
/// are children of ours by name, and their lifeline is cut already.
/// Called while the link is locked, so none is being born.
pub(super) fn reap_strays() {
    let known = known();
    for pid in procfs::children_named(&[SPAWND_NAME, INIT_NAME]) {
        if !known.contains(&pid) {
            sys::kill_child(pid);
        }
    }
}

/// How long an init that was killed before its server began may take to end.
const END_WAIT_MS: u16 = 1000;

/// An init. It is our child: somebody must call [`Process::try_reap`] until it says that it ended.
/// Dropping this cuts the lifeline, and with it the isolate ends.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    pidfd: OwnedFd,
    lifeline: Mutex<Option<OwnedFd>>,
    _known: Known,
    /// Its namespaces of mounts and network, from [`Process::hold`] to [`Process::let_go`].
    held: Mutex<Vec<OwnedFd>>,
    /// Without a pid namespace: the death of init alone would set its descendants free.
    alone: bool,
}

impl Process {
    pub(super) fn new(
        pid: i32,
        pidfd: OwnedFd,
        lifeline: OwnedFd,
        known: Known,
        alone: bool,
    ) -> Self {
        Self {
            pid,
            pidfd,
            lifeline: Mutex::new(Some(lifeline)),
            _known: known,
            held: Mutex::default(),
            alone,
        }
    }

    /// Its pid as we see it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Tells init that its limits are written: the server may begin.
    pub(super) fn proceed(&self) -> Result<(), HostError> {
        let lifeline = self.lifeline.lock().unwrap_or_else(PoisonError::into_inner);
        let lifeline = lifeline.as_ref().ok_or(nix::Error::EPIPE);
        let told = lifeline.and_then(|lifeline| nix::unistd::write(lifeline, &[1]));
        match told {
            // What became of an init that is gone is told by its status.
            Ok(_) | Err(nix::Error::EPIPE) => Ok(()),
            Err(error) => Err(HostError::io("let an init proceed", error)),
        }
    }

    /// Ends an init whose server has not begun, and reaps it.
    pub(super) fn end(&self) {
        self.kill();
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(END_WAIT_MS)).ok();
        self.try_reap().ok();
    }

    /// Asks the server to end: init passes it on to the server's process group.
    pub fn terminate(&self) {
        pidfd::send_signal(self.pidfd.as_fd(), libc::SIGTERM).ok();
    }

    /// Kills the tree as far as init reaches: with it its pid namespace; without one init does it
    /// by itself when its lifeline is cut, and every descendant that can be seen is hit at once.
    pub fn kill(&self) {
        if self.alone {
            for pid in procfs::descendants(self.pid) {
                let pid = nix::unistd::Pid::from_raw(pid);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
            // A server of the same user may have stopped its init.
            pidfd::send_signal(self.pidfd.as_fd(), libc::SIGCONT).ok();
        } else {
            pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL).ok();
        }
        self.lifeline
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Keeps its namespaces beyond its death. Taking mounts and interfaces down is most of the kernel's work
    /// with an isolate's end, and the last of its processes would do it before it is dead: where hundreds
    /// are killed, each would wait for that of all before it. Called before the kill; where they cannot be had,
    /// it dies that much later. [`Process::let_go`] ends it.
    pub fn hold(&self) {
        let mut held = self.held();
        if held.is_empty() && !self.alone {
            let both = [Namespace::Mounts, Namespace::Network].into_iter();
            held.extend(
                both.filter_map(|which| pidfd::namespace(self.pidfd.as_fd(), self.pid, which).ok()),
            );
        }
    }

    /// Has the kernel take down what its namespaces hold; takes it a millisecond.
    pub fn let_go(&self) {
        let held = std::mem::take(&mut *self.held());
        drop(held);
    }

    fn held(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every descendant that can be seen from here; all of the tree where there is no cgroup.
    #[must_use]
    pub fn descendants(&self) -> Vec<i32> {
        procfs::descendants(self.pid)
    }

    /// Reaps init if it has ended; `None` while it lives. Once reaped, or if somebody else has
    /// reaped it, it is an error of the kernel: `ECHILD`.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn try_reap(&self) -> io::Result<Option<End>> {
        Ok(pidfd::wait(self.pidfd.as_fd())?.map(|ended| match ended {
            Ended::Code(code) => End::Code(code),
            Ended::Signal(signal) => End::Signal(signal),
        }))
    }
}

impl AsFd for Process {
    /// The pidfd: readable once init has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Waits for a child that ends at once.
pub(super) fn wait_blocking(pidfd: BorrowedFd<'_>) -> Result<Ended, HostError> {
    loop {
        if let Some(ended) = pidfd::wait(pidfd).map_err(|e| HostError::io("wait for a probe", e))? {
            return Ok(ended);
        }
        poll(
            &mut [PollFd::new(pidfd, PollFlags::POLLIN)],
            PollTimeout::from(1000u16),
        )
        .ok();
    }
}
