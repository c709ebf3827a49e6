//! What clients present: session tokens and preshared keys. Pure: keys, times and random bytes
//! are passed in.
//!
//! A session token is `amb_st_` and the base64url text of 66 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, 1 |
//! | 1 | id of the key that signed it |
//! | 10 | the session id's bits |
//! | 6 | issued at, milliseconds since the epoch, big-endian |
//! | 32 | random |
//! | 16 | HMAC-SHA256 over a domain block and all of the above, cut to 128 bits |
//!
//! It is verified without the database and without touching the heap. Whether the session still
//! lives is not a token's business.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::account::Millis;
use super::hex::hex;
use super::ids::{ID_BYTES, SessionId};

/// What every session token starts with.
pub const TOKEN_PREFIX: &str = "amb_st_";
/// What every preshared key starts with.
pub const KEY_PREFIX: &str = "amb_pk_";
/// Random bytes in a session token.
pub const TOKEN_RANDOM_BYTES: usize = 32;
/// Bytes of a key that signs tokens.
pub const TOKEN_KEY_BYTES: usize = 64;
/// Random bytes a preshared key is made from.
pub const KEY_RANDOM_BYTES: usize = 36;
/// Characters of a preshared key after its prefix.
pub const KEY_CHARS: usize = 48;
/// Characters after the prefix by which a preshared key is found.
pub const KEY_PUBLIC_CHARS: usize = 8;

const VERSION: u8 = 1;
const ISSUED_AT_MAX: u64 = (1 << 48) - 1;
const SIGNED_BYTES: usize = 2 + ID_BYTES + 6 + TOKEN_RANDOM_BYTES;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES: usize = SIGNED_BYTES + TAG_BYTES;
const TOKEN_CHARS: usize = TOKEN_BYTES / 3 * 4;

/// Exactly one block of SHA-256, so that it is hashed once per key and not once per token.
const DOMAIN: &[u8; 64] = b"legation session token v1                                      \0";

type HmacSha256 = Hmac<Sha256>;

/// Why a text is not a token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not `amb_st_` and 88 base64url characters of a version we know.
    #[error("the session token is malformed; register again")]
    Malformed,
    /// Signed by a key we do not have (any more).
    #[error("the session token was signed by an unknown key; register again")]
    UnknownKey,
    /// The signature is not ours.
    #[error("the session token's signature is wrong; register again")]
    Forged,
}

/// Why keys cannot be used together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("two token keys have the id {id}; remove one of them")]
pub struct DoubleKeyId {
    /// The id that came twice.
    pub id: u8,
}

struct Signer {
    id: u8,
    rotated_at: Option<Millis>,
    /// Keyed and already fed with [`DOMAIN`]; a signature starts from a clone.
    state: HmacSha256,
}

/// The keys that sign session tokens: one signs, those that were rotated out still verify.
pub struct TokenKeys {
    current: Signer,
    rotated: Vec<Signer>,
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rotated: Vec<u8> = self.rotated.iter().map(|key| key.id).collect();
        f.debug_struct("TokenKeys")
            .field("current", &self.current.id)
            .field("rotated", &rotated)
            .finish_non_exhaustive()
    }
}

/// One key that signs tokens.
#[derive(Debug)]
pub struct TokenKey {
    /// Its id, part of each token.
    pub id: u8,
    /// The key.
    pub secret: SecretBox<[u8; TOKEN_KEY_BYTES]>,
}

/// What a genuine token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// The bits of the session's id, ready to look up.
    pub session: [u8; ID_BYTES],
    /// When it was signed.
    pub issued_at: Millis,
    /// When the key that signed it was rotated out; `None` if it is the current one.
    pub signed_by_rotated: Option<Millis>,
}

impl Verified {
    /// The session's id as text; allocates.
    #[must_use]
    pub fn session_id(&self) -> SessionId {
        SessionId::from_random(self.session)
    }

    /// The last moment at which the token works if it works for `age_ms` after it was signed or
    /// until its key is rotated out, and then for another `grace_ms`.
    #[must_use]
    pub fn good_until(&self, age_ms: i64, grace_ms: i64) -> Millis {
        let aged = self.issued_at.saturating_add(age_ms);
        self.signed_by_rotated
            .map_or(aged, |rotated| rotated.min(aged))
            .saturating_add(grace_ms)
    }
}

// === impl TokenKeys ===

impl Signer {
    fn new(key: &TokenKey, rotated_at: Option<Millis>) -> Self {
        let mut state = keyed(key.secret.expose_secret());
        state.update(DOMAIN);
        Self {
            id: key.id,
            rotated_at,
            state,
        }
    }

    fn over(&self, signed: &[u8]) -> HmacSha256 {
        let mut state = self.state.clone();
        state.update(signed);
        state
    }
}

impl TokenKeys {
    /// Takes the key that signs and those that were rotated out, with when.
    ///
    /// # Errors
    /// [`DoubleKeyId`].
    pub fn new(current: &TokenKey, rotated: &[(TokenKey, Millis)]) -> Result<Self, DoubleKeyId> {
        let mut keys = Self {
            current: Signer::new(current, None),
            rotated: Vec::with_capacity(rotated.len()),
        };
        for (key, at) in rotated {
            if keys.by_id(key.id).is_some() {
                return Err(DoubleKeyId { id: key.id });
            }
            keys.rotated.push(Signer::new(key, Some(*at)));
        }
        Ok(keys)
    }

    fn by_id(&self, id: u8) -> Option<&Signer> {
        std::iter::once(&self.current)
            .chain(&self.rotated)
            .find(|key| key.id == id)
    }

    /// Makes a token for a session with the current key. Times before 1970 or after the year
    /// 10000 are moved to that bound.
    #[must_use]
    pub fn sign(
        &self,
        session: &SessionId,
        issued_at: Millis,
        random: &[u8; TOKEN_RANDOM_BYTES],
    ) -> SecretString {
        let issued = u64::try_from(issued_at).unwrap_or(0).min(ISSUED_AT_MAX);
        let [_, _, issued @ ..] = issued.to_be_bytes();
        let mut bytes = Vec::with_capacity(TOKEN_BYTES);
        bytes.extend([VERSION, self.current.id]);
        bytes.extend(session.bits());
        bytes.extend(issued);
        bytes.extend(random);
        let tag = self.current.over(&bytes).finalize().into_bytes();
        bytes.extend(tag.iter().take(TAG_BYTES));
        let mut text = String::with_capacity(TOKEN_PREFIX.len() + TOKEN_CHARS);
        text.push_str(TOKEN_PREFIX);
        URL_SAFE_NO_PAD.encode_string(&bytes, &mut text);
        text.into()
    }

    /// Says what a token says, if one of the keys signed it. No allocation; the comparison takes
    /// the same time wherever the signature differs.
    ///
    /// # Errors
    /// [`TokenError`]; the caller answers all three alike.
    pub fn verify(&self, text: &str) -> Result<Verified, TokenError> {
        let body = text
            .strip_prefix(TOKEN_PREFIX)
            .filter(|body| body.len() == TOKEN_CHARS)
            .ok_or(TokenError::Malformed)?;
        let mut bytes = [0u8; TOKEN_BYTES];
        let length = URL_SAFE_NO_PAD
            .decode_slice(body, &mut bytes)
            .map_err(|_| TokenError::Malformed)?;
        let (signed, tag) = bytes.split_at(SIGNED_BYTES);
        let [VERSION, key_id, rest @ ..] = signed else {
            return Err(TokenError::Malformed);
        };
        let (session, rest) = rest
            .split_first_chunk::<ID_BYTES>()
            .ok_or(TokenError::Malformed)?;
        let (issued, _random) = rest.split_first_chunk::<6>().ok_or(TokenError::Malformed)?;
        if length != TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let key = self.by_id(*key_id).ok_or(TokenError::UnknownKey)?;
        key.over(signed)
            .verify_truncated_left(tag)
            .map_err(|_| TokenError::Forged)?;
        let issued_at = issued
            .iter()
            .fold(0i64, |value, byte| (value << 8) | i64::from(*byte));
        Ok(Verified {
            session: *session,
            issued_at,
            signed_by_rotated: key.rotated_at,
        })
    }
}

/// A key of exactly one block needs no hashing and cannot fail.
fn keyed(key: &[u8; TOKEN_KEY_BYTES]) -> HmacSha256 {
    HmacSha256::new(key.into())
}

/// Why a text is not a preshared key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a client key is {KEY_PREFIX} and {KEY_CHARS} characters of A-Z, a-z, 0-9, '_', '-'")]
pub struct KeyFormatError;

/// A preshared key as a client presents it. Never stored, never shown but once.
pub struct PresharedKey(SecretString);

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{KEY_PREFIX}{}…[redacted]", self.public_prefix())
    }
}

// === impl PresharedKey ===

impl PresharedKey {
    /// Makes a key from random bytes.
    #[must_use]
    pub fn from_random(bytes: &[u8; KEY_RANDOM_BYTES]) -> Self {
        let mut text = String::with_capacity(KEY_PREFIX.len() + KEY_CHARS);
        text.push_str(KEY_PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Self(text.into())
    }

    /// Parses what a client sent: exact length, exact alphabet.
    ///
    /// # Errors
    /// [`KeyFormatError`], which says nothing of what was sent.
    pub fn parse(text: &str) -> Result<Self, KeyFormatError> {
        match Self::is_one(text) {
            true => Ok(Self(text.into())),
            false => Err(KeyFormatError),
        }
    }

    /// Whether a text has the form of a key.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.strip_prefix(KEY_PREFIX).is_some_and(|body| {
            body.len() == KEY_CHARS
                && body
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        })
    }

    /// The public part it is found by.
    #[must_use]
    pub fn public_prefix(&self) -> &str {
        self.0
            .expose_secret()
            .get(KEY_PREFIX.len()..KEY_PREFIX.len() + KEY_PUBLIC_CHARS)
            .unwrap_or_default()
    }

    /// The whole key, to show it once.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.0
    }

    /// What storage keeps: lower-case hex of the digest under a pepper.
    #[must_use]
    pub fn digest(&self, pepper: &Pepper) -> String {
        hex(&pepper.digest(self.0.expose_secret()))
    }

    /// Whether it is the key whose digest is stored, compared in constant time. The caller picks
    /// the pepper by the stored pepper id.
    #[must_use]
    pub fn matches(&self, stored_digest: &str, pepper: &Pepper) -> bool {
        let mine = self.digest(pepper);
        mine.as_bytes().ct_eq(stored_digest.as_bytes()).into()
    }
}

/// The server's secret under which digests of preshared keys are made, so that a stolen database
/// alone is worth nothing.
pub struct Pepper {
    id: i64,
    state: HmacSha256,
}

impl Pepper {
    /// The digest of a key's text.
    #[must_use]
    pub fn digest(&self, key: &str) -> [u8; 32] {
        let mut state = self.state.clone();
        state.update(key.as_bytes());
        state.finalize().into_bytes().into()
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pepper")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Pepper {
    /// Takes a pepper and the id it is known by.
    #[must_use]
    pub fn new(id: i64, secret: &SecretBox<[u8; 32]>) -> Self {
        // HMAC pads a short key with zeros itself; done here, it is infallible.
        let mut block = Zeroizing::new([0u8; TOKEN_KEY_BYTES]);
        for (to, from) in block.iter_mut().zip(secret.expose_secret()) {
            *to = *from;
        }
        Self {
            id,
            state: keyed(&block),
        }
    }

    /// The id stored beside each digest.
    #[must_use]
    pub const fn id(&self) -> i64 {
        self.id
    }
}

#[cfg(test)]
mod tests;
