//! The service: it watches the log and keeps the gate.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio_util::task::AbortOnDropHandle;

use crate::domain::limits::AUDIT_REFUSALS_WINDOW;

use super::super::ctx::Ctx;
use super::index;

/// The service.
pub(in crate::actors) struct AuditKeeper;

/// What it hears.
#[derive(Debug)]
pub(in crate::actors) enum AuditMsg {
    /// The log's state changed.
    Changed,
    /// Counted refusals are due.
    Sweep,
}

impl Actor for AuditKeeper {
    type Msg = AuditMsg;
    type State = (Arc<Ctx>, [AbortOnDropHandle<()>; 2]);
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<AuditMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<Self::State, ActorProcessingErr> {
        let mut written = ctx.audit.written();
        let watcher = tokio::spawn(async move {
            let mut before = (None, false);
            while written.changed().await.is_ok() {
                let now = {
                    let written = written.borrow_and_update();
                    (written.failing.clone(), written.overflowing)
                };
                if now != before {
                    before = now;
                    if myself.cast(AuditMsg::Changed).is_err() {
                        return;
                    }
                }
            }
        });
        let indexer = tokio::spawn(index::keep(Arc::clone(&ctx)));
        Ok((ctx, [watcher, indexer].map(AbortOnDropHandle::new)))
    }

    async fn post_start(
        &self,
        myself: ActorRef<AuditMsg>,
        (ctx, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        ctx.gates.audit.set(ctx.audit.written().borrow().is_good());
        myself.send_interval(AUDIT_REFUSALS_WINDOW / 4, || AuditMsg::Sweep);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<AuditMsg>,
        message: AuditMsg,
        (ctx, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            AuditMsg::Changed => changed(ctx),
            AuditMsg::Sweep => {
                for entry in ctx.refusals.sweep(ctx.wall_ms(), false) {
                    ctx.audit.post(entry);
                }
            }
        }
        Ok(())
    }
}

fn changed(ctx: &Ctx) {
    let written = ctx.audit.written().borrow().clone();
    match &written.failing {
        Some(why) => tracing::error!(
            dir = %ctx.audit.setup().dir.display(),
            "the audit log cannot be written, what must be recorded is refused: {why}"
        ),
        None if written.overflowing => tracing::error!(
            records.lost = ctx.audit.lost(),
            "the audit log's queue is full, what must be recorded is refused until it is written"
        ),
        None => tracing::info!("the audit log is written again"),
    }
    ctx.gates.audit.set(written.is_good());
}
