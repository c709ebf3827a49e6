//! The server's process between fork and exec: pid 2 of the isolate.
//!
//! It shares init's memory until then (see [`sys::spawn_sharing`]): what can be made ready is, before
//! it exists, and why it could not be executed is left where init reads it.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use nix::unistd::Pid;

use super::{EXIT_FAILED, ExitGuard, failed, steps};
use crate::plan::{Place, Program, Step};
use crate::status::Failure;
use crate::sys::{self, Table};

/// What `execve` is given.
struct Command<'a> {
    program: &'a Program,
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Does the rest of the steps in a new process and makes it the program. Returns once the program
/// is executed; a failure is the step's, and its process is gone.
///
/// While an exec hangs, say on a dead network disk, init stands still and does not see its lifeline:
/// the gateway ends it by its cgroup or pidfd, and a gateway that died meanwhile by the next sweep.
pub(super) fn start(rest: &[&Step], program: Option<&Program>) -> Result<Pid, Failure> {
    let command = program.map(Command::new).transpose()?;
    let mut failure = None;
    let server = sys::spawn_sharing(Table::Copied, &mut || {
        let _guard = ExitGuard;
        failure = match become_program(rest, command.as_ref()) {
            Ok(never) => match never {},
            Err(failure) => Some(failure),
        };
        sys::exit_now(EXIT_FAILED)
    })
    .map_err(|e| failed(Place::Fork, "fork the server", &e))?;
    failure.map_or(Ok(server), Err)
}

impl<'a> Command<'a> {
    fn new(program: &'a Program) -> Result<Self, Failure> {
        let text = |bytes: &[u8]| {
            CString::new(bytes).map_err(|_| Failure::new(Place::Exec.name(), 0, "a zero byte"))
        };
        let path = text(program.path.as_os_str().as_bytes())?;
        let args = std::iter::once(Ok(path.clone()))
            .chain(program.args.iter().map(|arg| text(arg.as_bytes())))
            .collect::<Result<Vec<_>, _>>()?;
        let env = program
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={}", value.as_str()).as_bytes()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            program,
            path,
            args,
            env,
        })
    }
}

fn become_program(rest: &[&Step], command: Option<&Command<'_>>) -> Result<Infallible, Failure> {
    // An own process group, so that init can pass TERM to all of it without hitting itself.
    nix::unistd::setsid()
        .map_err(|e| failed(Place::ServerSession, "start a session", &e.into()))?;
    sys::reset_signals();
    sys::close_on_exec_from(3)
        .map_err(|e| failed(Place::ServerSession, "mark our descriptors", &e))?;
    for step in rest {
        steps::apply(step, None)?;
    }
    let Some(command) = command else {
        // A rehearsal: all went well.
        sys::exit_now(0)
    };
    nix::unistd::execve(&command.path, &command.args, &command.env).map_err(|e| {
        let what = format!("execute `{}`", command.program.path.display());
        failed(Place::Exec, &what, &e.into())
    })
}
