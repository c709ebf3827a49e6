//! Namespaces made in advance, for the isolate that comes next.
//!
//! A network, and mounts of what every view has, take a third of the time of a start, and nothing in
//! them depends on whose isolate it will be. So while nobody asks for anything the spawner makes one set,
//! which the next init enters instead of making its own; each set is used once. The invariant: an isolate
//! never sees less, more or older than if its namespaces had been made for it. A set is thrown away if the
//! host has mounted something since, or if a directory of what it shows has changed.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

use crate::init::view;
use crate::plan::view::{Kind, View};
use crate::spawnd::Ids;
use crate::sys::{self, Table};

/// What is made in advance; the others are born with their first process.
const KINDS: u64 = sys::CLONE_NEWNS | sys::CLONE_NEWNET | sys::CLONE_NEWIPC | sys::CLONE_NEWUTS;
/// Their names beneath `/proc/self/ns`, the mounts last.
const NAMES: [&str; 4] = ["net", "ipc", "uts", "mnt"];
/// Nobody has asked for this long: what is made now is in nobody's way.
const QUIET_MS: u16 = 10;
/// A directory that was changed this short a time ago may change again within the same tick of the
/// kernel's clock, and nobody could tell.
const SETTLED: Duration = Duration::from_millis(50);

/// A set of namespaces.
#[derive(Debug)]
pub(crate) struct Made {
    /// For what is an isolate's own to be put into; the others are complete.
    pub(crate) mounts: OwnedFd,
    others: Vec<OwnedFd>,
}

impl Made {
    /// Enters all but the mounts.
    pub(crate) fn enter(&self) -> io::Result<()> {
        for namespace in &self.others {
            setns(namespace, CloneFlags::empty())?;
        }
        Ok(())
    }
}

/// Room for one set.
#[derive(Debug)]
pub(crate) struct Shelf {
    set: Option<(Made, Seen)>,
    wanted: bool,
    /// Who has the ids of a user namespace may not copy mounts of the host's namespace, only those of one of
    /// its own.
    may: bool,
}

impl Shelf {
    pub(crate) fn new(ids: Ids) -> Self {
        Self {
            set: None,
            wanted: false,
            may: ids == Ids::Host,
        }
    }

    /// Makes a set if one was asked for since the last, and nobody asks for anything now.
    pub(crate) fn fill(&mut self, socket: &OwnedFd) {
        if !std::mem::take(&mut self.wanted) {
            return;
        }
        let mut asked = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        if matches!(poll(&mut asked, PollTimeout::from(QUIET_MS)), Ok(0)) {
            self.set = Seen::now().and_then(|seen| Some((make()?, seen)));
        }
    }

    /// The set, if it is what these namespaces would be, and what is to be cloned with it.
    pub(crate) fn take(&mut self, namespaces: u64) -> (Option<Made>, u64) {
        if !self.may || namespaces & (KINDS | sys::CLONE_NEWUSER) != KINDS {
            return (None, namespaces);
        }
        self.wanted = true;
        match self.set.take() {
            Some((made, seen)) if seen.holds() => (Some(made), namespaces & !KINDS),
            _ => (None, namespaces),
        }
    }
}

/// Has a process that shares our memory and descriptors make a set, and enters nothing itself.
fn make() -> Option<Made> {
    let mut made = None;
    let pid = sys::spawn_sharing(Table::Shared, &mut || {
        made = try_make();
        sys::exit_now(0)
    });
    nix::sys::wait::waitpid(pid.ok()?, None).ok();
    made
}

fn try_make() -> Option<Made> {
    let kinds = CloneFlags::from_bits_truncate(i32::try_from(KINDS).ok()?);
    unshare(kinds).ok()?;
    let open = |name| File::open(Path::new("/proc/self/ns").join(name));
    let opened: io::Result<Vec<_>> = NAMES.into_iter().map(open).collect();
    let mut opened: Vec<OwnedFd> = opened.ok()?.into_iter().map(OwnedFd::from).collect();
    view::make_in_advance().ok()?;
    let mounts = opened.pop()?;
    // Whoever may not enter it is to make its own.
    setns(&mounts, CloneFlags::CLONE_NEWNS).ok()?;
    Some(Made {
        mounts,
        others: opened,
    })
}

/// What the host looked like.
#[derive(Debug)]
struct Seen {
    /// Tells of every change of the host's mounts since it was opened.
    mounts: File,
    directories: Vec<(PathBuf, Option<Stamp>)>,
}

/// Tells one state of a directory from the next.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Seen {
    /// `None` if what is seen now would not be enough to tell a change.
    fn now() -> Option<Self> {
        let mounts = File::open("/proc/self/mountinfo").ok()?;
        let directories: Vec<_> = directories(&view::IN_ADVANCE)
            .into_iter()
            .map(|path| (path.to_owned(), Stamp::of(path)))
            .collect();
        #[expect(
            clippy::disallowed_methods,
            reason = "the kernel's stamps are of this clock, whatever a test sets"
        )]
        let now = SystemTime::now();
        let settled = now.checked_sub(SETTLED)?;
        let settled = settled.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let limit = (
            i64::try_from(settled.as_secs()).ok()?,
            i64::from(settled.subsec_nanos()),
        );
        let is_settled = |stamp: &Option<Stamp>| stamp.as_ref().is_none_or(|is| is.changed < limit);
        directories
            .iter()
            .all(|(_, stamp)| is_settled(stamp))
            .then_some(Self {
                mounts,
                directories,
            })
    }

    fn holds(&self) -> bool {
        let flags = PollFlags::POLLPRI | PollFlags::POLLERR;
        let mut mounts = [PollFd::new(self.mounts.as_fd(), flags)];
        let is = |(path, stamp): &(PathBuf, _)| Stamp::of(path) == *stamp;
        matches!(poll(&mut mounts, PollTimeout::ZERO), Ok(0)) && self.directories.iter().all(is)
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok()?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// Where what a view shows of the host has its names.
fn directories(view: &View) -> Vec<&Path> {
    let binds = view
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind, Kind::Bind(..)));
    let mut all: Vec<_> = binds.filter_map(|mount| mount.at.parent()).collect();
    all.sort_unstable();
    all.dedup();
    all
}
