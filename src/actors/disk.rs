//! The disk that homes are on, which is the disk of the audit log as well: a server that fills it would
//! have every user's calls refused.
//!
//! No start is made while it is nearly full, and the isolate that fills it is ended. Whose that is, is
//! seen from what grew since the last look: its home, and what its uid wrote (a file that was unlinked
//! while open is in no home); and when nothing is left, from whose home is the largest. Nobody's files are
//! deleted: what is left is the operator's to clear. Looked at once a second, off the runtime's workers.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::domain::ids::IsolateId;
use crate::domain::limits::{
    DISK_FREE_BYTES_MAX, DISK_FREE_PERCENT, DISK_GROWTH_BYTES_MIN, HOME_ENTRIES_MAX,
};
use crate::domain::verdict::Verdict;

use super::ctx::Ctx;
use super::isolate::IsolateMsg;
use super::plan::home_of;
use super::slot::Slot;

/// What an entry counts besides its blocks: an empty file takes an inode.
const ENTRY_BYTES: u64 = 4096;
/// Files of a home that may be what took all inodes.
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
    /// It has no inodes left.
    out_of_inodes: AtomicBool,
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
            out_of_inodes: AtomicBool::new(false),
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

    fn look(&self, homes: &Path) {
        let Ok(stat) = rustix::fs::statvfs(homes) else {
            return self.free.store(UNKNOWN, Ordering::Relaxed);
        };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        let usual = (bytes(stat.f_blocks) / 100 * DISK_FREE_PERCENT).min(DISK_FREE_BYTES_MAX);
        self.free_min
            .store(self.wanted.unwrap_or(usual), Ordering::Relaxed);
        // Without inodes nothing can be written either; a file system that has no such bound says 0.
        let out_of_inodes =
            stat.f_files > 0 && stat.f_favail < stat.f_files / 100 * DISK_FREE_PERCENT;
        self.out_of_inodes.store(out_of_inodes, Ordering::Relaxed);
        let free = if out_of_inodes {
            0
        } else {
            bytes(stat.f_bavail)
        };
        self.free.store(free, Ordering::Relaxed);
    }
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
        return;
    }
    let by_uid = written_by_uid();
    let running: Vec<Arc<Slot>> = {
        let slots = ctx.slots.pin();
        // A server behind HTTP writes nothing here.
        let here = slots.values().filter(|slot| !slot.mcp.program.is_remote());
        let runs = here.filter(|slot| slot.occupant().is_some());
        runs.cloned().collect()
    };
    let mut now = HashMap::new();
    let mut worst: Option<(u64, u64, Arc<Slot>)> = None;
    let mut largest: Option<(u64, Arc<Slot>)> = None;
    for slot in running {
        let home = home_of(homes, &slot);
        let in_home = bytes_in(&home);
        let uid = fs::symlink_metadata(&home).map_or(0, |meta| meta.uid());
        let written = in_home + by_uid.get(&uid).copied().unwrap_or(0);
        let grown = seen
            .get(&slot.id)
            .map_or(0, |before| written.saturating_sub(*before));
        now.insert(slot.id.clone(), written);
        if largest.as_ref().is_none_or(|(most, _)| in_home > *most) {
            largest = Some((in_home, Arc::clone(&slot)));
        }
        if grown >= DISK_GROWTH_BYTES_MIN && worst.as_ref().is_none_or(|(most, ..)| grown > *most) {
            worst = Some((grown, in_home, slot));
        }
    }
    *seen = now;
    drop(seen);
    if let Some((grown, in_home, slot)) = worst {
        return end(ctx, &slot, grown, in_home);
    }
    // Filled at one blow, before anybody looked: then it is whose home is the largest, and is large.
    let nothing_left = disk.free().is_some_and(|free| free < disk.free_min() / 2);
    let large = match disk.out_of_inodes.load(Ordering::Relaxed) {
        true => ENTRIES_SUSPECT * ENTRY_BYTES,
        false => disk.free_min(),
    };
    if let Some((in_home, slot)) = largest
        && nothing_left
        && in_home >= large
    {
        end(ctx, &slot, 0, in_home);
    }
}

fn end(ctx: &Arc<Ctx>, slot: &Arc<Slot>, grown: u64, in_home: u64) {
    let disk = &ctx.room.disk;
    disk.ended.fetch_add(1, Ordering::Relaxed);
    let reason = format!(
        "it filled the disk of the homes, which has {} MiB left of the {} that must be \
         (isolates.disk_free_bytes): {} MiB more in the last second, {} MiB in its home",
        disk.free().unwrap_or(0) >> 20,
        disk.free_min() >> 20,
        grown >> 20,
        in_home >> 20,
    );
    tracing::error!(isolate.id = %slot.id, mcp.name = %slot.mcp.name, "an isolate was ended: {reason}");
    let verdict = Verdict::Killed { reason };
    if let Some(run) = slot.occupant() {
        run.kill(verdict.clone());
    }
    if let Some(actor) = slot.actor() {
        let _ = actor.cast(IsolateMsg::Leave(verdict));
    }
}

/// Bytes on the disk beneath a directory, as far as [`HOME_ENTRIES_MAX`] entries tell.
fn bytes_in(dir: &Path) -> u64 {
    let mut sum = 0;
    let mut left = HOME_ENTRIES_MAX;
    let mut todo: Vec<PathBuf> = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if left == 0 {
                return sum;
            }
            left -= 1;
            // Of a link itself, not of where it leads.
            let Ok(meta) = entry.metadata() else { continue };
            sum += meta.blocks() * 512 + ENTRY_BYTES;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    sum
}

/// Bytes that living processes had written to disks, by their uid.
fn written_by_uid() -> BTreeMap<u32, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let first = name.as_encoded_bytes().first();
        if !first.is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let (Ok(meta), Ok(io)) = (
            entry.metadata(),
            fs::read_to_string(entry.path().join("io")),
        ) else {
            continue;
        };
        let line = io
            .lines()
            .find_map(|line| line.strip_prefix("write_bytes: "));
        let bytes: u64 = line.and_then(|text| text.parse().ok()).unwrap_or(0);
        *found.entry(meta.uid()).or_insert(0) += bytes;
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
    fn a_home_is_counted_without_following_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![7; 1 << 20]).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("all")).unwrap();
        let bytes = bytes_in(dir.path());
        assert!((1 << 20..2 << 20).contains(&bytes), "{bytes}");
        assert_eq!(bytes_in(Path::new("/nowhere")), 0);
    }
}
