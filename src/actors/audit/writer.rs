//! The writer thread of the audit log: gathers, writes, syncs, tells.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::OnceLock;
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::watch;

use crate::domain::limits::AUDIT_QUEUE_MAX;

use super::super::sync::Mutex;
use super::{Durability, Entry, Written};

/// How long records gather before they are written, if nobody waits for the disk.
const GATHER: Duration = Duration::from_millis(5);
/// Between tries when the disk refuses.
const RETRY: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) durability: Durability,
    pub(super) written: watch::Sender<Written>,
    thread: OnceLock<Thread>,
    buffer: Mutex<Buffer>,
}

/// The file, and how it is made durable.
#[derive(Debug)]
struct Log {
    path: PathBuf,
    file: File,
    durability: Durability,
    sync: fn(&File) -> std::io::Result<()>,
}

#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    seq: u64,
    written: u64,
    lost: u64,
    /// Records were lost since the last write; the writer says when there is room again.
    overflowed: bool,
    closing: bool,
    closed: bool,
    /// What was left at the close could not be written.
    incomplete: bool,
}

/// There is no place in the queue now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused;

pub(super) fn open(dir: &Path, durability: Durability) -> std::io::Result<Arc<Shared>> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut log = Log::open(dir.join("audit.jsonl"), durability, File::sync_data)?;
    let seq = resume(&mut log.file)?;
    let shared = Arc::new(Shared {
        durability,
        written: watch::Sender::new(Written {
            seq,
            ..Written::default()
        }),
        thread: OnceLock::new(),
        buffer: Mutex::new(Buffer {
            seq,
            written: seq,
            ..Buffer::default()
        }),
    });
    let thread = {
        let shared = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("audit-writer".to_owned())
            .stack_size(128 << 10)
            .spawn(move || shared.run(&mut log))?
    };
    // Set once, here.
    let _ = shared.thread.set(thread.thread().clone());
    Ok(shared)
}

/// Ends a line that a crash cut off, and finds the last sequence number.
fn resume(file: &mut File) -> std::io::Result<u64> {
    const TAIL: u64 = 64 << 10;
    let meta = file.metadata()?;
    if !meta.is_file() {
        // A pipe or a device has no past.
        return Ok(0);
    }
    let length = meta.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    Read::take(&mut *file, TAIL).read_to_end(&mut tail)?;
    if tail.last().is_some_and(|byte| *byte != b'\n') {
        file.write_all(b"\n")?;
    }
    #[derive(serde::Deserialize)]
    struct Numbered {
        seq: u64,
    }
    let newest = tail
        .split(|byte| *byte == b'\n')
        .rev()
        .find_map(|line| serde_json::from_slice::<Numbered>(line).ok());
    Ok(newest.map_or(0, |record| record.seq))
}

impl Shared {
    pub(super) fn append(&self, entry: &Entry) -> Result<u64, Refused> {
        let (seq, first) = {
            let mut buffer = self.buffer.lock();
            if buffer.seq - buffer.written >= AUDIT_QUEUE_MAX as u64 || buffer.closed {
                return Err(Refused);
            }
            buffer.seq += 1;
            let (seq, first) = (buffer.seq, buffer.bytes.is_empty());
            entry.append_to(seq, &mut buffer.bytes);
            (seq, first)
        };
        if first {
            self.wake();
        }
        Ok(seq)
    }

    pub(super) fn queued(&self) -> u64 {
        let buffer = self.buffer.lock();
        buffer.seq - buffer.written
    }

    /// A record that found no place was given up: the gate shuts until there is room again.
    pub(super) fn lose(&self) {
        // First told, then noted for the writer to take back: never the other way round.
        self.written.send_if_modified(|written| {
            let news = !written.overflowing;
            written.overflowing = true;
            news
        });
        {
            let mut buffer = self.buffer.lock();
            buffer.lost += 1;
            buffer.overflowed = true;
        }
        self.wake();
    }

    pub(super) fn lost(&self) -> u64 {
        self.buffer.lock().lost
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
        !buffer.incomplete && buffer.written == buffer.seq
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn run(&self, log: &mut Log) {
        let mut taken = Vec::new();
        loop {
            let (seq, closing, overflowed) = {
                let mut buffer = self.buffer.lock();
                std::mem::swap(&mut buffer.bytes, &mut taken);
                let overflowed = std::mem::take(&mut buffer.overflowed);
                (buffer.seq, buffer.closing, overflowed)
            };
            if !taken.is_empty() {
                self.write(log, &taken, seq);
                taken.clear();
                if taken.capacity() > 1 << 20 {
                    taken = Vec::new();
                }
                if self.durability == Durability::Buffered && !closing {
                    std::thread::sleep(GATHER);
                }
            }
            if overflowed {
                self.written
                    .send_modify(|written| written.overflowing = false);
            }
            let idle = {
                let buffer = self.buffer.lock();
                buffer.bytes.is_empty() && !buffer.overflowed
            };
            if closing && idle {
                let synced = (log.sync)(&log.file);
                {
                    let mut buffer = self.buffer.lock();
                    buffer.incomplete |= synced.is_err();
                    buffer.closed = true;
                }
                self.written.send_modify(|_| {});
                return;
            }
            if idle {
                std::thread::park();
            }
        }
    }

    /// Writes until it is written: what was acknowledged stays, what waits is told of the failure.
    fn write(&self, log: &mut Log, bytes: &[u8], seq: u64) {
        let mut start = None;
        while let Err(error) = log.write(bytes, &mut start) {
            let why = error.to_string();
            self.written.send_if_modified(|written| {
                let news = written.failing.as_ref() != Some(&why);
                written.failing = Some(why);
                news
            });
            {
                let mut buffer = self.buffer.lock();
                if buffer.closing {
                    buffer.incomplete = true;
                    return;
                }
            }
            std::thread::sleep(RETRY);
        }
        self.buffer.lock().written = seq;
        self.written.send_modify(|written| {
            written.seq = seq;
            written.failing = None;
        });
    }
}

impl Log {
    fn open(
        path: PathBuf,
        durability: Durability,
        sync: fn(&File) -> std::io::Result<()>,
    ) -> std::io::Result<Self> {
        let file = Self::open_file(&path)?;
        Ok(Self {
            path,
            file,
            durability,
            sync,
        })
    }

    fn open_file(path: &Path) -> std::io::Result<File> {
        OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(path)
    }

    /// Tries to write a batch. `start` is where it begins in the file, set by the first try.
    ///
    /// A further try writes the whole batch again: the kernel tells of a failed write-back once and
    /// then takes the lost pages for clean, so that syncing again would acknowledge what is gone.
    fn write(&mut self, bytes: &[u8], start: &mut Option<u64>) -> std::io::Result<()> {
        match *start {
            None => *start = Some(self.file.metadata()?.len()),
            Some(start) => {
                self.file = Self::open_file(&self.path)?;
                let meta = self.file.metadata()?;
                if meta.is_file() && meta.len() > start {
                    self.file.set_len(start)?;
                }
            }
        }
        self.file.write_all(bytes)?;
        match self.durability {
            Durability::Durable => (self.sync)(&self.file),
            Durability::Buffered => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::audit::{Audit, AuditError};

    fn lines(dir: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(dir.join("audit.jsonl")).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn what_is_committed_is_in_the_file_and_numbers_go_on_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), Durability::Durable).unwrap();
        for n in 0..10 {
            audit.commit(Entry::new("test", n)).await.unwrap();
            assert_eq!(lines(dir.path()).len(), usize::try_from(n).unwrap() + 1);
        }
        assert!(audit.close(Duration::from_secs(5)).await);
        // A crash in the middle of a line.
        let path = dir.path().join("audit.jsonl");
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":11,\"at\":").unwrap();
        let audit = Audit::open(dir.path(), Durability::Durable).unwrap();
        audit.commit(Entry::new("test", 99)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(
            (last["seq"].as_u64(), last["at"].as_u64()),
            (Some(11), Some(99))
        );
    }

    #[tokio::test]
    async fn buffered_records_arrive_without_being_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), Durability::Buffered).unwrap();
        for n in 0..1000 {
            audit.commit(Entry::new("test", n)).await.unwrap();
        }
        assert!(audit.close(Duration::from_secs(5)).await);
        assert_eq!(lines(dir.path()).len(), 1000);
        assert_eq!(audit.lost(), 0);
    }

    #[tokio::test]
    async fn a_full_disk_refuses_and_loses_nothing_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("audit.jsonl")).unwrap();
        let Ok(audit) = Audit::open(dir.path(), Durability::Durable) else {
            eprintln!("skipped: /dev/full cannot be opened here");
            return;
        };
        let error = audit.commit(Entry::new("test", 1)).await.unwrap_err();
        assert!(matches!(error, AuditError::Failing), "{error}");
        assert!(audit.written().borrow().failing.is_some());
        for _ in 0..AUDIT_QUEUE_MAX {
            audit.post(Entry::new("test", 2));
        }
        let refused = audit.commit(Entry::new("test", 3)).await;
        assert!(matches!(refused, Err(AuditError::Failing)), "{refused:?}");
        assert!(audit.lost() > 0);
        assert!(audit.written().borrow().overflowing);
    }

    #[test]
    fn a_batch_whose_sync_failed_is_written_again() {
        /// What the kernel does after an I/O error: the pages are gone, the error comes once.
        fn fails_once(file: &File) -> std::io::Result<()> {
            use std::sync::atomic::{AtomicBool, Ordering};
            static FAILED: AtomicBool = AtomicBool::new(false);
            if FAILED.swap(true, Ordering::Relaxed) {
                return file.sync_data();
            }
            file.set_len(3)?;
            Err(std::io::Error::other("input/output error"))
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, "1\n").unwrap();
        let mut log = Log::open(path.clone(), Durability::Durable, fails_once).unwrap();
        let mut start = None;
        assert!(log.write(b"2\n3\n", &mut start).is_err());
        log.write(b"2\n3\n", &mut start).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n2\n3\n");
    }

    #[tokio::test]
    async fn a_close_that_loses_records_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.path().join("audit.jsonl")).unwrap();
        let Ok(audit) = Audit::open(dir.path(), Durability::Buffered) else {
            eprintln!("skipped: /dev/full cannot be opened here");
            return;
        };
        audit.post(Entry::new("test", 1));
        assert!(!audit.close(Duration::from_secs(5)).await);
        assert!(
            audit.0.is_closed(),
            "it answers at once, not by the timeout"
        );
    }

    #[tokio::test]
    async fn a_lost_record_shuts_the_log_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path(), Durability::Durable).unwrap();
        let mut written = audit.written();
        audit.0.lose();
        let open = written.wait_for(Written::is_good);
        tokio::time::timeout(Duration::from_secs(5), open)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(audit.lost(), 1);
    }
}
