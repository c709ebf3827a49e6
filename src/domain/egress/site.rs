//! Places of the operator's on the network: a registry, a proxy.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{Host, Rule, Wanted, split};
use crate::domain::limits::EGRESS_PROXY_PORT;

/// Bytes of a whole URL.
const URL_BYTES_MAX: usize = 2048;

/// `http://` or `https://`, a host, perhaps a port and a path; nobody's name and password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Site {
    url: String,
    host: Wanted,
    port: u16,
}

/// Not such a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not http://HOST[:PORT][/PATH] or the same with https: {0}")]
pub struct SiteError(&'static str);

impl Site {
    /// As it was written.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its host.
    #[must_use]
    pub const fn host(&self) -> &Wanted {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is a host and a port, without encryption and path: what a proxy is.
    #[must_use]
    pub fn is_bare(&self) -> bool {
        let rest = self.url.strip_prefix("http://");
        rest.is_some_and(|rest| !rest.trim_end_matches('/').contains('/'))
    }

    /// Host, port and path with a slash at the end, as npm names a registry in its configuration: the host in small
    /// letters, the port if it is not the usual one.
    #[must_use]
    pub fn without_scheme(&self) -> String {
        let (usual, rest) = match self.url.strip_prefix("https://") {
            Some(rest) => (":443", rest),
            None => (":80", self.url.strip_prefix("http://").unwrap_or(&self.url)),
        };
        let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
        let place = place.to_ascii_lowercase();
        let place = place.strip_suffix(usual).unwrap_or(&place);
        let path = path.trim_end_matches('/');
        match path {
            "" => format!("{place}/"),
            path => format!("{place}/{path}/"),
        }
    }

    /// What lets an isolate go there, wherever it is: the operator named it.
    #[must_use]
    pub fn rule(&self) -> Rule {
        Rule {
            host: match &self.host {
                Wanted::Name(name) => Host::Name(name.clone()),
                Wanted::Address(address) => Host::Address(*address),
            },
            port: self.port,
            private: true,
        }
    }
}

impl FromStr for Site {
    type Err = SiteError;

    fn from_str(text: &str) -> Result<Self, SiteError> {
        if text.len() > URL_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(SiteError("it is too long, or holds what no URL does"));
        }
        let (usual, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (443, rest),
            (_, Some(rest)) => (80, rest),
            _ => return Err(SiteError("it begins with neither")),
        };
        let place = rest.split('/').next().unwrap_or_default();
        if place.contains('@') {
            return Err(SiteError("names and passwords are not taken here"));
        }
        if text.contains(['?', '#', '{', '}', '"', '\\']) {
            return Err(SiteError("it has a query, a fragment, or what no URL does"));
        }
        let has_port = place
            .rsplit(']')
            .next()
            .is_some_and(|rest| rest.contains(':'));
        let (host, port) = split(place).ok_or(SiteError("the port is no number"))?;
        let port = if has_port { port } else { usual };
        let host = Wanted::parse(host).ok_or(SiteError("the host is no name and no address"))?;
        match port {
            0 => Err(SiteError("there is no port 0")),
            _ => Ok(Self {
                url: text.to_owned(),
                host,
                port,
            }),
        }
    }
}

impl Site {
    /// Whether an isolate can be taken there: one port is its own proxy's.
    #[must_use]
    pub const fn is_reachable(&self) -> bool {
        self.port != EGRESS_PROXY_PORT
    }
}

impl TryFrom<String> for Site {
    type Error = SiteError;

    fn try_from(text: String) -> Result<Self, SiteError> {
        text.parse()
    }
}

impl From<Site> for String {
    fn from(site: Site) -> Self {
        site.url
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        for (text, host, port) in [
            ("https://npm.corp/", "npm.corp", 443),
            ("http://npm.corp", "npm.corp", 80),
            ("http://10.1.2.3:4873/a/b/", "10.1.2.3", 4873),
            ("https://[::1]/simple", "::1", 443),
            ("https://[::1]:8443/simple", "::1", 8443),
            ("http://proxy.corp:3128", "proxy.corp", 3128),
        ] {
            let site: Site = text.parse().unwrap();
            assert_eq!(site.url(), text);
            assert_eq!(
                (site.host().to_string().as_str(), site.port()),
                (host, port)
            );
        }
        let rule = "http://10.1.2.3:4873/".parse::<Site>().unwrap().rule();
        assert_eq!(rule.to_string(), "10.1.2.3:4873/private");
    }

    #[test]
    fn what_is_none_says_why() {
        for (text, why) in [
            ("npm.corp", "neither"),
            ("ftp://npm.corp", "neither"),
            ("https://me:secret@npm.corp/", "passwords"),
            ("https://npm.corp/?a=b", "query"),
            ("https://npm.corp/{home}", "query"),
            ("https://npm.corp:0/", "no port 0"),
            ("https://npm.corp:x/", "no number"),
            ("https:///x", "no name"),
            ("https://a b/", "no URL does"),
        ] {
            let error = text.parse::<Site>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
