//! Secret values in a plan: never shown, wiped when dropped, written only into the sealed memfd.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Identity, PlanError};

/// A secret value of any bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    #[must_use]
    pub const fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// The bytes, for whoever hands them to the server.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// In hexadecimal: twice the bytes, where a list of numbers would be four times.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() * 2));
        for byte in self.0.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        to.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(from)?);
        let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 2));
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        for [high, low] in pairs {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            let value = digit(high).zip(digit(low)).map(|(h, l)| h << 4 | l);
            let byte = value.and_then(|value| u8::try_from(value).ok());
            bytes.push(byte.ok_or_else(|| D::Error::custom("a secret is not hexadecimal"))?);
        }
        if !rest.is_empty() {
            return Err(D::Error::custom("a secret is cut short"));
        }
        Ok(Self(bytes))
    }
}

/// Files in memory, mounted over a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretFiles {
    /// Where; exists in the view, and is empty.
    pub dir: PathBuf,
    /// Names and contents.
    pub files: BTreeMap<String, Secret>,
}

/// The same, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedFiles {
    /// What is mounted.
    pub files: SecretFiles,
    /// Who alone may read it.
    pub owner: Identity,
}

impl SecretFiles {
    /// Names are names, the directory is absolute.
    pub(super) fn check(&self) -> Result<(), PlanError> {
        let wrong = |place: &str| Err(PlanError::SecretPlace(place.chars().take(64).collect()));
        if !super::view::is_plain(&self.dir) {
            return wrong(&self.dir.display().to_string());
        }
        let bad = |name: &str| {
            name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0'])
        };
        match self.files.keys().find(|name| bad(name)) {
            Some(name) => wrong(name),
            None => Ok(()),
        }
    }

    /// Bytes of memory they may take, each file rounded up to whole pages, and the directory's own.
    #[must_use]
    pub fn room(&self) -> u64 {
        const PAGE: u64 = 4096;
        let pages = |value: &Secret| {
            u64::try_from(value.bytes().len()).map_or(u64::MAX, |n| n.div_ceil(PAGE) + 1)
        };
        let all = self.files.values().map(pages).fold(1, u64::saturating_add);
        all.saturating_mul(PAGE)
    }
}

/// Bytes that a pipe holds without anybody who reads it.
pub const DESCRIPTOR_BYTES_MAX: usize = 64 << 10;

/// Numbers are above stdio's, values fit into a pipe.
pub(super) fn check_descriptors(values: &BTreeMap<i32, Secret>) -> Result<(), PlanError> {
    let wrong = values
        .iter()
        .find(|(number, value)| **number < 3 || value.bytes().len() > DESCRIPTOR_BYTES_MAX);
    wrong.map_or(Ok(()), |(number, _)| Err(PlanError::Descriptor(*number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &str, name: &str) -> SecretFiles {
        let every_byte = Secret::new(Zeroizing::new((0..=255).collect()));
        SecretFiles {
            dir: dir.into(),
            files: BTreeMap::from([(name.to_owned(), every_byte)]),
        }
    }

    #[test]
    fn any_bytes_survive_the_plan_and_are_not_shown() {
        let files = files("/run/secrets", "key.bin");
        let text = serde_json::to_string(&files).unwrap();
        assert_eq!(serde_json::from_str::<SecretFiles>(&text).unwrap(), files);
        assert!(format!("{files:?}").contains("[redacted]"), "{files:?}");
        for wrong in ["\"0\"", "\"0g\"", "\"é\"", "7"] {
            assert!(serde_json::from_str::<Secret>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(files("/run/secrets", "a").check(), Ok(()));
        for (dir, name) in [
            ("secrets", "a"),
            ("/run/../etc", "a"),
            ("/", "a"),
            ("/s", ""),
            ("/s", ".."),
            ("/s", "a/b"),
            ("/s", "a\0"),
        ] {
            let refused = files(dir, name).check();
            assert!(
                matches!(refused, Err(PlanError::SecretPlace(_))),
                "{dir} {name}"
            );
        }
    }
}
