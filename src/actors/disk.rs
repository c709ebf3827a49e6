//! The disk that homes are on, which is the disk of the audit log as well: a server that fills it would
//! have every user's calls refused.
//!
//! No start is made while it is nearly full, and the isolate that fills it is ended. Whose that is, is
//! seen from what grew since the last look: its home, what its uid wrote, and what its uid holds open that is in
//! no home any more; and when nothing is left, from who holds much of that, or whose home is the largest. Nobody's
//! files are deleted: what is left is the operator's to clear, and is held against one isolate once. Looked at once a second, off the runtime's workers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sandbox::homes::ENTRY_BYTES;

use crate::domain::ids::IsolateId;
use crate::domain::limits::{
    DISK_FREE_BYTES_MAX, DISK_FREE_PERCENT, DISK_GROWTH_BYTES_MIN, HOME_ENTRIES_MAX,
};
use crate::domain::verdict::Verdict;

use super::ctx::Ctx;
use super::isolate::IsolateMsg;
use super::plan::home_of;
use super::slot::Slot;

/// Files of a home that may be what took all inodes, at least.
const ENTRIES_SUSPECT: u64 = 1000;
/// What the disk does not say.
const UNKNOWN: u64 = u64::MAX;

/// The disk, as it was seen last.
#[derive(Debug)]
pub(super) struct Disk {
    /// As the operator set it.
    wanted: Option<u64>,
    free: AtomicU64,
    free_min: AtomicU64,
    ended: AtomicU64,
    /// How many inodes must be left, while fewer are; else 0.
    inodes_min: AtomicU64,
    /// How many are left.
    inodes: AtomicU64,
    /// Somebody was ended for the size of their home, and it is as full as before.
    blamed: AtomicBool,
    /// What each isolate had written when it was looked at last, while the disk is nearly full.
    seen: Mutex<HashMap<IsolateId, u64>>,
}

impl Disk {
    pub(super) fn new(wanted: Option<u64>) -> Self {
        Self {
            wanted,
            free: AtomicU64::new(UNKNOWN),
            free_min: AtomicU64::new(wanted.unwrap_or(0)),
            ended: AtomicU64::new(0),
            inodes_min: AtomicU64::new(0),
            inodes: AtomicU64::new(0),
            blamed: AtomicBool::new(false),
            seen: Mutex::default(),
        }
    }

    /// Bytes left; none if it does not say.
    pub(super) fn free(&self) -> Option<u64> {
        let free = self.free.load(Ordering::Relaxed);
        (free != UNKNOWN).then_some(free)
    }

    /// Bytes that are to be left.
    pub(super) fn free_min(&self) -> u64 {
        self.free_min.load(Ordering::Relaxed)
    }

    /// Isolates that were ended for it.
    pub(super) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    pub(super) fn is_nearly_full(&self) -> bool {
        self.free().is_some_and(|free| free < self.free_min())
    }

    /// What it lacks, in words that follow its name.
    pub(super) fn why_full(&self) -> String {
        match self.inodes_min.load(Ordering::Relaxed) {
            0 => format!(
                "has {} MiB left of the {} that must be (isolates.disk_free_bytes)",
                self.free().unwrap_or(0) >> 20,
                self.free_min() >> 20
            ),
            least => format!(
                "has {} inodes left of the {least} that must be, {DISK_FREE_PERCENT} % of all",
                self.inodes.load(Ordering::Relaxed)
            ),
        }
    }

    fn look(&self, homes: &Path) {
        let Ok(stat) = rustix::fs::statvfs(homes) else {
            return self.free.store(UNKNOWN, Ordering::Relaxed);
        };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let usual = (bytes(stat.f_blocks) / 100 * DISK_FREE_PERCENT).min(DISK_FREE_BYTES_MAX);
        self.free_min
            .store(self.wanted.unwrap_or(usual), Ordering::Relaxed);
        // Without inodes nothing can be written either; a file system that has no such bound says 0.
        let least = stat.f_files / 100 * DISK_FREE_PERCENT;
        let out_of_inodes = stat.f_favail < least;
        let inodes_min = if out_of_inodes { least } else { 0 };
        self.inodes_min.store(inodes_min, Ordering::Relaxed);
        self.inodes.store(stat.f_favail, Ordering::Relaxed);
        let free = if out_of_inodes {
            0
        } else {
            bytes(stat.f_bavail)
        };
        self.free.store(free, Ordering::Relaxed);
    }

    fn plight(&self) -> Plight {
        let blamed = self.blamed.load(Ordering::Relaxed);
        match self.inodes_min.load(Ordering::Relaxed) {
            0 => Plight {
                nothing_left: self.free().is_some_and(|free| free < self.free_min() / 2),
                large: self.free_min(),
                blamed,
            },
            least => Plight {
                nothing_left: self.inodes.load(Ordering::Relaxed) < least / 2,
                large: least.clamp(ENTRIES_SUSPECT, HOME_ENTRIES_MAX.into()) * ENTRY_BYTES,
                blamed,
            },
        }
    }
}

/// What is known of one isolate when the disk is nearly full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Suspect {
    /// Bytes more than at the last look, its home and its processes' writes.
    grown: u64,
    in_home: u64,
    /// Bytes of files that have no name any more and that its user's processes hold open.
    held: u64,
}

impl Suspect {
    fn has(&self) -> u64 {
        self.in_home.saturating_add(self.held)
    }
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Plight {
    /// Less than half of what must be left.
    nothing_left: bool,
    /// Who has this much may have taken it.
    large: u64,
    /// Somebody was ended for the size of their home, and the disk is as full as before: its files stay, so
    /// ending others for theirs would free nothing.
    blamed: bool,
}

/// Why an isolate is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It goes on filling the disk.
    Grows,
    /// What it holds is free when it is gone.
    Holds,
    /// It was filled at one blow, before anybody looked: then by whose home is the largest, and is large.
    Largest,
}

/// Whom to end, by their places in the list.
fn choose(suspects: &[Suspect], plight: Plight) -> Option<(usize, Why)> {
    let most = |of: fn(&Suspect) -> u64, least: u64| {
        let all = suspects.iter().enumerate();
        let (at, most) = all.max_by_key(|(_, suspect)| of(suspect))?;
        (of(most) >= least).then_some(at)
    };
    let grows = most(|one| one.grown, DISK_GROWTH_BYTES_MIN).map(|at| (at, Why::Grows));
    if grows.is_some() || !plight.nothing_left {
        return grows;
    }
    let holds = most(|one| one.held, plight.large).map(|at| (at, Why::Holds));
    let largest = || most(Suspect::has, plight.large).map(|at| (at, Why::Largest));
    holds.or_else(|| if plight.blamed { None } else { largest() })
}

/// Looks at the disk and, if it is nearly full and somebody goes on filling it, ends that isolate.
/// Reads directories: not for a runtime's worker.
pub(super) fn look(ctx: &Arc<Ctx>) {
    let disk = &ctx.room.disk;
    let homes = &ctx.settings.homes;
    disk.look(homes);
    let mut seen = disk.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if !disk.is_nearly_full() {
        seen.clear();
        disk.blamed.store(false, Ordering::Relaxed);
        return;
    }
    let running: Vec<Arc<Slot>> = {
        let slots = ctx.slots.pin();
        // A server behind HTTP writes nothing here.
        let here = slots.values().filter(|slot| !slot.mcp.program.is_remote());
        let runs = here.filter(|slot| slot.occupant().is_some());
        runs.cloned().collect()
    };
    let by_uid = traces(fs::metadata(homes).map_or(0, |meta| meta.dev()));
    let own = rustix::process::geteuid().as_raw();
    let mut now = HashMap::new();
    let mut suspects = Vec::new();
    for slot in &running {
        let home = home_of(homes, slot);
        let in_home = ctx.launcher.weigh(&home, HOME_ENTRIES_MAX);
        let uid = fs::symlink_metadata(&home).map_or(own, |meta| meta.uid());
        // Where isolates have our own uid, its processes are everybody's.
        let trace = by_uid.get(&uid).filter(|_| uid != own);
        let Trace { written, held } = trace.copied().unwrap_or_default();
        let all = in_home.saturating_add(held).saturating_add(written);
        let grown = seen
            .get(&slot.id)
            .map_or(0, |before| all.saturating_sub(*before));
        now.insert(slot.id.clone(), all);
        suspects.push(Suspect {
            grown,
            in_home,
            held,
        });
    }
    *seen = now;
    drop(seen);
    let Some((at, why)) = choose(&suspects, disk.plight()) else {
        return;
    };
    if let (Some(slot), Some(suspect)) = (running.get(at), suspects.get(at)) {
        if why == Why::Largest {
            disk.blamed.store(true, Ordering::Relaxed);
        }
        end(ctx, slot, suspect);
    }
}

fn end(ctx: &Arc<Ctx>, slot: &Arc<Slot>, suspect: &Suspect) {
    let disk = &ctx.room.disk;
    disk.ended.fetch_add(1, Ordering::Relaxed);
    let reason = format!(
        "it filled the disk of the homes, which {}: {} MiB more in the last second, {} MiB in its \
         home, {} MiB in files without a name; each file counts as 4 KiB at least",
        disk.why_full(),
        suspect.grown >> 20,
        suspect.in_home >> 20,
        suspect.held >> 20,
    );
    let whose = slot.owner.as_ref().map_or("", |user| user.name.as_str());
    tracing::error!(
        isolate.id = %slot.id,
        mcp.name = %slot.mcp.name,
        user.name = whose,
        "an isolate was ended: {reason}"
    );
    let verdict = Verdict::Killed { reason };
    if let Some(run) = slot.occupant() {
        run.kill(verdict.clone());
    }
    if let Some(actor) = slot.actor() {
        let _ = actor.cast(IsolateMsg::Leave(verdict));
    }
}

/// What the living processes of one uid left on disks besides their homes.
#[derive(Debug, Clone, Copy, Default)]
struct Trace {
    /// Bytes written, to any disk.
    written: u64,
    /// Bytes of files of the homes' disk that have no name any more.
    held: u64,
}

/// Traces by uid; `disk` is the device of the homes.
fn traces(disk: u64) -> BTreeMap<u32, Trace> {
    let mut found: BTreeMap<u32, Trace> = BTreeMap::new();
    // One file that several hold is there once.
    let mut counted = HashSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let first = name.as_encoded_bytes().first();
        if !first.is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        let trace = found.entry(meta.uid()).or_default();
        let io = fs::read_to_string(entry.path().join("io")).unwrap_or_default();
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        trace.written += line.and_then(|text| text.parse().ok()).unwrap_or(0);
        let open = fs::read_dir(entry.path().join("fd"));
        for file in open.into_iter().flatten().flatten() {
            // Where it leads: the file, whatever its name was.
            let Ok(file) = fs::metadata(file.path()) else {
                continue;
            };
            let is_held = file.is_file() && file.nlink() == 0 && file.dev() == disk;
            if is_held && counted.insert(file.ino()) {
                trace.held += file.blocks() * 512;
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_nearly_full_by_its_size_or_as_it_was_set() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::new(None);
        assert!(!disk.is_nearly_full(), "not before it was looked at");
        disk.look(dir.path());
        assert!(disk.free().is_some());
        assert!(disk.free_min() <= DISK_FREE_BYTES_MAX);
        let wanted = Disk::new(Some(1 << 60));
        wanted.look(dir.path());
        assert!(wanted.is_nearly_full());
        wanted.look(Path::new("/nowhere"));
        assert!(
            !wanted.is_nearly_full(),
            "a disk that does not say is held against nobody"
        );
    }

    #[test]
    fn who_fills_it_is_chosen_and_who_merely_has_much_once() {
        let suspect = |grown, in_home, held| Suspect {
            grown,
            in_home,
            held,
        };
        let plight = |nothing_left, blamed| Plight {
            nothing_left,
            large: 100 << 20,
            blamed,
        };
        let (mib, large) = (1 << 20, 100 << 20);
        let quiet = suspect(0, large, 0);
        let grows = suspect(2 * mib, 5 * mib, 0);
        let holds = suspect(0, 0, large);
        let huge = suspect(0, 2 * large, 0);
        let both = suspect(0, large / 2, large / 2);
        for (suspects, plight, chosen) in [
            (
                &[quiet, grows][..],
                plight(false, false),
                Some((1, Why::Grows)),
            ),
            (
                &[grows, suspect(3 * mib, 0, 0)],
                plight(true, true),
                Some((1, Why::Grows)),
            ),
            (&[suspect(mib - 1, 0, 0)], plight(false, false), None),
            // There is some left: whoever has much is nobody's trouble.
            (&[quiet, holds], plight(false, false), None),
            (&[quiet, huge], plight(true, false), Some((1, Why::Largest))),
            (&[huge, both], plight(true, false), Some((0, Why::Largest))),
            (&[both], plight(true, false), Some((0, Why::Largest))),
            // What is held comes back, and files do not.
            (&[huge, holds], plight(true, false), Some((1, Why::Holds))),
            (&[huge, holds], plight(true, true), Some((1, Why::Holds))),
            (&[huge, quiet], plight(true, true), None),
            (&[suspect(0, large - 1, 0)], plight(true, false), None),
            (&[], plight(true, false), None),
        ] {
            assert_eq!(choose(suspects, plight), chosen, "{suspects:?} {plight:?}");
        }
    }

    #[test]
    fn a_file_that_has_no_name_is_found_with_who_holds_it() {
        use std::io::Write;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&vec![7; 3 << 20]).unwrap();
        let meta = file.metadata().unwrap();
        let held = || {
            let own = rustix::process::geteuid().as_raw();
            traces(meta.dev()).get(&own).map_or(0, |trace| trace.held)
        };
        let before = held();
        fs::remove_file(&path).unwrap();
        // Others of our uid come and go meanwhile; not by so much.
        assert!(held() >= before + (2 << 20), "{before}");
        drop(file);
    }
}
