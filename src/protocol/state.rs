//! `requestState` of a call that waits for its client's answers: what a client shows when it comes back with
//! them, and cannot make, change, or use for anything else.
//!
//! It names a call that this process holds; the seal binds it to the key that called, the request, the round and
//! the time it is good for.

mod passing;

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

/// Bytes of the secret.
pub const SECRET_BYTES: usize = 64;

const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// Version, process, call, round, end.
const PLAIN_BYTES: usize = 1 + 8 + 16 + 2 + 8;

/// What a state says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stub {
    /// Which call.
    pub call: [u8; 16],
    /// How often it has asked.
    pub round: u16,
    /// Until when, in milliseconds since the Unix epoch.
    pub until: i64,
}

/// What a state is good for and nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Bound<'a> {
    /// Who called.
    pub principal: &'a str,
    /// What was asked: [`digest`].
    pub request: &'a [u8; 32],
}

/// Why a state is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It was not made here, was changed, or belongs to another request or key.
    #[error(
        "this `requestState` does not belong to this request: send it as it was given, with the same parameters and key"
    )]
    Foreign,
    /// Another process made it.
    #[error(
        "the call that asked is not held here: the gateway was restarted, or the answer reached another one; call again without `requestState`"
    )]
    Elsewhere,
    /// Too late.
    #[error(
        "the call that asked has ended, for want of an answer in time; call again without `requestState`"
    )]
    Late,
    /// It was answered before, or has ended.
    #[error(
        "the call that asked does not wait for this answer: it was answered already, or has ended; call again without `requestState`"
    )]
    Gone,
}

/// Makes and reads states; its secret lives as long as the calls that it is about.
pub struct Sealer {
    process: [u8; 8],
    secret: [u8; SECRET_BYTES],
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealer").finish_non_exhaustive()
    }
}

impl Sealer {
    /// With random bytes: what tells processes apart, and the secret.
    #[must_use]
    pub const fn new(process: [u8; 8], secret: [u8; SECRET_BYTES]) -> Self {
        Self { process, secret }
    }

    fn mac(&self, plain: &[u8], bound: Bound<'_>) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new((&self.secret).into());
        mac.update(b"legation request state");
        mac.update(plain);
        mac.update(bound.request);
        mac.update(bound.principal.as_bytes());
        mac
    }

    /// A state, as text.
    #[must_use]
    pub fn seal(&self, stub: Stub, bound: Bound<'_>) -> String {
        let mut bytes = Vec::with_capacity(PLAIN_BYTES + MAC_BYTES);
        bytes.push(VERSION);
        bytes.extend(self.process);
        bytes.extend(stub.call);
        bytes.extend(stub.round.to_be_bytes());
        bytes.extend(stub.until.to_be_bytes());
        let mac = self.mac(&bytes, bound).finalize().into_bytes();
        bytes.extend(mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a state says.
    ///
    /// # Errors
    /// [`Refused`]; never [`Refused::Gone`], which only who holds the calls knows.
    pub fn open(&self, text: &str, bound: Bound<'_>, now: i64) -> Result<Stub, Refused> {
        // Long ones are not decoded to be refused.
        if text.len() > 2 * (PLAIN_BYTES + MAC_BYTES) {
            return Err(Refused::Foreign);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Refused::Foreign)?;
        let (plain, mac) = bytes
            .split_at_checked(PLAIN_BYTES)
            .ok_or(Refused::Foreign)?;
        let (version, rest) = plain.split_first().ok_or(Refused::Foreign)?;
        let (process, rest) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        let (call, rest) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        let (round, rest) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        let (until, _) = rest.split_first_chunk().ok_or(Refused::Foreign)?;
        if *version != VERSION || mac.len() != MAC_BYTES {
            return Err(Refused::Foreign);
        }
        if *process != self.process {
            return Err(Refused::Elsewhere);
        }
        self.mac(plain, bound)
            .verify_slice(mac)
            .map_err(|_| Refused::Foreign)?;
        let stub = Stub {
            call: *call,
            round: u16::from_be_bytes(*round),
            until: i64::from_be_bytes(*until),
        };
        match stub.until > now {
            true => Ok(stub),
            false => Err(Refused::Late),
        }
    }
}

/// Requests whose servers may ask their client, by the name of this method.
const ASKING: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];
/// What a client brings when it comes back.
const BROUGHT: [&str; 2] = ["inputResponses", "requestState"];

/// What is said beside a request.
const BESIDE: [&str; 3] = ["inputResponses", "requestState", "_meta"];
/// Bytes of parameters that are looked at member by member.
const CANONICAL_BYTES_MAX: usize = 64 << 10;

/// The method, if a server that works on it may ask.
#[must_use]
pub fn asking(method: &str) -> Option<&'static str> {
    ASKING.into_iter().find(|name| *name == method)
}

/// Whether parameters may have what a client brings, however its names are written.
#[must_use]
pub fn may_bring(params: &[u8]) -> bool {
    let has = |what: &[u8]| memchr::memmem::find(params, what).is_some();
    BROUGHT.iter().any(|name| has(name.as_bytes())) || has(b"\\u")
}

/// Parameters as they would be if nothing had been asked; the same, if that is so. What is no object of members
/// whose names are text has none.
#[must_use]
pub fn without_answers(params: &str) -> Cow<'_, str> {
    const NONE: &str = "{}";
    if !may_bring(params.as_bytes()) {
        return Cow::Borrowed(params);
    }
    let members = serde_json::from_str::<BTreeMap<Cow<'_, str>, &RawValue>>(params);
    let Ok(mut members) = members else {
        return Cow::Borrowed(NONE);
    };
    let all = members.len();
    members.retain(|name, _| !BROUGHT.contains(&&**name));
    match members.len() == all {
        true => Cow::Borrowed(params),
        false => Cow::Owned(serde_json::to_string(&members).unwrap_or_else(|_| NONE.to_owned())),
    }
}

/// A request in short, whatever its client answers in it and says beside it: method and parameters but for
/// `inputResponses`, `requestState` and `_meta`.
#[must_use]
pub fn digest(method: &str, params: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(method.as_bytes());
    hasher.update([0]);
    // Small ones are the same whatever order their members were written in, and however they are spaced.
    let small = (params.len() <= CANONICAL_BYTES_MAX).then(|| serde_json::from_slice(params).ok());
    if let Some(Some(Value::Object(mut members))) = small {
        for name in BESIDE {
            members.remove(name);
        }
        hasher.update(serde_json::to_vec(&members).unwrap_or_default());
        return hasher.finalize().into();
    }
    match serde_json::from_slice::<BTreeMap<Cow<'_, str>, &RawValue>>(params) {
        Ok(members) => {
            for (name, value) in members {
                if !BESIDE.contains(&&*name) {
                    hasher.update(name.as_bytes());
                    hasher.update([0]);
                    hasher.update(value.get().as_bytes());
                    hasher.update([0]);
                }
            }
        }
        Err(_) => hasher.update(params),
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STUB: Stub = Stub {
        call: [7; 16],
        round: 3,
        until: 1000,
    };

    fn sealer() -> Sealer {
        Sealer::new([1; 8], [2; SECRET_BYTES])
    }

    #[test]
    fn a_state_is_good_for_its_request_its_key_and_its_time() {
        let request = digest("tools/call", br#"{"name":"a","arguments":{"x":1,"y":2}}"#);
        let same = digest(
            "tools/call",
            br#"{"arguments":{"y":2,"x":1},"requestState":"s","inputResponses":{},"name":"a","_meta":{}}"#,
        );
        assert_eq!(request, same);
        let other = digest("tools/call", br#"{"name":"a","arguments":{"x":1,"y":3}}"#);
        let bound = |principal, request| Bound { principal, request };
        let sealer = sealer();
        let text = sealer.seal(STUB, bound("key_a", &request));
        let open =
            |text: &str, principal, request, now| sealer.open(text, bound(principal, request), now);
        assert_eq!(open(&text, "key_a", &same, 999), Ok(STUB));
        assert_eq!(open(&text, "key_a", &request, 1000), Err(Refused::Late));
        assert_eq!(open(&text, "key_b", &request, 1), Err(Refused::Foreign));
        assert_eq!(open(&text, "key_a", &other, 1), Err(Refused::Foreign));
        let elsewhere = Sealer::new([9; 8], [2; SECRET_BYTES]);
        assert_eq!(
            elsewhere.open(&text, bound("key_a", &request), 1),
            Err(Refused::Elsewhere)
        );
        assert_eq!(open("", "key_a", &request, 1), Err(Refused::Foreign));
        assert_eq!(
            open(&"A".repeat(4096), "key_a", &request, 1),
            Err(Refused::Foreign)
        );
    }

    #[test]
    fn large_requests_and_numbers_beyond_ours_are_told_apart() {
        let of = |note: &str, more: &str| {
            digest(
                "tools/call",
                format!(r#"{{"note":"{note}",{more}}}"#).as_bytes(),
            )
        };
        let large = format!(r#""x":"{}""#, "x".repeat(CANONICAL_BYTES_MAX));
        for more in [r#""z":1e999"#, &large] {
            assert_ne!(of("a", more), of("b", more));
            assert_eq!(
                of("a", more),
                of("a", &format!(r#"{more},"requestState":"s""#))
            );
        }
    }

    #[test]
    fn a_name_with_escapes_is_the_same_name() {
        for brought in [
            r#""requestState":"s""#,
            r#""requestStat\u0065":"s""#,
            r#""inputResponse\u0073":{}"#,
            r#""requestState":"s","requestStat\u0065":"t""#,
            // What none of ours reads as a value.
            r#""requestState":"\ud800","x":1e999"#,
        ] {
            let given = format!(r#"{{"name":"a\u0062","n":1.0e2,{brought}}}"#);
            assert!(may_bring(given.as_bytes()), "{given}");
            let without = without_answers(&given);
            assert!(
                without.contains(r#""n":1.0e2,"name":"a\u0062""#),
                "{without}"
            );
            assert!(
                !without.contains("inputRes") && !without.contains("requestSta"),
                "{without}"
            );
        }
        let same = r#"{ "name":"\u0061", "a":{"requestState":"s"} }"#;
        assert_eq!(without_answers(same), same);
        assert_eq!(without_answers(r#"{"\ud800":1,"requestState":"s"}"#), "{}");
    }

    proptest! {
        #[test]
        fn a_changed_state_is_none(at in 0usize..90, flip in 1u8..=255, junk in ".{0,200}") {
            let request = digest("tools/call", b"{}");
            let bound = Bound { principal: "key_a", request: &request };
            let sealer = sealer();
            let mut bytes = URL_SAFE_NO_PAD.decode(sealer.seal(STUB, bound)).unwrap();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= flip;
                prop_assert!(sealer.open(&URL_SAFE_NO_PAD.encode(bytes), bound, 1).is_err());
            }
            prop_assert!(sealer.open(&junk, bound, 1).is_err());
            let _ = digest("x", junk.as_bytes());
        }
    }
}
