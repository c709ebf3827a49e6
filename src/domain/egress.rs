//! What an isolate may reach by name: the rules of a definition, and whether they let something go.

pub mod address;
pub mod site;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::EGRESS_HOST_BYTES_MAX;

/// The port of a rule that names none.
const HTTPS: u16 = 443;
/// What marks a rule whose host may have a private address.
const PRIVATE: &str = "/private";

/// One rule: a host, a port, and whether the host may have a private address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rule {
    host: Host,
    port: u16,
    private: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    /// Whatever has a name; no definition may say so.
    Any,
    /// This name.
    Name(String),
    /// Every name beneath this one, itself not.
    Beneath(String),
    /// This address, as a literal.
    Address(IpAddr),
}

/// Not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not HOST[:PORT][/private]: {why}")]
pub struct RuleError {
    text: String,
    why: &'static str,
}

/// What an isolate asks for: a name or an address, in the form that rules are compared in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wanted {
    /// A name, in lower case and without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Wanted {
    /// Reads a host as a client writes it: a name, an address, or an IPv6 address in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Self::Address(address.to_canonical()));
        }
        name(text).map(Self::Name)
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Rule {
    /// Any host of the internet, on this port: for the gateway's own use.
    #[must_use]
    pub const fn anywhere(port: u16) -> Self {
        Self {
            host: Host::Any,
            port,
            private: false,
        }
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Whether its host may have a private address.
    #[must_use]
    pub const fn is_private(&self) -> bool {
        self.private
    }

    /// Whether it is about this host, on any port.
    #[must_use]
    pub fn names(&self, wanted: &Wanted) -> bool {
        match (&self.host, wanted) {
            (Host::Any, Wanted::Name(_)) => true,
            (Host::Name(mine), Wanted::Name(theirs)) => mine == theirs,
            (Host::Beneath(mine), Wanted::Name(theirs)) => theirs
                .strip_suffix(mine.as_str())
                .is_some_and(|rest| rest.ends_with('.')),
            (Host::Address(mine), Wanted::Address(theirs)) => mine == theirs,
            _ => false,
        }
    }

    /// Whether it lets this go.
    #[must_use]
    pub fn allows(&self, wanted: &Wanted, port: u16) -> bool {
        self.port == port && self.names(wanted)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let rule = Self::read(text)?;
        match rule.host {
            Host::Address(address) => match address::check(address, rule.private) {
                Ok(()) => Ok(rule),
                Err(why) => Err(refused(text, why)),
            },
            _ => Ok(rule),
        }
    }
}

fn refused(text: &str, why: &'static str) -> RuleError {
    RuleError {
        text: text.chars().take(64).collect(),
        why,
    }
}

impl Rule {
    /// Reads a rule as it is written, whatever its address is.
    fn read(text: &str) -> Result<Self, RuleError> {
        let refused = |why| refused(text, why);
        let (rest, private) = match text.strip_suffix(PRIVATE) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (host, port) = split(rest).ok_or_else(|| refused("the port is no number"))?;
        if port == 0 {
            return Err(refused("there is no port 0"));
        }
        let host = if let Some(beneath) = host.strip_prefix("*.") {
            let name = name(beneath).ok_or_else(|| refused("what follows `*.` is no name"))?;
            if !name.contains('.') {
                return Err(refused("it would allow a whole top-level domain"));
            }
            Host::Beneath(name)
        } else {
            match Wanted::parse(host) {
                Some(Wanted::Name(name)) => Host::Name(name),
                Some(Wanted::Address(address)) => Host::Address(address),
                None => return Err(refused("the host is no name and no address")),
            }
        };
        Ok(Self {
            host,
            port,
            private,
        })
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*")?,
            Host::Name(name) => write!(f, "{name}")?,
            Host::Beneath(name) => write!(f, "*.{name}")?,
            Host::Address(address @ IpAddr::V4(_)) => write!(f, "{address}")?,
            Host::Address(address) => write!(f, "[{address}]")?,
        }
        write!(f, ":{}", self.port)?;
        f.write_str(if self.private { PRIVATE } else { "" })
    }
}

impl TryFrom<String> for Rule {
    type Error = RuleError;

    /// As it was stored, perhaps by a version that knew fewer addresses nobody may reach: a server must
    /// start with it. Whatever it says, such an address is not connected to.
    fn try_from(text: String) -> Result<Self, RuleError> {
        Self::read(&text)
    }
}

impl From<Rule> for String {
    fn from(rule: Rule) -> Self {
        rule.to_string()
    }
}

/// Host and port; 443 if none is written.
fn split(text: &str) -> Option<(&str, u16)> {
    let end_of_host = text.rfind(']').map_or(0, |at| at + 1);
    match text.get(end_of_host..)?.rfind(':') {
        // More than one colon and no bracket: a bare IPv6 address.
        Some(_) if end_of_host == 0 && text.matches(':').count() > 1 => Some((text, HTTPS)),
        Some(at) => {
            let (host, port) = text.split_at(end_of_host + at);
            let port = port.strip_prefix(':')?;
            let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            digits.then_some(())?;
            Some((host, port.parse().ok()?))
        }
        None => Some((text, HTTPS)),
    }
}

/// A name as rules are compared: ASCII letters, digits, `-` and `_` between dots, lower case.
fn name(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > EGRESS_HOST_BYTES_MAX {
        return None;
    }
    let labels = text.split('.').all(|label| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len())
            && label.bytes().all(inside)
            && !label.starts_with('-')
            && !label.ends_with('-')
    });
    // What ends like a number is read as an address by some and as a name by others.
    let last = text.rsplit('.').next()?;
    let numeric = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    (labels && !numeric).then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        text.parse().unwrap()
    }

    fn wanted(text: &str) -> Wanted {
        Wanted::parse(text).unwrap()
    }

    /// A version that knew more addresses did not start with what an older one had stored.
    #[test]
    fn what_was_stored_is_read_and_what_is_new_is_checked() {
        let text = "[fd20:ce::254]:80/private";
        assert!(text.parse::<Rule>().is_err());
        let stored: Rule = serde_json::from_str(&format!("\"{text}\"")).unwrap();
        assert_eq!(stored.to_string(), text);
    }

    #[test]
    fn rules_are_read_and_written() {
        for (text, shown) in [
            ("API.GitHub.com", "api.github.com:443"),
            ("api.github.com.:8443", "api.github.com:8443"),
            ("*.example.com", "*.example.com:443"),
            ("93.184.216.34:80", "93.184.216.34:80"),
            ("[2606:4700::1111]:853", "[2606:4700::1111]:853"),
            ("2606:4700::1111", "[2606:4700::1111]:443"),
            ("db.corp:5432/private", "db.corp:5432/private"),
            ("127.0.0.1:5432/private", "127.0.0.1:5432/private"),
        ] {
            let rule = rule(text);
            assert_eq!(rule.to_string(), shown);
            assert_eq!(shown.parse::<Rule>().unwrap(), rule);
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, why) in [
            ("", "no name"),
            ("*", "no name"),
            ("*.com", "top-level"),
            ("*.*.com", "no name"),
            ("a b", "no name"),
            ("http://x", "port is no number"),
            ("x:99999", "port is no number"),
            ("x:", "port is no number"),
            ("x:0", "no port 0"),
            ("x:443/public", "port is no number"),
            ("169.254.169.254", "metadata"),
            ("169.254.169.254/private", "metadata"),
            ("10.0.0.1", "private"),
            ("[::ffff:10.0.0.1]:443", "private"),
            ("0x7f000001", "no name"),
            ("1.2.3", "no name"),
            ("-x.com", "no name"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_rule_is_about_its_host_and_port_only() {
        let one = rule("api.example.com");
        assert!(one.allows(&wanted("API.example.com."), 443));
        assert!(!one.allows(&wanted("api.example.com"), 80));
        assert!(!one.allows(&wanted("xapi.example.com"), 443));
        let all = rule("*.example.com");
        assert!(all.allows(&wanted("a.b.example.com"), 443));
        assert!(!all.allows(&wanted("example.com"), 443));
        assert!(!all.allows(&wanted("badexample.com"), 443));
        let address = rule("93.184.216.34");
        assert!(address.allows(&wanted("93.184.216.34"), 443));
        assert!(address.allows(&wanted("[::ffff:93.184.216.34]"), 443));
    }
}
