//! A server that is not started here but spoken to over HTTP: where it is, how it is spoken to, and what
//! is said with every request.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::egress::{Wanted, address};
use super::limits::{REMOTE_HEADERS_BYTES_MAX, REMOTE_HEADERS_MAX, REMOTE_URL_BYTES_MAX};

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

/// `https://` or `http://`, a host, perhaps a port, a path and a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    url: String,
    host: Wanted,
    port: u16,
    target: String,
    scheme: Scheme,
}

/// How a connection is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// With TLS.
    Https,
}

/// Not such a place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it is not https://HOST[:PORT]/PATH: {0}")]
pub struct EndpointError(&'static str);

/// The name of a header that a definition may set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Field(http::HeaderName);

/// Why a text names no such header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// It is no header's name.
    #[error("`{0}` is no name of a header")]
    Name(String),
    /// The gateway sets it.
    #[error("the header `{0}` is the gateway's own to set")]
    Ours(String),
}

/// Headers that say how a message travels, or of whom and in which session it is.
const OURS: [&str; 18] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "origin",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "mcp-",
];

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
        if self.reach == Reach::Private {
            return None;
        }
        if self.url.scheme == Scheme::Http {
            return Some(
                "http:// would cross the internet in the clear; write https://, or say \
                 --allow-private if it is on a network of your own"
                    .to_owned(),
            );
        }
        match self.url.host {
            Wanted::Address(ip) => {
                let why = address::check(ip, false).err()?;
                let why = why.replace("a rule may say /private", "say --allow-private");
                Some(format!("it is not reached at {ip}: {why}"))
            }
            Wanted::Name(_) => None,
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
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

    /// What a request asks for.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// How it is connected to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The value of the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Wanted::Name(name) => name.clone(),
            Wanted::Address(std::net::IpAddr::V6(six)) => format!("[{six}]"),
            Wanted::Address(four) => four.to_string(),
        };
        match (self.scheme, self.port) {
            (Scheme::Https, 443) | (Scheme::Http, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// The address that a server names in place of this one; only on the same host, port and scheme
    /// (MCP 2024-11-05, event `endpoint`).
    ///
    /// # Errors
    /// It is none, or elsewhere.
    pub fn beside(&self, named: &str) -> Result<Self, EndpointError> {
        if named.starts_with("http://") || named.starts_with("https://") {
            let other: Self = named.parse()?;
            let same =
                (&other.host, other.port, other.scheme) == (&self.host, self.port, self.scheme);
            return match same {
                true => Ok(other),
                false => Err(EndpointError("it is on another host, port or scheme")),
            };
        }
        let target = if named.starts_with("//") {
            return Err(EndpointError("it is on another host"));
        } else if named.starts_with('/') {
            named.to_owned()
        } else if named.starts_with('?') {
            let path = self.target.split('?').next().unwrap_or("/");
            format!("{path}{named}")
        } else {
            let path = self.target.split('?').next().unwrap_or("/");
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{folder}/{named}")
        };
        let root = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{root}://{}{target}", self.authority()).parse()
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.len() > REMOTE_URL_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(EndpointError("it is too long, or holds what no URL does"));
        }
        if text.contains('#') {
            return Err(EndpointError("a fragment is never sent"));
        }
        let uri: http::Uri = text
            .parse()
            .map_err(|_| EndpointError("it cannot be read"))?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(EndpointError("it begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or(EndpointError("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(EndpointError(
                "a name and a password in it would be shown to everybody; use a credential",
            ));
        }
        let host = Wanted::parse(authority.host())
            .ok_or(EndpointError("the host is no name and no address"))?;
        let port = match (authority.port_u16(), scheme) {
            (Some(0), _) => return Err(EndpointError("there is no port 0")),
            (Some(port), _) => port,
            // A port that is written but cannot be read is none of the usual ones.
            (None, _) if authority.as_str().len() > authority.host().len() => {
                return Err(EndpointError("the port is no number"));
            }
            (None, Scheme::Https) => 443,
            (None, Scheme::Http) => 80,
        };
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            url: text.to_owned(),
            host,
            port,
            target: target.to_owned(),
            scheme,
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Self, EndpointError> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.url
    }
}

// === impl Field ===

impl Field {
    /// Reads a name; upper and lower case are one.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn parse(text: &str) -> Result<Self, FieldError> {
        let shown = || text.chars().take(64).collect::<String>();
        let name: http::HeaderName = text.parse().map_err(|_| FieldError::Name(shown()))?;
        let ours = |own: &str| match own.strip_suffix('-') {
            Some(start) => name.as_str().starts_with(start) && name.as_str().len() > own.len(),
            None => name.as_str() == own,
        };
        match OURS.iter().any(|own| ours(own)) {
            true => Err(FieldError::Ours(shown())),
            false => Ok(Self(name)),
        }
    }

    /// In lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// As a request takes it.
    #[must_use]
    pub const fn name(&self) -> &http::HeaderName {
        &self.0
    }
}

impl Ord for Field {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Field {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl TryFrom<String> for Field {
    type Error = FieldError;

    fn try_from(text: String) -> Result<Self, FieldError> {
        Self::parse(&text)
    }
}

impl From<Field> for String {
    fn from(field: Field) -> Self {
        field.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Remote {
        Remote::at(url.parse().unwrap())
    }

    #[test]
    fn an_address_is_taken_apart() {
        let one: Endpoint = "https://tools.example/mcp?x=1".parse().unwrap();
        assert_eq!((one.port(), one.target()), (443, "/mcp?x=1"));
        assert_eq!(one.authority(), "tools.example");
        let six: Endpoint = "http://[::1]:3001".parse().unwrap();
        assert_eq!((six.port(), six.target()), (3001, "/"));
        assert_eq!(six.authority(), "[::1]:3001");
        for bad in [
            "",
            "tools.example/mcp",
            "ftp://tools.example/mcp",
            "https:///mcp",
            "https://ada:pw@tools.example/",
            "https://tools.example:0/",
            "https://tools.example:99999/",
            "https://tools.example/#a",
            "https://tools example/",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_server_names_is_on_the_same_origin() {
        let base: Endpoint = "https://a.example/v1/sse?k=1".parse().unwrap();
        let beside = |named: &str| base.beside(named).map(|one| one.target().to_owned());
        assert_eq!(beside("/messages?id=7").unwrap(), "/messages?id=7");
        assert_eq!(beside("messages").unwrap(), "/v1/messages");
        assert_eq!(beside("?id=7").unwrap(), "/v1/sse?id=7");
        assert_eq!(beside("https://a.example/m").unwrap(), "/m");
        for elsewhere in [
            "https://b.example/m",
            "http://a.example/m",
            "https://a.example:8443/m",
            "//b.example/m",
            "@b.example/m\r\n",
        ] {
            assert!(beside(elsewhere).is_err(), "{elsewhere}");
        }
        // What looks like a name and a password is a path of its own host.
        assert_eq!(beside("@b.example/m").unwrap(), "/v1/@b.example/m");
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
        let field = Field::parse("Authorization").unwrap();
        own.headers.insert(field, "Bearer x".to_owned());
        assert!(own.problem().unwrap().contains("credential"));
    }

    #[test]
    fn headers_of_ours_are_nobody_else_s() {
        for good in ["X-Api-Key", "authorization", "mcp"] {
            assert!(Field::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "Host",
            "MCP-Session-Id",
            "mcp-x",
            "a b",
            "",
            "Content-Length",
        ] {
            assert!(Field::parse(bad).is_err(), "{bad}");
        }
    }
}
