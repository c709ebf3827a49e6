//! A run: one incarnation of a process, from exec to the end of its server.
//!
//! `post_start` launches it and shakes hands, in the run's own task; then four small tasks carry
//! it: writer, reader, stderr, and the warden, which waits for whatever ends the run (its exit, a
//! broken rule, an order) and ends it for its callers before anybody else hears of it. The actor
//! stops when the warden is done; what is left of the process tree is the slot's to reap.

mod greet;
mod listen;
mod pumps;
mod retold;
#[cfg(test)]
mod sharing_tests;
mod start;
mod warden;

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::task::AbortHandle;

use crate::domain::verdict::Verdict;

use super::ctx::Ctx;
use super::isolate::IsolateMsg;
use super::slot::{Occupant, Slot};

/// What a run is started with.
#[derive(Debug)]
pub(super) struct RunArgs {
    pub(super) ctx: Arc<Ctx>,
    pub(super) slot: Arc<Slot>,
    pub(super) occupant: Occupant,
    pub(super) frames: tokio::sync::mpsc::Receiver<super::handle::Frame>,
    pub(super) isolate: ActorRef<IsolateMsg>,
    pub(super) deadline: Duration,
}

/// What a run hears.
#[derive(Debug)]
pub(super) enum RunMsg {
    /// The warden has ended it.
    Over,
}

/// The run actor.
pub(super) struct Run;

/// Its tasks, which end with it.
pub(super) struct RunState {
    args: Option<RunArgs>,
    tasks: Tasks,
}

/// Tasks that are aborted when their owner goes.
#[derive(Debug, Default)]
struct Tasks(Vec<AbortHandle>);

impl Tasks {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let handle = tokio::spawn(task).abort_handle();
        self.0.push(handle.clone());
        handle
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

impl Actor for Run {
    type Msg = RunMsg;
    type State = RunState;
    type Arguments = RunArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<RunMsg>,
        args: RunArgs,
    ) -> Result<RunState, ActorProcessingErr> {
        Ok(RunState {
            args: Some(args),
            tasks: Tasks::default(),
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<RunMsg>,
        state: &mut RunState,
    ) -> Result<(), ActorProcessingErr> {
        let Some(args) = state.args.take() else {
            return Ok(());
        };
        let (slot, isolate) = (Arc::clone(&args.slot), args.isolate.clone());
        let (epoch, occupant) = (args.occupant.epoch, args.occupant.clone());
        match start::start(args, &myself, &mut state.tasks).await {
            Ok(()) => {
                isolate.cast(IsolateMsg::Ready { epoch })?;
            }
            Err(verdict) => {
                // Launched or not: the warden or nobody ends it; either way callers are told.
                end_for_callers(&slot, &occupant, verdict);
                myself.stop(None);
            }
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<RunMsg>,
        message: RunMsg,
        _state: &mut RunState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RunMsg::Over => myself.stop(None),
        }
        Ok(())
    }
}

/// Ends a run for its callers and for its record. The first verdict counts.
fn end_for_callers(slot: &Slot, occupant: &Occupant, verdict: Verdict) {
    let record = &occupant.record;
    let mut kept = record.clean_verdict(verdict);
    record.learn(|facts| {
        kept = facts.verdict.get_or_insert(kept.clone()).clone();
        facts.lived.get_or_insert(record.started.elapsed());
    });
    let end = super::handle::RunEnd {
        verdict: kept,
        last_stderr: record.stderr.last(),
    };
    let told = occupant.handle.end(&Arc::new(end));
    if told > 0 {
        tracing::info!(
            isolate.id = %slot.id,
            run.epoch = occupant.epoch,
            calls.told = told,
            "a run ended with calls in flight"
        );
    }
}
