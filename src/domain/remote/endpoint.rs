//! Where a server behind HTTP is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::domain::egress::Wanted;
use crate::domain::limits::REMOTE_URL_BYTES_MAX;

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

// === impl Endpoint ===

impl Endpoint {
    /// As it was written.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// As it was written, without its query: for those who may see no more, since some servers are given
    /// their key there.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let one: Endpoint = "https://tools.example/mcp?x=1".parse().unwrap();
        assert_eq!((one.port(), one.target()), (443, "/mcp?x=1"));
        assert_eq!(one.authority(), "tools.example");
        assert_eq!(one.shown(), "https://tools.example/mcp");
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
}
