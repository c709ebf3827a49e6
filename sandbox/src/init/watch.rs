//! What init does for the rest of its life: reaps every orphan, passes TERM on, and ends the
//! isolate when the server ends or the gateway is gone. Behind a filter of its own where the profile has one, and
//! therefore without asking for memory: see [`crate::seccomp`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::{EXIT_PANIC, failed};
use crate::plan::Place;
use crate::procfs;
use crate::seccomp;
use crate::status::{self, Failure, Record};
use crate::sys::{self, Ended, Waited};

/// Blocks every signal: pid 1 of a namespace is sent only what it asks for, and init asks by
/// reading a signalfd. Done before the fork, so that no death of the server is missed.
pub(super) fn block_signals() -> io::Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)?;
    Ok(())
}

/// Watches until the isolate ends; then ends with it.
pub(super) fn run(
    server: Pid,
    lifeline: OwnedFd,
    status: File,
    filter: Filter,
) -> Result<std::convert::Infallible, Failure> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.add(Signal::SIGTERM);
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| failed(Place::Fork, "make a signalfd", &e.into()))?;
    let own = nix::unistd::getpid().as_raw();
    let mut init = Init {
        server,
        status,
        own,
    };
    // Where we are not pid 1, the end needs more: see `end`.
    if filter == Filter::Own && own == 1 {
        seccomp::load_of_init().map_err(|why| {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let text = format!("cannot load init's own system call filter: {why}");
            Failure::new(Place::Seccomp.name(), errno, &text)
        })?;
    }
    // The descriptors stay open for good; nothing below returns.
    loop {
        let ready = init.wait(&signals, &lifeline);
        if ready.gateway_gone {
            end(own, 0);
        }
        if ready.signaled {
            while let Ok(Some(info)) = signals.read_signal() {
                if i32::try_from(info.ssi_signo) == Ok(libc::SIGTERM) {
                    killpg(init.server, Signal::SIGTERM).ok();
                }
            }
            init.reap();
        }
    }
}

/// Whether init gives up the calls it needs no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filter {
    None,
    Own,
}

struct Init {
    server: Pid,
    status: File,
    /// Our own pid, as we see it.
    own: i32,
}

struct Ready {
    gateway_gone: bool,
    signaled: bool,
}

impl Init {
    fn wait(&self, signals: &SignalFd, lifeline: &OwnedFd) -> Ready {
        let mut fds = [
            PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => end(self.own, EXIT_PANIC),
        }
        let [gateway, signal] = fds.map(|fd| fd.any().unwrap_or(false));
        Ready {
            gateway_gone: gateway,
            signaled: signal,
        }
    }

    /// Reaps whoever died; the server's death is the isolate's.
    fn reap(&mut self) {
        while let Waited::Ended(pid, how) = sys::wait_any() {
            if pid == self.server.as_raw() {
                self.server_ended(&match how {
                    Ended::Code(code) => Record::Exited(code),
                    Ended::Signal(signal) => Record::Signaled(signal),
                });
            }
        }
    }

    fn server_ended(&mut self, record: &Record) -> ! {
        // Nobody to tell if the gateway is gone.
        status::write_ending(&mut self.status, record).ok();
        end(self.own, 0)
    }
}

/// Ends the isolate. As pid 1 it is enough to go: the kernel kills the namespace. Else every
/// descendant is killed first; they cannot escape, because orphans come back to us, their
/// subreaper.
fn end(own: i32, code: i32) -> ! {
    if own != 1 {
        loop {
            for pid in procfs::descendants(own) {
                kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            match sys::wait_any() {
                Waited::None => break,
                Waited::Alive => std::thread::sleep(Duration::from_millis(1)),
                Waited::Ended(..) => {}
            }
        }
    }
    sys::exit_now(code)
}
