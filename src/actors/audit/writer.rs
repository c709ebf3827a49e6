//! The queue in front of the log, and the one thread that empties it: gathers, writes, tells.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::thread::Thread;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::domain::audit::{Category, Required};
use crate::domain::limits::{
    AUDIT_QUEUE_BYTES_MAX, AUDIT_QUEUE_KEPT, AUDIT_QUEUE_KEPT_BYTES, AUDIT_QUEUE_MAX,
};

use super::super::clock::Clock;
use super::super::sync::Mutex;
use super::entry::Cause;
use super::log::Log;
use super::resume;
use super::setup::Setup;
use super::sole::OpenError;
use super::stats::{AuditStats, Counters};
use super::{Durability, Entry, Written};

/// How long records gather before they are written, if nobody waits for the disk.
const GATHER: Duration = Duration::from_millis(5);
/// Between tries when the disk refuses.
const RETRY: Duration = Duration::from_millis(200);
/// Between two looks at what is due by time alone: age, retention.
const LOOK: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) setup: Setup,
    pub(super) written: watch::Sender<Written>,
    pub(super) counters: Arc<Counters>,
    thread: OnceLock<Thread>,
    buffer: Mutex<Buffer>,
}

#[derive(Debug, Default)]
struct Buffer {
    /// The insides of records, a line each.
    bytes: Vec<u8>,
    appended: u64,
    written: u64,
    events: [u64; Category::COUNT],
    lost: [u64; Category::COUNT],
    /// What of it is not on record yet.
    untold: [u64; Category::COUNT],
    /// Records were lost since the last write; the writer says when there is room again.
    overflowed: bool,
    /// When the oldest record in `bytes` came.
    oldest: Option<Instant>,
    /// When the oldest record that is being written came.
    writing: Option<Instant>,
    closing: bool,
    closed: bool,
    /// What was left at the close could not be written.
    incomplete: bool,
}

/// There is no place in the queue now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

/// What the writer takes at once.
struct Taken {
    appended: u64,
    closing: bool,
    overflowed: bool,
}

pub(super) fn open(setup: Setup) -> Result<Arc<Shared>, OpenError> {
    let counters = Arc::new(Counters::default());
    let mut log = resume::open(setup.clone(), Arc::clone(&counters))?;
    let shared = Arc::new(Shared {
        written: watch::Sender::new(Written {
            tip: log.tip,
            ..Written::default()
        }),
        counters,
        thread: OnceLock::new(),
        buffer: Mutex::default(),
        setup,
    });
    let thread = {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .stack_size(256 << 10)
            .spawn(move || shared.run(&mut log))?
    };
    // Set once, here.
    let _ = shared.thread.set(thread.thread().clone());
    Ok(shared)
}

impl Shared {
    pub(super) fn durability(&self) -> Durability {
        self.setup.durability
    }

    pub(super) fn required(&self) -> Required {
        self.setup.required
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.setup.clock
    }

    pub(super) fn append(&self, entry: &Entry) -> Result<u64, Refused> {
        let fields = entry.fields();
        let (records_max, bytes_max) = self.places(entry);
        let (ticket, first) = {
            let mut buffer = self.buffer.lock();
            let full = buffer.appended - buffer.written >= records_max as u64
                || buffer.bytes.len() + fields.len() > bytes_max;
            if full || buffer.closed {
                return Err(Refused);
            }
            buffer.appended += 1;
            if let Some(count) = buffer.events.get_mut(entry.category().index()) {
                *count += 1;
            }
            let first = buffer.bytes.is_empty();
            if first {
                buffer.oldest = Some(Instant::now());
            }
            buffer.bytes.extend_from_slice(fields);
            buffer.bytes.push(b'\n');
            (buffer.appended, first)
        };
        if first {
            self.wake();
        }
        Ok(ticket)
    }

    /// Up to which length, in records and bytes, the queue takes such a record. While the disk
    /// refuses, callers who try again and again and calls that go on unrecorded fill what they may;
    /// the last places are for what an administrator does about it.
    fn places(&self, entry: &Entry) -> (usize, usize) {
        let kept = match entry.cause() {
            Cause::House => 0,
            Cause::Callers if self.required().has(entry.category()) => 1,
            Cause::Callers => 2,
        };
        (
            AUDIT_QUEUE_MAX - kept * AUDIT_QUEUE_KEPT,
            AUDIT_QUEUE_BYTES_MAX - kept * AUDIT_QUEUE_KEPT_BYTES,
        )
    }

    pub(super) fn queued(&self) -> u64 {
        let buffer = self.buffer.lock();
        buffer.appended - buffer.written
    }

    /// A record that found no place was given up. If it is of a kind that is required, the gate
    /// shuts until there is room again.
    pub(super) fn lose(&self, category: Category) {
        if self.required().has(category) {
            // First told, then noted for the writer to take back: never the other way round.
            self.written.send_if_modified(|written| {
                let news = !written.overflowing;
                written.overflowing = true;
                news
            });
        }
        {
            let mut buffer = self.buffer.lock();
            let place = category.index();
            let Buffer { lost, untold, .. } = &mut *buffer;
            for counts in [lost, untold] {
                if let Some(count) = counts.get_mut(place) {
                    *count += 1;
                }
            }
            buffer.overflowed = true;
        }
        self.wake();
    }

    pub(super) fn stats(&self) -> AuditStats {
        let mut stats = AuditStats::default();
        {
            let buffer = self.buffer.lock();
            stats.events = buffer.events;
            stats.dropped = buffer.lost;
            stats.queued = buffer.appended - buffer.written;
            let oldest = buffer.writing.or(buffer.oldest);
            stats.lag = oldest.map_or(Duration::ZERO, |since| since.elapsed());
        }
        stats.seq = self.written.borrow().tip.seq;
        self.counters.read(&mut stats);
        stats
    }

    pub(super) fn close(&self) {
        self.buffer.lock().closing = true;
        self.wake();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.buffer.lock().closed
    }

    /// Whether everything appended is in the file.
    pub(super) fn is_complete(&self) -> bool {
        let buffer = self.buffer.lock();
        !buffer.incomplete && buffer.written == buffer.appended
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, log: &mut Log) {
        let mut batch = Vec::new();
        let mut looked = Instant::now();
        loop {
            let taken = self.take(&mut batch, log);
            if !batch.is_empty() || !log.notes.is_empty() {
                self.write(log, &batch, taken.appended);
                batch.clear();
                if batch.capacity() > 1 << 20 {
                    batch = Vec::new();
                }
                self.afterwards(log);
                if self.durability() == Durability::Buffered && !taken.closing {
                    std::thread::sleep(GATHER);
                }
            } else if !taken.closing {
                self.in_quiet(log, &mut looked);
            }
            if taken.overflowed {
                self.written
                    .send_modify(|written| written.overflowing = false);
            }
            let idle = {
                let buffer = self.buffer.lock();
                buffer.bytes.is_empty() && !buffer.overflowed
            };
            if taken.closing && idle {
                return self.finish(log);
            }
            if idle {
                let due = log.due_in().unwrap_or(LOOK);
                std::thread::park_timeout(due.clamp(Duration::from_millis(1), LOOK));
            }
        }
    }

    /// Takes everything that waits. What was lost meanwhile becomes a record behind it.
    fn take(&self, batch: &mut Vec<u8>, log: &mut Log) -> Taken {
        let mut buffer = self.buffer.lock();
        std::mem::swap(&mut buffer.bytes, batch);
        buffer.writing = buffer.oldest.take();
        let untold = std::mem::take(&mut buffer.untold);
        let taken = Taken {
            appended: buffer.appended,
            closing: buffer.closing,
            overflowed: std::mem::take(&mut buffer.overflowed),
        };
        drop(buffer);
        let lost: u64 = untold.iter().sum();
        if lost > 0 {
            let mut entry =
                Entry::new("system.lost", self.clock().wall_ms()).number("records", lost);
            for (category, count) in Category::ALL.iter().zip(untold) {
                if count > 0 {
                    entry = entry.number(category.lost(), count);
                }
            }
            log.notes.push(entry);
        }
        taken
    }

    /// Writes until it is written: what was acknowledged stays, what waits is told of the failure.
    fn write(&self, log: &mut Log, batch: &[u8], appended: u64) {
        while let Err(error) = log.write(batch) {
            self.failed(&error);
            {
                let mut buffer = self.buffer.lock();
                if buffer.closing {
                    buffer.incomplete = true;
                    return;
                }
            }
            std::thread::sleep(RETRY);
        }
        {
            let mut buffer = self.buffer.lock();
            buffer.written = appended;
            buffer.writing = None;
        }
        self.written.send_modify(|written| {
            written.appended = appended;
            written.tip = log.tip;
            written.failing = None;
        });
    }

    fn failed(&self, error: &std::io::Error) {
        self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
        let why = error.to_string();
        self.written.send_if_modified(|written| {
            let news = written.failing.as_ref() != Some(&why);
            written.failing = Some(why);
            news
        });
    }

    /// What nobody waits for: the checkpoint's file, retention. A failure is told and tried again.
    fn afterwards(&self, log: &mut Log) {
        let done = log.publish_checkpoint().and_then(|()| log.retain());
        if let Err(error) = done {
            self.counters.write_errors.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                "the audit log's checkpoint or retention failed, to be tried again: {error}"
            );
        }
        self.tell(log);
    }

    /// What is due by time, while nothing happens.
    fn in_quiet(&self, log: &mut Log, looked: &mut Instant) {
        if log.due_in().is_some_and(|due| due.is_zero()) {
            match log.checkpoint_if_due() {
                Ok(()) => self.afterwards(log),
                Err(error) => {
                    self.failed(&error);
                    std::thread::sleep(RETRY);
                }
            }
        } else if looked.elapsed() >= LOOK {
            *looked = Instant::now();
            self.afterwards(log);
        }
    }

    /// Records of the log's own are news as well, though nobody waits for them.
    fn tell(&self, log: &Log) {
        self.written.send_if_modified(|written| {
            let news = written.tip != log.tip;
            written.tip = log.tip;
            news
        });
    }

    fn finish(&self, log: &mut Log) {
        let finished = log.finish().and_then(|()| log.publish_checkpoint());
        // Before anybody hears of the end: whoever does may open it again.
        drop(log.lock.take());
        {
            let mut buffer = self.buffer.lock();
            buffer.incomplete |= finished.is_err();
            buffer.closed = true;
        }
        self.tell(log);
        self.written.send_modify(|_| {});
    }
}
