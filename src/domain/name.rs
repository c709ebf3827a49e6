//! Names people give to things, parsed once at the edge.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limits::{
    CREDENTIAL_NAME_CHARS_MAX, NAME_CHARS_MAX, TOOL_NAME_CHARS_MAX, VARIABLE_CHARS_MAX,
};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct NameError {
    /// What kind of name was wanted.
    pub kind: &'static str,
    /// What was given, cut to 64 characters.
    pub text: String,
    /// The rule it breaks, in words.
    pub rule: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident($kind:literal, $rule:literal, $check:expr);)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`NameError`], which states the rule.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&str) -> bool = $check;
                if check(text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(64).collect();
                    Err(NameError { kind: $kind, text, rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
    )+};
}

names! {
    /// The name of a user, group or mcp.
    Name(
        "name",
        "1 to 64 of a-z, 0-9, '.', '_', '-', starting with a letter or digit",
        |text| {
            let first = text.bytes().next();
            text.len() <= NAME_CHARS_MAX
                && first.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
                && text.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        }
    );
    /// The name of a tool as its server declares it, in the characters of SEP-986.
    ToolName(
        "tool name",
        "1 to 128 of A-Z, a-z, 0-9, '_', '.', '-', '/'",
        |text| {
            (1..=TOOL_NAME_CHARS_MAX).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'/'))
        }
    );
    /// The name of a credential slot.
    CredentialName(
        "credential name",
        "1 to 64 of A-Z, a-z, 0-9, '_', '.', '-', starting with a letter",
        |text| {
            text.len() <= CREDENTIAL_NAME_CHARS_MAX
                && text.starts_with(|c: char| c.is_ascii_alphabetic())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        }
    );
    /// A variable of a server's environment that a credential is put into.
    Variable(
        "variable",
        "1 to 128 of A-Z, a-z, 0-9, '_', not starting with a digit",
        |text| {
            text.len() <= VARIABLE_CHARS_MAX
                && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'_')
        }
    );
    /// The name of a file that a credential is put into; never a path.
    SecretFile(
        "file name",
        "1 to 64 of A-Z, a-z, 0-9, '_', '.', '-', starting with a letter or digit",
        |text| {
            text.len() <= CREDENTIAL_NAME_CHARS_MAX
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        }
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_everywhere() {
        for good in ["ada", "server-everything", "a.b_c-9", "0"] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "Ada", "-a", "..", "a/b", "a b", "ä", &"a".repeat(65)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(ToolName::parse("get-Sum_2.x").is_ok());
        assert!(ToolName::parse("admin/tools/list").is_ok());
        for bad in ["", "a b", "ä", "a\n", &"a".repeat(129)] {
            assert!(ToolName::parse(bad).is_err(), "{bad}");
        }
    }
}
