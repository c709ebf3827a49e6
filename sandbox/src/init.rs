//! Pid 1 of an isolate: follows the plan in one straight line, then watches.
//!
//! It was forked from spawnd without exec (an exec of the product binary would cost megabytes per
//! isolate), so close-on-exec means nothing at its birth: the first thing it does is to close all
//! but its own list. Nothing returns from here; a panic ends the process with 125, a step that
//! failed with 126 and a record on the status pipe.

mod doors;
mod landlock;
mod secrets;
mod server;
mod steps;
pub(crate) mod view;
mod watch;

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::plan::{Place, Plan, Step};
use crate::shelf::Made;
use crate::spawnd;
use crate::status::{self, Failure, Record};
use crate::sys;

/// Exit code of an init whose own code failed.
const EXIT_PANIC: i32 = 125;
/// Exit code of an init that reported a failed step.
const EXIT_FAILED: i32 = 126;
/// Descriptors are first moved here, out of the way of the numbers they end up at.
const ASIDE: RawFd = 64;
/// Where the plan, the status pipe, the lifeline and the door, if there is one, end up; the stdio is
/// below, `tasks` above.
const SEAT_PLAN: RawFd = 3;
const SEAT_STATUS: RawFd = 4;
const SEAT_LIFELINE: RawFd = 5;
const SEAT_DOOR: RawFd = 6;

/// Ends the process if unwinding ever gets here: a panicking init must not run spawnd's code.
struct ExitGuard;

impl Drop for ExitGuard {
    fn drop(&mut self) {
        sys::exit_now(EXIT_PANIC);
    }
}

/// The entry of a freshly cloned init; `given` are the descriptors of the request, the v2
/// directory taken out; the v1 `tasks` files begin at number `tasks`. Namespaces that it was not born with
/// may have been made in advance.
pub(crate) fn run(mut given: Vec<RawFd>, tasks: usize, made: Option<Made>) -> ! {
    let _guard = ExitGuard;
    let mut status = None;
    let last = made.as_ref().map(|made| made.mounts.as_raw_fd());
    given.extend(last);
    let failure = match build(&given, tasks, made.as_ref(), &mut status) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    report(status.as_mut(), &Record::Failed(failure));
    sys::exit_now(EXIT_FAILED)
}

/// What the child of a probe does: 0 if it may live in its namespaces, else the errno.
pub(crate) fn probe(namespaces: u64) -> i32 {
    if namespaces & sys::CLONE_NEWUSER == 0 {
        return 0;
    }
    // Any id may be mapped only if it is ours outside; the overflow id tells the file is writable.
    match std::fs::OpenOptions::new()
        .write(true)
        .open("/proc/self/uid_map")
    {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(EXIT_PANIC),
    }
}

fn build(
    given: &[RawFd],
    tasks: usize,
    made: Option<&Made>,
    status: &mut Option<File>,
) -> Result<Infallible, Failure> {
    // Told once there is a way to tell.
    let entered = made.map_or(Ok(()), Made::enter);
    let mut seats =
        seat(given).map_err(|e| failed(Place::Descriptors, "arrange descriptors", &e))?;
    *status = Some(File::from(sys::adopt(SEAT_STATUS)));
    entered.map_err(|e| failed(Place::Descriptors, "enter namespaces made in advance", &e))?;
    let mounts = made.map(|_| {
        seats -= 1;
        sys::adopt(seats)
    });
    enter_v1(tasks, seats)?;
    let plan = Plan::unseal(sys::adopt(SEAT_PLAN))
        .map_err(|e| failed(Place::Plan, "read the plan", &e))?;
    let lifeline = sys::adopt(SEAT_LIFELINE);
    let has_view = plan
        .steps
        .iter()
        .any(|step| matches!(step, Step::Mounts(_)));
    if mounts.is_some() && !has_view {
        // What follows would be mounted in the spawner's own namespace.
        return Err(Failure::new(
            Place::Mounts.name(),
            0,
            "own mounts, and no view for them",
        ));
    }

    let (before, after): (Vec<_>, Vec<_>) = plan
        .steps
        .iter()
        .partition(|step| step.place() < Place::Fork);
    for step in before {
        steps::apply(step, mounts.as_ref().map(AsFd::as_fd))?;
    }
    drop(mounts);
    wait_for_word(&lifeline)?;
    watch::block_signals().map_err(|e| failed(Place::Fork, "block signals", &e))?;
    spawnd::set_name(spawnd::INIT_NAME);
    let server = server::start(&after, plan.program.as_ref())?;
    report(status.as_mut(), &Record::Started);
    let guarded = plan.steps.iter().any(|step| matches!(step, Step::Seccomp));
    let filter = if guarded {
        watch::Filter::Own
    } else {
        watch::Filter::None
    };
    // The server's stdio must be the server's alone, or its end would never be seen.
    sys::close_stdio();
    drop(plan);
    let status = status
        .take()
        .ok_or_else(|| Failure::new(Place::Fork.name(), 0, "the status pipe is gone"))?;
    watch::run(server, lifeline, status, filter)
}

/// Moves the given descriptors to 0, 1, 2 … in their order and closes all others. Returns how
/// many there are.
fn seat(given: &[RawFd]) -> io::Result<RawFd> {
    let aside = given
        .iter()
        .map(|fd| sys::duplicate(*fd, ASIDE, sys::Place::From))
        .collect::<io::Result<Vec<_>>>()?;
    let mut seats: RawFd = 0;
    for fd in aside {
        sys::duplicate(fd, seats, sys::Place::Exactly)?;
        seats += 1;
    }
    sys::close_from(u32::try_from(seats).map_err(io::Error::other)?)?;
    Ok(seats)
}

/// Enters the v1 hierarchies whose `tasks` files follow the other descriptors. `tasks`, never
/// `cgroup.procs`: the latter waits for a grace period of the whole host (0.05 ms against 7–11).
fn enter_v1(tasks: usize, seats: RawFd) -> Result<(), Failure> {
    let first = RawFd::try_from(tasks).unwrap_or(RawFd::MAX);
    for fd in first..seats {
        File::from(sys::adopt(fd))
            .write_all(b"0")
            .map_err(|e| failed(Place::Cgroup, "enter a v1 cgroup by its tasks file", &e))?;
    }
    Ok(())
}

/// Waits until the gateway has written our limits. A lifeline that is cut is the gateway's end, or
/// its word that there will be no server.
fn wait_for_word(lifeline: &OwnedFd) -> Result<(), Failure> {
    let mut word = [0];
    loop {
        match nix::unistd::read(lifeline, &mut word) {
            Ok(0) => sys::exit_now(0),
            Ok(_) => return Ok(()),
            Err(nix::Error::EINTR) => {}
            Err(error) => {
                return Err(failed(Place::Fork, "read the lifeline", &error.into()));
            }
        }
    }
}

fn report(status: Option<&mut File>, record: &Record) {
    if let Some(status) = status {
        // Nobody to tell if the gateway is gone; the lifeline ends us then.
        status.write_all(&status::encode(record)).ok();
    }
}

fn failed(place: Place, what: &str, error: &io::Error) -> Failure {
    Failure::new(
        place.name(),
        error.raw_os_error().unwrap_or(0),
        &format!("cannot {what}: {error}"),
    )
}
