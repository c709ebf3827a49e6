//! Typed, prefixed identifiers.
//!
//! An id is a prefix and sixteen characters of lower-case base32 (80 random bits), so it is safe
//! as a path component, a cgroup leaf name and a URL segment. Mixing two kinds does not compile.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Characters after the prefix.
pub const ID_CHARS: usize = 16;
/// Random bytes an id is made from.
pub const ID_BYTES: usize = 10;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// What a byte is worth as a digit.
const DIGITS: [Option<u8>; 256] = {
    let mut digits = [None; 256];
    let mut digit = 0u8;
    while (digit as usize) < ALPHABET.len() {
        digits[ALPHABET[digit as usize] as usize] = Some(digit);
        digit += 1;
    }
    digits
};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id of the form {prefix}<16 characters>")]
pub struct IdError {
    /// The prefix that was wanted.
    pub prefix: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
}

fn encode(bytes: [u8; ID_BYTES], out: &mut [u8]) {
    let mut value = bytes
        .iter()
        .fold(0u128, |acc, b| (acc << 8) | u128::from(*b));
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
}

/// The inverse of [`encode`]; only ever given the 16 checked characters of an id.
fn decode(body: &str) -> [u8; ID_BYTES] {
    let value = body.bytes().fold(0u128, |acc, byte| {
        (acc << 5) | u128::from(DIGITS[usize::from(byte)].unwrap_or(0))
    });
    let mut out = [0u8; ID_BYTES];
    let low = value.to_be_bytes();
    for (to, from) in out.iter_mut().rev().zip(low.iter().rev()) {
        *to = *from;
    }
    out
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The prefix every id of this kind starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Makes an id from 80 random bits.
            #[must_use]
            pub fn from_random(bytes: [u8; ID_BYTES]) -> Self {
                let mut text = [0; $prefix.len() + ID_CHARS];
                let (prefix, body) = text.split_at_mut($prefix.len());
                prefix.copy_from_slice($prefix.as_bytes());
                encode(bytes, body);
                Self(str::from_utf8(&text).unwrap_or_default().into())
            }

            /// Parses the text form.
            ///
            /// # Errors
            /// [`IdError`] if the prefix, the length or a character is wrong.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let body = text.strip_prefix($prefix).unwrap_or_default();
                if body.len() == ID_CHARS && body.bytes().all(|b| DIGITS[usize::from(b)].is_some()) {
                    Ok(Self(text.into()))
                } else {
                    Err(IdError { prefix: $prefix, text: text.chars().take(64).collect() })
                }
            }

            /// The 80 bits the id was made from: its form inside tokens.
            #[must_use]
            pub fn bits(&self) -> [u8; ID_BYTES] {
                decode(self.short())
            }

            /// The text form, prefix included.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The part after the prefix: what cgroup leaves and short tables show.
            #[must_use]
            pub fn short(&self) -> &str {
                self.0.strip_prefix($prefix).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }
    )+};
}

ids! {
    /// A person or service account whose isolates we run.
    UserId = "usr_";
    /// A named set of users that is granted mcps.
    GroupId = "grp_";
    /// A preshared client key.
    KeyId = "key_";
    /// A published server definition.
    McpId = "mcp_";
    /// One registered client.
    SessionId = "ses_";
    /// One connection of a registered client, as the standard client counts them.
    ConnectionId = "con_";
    /// One isolate or shared instance: the slot, not one run of it.
    IsolateId = "iso_";
    /// One tool call.
    CallId = "call_";
    /// One kill switch or suspension.
    DenyId = "deny_";
    /// A tool call whose client does not wait for it.
    TaskId = "tsk_";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_other_kinds() {
        let id = UserId::from_random([7; ID_BYTES]);
        assert_eq!(UserId::parse(id.as_str()), Ok(id.clone()));
        assert_eq!(id.short().len(), ID_CHARS);
        assert!(McpId::parse(id.as_str()).is_err());
        for bad in [
            "",
            "usr_",
            "usr_../../etc/passwd",
            "usr_0123456789abcdeI",
            "usr_0123456789abcdef0",
        ] {
            assert!(UserId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn bits_come_back() {
        for bytes in [
            [0; ID_BYTES],
            [255; ID_BYTES],
            [1, 2, 3, 4, 5, 6, 7, 8, 9, 250],
        ] {
            assert_eq!(SessionId::from_random(bytes).bits(), bytes);
        }
    }

    #[test]
    fn different_bits_give_different_ids() {
        let last = |byte| CallId::from_random([0, 0, 0, 0, 0, 0, 0, 0, 0, byte]);
        assert_eq!(last(0).as_str(), "call_0000000000000000");
        assert_eq!(last(1).as_str(), "call_0000000000000001");
    }
}
