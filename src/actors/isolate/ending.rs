//! The end of a run: the reaping barrier, the final verdict, what comes next.

use std::sync::Arc;

use ractor::{ActorProcessingErr, ActorRef};

use crate::domain::limits::KILL_WAIT;
use crate::domain::restart::Next;
use crate::domain::verdict::{Verdict, Weight};
use crate::telemetry::metrics::labels::StartCause;

use super::super::clock::jitter;
use super::super::handle::RunEnd;
use super::super::launcher::Remains;
use super::super::slot::{Occupant, SlotState};
use super::{IsolateMsg, IsolateState, Phase};

impl IsolateState {
    /// The run is over: clear its tree away, however long that takes.
    pub(super) fn reap(&mut self, myself: &ActorRef<IsolateMsg>, run: &Occupant) {
        self.phase = Phase::Reaping;
        self.slot.enter(SlotState::Stopping, "the run ended");
        let (myself, run, wait) = (myself.clone(), run.clone(), self.ctx.settings.kill_wait);
        tokio::spawn(async move {
            // The tree may have been born in the very moment its run was given up.
            let scope = run.scope;
            loop {
                let remains = match &scope {
                    Some(scope) => scope.reap(wait).await,
                    None => Remains::default(),
                };
                let gone = remains.survivors.is_empty();
                let news = IsolateMsg::Reaped {
                    epoch: run.epoch,
                    remains: Box::new(remains),
                };
                if myself.cast(news).is_err() || gone {
                    return;
                }
                tokio::time::sleep(KILL_WAIT).await;
            }
        });
    }

    pub(super) async fn reaped(
        &mut self,
        myself: &ActorRef<IsolateMsg>,
        epoch: u64,
        remains: Remains,
    ) -> Result<(), ActorProcessingErr> {
        if self.phase != Phase::Reaping {
            return Ok(());
        }
        if !remains.survivors.is_empty() {
            tracing::error!(
                isolate.id = %self.slot.id,
                survivors = ?remains.survivors,
                "processes outlived the kill; the slot stays shut until they are gone"
            );
            let survivors = remains.survivors;
            let pids: Vec<String> = survivors.iter().map(ToString::to_string).collect();
            let entry = self.ctx.about("isolate.stuck", &self.slot);
            let entry = entry
                .number("epoch", epoch)
                .field("survivors", &pids.join(" "));
            self.ctx.audit.post(entry);
            self.slot.enter(
                SlotState::Stuck { survivors },
                "processes outlived the kill",
            );
            return Ok(());
        }
        let Some(run) = self.slot.vacate().filter(|run| run.epoch == epoch) else {
            return Ok(());
        };
        let end = self.judge(&run, &remains);
        self.ctx.run_ended(&self.slot, &run, &end);
        run.record.close();
        self.phase = Phase::Resting;
        let weight = match &self.leaving {
            Some(_) => Weight::Wanted,
            None => end.verdict.weight(),
        };
        let next = self
            .slot
            .policy(|policy, now| policy.ended(now, weight, jitter()));
        let cause = end.verdict.to_string();
        let again = std::mem::take(&mut self.again);
        if again && self.leaving.is_none() {
            self.slot.policy(|policy, _| policy.pardon());
            return self.start(myself, StartCause::Admin).await;
        }
        match next {
            Next::Rest => self.rest(myself, cause).await?,
            Next::Retry { at, failures } => {
                let until = self.slot.instant(at);
                self.slot.enter(
                    SlotState::Backoff {
                        until,
                        end,
                        failures,
                    },
                    cause,
                );
                self.wait(myself, at);
            }
            Next::Quarantine { until: at } => {
                let until = self.slot.instant(at);
                let entry = self.ctx.about("isolate.quarantined", &self.slot);
                self.ctx.audit.post(
                    entry
                        .field("verdict", end.verdict.kind())
                        .field("detail", &cause),
                );
                self.meter().quarantined(&end.verdict);
                self.slot
                    .enter(SlotState::Quarantined { until, end }, cause);
                self.wait(myself, at);
            }
        }
        Ok(())
    }

    /// The final verdict of a run, now that the counters are read.
    fn judge(&self, run: &Occupant, remains: &Remains) -> Arc<RunEnd> {
        let mut kept = None;
        let spent = run.record.counted(remains.usage);
        self.meter().spend(&spent);
        run.record.learn(|facts| {
            let told = || run.handle.ended().map(|end| end.verdict.clone());
            let verdict = facts
                .verdict
                .take()
                .or_else(told)
                .unwrap_or(Verdict::Shutdown);
            let verdict = match (verdict, remains.oom) {
                (
                    Verdict::Signaled { .. }
                    | Verdict::Exited { code: 1.. }
                    | Verdict::Protocol { .. },
                    Some(scope),
                ) => Verdict::OutOfMemory {
                    scope,
                    limit_bytes: self.slot.limit_of(scope),
                },
                (verdict, _) => verdict,
            };
            facts.lived.get_or_insert(run.record.started.elapsed());
            facts.verdict = Some(verdict.clone());
            kept = Some(verdict);
        });
        let verdict = kept.unwrap_or(Verdict::Shutdown);
        Arc::new(RunEnd {
            verdict,
            last_stderr: run.record.stderr.last(),
        })
    }

    async fn rest(
        &mut self,
        myself: &ActorRef<IsolateMsg>,
        cause: String,
    ) -> Result<(), ActorProcessingErr> {
        if self.leaving.is_some() {
            self.gone(myself, cause);
            return Ok(());
        }
        self.slot.enter(SlotState::Resting, cause);
        if self.slot.is_wanted() {
            self.demand(myself).await?;
        } else {
            myself.stop(None);
        }
        Ok(())
    }
}
