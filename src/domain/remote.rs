//! A server that is not started here but spoken to over HTTP: where it is, how it is spoken to, and what
//! is said with every request.

mod endpoint;
mod field;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::egress::{Wanted, address};
use super::limits::{REMOTE_HEADERS_BYTES_MAX, REMOTE_HEADERS_MAX};

pub use endpoint::{Endpoint, EndpointError, Scheme};
pub use field::{Field, FieldError};

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// Streamable HTTP (MCP 2025-03-26 and later).
    #[default]
    Streamable,
    /// HTTP with SSE (MCP 2024-11-05): one stream for all answers, and another address for questions.
    Sse,
}

impl Transport {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Streamable => "streamable",
            Self::Sse => "sse",
        }
    }
}

/// Whether the server may have a private address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// It may not: the world's addresses only, and only over TLS.
    #[default]
    Public,
    /// It may: this host and private networks too.
    Private,
}

/// A server behind HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remote {
    /// Where it is.
    pub url: Endpoint,
    /// How messages travel.
    #[serde(default)]
    pub transport: Transport,
    /// What every request says, and is no secret. `{user.name}` and `{user.id}` are filled in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<Field, String>,
    /// Which addresses it may have.
    #[serde(default)]
    pub reach: Reach,
    /// A file of certificate authorities that are trusted in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

// === impl Remote ===

impl Remote {
    /// A server at this address, and else nothing said of it.
    #[must_use]
    pub const fn at(url: Endpoint) -> Self {
        Self {
            url,
            transport: Transport::Streamable,
            headers: BTreeMap::new(),
            reach: Reach::Public,
            ca: None,
        }
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.headers.len() > REMOTE_HEADERS_MAX {
            return Some(format!("more than {REMOTE_HEADERS_MAX} headers"));
        }
        let of = |(name, value): (&Field, &String)| name.as_str().len() + value.len();
        if self.headers.iter().map(of).sum::<usize>() > REMOTE_HEADERS_BYTES_MAX {
            let max = REMOTE_HEADERS_BYTES_MAX;
            return Some(format!("its headers are more than {max} bytes"));
        }
        let bad = |value: &String| http::HeaderValue::from_str(value).is_err();
        if let Some((name, _)) = self.headers.iter().find(|(_, value)| bad(value)) {
            return Some(format!("the value of header `{name}` cannot be sent"));
        }
        if self.ca.as_ref().is_some_and(|ca| !ca.is_absolute()) {
            return Some("the file of certificate authorities needs an absolute path".to_owned());
        }
        let secret = |name: &&Field| matches!(name.as_str(), "authorization" | "cookie");
        if let Some(name) = self.headers.keys().find(secret) {
            return Some(format!(
                "the header `{name}` is a secret, and what a definition says everybody may read; \
                 declare it with --credential TOKEN=header:{name} and set it with legation \
                 credential set"
            ));
        }
        let is_private = self.reach == Reach::Private;
        if !is_private && self.url.scheme() == Scheme::Http {
            return Some(
                "http:// would cross the internet in the clear; write https://, or say \
                 --allow-private if it is on a network of your own"
                    .to_owned(),
            );
        }
        match *self.url.host() {
            Wanted::Address(ip) => {
                let why = self.refuses(ip)?;
                Some(format!("it is not reached at {ip}: {why}"))
            }
            Wanted::Name(_) => None,
        }
    }

    /// Why it is not connected to at this address; `None` if it may be.
    #[must_use]
    pub fn refuses(&self, ip: IpAddr) -> Option<String> {
        if let Err(why) = address::check(ip, self.reach == Reach::Private) {
            return Some(why.replace("a rule may say /private", "see --allow-private"));
        }
        let is_ours = address::check(ip, false).is_err();
        (self.url.scheme() == Scheme::Http && !is_ours).then(|| {
            "it is on the internet, where http:// is in the clear; write https://".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Remote {
        Remote::at(url.parse().unwrap())
    }

    #[test]
    fn what_would_leak_or_lead_inside_is_refused() {
        assert_eq!(at("https://tools.example/mcp").problem(), None);
        for (url, word) in [
            ("http://tools.example/mcp", "in the clear"),
            ("https://127.0.0.1/mcp", "--allow-private"),
            ("https://10.0.0.1/mcp", "--allow-private"),
            ("https://169.254.169.254/latest", "metadata"),
        ] {
            let told = at(url).problem().unwrap();
            assert!(told.contains(word), "{url}: {told}");
        }
        let mut own = at("http://127.0.0.1:3000/mcp");
        own.reach = Reach::Private;
        assert_eq!(own.problem(), None);
        for (ip, word) in [
            ("127.0.0.1", None),
            ("10.0.0.1", None),
            ("::1", None),
            ("1.1.1.1", Some("in the clear")),
            ("2606:4700::1111", Some("in the clear")),
            ("169.254.169.254", Some("metadata")),
            ("::ffff:169.254.169.254", Some("metadata")),
            ("fe80::1", Some("link-local")),
        ] {
            let told = own.refuses(ip.parse().unwrap());
            let fits = word.is_none_or(|word| told.as_ref().is_some_and(|why| why.contains(word)));
            assert!(fits && told.is_some() == word.is_some(), "{ip}: {told:?}");
        }
        let field = Field::parse("Authorization").unwrap();
        own.headers.insert(field, "Bearer x".to_owned());
        assert!(own.problem().unwrap().contains("credential"));
    }
}
