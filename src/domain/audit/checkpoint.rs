//! Signed checkpoints: Ed25519 over where the chain was, so that a log that was rewritten as a
//! whole, hashes and all, is found out by whoever holds the public key.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::chain::{Hash, Tip};
use crate::domain::account::Millis;
use crate::domain::hex::hex;

/// Bytes of a secret key's seed, and of a public key.
pub const KEY_BYTES: usize = 32;
/// What PKCS #8 has before an Ed25519 seed (RFC 8410).
const PKCS8: [u8; 16] = [
    0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
];
/// What SubjectPublicKeyInfo has before an Ed25519 public key (RFC 8410).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];

/// Why a text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it holds no Ed25519 key in PEM form")]
pub struct KeyError;

/// The key that signs checkpoints.
pub struct Signer(Ed25519KeyPair);

/// The key that checks them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; KEY_BYTES]);

/// Where the chain was at some time, signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The installation whose chain it is.
    pub installation: String,
    /// The last record it covers.
    pub upto: u64,
    /// That record's hash.
    pub tip: String,
    /// When, in milliseconds since the epoch.
    pub at: Millis,
    /// Which key signed it: the first 16 hex characters of the public key's SHA-256.
    pub key: String,
    /// The signature, in hex.
    pub signature: String,
}

/// The bytes that are signed.
fn message(installation: &str, tip: Tip, at: Millis) -> String {
    let Tip { seq, hash } = tip;
    format!("legation-audit-checkpoint-v1\n{installation}\n{seq}\n{hash}\n{at}\n")
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let nibble = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(nibble(*high)? << 4 | nibble(*low)?).ok(),
            _ => None,
        })
        .collect()
}

fn pem(label: &str, prefix: &[u8], key: &[u8]) -> String {
    let text = STANDARD.encode([prefix, key].concat());
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn unpem(text: &str, prefix: &[u8]) -> Result<[u8; KEY_BYTES], KeyError> {
    let inside: String = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = STANDARD.decode(inside).map_err(|_| KeyError)?;
    let key = der.strip_prefix(prefix).ok_or(KeyError)?;
    key.try_into().map_err(|_| KeyError)
}

// === impl Signer ===

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signer({})", self.public().id())
    }
}

impl Signer {
    /// The key of this seed.
    ///
    /// # Errors
    /// [`KeyError`] if the library refuses it.
    pub fn from_seed(seed: &[u8; KEY_BYTES]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed)
            .map(Self)
            .map_err(|_| KeyError)
    }

    /// Reads a PKCS #8 key in PEM form.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_seed(&unpem(text, &PKCS8)?)
    }

    /// A seed in the form [`Signer::from_pem`] reads.
    #[must_use]
    pub fn seed_to_pem(seed: &[u8; KEY_BYTES]) -> String {
        pem("PRIVATE KEY", &PKCS8, seed)
    }

    /// The key that checks what this one signs.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let bytes = self.0.public_key().as_ref();
        PublicKey(bytes.try_into().unwrap_or_default())
    }

    /// Signs where a chain is.
    #[must_use]
    pub fn sign(&self, installation: &str, tip: Tip, at: Millis) -> Checkpoint {
        let signature = self.0.sign(message(installation, tip, at).as_bytes());
        Checkpoint {
            installation: installation.to_owned(),
            upto: tip.seq,
            tip: tip.hash.to_string(),
            at,
            key: self.public().id(),
            signature: hex(signature.as_ref()),
        }
    }
}

// === impl PublicKey ===

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl PublicKey {
    /// Reads a public key in PEM form.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Ok(Self(unpem(text, &SPKI)?))
    }

    /// The PEM form, as `openssl` reads it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PUBLIC KEY", &SPKI, &self.0)
    }

    /// Reads the hex form that segments carry.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let bytes = unhex(text).ok_or(KeyError)?;
        Ok(Self(bytes.try_into().map_err(|_| KeyError)?))
    }

    /// The hex form.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.0)
    }

    /// The short name of the key.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.0);
        hex(hash.as_ref().get(..8).unwrap_or_default())
    }
}

// === impl Checkpoint ===

impl Checkpoint {
    /// Where it says the chain was; `None` if its hash is none.
    #[must_use]
    pub fn tip(&self) -> Option<Tip> {
        Some(Tip {
            seq: self.upto,
            hash: Hash::parse(self.tip.as_bytes())?,
        })
    }

    /// Whether this key signed it.
    #[must_use]
    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        let (Some(tip), Some(signature)) = (self.tip(), unhex(&self.signature)) else {
            return false;
        };
        let text = message(&self.installation, tip, self.at);
        UnparsedPublicKey::new(&ED25519, key.0)
            .verify(text.as_bytes(), &signature)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_cannot_be_changed() {
        let signer = Signer::from_seed(&[7; KEY_BYTES]).unwrap();
        let tip = Tip {
            seq: 9,
            hash: Hash::of_bytes(b"x"),
        };
        let good = signer.sign("abc", tip, 5);
        let key = signer.public();
        assert!(good.is_signed_by(&key));
        let other = Signer::from_seed(&[8; KEY_BYTES]).unwrap().public();
        assert!(!good.is_signed_by(&other));
        for change in [
            |c: &mut Checkpoint| c.installation.push('x'),
            |c: &mut Checkpoint| c.upto = 8,
            |c: &mut Checkpoint| c.at += 1,
            |c: &mut Checkpoint| c.tip = Hash::ZERO.to_string(),
            |c: &mut Checkpoint| c.signature.truncate(10),
            |c: &mut Checkpoint| c.signature = "zz".into(),
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(!bad.is_signed_by(&key), "{bad:?}");
        }
    }

    #[test]
    fn keys_travel_as_pem_and_hex() {
        let seed = [3; KEY_BYTES];
        let signer = Signer::from_pem(&Signer::seed_to_pem(&seed)).unwrap();
        let key = signer.public();
        assert_eq!(PublicKey::from_pem(&key.to_pem()), Ok(key));
        assert_eq!(PublicKey::from_hex(&key.to_hex()), Ok(key));
        assert_eq!(key.id().len(), 16);
        assert!(PublicKey::from_pem(&Signer::seed_to_pem(&seed)).is_err());
        assert!(Signer::from_pem("").is_err());
    }
}
