//! Calls that are under way: a list, and cancelling one.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Instant, timeout};

use crate::domain::code::Code;
use crate::domain::ids::{CallId, McpId};
use crate::domain::kill::Target;
use crate::domain::limits::{CALLS_LISTED_MAX, CANCEL_GRACE};
use crate::domain::mcp::Sharing;
use crate::domain::verdict::Verdict;

use super::super::audit::Entry;
use super::super::calls::{Tag, Why};
use super::super::handle::Cut;
use super::super::slot::{Occupant, Slot};
use super::super::views::{CallList, CallView, CancelReport};
use super::about::with_ids;
use super::{Control, ControlError, isolates};

/// What becomes of a server that does not end a cancelled call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recycle {
    /// It starts afresh if it serves one user alone; a shared one goes on.
    OwnOnly,
    /// It starts afresh, also if it is shared and others have calls on it.
    Always,
    /// It goes on.
    Never,
}

impl Control {
    /// The calls under way, the newest last; of too many, the oldest are shown.
    #[must_use]
    pub fn calls(&self) -> CallList {
        let mut calls: Vec<(Instant, CallView)> = Vec::new();
        let mut flying = HashSet::new();
        let slots: Vec<Arc<Slot>> = self.ctx.slots.pin().values().cloned().collect();
        for slot in slots {
            for tag in slot
                .occupant()
                .map(|run| run.handle.tags())
                .unwrap_or_default()
            {
                flying.insert(tag.call.clone());
                let isolate = Some(slot.id.to_string());
                let view = view(&tag, slot.mcp.name.as_str(), "in_flight", isolate);
                calls.push((tag.since, view));
            }
        }
        for seated in self.ctx.waiting.all() {
            if !flying.contains(&seated.tag.call) {
                let view = view(&seated.tag, seated.name.as_str(), "waiting", None);
                calls.push((seated.tag.since, view));
            }
        }
        calls.sort_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.id.cmp(&two.id)));
        let total = calls.len() as u64;
        let shown = calls.into_iter().take(CALLS_LISTED_MAX);
        CallList {
            calls: shown.map(|(_, view)| view).collect(),
            total,
        }
    }

    /// Cancels one call: its caller is told the reason at once, its server is told to stop. A
    /// server that does not answer within the grace goes on working on it, for all we can know:
    /// then it starts afresh, as `recycle` says, and its other callers are told why.
    ///
    /// # Errors
    /// No such call is under way.
    pub async fn cancel_call(
        &self,
        text: &str,
        reason: &str,
        recycle: Recycle,
        author: &str,
    ) -> Result<CancelReport, ControlError> {
        let id = self.call_id(text)?;
        let about = self.of_call(&id);
        let reason: Arc<str> = reason.into();
        // First where it waits, then where it flies: one that goes from here to there sees it.
        let waited = self.ctx.waiting.cancel(&id, &reason);
        let why = Why::Asked(Arc::clone(&reason));
        let slots: Vec<Arc<Slot>> = self.ctx.slots.pin().values().cloned().collect();
        let flying = slots.into_iter().find_map(|slot| {
            let run = slot.occupant()?;
            let answered = run.handle.cancel_one(&id, &why)?;
            Some((slot, run, answered))
        });
        let mut report = CancelReport {
            call: id.to_string(),
            reason: reason.to_string(),
            ..CancelReport::default()
        };
        match flying {
            None if waited => "waiting".clone_into(&mut report.state),
            None => return Err(gone(&id)),
            Some((slot, run, answered)) => {
                "in_flight".clone_into(&mut report.state);
                report.isolate = Some(slot.id.to_string());
                let since = Instant::now();
                let end = timeout(CANCEL_GRACE, answered).await;
                run.handle.unwatch();
                report.waited_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
                report.server = match end {
                    Ok(Ok(Ok(_))) => "answered",
                    Ok(Ok(Err(Cut::Ended(_) | Cut::Cancelled(_)))) => "ended",
                    Ok(Ok(Err(Cut::Refused)) | Err(_)) => "never_sent",
                    Err(_) => "silent",
                }
                .to_owned();
                let may = match recycle {
                    Recycle::Always => true,
                    Recycle::OwnOnly => slot.sharing() != Sharing::Shared,
                    Recycle::Never => false,
                };
                if report.server == "silent" && may {
                    self.recycle(&slot, &run, &reason, &mut report).await;
                }
            }
        }
        let entry = Entry::new("call.cancelled", self.ctx.wall_ms())
            .field("call", id.as_str())
            .field("reason", &reason)
            .field("by", author)
            .field("server", &report.server)
            .field("recycled", if report.recycled { "yes" } else { "no" })
            .number("others", report.others_told);
        let entry = with_ids(entry, &about, &self.ctx.routes.load().directory);
        // Cancelled is cancelled, on record or not.
        let _ = self.ctx.audit.commit(entry).await;
        Ok(report)
    }

    /// Ends a run that goes on with a cancelled call. The next call finds a fresh one.
    async fn recycle(
        &self,
        slot: &Arc<Slot>,
        run: &Occupant,
        reason: &str,
        report: &mut CancelReport,
    ) {
        let same = slot.occupant().filter(|now| now.epoch == run.epoch);
        let Some(run) = same else {
            "ended".clone_into(&mut report.server);
            return;
        };
        let reason = reason.to_owned();
        report.others_told = run.kill(Verdict::Recycled { reason }) as u64;
        report.recycled = true;
        let runs = [(Arc::clone(slot), run.epoch)];
        report.left = isolates::gone(&runs, self.ctx.settings.kill_wait).await;
    }

    /// Whose call it is, and of what, if it is under way.
    pub(super) fn of_call(&self, id: &CallId) -> Vec<Target> {
        let about = |tag: &Tag, mcp: &McpId| {
            vec![
                Target::User(tag.session.user.id.clone()),
                Target::Tool(mcp.clone(), tag.tool.clone()),
                Target::Client(tag.session.key.clone()),
            ]
        };
        let waiting = self.ctx.waiting.all().into_iter();
        if let Some(seated) = waiting.into_iter().find(|seated| seated.tag.call == *id) {
            return about(&seated.tag, &seated.mcp);
        }
        let slots = self.ctx.slots.pin();
        let mut flying = slots.values().filter_map(|slot| {
            let tags = slot.occupant()?.handle.tags();
            let tag = tags.into_iter().find(|tag| tag.call == *id)?;
            Some(about(&tag, &slot.key.mcp))
        });
        flying.next().unwrap_or_default()
    }

    /// The call that an id means, or a part of its beginning that no other has.
    ///
    /// # Errors
    /// No call under way begins so, or several do.
    pub fn call_id(&self, text: &str) -> Result<CallId, ControlError> {
        if let Ok(id) = CallId::parse(text) {
            return Ok(id);
        }
        let start = text.strip_prefix(CallId::PREFIX).unwrap_or(text);
        let shown: String = text.chars().take(64).collect();
        let mut fits: Vec<String> = self.calls().calls.into_iter().map(|call| call.id).collect();
        fits.retain(|id| {
            let short = id.strip_prefix(CallId::PREFIX).unwrap_or(id);
            !start.is_empty() && short.starts_with(start)
        });
        match (fits.pop(), fits.is_empty()) {
            (Some(id), true) => CallId::parse(&id)
                .map_err(|error| ControlError::new(Code::Internal, error.to_string())),
            (Some(_), false) => {
                let message = format!("several calls have an id that begins with `{shown}`");
                Err(ControlError::new(Code::Conflict, message).next("give more of the id"))
            }
            (None, _) => {
                let message = format!("no call `{shown}` is under way");
                Err(ControlError::new(Code::NotFound, message).next("legation call list"))
            }
        }
    }
}

fn gone(id: &CallId) -> ControlError {
    let message = format!("call `{id}` is not under way (any more)");
    ControlError::new(Code::NotFound, message).next("legation call list")
}

/// A call as administrators see it.
pub(super) fn view(tag: &Tag, mcp: &str, state: &str, isolate: Option<String>) -> CallView {
    let session = &tag.session;
    CallView {
        id: tag.call.to_string(),
        user: session.user.name.to_string(),
        mcp: mcp.to_owned(),
        tool: tag.tool.to_string(),
        client: session.row.friendly_name.clone(),
        host_tool: session.row.host_tool.clone(),
        key: session.key.to_string(),
        session: session.id().to_string(),
        isolate,
        age_ms: u64::try_from(tag.since.elapsed().as_millis()).unwrap_or(u64::MAX),
        state: state.to_owned(),
    }
}
