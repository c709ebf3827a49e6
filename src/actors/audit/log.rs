//! The log on the disk: segments, their heads, checkpoints. One thread owns it; nothing here knows
//! who waits.
//!
//! Invariant: `tip` and the length of the open segment describe what is acknowledged. A write that
//! fails changes neither, and the next try begins by cutting off whatever the failed one left.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::domain::audit::chain::Tip;
use crate::domain::audit::check::{CHECKPOINT, GENESIS, SEGMENT, segment_name};
use crate::domain::audit::checkpoint::{Checkpoint, Signer};

use super::files::{self, CHECKPOINT_NAME};
use super::segment::{Open, Tampered, open_file, set_aside, sync_dir};
use super::setup::Setup;
use super::stats::Counters;
use super::{Durability, Entry};

/// The log.
#[derive(Debug)]
pub(super) struct Log {
    /// Keeps other servers out of the directory; given back when the log is finished.
    pub(super) lock: Option<File>,
    pub(super) setup: Setup,
    pub(super) signer: Signer,
    pub(super) installation: String,
    pub(super) tip: Tip,
    pub(super) segment: Option<Open>,
    /// The segments before the open one.
    pub(super) closed: Vec<files::Segment>,
    /// What the log has to say about itself: written before whatever comes next.
    pub(super) notes: Vec<Entry>,
    /// The file of versions without a chain, under its new name.
    pub(super) set_aside: Option<String>,
    pub(super) counters: Arc<Counters>,
    /// Records since the last checkpoint.
    pub(super) fresh: u64,
    pub(super) checkpointed: Instant,
    /// A checkpoint that is in the chain and not yet in its file.
    pub(super) unpublished: Option<Checkpoint>,
    pub(super) out: Vec<u8>,
}

impl Log {
    /// Writes a batch: each line is the inside of one record. When it returns, all of it is where
    /// the durability asks for, or none of it counts.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn write(&mut self, batch: &[u8]) -> io::Result<()> {
        self.look_behind()?;
        if self.is_full() {
            self.close_segment()?;
        }
        if self.segment.is_none() {
            self.open_segment()?;
        }
        let notes = std::mem::take(&mut self.notes);
        let lines = batch
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let lines = notes.iter().map(Entry::fields).chain(lines);
        let written = self.append(lines, Sign::IfDue);
        if written.is_err() {
            self.notes = notes;
        }
        written
    }

    /// A checkpoint, if one is due by time.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn checkpoint_if_due(&mut self) -> io::Result<()> {
        if self.segment.is_some() && self.fresh > 0 && self.is_due() {
            self.look_behind()?;
            if self.segment.is_some() {
                self.append(std::iter::empty(), Sign::Now)?;
            }
        }
        Ok(())
    }

    /// How long until a checkpoint is due.
    pub(super) fn due_in(&self) -> Option<Duration> {
        let every = self.setup.checkpoint_every;
        (self.fresh > 0).then(|| every.saturating_sub(self.checkpointed.elapsed()))
    }

    /// The last words: a checkpoint, and everything on the disk.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if !self.notes.is_empty() {
            self.write(&[])?;
        }
        if self.segment.is_some() && self.fresh > 0 {
            self.append(std::iter::empty(), Sign::Now)?;
        }
        match &self.segment {
            Some(segment) => self.setup.sync.data(&segment.file),
            None => Ok(()),
        }
    }

    fn is_due(&self) -> bool {
        self.fresh >= self.setup.checkpoint_records
            || self.checkpointed.elapsed() >= self.setup.checkpoint_every
    }

    fn is_full(&self) -> bool {
        self.segment.as_ref().is_some_and(|segment| {
            let age = self.setup.clock.wall_ms().saturating_sub(segment.born);
            segment.bytes >= self.setup.segment_bytes_max
                || u128::try_from(age).is_ok_and(|age| age >= self.setup.segment_age.as_millis())
        })
    }

    fn close_segment(&mut self) -> io::Result<()> {
        if self.fresh > 0 {
            self.append(std::iter::empty(), Sign::Now)?;
        }
        if let Some(segment) = &self.segment {
            self.setup.sync.data(&segment.file)?;
            self.closed.push(files::Segment {
                first: segment.first,
                path: segment.path.clone(),
                bytes: segment.bytes,
            });
            self.segment = None;
        }
        Ok(())
    }

    fn open_segment(&mut self) -> io::Result<()> {
        let dir = &self.setup.dir;
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let first = self.tip.seq + 1;
        let path = dir.join(segment_name(first));
        if path.exists() {
            // Of a try that failed, or of somebody else: none of it was ever acknowledged.
            set_aside(&path, "torn")?;
        }
        let file = open_file(&path, true)?;
        let at = self.setup.clock.wall_ms();
        let event = if first == 1 { GENESIS } else { SEGMENT };
        let mut head = Entry::new(event, at)
            .number("format", 1)
            .field("installation", &self.installation)
            .field("public_key", &self.signer.public().to_hex())
            .field("prev", self.tip.hash.as_str());
        if let Some(name) = self.set_aside.as_ref().filter(|_| first == 1) {
            head = head.field("set_aside", name);
        }
        self.segment = Some(Open {
            first,
            path,
            file,
            bytes: 0,
            born: at,
            dirty: false,
        });
        let written = self
            .append(std::iter::once(head.fields()), Sign::Not)
            .and_then(|()| sync_dir(&self.setup.dir));
        if written.is_err()
            && let Some(failed) = self.segment.take_if(|segment| segment.bytes == 0)
        {
            // The next try begins with an empty place.
            let _ = std::fs::remove_file(failed.path);
        }
        written
    }

    /// Seals these lines behind the tip and writes them.
    fn append<'a>(&mut self, lines: impl Iterator<Item = &'a [u8]>, sign: Sign) -> io::Result<()> {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let (mut tip, before) = (self.tip, self.tip.seq);
        for line in lines {
            tip.seal(line, &mut out);
        }
        let fresh = self.fresh + (tip.seq - before);
        let signs = match sign {
            Sign::Now => true,
            Sign::IfDue => {
                fresh >= self.setup.checkpoint_records
                    || self.checkpointed.elapsed() >= self.setup.checkpoint_every
            }
            Sign::Not => false,
        };
        let checkpoint = signs.then(|| {
            let at = self.setup.clock.wall_ms();
            let checkpoint = self.signer.sign(&self.installation, tip, at);
            tip.seal(checkpoint_entry(&checkpoint).fields(), &mut out);
            checkpoint
        });
        let written = self.put(&out);
        // A burst's buffer is not kept for ever.
        out.shrink_to(1 << 20);
        self.out = out;
        written?;
        self.tip = tip;
        self.fresh = fresh;
        if let Some(checkpoint) = checkpoint {
            self.fresh = 0;
            self.checkpointed = Instant::now();
            self.counters
                .checkpoint_at
                .store(checkpoint.at, Ordering::Relaxed);
            self.unpublished = Some(checkpoint);
        }
        Ok(())
    }

    /// Writes these bytes behind what is acknowledged.
    ///
    /// A further try writes all of it again: the kernel tells of a failed write-back once and then
    /// takes the lost pages for clean, so that syncing again would acknowledge what is gone.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(segment) = &mut self.segment else {
            return Err(io::Error::other("no segment is open"));
        };
        if segment.dirty {
            segment.file = open_file(&segment.path, false)?;
            segment.file.set_len(segment.bytes)?;
        }
        segment.dirty = true;
        segment.file.write_all(bytes)?;
        if self.setup.durability == Durability::Durable {
            let since = Instant::now();
            self.setup.sync.data(&segment.file)?;
            self.counters.synced(since.elapsed());
        }
        segment.dirty = false;
        segment.bytes += bytes.len() as u64;
        let closed: u64 = self.closed.iter().map(|closed| closed.bytes).sum();
        self.counters
            .bytes
            .store(closed + segment.bytes, Ordering::Relaxed);
        let count = self.closed.len() as u64 + 1;
        self.counters.segments.store(count, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the newest checkpoint into its file, whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn publish_checkpoint(&mut self) -> io::Result<()> {
        let Some(checkpoint) = &self.unpublished else {
            return Ok(());
        };
        if let (Durability::Buffered, Some(segment)) = (self.setup.durability, &self.segment) {
            // It must not know more than the disk.
            self.setup.sync.data(&segment.file)?;
        }
        let text = serde_json::to_string(checkpoint).map_err(io::Error::other)?;
        let path = self.setup.dir.join(CHECKPOINT_NAME);
        let beside = path.with_extension("new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_data()?;
        std::fs::rename(&beside, &path)?;
        self.unpublished = None;
        Ok(())
    }

    /// Looks whether the open segment is still what we wrote, and heals what can be healed.
    fn look_behind(&mut self) -> io::Result<()> {
        let Some(segment) = &mut self.segment else {
            return Ok(());
        };
        let Some(tampered) = segment.tampered()? else {
            return Ok(());
        };
        let name = segment_name(segment.first);
        let what = match tampered {
            Tampered::Gone => {
                segment.restore()?;
                "its file was removed or replaced; it was put back from the open descriptor"
                    .to_owned()
            }
            Tampered::Longer(bytes) => {
                let path = segment.path.with_extension("foreign");
                segment.cut_to(bytes, &path)?;
                format!(
                    "{bytes} bytes that are not ours were moved to {}",
                    path.display()
                )
            }
            Tampered::Shorter(bytes) => {
                self.closed.push(files::Segment {
                    first: segment.first,
                    path: segment.path.clone(),
                    bytes,
                });
                let what = format!(
                    "its file was cut from {} to {bytes} bytes; the log goes on in a new segment",
                    segment.bytes
                );
                self.segment = None;
                what
            }
        };
        tracing::error!("audit segment {name}: {what}");
        self.counters.checked(false);
        let entry = Entry::new("system.damaged", self.setup.clock.wall_ms());
        self.notes
            .push(entry.field("segment", &name).field("what", &what));
        Ok(())
    }
}

/// Whether an append ends with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sign {
    Now,
    IfDue,
    Not,
}

impl Log {
    /// Lines of our own with a checkpoint behind them: for what is signed before it is done.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn append_signed(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.append(entries.iter().map(Entry::fields), Sign::Now)
    }
}

/// The record that a checkpoint is.
pub(super) fn checkpoint_record(checkpoint: &Checkpoint) -> Option<Tip> {
    let mut tip = checkpoint.tip()?;
    tip.seal(checkpoint_entry(checkpoint).fields(), &mut Vec::new());
    Some(tip)
}

fn checkpoint_entry(checkpoint: &Checkpoint) -> Entry {
    Entry::new(CHECKPOINT, checkpoint.at)
        .field("installation", &checkpoint.installation)
        .number("upto", checkpoint.upto)
        .field("tip", &checkpoint.tip)
        .field("key", &checkpoint.key)
        .field("signature", &checkpoint.signature)
}
