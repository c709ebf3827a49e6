//! What init does for the rest of its life: reaps every orphan, passes TERM on, and ends the
//! isolate when the server ends or the gateway is gone.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, killpg, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use super::{EXIT_FAILED, EXIT_PANIC, failed, report};
use crate::plan::Place;
use crate::procfs;
use crate::status::{Decoder, Failure, Record};
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
    executed: File,
    lifeline: OwnedFd,
    status: File,
) -> Result<std::convert::Infallible, Failure> {
    let mut wanted = SigSet::empty();
    wanted.add(Signal::SIGCHLD);
    wanted.add(Signal::SIGTERM);
    let signals = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| failed(Place::Fork, "make a signalfd", &e.into()))?;
    let mut init = Init {
        server,
        status,
        executed: Some(executed),
    };
    // The descriptors stay open for good; nothing below returns.
    loop {
        let ready = init.wait(&signals, &lifeline);
        if ready.gateway_gone {
            end(0);
        }
        if ready.exec_told {
            init.read_exec();
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

struct Init {
    server: Pid,
    status: File,
    /// Until the server has executed, or told why it could not.
    executed: Option<File>,
}

struct Ready {
    gateway_gone: bool,
    exec_told: bool,
    signaled: bool,
}

impl Init {
    fn wait(&self, signals: &SignalFd, lifeline: &OwnedFd) -> Ready {
        let mut fds = vec![
            PollFd::new(lifeline.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(executed) = &self.executed {
            fds.push(PollFd::new(executed.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => end(EXIT_PANIC),
        }
        let any = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
        Ready {
            gateway_gone: any(0),
            signaled: any(1),
            exec_told: any(2),
        }
    }

    /// The exec pipe is ready: its end means success, a record is the failure.
    fn read_exec(&mut self) {
        let Some(mut executed) = self.executed.take() else {
            return;
        };
        let mut bytes = Vec::new();
        executed.read_to_end(&mut bytes).ok();
        let told = Decoder::default().feed(&bytes).into_iter().next();
        let failed = told.is_some();
        let record = told.unwrap_or(Record::Started);
        report(Some(&mut self.status), &record);
        if failed {
            end(EXIT_FAILED);
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
        // Dead before exec was seen: the pipe has its end by now, and `started` or the failure
        // must come first.
        self.read_exec();
        report(Some(&mut self.status), record);
        end(0)
    }
}

/// Ends the isolate. As pid 1 it is enough to go: the kernel kills the namespace. Else every
/// descendant is killed first; they cannot escape, because orphans come back to us, their
/// subreaper.
fn end(code: i32) -> ! {
    let own = nix::unistd::getpid().as_raw();
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
