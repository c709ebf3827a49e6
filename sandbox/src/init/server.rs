//! The server's process between fork and exec: pid 2 of the isolate.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use super::{EXIT_FAILED, failed, steps};
use crate::plan::{Place, Program, Step};
use crate::status::{self, Failure, Record};
use crate::sys;

/// Does the rest of the steps and becomes the program. `report` closes on a successful exec; else
/// it carries the failure to init.
pub(super) fn run(rest: &[&Step], program: Option<&Program>, report: OwnedFd) -> ! {
    let failure = match become_program(rest, program) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    File::from(report)
        .write_all(&status::encode(&Record::Failed(failure)))
        .ok();
    sys::exit_now(EXIT_FAILED)
}

fn become_program(rest: &[&Step], program: Option<&Program>) -> Result<Infallible, Failure> {
    // An own process group, so that init can pass TERM to all of it without hitting itself.
    nix::unistd::setsid()
        .map_err(|e| failed(Place::ServerSession, "start a session", &e.into()))?;
    sys::reset_signals();
    sys::close_on_exec_from(3)
        .map_err(|e| failed(Place::ServerSession, "mark our descriptors", &e))?;
    for step in rest {
        steps::apply(step)?;
    }
    let Some(program) = program else {
        // A rehearsal: all went well.
        sys::exit_now(0)
    };
    let path = program.path.as_os_str().as_bytes();
    let text = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Failure::new(Place::Exec.name(), 0, "a zero byte"))
    };
    let path_text = text(path)?;
    let args = std::iter::once(Ok(path_text.clone()))
        .chain(program.args.iter().map(|arg| text(arg.as_bytes())))
        .collect::<Result<Vec<_>, _>>()?;
    let env = program
        .env
        .iter()
        .map(|(name, value)| text(format!("{name}={value}").as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    nix::unistd::execve(&path_text, &args, &env).map_err(|e| {
        let what = format!("execute `{}`", program.path.display());
        failed(Place::Exec, &what, &e.into())
    })
}
