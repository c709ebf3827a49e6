//! One isolate: show, restart, kill.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::verdict::Verdict;

use super::super::isolate::IsolateMsg;
use super::super::sampler;
use super::super::slot::{Slot, SlotState};
use super::super::views::{IsolateDetail, IsolateView, KillReport, Left};
use super::{Control, ControlError, view};

/// How long an administrator waits for a restarted isolate to be ready.
const RESTART_WAIT: Duration = Duration::from_secs(15);

impl Control {
    /// All isolates and instances, by mcp and user.
    #[must_use]
    pub fn isolates(&self) -> Vec<IsolateView> {
        let slots: Vec<Arc<Slot>> = self.ctx.slots.pin().values().cloned().collect();
        let mut views: Vec<IsolateView> = slots.iter().map(|slot| view::isolate(slot)).collect();
        views.sort_by(|a, b| (&a.mcp, &a.user, &a.id).cmp(&(&b.mcp, &b.user, &b.id)));
        views
    }

    /// One isolate with its past.
    ///
    /// # Errors
    /// No isolate has this id, or several begin with it.
    pub fn isolate(&self, id: &str) -> Result<IsolateDetail, ControlError> {
        Ok(view::detail(&*self.find_slot(id)?))
    }

    /// The same with counters that are read for it, the peak included.
    ///
    /// # Errors
    /// As [`Control::isolate`].
    pub async fn isolate_now(&self, id: &str) -> Result<IsolateDetail, ControlError> {
        let slot = self.find_slot(id)?;
        sampler::read_now(&self.ctx, &slot).await;
        Ok(view::detail(&slot))
    }

    /// Ends the run, if there is one, and starts a fresh one; all failures are forgiven.
    ///
    /// # Errors
    /// No such isolate, or a kill switch or suspension keeps it from running.
    pub async fn restart_isolate(&self, id: &str) -> Result<IsolateView, ControlError> {
        let slot = self.find_slot(id)?;
        if let Some(deny) = self.ctx.denies(&slot) {
            let message = format!("it may not run: {} ({})", deny.title(), deny.reason);
            return Err(ControlError::new(Code::Conflict, message)
                .next("lift that first: legation kill-switch list"));
        }
        if !slot.key.is_install() {
            self.installed(&slot.mcp).await?;
        }
        // The newest run there was, living or ended: what it left must not pass for the fresh one.
        let before = slot.history().first().map_or(0, |run| run.epoch);
        let told = slot
            .actor()
            .is_some_and(|actor| actor.cast(IsolateMsg::Restart).is_ok());
        if !told {
            slot.policy(|policy, _| policy.pardon());
            self.ctx.demand(&slot);
        }
        let mut watch = slot.watch();
        let fresh = watch.wait_for(|state| match state {
            SlotState::Ready(handle) => handle.epoch() > before,
            SlotState::Backoff { .. } | SlotState::Quarantined { .. } => {
                slot.history().first().is_some_and(|run| run.epoch > before)
            }
            _ => false,
        });
        // Late or failed: the view says where it is.
        let _ = tokio::time::timeout(RESTART_WAIT, fresh).await;
        Ok(view::isolate(&slot))
    }

    /// Kills an isolate's processes. The next call starts it again: to keep it down, use a
    /// kill switch.
    ///
    /// # Errors
    /// No such isolate.
    pub async fn kill_isolate(&self, id: &str, reason: &str) -> Result<KillReport, ControlError> {
        let slot = self.find_slot(id)?;
        let since = Instant::now();
        let verdict = Verdict::Killed {
            reason: reason.to_owned(),
        };
        let cancelled = slot.occupant().map_or(0, |run| run.kill(verdict.clone()));
        if let Some(actor) = slot.actor() {
            let _ = actor.cast(IsolateMsg::Leave(verdict));
        }
        let survivors = wait_gone(&[Arc::clone(&slot)], self.ctx.settings.kill_wait).await;
        Ok(KillReport {
            isolate: slot.id.to_string(),
            cancelled_calls: cancelled as u64,
            took_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            survivors,
        })
    }

    pub(super) fn find_slot(&self, id: &str) -> Result<Arc<Slot>, ControlError> {
        let slots = self.ctx.slots.pin();
        let fits = |slot: &&Arc<Slot>| {
            slot.id.as_str() == id
                || (!id.is_empty()
                    && (slot.id.short().starts_with(id) || slot.id.as_str().starts_with(id)))
        };
        let mut hits = slots.values().filter(fits);
        match (hits.next(), hits.next()) {
            (Some(slot), None) => Ok(Arc::clone(slot)),
            (None, _) => Err(ControlError::new(
                Code::NotFound,
                format!("isolate `{id}` does not exist"),
            )
            .next("legation isolate list")),
            (Some(_), Some(_)) => {
                let message = format!("several isolates begin with `{id}`");
                Err(ControlError::new(Code::Conflict, message).next("give more of the id"))
            }
        }
    }
}

/// Waits until no run is in these slots; past `wait`, gives the processes that are left.
pub(in crate::actors) async fn wait_gone(slots: &[Arc<Slot>], wait: Duration) -> Vec<i32> {
    let runs: Vec<_> = slots
        .iter()
        .filter_map(|slot| Some((Arc::clone(slot), slot.occupant()?.epoch)))
        .collect();
    let left = gone(&runs, wait).await;
    left.into_iter().flat_map(|one| one.pids).collect()
}

/// Waits until these runs have left their slots; past `wait`, names those that have not.
pub(super) async fn gone(runs: &[(Arc<Slot>, u64)], wait: Duration) -> Vec<Left> {
    let deadline = Instant::now() + wait;
    let mut left = Vec::new();
    for (slot, epoch) in runs {
        let there = || slot.occupant().filter(|run| run.epoch == *epoch);
        let mut watch = slot.watch();
        while there().is_some() {
            if tokio::time::timeout_at(deadline, watch.changed())
                .await
                .is_err()
            {
                break;
            }
        }
        if let Some(run) = there() {
            let pids = match slot.state() {
                SlotState::Stuck { survivors } => survivors,
                _ => run.record.facts().pid.into_iter().collect(),
            };
            left.push(Left {
                isolate: slot.id.to_string(),
                mcp: slot.mcp.name.to_string(),
                user: slot.owner.as_ref().map(|owner| owner.name.to_string()),
                pids,
            });
        }
    }
    left
}
