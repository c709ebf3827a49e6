//! The meter of one mcp: its calls, its runs, and what all its isolates together used.
//!
//! A name gets a meter when it is first published (or probed) and keeps it as long as the gateway
//! lives, archived or not: series of a counter that vanish and come back read as resets. The first
//! [`METRIC_MCPS_MAX`] names have their own; all others share the one called `other`.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram};

use super::actor::float;
use super::families as f;
use super::family::Family;
use super::histogram::Timings;
use super::labels::{
    ArgumentCheck, Direction, GaveUp, Labelled, MemoryEvent, Outcome, Resource, Stage, StartCause,
};
use super::page::Page;
use super::recorder::{CounterBy, Recorder};
use crate::domain::code::Code;
use crate::domain::limits::METRIC_MCPS_MAX;
use crate::domain::usage::{Spent, Stall};
use crate::domain::verdict::{RemoteFault, Verdict, Weight};

/// The label's name.
pub const LABEL: &str = "mcp";
/// The value that all names beyond the bound share.
pub const OTHER: &str = "other";
/// The value of calls that no mcp was found for.
pub const NONE: &str = "none";

/// The meters by name.
#[derive(Debug)]
pub struct Mcps {
    none: Arc<McpMeter>,
    other: Arc<McpMeter>,
    known: Mutex<HashMap<Arc<str>, Arc<McpMeter>>>,
    /// Names that had to share.
    dropped: Counter,
}

/// One mcp.
#[derive(Debug)]
pub struct McpMeter {
    name: Arc<str>,
    in_flight: AtomicI64,
    calls: CounterBy<Outcome>,
    bytes: CounterBy<Direction>,
    arguments: CounterBy<ArgumentCheck>,
    duration: Timings,
    queue: Timings,
    server: Timings,
    starts: CounterBy<StartCause>,
    exits: HashMap<&'static str, Counter>,
    restarts: Counter,
    given_up: CounterBy<GaveUp>,
    noise: Counter,
    ready: Histogram,
    spent: SpentTotals,
}

/// What its isolates used, the dead ones included.
#[derive(Debug)]
struct SpentTotals {
    cpu_micros: AtomicU64,
    throttled_micros: AtomicU64,
    stalls: [[AtomicU64; 2]; 3],
    periods: Counter,
    throttled_periods: Counter,
    memory_events: CounterBy<MemoryEvent>,
    pids_refused: Counter,
}

/// Where a meter has a family's numbers.
type TimingsOf = fn(&McpMeter) -> &Timings;
type NumberOf = fn(&McpMeter) -> f64;

/// Histograms of the call path.
pub(super) const HISTOGRAMS: [(&Family, TimingsOf); 3] = [
    (&f::CALL_DURATION, |mcp| &mcp.duration),
    (&f::CALL_QUEUE, |mcp| &mcp.queue),
    (&f::CALL_SERVER, |mcp| &mcp.server),
];

/// Counters of seconds.
pub(super) const SECONDS: [(&Family, NumberOf); 2] = [
    (&f::CGROUP_CPU, |mcp| seconds(&mcp.spent.cpu_micros)),
    (&f::CGROUP_CPU_THROTTLED, |mcp| {
        seconds(&mcp.spent.throttled_micros)
    }),
];

fn seconds(micros: &AtomicU64) -> f64 {
    Duration::from_micros(micros.load(Ordering::Relaxed)).as_secs_f64()
}

// === impl Mcps ===

impl Mcps {
    pub(super) fn new(recorder: &Recorder) -> Self {
        Self {
            none: Arc::new(McpMeter::new(recorder, NONE)),
            other: Arc::new(McpMeter::new(recorder, OTHER)),
            known: Mutex::default(),
            dropped: recorder.counter(&f::SERIES_DROPPED, &[("family", "mcp")]),
        }
    }

    pub(super) fn get(&self, recorder: &Recorder, name: &str) -> Arc<McpMeter> {
        let mut known = self.known();
        if let Some(meter) = known.get(name) {
            return Arc::clone(meter);
        }
        if name == OTHER || name == NONE {
            // A name that is a set's own word: it shares.
            return Arc::clone(&self.other);
        }
        if known.len() >= METRIC_MCPS_MAX {
            self.dropped.increment(1);
            return Arc::clone(&self.other);
        }
        let meter = Arc::new(McpMeter::new(recorder, name));
        known.insert(Arc::clone(&meter.name), Arc::clone(&meter));
        meter
    }

    pub(super) fn none(&self) -> &Arc<McpMeter> {
        &self.none
    }

    /// All meters, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<McpMeter>> {
        let mut all: Vec<Arc<McpMeter>> = self.known().values().cloned().collect();
        all.extend([Arc::clone(&self.none), Arc::clone(&self.other)]);
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<McpMeter>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl GaveUp ===

impl GaveUp {
    /// What led to a quarantine after this verdict.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::CredentialMissing { .. }
            | Verdict::Remote {
                fault: RemoteFault::Unauthorized,
                ..
            } => Self::Credential,
            verdict if matches!(verdict.weight(), Weight::Hopeless) => Self::Hopeless,
            _ => Self::Failures,
        }
    }
}

// === impl McpMeter ===

impl McpMeter {
    fn new(recorder: &Recorder, name: &str) -> Self {
        let labels = [(LABEL, name)];
        let timings = |family: &Family| Timings::of(family);
        let exits = Verdict::KINDS
            .iter()
            .map(|kind| {
                let labels = [(LABEL, name), ("reason", *kind)];
                (*kind, recorder.counter(&f::ISOLATE_EXITS, &labels))
            })
            .collect();
        Self {
            name: name.into(),
            in_flight: AtomicI64::new(0),
            calls: recorder.counters(&f::CALLS, &labels),
            bytes: recorder.counters(&f::CALL_BYTES, &labels),
            arguments: recorder.counters(&f::CALL_ARGUMENTS, &labels),
            duration: timings(&f::CALL_DURATION),
            queue: timings(&f::CALL_QUEUE),
            server: timings(&f::CALL_SERVER),
            starts: recorder.counters(&f::ISOLATE_STARTS, &labels),
            exits,
            restarts: recorder.counter(&f::ISOLATE_RESTARTS, &labels),
            given_up: recorder.counters(&f::ISOLATE_QUARANTINES, &labels),
            noise: recorder.counter(&f::STDOUT_NOISE, &labels),
            ready: recorder.histogram(&f::ISOLATE_READY, &labels),
            spent: SpentTotals {
                cpu_micros: AtomicU64::new(0),
                throttled_micros: AtomicU64::new(0),
                stalls: Default::default(),
                periods: recorder.counter(&f::CGROUP_PERIODS, &labels),
                throttled_periods: recorder.counter(&f::CGROUP_THROTTLED_PERIODS, &labels),
                memory_events: recorder.counters(&f::CGROUP_MEMORY_EVENTS, &labels),
                pids_refused: recorder.counter(&f::CGROUP_PIDS_REFUSED, &labels),
            },
        }
    }

    /// The label's value.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn in_flight(&self) -> f64 {
        float(self.in_flight.load(Ordering::Relaxed))
    }

    /// A run was started.
    pub fn started(&self, cause: StartCause) {
        self.starts.increment(cause, 1);
    }

    /// A run failed and is started again by itself.
    pub fn restarted(&self) {
        self.restarts.increment(1);
    }

    /// A slot went into quarantine.
    pub fn quarantined(&self, verdict: &Verdict) {
        self.given_up.increment(GaveUp::of(verdict), 1);
    }

    /// A run became usable, this long after its start.
    pub fn ready(&self, after: Duration) {
        self.ready.record(after);
    }

    /// A run is over; `noise` lines of its stdout were no JSON-RPC.
    pub fn ended(&self, verdict: &Verdict, noise: u64) {
        if let Some(counter) = self.exits.get(verdict.kind()) {
            counter.increment(1);
        }
        self.noise.increment(noise);
    }

    /// A call's arguments were held against the schema of its tool.
    pub fn arguments(&self, check: ArgumentCheck) {
        self.arguments.increment(check, 1);
    }

    /// A call waited so long for its run, which then took so long.
    pub fn carried(&self, waited: Duration, took: Duration) {
        self.queue.observe(waited);
        self.server.observe(took);
    }

    /// Its isolates used this much more.
    pub fn spend(&self, spent: &Spent) {
        let totals = &self.spent;
        let add = |to: &AtomicU64, more: u64| {
            if more > 0 {
                to.fetch_add(more, Ordering::Relaxed);
            }
        };
        add(&totals.cpu_micros, spent.cpu_micros);
        add(&totals.throttled_micros, spent.throttling.throttled_micros);
        let pressure = &spent.pressure;
        let stalls = [pressure.cpu, pressure.memory, pressure.io];
        for ([some, full], stall) in totals.stalls.iter().zip(stalls) {
            let Stall {
                some_micros,
                full_micros,
            } = stall;
            add(some, some_micros);
            add(full, full_micros);
        }
        totals.periods.increment(spent.throttling.periods);
        totals
            .throttled_periods
            .increment(spent.throttling.throttled_periods);
        totals.pids_refused.increment(spent.pids_refused);
        let events = &spent.memory_events;
        for (event, count) in [
            (MemoryEvent::High, events.high),
            (MemoryEvent::Max, events.max),
            (MemoryEvent::Oom, events.oom),
            (MemoryEvent::OomKill, events.oom_kill),
        ] {
            totals.memory_events.increment(event, count);
        }
    }
}

/// Writes the two pressure families.
pub(super) fn write_pressure(page: &mut Page, mcps: &[Arc<McpMeter>]) {
    for (at, family) in [&f::CGROUP_WAITING, &f::CGROUP_STALLED]
        .into_iter()
        .enumerate()
    {
        page.family(family);
        for mcp in mcps {
            for (resource, stalls) in Resource::ALL.iter().zip(&mcp.spent.stalls) {
                let labels = [(LABEL, mcp.name()), (Resource::NAME, resource.as_str())];
                page.sample(&labels, stalls.get(at).map_or(0.0, seconds));
            }
        }
    }
}

/// A call under way: counted once, however it ends.
#[derive(Debug)]
pub struct CallMeter {
    mcp: Arc<McpMeter>,
    began: Instant,
    stage: Stage,
    outcome: Cell<Outcome>,
}

impl CallMeter {
    /// A call was admitted. If nothing else is told, its caller left.
    #[must_use]
    pub fn begin(mcp: Arc<McpMeter>, bytes: usize) -> Self {
        mcp.bytes.increment(Direction::In, bytes as u64);
        Self::at(Stage::UnderWay, mcp)
    }

    /// A call is not admitted.
    #[must_use]
    pub fn refused(mcp: Arc<McpMeter>) -> Self {
        Self::at(Stage::Admission, mcp)
    }

    fn at(stage: Stage, mcp: Arc<McpMeter>) -> Self {
        mcp.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            mcp,
            began: Instant::now(),
            stage,
            outcome: Cell::new(Outcome::Cancelled),
        }
    }

    /// The server's answer has so many bytes.
    pub fn answered(&self, bytes: usize) {
        self.mcp.bytes.increment(Direction::Out, bytes as u64);
        self.outcome.set(Outcome::Ok);
    }

    /// It has no answer, and why.
    pub fn failed(&self, code: Code) {
        self.outcome.set(Outcome::of(code, self.stage));
    }

    /// How it ended.
    pub fn ended(&self, outcome: Outcome) {
        self.outcome.set(outcome);
    }
}

impl Drop for CallMeter {
    fn drop(&mut self) {
        self.mcp.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.mcp.calls.increment(self.outcome.get(), 1);
        self.mcp.duration.observe(self.began.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_share_one_meter() {
        let recorder = Recorder::new();
        let mcps = Mcps::new(&recorder);
        for n in 0..METRIC_MCPS_MAX + 5 {
            let _ = mcps.get(&recorder, &format!("m{n}"));
        }
        assert_eq!(mcps.get(&recorder, "m0").name(), "m0");
        assert_eq!(mcps.get(&recorder, "m104").name(), OTHER);
        assert_eq!(mcps.get(&recorder, NONE).name(), OTHER);
        assert_eq!(mcps.all().len(), METRIC_MCPS_MAX + 2);
    }

    #[test]
    fn a_call_is_counted_once_however_it_ends() {
        let recorder = Recorder::new();
        let mcps = Mcps::new(&recorder);
        let meter = mcps.get(&recorder, "files");
        let left = CallMeter::begin(Arc::clone(&meter), 10);
        assert!((meter.in_flight() - 1.0).abs() < f64::EPSILON);
        drop(left);
        let answered = CallMeter::begin(Arc::clone(&meter), 5);
        meter.carried(Duration::ZERO, Duration::from_millis(1));
        answered.answered(7);
        answered.ended(Outcome::ToolError);
        drop(answered);
        assert!(meter.in_flight().abs() < f64::EPSILON);
        let text = recorder.render();
        for line in [
            "legation_calls_total{mcp=\"files\",outcome=\"cancelled\"} 1",
            "legation_calls_total{mcp=\"files\",outcome=\"tool_error\"} 1",
            "legation_calls_total{mcp=\"files\",outcome=\"ok\"} 0",
            "legation_call_bytes_total{mcp=\"files\",direction=\"in\"} 15",
            "legation_call_bytes_total{mcp=\"files\",direction=\"out\"} 7",
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert_eq!(meter.duration.read().count, 2);
        assert_eq!(meter.server.read().count, 1);
    }
}
