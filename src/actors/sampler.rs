//! The statistics sweep: reads the counters of all running isolates, off the runtime's workers.
//!
//! One sweep at a time, every [`SAMPLE_EVERY`]; runs that were never read are read with the next
//! tick. The last reading is kept in the run's record, where lists, the tree and the metrics find
//! it. Nobody waits for a sweep, and one that hangs on the kernel delays only the next.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};

use crate::domain::limits::{SAMPLE_EVERY, SAMPLE_NOW_MAX};
use crate::domain::name::Name;

use super::ctx::Ctx;
use super::disk;
use super::launcher::{Scope, Usage};
use super::record::RunRecord;
use super::router::make_room;
use super::slot::Slot;

/// When the last sweep was, and whether it is over.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    last: Option<Instant>,
    turn: u32,
    under_way: Option<JoinHandle<()>>,
}

/// A run to read.
struct Reading {
    mcp: Name,
    record: Arc<RunRecord>,
    scope: Arc<dyn Scope>,
}

impl Sampler {
    /// Begins a sweep if one is due, or one over the newcomers alone. Never waits.
    pub(super) fn tick(&mut self, ctx: &Arc<Ctx>) {
        if self
            .under_way
            .as_ref()
            .is_some_and(|sweep| !sweep.is_finished())
        {
            return;
        }
        let now = Instant::now();
        let whole = self.last.is_none_or(|last| now - last >= SAMPLE_EVERY);
        if whole {
            self.last = Some(now);
            self.turn = self.turn.wrapping_add(1);
        }
        let readings: Vec<Reading> = ctx
            .slots
            .pin()
            .values()
            .filter_map(|slot| reading(slot))
            .filter(|reading| whole || !reading.record.is_sampled())
            .collect();
        let (ctx, turn) = (Arc::clone(ctx), self.turn);
        self.under_way = Some(spawn_blocking(move || {
            let began = Instant::now();
            for reading in &readings {
                reading.keep(&ctx, reading.scope.sample(turn));
            }
            if whole {
                ctx.metrics.sweep.record(began.elapsed());
            }
            ctx.room.look(memory_of_all(&ctx));
            if ctx.room.is_pressed() {
                make_room(&ctx, false);
            }
            disk::look(&ctx);
        }));
    }
}

/// Memory of all isolates, as it was read last.
fn memory_of_all(ctx: &Ctx) -> u64 {
    let slots = ctx.slots.pin();
    let runs = slots.values().filter_map(|slot| slot.occupant());
    let memory = runs.filter_map(|run| run.record.usage().memory);
    memory.fold(0, |sum, memory| sum.saturating_add(memory.bytes))
}

impl Reading {
    fn keep(&self, ctx: &Ctx, usage: Usage) {
        let spent = self.record.sampled(usage, Instant::now());
        ctx.metrics.mcp(self.mcp.as_str()).spend(&spent);
    }
}

fn reading(slot: &Slot) -> Option<Reading> {
    let run = slot.occupant()?;
    Some(Reading {
        mcp: slot.mcp.name.clone(),
        record: run.record,
        scope: run.scope?,
    })
}

/// Reads one isolate's counters now, the peak included, for somebody who looks at it.
pub(super) async fn read_now(ctx: &Arc<Ctx>, slot: &Slot) {
    let Some(reading) = reading(slot) else { return };
    let ctx = Arc::clone(ctx);
    let look = spawn_blocking(move || reading.keep(&ctx, reading.scope.usage()));
    // A kernel that does not answer: the last sweep's numbers are shown.
    let _ = timeout(SAMPLE_NOW_MAX, look).await;
}
