//! What a registry or a proxy of the operator's asks for: a token, or a name with a password.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use super::egress::site::Site;

/// It opens a registry or a proxy.
#[derive(Debug, Clone)]
pub enum Login {
    /// A bearer's.
    Token(SecretString),
    /// Somebody's.
    Password {
        /// Who.
        user: String,
        /// Whose password.
        password: SecretString,
    },
}

/// It is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not one line of USER:PASSWORD or a token: {0}")]
pub struct LoginError(&'static str);

impl Login {
    /// One line: `USER:PASSWORD`, or a token, which has no colon.
    ///
    /// # Errors
    /// It is neither; what it is is not told.
    pub fn parse(text: &str) -> Result<Self, LoginError> {
        let line = text.trim_end_matches(['\r', '\n']);
        if line.is_empty() {
            return Err(LoginError("it is empty"));
        }
        if line.chars().any(char::is_control) {
            return Err(LoginError("it has several lines, or control characters"));
        }
        match line.split_once(':') {
            Some(("", _) | (_, "")) => Err(LoginError("the user or the password is missing")),
            Some((user, password)) => Ok(Self::Password {
                user: user.to_owned(),
                password: password.into(),
            }),
            // RFC 6750; nothing else fits into a header, and into npm's file.
            None if line
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~+/=".contains(&b)) =>
            {
                Ok(Self::Token(line.into()))
            }
            None => Err(LoginError("a token has letters, digits and -._~+/= only")),
        }
    }

    /// A line of npm's configuration that holds for this registry alone.
    #[must_use]
    pub fn npmrc(&self, registry: &Site) -> SecretString {
        let place = registry.without_scheme();
        match self {
            Self::Token(token) => format!("//{place}:_authToken={}\n", token.expose_secret()),
            Self::Password { .. } => format!("//{place}:_auth={}\n", self.encoded()),
        }
        .into()
    }

    /// The address of a package index with the name and password in it; `None` of a token.
    #[must_use]
    pub fn url(&self, index: &Site) -> Option<SecretString> {
        let Self::Password { user, password } = self else {
            return None;
        };
        let (scheme, rest) = index.url().split_once("://")?;
        let (user, password) = (percent(user), percent(password.expose_secret()));
        Some(format!("{scheme}://{user}:{password}@{rest}").into())
    }

    /// The value of a header that says it (RFC 7617, RFC 6750).
    #[must_use]
    pub fn header(&self) -> SecretString {
        match self {
            Self::Token(token) => format!("Bearer {}", token.expose_secret()),
            Self::Password { .. } => format!("Basic {}", self.encoded()),
        }
        .into()
    }

    /// What nobody is to read of it.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        match self {
            Self::Token(secret)
            | Self::Password {
                password: secret, ..
            } => secret,
        }
    }

    fn encoded(&self) -> String {
        match self {
            Self::Token(token) => token.expose_secret().to_owned(),
            Self::Password { user, password } => {
                STANDARD.encode(format!("{user}:{}", password.expose_secret()))
            }
        }
    }
}

/// As it stands in an address: all but what is never special there (RFC 3986).
fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // A String takes all.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(text: &str) -> Login {
        Login::parse(text).unwrap()
    }

    fn shown(secret: &SecretString) -> &str {
        secret.expose_secret()
    }

    #[test]
    fn a_login_is_written_as_each_of_them_wants_it() {
        let npm: Site = "https://Npm.corp:443/team".parse().unwrap();
        let index: Site = "https://pypi.corp:8443/simple".parse().unwrap();
        let token = login("npm_abc-D.e=\n");
        assert_eq!(
            shown(&token.npmrc(&npm)),
            "//npm.corp/team/:_authToken=npm_abc-D.e=\n"
        );
        assert_eq!(shown(&token.header()), "Bearer npm_abc-D.e=");
        assert!(token.url(&index).is_none());
        let ada = login("ada:p@ss:w/ör d\r\n");
        assert_eq!(
            shown(&ada.npmrc(&"http://10.0.0.1:4873/".parse().unwrap())),
            "//10.0.0.1:4873/:_auth=YWRhOnBAc3M6dy/DtnIgZA==\n"
        );
        assert_eq!(
            shown(&ada.url(&index).unwrap()),
            "https://ada:p%40ss%3Aw%2F%C3%B6r%20d@pypi.corp:8443/simple"
        );
        assert_eq!(shown(&ada.header()), "Basic YWRhOnBAc3M6dy/DtnIgZA==");
        assert_eq!(shown(ada.secret()), "p@ss:w/ör d");
        assert!(!format!("{ada:?} {token:?}").contains("ss:w"));
    }

    #[test]
    fn what_is_none_is_not_told() {
        for wrong in [
            "",
            "\n",
            ":x",
            "x:",
            "two\nlines",
            "a b",
            "a\tb",
            "${HOME}",
            "x;y",
        ] {
            let error = Login::parse(wrong).unwrap_err().to_string();
            assert!(wrong.trim().is_empty() || !error.contains(wrong), "{error}");
        }
    }
}
