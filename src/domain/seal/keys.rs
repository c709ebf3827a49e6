//! The master keys of a house: the newest seals, all open. And the file they are kept in.
//!
//! A house that never rotated has a file of 32 bytes, which is key 1. After a rotation it is text:
//!
//! ```text
//! legation master keys 2
//! 1 <base64 of 32 bytes>
//! 2 <base64 of 32 bytes>
//! end <first 16 hex digits of the SHA-256 of all before>
//! ```
//!
//! so that a file that was cut short or edited is told from one that holds fewer keys.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use secrecy::{ExposeSecret as _, SecretBox, SecretSlice};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize as _, Zeroizing};

use super::{MasterKey, NONCE_BYTES, Place, SealError, Sealed};
use crate::domain::limits::MASTER_KEYS_MAX;

/// Bytes of a master key.
pub const MASTER_BYTES: usize = 32;

const HEAD: &str = "legation master keys 2\n";
const CHECK_DIGITS: usize = 16;

/// Why bytes are no master keys. Says nothing of what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Neither form.
    #[error("it is neither {MASTER_BYTES} bytes long nor a list of master keys")]
    Form,
    /// Something is missing or was changed.
    #[error("it is damaged: its last line does not fit the rest")]
    Check,
    /// A line of the list.
    #[error("its line {0} is no master key")]
    Line(usize),
    /// Rotated again and again without coming to an end.
    #[error(
        "there are {MASTER_KEYS_MAX} master keys already; wait until nothing is sealed under the oldest"
    )]
    TooMany,
}

/// The master keys: at least one, ids ascending, the last seals. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MasterKeys(Vec<Arc<MasterKey>>);

// === impl MasterKeys ===

impl MasterKeys {
    /// One key, the first of a house.
    #[must_use]
    pub fn first(secret: SecretBox<[u8; MASTER_BYTES]>) -> Self {
        Self(vec![Arc::new(MasterKey::new(1, secret))])
    }

    /// These and a new one, which seals from now on.
    ///
    /// # Errors
    /// [`KeysError::TooMany`].
    pub fn rotated(&self, secret: SecretBox<[u8; MASTER_BYTES]>) -> Result<Self, KeysError> {
        let id = self.current_id().checked_add(1).ok_or(KeysError::TooMany)?;
        if self.0.len() >= MASTER_KEYS_MAX {
            return Err(KeysError::TooMany);
        }
        let new = Arc::new(MasterKey::new(id, secret));
        Ok(Self(self.0.iter().cloned().chain([new]).collect()))
    }

    /// The newest alone.
    #[must_use]
    pub fn newest(&self) -> Self {
        Self(self.0.last().cloned().into_iter().collect())
    }

    /// The id of the key that seals.
    #[must_use]
    pub fn current_id(&self) -> u32 {
        self.0.last().map_or(0, |key| key.id())
    }

    /// The ids of all, ascending.
    #[must_use]
    pub fn ids(&self) -> Vec<u32> {
        self.0.iter().map(|key| key.id()).collect()
    }

    /// Whether there is only the key that seals.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.0.len() <= 1
    }

    /// Seals a value for one place with the newest key.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(
        &self,
        place: Place<'_>,
        nonce: [u8; NONCE_BYTES],
        plaintext: &[u8],
    ) -> Result<Sealed, SealError> {
        let key = self.0.last().ok_or(SealError::Refused)?;
        key.seal(place, nonce, plaintext)
    }

    /// Opens a value that was sealed for this place with any of the keys.
    ///
    /// # Errors
    /// [`SealError::OtherKey`] or [`SealError::Refused`].
    pub fn open(&self, place: Place<'_>, sealed: &Sealed) -> Result<SecretSlice<u8>, SealError> {
        let key = self.0.iter().find(|key| key.id() == sealed.key_id());
        key.ok_or(SealError::OtherKey {
            sealed: sealed.key_id(),
            have: self.current_id(),
        })?
        .open(place, sealed)
    }

    /// The bytes of the file. The first key of a house stays in its first form.
    #[must_use]
    pub fn to_file(&self) -> Zeroizing<Vec<u8>> {
        if let [only] = self.0.as_slice()
            && only.id() == 1
        {
            return Zeroizing::new(only.secret.expose_secret().to_vec());
        }
        let line = STANDARD_NO_PAD.encode([0; MASTER_BYTES]).len() + 12;
        // All the room at once: a buffer that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(
            HEAD.len() + self.0.len() * line + CHECK_DIGITS + 8,
        ));
        text.push_str(HEAD);
        for key in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{} ", key.id());
            STANDARD_NO_PAD.encode_string(key.secret.expose_secret(), &mut text);
            text.push('\n');
        }
        let check = check(text.as_bytes());
        let _ = writeln!(text, "end {check}");
        Zeroizing::new(text.as_bytes().to_vec())
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`KeysError`].
    pub fn parse_file(bytes: &[u8]) -> Result<Self, KeysError> {
        if let Ok(first) = <[u8; MASTER_BYTES]>::try_from(bytes)
            && !bytes.starts_with(HEAD.as_bytes())
        {
            return Ok(Self::first(SecretBox::new(Box::new(first))));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeysError::Form)?;
        let body = text.strip_prefix(HEAD).ok_or(KeysError::Form)?;
        let (lines, told) = body.split_once("end ").ok_or(KeysError::Check)?;
        let checked = text.strip_suffix(told).and_then(|t| t.strip_suffix("end "));
        if checked.map(|t| check(t.as_bytes())).as_deref() != told.strip_suffix('\n') {
            return Err(KeysError::Check);
        }
        let mut keys: Vec<Arc<MasterKey>> = Vec::new();
        for (number, line) in lines.lines().enumerate() {
            let key = key(line).filter(|key| keys.last().is_none_or(|last| last.id() < key.id()));
            keys.push(Arc::new(key.ok_or(KeysError::Line(number + 2))?));
        }
        if keys.is_empty() || keys.len() > MASTER_KEYS_MAX {
            return Err(KeysError::Form);
        }
        Ok(Self(keys))
    }
}

fn check(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    let digits = digest.iter().take(CHECK_DIGITS / 2);
    digits.map(|byte| format!("{byte:02x}")).collect()
}

fn key(line: &str) -> Option<MasterKey> {
    let (id, secret) = line.split_once(' ')?;
    let id = id.parse().ok().filter(|id| *id > 0)?;
    let mut bytes = [0u8; MASTER_BYTES];
    let length = STANDARD_NO_PAD.decode_slice(secret, &mut bytes).ok()?;
    let key = (length == MASTER_BYTES).then(|| {
        MasterKey::new(
            id,
            SecretBox::init_with_mut(|kept: &mut [u8; MASTER_BYTES]| *kept = bytes),
        )
    });
    bytes.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ID_BYTES, McpId, UserId};

    fn secret(byte: u8) -> SecretBox<[u8; MASTER_BYTES]> {
        SecretBox::new(Box::new([byte; MASTER_BYTES]))
    }

    #[test]
    fn old_values_open_and_new_ones_are_sealed_with_the_newest_key() {
        let (user, mcp) = (
            UserId::from_random([1; ID_BYTES]),
            McpId::from_random([1; ID_BYTES]),
        );
        let place = Place {
            user: &user,
            mcp: &mcp,
            field: "T",
        };
        let one = MasterKeys::first(secret(1));
        let old = one.seal(place, [0; NONCE_BYTES], b"v").unwrap();
        let two = one.rotated(secret(2)).unwrap();
        let new = two.seal(place, [1; NONCE_BYTES], b"v").unwrap();
        assert_eq!((old.key_id(), new.key_id()), (1, 2));
        for sealed in [&old, &new] {
            assert_eq!(two.open(place, sealed).unwrap().expose_secret(), b"v");
        }
        let alone = two.newest();
        assert!(alone.open(place, &new).is_ok() && alone.is_settled());
        assert_eq!(
            alone.open(place, &old).unwrap_err(),
            SealError::OtherKey { sealed: 1, have: 2 }
        );
    }

    #[test]
    fn the_file_comes_back_in_both_forms() {
        let one = MasterKeys::first(secret(7));
        assert_eq!(one.to_file().as_slice(), [7; MASTER_BYTES]);
        assert_eq!(
            MasterKeys::parse_file(&[7; MASTER_BYTES]).unwrap().ids(),
            [1]
        );
        let two = one.rotated(secret(8)).unwrap();
        for keys in [two.clone(), two.newest(), two.rotated(secret(9)).unwrap()] {
            let file = keys.to_file();
            let back = MasterKeys::parse_file(&file).unwrap();
            assert_eq!(back.ids(), keys.ids());
            assert_eq!(back.to_file(), file);
        }
        let mut many = one;
        while let Ok(more) = many.rotated(secret(1)) {
            many = more;
        }
        assert_eq!(many.ids().len(), MASTER_KEYS_MAX);
        let file = many.to_file();
        assert!(file.len() as u64 <= crate::domain::limits::MASTER_FILE_BYTES_MAX);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_none() {
        let two = MasterKeys::first(secret(1)).rotated(secret(2)).unwrap();
        let file = two.to_file();
        for end in 0..file.len() {
            assert!(
                MasterKeys::parse_file(&file[..end]).is_err(),
                "cut at {end}"
            );
        }
        for at in 0..file.len() {
            let mut bad = file.to_vec();
            bad[at] ^= 1;
            assert!(MasterKeys::parse_file(&bad).is_err(), "byte {at}");
        }
        let empty = format!("{HEAD}end {}\n", check(HEAD.as_bytes()));
        assert_eq!(
            MasterKeys::parse_file(empty.as_bytes()).unwrap_err(),
            KeysError::Form
        );
        let shown = format!("{two:?}");
        assert!(
            !shown.contains("AQEB") && shown.contains("REDACTED"),
            "{shown}"
        );
    }
}
