//! Where a PostgreSQL database is: `postgres://user:password@host:port/database?sslmode=…`, read
//! once and strictly. What is not understood is an error, never a warning: a misspelt `sslmode`
//! must not end in clear text. Its password is never shown.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Where a PostgreSQL server listens unless somebody says otherwise.
const PORT: u16 = 5432;
/// Bytes of a whole URL.
const URL_BYTES_MAX: usize = 2048;
/// Bytes of a role's or a database's name (PostgreSQL's NAMEDATALEN, less its closing zero).
const NAME_BYTES_MAX: usize = 63;
/// What stands in place of a password.
const HIDDEN: &str = "<set>";

/// A database's place and who we are there.
#[derive(Clone)]
pub struct Dsn {
    user: String,
    password: Option<SecretString>,
    host: Host,
    port: u16,
    database: String,
    tls: Tls,
}

/// The server's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// A name or an address.
    Tcp(String),
    /// A folder with its Unix socket.
    Socket(PathBuf),
}

/// How a connection is protected: libpq's `sslmode`, without the modes that fall back to clear
/// text by themselves (`allow`, `prefer`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Clear text.
    Disable,
    /// Encrypted to whoever answers.
    Require,
    /// The certificate comes from an authority we trust.
    VerifyCa,
    /// And is this host's.
    VerifyFull,
}

/// Why a text is no database's place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DsnError {
    /// Another database's, or no URL.
    #[error("must start with postgres://")]
    Scheme,
    /// It lacks a part.
    #[error("names no {0}; the form is postgres://USER@HOST:PORT/DATABASE?sslmode=MODE")]
    Missing(&'static str),
    /// A part is not of its form.
    #[error("has a wrong {part}: {why}")]
    Wrong {
        /// Which part.
        part: &'static str,
        /// What is wrong with it; never the part's text, which may be a misplaced password.
        why: &'static str,
    },
    /// A parameter we do not know.
    #[error("has a parameter `{0}`, which is not known here; there are sslmode and host")]
    Parameter(String),
    /// Over a network without saying how it is protected.
    #[error(
        "goes over a network and does not say how it is protected; add ?sslmode=verify-full (with \
         storage.ca_file for a private authority), or ?sslmode=disable if that network is trusted"
    )]
    Unprotected,
    /// A mode that falls back to clear text.
    #[error(
        "has sslmode `{0}`, which falls back to clear text without a word; say require, verify-ca, \
         verify-full or disable"
    )]
    FallsBack(String),
}

fn wrong(part: &'static str, why: &'static str) -> DsnError {
    DsnError::Wrong { part, why }
}

impl Dsn {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`DsnError`]: which part is missing or wrong. No text of the URL is in it but a
    /// parameter's name.
    pub fn parse(text: &str) -> Result<Self, DsnError> {
        if text.len() > URL_BYTES_MAX {
            return Err(wrong("length", "it has more than 2048 bytes"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(wrong("character", "spaces are written %20"));
        }
        let rest = text
            .strip_prefix("postgres://")
            .or_else(|| text.strip_prefix("postgresql://"))
            .ok_or(DsnError::Scheme)?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        // The last @: passwords are pasted with an @ in them.
        let (who, at) = authority
            .rsplit_once('@')
            .ok_or(DsnError::Missing("user"))?;
        let (user, password) = match who.split_once(':') {
            Some((user, password)) => (user, Some(decoded("password", password)?)),
            None => (who, None),
        };
        let (host, port) = host_and_port(at)?;
        let parameters = Parameters::parse(query)?;
        let host = match (host, parameters.socket) {
            (Some(_), Some(_)) => return Err(wrong("host", "it is named twice")),
            (Some(host), None) => host,
            (None, Some(folder)) => Host::Socket(folder),
            (None, None) => return Err(DsnError::Missing("host")),
        };
        let tls = match parameters.tls {
            Some(tls) => tls,
            None if host.is_local() => Tls::Disable,
            None => return Err(DsnError::Unprotected),
        };
        Ok(Self {
            user: named("user", user)?,
            password: password.filter(|text| !text.is_empty()).map(Into::into),
            host,
            port: port.unwrap_or(PORT),
            database: named("database", database)?,
            tls,
        })
    }

    /// The role.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Its password, if the URL has one.
    #[must_use]
    pub fn password(&self) -> Option<&SecretString> {
        self.password.as_ref()
    }

    /// The server's machine.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The server's port; for a socket it is part of the file's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// How connections are protected.
    #[must_use]
    pub fn tls(&self) -> Tls {
        self.tls
    }

    /// Host and database, for people: `db.example.org:5432/legation`.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.host {
            Host::Tcp(name) => format!("{}:{}/{}", bracketed(name), self.port, self.database),
            Host::Socket(folder) => {
                let socket = folder.join(format!(".s.PGSQL.{}", self.port));
                format!("{} {}", socket.display(), self.database)
            }
        }
    }
}

impl Host {
    /// Whether nothing leaves this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Tcp(name) => {
                let address: Option<IpAddr> = name.parse().ok();
                name == "localhost" || address.is_some_and(|ip| ip.to_canonical().is_loopback())
            }
        }
    }
}

impl Tls {
    const ALL: [Self; 4] = [
        Self::Disable,
        Self::Require,
        Self::VerifyCa,
        Self::VerifyFull,
    ];

    /// The word for it in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }

    /// Whether the server's certificate is looked at.
    #[must_use]
    pub const fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }

    fn parse(text: &str) -> Result<Self, DsnError> {
        if ["allow", "prefer"].contains(&text) {
            return Err(DsnError::FallsBack(text.to_owned()));
        }
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or(wrong(
                "sslmode",
                "it is none of disable, require, verify-ca and verify-full",
            ))
    }
}

#[derive(Default)]
struct Parameters {
    tls: Option<Tls>,
    socket: Option<PathBuf>,
}

impl Parameters {
    fn parse(query: &str) -> Result<Self, DsnError> {
        let mut found = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded("parameter", value)?;
            match name {
                "sslmode" => found.tls = Some(Tls::parse(&value)?),
                "host" if Path::new(&value).is_absolute() => found.socket = Some(value.into()),
                "host" => {
                    let why = "as a parameter it is the absolute folder of a socket";
                    return Err(wrong("host", why));
                }
                _ => return Err(DsnError::Parameter(name.to_owned())),
            }
        }
        Ok(found)
    }
}

/// `host`, `host:port`, `[v6]:port`, `%2Fa%2Fsocket%2Ffolder`, or nothing.
fn host_and_port(text: &str) -> Result<(Option<Host>, Option<u16>), DsnError> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest
                .split_once(']')
                .ok_or(wrong("host", "its [ has no ]"))?;
            (name, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => Some(port),
            _ => return Err(wrong("port", "it is no number from 1 to 65535")),
        },
        None => None,
    };
    let name = decoded("host", name)?;
    if name.is_empty() {
        return Ok((None, port));
    }
    if name.starts_with('/') {
        return Ok((Some(Host::Socket(name.into())), port));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:%".contains(c);
    if !name.chars().all(plain) {
        return Err(wrong(
            "host",
            "it is neither a name, an address nor a folder",
        ));
    }
    Ok((Some(Host::Tcp(name)), port))
}

fn named(part: &'static str, text: &str) -> Result<String, DsnError> {
    let text = decoded(part, text)?;
    match text.len() {
        0 => Err(DsnError::Missing(part)),
        1..=NAME_BYTES_MAX => Ok(text),
        _ => Err(wrong(part, "it has more than 63 bytes")),
    }
}

/// Undoes percent encoding.
fn decoded(part: &'static str, text: &str) -> Result<String, DsnError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        let code = digit().zip(digit()).map(|(high, low)| high * 16 + low);
        match code.and_then(|code| u8::try_from(code).ok()) {
            // No name has one, and C would end there.
            Some(0) | None => return Err(wrong(part, "its % is not followed by two hex digits")),
            Some(byte) => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong(part, "it is not UTF-8"))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Percent-encodes what would end the part it stands in.
fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The URL without its password.
impl fmt::Display for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres://{}", encoded(&self.user))?;
        if self.password.is_some() {
            write!(f, ":{HIDDEN}")?;
        }
        match &self.host {
            Host::Tcp(name) => write!(f, "@{}", bracketed(name))?,
            Host::Socket(folder) => write!(f, "@{}", encoded(&folder.to_string_lossy()))?,
        }
        let (port, database) = (self.port, encoded(&self.database));
        write!(f, ":{port}/{database}?sslmode={}", self.tls.as_str())
    }
}

impl fmt::Debug for Dsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dsn({self})")
    }
}

impl PartialEq for Dsn {
    fn eq(&self, other: &Self) -> bool {
        let secret = |dsn: &Self| {
            let password = dsn.password.as_ref();
            password.map(|password| password.expose_secret().to_owned())
        };
        self.to_string() == other.to_string() && secret(self) == secret(other)
    }
}

impl Eq for Dsn {}

impl Serialize for Dsn {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Dsn {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_operators_write() {
        let dsn = Dsn::parse("postgres://legation:p%40ss@db.example.org/house?sslmode=verify-full")
            .unwrap();
        assert_eq!(dsn.user(), "legation");
        assert_eq!(dsn.password().unwrap().expose_secret(), "p@ss");
        assert_eq!(dsn.host(), &Host::Tcp("db.example.org".into()));
        assert_eq!((dsn.port(), dsn.database()), (5432, "house"));
        assert_eq!(dsn.tls(), Tls::VerifyFull);
        let six = Dsn::parse("postgresql://a@[::1]:6432/b").unwrap();
        assert_eq!((six.host(), six.port()), (&Host::Tcp("::1".into()), 6432));
        assert_eq!(six.tls(), Tls::Disable, "loopback");
        for socket in [
            "postgres://a@/b?host=/run/postgresql",
            "postgres://a@%2Frun%2Fpostgresql/b",
        ] {
            let dsn = Dsn::parse(socket).unwrap();
            assert_eq!(dsn.host(), &Host::Socket("/run/postgresql".into()));
            assert_eq!(dsn.place(), "/run/postgresql/.s.PGSQL.5432 b");
        }
        // Pasted with its @ unencoded.
        let dsn = Dsn::parse("postgres://a:x@y@localhost/b").unwrap();
        assert_eq!(dsn.password().unwrap().expose_secret(), "x@y");
        assert!(
            Dsn::parse("postgres://a:@localhost/b")
                .unwrap()
                .password()
                .is_none()
        );
    }

    #[test]
    fn what_is_wrong_is_named_and_no_secret_with_it() {
        for (text, word) in [
            ("mysql://hunter2@h/d", "postgres://"),
            ("/var/lib/legation.db", "postgres://"),
            ("postgres://localhost/hunter2", "user"),
            ("postgres://a:hunter2@/d", "host"),
            ("postgres://a:hunter2@localhost", "database"),
            ("postgres://a:hunter2@localhost:0/d", "port"),
            ("postgres://a:hunter2@localhost:hunter2/d", "port"),
            ("postgres://a:hunter2%@localhost/d", "password"),
            ("postgres://a:hunter2@lo\u{e9}/d", "host"),
            ("postgres://a:hunter2@localhost/d d", "%20"),
            ("postgres://a:hunter2@localhost/d?sslmod=require", "sslmod"),
            (
                "postgres://a:hunter2@localhost/d?sslmode=hunter2",
                "verify-ca",
            ),
            ("postgres://a:hunter2@h/d", "sslmode=verify-full"),
            ("postgres://a:hunter2@h/d?sslmode=prefer", "clear text"),
            (
                "postgres://a:hunter2@h/d?host=/run&sslmode=disable",
                "twice",
            ),
            ("postgres://a:hunter2@/d?host=run", "folder"),
        ] {
            let error = Dsn::parse(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Dsn::parse(&format!("postgres://a@h/{}", "x".repeat(64))).is_err());
        assert!(Dsn::parse(&format!("postgres://a@h/{}", "x".repeat(4096))).is_err());
    }

    #[test]
    fn its_password_is_never_shown() {
        let text = "postgres://a%20b:hunter2@[::1]:5433/b%2Fc";
        let dsn = Dsn::parse(text).unwrap();
        let shown = "postgres://a%20b:<set>@[::1]:5433/b%2Fc?sslmode=disable";
        assert_eq!(dsn.to_string(), shown);
        assert!(!format!("{dsn:?}{}", dsn.place()).contains("hunter2"));
        let json = serde_json::to_string(&dsn).unwrap();
        assert_eq!(json, format!("\"{shown}\""));
        let again: Dsn = serde_json::from_str(&json).unwrap();
        assert_ne!(dsn, again, "another password");
        assert_eq!(again.to_string(), dsn.to_string());
    }
}
