//! Who is not let in: why, for whom, and how that is put on record.

use std::net::IpAddr;

use crate::domain::account::Key;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::token::PresharedKey;
use crate::telemetry::metrics::labels::Auth;

use super::super::audit::Entry;
use super::super::ctx::Ctx;
use super::super::session::SessionHandle;
use super::Refusal;

/// Somebody who is not let in: what the client is told, and what only the log and the metrics say.
#[derive(Debug)]
pub(super) struct Declined {
    pub(super) refusal: Refusal,
    /// Whose key was shown, if it was one of ours in full.
    of: Option<(KeyId, UserId)>,
    /// Why the key is good no more. The client is told as much as of one that never was.
    over: Option<Over>,
}

/// How a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Revoked,
    Expired,
}

// === impl Declined ===

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            of: None,
            over: None,
        }
    }
}

impl Declined {
    /// Of whoever showed this key.
    pub(super) fn of(key: &Key, refusal: Refusal) -> Self {
        Self {
            of: Some((key.id.clone(), key.user.clone())),
            ..refusal.into()
        }
    }

    /// Of whoever showed this key, which is over.
    pub(super) fn over(key: &Key, over: Over, refusal: Refusal) -> Self {
        Self {
            over: Some(over),
            ..Self::of(key, refusal)
        }
    }

    /// How it counts.
    pub(super) const fn outcome(&self) -> Auth {
        match self.over {
            Some(Over::Revoked) => Auth::Revoked,
            Some(Over::Expired) => Auth::Expired,
            None => Auth::of(self.refusal.code),
        }
    }

    /// Why, in a word: the code, or how the key ended.
    pub(super) const fn why(&self) -> &'static str {
        match self.over {
            Some(Over::Revoked) => "revoked",
            Some(Over::Expired) => "expired",
            None => self.refusal.code.as_str(),
        }
    }

    /// The record of it with whose key it was, and why that is not taken.
    pub(super) fn named(&self, entry: Entry) -> Entry {
        let entry = entry.field("outcome", self.refusal.code.as_str());
        let entry = match self.over {
            Some(_) => entry.field("reason", self.why()),
            None => entry,
        };
        match &self.of {
            Some((key, user)) => entry
                .field("user", user.as_str())
                .field("key", key.as_str()),
            None => entry,
        }
    }
}

/// The part of a key that may be told. Only what has the form of one has it; the rest is never repeated.
pub(super) fn public_prefix(text: &str) -> String {
    PresharedKey::parse(text).map_or_else(|_| String::new(), |key| key.public_prefix().to_owned())
}

/// Records a key that was shown with a request and not taken: of many alike the first, then how many.
pub(super) fn record_declined(ctx: &Ctx, shown: &str, declined: &Declined, from: Option<IpAddr>) {
    let prefix = public_prefix(shown);
    if !ctx.refusals.is_first("key", &prefix, declined.why()) {
        return;
    }
    let entry = Entry::new("auth.refused", ctx.wall_ms()).field("prefix", &prefix);
    let entry = declined.named(with_address(entry, from));
    ctx.audit.post(entry);
}

/// Records a token that was not taken: of many alike the first, then how many.
pub(super) fn record_refused(
    ctx: &Ctx,
    session: Option<&SessionHandle>,
    refusal: &Refusal,
    from: Option<IpAddr>,
) {
    let (code, who) = (
        refusal.code.as_str(),
        session.map_or("", |session| session.id().as_str()),
    );
    if !ctx.refusals.is_first("token", who, code) {
        return;
    }
    let entry = Entry::new("auth.refused", ctx.wall_ms()).field("outcome", code);
    let mut entry = with_address(entry, from);
    if let Some(session) = session {
        entry = entry
            .field("session", who)
            .field("user", session.user.id.as_str())
            .field("key", session.key.as_str());
    }
    ctx.audit.post(entry);
}

/// Where a client is, if it is known.
pub(super) fn with_address(entry: Entry, from: Option<IpAddr>) -> Entry {
    match from {
        Some(from) => entry.field("address", &from.to_string()),
        None => entry,
    }
}
