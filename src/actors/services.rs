//! The small services: each watches one thing, keeps one gate, and is restarted by the root.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::storage::StoreError;

use super::catalog::CatalogMsg;
use super::ctx::Ctx;
use super::packages;

/// How often a file is asked whether it answers.
const STORE_PING: Duration = Duration::from_secs(5);
/// The same for a server, and for whatever did not answer the last time.
const STORE_PING_SOON: Duration = Duration::from_secs(1);
/// How often processes without a slot are looked for.
const REAPER_LOOK: Duration = Duration::from_secs(10);

/// The link to spawnd. Its death fails starts, never runs.
pub(super) struct Spawner;

/// spawnd is gone.
#[derive(Debug)]
pub(super) struct SpawnerLost;

impl Actor for Spawner {
    type Msg = SpawnerLost;
    type State = Arc<Ctx>;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<SpawnerLost>,
        ctx: Arc<Ctx>,
    ) -> Result<Arc<Ctx>, ActorProcessingErr> {
        Ok(ctx)
    }

    async fn post_start(
        &self,
        myself: ActorRef<SpawnerLost>,
        ctx: &mut Arc<Ctx>,
    ) -> Result<(), ActorProcessingErr> {
        ctx.launcher.heal().await?;
        let lost = ctx.launcher.lost();
        tokio::spawn(async move {
            lost.await;
            // If this service is gone as well, its successor looks for itself.
            let _ = myself.cast(SpawnerLost);
        });
        ctx.gates.spawn.set(true);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<SpawnerLost>,
        SpawnerLost: SpawnerLost,
        ctx: &mut Arc<Ctx>,
    ) -> Result<(), ActorProcessingErr> {
        ctx.gates.spawn.set(false);
        Err("spawnd is gone; starting another".into())
    }
}

/// Asks the store whether it answers, and keeps its gate.
pub(super) struct StoreKeeper;

/// Somebody else served the store while it was away, so that only a start knows all again.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the process ends, to be started anew")]
pub(super) struct Superseded(pub(super) String);

/// What the keeper knows.
pub(super) struct StoreState {
    ctx: Arc<Ctx>,
    /// The store's turns that were caught up with.
    turns: u64,
    /// The catalog has not been told yet that the store is back.
    untold: bool,
}

/// What it hears.
#[derive(Debug)]
pub(super) enum StoreMsg {
    /// Ask.
    Ask,
    /// It answered, or why it did not.
    Answer(Result<(), String>),
}

impl Actor for StoreKeeper {
    type Msg = StoreMsg;
    type State = StoreState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<StoreMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<StoreState, ActorProcessingErr> {
        Ok(StoreState {
            ctx,
            turns: 0,
            untold: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<StoreMsg>,
        StoreState { ctx, .. }: &mut StoreState,
    ) -> Result<(), ActorProcessingErr> {
        // Also a keeper that is restarted while the store is away comes up, and says so.
        let answer = ctx.store.ping().await;
        note(ctx, answer.err().map(|error| explain(&error)));
        myself.send_after(STORE_PING, || StoreMsg::Ask);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<StoreMsg>,
        message: StoreMsg,
        StoreState { ctx, turns, untold }: &mut StoreState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            StoreMsg::Ask => {
                let store = ctx.store.clone();
                tokio::spawn(async move {
                    let answer = store.ping().await.map_err(|error| explain(&error));
                    let _ = myself.cast(StoreMsg::Answer(answer));
                });
            }
            StoreMsg::Answer(answer) => {
                if let Some(why) = ctx.store.superseded() {
                    return Err(Superseded(why.to_owned()).into());
                }
                let away = answer.err();
                // While it is away, others than us may have changed what it holds.
                let now = ctx.store.turns();
                let back = away.is_none() && (!ctx.gates.store.is_open() || now != *turns);
                note(ctx, away);
                *untold |= back;
                if *untold
                    && ctx.gates.store.is_open()
                    && let Some(catalog) = ctx.catalog()
                    // One that is down is told at the next look.
                    && catalog.cast(CatalogMsg::Again).is_ok()
                {
                    (*turns, *untold) = (now, false);
                }
                let calm = ctx.gates.store.is_open() && !ctx.store.is_server();
                let pause = if calm { STORE_PING } else { STORE_PING_SOON };
                myself.send_after(pause, || StoreMsg::Ask);
            }
        }
        Ok(())
    }
}

/// Keeps the store's gate, and the reason why it is shut.
fn note(ctx: &Ctx, away: Option<String>) {
    let open = away.is_none();
    if open != ctx.gates.store.is_open() {
        match &away {
            None => tracing::info!("the store answers"),
            Some(why) => tracing::error!("the store does not answer: {why}"),
        }
    }
    ctx.store_away.store(away.map(Arc::new));
    ctx.gates.store.set(open);
}

/// The error with the driver's own words: for operators, who may know all.
fn explain(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

/// Sweeps what an earlier life left, and looks for processes that no slot owns.
pub(super) struct Reaper;

/// What it hears.
#[derive(Debug)]
pub(super) enum ReaperMsg {
    /// It is time to look.
    Look,
    /// So many processes have no slot.
    Seen(usize),
}

impl Actor for Reaper {
    type Msg = ReaperMsg;
    type State = (Arc<Ctx>, usize);
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<ReaperMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok((ctx, 0))
    }

    async fn post_start(
        &self,
        myself: ActorRef<ReaperMsg>,
        (ctx, _): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // A restarted reaper must not sweep what lives: only before anything was started.
        if ctx.slots.pin().is_empty() {
            let sweeper = Arc::clone(ctx);
            // What it panics over is logged; nothing waits for it.
            let _ = tokio::task::spawn_blocking(move || packages::sweep(&sweeper)).await;
            match ctx.launcher.sweep().await {
                Ok(0) => {}
                Ok(swept) => {
                    ctx.metrics.orphans_reaped.increment(swept as u64);
                    tracing::warn!(
                        cgroups.swept = swept,
                        "cleared away what an earlier life left"
                    );
                }
                // A process that cannot be killed must not keep every other user's from starting.
                Err(error) => tracing::error!(
                    "not all that an earlier life left could be cleared away; status counts it as \
                     unowned processes: {error}"
                ),
            }
        }
        // At once: what could not be cleared away is to be seen from the first second on.
        myself.cast(ReaperMsg::Look)?;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<ReaperMsg>,
        message: ReaperMsg,
        (ctx, before): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            // It reads cgroup files: off the runtime's workers.
            ReaperMsg::Look => {
                let ctx = Arc::clone(ctx);
                let look = tokio::task::spawn_blocking(move || ctx.launcher.unowned());
                tokio::spawn(async move {
                    let unowned = look.await.unwrap_or_default();
                    let _ = myself.cast(ReaperMsg::Seen(unowned));
                });
            }
            ReaperMsg::Seen(unowned) => {
                ctx.unowned.store(unowned as u64, Ordering::Relaxed);
                if unowned > 0 && *before > 0 {
                    tracing::error!(
                        processes.unowned = unowned,
                        "processes run that no slot owns"
                    );
                }
                *before = unowned;
                myself.send_after(REAPER_LOOK, || ReaperMsg::Look);
            }
        }
        Ok(())
    }
}
