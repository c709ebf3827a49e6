//! The records of lives: isolates that start, are ready, get stuck or are left alone, sessions
//! that end.

use std::sync::Arc;

use crate::domain::audit::Category;
use crate::domain::ids::UserId;
use crate::domain::limits::AUDIT_SESSIONS_NAMED_MAX;

use super::audit::Entry;
use super::ctx::Ctx;
use super::session::SessionHandle;
use super::slot::{Occupant, Slot};

impl Ctx {
    /// A record about a slot.
    pub(super) fn about(&self, event: &'static str, slot: &Slot) -> Entry {
        let entry = Entry::new(event, self.wall_ms())
            .field("isolate", slot.id.as_str())
            .field("mcp", slot.key.mcp.as_str());
        match slot.key.principal.user().map(UserId::as_str) {
            Some(user) => entry.field("user", user),
            None => entry,
        }
    }

    /// A run begins, for a cause.
    pub(super) fn run_started(&self, slot: &Slot, epoch: u64, cause: &str) {
        let entry = self.about("isolate.started", slot);
        self.audit
            .post(entry.number("epoch", epoch).field("cause", cause));
    }

    /// A run is usable.
    pub(super) fn run_ready(&self, slot: &Slot, run: &Occupant) {
        let facts = run.record.facts();
        let took = facts.ready_after.unwrap_or_default().as_millis();
        let pid = facts.pid.and_then(|pid| u64::try_from(pid).ok());
        let mut entry = self
            .about("isolate.ready", slot)
            .number("epoch", run.epoch)
            .number("took_ms", u64::try_from(took).unwrap_or(u64::MAX));
        // A server behind HTTP has none.
        if let Some(pid) = pid {
            entry = entry.number("pid", pid);
        }
        if !facts.degraded.is_empty() {
            entry = entry.field("degraded", &facts.degraded.join(" "));
        }
        self.audit.post(entry);
    }

    /// Sessions ended, all for one reason. Of many at once the first are named, the rest counted.
    pub(super) fn sessions_ended(&self, sessions: &[Arc<SessionHandle>], why: &str) {
        let at = self.wall_ms();
        for session in sessions.iter().take(AUDIT_SESSIONS_NAMED_MAX) {
            self.audit.post(
                Entry::new("auth.session_ended", at)
                    .field("session", session.id().as_str())
                    .field("user", session.user.id.as_str())
                    .field("key", session.key.as_str())
                    .field("outcome", why),
            );
        }
        let more = sessions.len().saturating_sub(AUDIT_SESSIONS_NAMED_MAX);
        if more > 0 {
            let entry = Entry::new("auth.sessions_ended", at).field("outcome", why);
            self.audit.post(entry.number("count", more as u64));
        }
    }

    /// Whether a run may be started: the record of it could be written, or need not be.
    pub(super) fn may_start(&self) -> bool {
        !self.audit.requires(Category::Isolate) || self.audit.is_good()
    }
}
