//! Kernel limits that change while isolates run: written into their cgroups, nobody starts again.
//!
//! Memory that is in use cannot be taken away without killing somebody: an isolate that needs more than it may
//! have now is replaced, as its calls end.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::ctx::Ctx;
use super::isolate::IsolateMsg;
use super::slot::Slot;
use super::sync::Mutex;
use crate::domain::mcp::Limits;
use crate::domain::verdict::Verdict;

/// One pass at a time, so that the newest definition is the last one that is written.
static PASS: Mutex<()> = Mutex::new(());

/// What a pass did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Changed {
    /// Isolates that run on with the new limits.
    pub(super) live: usize,
    /// Isolates that are replaced because they need more.
    pub(super) replaced: usize,
}

/// Brings every isolate to the limits of what is published now.
pub(super) async fn settle(ctx: &Arc<Ctx>) -> Changed {
    let ctx = Arc::clone(ctx);
    spawn_blocking(move || pass(&ctx)).await.unwrap_or_default()
}

fn pass(ctx: &Arc<Ctx>) -> Changed {
    let _pass = PASS.lock();
    let routes = ctx.routes.load_full();
    let slots: Vec<Arc<Slot>> = ctx.slots.pin().values().cloned().collect();
    let mut changed = Changed::default();
    for slot in slots.iter().filter(|slot| !slot.key.is_probe()) {
        let published = routes.published(&slot.key.mcp);
        let Some(published) = published.filter(|one| one.config == slot.key.config) else {
            continue;
        };
        let limits = published.mcp.limits;
        if slot.limits() != limits {
            // One that is about to be born is looked at again when it is.
            let Some(scope) = slot.occupant().and_then(|run| run.scope) else {
                slot.set_limits(limits);
                continue;
            };
            // What is shown is what is in force.
            match scope.relimit(&limits) {
                Ok(()) => {
                    slot.set_limits(limits);
                    told(ctx, slot, &limits);
                    changed.live += 1;
                }
                Err(why) => {
                    replace(slot, &why);
                    changed.replaced += 1;
                }
            }
        }
    }
    changed
}

fn told(ctx: &Ctx, slot: &Slot, limits: &Limits) {
    let entry = ctx.about("isolate.limits_changed", slot);
    ctx.audit.post(
        entry
            .number("memory_bytes", limits.memory_bytes)
            .number("pids", limits.pids)
            .number("cpu_millis", limits.cpu_millis),
    );
}

fn replace(slot: &Arc<Slot>, why: &str) {
    tracing::info!(
        isolate.id = %slot.id,
        mcp.name = %slot.mcp.name,
        "an isolate is replaced, since its limits cannot change as it runs: {why}"
    );
    if let Some(isolate) = slot.actor() {
        // One that is gone starts with the new limits.
        let _ = isolate.cast(IsolateMsg::Leave(Verdict::Replaced));
    }
}

/// A run was born with these limits; they may have changed while it was on its way.
pub(super) fn born(ctx: &Arc<Ctx>, slot: &Arc<Slot>, with: Limits) {
    let published = |slot: &Slot| {
        let routes = ctx.routes.load();
        routes.published(&slot.key.mcp).map(|one| one.mcp.limits)
    };
    let wanted = match slot.key.is_probe() {
        true => with,
        false => published(slot).unwrap_or_else(|| slot.limits()),
    };
    if wanted == with && slot.limits() == with {
        return;
    }
    // It has what it was born with, until a pass changes that.
    slot.set_limits(with);
    let ctx = Arc::clone(ctx);
    drop(tokio::spawn(async move { settle(&ctx).await }));
}
