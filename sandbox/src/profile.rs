//! How thick the walls are: what a profile requires, what it would like, and what it does without.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::facility::Facility;

/// How an isolate is confined. Under root no profile runs anything as uid 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Limits and an own uid, but the host's files and network: for development.
    None,
    /// Own view, namespaces and system call filter; landlock if there is one.
    Standard,
    /// Everything, and nothing less (the default).
    #[default]
    Strict,
}

/// A text that names no profile or network mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}; known are {known}")]
pub struct UnknownWord {
    what: &'static str,
    known: &'static str,
    text: String,
}

impl UnknownWord {
    fn new(what: &'static str, known: &'static str, text: &str) -> Self {
        Self {
            what,
            known,
            text: text.chars().take(64).collect(),
        }
    }
}

impl Profile {
    /// All of them, the thinnest first.
    pub const ALL: [Self; 3] = [Self::None, Self::Standard, Self::Strict];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }

    /// Facilities it does not start without, beyond [`Facility::GROUND`]; under root also
    /// [`Facility::UserRange`], whatever the profile.
    #[must_use]
    pub const fn required(self) -> &'static [Facility] {
        const STRICT: [Facility; 8] = [
            Facility::MountNamespace,
            Facility::NetworkNamespace,
            Facility::IpcNamespace,
            Facility::UtsNamespace,
            Facility::CgroupNamespace,
            Facility::UserRange,
            Facility::Seccomp,
            Facility::Landlock,
        ];
        match self {
            Self::None => &[],
            Self::Standard => STRICT.split_at(7).0,
            Self::Strict => &STRICT,
        }
    }

    /// Facilities it uses where they are; without them it is degraded, and says so.
    #[must_use]
    pub const fn wanted(self) -> &'static [Facility] {
        match self {
            Self::None | Self::Strict => &[],
            Self::Standard => &[Facility::Landlock],
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == text)
            .ok_or_else(|| UnknownWord::new("a profile", "none, standard, strict", text))
    }
}

/// What an isolate reaches. Profile `none` always has the host's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing, not even itself (the default).
    #[default]
    None,
    /// Itself, over `lo`.
    Loopback,
    /// Itself, and what goes through the gateway's listeners inside its network: a name server, a
    /// proxy, and a port for each that hosts are named with. The gateway decides what goes on.
    Allowlist,
    /// All the host reaches, services of the host included, but for link-local and metadata addresses.
    Host,
}

impl Network {
    /// All of them, the narrowest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Loopback, Self::Allowlist, Self::Host];

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Allowlist => "allowlist",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Network {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or_else(|| {
                UnknownWord::new("a network mode", "none, loopback, allowlist, host", text)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_profile_requires_all_that_the_thinner_one_does() {
        for pair in Profile::ALL.windows(2) {
            for facility in pair[0].required() {
                assert!(pair[1].required().contains(facility), "{facility}");
            }
        }
        let unknown = Facility::ALL
            .iter()
            .filter(|facility| !Facility::GROUND.contains(facility))
            .filter(|facility| !Facility::ASKED_FOR.contains(facility))
            .find(|facility| !Profile::Strict.required().contains(facility));
        assert_eq!(unknown, None, "strict is everything");
    }

    #[test]
    fn words_round_trip() {
        for profile in Profile::ALL {
            assert_eq!(profile.name().parse(), Ok(profile));
        }
        for network in Network::ALL {
            assert_eq!(network.name().parse(), Ok(network));
        }
        let text = "bridge".parse::<Network>().unwrap_err().to_string();
        assert_eq!(
            text,
            "`bridge` is not a network mode; known are none, loopback, allowlist, host"
        );
    }
}
