//! Where the server is: an `https` address, or plain `http` on this machine.
//!
//! A key must not cross a network in the clear, so `http` is refused for every other host.

use std::fmt;
use std::net::IpAddr;

use http::Uri;

/// An address that can be spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Endpoint {
    url: String,
    host: String,
    port: u16,
    target: String,
    scheme: Scheme,
}

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Scheme {
    Http,
    Https,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads an address.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(in crate::cli) fn parse(url: &str) -> Result<Self, String> {
        // Before it is shown: a password may stand there.
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        if rest
            .split(['/', '?', '#'])
            .next()
            .is_some_and(|place| place.contains('@'))
        {
            return Err("an address has no name and no password in it".to_owned());
        }
        let shown = url.escape_debug();
        let uri: Uri = url.parse().map_err(|error| {
            format!("`{shown}` is no address ({error}); write https://HOST:8443/mcp")
        })?;
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(format!("`{shown}` does not begin with https://")),
        };
        let Some(authority) = uri.authority() else {
            return Err(format!("`{shown}` names no host"));
        };
        let host = authority.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let host = bare.unwrap_or(host).to_owned();
        if host.is_empty() {
            return Err(format!("`{shown}` names no host"));
        }
        let named = authority.as_str().len() > authority.host().len();
        let port = match (authority.port_u16(), scheme) {
            (Some(port), _) if port > 0 => port,
            (None, Scheme::Https) if !named => 443,
            (None, Scheme::Http) if !named => 80,
            _ => {
                return Err(format!(
                    "`{shown}` has a port that is none; they are 1 to 65535"
                ));
            }
        };
        let target = uri.path_and_query().map_or("/", |path| path.as_str());
        if target == "/" {
            return Err(format!(
                "`{shown}` names no path; tools are at /mcp, those of one mcp at /mcp/NAME"
            ));
        }
        let endpoint = Self {
            url: url.to_owned(),
            host,
            port,
            target: target.to_owned(),
            scheme,
        };
        if scheme == Scheme::Http && !endpoint.is_loopback() {
            return Err(format!(
                "`{shown}` would send the key in the clear; write https://"
            ));
        }
        Ok(endpoint)
    }

    /// Whether it is on this machine.
    pub(in crate::cli) fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }

    pub(in crate::cli) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What a request asks for.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    /// The value of the header `Host`.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(in crate::cli) fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let one = Endpoint::parse("https://tools.example:8443/mcp").unwrap();
        assert_eq!((one.host(), one.port()), ("tools.example", 8443));
        assert_eq!((one.target(), one.scheme()), ("/mcp", Scheme::Https));
        assert!(!one.is_loopback());
        let six = Endpoint::parse("http://[::1]/mcp/github").unwrap();
        assert_eq!((six.host(), six.port()), ("::1", 80));
        assert_eq!(six.authority(), "[::1]:80");
        assert!(six.is_loopback());
    }

    #[test]
    fn what_cannot_be_spoken_to_is_refused_with_the_reason() {
        for (url, why) in [
            ("", "no address"),
            ("tools.example/mcp", "https://"),
            ("ftp://tools.example/mcp", "https://"),
            ("http://tools.example/mcp", "in the clear"),
            ("https://tools.example", "/mcp"),
            ("https://tools.example/", "/mcp"),
            ("https://ada:pw@tools.example/mcp", "no password"),
            ("ftp://ada:p w@tools.example/mcp", "no password"),
            ("https://tools.example:84430/mcp", "1 to 65535"),
            ("https://tools.example:0/mcp", "1 to 65535"),
            ("http://127.0.0.1:/mcp", "1 to 65535"),
        ] {
            let told = Endpoint::parse(url).unwrap_err();
            assert!(told.contains(why), "{url}: {told}");
            assert!(!told.contains("pw@"), "{told}");
        }
    }
}
