//! The spawner: one small single-threaded process that clones on request.
//!
//! It holds no state of any isolate: a request comes with every descriptor it needs, the answer is
//! a pidfd, and both are closed before the next request is read. What it clones is a child of the
//! gateway, so its own death fails starts and never runs. It ends when its socket closes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

use crate::init;
use crate::seccomp;
use crate::sys::{self, Cloned};
use crate::wire::{self, Ask, FIXED_FDS, Request};

/// What it calls itself.
pub(crate) const SPAWND_NAME: &str = "legation-spawnd";
/// What its clones call themselves once their server is on its way.
pub(crate) const INIT_NAME: &str = "legation-init";

/// Serves requests from the socket at stdin until it closes. No privileges are given up here:
/// making namespaces needs them; init gives them up.
pub(crate) fn run() -> ! {
    // Ctrl-C at the gateway's terminal and a TERM to its group are for the gateway to answer.
    nix::unistd::setsid().ok();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE] {
        sys::ignore_signal(signal);
    }
    // The gateway goes before what it starts.
    sys::usual_priority();
    set_name(SPAWND_NAME);
    setrlimit(Resource::RLIMIT_CORE, 0, 0).ok();
    // Made once here, every init inherits them; a failure is told by the step that needs them.
    seccomp::filters().ok();
    seccomp::of_init().ok();

    let socket = sys::adopt(libc::STDIN_FILENO);
    let mut space = wire::space();
    loop {
        let (request, fds) = match wire::receive_request(socket.as_fd(), &mut space) {
            Ok(Some(received)) => received,
            Ok(None) => sys::exit_now(0),
            Err(error) if error.raw_os_error() == Some(libc::EBADMSG) => {
                answer(&socket, Err(error));
                continue;
            }
            Err(_) => sys::exit_now(1),
        };
        let cloned = serve(request, fds);
        answer(&socket, cloned);
    }
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

fn serve(request: Request, mut fds: Vec<OwnedFd>) -> io::Result<(i32, OwnedFd)> {
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
    match sys::clone_sibling(request.namespaces, cgroup.as_ref().map(AsFd::as_fd))? {
        Cloned::Caller { pid, pidfd } => Ok((pid, pidfd)),
        Cloned::Child => {
            let given: Vec<_> = fds.into_iter().map(IntoRawFd::into_raw_fd).collect();
            init::run(&given, tasks)
        }
    }
}
