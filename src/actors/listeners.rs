//! The last service: the doors. What is behind them is `api`'s; the tree only opens and closes.

use std::fmt;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::domain::code::Code;
use crate::domain::limits::{DRAIN_MAX, LAST_ANSWERS};
use crate::domain::verdict::Verdict;

use super::control::Control;
use super::ctx::Ctx;
use super::front::Front;
use super::handle::RunEnd;
use super::launcher::BoxFuture;

/// Whoever opens the listeners.
pub trait Doors: Send + Sync {
    /// Binds and serves until `stop`; returns once it accepts. Called again after a failure, with
    /// the same addresses.
    fn open(
        &self,
        front: Front,
        control: Control,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<OpenDoors, DoorError>>;
}

/// Why a listener does not accept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DoorError {
    /// The stable code.
    pub code: Code,
    /// What failed, with what, and what to do.
    pub message: String,
}

/// Open listeners.
pub struct OpenDoors {
    /// Where clients connect, for people.
    pub client_url: String,
    /// Resolves when a listener failed, with the reason; or when all have drained after `stop`.
    pub closed: BoxFuture<'static, Result<(), DoorError>>,
}

impl fmt::Debug for OpenDoors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenDoors")
            .field("client_url", &self.client_url)
            .finish_non_exhaustive()
    }
}

/// The service.
pub(super) struct Listeners;

/// A listener failed.
#[derive(Debug)]
pub(super) struct ListenerFailed(DoorError);

/// What it knows.
pub(super) struct ListenersState {
    ctx: Arc<Ctx>,
    doors: Arc<dyn Doors>,
    stop: CancellationToken,
    closed: Option<tokio::task::JoinHandle<()>>,
}

impl Actor for Listeners {
    type Msg = ListenerFailed;
    type State = ListenersState;
    type Arguments = (Arc<Ctx>, Arc<dyn Doors>);

    async fn pre_start(
        &self,
        _myself: ActorRef<ListenerFailed>,
        (ctx, doors): Self::Arguments,
    ) -> Result<ListenersState, ActorProcessingErr> {
        Ok(ListenersState {
            ctx,
            doors,
            stop: CancellationToken::new(),
            closed: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ListenerFailed>,
        state: &mut ListenersState,
    ) -> Result<(), ActorProcessingErr> {
        let front = Front::new(Arc::clone(&state.ctx));
        let control = Control::new(Arc::clone(&state.ctx));
        let open = state.doors.open(front, control, state.stop.clone()).await?;
        state.ctx.set_client_url(&open.client_url);
        state.ctx.gates.listeners.set(true);
        let closed = open.closed;
        state.closed = Some(tokio::spawn(async move {
            if let Err(why) = closed.await {
                let _ = myself.cast(ListenerFailed(why));
            }
        }));
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<ListenerFailed>,
        ListenerFailed(why): ListenerFailed,
        _state: &mut ListenersState,
    ) -> Result<(), ActorProcessingErr> {
        Err(why.into())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<ListenerFailed>,
        state: &mut ListenersState,
    ) -> Result<(), ActorProcessingErr> {
        state.stop.cancel();
        let Some(mut closed) = state.closed.take() else {
            return Ok(());
        };
        if timeout(DRAIN_MAX, &mut closed).await.is_err() {
            // Calls that do not end get an answer while there still is a connection for it.
            state.end_calls();
            let _ = timeout(LAST_ANSWERS, closed).await;
        }
        Ok(())
    }
}

impl ListenersState {
    /// Tells all callers that the server stops; the runs are stopped in their turn.
    fn end_calls(&self) {
        let end = Arc::new(RunEnd {
            verdict: Verdict::Shutdown,
            last_stderr: None,
        });
        for slot in self.ctx.slots.pin().values() {
            if let Some(run) = slot.occupant() {
                run.handle.end(&end);
            }
        }
    }
}

impl Drop for ListenersState {
    fn drop(&mut self) {
        // Also after a panic: a second start must find the ports free.
        self.stop.cancel();
    }
}

/// Listeners that need no port, for tests.
#[cfg(test)]
pub(crate) struct NoDoors;

#[cfg(test)]
impl Doors for NoDoors {
    fn open(
        &self,
        _front: Front,
        _control: Control,
        stop: CancellationToken,
    ) -> BoxFuture<'_, Result<OpenDoors, DoorError>> {
        Box::pin(async {
            Ok(OpenDoors {
                client_url: "https://localhost:8443".to_owned(),
                closed: Box::pin(async move {
                    stop.cancelled().await;
                    Ok(())
                }),
            })
        })
    }
}
