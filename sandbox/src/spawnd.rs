//! The spawner: one small single-threaded process that clones on request.
//!
//! It holds no state of any isolate: a request comes with every descriptor it needs, the answer is
//! a pidfd, and both are closed before the next request is read. All it keeps is a set of namespaces that
//! nobody was in yet ([`Shelf`]). What it clones is a child of the
//! gateway, so its own death fails starts and never runs. It ends when its socket closes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use crate::init;
use crate::seccomp;
use crate::shelf::Shelf;
use crate::sys::{self, Cloned};
use crate::wire::{self, Ask, FIXED_FDS, Request};

/// What it calls itself.
pub(crate) const SPAWND_NAME: &str = "legation-spawnd";
/// A slice of the CPU of what runs in isolates; the kernel's own is one to three milliseconds.
const ISOLATE_SLICE: Duration = Duration::from_micros(300);
/// What its clones call themselves once their server is on its way.
pub(crate) const INIT_NAME: &str = "legation-init";

/// Whose ids it may give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ids {
    /// The host's, as far as it may.
    Host,
    /// Those of a user namespace of its own.
    Mapped,
}

/// Serves requests from the socket at stdin until it closes. No privileges are given up here:
/// making namespaces needs them; init gives them up.
pub(crate) fn run(ids: Ids) -> ! {
    // Ctrl-C at the gateway's terminal and a TERM to its group are for the gateway to answer.
    nix::unistd::setsid().ok();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        sys::ignore_signal(signal);
    }
    // The gateway goes before what it starts.
    sys::usual_priority();
    // A server that wakes for a call does not wait for all of the slice of one that only computes.
    sys::slice(ISOLATE_SLICE).ok();
    set_name(SPAWND_NAME);
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    // Made once here, every init inherits them; a failure is told by the step that needs them.
    seccomp::of_server().ok();
    seccomp::of_init().ok();

    let socket = sys::adopt(libc::STDIN_FILENO);
    if ids == Ids::Mapped && !has_own_ids(&socket) {
        sys::exit_now(1);
    }
    let mut space = wire::space();
    let mut shelf = Shelf::new(ids);
    loop {
        shelf.fill(&socket);
        let (request, fds) = match wire::receive_request(socket.as_fd(), &mut space) {
            Ok(Some(received)) => received,
            Ok(None) => sys::exit_now(0),
            Err(error) if error.raw_os_error() == Some(libc::EBADMSG) => {
                answer(&socket, Err(error));
                continue;
            }
            Err(_) => sys::exit_now(1),
        };
        let cloned = serve(request, fds, &mut shelf);
        answer(&socket, cloned);
    }
}

/// Goes into a user namespace of its own, where the gateway then puts ids; whether both was had.
fn has_own_ids(socket: &OwnedFd) -> bool {
    let made = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
    let errno = made.err().map_or(0, |error| error as i32);
    wire::send_word(socket.as_fd(), errno).is_ok()
        && errno == 0
        && matches!(wire::receive_word(socket.as_fd()), Ok(0))
}

/// A name for `ps` and for the search for strays; fifteen bytes are kept.
pub(crate) fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        prctl::set_name(&name).ok();
    }
}

/// An answer that cannot be sent means that nobody is left to serve.
fn answer(socket: &OwnedFd, cloned: io::Result<(i32, OwnedFd)>) {
    if wire::send_answer(socket.as_fd(), cloned).is_err() {
        sys::exit_now(1);
    }
}

fn serve(request: Request, mut fds: Vec<OwnedFd>, shelf: &mut Shelf) -> io::Result<(i32, OwnedFd)> {
    let (tasks, cgroup) = match request.ask {
        Ask::Probe => {
            return match sys::clone_sibling(request.namespaces, None)? {
                Cloned::Child => sys::exit_now(init::probe(request.namespaces)),
                Cloned::Caller { pid, pidfd } => Ok((pid, pidfd)),
            };
        }
        // Fewer descriptors than promised: our table was full when they arrived.
        Ask::Spawn { door, into_cgroup } => {
            let first = FIXED_FDS + usize::from(door);
            if fds.len() < first + usize::from(into_cgroup) {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
            (first, into_cgroup.then(|| fds.remove(first)))
        }
    };
    let (made, namespaces) = shelf.take(request.namespaces);
    match sys::clone_sibling(namespaces, cgroup.as_ref().map(AsFd::as_fd))? {
        Cloned::Caller { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => {
            let given: Vec<_> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
            init::run(given, tasks, made)
        }
    }
}
