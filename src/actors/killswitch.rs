//! Kill switches and suspensions: durable denies that take effect before any actor hears of them.
//!
//! The order is rule 7 of the house: the journal is on the disk, the table is published, callers
//! are told, processes are killed, actors hear of it, the store hears of it, the audit log has the
//! times. `board` holds the cells that calls read, `ledger` what is in force, `journal` its
//! file; the effects are in [`super::control`]. The service here reads the journal before anything
//! serves, ends what is expired, and writes to the store what the store does not have.

mod board;
mod journal;
mod ledger;
mod stats;

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::domain::kill::Deny;
use crate::domain::limits::{
    KILL_ACTIVE_MAX, KILL_HISTORY_MAX, KILL_SAVE_BATCH, KILL_SAVE_MAX, KILL_SAVE_RETRY,
    KILL_SWEEP_EVERY,
};

use super::audit::Entry;
use super::control::about::with_ids;
use super::ctx::Ctx;

pub use board::Switchboard;
pub use journal::JournalError;
pub(crate) use ledger::SwitchError;
pub use stats::{Action, KillStats, Propagation};

/// What the service hears.
#[derive(Debug)]
pub(crate) enum KillMsg {
    /// Look for what is expired, and for what was not saved.
    Tick,
    /// Something is to be saved.
    Save,
    /// The look for what is expired is over.
    Swept,
    /// The try to save is over.
    Saved {
        /// Whether the store has all there was.
        well: bool,
    },
}

/// The service.
pub(super) struct KillSwitch;

/// What it knows.
pub(super) struct KillState {
    ctx: Arc<Ctx>,
    sweeping: bool,
    saving: bool,
    /// Something came while a save was under way.
    again: bool,
    not_before: Instant,
}

impl Actor for KillSwitch {
    type Msg = KillMsg;
    type State = KillState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<KillMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<KillState, ActorProcessingErr> {
        ctx.kill.set_actor(&myself);
        Ok(KillState {
            ctx,
            sweeping: false,
            saving: false,
            again: false,
            not_before: Instant::now(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<KillMsg>,
        state: &mut KillState,
    ) -> Result<(), ActorProcessingErr> {
        open(&state.ctx).await?;
        state.ctx.gates.kill.set(true);
        myself.send_interval(KILL_SWEEP_EVERY, || KillMsg::Tick);
        myself.cast(KillMsg::Save)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<KillMsg>,
        message: KillMsg,
        state: &mut KillState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            KillMsg::Tick => {
                state.sweep(&myself);
                if Instant::now() >= state.not_before {
                    state.save(&myself);
                }
            }
            KillMsg::Save => {
                state.again = state.saving;
                state.save(&myself);
            }
            KillMsg::Swept => {
                state.sweeping = false;
                state.save(&myself);
            }
            KillMsg::Saved { well } => {
                state.saving = false;
                if !well {
                    state.not_before = Instant::now() + KILL_SAVE_RETRY;
                }
                if std::mem::take(&mut state.again) {
                    state.save(&myself);
                }
            }
        }
        Ok(())
    }
}

impl KillState {
    /// Ends what is expired, in a task.
    fn sweep(&mut self, myself: &ActorRef<KillMsg>) {
        if self.sweeping || !self.ctx.kill.has_expired(self.ctx.wall_ms()) {
            return;
        }
        self.sweeping = true;
        let (ctx, myself) = (Arc::clone(&self.ctx), myself.clone());
        tokio::spawn(async move {
            let sweeper = Arc::clone(&ctx);
            // A panic in there is logged by the runtime; the next tick tries again.
            let _ = spawn_blocking(move || expire(&sweeper)).await;
            let _ = myself.cast(KillMsg::Swept);
        });
    }

    /// Writes to the store what it does not have, in a task.
    fn save(&mut self, myself: &ActorRef<KillMsg>) {
        if self.saving || self.ctx.kill.unsaved() == 0 {
            return;
        }
        self.saving = true;
        let (ctx, myself) = (Arc::clone(&self.ctx), myself.clone());
        tokio::spawn(async move {
            let well = save(&ctx).await;
            let _ = myself.cast(KillMsg::Saved { well });
        });
    }
}

/// Reads the journal, settles it with the store and publishes what is in force. A service that is
/// only restarted finds it all in place.
async fn open(ctx: &Arc<Ctx>) -> Result<(), ActorProcessingErr> {
    let most = u32::try_from(KILL_ACTIVE_MAX).unwrap_or(u32::MAX) + KILL_HISTORY_MAX;
    let keeper = Arc::clone(ctx);
    let stands = spawn_blocking(move || keeper.kill.change(|ledger| Ok(ledger.is_open()))).await?;
    // Restarted while the store is away, it needs nothing of it.
    let (active, history) = if stands.unwrap_or(false) {
        (Vec::new(), Vec::new())
    } else {
        (
            ctx.store.active_denies().await?,
            ctx.store.deny_history(most).await?,
        )
    };
    let keeper = Arc::clone(ctx);
    let opened = spawn_blocking(move || {
        let found = keeper.kill.change(|ledger| {
            if ledger.is_open() {
                return Ok(None);
            }
            let dir = &keeper.settings.data_dir;
            Ok(Some(ledger.open(dir, active, history)?))
        });
        if found.is_ok() {
            expire(&keeper);
        }
        found
    });
    let found = match opened.await? {
        Ok(found) => found.unwrap_or_default(),
        Err(SwitchError::Journal(error)) => return Err(Box::new(error)),
        Err(other) => return Err(other.to_string().into()),
    };
    if found.torn > 0 {
        tracing::warn!(
            bytes = found.torn,
            "the last line of kill.journal was torn and cut off: it was never acknowledged"
        );
    }
    if found.unsaved > 0 {
        tracing::warn!(
            changes = found.unsaved,
            "kill.journal knows what the store does not; the journal counts"
        );
        ctx.audit.post(
            Entry::new("kill.reconciled", ctx.wall_ms()).number("changes", found.unsaved as u64),
        );
    }
    Ok(())
}

/// Ends what is expired. Blocks.
fn expire(ctx: &Ctx) {
    let now = ctx.wall_ms();
    if !ctx.kill.has_expired(now) {
        return;
    }
    match ctx.kill.change(|ledger| ledger.expire(now)) {
        Ok(over) => {
            for deny in over {
                tracing::info!(deny.id = %deny.id, "{} has expired", deny.title());
                ctx.kill
                    .stats
                    .count_change(deny.target.scope(), Action::Expired);
                ctx.audit.post(entry("kill.expired", ctx, &deny));
            }
        }
        // It denies nothing any more, by the clock; only its history is late.
        Err(error) => tracing::error!("an expired kill switch could not be ended: {error}"),
    }
}

/// An audit record of a deny.
pub(super) fn entry(event: &'static str, ctx: &Ctx, deny: &Deny) -> Entry {
    let entry = Entry::new(event, ctx.wall_ms())
        .field("deny", deny.id.as_str())
        .field("kind", deny.kind.word())
        .field("scope", deny.target.scope().word())
        .field("target", &deny.target.text())
        .field("label", &deny.label)
        .field("reason", &deny.reason)
        .field("author", &deny.author);
    let about = std::slice::from_ref(&deny.target);
    with_ids(entry, about, &ctx.routes.load().directory)
}

/// Saves until the store has all; `false` if it could not.
async fn save(ctx: &Arc<Ctx>) -> bool {
    loop {
        let reader = Arc::clone(ctx);
        let batch = spawn_blocking(move || {
            let unsaved = reader
                .kill
                .change(|ledger| Ok(ledger.unsaved(KILL_SAVE_BATCH)));
            unsaved.unwrap_or_default()
        });
        let batch = batch.await.unwrap_or_default();
        let Some(tried) = batch.last().map(|(seq, _)| *seq) else {
            return true;
        };
        let denies: Vec<Deny> = batch.iter().map(|(_, deny)| (**deny).clone()).collect();
        let saved = timeout(KILL_SAVE_MAX, ctx.store.save_denies(&denies, ctx.wall_ms())).await;
        let saved = match saved {
            Ok(saved) => saved.map_err(|error| error.to_string()),
            Err(_) => Err(format!(
                "the store did not answer within {} s",
                KILL_SAVE_MAX.as_secs()
            )),
        };
        if let Err(why) = &saved {
            tracing::warn!(
                "kill switches are in the journal and not in the store yet: {why}; tried again in \
                 {} s",
                KILL_SAVE_RETRY.as_secs()
            );
            ctx.kill.heard(tried, saved);
            return false;
        }
        let seqs: Vec<u64> = batch.iter().map(|(seq, _)| *seq).collect();
        let keeper = Arc::clone(ctx);
        let kept = spawn_blocking(move || {
            keeper.kill.change(|ledger| {
                ledger.saved(&seqs);
                Ok(ledger.compact()?)
            })
        });
        match kept.await {
            Ok(Ok(true)) => tracing::info!("kill.journal was written anew"),
            Ok(Err(error)) => tracing::error!("kill.journal stays as large as it is: {error}"),
            _ => {}
        }
        ctx.kill.heard(tried, Ok(()));
        if denies.iter().any(|deny| deny.lifted.is_some())
            && let Err(error) = ctx.store.forget_denies(KILL_HISTORY_MAX).await
        {
            tracing::warn!("old kill switches stay in the store: {error}");
        }
    }
}
