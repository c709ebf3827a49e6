//! The isolate actor: the supervisor of one slot (a user's isolate or a shared instance).
//!
//! It alone moves the slot from state to state. It starts runs, reaps what they leave, asks the
//! restart policy what next. It never touches a call, and nothing in its handlers waits: the run
//! starts in its own task, the reaping barrier is a task that reports back.
//!
//! Invariant: the next run starts only after the last one's process tree is gone.

mod ending;

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::restart::Permit;
use crate::domain::verdict::Verdict;
use crate::telemetry::metrics::labels::{ActorKind, StartCause};
use crate::telemetry::metrics::mcp::McpMeter;

use super::ctx::Ctx;
use super::handle::{Asking, Handle, RunEnd, Voice};
use super::launcher::Remains;
use super::measured::measured;
use super::record::RunRecord;
use super::run::{Run, RunArgs};
use super::slot::{Occupant, Order, Slot, SlotState};

/// What an isolate hears.
#[derive(Debug)]
pub enum IsolateMsg {
    /// Somebody wants a run.
    Demand,
    /// The run is ready.
    Ready {
        /// Which run.
        epoch: u64,
    },
    /// The barrier has news: the tree is gone, or processes outlived `kill_wait`.
    Reaped {
        /// Which run.
        epoch: u64,
        /// What was found.
        remains: Box<Remains>,
    },
    /// A wait is over.
    Due {
        /// Which wait.
        wait: u64,
    },
    /// Stop the run and then this actor.
    Leave(Verdict),
    /// An administrator wants a fresh run; all failures are forgiven.
    Restart,
}

/// The isolate actor.
pub(super) struct Isolate;

/// What it is made from.
#[derive(Debug)]
pub(super) struct IsolateArgs {
    pub(super) ctx: Arc<Ctx>,
    pub(super) slot: Arc<Slot>,
}

/// What it knows.
pub(super) struct IsolateState {
    ctx: Arc<Ctx>,
    slot: Arc<Slot>,
    phase: Phase,
    wait: u64,
    leaving: Option<Verdict>,
    again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    Running,
    Reaping,
    Waiting,
}

impl Actor for Isolate {
    type Msg = IsolateMsg;
    type State = IsolateState;
    type Arguments = IsolateArgs;

    async fn pre_start(
        &self,
        myself: ActorRef<IsolateMsg>,
        args: IsolateArgs,
    ) -> Result<IsolateState, ActorProcessingErr> {
        args.slot.set_actor(Some(myself));
        Ok(IsolateState {
            ctx: args.ctx,
            slot: args.slot,
            phase: Phase::Resting,
            wait: 0,
            leaving: None,
            again: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<IsolateMsg>,
        state: &mut IsolateState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(left) = state.slot.occupant() {
            // Our predecessor failed with a run in the slot: clear it away before anything else.
            let detail = "its supervisor failed".to_owned();
            left.kill(Verdict::Internal { detail });
            state.reap(&myself, &left);
        } else {
            state.demand(&myself).await?;
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<IsolateMsg>,
        message: IsolateMsg,
        state: &mut IsolateState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            IsolateMsg::Demand => state.demand(&myself).await?,
            IsolateMsg::Ready { epoch } => state.ready(epoch),
            IsolateMsg::Reaped { epoch, remains } => state.reaped(&myself, epoch, *remains).await?,
            IsolateMsg::Due { wait } if wait == state.wait => state.due(&myself).await?,
            IsolateMsg::Due { .. } => {}
            IsolateMsg::Leave(verdict) => state.leave(&myself, verdict),
            IsolateMsg::Restart => state.restart(&myself).await?,
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<IsolateMsg>,
        event: SupervisionEvent,
        state: &mut IsolateState,
    ) -> Result<(), ActorProcessingErr> {
        let failure = match event {
            SupervisionEvent::ActorTerminated(..) => None,
            SupervisionEvent::ActorFailed(_, error) => Some(error.to_string()),
            _ => return Ok(()),
        };
        if state.phase == Phase::Running
            && let Some(run) = state.slot.occupant()
        {
            if let Some(error) = failure {
                tracing::error!(isolate.id = %state.slot.id, "a run actor failed, which is a bug: {error}");
                run.kill(Verdict::Internal { detail: error });
            }
            state.reap(&myself, &run);
        }
        Ok(())
    }
}

impl IsolateState {
    /// Somebody wants a run: start one if the policy allows it.
    async fn demand(&mut self, myself: &ActorRef<IsolateMsg>) -> Result<(), ActorProcessingErr> {
        if self.leaving.is_some() {
            // Still wanted when this actor has ended: then its successor sees to it.
            return Ok(());
        }
        self.slot.served();
        if self.phase != Phase::Resting {
            return Ok(());
        }
        match self.slot.policy(|policy, now| policy.permit(now)) {
            Permit::Go => self.start(myself, StartCause::Demand).await?,
            Permit::HalfOpen => self.start(myself, StartCause::HalfOpen).await?,
            // A fresh actor on a slot that failed before, or was killed while it waited.
            Permit::Backoff(at) => {
                let (until, end) = (self.slot.instant(at), self.last_end());
                let failures = self.slot.policy(|policy, _| policy.failures());
                let state = SlotState::Backoff {
                    until,
                    end,
                    failures,
                };
                self.slot.enter(state, "still backing off");
                self.wait(myself, at);
            }
            Permit::Quarantined(at) => {
                let (until, end) = (self.slot.instant(at), self.last_end());
                self.slot
                    .enter(SlotState::Quarantined { until, end }, "still quarantined");
                self.wait(myself, at);
            }
        }
        Ok(())
    }

    /// How the newest run of this slot ended.
    fn last_end(&self) -> Arc<RunEnd> {
        let newest = self.slot.history().into_iter().next();
        let verdict = newest.as_ref().and_then(|run| run.facts().verdict);
        Arc::new(RunEnd {
            verdict: verdict.unwrap_or(Verdict::Shutdown),
            last_stderr: newest.and_then(|run| run.stderr.last()),
        })
    }

    async fn start(
        &mut self,
        myself: &ActorRef<IsolateMsg>,
        cause: StartCause,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(deny) = self.ctx.denies(&self.slot) {
            // Whoever waits looks again, and is told why.
            self.phase = Phase::Resting;
            self.gone(myself, deny.title());
            return Ok(());
        }
        if matches!(self.slot.state(), SlotState::Closed) {
            // It was closed while its demand was on the way.
            myself.stop(None);
            return Ok(());
        }
        self.slot.policy(|policy, now| policy.starting(now));
        let mut pipe = None;
        let in_flight_max = self.ctx.settings.in_flight_max;
        let occupant = self.slot.occupy(|epoch| {
            let asking = Asking::new(
                self.slot.key.questions,
                self.slot.mcp.talk.questions,
                Arc::clone(&self.slot.askers),
            )
            .heard_by(Voice {
                ears: Arc::clone(&self.ctx.ears),
                key: self.slot.key.clone(),
                watched: Arc::clone(&self.slot.watched),
                tools: Notify::new(),
            });
            let (handle, frames) = Handle::new(epoch, in_flight_max, asking);
            pipe = Some(frames);
            Occupant {
                epoch,
                handle,
                orders: tokio::sync::watch::Sender::new(Order::Run),
                scope: None,
                record: Arc::new(RunRecord::new(epoch)),
            }
        });
        let Some(frames) = pipe else { return Ok(()) };
        // Whoever denies publishes the table and then looks into the slots; we are in the slot and
        // look at the table. One of the two sees the other, so no run slips through between them.
        fence(Ordering::SeqCst);
        if let Some(deny) = self.ctx.denies(&self.slot) {
            occupant.kill(Verdict::Killed {
                reason: deny.reason.clone(),
            });
        }
        let deadline = self.slot.mcp.start_deadline();
        let since = Instant::now();
        self.phase = Phase::Running;
        self.slot.enter(
            SlotState::Starting {
                since,
                deadline: since + deadline,
            },
            words(cause),
        );
        self.ctx
            .run_started(&self.slot, occupant.epoch, words(cause));
        self.meter().started(if self.slot.key.is_install() {
            StartCause::Install
        } else if self.slot.key.is_probe() {
            StartCause::Discovery
        } else {
            cause
        });
        let args = RunArgs {
            ctx: Arc::clone(&self.ctx),
            slot: Arc::clone(&self.slot),
            occupant,
            frames,
            isolate: myself.clone(),
            deadline,
        };
        let run = measured(&self.ctx.metrics, ActorKind::Run, Run);
        Actor::spawn_linked(None, run, args, myself.get_cell()).await?;
        Ok(())
    }

    fn ready(&mut self, epoch: u64) {
        let Some(run) = self.slot.occupant().filter(|run| run.epoch == epoch) else {
            return;
        };
        if self.phase != Phase::Running || self.leaving.is_some() {
            return;
        }
        self.slot.policy(|policy, now| policy.ready(now));
        self.ctx.run_ready(&self.slot, &run);
        let facts = run.record.facts();
        if let Some(after) = facts.ready_after {
            self.meter().ready(after);
        }
        for (phase, took) in facts.phases {
            self.ctx.metrics.phase(phase, took);
        }
        run.handle.open();
        self.slot.enter(SlotState::Ready(run.handle), "usable");
    }

    fn meter(&self) -> Arc<McpMeter> {
        self.ctx.metrics.mcp(self.slot.mcp.name.as_str())
    }

    /// Waits until a time of the policy's clock.
    fn wait(&mut self, myself: &ActorRef<IsolateMsg>, until: Duration) {
        self.phase = Phase::Waiting;
        self.wait += 1;
        let wait = self.wait;
        let pause = self
            .slot
            .instant(until)
            .saturating_duration_since(Instant::now());
        myself.send_after(pause, move || IsolateMsg::Due { wait });
    }

    async fn due(&mut self, myself: &ActorRef<IsolateMsg>) -> Result<(), ActorProcessingErr> {
        if self.phase != Phase::Waiting {
            return Ok(());
        }
        let was_quarantined = matches!(self.slot.state(), SlotState::Quarantined { .. });
        let is_crowded = self.slot.policy(|policy, _| policy.is_crowded());
        if (was_quarantined || is_crowded) && !self.slot.is_wanted() {
            // The next try is the next caller's: nobody else needs it.
            self.phase = Phase::Resting;
            let cause = match was_quarantined {
                true => "the quarantine is over",
                false => "there was no room; the next call looks again",
            };
            self.slot.enter(SlotState::Resting, cause);
            myself.stop(None);
            return Ok(());
        }
        let is_unasked = !was_quarantined && !is_crowded;
        if is_unasked && !self.ctx.restart_budget.take() {
            // A host-wide cause must not melt the host: restarts queue up behind the budget.
            let wait = self.wait;
            myself.send_after(Duration::from_millis(100), move || IsolateMsg::Due { wait });
            return Ok(());
        }
        self.phase = Phase::Resting;
        self.slot.served();
        self.slot.count_restart();
        let cause = if was_quarantined {
            StartCause::HalfOpen
        } else {
            self.meter().restarted();
            StartCause::Restart
        };
        self.start(myself, cause).await
    }

    fn leave(&mut self, myself: &ActorRef<IsolateMsg>, verdict: Verdict) {
        match self.phase {
            Phase::Running => self.leave_run(verdict),
            Phase::Reaping => self.leaving_for(verdict),
            Phase::Resting | Phase::Waiting => {
                let cause = verdict.to_string();
                self.leaving_for(verdict);
                self.gone(myself, cause);
            }
        }
    }

    fn leave_run(&mut self, verdict: Verdict) {
        let Some(run) = self.slot.occupant() else {
            return;
        };
        if verdict == Verdict::Idle && !run.handle.drain_if_idle() {
            // A call slipped in: it is not idle. Who was turned away meanwhile is told.
            if run.handle.takes_calls() {
                self.slot
                    .enter(SlotState::Ready(run.handle), "in use after all");
            }
            return;
        }
        self.slot.enter(SlotState::Stopping, verdict.to_string());
        self.leaving_for(verdict.clone());
        run.order(match verdict {
            Verdict::Killed { .. } => Order::Kill(verdict),
            _ => Order::Stop(verdict),
        });
    }

    /// A slot whose definition was replaced is never used again, whatever else ends its run.
    fn leaving_for(&mut self, verdict: Verdict) {
        if self.leaving != Some(Verdict::Replaced) {
            self.leaving = Some(verdict);
        }
    }

    /// The actor ends: the slot rests for the next one, or is closed and forgotten.
    fn gone(&self, myself: &ActorRef<IsolateMsg>, cause: impl Into<String>) {
        if self.leaving == Some(Verdict::Replaced) {
            self.ctx.close_slot(&self.slot, cause);
        } else {
            self.slot.enter(SlotState::Resting, cause);
        }
        myself.stop(None);
    }

    async fn restart(&mut self, myself: &ActorRef<IsolateMsg>) -> Result<(), ActorProcessingErr> {
        if matches!(self.leaving, Some(Verdict::Replaced | Verdict::Shutdown)) {
            return Ok(());
        }
        // An idle stop or a kill under way ends in the fresh run that is asked for.
        self.leaving = None;
        self.slot.policy(|policy, _| policy.pardon());
        match self.phase {
            Phase::Running => {
                self.again = true;
                if let Some(run) = self.slot.occupant() {
                    let reason = "restarted by an administrator".to_owned();
                    run.kill(Verdict::Killed { reason });
                }
            }
            Phase::Reaping => self.again = true,
            Phase::Resting | Phase::Waiting => {
                self.wait += 1;
                self.start(myself, StartCause::Admin).await?;
            }
        }
        Ok(())
    }
}

/// Why a run was started, as transitions say it.
const fn words(cause: StartCause) -> &'static str {
    match cause {
        StartCause::Demand | StartCause::Discovery | StartCause::Install => "demand",
        StartCause::Restart => "restart after a failure",
        StartCause::HalfOpen => "half-open try",
        StartCause::Admin => "restarted by an administrator",
    }
}
