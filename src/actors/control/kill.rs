//! Switching on and off: the order of effects of house rule 7.
//!
//! The first half, up to the kills, is one piece of work on a thread that may wait for the disk: no
//! administrator who hangs up and no actor that is busy can part it. The second half waits: for the
//! processes, for the store, for the audit log.

mod strike;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};

use crate::domain::account::Millis;
use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Ending, Kind, Lifted, Scope, Target};
use crate::domain::limits::{KILL_LISTED_MAX, KILL_LOOKUP_MAX, KILL_SAVE_WAIT};

use super::super::clock::id_bits;
use super::super::killswitch::{self, Action, SwitchError};
use super::super::views::{DenyReport, DenyView, Left};
use super::target::Named;
use super::{Control, ControlError, isolates};

use strike::Struck;

/// What an administrator wants denied.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Kill switch or suspension.
    pub kind: Kind,
    /// Of what.
    pub of: Named,
    /// Why: callers are told.
    pub reason: String,
    /// When it ends by itself.
    pub expires_at: Option<Millis>,
}

impl Control {
    /// Denies a target: on the disk first, then in force, then what runs of it is ended. Returns
    /// when that is dead, or after `kill_wait`, and then names what is left.
    ///
    /// # Errors
    /// It is on already, makes no sense, or the journal cannot be written: then nothing was done.
    pub async fn switch_on(
        &self,
        wanted: Wanted,
        author: &str,
    ) -> Result<DenyReport, ControlError> {
        let since = Instant::now();
        let deny = self.new_deny(wanted, author)?;
        let striker = self.clone();
        let struck = spawn_blocking(move || striker.strike(deny, since)).await;
        let struck = struck.map_err(|error| {
            let message = format!("the kill switch broke off: {error}");
            ControlError::new(Code::Internal, message)
        })??;
        let left = isolates::gone(&struck.runs, self.ctx.settings.kill_wait).await;
        let took = since.elapsed();
        let scope = struck.deny.target.scope();
        let stats = &self.ctx.kill.stats;
        stats.observe(scope, took);
        stats.count_change(scope, Action::On);
        stats.count_cancelled(scope, struck.calls);
        stats.count_unkillable(left.len() as u64);
        let not_stored = self.stored(struck.seq).await;
        let not_recorded = self
            .record(&struck, &left, took, not_stored.is_none())
            .await;
        let mut report = struck.report(false);
        report.deny.stored = not_stored.is_none();
        report.took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        report.gone_us = micros(took);
        report.survivors = left.iter().flat_map(|one| one.pids.clone()).collect();
        (report.left, report.not_stored) = (left, not_stored);
        report.not_recorded = not_recorded;
        Ok(report)
    }

    /// What [`Control::switch_on`] would do now. Changes nothing.
    ///
    /// # Errors
    /// It is on already, or makes no sense.
    pub fn impact(&self, wanted: Wanted, author: &str) -> Result<DenyReport, ControlError> {
        let deny = Arc::new(self.new_deny(wanted, author)?);
        let listing = self.ctx.kill.listing();
        let now = self.now_ms();
        let on = listing.active.iter().find(|one| {
            (one.kind, &one.target) == (deny.kind, &deny.target) && !one.is_expired(now)
        });
        if let Some(first) = on {
            return Err(refusal(SwitchError::Taken(Arc::clone(first))));
        }
        Ok(self.survey(deny).report(true))
    }

    fn new_deny(&self, wanted: Wanted, author: &str) -> Result<Deny, ControlError> {
        let deny = Deny {
            id: DenyId::from_random(id_bits()),
            kind: wanted.kind,
            target: wanted.of.target,
            label: wanted.of.label,
            reason: wanted.reason.trim().to_owned(),
            author: author.to_owned(),
            created_at: self.now_ms(),
            expires_at: wanted.expires_at,
            lifted: None,
        };
        deny.check()
            .map_err(|error| ControlError::new(Code::InvalidRequest, error.to_string()))?;
        Ok(deny)
    }

    /// Lifts the deny of a target. Sessions that a suspension ended stay ended.
    ///
    /// # Errors
    /// None is on there, or the journal cannot be written: then it stays on.
    pub async fn switch_off(
        &self,
        kind: Kind,
        scope: Scope,
        text: &str,
        author: &str,
    ) -> Result<DenyView, ControlError> {
        let target = match self.denied_target(kind, scope, text) {
            Some(target) => target,
            None => self.target(scope, text).await?.target,
        };
        let lifted = Lifted {
            at: self.now_ms(),
            by: author.to_owned(),
            how: Ending::Lifted,
        };
        let ctx = Arc::clone(&self.ctx);
        let off =
            spawn_blocking(move || ctx.kill.change(|ledger| ledger.off(kind, &target, lifted)));
        let off = off.await.map_err(|error| {
            let message = format!("lifting it broke off: {error}");
            ControlError::new(Code::Internal, message)
        })?;
        let (deny, seq) = match off {
            Err(SwitchError::NotOn) => {
                let what = match kind {
                    Kind::KillSwitch => "kill switch is on",
                    Kind::Suspension => "suspension is in force",
                };
                let message = format!("no {what} for {scope} `{text}`");
                return Err(
                    ControlError::new(Code::NotFound, message).next("legation kill-switch list")
                );
            }
            other => other.map_err(refusal)?,
        };
        self.ctx.kill.stats.count_change(scope, Action::Off);
        let not_stored = self.stored(seq).await;
        let entry = killswitch::entry("kill.off", &self.ctx, &deny).field("by", author);
        // It is off, on record or not; the log's keeper tells of its own trouble.
        let _ = self.ctx.audit.commit(entry).await;
        let mut view = view(&deny, not_stored.is_none());
        view.not_stored = not_stored;
        Ok(view)
    }

    /// Waits a moment for the store to have a change; why it does not, if it does not.
    async fn stored(&self, seq: u64) -> Option<String> {
        let mut stored = self.ctx.kill.stored();
        self.ctx.kill.save();
        let heard = stored.wait_for(|stored| {
            stored.seq >= seq || (stored.tried >= seq && stored.failing.is_some())
        });
        match timeout(KILL_SAVE_WAIT, heard).await {
            Ok(Ok(stored)) if stored.seq >= seq => None,
            Ok(Ok(stored)) => stored.failing.clone(),
            _ => {
                let seconds = KILL_SAVE_WAIT.as_secs();
                Some(format!("the store has not answered within {seconds} s"))
            }
        }
    }

    /// Puts a kill with its measured times on record; why it is not, if it is not.
    async fn record(
        &self,
        struck: &Struck,
        left: &[Left],
        took: Duration,
        stored: bool,
    ) -> Option<String> {
        let times = &struck.times;
        let entry = killswitch::entry("kill.on", &self.ctx, &struck.deny)
            .number("isolates", struck.runs.len() as u64)
            .number("calls", struck.calls)
            .number("sessions", struck.sessions)
            .number("left", left.len() as u64)
            .number("journal_us", micros(times.journal))
            .number("told_us", micros(times.told))
            .number("killed_us", micros(times.killed))
            .number("gone_us", micros(took))
            .field("stored", if stored { "yes" } else { "not yet" });
        let appended = match self.ctx.audit.append(&entry).await {
            Ok(appended) => appended,
            Err(error) => return Some(error.to_string()),
        };
        let waited = self.ctx.audit.wait(appended, Category::Kill).await.err()?;
        Some(format!(
            "{waited}; its record waits in memory until it can be"
        ))
    }

    /// What is in force, oldest first; with `past`, the newest of what is not any more after it.
    /// Past ones need the store: without it, only what it has not taken over yet is shown.
    pub async fn denies(&self, past: bool) -> Vec<DenyView> {
        let listing = self.ctx.kill.listing();
        let unsaved = |id: &DenyId| listing.unsaved.iter().any(|one| one.id == *id);
        let mut views: Vec<DenyView> = listing
            .active
            .iter()
            .map(|deny| view(deny, !unsaved(&deny.id)))
            .collect();
        if past {
            let limit = u32::try_from(KILL_LISTED_MAX).unwrap_or(u32::MAX);
            let stored = timeout(KILL_LOOKUP_MAX, self.ctx.store.deny_history(limit)).await;
            let fresh = listing.unsaved.iter().filter(|deny| deny.lifted.is_some());
            let mut over: Vec<DenyView> = fresh.map(|deny| view(deny, false)).collect();
            let known = stored.ok().and_then(Result::ok).unwrap_or_default();
            let known = known.into_iter().filter(|deny| {
                !unsaved(&deny.id) && !listing.active.iter().any(|one| one.id == deny.id)
            });
            over.extend(known.map(|deny| view(&deny, true)));
            over.sort_by_key(|one| std::cmp::Reverse(one.deny.created_at));
            views.extend(over);
        }
        views.truncate(KILL_LISTED_MAX);
        views
    }

    /// One kill switch or suspension, past or in force, by its id or a part of its beginning.
    ///
    /// # Errors
    /// None has this id, or several begin with it.
    pub async fn deny(&self, text: &str) -> Result<DenyView, ControlError> {
        if let Ok(id) = DenyId::parse(text)
            && !self.ctx.kill.listing().knows(&id)
        {
            return Ok(view(&self.ctx.store.deny(&id).await?, true));
        }
        let start = text.strip_prefix(DenyId::PREFIX).unwrap_or(text);
        let mut found = self.denies(true).await;
        found.retain(|one| !start.is_empty() && one.deny.id.short().starts_with(start));
        let shown: String = text.chars().take(64).collect();
        match (found.pop(), found.is_empty()) {
            (Some(one), true) => Ok(one),
            (None, _) => {
                let message = format!("kill switch `{shown}` does not exist");
                let next = "legation kill-switch list --history";
                Err(ControlError::new(Code::NotFound, message).next(next))
            }
            (Some(_), false) => {
                let message =
                    format!("several kill switches have an id that begins with `{shown}`");
                Err(ControlError::new(Code::Conflict, message).next("give more of the id"))
            }
        }
    }

    /// Why a target is denied, if it is: for lists of users, keys and mcps.
    #[must_use]
    pub fn denied_reason(&self, kind: Kind, target: &Target) -> Option<String> {
        let listing = self.ctx.kill.listing();
        let now = self.now_ms();
        let on = listing
            .active
            .iter()
            .find(|one| one.kind == kind && one.target == *target && !one.is_expired(now));
        on.map(|deny| deny.reason.clone())
    }

    /// All that is denied now, for lists that ask for many.
    #[must_use]
    pub fn denied_targets(&self, kind: Kind) -> HashSet<Target> {
        let (listing, now) = (self.ctx.kill.listing(), self.now_ms());
        let on = listing.active.iter();
        let on = on.filter(|one| one.kind == kind && !one.is_expired(now));
        on.map(|deny| deny.target.clone()).collect()
    }
}

/// A deny as administrators see it.
pub(super) fn view(deny: &Deny, stored: bool) -> DenyView {
    DenyView {
        deny: deny.clone(),
        state: match &deny.lifted {
            None => "on".to_owned(),
            Some(lifted) => lifted.how.word().to_owned(),
        },
        stored,
        not_stored: None,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn refusal(error: SwitchError) -> ControlError {
    let message = error.to_string();
    match &error {
        SwitchError::Taken(first) => {
            let (scope, target) = (first.target.scope(), first.target.text());
            let next = match (first.kind, &first.target) {
                (Kind::Suspension, Target::Client(key)) => format!("legation key resume {key}"),
                (Kind::Suspension, _) => format!("legation user resume {}", first.label),
                (Kind::KillSwitch, Target::All) => {
                    "legation kill-switch off --scope all".to_owned()
                }
                (Kind::KillSwitch, _) => {
                    format!("legation kill-switch off --scope {scope} --target {target}")
                }
            };
            ControlError::new(Code::Conflict, message).next(next)
        }
        SwitchError::NotOn => ControlError::new(Code::NotFound, message),
        SwitchError::Full => ControlError::new(Code::KillSwitchesMax, message),
        SwitchError::Starting => ControlError::new(Code::Starting, message),
        SwitchError::Journal(journal) => {
            ControlError::new(journal.code(), format!("nothing was switched: {message}"))
        }
    }
}
