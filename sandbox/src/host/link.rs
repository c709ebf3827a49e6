//! The gateway's end of the socket to spawnd.

use std::io::{self, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::time::TimeVal;

use super::process::{Known, Process};
use super::{HostError, OPENING_BYTES_MAX};
use crate::plan::Step;
use crate::plan::build::Built;
use crate::sys;
use crate::uids::{Range, subordinate};
use crate::wire::{self, Ask, Request};
use crate::{MAPPED_ARGUMENT, SPAWND_ARGUMENT};

/// The gateway's ends of a run's pipes.
pub(super) struct Ends {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) status: OwnedFd,
    pub(super) door: Option<Door>,
}

/// Where the listeners of an isolate's way out arrive, once its init has made them.
#[derive(Debug)]
pub struct Door(OwnedFd);

/// The listeners inside an isolate's network. They do not block.
#[derive(Debug)]
pub struct Doors {
    /// Name queries.
    pub names: UdpSocket,
    /// The proxy.
    pub proxy: TcpListener,
    /// One for each port, in the order of the ports that were asked for.
    pub ports: Vec<TcpListener>,
}

impl Door {
    /// The listeners. They are there when the status pipe has told that the server was started.
    ///
    /// # Errors
    /// They are not.
    pub fn take(self) -> io::Result<Doors> {
        let mut fds = wire::receive_doors(self.0.as_fd())?.into_iter();
        let (Some(names), Some(proxy)) = (fds.next(), fds.next()) else {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        };
        let doors = Doors {
            names: names.into(),
            proxy: proxy.into(),
            ports: fds.map(TcpListener::from).collect(),
        };
        doors.names.set_nonblocking(true)?;
        for listener in std::iter::once(&doors.proxy).chain(&doors.ports) {
            listener.set_nonblocking(true)?;
        }
        Ok(doors)
    }
}

/// Seals the plan and has an init made for it; `entries` are the descriptors of its cgroup. What is
/// to be done before its server begins is done `meanwhile`; then the server begins.
/// The caller holds the link's lock: the init is known before a `heal` can look for strays.
pub(super) fn spawn(
    link: &Link,
    built: &Built,
    opening: &[u8],
    into_cgroup: bool,
    entries: &[RawFd],
    meanwhile: impl FnOnce() -> Result<(), HostError>,
) -> Result<(Process, Ends), HostError> {
    let (plan, namespaces) = (&built.plan, built.namespaces);
    let pipe = || io::pipe().map_err(|e| HostError::io("make a pipe", e));
    let (stdin_theirs, mut stdin) = pipe()?;
    open_with(&mut stdin, opening)?;
    let (stdout, stdout_theirs) = pipe()?;
    let (stderr, stderr_theirs) = pipe()?;
    let (status, status_theirs) = pipe()?;
    let (lifeline_theirs, lifeline) = pipe()?;
    let plan = plan.seal().map_err(|e| HostError::io("seal the plan", e))?;
    let has_doors = |step: &Step| matches!(step, Step::Doors { .. });
    let door = if built.plan.steps.iter().any(has_doors) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags);
        Some(pair.map_err(|e| HostError::io("make a socket pair", e))?)
    } else {
        None
    };
    // The order is the wire's: stdio, plan, status, lifeline, door, v2 directory, tasks.
    let mut fds = vec![
        stdin_theirs.as_raw_fd(),
        stdout_theirs.as_raw_fd(),
        stderr_theirs.as_raw_fd(),
        plan.as_raw_fd(),
        status_theirs.as_raw_fd(),
        lifeline_theirs.as_raw_fd(),
    ];
    fds.extend(door.iter().map(|(_, theirs)| theirs.as_raw_fd()));
    fds.extend(entries);
    let ask = Ask::Spawn {
        door: door.is_some(),
        into_cgroup,
    };
    let mut done = Ok(());
    let (pid, pidfd) = link.ask(Request { ask, namespaces }, &fds, || done = meanwhile())?;
    let alone = namespaces & sys::CLONE_NEWPID == 0;
    let process = Process::new(pid, pidfd, lifeline.into(), Known::new(pid), alone);
    if let Err(error) = done.and_then(|()| process.proceed()) {
        process.end();
        return Err(error);
    }
    let ends = Ends {
        stdin: stdin.into(),
        stdout: stdout.into(),
        stderr: stderr.into(),
        status: status.into(),
        door: door.map(|(ours, _)| Door(ours)),
    };
    Ok((process, ends))
}

/// Puts the first words into a pipe that nobody reads yet.
fn open_with(stdin: &mut io::PipeWriter, opening: &[u8]) -> Result<(), HostError> {
    let written = if opening.len() > OPENING_BYTES_MAX {
        Err(io::Error::from_raw_os_error(libc::E2BIG))
    } else {
        stdin.write_all(opening)
    };
    written.map_err(|e| HostError::io("write the server's first input", e))
}

/// How long spawnd may take for one clone; past it, it is killed and replaced.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// A spawnd and the socket to it. Dropping it ends the spawnd.
#[derive(Debug)]
pub(super) struct Link {
    socket: OwnedFd,
    child: Child,
    pidfd: OwnedFd,
    _known: Known,
    broken: AtomicBool,
}

impl Link {
    /// Starts a spawnd: by `posix_spawn` (std's `Command` without `pre_exec`), so that a big
    /// gateway does not pay for a fork; with an empty environment, because init inherits it. With a
    /// range, it has those ids in a user namespace of its own.
    pub(super) fn start(executable: &Path, range: Option<Range>) -> Result<Self, HostError> {
        let (socket, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .map_err(|e| HostError::io("make a socket pair", e))?;
        let wait = TimeVal::new(i64::try_from(ANSWER_WAIT.as_secs()).unwrap_or(5), 0);
        setsockopt(&socket, sockopt::ReceiveTimeout, &wait)
            .and_then(|()| setsockopt(&socket, sockopt::SendTimeout, &wait))
            .map_err(|e| HostError::io("bound the wait for the spawner", e))?;
        let argument = range.map_or(SPAWND_ARGUMENT, |_| MAPPED_ARGUMENT);
        let mut child = Command::new(executable)
            .arg(argument)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(|e| HostError::io("start the spawner", e))?;
        let pid = i32::try_from(child.id()).unwrap_or(-1);
        let pidfd = match sys::pidfd::open(pid) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                return Err(HostError::io("open a pidfd", error));
            }
        };
        let link = Self {
            socket,
            child,
            pidfd,
            _known: Known::new(pid),
            broken: AtomicBool::new(false),
        };
        if let Some(range) = range {
            link.map(pid, range).map_err(HostError::Ids)?;
        }
        Ok(link)
    }

    /// Puts ids into the namespace that the spawner has made for itself.
    fn map(&self, pid: i32, range: Range) -> Result<(), String> {
        let lost = |error: io::Error| format!("the spawner was lost: {}", describe(&error));
        match wire::receive_word(self.socket.as_fd()).map_err(lost)? {
            0 => {}
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                return Err(format!("unshare(CLONE_NEWUSER) failed: {error}"));
            }
        }
        subordinate::map(pid, range)?;
        wire::send_word(self.socket.as_fd(), 0).map_err(lost)
    }

    /// One round trip, and what is done while the spawner is at work: to wait for its answer at once
    /// would cost half a millisecond, for who wakes us is on the CPU that the new process gets.
    pub(super) fn ask(
        &self,
        request: Request,
        fds: &[RawFd],
        meanwhile: impl FnOnce(),
    ) -> Result<(i32, OwnedFd), HostError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(HostError::SpawnerLost("its link broke".to_owned()));
        }
        let round = wire::send_request(self.socket.as_fd(), request, fds).and_then(|()| {
            meanwhile();
            wire::receive_answer(self.socket.as_fd())
        });
        match round {
            Ok(Ok((pid, Some(pidfd)))) => Ok((pid, pidfd)),
            Ok(Ok((pid, None))) => {
                // Our table of descriptors is full. A child that cannot be watched must not live.
                sys::kill_child(pid);
                Err(HostError::Clone(io::Error::from_raw_os_error(libc::EMFILE)))
            }
            Ok(Err(refused)) => Err(HostError::Clone(refused)),
            Err(error) => {
                // A late answer would be taken for the next one's: this link is of no use any more.
                self.broken.store(true, Ordering::Relaxed);
                sys::pidfd::send_signal(self.pidfd.as_fd(), libc::SIGKILL).ok();
                Err(HostError::SpawnerLost(describe(&error)))
            }
        }
    }

    /// Whether it can be asked.
    pub(super) fn is_alive(&mut self) -> bool {
        !self.broken.load(Ordering::Relaxed) && matches!(self.child.try_wait(), Ok(None))
    }

    /// Readable once the spawnd has ended.
    pub(super) fn pidfd(&self) -> Option<OwnedFd> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        self.pidfd.try_clone().ok()
    }

    pub(super) fn pid(&self) -> Option<i32> {
        if self.broken.load(Ordering::Relaxed) {
            return None;
        }
        i32::try_from(self.child.id()).ok()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // It holds no state; killing it is as good as asking, and bounded.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn describe(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => "no answer in time".to_owned(),
        Some(libc::EPIPE | libc::ECONNRESET) => "it has ended".to_owned(),
        _ => error.to_string(),
    }
}
