//! What is remembered of one run: its phases, its lines, its end.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::limits::{
    ENDED_NOISE_BYTES, ENDED_STDERR_BYTES, NOISE_LINE_BYTES_MAX, NOISE_LINES_KEPT,
    STDERR_LINE_BYTES_MAX, STDERR_RING_BYTES,
};
use crate::domain::verdict::Verdict;
use crate::protocol::handshake::ServerInfo;

use super::launcher::Usage;
use super::ring::Ring;
use super::sync::Mutex;

/// One run, while it lives and after.
#[derive(Debug)]
pub struct RunRecord {
    /// Which run of its slot.
    pub epoch: u64,
    /// When it began.
    pub started: Instant,
    /// What it wrote to stderr.
    pub stderr: Ring,
    /// What it wrote to stdout that was not JSON-RPC.
    pub noise: Ring,
    facts: Mutex<Facts>,
}

/// What becomes known as the run goes on.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The init's pid.
    pub pid: Option<i32>,
    /// What it said of itself.
    pub server: Option<ServerInfo>,
    /// Each phase of the start and how long it took.
    pub phases: Vec<(&'static str, Duration)>,
    /// From start to ready.
    pub ready_after: Option<Duration>,
    /// From start to end.
    pub lived: Option<Duration>,
    /// Why it ended.
    pub verdict: Option<Verdict>,
    /// Its last counters.
    pub usage: Usage,
    /// Facilities that were missing by permission.
    pub degraded: Vec<String>,
    /// Answers to nothing we asked.
    pub strays: u64,
    /// Requests of the server, answered by us.
    pub asked: u64,
}

impl RunRecord {
    /// The record of a run that begins now.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            started: Instant::now(),
            stderr: Ring::new(STDERR_RING_BYTES, usize::MAX, STDERR_LINE_BYTES_MAX),
            noise: Ring::new(usize::MAX, NOISE_LINES_KEPT, NOISE_LINE_BYTES_MAX),
            facts: Mutex::default(),
        }
    }

    /// What is known now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }

    /// Learns something.
    pub(super) fn learn(&self, with: impl FnOnce(&mut Facts)) {
        with(&mut self.facts.lock());
    }

    /// The run is over: of what it wrote only the last words are kept, as long as the slot's
    /// history remembers it.
    pub fn close(&self) {
        self.stderr.shrink(ENDED_STDERR_BYTES);
        self.noise.shrink(ENDED_NOISE_BYTES);
    }

    /// A phase of the start is done.
    pub(super) fn phase(&self, name: &'static str, took: Duration) {
        self.learn(|facts| facts.phases.push((name, took)));
    }
}
