//! The names of headers that a definition may set.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

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
