//! Opening a log: where the chain is, what a crash left unfinished, what is damaged.
//!
//! Nothing is ever repaired in silence: what is moved aside, cut or missing becomes a record, and
//! what a checkpoint covers is never cut at all. The log then goes on in a new segment, and a check
//! of it names the damage for ever.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::domain::account::Millis;
use crate::domain::audit::chain::{Line, Tip};
use crate::domain::audit::check::{Head, Witness, head};
use crate::domain::audit::checkpoint::Checkpoint;
use crate::domain::audit::filter::{CALL_END, CALL_START, Columns};
use crate::domain::hex::hex;
use crate::domain::limits::{AUDIT_RECOVER_BYTES_MAX, AUDIT_UNFINISHED_NAMED_MAX};

use super::super::clock::random;
use super::Entry;
use super::files::{self, CHECKPOINT_NAME, EARLIER_NAME, Lines, Segment};
use super::log::{Log, checkpoint_record};
use super::segment::{Open, move_tail, open_file, set_aside};
use super::setup::{Setup, signer};
use super::sole::{self, OpenError};
use super::stats::Counters;

/// The event that begins a life of the server.
pub const STARTED: &str = "system.started";
/// The event that ends one in order.
pub const STOPPED: &str = "system.stopped";

/// What one segment holds, as far as it is right.
struct Scan {
    head: Option<Head>,
    born: Millis,
    /// The last right record.
    tip: Option<Tip>,
    /// Bytes up to its end.
    good: u64,
    /// The last line that has the form of a record, right or not.
    last: Option<Tip>,
    last_event: String,
}

/// Opens the log in its directory, or prepares a new one.
///
/// # Errors
/// [`OpenError`]: another server's log is not continued, nor what cannot be read.
pub(super) fn open(setup: Setup, counters: Arc<Counters>) -> Result<Log, OpenError> {
    make_dir(&setup.dir)?;
    let lock = sole::take(&setup.dir)?;
    sole::look(&setup.dir, setup.installation.as_deref())?;
    let signer = signer(&setup.keys)?;
    let mut log = Log {
        lock: Some(lock),
        signer,
        installation: String::new(),
        tip: Tip::START,
        segment: None,
        closed: files::segments(&setup.dir)?,
        notes: Vec::new(),
        set_aside: None,
        counters,
        fresh: 0,
        checkpointed: Instant::now(),
        unpublished: None,
        out: Vec::new(),
        setup,
    };
    if log.closed.is_empty() {
        log.set_aside = earlier(&log.setup.dir)?;
    }
    let witness = witness(&mut log);
    let found = newest(&mut log, witness.as_ref())?;
    let known = found.as_ref().and_then(|scan| scan.head.as_ref());
    log.installation = known
        .map(|head| head.installation.clone())
        .or_else(|| witness.map(|checkpoint| checkpoint.installation))
        .or_else(|| {
            log.setup
                .installation
                .clone()
                .filter(|name| !name.is_empty())
        })
        .unwrap_or_else(new_name);
    let same_key = known.is_none_or(|head| head.public_key == log.signer.public().to_hex());
    if !same_key {
        // Its segments are signed by another key: from here on by ours, and a new head says so.
        tracing::warn!("the audit log's key is another one than before; a new segment begins");
        if let Some(open) = log.segment.take() {
            log.closed.push(closed(&open));
        }
    }
    if let Some(entry) = unfinished(&log, found.as_ref())? {
        log.notes.push(entry);
    }
    Ok(log)
}

fn make_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

/// A name for a log whose server has none.
fn new_name() -> String {
    hex(&random::<6>())
}

fn closed(open: &Open) -> Segment {
    Segment {
        first: open.first,
        path: open.path.clone(),
        bytes: open.bytes,
    }
}

/// The log of versions without a chain gets another name and is kept.
fn earlier(dir: &Path) -> io::Result<Option<String>> {
    let path = dir.join(EARLIER_NAME);
    if path.exists() {
        return set_aside(&path, "unchained").map(Some);
    }
    Ok(None)
}

/// The newest checkpoint, if its file is there and ours.
fn witness(log: &mut Log) -> Option<Checkpoint> {
    let path = log.setup.dir.join(CHECKPOINT_NAME);
    let why = match files::checkpoint(&path) {
        Ok(None) => return None,
        Ok(Some(checkpoint)) if checkpoint.is_signed_by(&log.signer.public()) => {
            return Some(checkpoint);
        }
        Ok(Some(_)) => "it is not signed by this server's key".to_owned(),
        Err(error) => error.to_string(),
    };
    damaged(
        log,
        CHECKPOINT_NAME,
        &format!("the checkpoint's file is not usable: {why}"),
    );
    None
}

fn damaged(log: &mut Log, segment: &str, what: &str) {
    tracing::error!("audit log, {segment}: {what}");
    log.counters.checked(false);
    let at = log.setup.clock.wall_ms();
    let entry = Entry::new("system.damaged", at);
    log.notes
        .push(entry.field("segment", segment).field("what", what));
}

/// Finds the chain's end and opens the newest segment, if it can be continued.
fn newest(log: &mut Log, witness: Option<&Checkpoint>) -> io::Result<Option<Scan>> {
    // The checkpoint is a record as well, and was on the disk before its file was: a crash never takes it, and
    // its number is not given out again.
    let known = witness.and_then(checkpoint_record);
    let witness = witness.and_then(|one| Witness::signed(CHECKPOINT_NAME, one.clone()));
    let covers = |seq: u64| known.is_some_and(|known| known.seq >= seq);
    while let Some(segment) = log.closed.pop() {
        let scan = scan(&segment, witness.as_ref())?;
        let bad = segment.bytes - scan.good;
        let Some(tip) = scan.tip else {
            if covers(segment.first) || scan.last.is_some() {
                return Ok(Some(go_on_behind(
                    log,
                    segment,
                    scan,
                    known,
                    "its head is not right",
                )));
            }
            // Not even its head was finished: the segment before it is the newest.
            let aside = set_aside(&segment.path, "torn")?;
            torn(log, &segment.name(), segment.bytes, &aside);
            continue;
        };
        if covers(tip.seq + 1) {
            let what = match bad {
                0 => "its end is missing: a checkpoint knows of later records",
                _ => "it was changed: what a checkpoint covers is not right",
            };
            return Ok(Some(go_on_behind(log, segment, scan, known, what)));
        }
        let file = open_file(&segment.path, false).map_err(files::about(&segment.path))?;
        if bad > 0 {
            let aside = format!("torn-{}", segment.name());
            move_tail(&file, scan.good, bad, &log.setup.dir.join(&aside))?;
            torn(log, &segment.name(), bad, &aside);
        }
        log.tip = tip;
        log.fresh = tip.seq - known.map_or(0, |known| known.seq.min(tip.seq));
        log.segment = Some(Open {
            first: segment.first,
            path: segment.path,
            file,
            bytes: scan.good,
            born: scan.born,
            dirty: false,
        });
        return Ok(Some(scan));
    }
    if let Some(known) = known {
        log.tip = known;
        damaged(
            log,
            "all",
            "the segments are missing; a checkpoint knows of records",
        );
    }
    Ok(None)
}

fn torn(log: &mut Log, segment: &str, bytes: u64, aside: &str) {
    tracing::warn!(
        segment,
        bytes,
        "an unfinished audit record of a crash was moved to {aside}"
    );
    let entry = Entry::new("system.torn", log.setup.clock.wall_ms());
    log.notes.push(
        entry
            .field("segment", segment)
            .number("bytes", bytes)
            .field("moved_to", aside),
    );
}

/// The newest segment is left as it is, and the log goes on behind all that is known.
fn go_on_behind(
    log: &mut Log,
    segment: Segment,
    scan: Scan,
    known: Option<Tip>,
    what: &str,
) -> Scan {
    let ends = [scan.tip, scan.last, known];
    let end = ends.into_iter().flatten().max_by_key(|tip| tip.seq);
    log.tip = end.unwrap_or(Tip {
        seq: segment.first,
        ..Tip::START
    });
    damaged(log, &segment.name(), what);
    log.closed.push(segment);
    scan
}

fn scan(segment: &Segment, witness: Option<&Witness>) -> io::Result<Scan> {
    let about = files::about(&segment.path);
    let mut lines = Lines::open(&segment.path, 0).map_err(&about)?;
    let mut scan = Scan {
        head: None,
        born: 0,
        tip: None,
        good: 0,
        last: None,
        last_event: String::new(),
    };
    let mut broken = false;
    let known = |line: &Line<'_>, bytes: &[u8]| {
        witness.is_none_or(|witness| !witness.contradicts(line, bytes))
    };
    while let Some(bytes) = lines.next().map_err(&about)? {
        let line = Line::parse(bytes);
        // A segment cannot hold more records than bytes: other numbers nobody ever gave.
        let plausible =
            |line: &Line<'_>| (segment.first..segment.first + segment.bytes).contains(&line.seq);
        scan.last = line.filter(plausible).map(|line| line.tip()).or(scan.last);
        let before = match (scan.tip, &line) {
            _ if broken => None,
            (Some(tip), Some(line)) => (line.seq == tip.seq + 1).then_some(tip.hash),
            (None, Some(line)) => {
                scan.head = head(bytes);
                scan.born = line.at;
                let bound = scan.head.as_ref().filter(|_| line.seq == segment.first);
                bound
                    .and_then(|head| crate::domain::audit::chain::Hash::parse(head.prev.as_bytes()))
            }
            (_, None) => None,
        };
        match (line, before) {
            (Some(line), Some(before)) if line.follows(&before) && known(&line, bytes) => {
                scan.tip = Some(line.tip());
                line.event.clone_into(&mut scan.last_event);
                scan.good = lines.at();
            }
            _ => broken = true,
        }
    }
    Ok(scan)
}

/// Counts the calls that the life before began and did not end, unless it stopped in order.
fn unfinished(log: &Log, newest: Option<&Scan>) -> io::Result<Option<Entry>> {
    let in_order = newest.is_none_or(|scan| {
        scan.last_event == STOPPED
            || scan.last_event == crate::domain::audit::check::CHECKPOINT
                && stopped_before_last(log)
    });
    if in_order {
        return Ok(None);
    }
    let mut segments = log.closed.clone();
    segments.extend(log.segment.as_ref().map(closed));
    let (first, whole) = life_begins_in(&segments)?;
    let mut open: HashSet<String> = HashSet::new();
    for segment in segments.get(first..).unwrap_or_default() {
        let about = files::about(&segment.path);
        let mut lines = Lines::open(&segment.path, 0).map_err(&about)?;
        while let Some(bytes) = lines.next().map_err(&about)? {
            let Some(line) = Line::parse(bytes) else {
                continue;
            };
            let call = || Columns::of(bytes).and_then(|columns| columns.call);
            match line.event {
                STARTED => open.clear(),
                CALL_START => open.extend(call()),
                CALL_END => {
                    if let Some(call) = call() {
                        open.remove(&call);
                    }
                }
                _ => {}
            }
        }
    }
    let mut named: Vec<&str> = open.iter().map(String::as_str).collect();
    named.sort_unstable();
    named.truncate(AUDIT_UNFINISHED_NAMED_MAX);
    let entry = Entry::new("system.recovered", log.setup.clock.wall_ms())
        .number("unfinished", open.len() as u64)
        .field("calls", &named.join(" "));
    Ok(Some(match whole {
        true => entry,
        false => entry.field("looked", "only at the end of a long log"),
    }))
}

/// Whether the last record but the closing checkpoint says that the server stopped in order.
fn stopped_before_last(log: &Log) -> bool {
    let Some(open) = &log.segment else {
        return false;
    };
    let tail = open.bytes.saturating_sub(8 << 10);
    let mut text = vec![0; usize::try_from(open.bytes - tail).unwrap_or(0)];
    if std::os::unix::fs::FileExt::read_exact_at(&open.file, &mut text, tail).is_err() {
        return false;
    }
    let mut lines = text
        .split(|byte| *byte == b'\n')
        .rev()
        .filter_map(Line::parse);
    lines.nth(1).is_some_and(|line| line.event == STOPPED)
}

/// The index of the segment in which the newest life begins, as far back as is looked.
fn life_begins_in(segments: &[Segment]) -> io::Result<(usize, bool)> {
    let mut looked = 0;
    let mark = format!("\"event\":\"{STARTED}\"");
    for (index, segment) in segments.iter().enumerate().rev() {
        if looked > 0 && looked + segment.bytes > AUDIT_RECOVER_BYTES_MAX {
            return Ok((index + 1, false));
        }
        looked += segment.bytes;
        let about = files::about(&segment.path);
        let mut lines = Lines::open(&segment.path, 0).map_err(&about)?;
        while let Some(bytes) = lines.next().map_err(&about)? {
            if memchr::memmem::find(bytes, mark.as_bytes()).is_some() {
                return Ok((index, true));
            }
        }
    }
    Ok((0, true))
}
