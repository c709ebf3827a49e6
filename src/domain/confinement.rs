//! How an mcp's isolates are confined: what its definition says about walls. What the walls are is
//! the sandbox's business.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::egress::Rule;
use super::limits::{
    CONFINEMENT_PATH_BYTES_MAX, CONFINEMENT_PATHS_MAX, EGRESS_PORTS_MAX, EGRESS_PROXY_PORT,
    EGRESS_RULES_MAX,
};

/// How thick the walls are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
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

/// What an isolate reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing (the default).
    #[default]
    None,
    /// Itself.
    Loopback,
    /// Itself, and the hosts its definition names.
    Allowlist,
    /// All the host reaches; only where `sandbox.allow_network_host` is set.
    Host,
}

/// What a definition says about its walls.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Confinement {
    /// Its profile; where nothing is said, `sandbox.profile` holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// What it reaches.
    pub network: Network,
    /// The hosts it reaches ([`Network::Allowlist`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<Rule>,
    /// Paths of the host it sees and may not write to.
    pub read: Vec<PathBuf>,
    /// Paths of the host it sees and may write to, as far as its uid may.
    pub write: Vec<PathBuf>,
}

/// Not a profile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no profile; there are none, standard and strict")]
pub struct UnknownProfile(String);

impl Profile {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        }
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(text: &str) -> Result<Self, UnknownProfile> {
        [Self::None, Self::Standard, Self::Strict]
            .into_iter()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| UnknownProfile(text.chars().take(32).collect()))
    }
}

impl Network {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Loopback => "loopback",
            Self::Allowlist => "allowlist",
            Self::Host => "host",
        }
    }
}

impl Confinement {
    /// The different ports of its hosts, in order.
    #[must_use]
    pub fn ports(&self) -> Vec<u16> {
        let ports: BTreeSet<u16> = self.hosts.iter().map(Rule::port).collect();
        ports.into_iter().collect()
    }

    fn network_problem(&self) -> Option<String> {
        let has_hosts = !self.hosts.is_empty();
        match self.network {
            Network::Allowlist if !has_hosts => {
                return Some("network allowlist names no host; say which with --host".to_owned());
            }
            Network::Allowlist if self.profile == Some(Profile::None) => {
                return Some("profile none has the host's network, so no list holds it".to_owned());
            }
            Network::Allowlist => {}
            network if has_hosts => {
                let word = network.as_str();
                return Some(format!(
                    "hosts are named, but the network is {word}, not allowlist"
                ));
            }
            _ => {}
        }
        if self.hosts.len() > EGRESS_RULES_MAX {
            return Some(format!("more than {EGRESS_RULES_MAX} hosts are named"));
        }
        let ports = self.ports();
        if ports.len() > EGRESS_PORTS_MAX {
            return Some(format!(
                "the hosts have more than {EGRESS_PORTS_MAX} different ports"
            ));
        }
        ports
            .contains(&EGRESS_PROXY_PORT)
            .then(|| format!("port {EGRESS_PROXY_PORT} is the isolate's own proxy's"))
    }

    /// What is wrong with it, if something is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if let Some(problem) = self.network_problem() {
            return Some(problem);
        }
        let paths = || self.read.iter().chain(&self.write);
        if paths().count() > CONFINEMENT_PATHS_MAX {
            return Some(format!(
                "more than {CONFINEMENT_PATHS_MAX} paths are declared"
            ));
        }
        let wrong = paths().find(|path| {
            let plain: PathBuf = path.components().collect();
            let steps = path.components().skip(1);
            let is_plain = path.is_absolute()
                && plain.as_os_str() == path.as_os_str()
                && path.parent().is_some()
                && steps
                    .into_iter()
                    .all(|step| matches!(step, std::path::Component::Normal(_)));
            !is_plain || path.as_os_str().len() > CONFINEMENT_PATH_BYTES_MAX
        });
        wrong.map(|path| {
            format!(
                "`{}` is not an absolute path without `.`, `..` and a slash at its end",
                path.display()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_is_the_thickest() {
        let nothing: Confinement = serde_json::from_str("{}").unwrap();
        assert_eq!(nothing, Confinement::default());
        assert_eq!(nothing.profile.unwrap_or_default(), Profile::Strict);
        assert_eq!(nothing.network, Network::None);
        assert!(serde_json::from_str::<Confinement>(r#"{"walls":1}"#).is_err());
    }

    #[test]
    fn paths_are_plain() {
        for path in ["srv/x", "/", "/srv/../etc", "/srv/", "/srv//x", ""] {
            let read = vec![PathBuf::from(path)];
            let wanted = Confinement {
                read,
                ..Confinement::default()
            };
            assert!(wanted.problem().is_some(), "{path:?}");
        }
        let fine = Confinement {
            write: vec!["/srv/x".into()],
            ..Confinement::default()
        };
        assert_eq!(fine.problem(), None);
    }
}
