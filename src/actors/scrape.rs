//! Reads the house for a scrape: what is a state and not an event is read when somebody asks.

pub(super) mod isolates;
pub(super) mod watched;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::domain::account::Millis;
use crate::telemetry::metrics::families as f;
use crate::telemetry::metrics::labels::{Controller, Labelled, SessionKind, SlotWord, known};
use crate::telemetry::metrics::mcp::{LABEL, McpMeter};
use crate::telemetry::metrics::page::Page;
use crate::telemetry::process;

use super::ctx::Ctx;
use super::ops;
use super::slot::{Slot, SlotState};

/// The commit this was built from, where the build says so.
const REVISION: &str = match option_env!("LEGATION_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// What the slots of one mcp add up to.
#[derive(Debug, Default)]
struct Sum {
    states: HashMap<usize, u32>,
    backoff: Duration,
    working_set: u64,
    limit: u64,
    processes: u64,
}

/// The page `/metrics`. Reads files and takes milliseconds.
pub(super) fn house(ctx: &Ctx) -> String {
    standing(ctx);
    slots(ctx);
    let watched = watched::read(ctx);
    let runtime = runtime(ctx);
    let process = process::read();
    if let Some(process) = &process {
        let set = |family, value| ctx.metrics.set(family, &[], value);
        set(&f::PROCESS_RESIDENT, float(process.resident_bytes));
        set(&f::PROCESS_VIRTUAL, float(process.virtual_bytes));
        set(&f::PROCESS_THREADS, float(process.threads));
        set(&f::PROCESS_FDS, float(process.open_fds));
        set(&f::PROCESS_FDS_MAX, float(process.max_fds));
    }
    ctx.metrics.render(|page: &mut Page| {
        page.family(&f::TOKIO_BUSY);
        page.sample(&[], runtime.as_secs_f64());
        page.family(&f::PROCESS_CPU);
        let cpu = process.map_or(Duration::ZERO, |process| process.cpu);
        page.sample(&[], cpu.as_secs_f64());
        watched.write(page);
    })
}

fn standing(ctx: &Ctx) {
    let set = |family, labels: &[(&'static str, &str)], value| {
        ctx.metrics.set(family, labels, value);
    };
    let version = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("revision", REVISION),
        ("rustc", env!("LEGATION_RUSTC")),
    ];
    set(&f::BUILD_INFO, &version, 1.0);
    let checks = ops::readiness(ctx);
    let ready = checks.iter().all(|check| check.trouble.is_none());
    set(&f::READY, &[], flag(ready));
    for check in &checks {
        if !matches!(check.name, "root" | "running") {
            let open = flag(check.trouble.is_none());
            set(&f::GATE, &[("gate", check.name)], open);
        }
    }
    set(&f::STARTED, &[], seconds(ctx.started_at));
    set(&f::CONFIG_OK, &[], 1.0);
    set(&f::CONFIG_AT, &[], seconds(ctx.started_at));
    let enforcement = ctx.launcher.enforcement();
    for name in f::FACILITIES {
        let missing = flag(enforcement.lacks.contains(&name));
        set(&f::FACILITY_MISSING, &[("facility", name)], missing);
    }
    let enforced = enforcement.enforced;
    for controller in Controller::ALL {
        let name = format!("cgroup_{}", controller.as_str());
        let there = flag(enforced.contains(&name));
        set(
            &f::LIMITS_ENFORCED,
            &[(Controller::NAME, controller.as_str())],
            there,
        );
    }
    set(
        &f::ISOLATES_LIMIT,
        &[],
        float(ctx.settings.per_user_max as u64),
    );
    set(&f::STARTS_WAITING, &[], float(ctx.starts.waiting() as u64));
    set(&f::UNOWNED, &[], float(ctx.unowned.load(Ordering::Relaxed)));
    let sessions = ctx.sessions.pin();
    let live = sessions.values().filter(|s| !s.is_revoked()).count();
    let kind = [(SessionKind::NAME, SessionKind::Standard.as_str())];
    set(&f::SESSIONS, &kind, float(live as u64));
}

fn slots(ctx: &Ctx) {
    let mut sums: HashMap<Arc<str>, (Arc<McpMeter>, Sum)> = HashMap::new();
    for meter in ctx.metrics.mcps.all() {
        sums.insert(meter.name().into(), (meter, Sum::default()));
    }
    let mut survivors = 0;
    for slot in ctx.slots.pin().values() {
        let meter = ctx.metrics.mcp(slot.mcp.name.as_str());
        let (_, sum) = sums
            .entry(meter.name().into())
            .or_insert_with(|| (meter, Sum::default()));
        survivors += sum.add(slot);
    }
    let set = |family, labels: &[(&'static str, &str)], value| {
        ctx.metrics.set(family, labels, value);
    };
    set(&f::SURVIVORS, &[], float(survivors));
    for (meter, sum) in sums.values() {
        let mcp = (LABEL, meter.name());
        for state in SlotWord::ALL {
            let count = sum.states.get(&state.index()).copied().unwrap_or(0);
            let labels = [mcp, (SlotWord::NAME, state.as_str())];
            set(&f::ISOLATES, &labels, f64::from(count));
        }
        set(&f::ISOLATE_BACKOFF, &[mcp], sum.backoff.as_secs_f64());
        set(&f::CGROUP_MEMORY, &[mcp], float(sum.working_set));
        set(&f::CGROUP_MEMORY_LIMIT, &[mcp], float(sum.limit));
        set(&f::CGROUP_PROCESSES, &[mcp], float(sum.processes));
    }
}

impl Sum {
    /// Adds a slot; gives the processes of it that do not die.
    fn add(&mut self, slot: &Slot) -> u64 {
        let state = slot.state();
        if let Some(word) = known::<SlotWord>(state.word()) {
            *self.states.entry(word.index()).or_default() += 1;
        }
        if let Some(run) = slot.occupant() {
            let usage = run.record.usage();
            self.working_set += usage.memory.map_or(0, |memory| memory.working_set_bytes());
            self.limit += slot.limits().memory_bytes;
            self.processes += usage.pids.unwrap_or(0);
        }
        match state {
            SlotState::Backoff { until, .. } | SlotState::Quarantined { until, .. } => {
                let left = until.saturating_duration_since(Instant::now());
                self.backoff = self.backoff.max(left);
                0
            }
            SlotState::Stuck { survivors } => survivors.len() as u64,
            _ => 0,
        }
    }
}

/// Gives for how long the workers were busy.
fn runtime(ctx: &Ctx) -> Duration {
    let runtime = Handle::current().metrics();
    let set = |family, value: usize| ctx.metrics.set(family, &[], float(value as u64));
    set(&f::TOKIO_WORKERS, runtime.num_workers());
    set(&f::TOKIO_TASKS, runtime.num_alive_tasks());
    set(&f::TOKIO_QUEUE, runtime.global_queue_depth());
    (0..runtime.num_workers())
        .map(|worker| runtime.worker_total_busy_duration(worker))
        .sum()
}

/// Wall time as Prometheus wants it.
pub(super) fn seconds(at: Millis) -> f64 {
    Duration::from_millis(u64::try_from(at).unwrap_or(0)).as_secs_f64()
}

pub(super) fn flag(is: bool) -> f64 {
    if is { 1.0 } else { 0.0 }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "bytes and counts below 2^53 are exact, and beyond it nobody reads the last digit"
)]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}
