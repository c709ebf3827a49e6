//! Suspending a user or an mcp: stored, published, then everything of it is ended, in that order.

use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::account::{Suspension, SuspensionScope};
use crate::domain::ids::SuspensionId;
use crate::domain::verdict::Verdict;

use super::super::audit::Entry;
use super::super::clock::id_bits;
use super::super::isolate::IsolateMsg;
use super::super::killswitch;
use super::super::slot::Slot;
use super::super::views::SuspendReport;
use super::{Control, ControlError, isolates};

impl Control {
    /// Suspends a user (sessions end, registering is refused) or an mcp (nobody's calls reach
    /// it). Returns when what ran is dead, or after `kill_wait`, and then names what is left.
    ///
    /// # Errors
    /// It is suspended already, does not exist, or the store is away: then nothing was done.
    pub async fn suspend(
        &self,
        scope: SuspensionScope,
        reason: &str,
        author: &str,
    ) -> Result<SuspendReport, ControlError> {
        let since = Instant::now();
        let suspension = Suspension {
            id: SuspensionId::from_random(id_bits()),
            scope: scope.clone(),
            reason: reason.to_owned(),
            author: author.to_owned(),
            created_at: self.now_ms(),
            lifted_at: None,
        };
        self.ctx.store.suspend(&suspension).await?;
        // It is decided: from here on nothing that fails keeps the rest from being done.
        self.ctx.denied.rcu(|denied| denied.with(&suspension));
        let sessions_ended = match &scope {
            SuspensionScope::User(user) => {
                let ended = self.revoke_sessions(|session| session.user.id == *user);
                if let Err(error) = self.ctx.store.end_sessions_of_user(user).await {
                    tracing::error!(user.id = %user, "ended sessions are still stored: {error}");
                }
                ended
            }
            SuspensionScope::Mcp(_) => 0,
        };
        let verdict = Verdict::Killed {
            reason: reason.to_owned(),
        };
        // Also what only waits for its next try: it must not come back by itself.
        let all = self.slots_in(&scope);
        let hit: Vec<_> = all
            .iter()
            .filter(|slot| slot.occupant().is_some())
            .cloned()
            .collect();
        let calls_cancelled = all.iter().map(|slot| kill(slot, &verdict)).sum();
        let wait = self.ctx.settings.kill_wait;
        let survivors = isolates::wait_gone(&hit, wait).await;
        let report = SuspendReport {
            suspension,
            isolates_stopped: hit.len() as u64,
            calls_cancelled,
            sessions_ended,
            took_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX),
            survivors,
        };
        self.ctx.audit.post(
            Entry::new("suspend", self.ctx.wall_ms())
                .field("suspension", report.suspension.id.as_str())
                .field("reason", reason)
                .field("author", author)
                .number("isolates", report.isolates_stopped)
                .number("calls", report.calls_cancelled)
                .number("sessions", report.sessions_ended)
                .number("took_ms", report.took_ms),
        );
        Ok(report)
    }

    /// Lifts a suspension. Sessions that it ended stay ended.
    ///
    /// # Errors
    /// Nothing is suspended there, or the store is away.
    pub async fn resume(&self, scope: SuspensionScope, author: &str) -> Result<(), ControlError> {
        let lifted = self
            .ctx
            .store
            .lift_suspension(&scope, self.now_ms())
            .await?;
        killswitch::publish(&self.ctx).await?;
        self.ctx.audit.post(
            Entry::new("resume", self.ctx.wall_ms())
                .field("suspension", lifted.id.as_str())
                .field("author", author),
        );
        Ok(())
    }

    fn slots_in(&self, scope: &SuspensionScope) -> Vec<Arc<Slot>> {
        let slots = self.ctx.slots.pin();
        slots
            .values()
            .filter(|slot| match scope {
                SuspensionScope::User(user) => slot.key.principal.user() == Some(user),
                SuspensionScope::Mcp(mcp) => slot.key.mcp == *mcp,
            })
            .cloned()
            .collect()
    }
}

/// Ends a slot's run without any mailbox; its actor learns of it last.
fn kill(slot: &Slot, verdict: &Verdict) -> u64 {
    let told = slot.occupant().map_or(0, |run| run.kill(verdict.clone()));
    if let Some(isolate) = slot.actor() {
        let _ = isolate.cast(IsolateMsg::Leave(verdict.clone()));
    }
    told as u64
}
