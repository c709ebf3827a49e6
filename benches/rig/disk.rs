//! The bare disk: what an append costs that is on the disk when it returns, for the bytes that the
//! product's audit log really got.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::Sample;

/// Bytes looked at of the log's end, for each record wanted.
const RECORD_BYTES: u64 = 1024;

/// The segment that an audit log is written to now.
pub(crate) fn newest_segment(dir: &Path) -> Result<PathBuf> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "jsonl") {
            segments.push(path);
        }
    }
    segments.sort();
    segments
        .pop()
        .with_context(|| format!("no segment in {}", dir.display()))
}

/// The last records of a log, as bytes.
pub(crate) fn last_records(log: &Path, count: usize) -> Result<Vec<u8>> {
    let mut file = File::open(log).with_context(|| format!("no log {}", log.display()))?;
    let length = file.metadata()?.len();
    let tail = RECORD_BYTES * (count as u64 + 1);
    file.seek(SeekFrom::Start(length.saturating_sub(tail)))?;
    let mut kept = VecDeque::new();
    for line in BufReader::new(file).split(b'\n').skip(1) {
        kept.push_back(line?);
        if kept.len() > count {
            kept.pop_front();
        }
    }
    ensure!(kept.len() == count, "{} holds too little", log.display());
    Ok(kept
        .into_iter()
        .flat_map(|mut line| {
            line.push(b'\n');
            line
        })
        .collect())
}

/// Appends the bytes and syncs them, over and over for `time`, to a new file beside the log.
pub(crate) fn run(beside: &Path, bytes: &[u8], time: Duration) -> Result<Sample> {
    let path = beside.with_extension("bare");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut sample = Sample::default();
    let began = Instant::now();
    while began.elapsed() < time {
        let sent = Instant::now();
        file.write_all(bytes)?;
        file.sync_data()?;
        let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX);
        sample.latencies.push(took);
    }
    sample.seconds = began.elapsed().as_secs_f64();
    sample.latencies.sort_unstable();
    std::fs::remove_file(path)?;
    Ok(sample)
}
