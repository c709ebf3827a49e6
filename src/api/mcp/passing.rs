//! Answers of servers without sessions on their way to clients without sessions: nothing is held for them here, and
//! what a server asks goes through as it is, but for its state, which is sealed to the client and its request.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::actors::front::{Failure, Front};
use crate::actors::session::SessionHandle;
use crate::domain::limits::{REQUEST_STATE_LIFE, millis};
use crate::domain::talk::{Question, Questions};
use crate::protocol::modern::{self, CAPABILITY_MISSING, Kept};
use crate::protocol::outbound::{self, Said};
use crate::protocol::questions;
use crate::protocol::state::{self, Bound, Sealer};
use crate::protocol::{jsonrpc, needed};

/// What is needed to pass something on.
#[derive(Debug)]
pub(super) struct Passing {
    pub(super) sealer: Arc<Sealer>,
    pub(super) front: Front,
    pub(super) session: Arc<SessionHandle>,
    /// What the client says that it can answer.
    pub(super) declared: Questions,
}

/// And for whom.
#[derive(Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) passing: &'a Passing,
    pub(super) server: &'a str,
    pub(super) principal: &'a str,
    pub(super) request: Option<&'a (&'static str, Bytes)>,
}

/// What becomes of an error.
pub(super) enum Passed {
    /// A result that asks.
    Asks(Bytes),
    /// Another error, or the same.
    Error(Option<Bytes>),
}

impl Bounds<'_> {
    fn seal(&self, own: Option<&str>) -> String {
        let (method, params) = match self.request {
            Some((method, params)) => (*method, &params[..]),
            None => ("", &b""[..]),
        };
        let bound = Bound {
            principal: self.principal,
            request: &state::digest(method, params),
        };
        let life = i64::try_from(millis(REQUEST_STATE_LIFE)).unwrap_or(i64::MAX);
        let until = self.passing.front.wall_ms().saturating_add(life);
        self.passing.sealer.seal_passing(own, until, bound)
    }

    /// A server's result.
    ///
    /// # Errors
    /// Why it cannot be passed on.
    pub(super) fn passed(self, result: &[u8], kept: Kept) -> Result<Bytes, String> {
        match outbound::said(result) {
            // What it may ask was looked at where its client's call was carried.
            Said::Asks => {
                let all = Questions::from_bits(u8::MAX);
                needed::passed(result, all, self.server, |own| self.seal(Some(own)))
            }
            Said::Complete | Said::Unknown(_) => {
                let kept = kept_by(result, kept);
                modern::complete(result, self.server, kept).map_err(ToOwned::to_owned)
            }
        }
    }

    /// A server's error, and what failed of it.
    pub(super) fn failed(self, error: &[u8], failure: &Failure) -> Passed {
        if failure.modern && is_incapable(error) {
            return Passed::Error(self.not_permitted(error));
        }
        if !failure.modern && self.request.is_some() && self.may_be_sent(failure) {
            let asks = needed::of_visits(error, self.server, || self.seal(None));
            if let Some(asks) = asks {
                return Passed::Asks(asks);
            }
        }
        Passed::Error(modern::error(error))
    }

    /// Whether the client's user may be sent to an address: it can be asked for that, and the operator permits it.
    fn may_be_sent(self, failure: &Failure) -> bool {
        let Passing {
            front,
            session,
            declared,
            ..
        } = self.passing;
        let (visit, mcp) = (Question::ElicitationUrl, failure.mcp.as_ref());
        declared.has(visit) && mcp.is_some_and(|mcp| front.permits(session, mcp.as_str(), visit))
    }

    /// Whether a server's error says that the client cannot do what it needs, and is passed on.
    pub(super) fn is_incapable(self, error: &[u8]) -> bool {
        is_incapable(error) && self.not_permitted(error).is_none()
    }

    /// Who can do what a server needs, and was not asked, is told why.
    fn not_permitted(self, error: &[u8]) -> Option<Bytes> {
        #[derive(Deserialize)]
        struct Error<'a> {
            #[serde(borrow)]
            data: Data<'a>,
        }
        #[derive(Deserialize)]
        struct Data<'a> {
            #[serde(borrow, rename = "requiredCapabilities")]
            required: &'a RawValue,
        }
        let read: Error<'_> = serde_json::from_slice(error).ok()?;
        let required = questions::declared(read.data.required.get());
        if required.is_empty() || self.passing.declared.both(required) != required {
            return None;
        }
        let code = jsonrpc::INTERNAL_ERROR;
        let text = format!(
            "the server needs an answer to `{required}`, and its operator does not permit it to ask"
        );
        let text = serde_json::to_string(&text).ok()?;
        Some(format!("{{\"code\":{code},\"message\":{text}}}").into())
    }
}

/// As long as its server says; where it says nothing, as long as is usual.
fn kept_by(result: &[u8], usual: Kept) -> Kept {
    #[derive(Deserialize)]
    struct Timed {
        #[serde(default, rename = "ttlMs")]
        ms: Option<u32>,
    }
    match (serde_json::from_slice(result), usual) {
        (Ok(Timed { ms: Some(ms) }), Kept::For(_)) => Kept::For(ms),
        _ => usual,
    }
}

/// Whether an error says that the client cannot do what its server needs.
fn is_incapable(error: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Error {
        code: i64,
    }
    serde_json::from_slice::<Error>(error).is_ok_and(|error| error.code == CAPABILITY_MISSING)
}
