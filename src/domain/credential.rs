//! Credential slots: what a definition says its server needs, and how it is handed over. Values
//! are not here: a slot is public, what is put into it is sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::account::Millis;
use super::ids::{ID_BYTES, McpId, UserId};
use super::limits::CREDENTIALS_PER_MCP_MAX;
use super::name::{CredentialName, NameError, SecretFile, Variable};
use super::remote::{Field, FieldError};

/// The variable that names the directory of a server's secret files.
pub const SECRETS_VARIABLE: &str = "LEGATION_SECRETS";

/// How a value reaches the server.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// As a variable of its environment.
    Env(Variable),
    /// As a file in a directory of memory that only its isolate sees.
    File(SecretFile),
    /// As an open descriptor with this number: a pipe that holds the value, and then its end.
    Fd(Descriptor),
    /// As a header of every request to a server behind HTTP: the value is the header's, whole.
    Header(Field),
}

/// The number of a descriptor that a server is given: 3 to 9, as shells can write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Descriptor(u8);

impl Descriptor {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Descriptor {
    type Error = DeliveryError;

    fn try_from(number: u8) -> Result<Self, DeliveryError> {
        match number {
            3..=9 => Ok(Self(number)),
            _ => Err(DeliveryError::Descriptor),
        }
    }
}

impl From<Descriptor> for u8 {
    fn from(descriptor: Descriptor) -> Self {
        descriptor.0
    }
}

/// Whether a server starts without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// It does not.
    #[default]
    Required,
    /// It does.
    Optional,
}

/// One slot of a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSlot {
    /// How its value reaches the server.
    #[serde(rename = "to")]
    pub delivery: Delivery,
    /// Whether the server starts without one.
    #[serde(default)]
    pub need: Need,
}

/// All slots of a definition, by name.
pub type CredentialSlots = BTreeMap<CredentialName, CredentialSlot>;

/// What is known of a value without its being opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Whose.
    pub holder: UserId,
    /// For which mcp.
    pub mcp: McpId,
    /// Which slot.
    pub name: CredentialName,
    /// The value, sealed; its text form.
    #[serde(skip_serializing, default)]
    pub sealed: String,
    /// Counts how often it was set.
    pub version: i64,
    /// When it was set.
    pub set_at: Millis,
    /// By whom.
    pub set_by: String,
}

/// Whose values fill the slots.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Holder {
    /// One user's, for their own isolates.
    User(UserId),
    /// Everybody's: for the instance of a `shared` mcp, and for discovering any.
    Shared,
}

/// Why slots cannot stand together in a definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// Too many.
    #[error("more than {CREDENTIALS_PER_MCP_MAX} credentials")]
    TooMany,
    /// Two values in one place.
    #[error("two credentials go to {0}")]
    SamePlace(Delivery),
    /// The definition sets the variable itself.
    #[error(
        "{name} goes to the variable `{variable}`, which the definition sets itself; remove one of them"
    )]
    Taken {
        /// Which slot.
        name: CredentialName,
        /// Which variable.
        variable: Variable,
    },
    /// A variable that decides more than a server's credentials.
    #[error("{name} cannot go to the variable `{variable}`: {why}")]
    Reserved {
        /// Which slot.
        name: CredentialName,
        /// Which variable.
        variable: Variable,
        /// What it decides.
        why: &'static str,
    },
}

const OURS: &str = "the gateway sets it";
const LOADER: &str = "it decides what code the dynamic linker and the C library load";
const SHELL: &str = "it decides how shells read what they run";
const RUNTIME: &str = "it makes a language's runtime load other code";

/// Variables that no value may be put into. What ends with `*` stands for all that begin so.
const RESERVED: &[(&str, &str)] = &[
    ("PATH", OURS),
    ("HOME", OURS),
    ("TMPDIR", OURS),
    ("LANG", OURS),
    ("LEGATION_*", OURS),
    ("LD_*", LOADER),
    ("GLIBC_TUNABLES", LOADER),
    ("GCONV_PATH", LOADER),
    ("LOCPATH", LOADER),
    ("IFS", SHELL),
    ("ENV", SHELL),
    ("BASH_*", SHELL),
    ("SHELLOPTS", SHELL),
    ("NODE_OPTIONS", RUNTIME),
    ("NODE_PATH", RUNTIME),
    ("PYTHONPATH", RUNTIME),
    ("PYTHONHOME", RUNTIME),
    ("PYTHONSTARTUP", RUNTIME),
    ("PERL5LIB", RUNTIME),
    ("PERL5OPT", RUNTIME),
    ("RUBYLIB", RUNTIME),
    ("RUBYOPT", RUNTIME),
    ("JAVA_TOOL_OPTIONS", RUNTIME),
    ("_JAVA_OPTIONS", RUNTIME),
    ("JDK_JAVA_OPTIONS", RUNTIME),
];

// === impl Delivery ===

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(variable) => write!(f, "env:{variable}"),
            Self::File(file) => write!(f, "file:{file}"),
            Self::Fd(descriptor) => write!(f, "fd:{}", descriptor.number()),
            Self::Header(field) => write!(f, "header:{field}"),
        }
    }
}

/// Why a text is no [`Delivery`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryError {
    /// No known kind.
    #[error("expected env:VARIABLE, file:FILENAME, fd:NUMBER or header:NAME")]
    Kind,
    /// The number after it.
    #[error("a descriptor is a number from 3 to 9")]
    Descriptor,
    /// The name after it.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The header after it.
    #[error(transparent)]
    Header(#[from] FieldError),
}

impl FromStr for Delivery {
    type Err = DeliveryError;

    fn from_str(text: &str) -> Result<Self, DeliveryError> {
        match text.split_once(':') {
            Some(("env", variable)) => Ok(Self::Env(Variable::parse(variable)?)),
            Some(("file", file)) => Ok(Self::File(SecretFile::parse(file)?)),
            Some(("fd", number)) => {
                let number: u8 = number.parse().map_err(|_| DeliveryError::Descriptor)?;
                Ok(Self::Fd(number.try_into()?))
            }
            Some(("header", field)) => Ok(Self::Header(Field::parse(field)?)),
            _ => Err(DeliveryError::Kind),
        }
    }
}

// === impl Holder ===

impl Holder {
    /// The id under which its values are stored and sealed. That of [`Holder::Shared`] is one that
    /// no random id is.
    #[must_use]
    pub fn id(&self) -> UserId {
        match self {
            Self::User(user) => user.clone(),
            Self::Shared => UserId::from_random([0; ID_BYTES]),
        }
    }

    /// The user, if it is one.
    #[must_use]
    pub const fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) => Some(user),
            Self::Shared => None,
        }
    }
}

/// Parses `NAME=env:VARIABLE`, `NAME=file:FILENAME`, `NAME=fd:NUMBER` or `NAME=header:HEADER`, with `:optional` behind it where the server starts without.
///
/// # Errors
/// What is wrong with the text, for people.
pub fn parse_slot(text: &str) -> Result<(CredentialName, CredentialSlot), String> {
    let Some((name, to)) = text.split_once('=') else {
        return Err(
            "expected NAME=env:VARIABLE, NAME=file:FILENAME, NAME=fd:NUMBER or NAME=header:HEADER"
                .to_owned(),
        );
    };
    let (to, need) = match to.strip_suffix(":optional") {
        Some(to) => (to, Need::Optional),
        None => (to, Need::Required),
    };
    let name = CredentialName::parse(name).map_err(|wrong| wrong.to_string())?;
    let delivery = to
        .parse()
        .map_err(|wrong: DeliveryError| wrong.to_string())?;
    Ok((name, CredentialSlot { delivery, need }))
}

impl From<UserId> for Holder {
    fn from(id: UserId) -> Self {
        if id.bits() == [0; ID_BYTES] {
            Self::Shared
        } else {
            Self::User(id)
        }
    }
}

/// Checks that the slots of a definition can stand together, beside the variables it sets itself.
///
/// # Errors
/// [`SlotError`], the first there is.
pub fn check(slots: &CredentialSlots, env: &BTreeMap<String, String>) -> Result<(), SlotError> {
    if slots.len() > CREDENTIALS_PER_MCP_MAX {
        return Err(SlotError::TooMany);
    }
    let mut places = BTreeSet::new();
    for (name, slot) in slots {
        if !places.insert(&slot.delivery) {
            return Err(SlotError::SamePlace(slot.delivery.clone()));
        }
        let Delivery::Env(variable) = &slot.delivery else {
            continue;
        };
        if let Some(why) = reserved(variable) {
            return Err(SlotError::Reserved {
                name: name.clone(),
                variable: variable.clone(),
                why,
            });
        }
        if env.contains_key(variable.as_str()) {
            return Err(SlotError::Taken {
                name: name.clone(),
                variable: variable.clone(),
            });
        }
    }
    Ok(())
}

fn reserved(variable: &Variable) -> Option<&'static str> {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => variable.as_str().starts_with(start),
        None => variable.as_str() == pattern,
    };
    let hit = RESERVED.iter().find(|(pattern, _)| fits(pattern));
    hit.map(|(_, why)| *why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(all: &[(&str, &str)]) -> CredentialSlots {
        let slot = |(name, to): &(&str, &str)| {
            let slot = CredentialSlot {
                delivery: to.parse().unwrap(),
                need: Need::Required,
            };
            (CredentialName::parse(name).unwrap(), slot)
        };
        all.iter().map(slot).collect()
    }

    #[test]
    fn slots_that_cannot_stand_together_are_named() {
        let env = BTreeMap::from([("MODE".to_owned(), "x".to_owned())]);
        assert_eq!(
            check(&slots(&[("A", "env:A"), ("B", "file:A")]), &env),
            Ok(())
        );
        for (all, word) in [
            (
                &[("A", "env:T"), ("B", "env:T")][..],
                "two credentials go to env:T",
            ),
            (
                &[("A", "file:k"), ("B", "file:k")],
                "two credentials go to file:k",
            ),
            (&[("A", "env:MODE")], "sets itself"),
            (&[("A", "env:PATH")], "the gateway sets it"),
            (&[("A", "env:LEGATION_SECRETS")], "the gateway sets it"),
            (&[("A", "env:LD_PRELOAD")], "dynamic linker"),
            (&[("A", "env:NODE_OPTIONS")], "load other code"),
        ] {
            let error = check(&slots(all), &env).unwrap_err().to_string();
            assert!(error.contains(word), "{all:?}: {error}");
        }
        let many: CredentialSlots = (0..=CREDENTIALS_PER_MCP_MAX)
            .flat_map(|n| slots(&[(&format!("N{n}"), &format!("env:V{n}"))]))
            .collect();
        assert_eq!(check(&many, &env), Err(SlotError::TooMany));
    }

    #[test]
    fn a_delivery_is_read_as_it_is_written() {
        for text in [
            "env:GITHUB_TOKEN",
            "env:_x1",
            "file:key.json",
            "fd:3",
            "header:x-api-key",
            "fd:9",
        ] {
            assert_eq!(text.parse::<Delivery>().unwrap().to_string(), text);
        }
        for bad in [
            "GITHUB_TOKEN",
            "env:",
            "env:A-B",
            "env:1A",
            "file:",
            "file:../x",
            "file:.x",
            "file:a/b",
            "fd:2",
            "fd:10",
            "fd:x",
            "header:",
            "header:a b",
            "header:Host",
            "fd:",
        ] {
            assert!(bad.parse::<Delivery>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nobody_is_taken_for_the_house() {
        let ada = UserId::from_random([1; ID_BYTES]);
        for holder in [Holder::User(ada), Holder::Shared] {
            assert_eq!(Holder::from(holder.id()), holder);
        }
    }
}
