//! What is remembered of one run: its phases, its lines, its end.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::limits::{
    ENDED_NOISE_BYTES, ENDED_STDERR_BYTES, NOISE_LINE_BYTES_MAX, NOISE_LINES_KEPT,
    STDERR_LINE_BYTES_MAX, STDERR_LINES_KEPT, STDERR_RING_BYTES,
};
use crate::domain::redact::{Extent, Redactor};
use crate::domain::usage::Spent;
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
    /// Takes the credentials of this run out of what its server writes.
    redactor: OnceLock<Arc<Redactor>>,
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
    /// Its counters when they were last read.
    pub usage: Usage,
    /// When that was, while it lives.
    pub sampled: Option<Instant>,
    /// Thousandths of a core it used between the last two readings.
    pub cpu_millis: Option<u32>,
    /// The tree is gone and the counters are the last ones.
    pub counted: bool,
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
            stderr: Ring::new(STDERR_RING_BYTES, STDERR_LINES_KEPT, STDERR_LINE_BYTES_MAX),
            noise: Ring::new(usize::MAX, NOISE_LINES_KEPT, NOISE_LINE_BYTES_MAX),
            redactor: OnceLock::new(),
            facts: Mutex::default(),
        }
    }

    /// Its credentials are known: from here on they are taken out of what is kept.
    pub(super) fn redact_with(&self, redactor: Option<Arc<Redactor>>) {
        if let Some(redactor) = redactor {
            // A run is given its credentials once.
            let _ = self.redactor.set(redactor);
        }
    }

    /// A line of stderr.
    pub(super) fn keep_stderr(&self, line: &[u8]) {
        self.stderr.push(&self.clean(line, STDERR_LINE_BYTES_MAX));
    }

    /// A line of stdout that was no JSON-RPC; gives it without known credentials.
    pub(super) fn keep_noise<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let clean = self.clean(line, usize::MAX);
        self.noise.push(&clean);
        clean
    }

    fn clean<'a>(&self, line: &'a [u8], cut_at: usize) -> Cow<'a, [u8]> {
        let extent = if line.len() < cut_at {
            Extent::Whole
        } else {
            Extent::Cut
        };
        match self.redactor.get() {
            Some(redactor) => redactor.redact(line, extent),
            None => Cow::Borrowed(line),
        }
    }

    /// A text for the log without the credentials that its server may have put into it.
    pub(super) fn clean_text(&self, text: &str) -> String {
        match self.redactor.get() {
            Some(redactor) => redactor.redact_text(text),
            None => text.to_owned(),
        }
    }

    /// A verdict without the credentials that its server may have put into it.
    pub(super) fn clean_verdict(&self, mut verdict: Verdict) -> Verdict {
        if let (
            Some(redactor),
            Verdict::Handshake { detail }
            | Verdict::Protocol { detail }
            | Verdict::Remote { detail, .. }
            | Verdict::NotStarted { detail, .. },
        ) = (self.redactor.get(), &mut verdict)
        {
            *detail = redactor.redact_text(detail);
        }
        verdict
    }

    /// What is known now.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.facts.lock().clone()
    }

    /// Its counters when they were last read.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.facts.lock().usage
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

    /// The sweep read its counters: gives what was spent since the reading before. Nothing, if
    /// the last reading came first.
    pub(super) fn sampled(&self, usage: Usage, now: Instant) -> Spent {
        let mut facts = self.facts.lock();
        if facts.counted {
            return Spent::default();
        }
        let spent = usage.spent_since(&facts.usage);
        let since = facts.sampled.unwrap_or(self.started);
        let took = u64::try_from((now - since).as_micros()).unwrap_or(u64::MAX);
        facts.cpu_millis = (spent.cpu_micros * 1000)
            .checked_div(took)
            .map(|millis| u32::try_from(millis).unwrap_or(u32::MAX));
        facts.sampled = Some(now);
        facts.usage = usage.or_earlier(&facts.usage);
        spent
    }

    /// Whether the sweep has read its counters.
    pub(super) fn is_sampled(&self) -> bool {
        self.facts.lock().sampled.is_some()
    }

    /// The tree is gone: its last counters. Gives what was spent since the sweep's last reading.
    pub(super) fn counted(&self, usage: Usage) -> Spent {
        let mut facts = self.facts.lock();
        if std::mem::replace(&mut facts.counted, true) {
            return Spent::default();
        }
        let spent = usage.spent_since(&facts.usage);
        (facts.usage, facts.cpu_millis) = (usage.or_earlier(&facts.usage), None);
        spent
    }

    /// A phase of the start is done.
    pub(super) fn phase(&self, name: &'static str, took: Duration) {
        self.learn(|facts| facts.phases.push((name, took)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(micros: u64) -> Usage {
        Usage {
            cpu_micros: Some(micros),
            ..Usage::default()
        }
    }

    /// An empty line has no bytes that count, and cost memory all the same.
    #[test]
    fn a_flood_of_empty_lines_is_bounded() {
        let record = RunRecord::new(1);
        for _ in 0..2 * STDERR_LINES_KEPT {
            record.keep_stderr(b"");
        }
        assert_eq!(record.stderr.lines().len(), STDERR_LINES_KEPT);
    }

    #[test]
    fn what_a_run_spends_is_counted_once() {
        let record = RunRecord::new(1);
        let second = |n| record.started + Duration::from_secs(n);
        assert_eq!(record.sampled(cpu(100), second(1)).cpu_micros, 100);
        let spent = record.sampled(cpu(500_100), second(2)).cpu_micros;
        assert_eq!(spent, 500_000);
        assert_eq!(record.facts().cpu_millis, Some(500));
        // Its group is being removed.
        assert_eq!(record.sampled(Usage::default(), second(3)).cpu_micros, 0);
        assert_eq!(record.counted(cpu(500_300)).cpu_micros, 200);
        // A sweep that read before the end and writes after it.
        assert_eq!(record.sampled(cpu(500_200), second(4)).cpu_micros, 0);
        assert_eq!(record.counted(cpu(500_300)).cpu_micros, 0);
        assert_eq!(record.facts().usage, cpu(500_300));
    }
}
