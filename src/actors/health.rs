//! The ping scheduler, the idle sweep and the statistics sweep: one tick over all slots.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;

use crate::domain::limits::{PING_DEADLINE, PING_EVERY, PINGS_MISSED_MAX};
use crate::domain::verdict::Verdict;

use super::ctx::Ctx;
use super::front::end_withdrawn;
use super::handle::{CallError, Handle};
use super::isolate::IsolateMsg;
use super::sampler::Sampler;
use super::slot::{Order, Slot};

/// Between looks.
const TICK: Duration = Duration::from_secs(1);

/// The service.
pub(super) struct Health;

/// It is time to look.
#[derive(Debug)]
pub(super) struct HealthTick;

impl Actor for Health {
    type Msg = HealthTick;
    type State = (Arc<Ctx>, Sampler);
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<HealthTick>,
        ctx: Arc<Ctx>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok((ctx, Sampler::default()))
    }

    async fn post_start(
        &self,
        myself: ActorRef<HealthTick>,
        _state: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        myself.send_after(TICK, || HealthTick);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<HealthTick>,
        HealthTick: HealthTick,
        (ctx, sampler): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        sampler.tick(ctx);
        ctx.tasks.sweep(Instant::now());
        end_withdrawn(ctx);
        for slot in ctx.slots.pin().values() {
            let Some(handle) = slot.ready() else { continue };
            if is_idle(slot, &handle) && !ctx.ears.hear(&slot.watched) {
                if let Some(isolate) = slot.actor() {
                    let _ = isolate.cast(IsolateMsg::Leave(Verdict::Idle));
                }
            } else if handle.unheard_ms() >= millis(PING_EVERY) && handle.begin_ping(PING_EVERY) {
                tokio::spawn(ping(Arc::clone(slot), handle));
            }
        }
        // After the work, not on an interval: a stalled runtime must not owe a burst of ticks.
        myself.send_after(TICK, || HealthTick);
        Ok(())
    }
}

fn is_idle(slot: &Slot, handle: &Handle) -> bool {
    !slot.key.is_probe()
        && handle.in_flight() == 0
        && slot
            .mcp
            .idle_after()
            .is_some_and(|after| handle.unused_ms() >= millis(after))
}

async fn ping(slot: Arc<Slot>, handle: Arc<Handle>) {
    let answer = handle.ping(Instant::now() + PING_DEADLINE).await;
    // Any answer is a sign of life, also "method not found".
    let missed = match answer {
        Err(CallError::TimedOut) if is_at_work(&slot, &handle) => return handle.skip_ping(),
        answer => handle.end_ping(matches!(answer, Err(CallError::TimedOut))),
    };
    if missed >= PINGS_MISSED_MAX
        && let Some(run) = slot.occupant().filter(|run| run.epoch == handle.epoch())
    {
        run.order(Order::Fault(Verdict::Ping { missed }));
    }
}

/// Whether a server may be silent because it does one thing at a time, as many do: it has as long as a call may take
/// since it was last heard.
fn is_at_work(slot: &Slot, handle: &Handle) -> bool {
    handle.in_flight() > 0 && handle.unheard_ms() < millis(slot.mcp.call_deadline())
}

/// The ping state of one run.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    under_way: AtomicU32,
    missed: AtomicU32,
    /// When the last one began; 0: there was none.
    began_ms: AtomicU64,
}

impl Pulse {
    /// Begins one, if none is under way and the last is that long ago.
    pub(super) fn begin(&self, now_ms: u64, every: Duration) -> bool {
        let began = self.began_ms.load(Ordering::Acquire);
        if began != 0 && now_ms < began.saturating_add(millis(every)) {
            return false;
        }
        let is_first = self.under_way.swap(1, Ordering::AcqRel) == 0;
        if is_first {
            self.began_ms.store(now_ms.max(1), Ordering::Release);
        }
        is_first
    }

    /// Ends one that says nothing either way.
    pub(super) fn skip(&self) {
        self.under_way.store(0, Ordering::Release);
    }

    pub(super) fn end(&self, missed: bool) -> u32 {
        let count = if missed {
            self.missed.fetch_add(1, Ordering::AcqRel) + 1
        } else {
            self.missed.store(0, Ordering::Release);
            0
        };
        self.under_way.store(0, Ordering::Release);
        count
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
