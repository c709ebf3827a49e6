//! Sealed values: AES-256-GCM under a key of the user's own, derived from the master key, and
//! bound to the place they belong to, so that a value moved to another user, mcp or field in the
//! database does not open.

mod keys;

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hkdf::Hkdf;
use secrecy::{ExposeSecret as _, SecretBox, SecretSlice};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::ids::{McpId, UserId};
use super::limits::SEALED_BYTES_MAX;

pub use keys::{KeysError, MASTER_BYTES, MasterKeys};

/// Bytes of a nonce; must be random for each value.
pub const NONCE_BYTES: usize = 12;

const VERSION: u8 = 1;
const TAG_BYTES: usize = 16;
const HEAD_BYTES: usize = 1 + 4 + NONCE_BYTES;
const KEY_INFO: &[u8] = b"legation sealed value v1, key of user ";

/// Why a value could not be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Sealed under a master key that is not at hand.
    #[error(
        "the value was sealed under master key {sealed}, the newest here is {have}; restore that key"
    )]
    OtherKey {
        /// The id in the sealed value.
        sealed: u32,
        /// The id of the key at hand.
        have: u32,
    },
    /// Changed, moved from another place, or sealed under another key with the same id.
    #[error("the sealed value does not open here: damaged, moved, or another master key")]
    Refused,
    /// No sealed value at all.
    #[error("the text is no sealed value")]
    Malformed,
    /// Larger than [`SEALED_BYTES_MAX`].
    #[error("the value is larger than {SEALED_BYTES_MAX} bytes")]
    TooLarge,
}

/// Where a sealed value belongs.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Whose it is.
    pub user: &'a UserId,
    /// For which mcp.
    pub mcp: &'a McpId,
    /// Which of its fields.
    pub field: &'a str,
}

impl Place<'_> {
    /// Unambiguous: ids have one length each, the field is last.
    fn bound(&self, key_id: u32) -> Vec<u8> {
        let mut aad = vec![VERSION];
        aad.extend(key_id.to_be_bytes());
        aad.extend(self.user.as_str().as_bytes());
        aad.extend(self.mcp.as_str().as_bytes());
        aad.extend(self.field.as_bytes());
        aad
    }
}

/// A sealed value. Its text form is what storage keeps.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    key_id: u32,
    nonce: [u8; NONCE_BYTES],
    ciphertext: Vec<u8>,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl Sealed {
    /// Which master key it needs.
    #[must_use]
    pub const fn key_id(&self) -> u32 {
        self.key_id
    }

    /// The text form: base64 of version, key id, nonce and ciphertext.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.key_id.to_be_bytes());
        bytes.extend(self.nonce);
        bytes.extend(&self.ciphertext);
        STANDARD_NO_PAD.encode(bytes)
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// [`SealError::Malformed`] or [`SealError::TooLarge`].
    pub fn parse(text: &str) -> Result<Self, SealError> {
        if text.len() / 4 * 3 > SEALED_BYTES_MAX + HEAD_BYTES + TAG_BYTES {
            return Err(SealError::TooLarge);
        }
        let bytes = STANDARD_NO_PAD
            .decode(text)
            .map_err(|_| SealError::Malformed)?;
        let (version, rest) = bytes.split_first().ok_or(SealError::Malformed)?;
        let (key_id, rest) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        let (nonce, ciphertext) = rest.split_first_chunk().ok_or(SealError::Malformed)?;
        if *version != VERSION || ciphertext.len() < TAG_BYTES {
            return Err(SealError::Malformed);
        }
        Ok(Self {
            key_id: u32::from_be_bytes(*key_id),
            nonce: *nonce,
            ciphertext: ciphertext.to_vec(),
        })
    }
}

/// The key above all users' keys.
#[derive(Debug)]
pub struct MasterKey {
    id: u32,
    secret: SecretBox<[u8; 32]>,
}

// === impl MasterKey ===

impl MasterKey {
    /// Takes the key and the id it is known by.
    #[must_use]
    pub const fn new(id: u32, secret: SecretBox<[u8; 32]>) -> Self {
        Self { id, secret }
    }

    /// The id stored in each sealed value.
    #[must_use]
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// Seals a value for one place.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(
        &self,
        place: Place<'_>,
        nonce: [u8; NONCE_BYTES],
        plaintext: &[u8],
    ) -> Result<Sealed, SealError> {
        if plaintext.len() > SEALED_BYTES_MAX {
            return Err(SealError::TooLarge);
        }
        let aad = place.bound(self.id);
        let payload = Payload {
            msg: plaintext,
            aad: &aad,
        };
        let ciphertext = self
            .cipher(place.user)?
            .encrypt(&Nonce::from(nonce), payload)
            .map_err(|_| SealError::TooLarge)?;
        Ok(Sealed {
            key_id: self.id,
            nonce,
            ciphertext,
        })
    }

    /// Opens a value that was sealed for this place.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] or [`SealError::Refused`].
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretSlice<u8>, SealError> {
        if sealed.key_id != self.id {
            return Err(SealError::OtherKey {
                sealed: sealed.key_id,
                have: self.id,
            });
        }
        let aad = place.bound(self.id);
        let payload = Payload {
            msg: &sealed.ciphertext,
            aad: &aad,
        };
        self.cipher(place.user)?
            .decrypt(&Nonce::from(sealed.nonce), payload)
            .map(SecretSlice::from)
            .map_err(|_| SealError::Refused)
    }

    fn cipher(&self, user: &UserId) -> Result<Aes256Gcm, SealError> {
        let hkdf = Hkdf::<Sha256>::new(None, self.secret.expose_secret());
        let mut key = Zeroizing::new([0u8; 32]);
        hkdf.expand_multi_info(&[KEY_INFO, user.as_str().as_bytes()], key.as_mut())
            .map_err(|_| SealError::Refused)?;
        Ok(Aes256Gcm::new((&*key).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn key(id: u32, byte: u8) -> MasterKey {
        MasterKey::new(id, SecretBox::new(Box::new([byte; 32])))
    }

    fn ids(n: u8) -> (UserId, McpId) {
        (
            UserId::from_random([n; ID_BYTES]),
            McpId::from_random([n; ID_BYTES]),
        )
    }

    #[test]
    fn a_value_opens_where_it_was_sealed_and_nowhere_else() {
        let ((ada, github), (bob, gitlab)) = (ids(1), ids(2));
        let home = Place {
            user: &ada,
            mcp: &github,
            field: "GITHUB_TOKEN",
        };
        let sealed = key(1, 7)
            .seal(home, [9; NONCE_BYTES], b"ghp_secret")
            .unwrap();
        let text = sealed.to_text();
        assert!(!text.contains("ghp"));
        let parsed = Sealed::parse(&text).unwrap();
        assert_eq!(parsed, sealed);
        let opened = key(1, 7).open(home, &parsed).unwrap();
        assert_eq!(opened.expose_secret(), b"ghp_secret");

        for elsewhere in [
            Place { user: &bob, ..home },
            Place {
                mcp: &gitlab,
                ..home
            },
            Place {
                field: "OTHER",
                ..home
            },
        ] {
            let error = key(1, 7).open(elsewhere, &sealed).unwrap_err();
            assert_eq!(error, SealError::Refused);
        }
        assert_eq!(
            key(1, 8).open(home, &sealed).unwrap_err(),
            SealError::Refused
        );
        assert_eq!(
            key(2, 7).open(home, &sealed).unwrap_err(),
            SealError::OtherKey { sealed: 1, have: 2 }
        );
    }

    #[test]
    fn users_have_keys_of_their_own() {
        let ((ada, mcp), (bob, _)) = (ids(1), ids(2));
        let sealed = |user| {
            let place = Place {
                user,
                mcp: &mcp,
                field: "f",
            };
            key(1, 7).seal(place, [0; NONCE_BYTES], &[0; 32]).unwrap()
        };
        // The same nonce and plaintext: an equal key would give an equal stream.
        let stream = |sealed: &Sealed| sealed.ciphertext[..32].to_vec();
        assert_ne!(stream(&sealed(&ada)), stream(&sealed(&bob)));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let (ada, mcp) = ids(1);
        let place = Place {
            user: &ada,
            mcp: &mcp,
            field: "f",
        };
        let sealed = key(1, 7).seal(place, [3; NONCE_BYTES], b"v").unwrap();
        let bytes = STANDARD_NO_PAD.decode(sealed.to_text()).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let opened = Sealed::parse(&STANDARD_NO_PAD.encode(bad))
                .and_then(|sealed| key(1, 7).open(place, &sealed));
            assert!(opened.is_err(), "byte {at}");
        }
    }

    #[test]
    fn sizes_are_bounded_and_nonsense_is_refused() {
        let (ada, mcp) = ids(1);
        let place = Place {
            user: &ada,
            mcp: &mcp,
            field: "f",
        };
        let large = vec![0; SEALED_BYTES_MAX];
        let sealed = key(1, 7).seal(place, [3; NONCE_BYTES], &large).unwrap();
        let back = Sealed::parse(&sealed.to_text()).unwrap();
        assert_eq!(
            key(1, 7).open(place, &back).unwrap().expose_secret().len(),
            SEALED_BYTES_MAX
        );
        let larger = vec![0; SEALED_BYTES_MAX + 1];
        assert_eq!(
            key(1, 7).seal(place, [3; NONCE_BYTES], &larger),
            Err(SealError::TooLarge)
        );
        assert_eq!(
            Sealed::parse(&"A".repeat(2 * SEALED_BYTES_MAX)),
            Err(SealError::TooLarge)
        );
        for bad in ["", "AQ", "*", "AQAAAAE", &"A".repeat(60)] {
            assert_eq!(Sealed::parse(bad), Err(SealError::Malformed), "{bad}");
        }
        assert!(!format!("{:?} {sealed:?}", key(1, 7)).contains('7'));
    }
}
