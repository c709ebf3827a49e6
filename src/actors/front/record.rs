//! The records of a call: its start, with what it was asked, and its end, however it ends.

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::domain::audit::Category;
use crate::domain::audit::chain::Hasher;
use crate::domain::audit::redact;
use crate::domain::code::Code;
use crate::domain::ids::CallId;
use crate::domain::limits::{AUDIT_ARGUMENTS_BYTES_MAX, AUDIT_DIGEST_BYTES};
use crate::domain::mcp::Capture;

use super::super::audit::{AuditError, Entry};
use super::super::catalog::Route;
use super::super::ctx::Ctx;
use super::super::session::SessionHandle;

/// The record of a call's start, with as much of its arguments as its mcp says.
pub(super) async fn start(
    ctx: &Ctx,
    session: &SessionHandle,
    route: &Route,
    call: &CallId,
    arguments: &RawValue,
) -> Entry {
    let (mcp, text) = (&route.published.mcp, arguments.get());
    let entry = Entry::new("call.start", ctx.wall_ms())
        .field("call", call.as_str())
        .field("session", session.id().as_str())
        .field("user", session.user.id.as_str())
        .field("key", session.key.as_str())
        .field("mcp", mcp.id.as_str())
        .field("tool", route.tool.as_str())
        .number("arguments_bytes", text.len() as u64);
    let digest = match mcp.audit_arguments {
        Capture::None => return entry,
        Capture::Digest | Capture::Full => digest(text.as_bytes()).await,
    };
    let entry = entry.field("arguments_sha256", digest.as_str());
    if mcp.audit_arguments != Capture::Full {
        return entry;
    }
    let secrets = ctx
        .secrets
        .get()
        .and_then(|known| known.of(&session.user.id, &mcp.id));
    let captured = redact::capture(text, secrets.as_ref(), AUDIT_ARGUMENTS_BYTES_MAX);
    let entry = entry.field("arguments", &captured.text);
    match captured.truncated {
        true => entry.number("arguments_truncated", 1),
        false => entry,
    }
}

/// The hash of a call's arguments. Large ones take turns with other work of this thread.
async fn digest(bytes: &[u8]) -> crate::domain::audit::chain::Hash {
    let mut hasher = Hasher::default();
    for (number, part) in bytes.chunks(AUDIT_DIGEST_BYTES).enumerate() {
        if number > 0 {
            tokio::task::yield_now().await;
        }
        hasher.update(part);
    }
    hasher.finish()
}

/// The end record of a call, written however the call ends.
pub(super) struct Ending<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) call: CallId,
    /// What to record if nothing else is told.
    pub(super) outcome: &'static str,
    pub(super) told: bool,
    pub(super) admitted: Instant,
}

impl Ending<'_> {
    fn entry(&self, outcome: &str, bytes: usize) -> Entry {
        let took = u64::try_from(self.admitted.elapsed().as_micros()).unwrap_or(u64::MAX);
        Entry::new("call.end", self.ctx.wall_ms())
            .field("call", self.call.as_str())
            .field("outcome", outcome)
            .number("took_us", took)
            .number("answer_bytes", bytes as u64)
    }

    pub(super) async fn commit(&mut self, outcome: &str, bytes: usize) -> Result<(), AuditError> {
        let entry = self.entry(outcome, bytes);
        let appended = self.ctx.audit.append(&entry).await.inspect_err(|_| {
            self.outcome = Code::AuditUnavailable.as_str();
        })?;
        // Only now: who leaves while waiting for room in the queue has told nothing.
        self.told = true;
        self.ctx.audit.wait(appended, Category::Call).await
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.ctx.audit.post(self.entry(self.outcome, 0));
        }
    }
}
