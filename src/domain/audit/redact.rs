//! Taking known secret values out of a call's arguments before they are recorded.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// Arguments as they may be recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The text.
    pub text: String,
    /// It is only the beginning.
    pub truncated: bool,
}

/// Replaces every secret in a JSON text, however its characters are escaped, and cuts the rest to
/// `bytes_max`. A secret that the cut would split is replaced first, so that no half of it stays.
#[must_use]
pub fn capture(arguments: &str, secrets: &[SecretString], bytes_max: usize) -> Captured {
    let mut text = if secrets.is_empty() {
        arguments.to_owned()
    } else {
        redact(arguments, secrets)
    };
    let truncated = text.len() > bytes_max;
    if truncated {
        text.truncate(text.floor_char_boundary(bytes_max));
    }
    Captured { text, truncated }
}

fn redact(arguments: &str, secrets: &[SecretString]) -> String {
    let mut known: Vec<&str> = secrets
        .iter()
        .map(ExposeSecret::expose_secret)
        .filter(|secret| !secret.is_empty())
        .collect();
    // The longest first: a secret inside another must not spoil the match of the other.
    known.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = match serde_json::from_str::<Value>(arguments) {
        Ok(mut value) => {
            clean(&mut value, &known);
            value.to_string()
        }
        Err(_) => arguments.to_owned(),
    };
    // Numbers and words outside strings.
    for secret in known {
        if text.contains(secret) {
            text = text.replace(secret, REDACTED);
        }
        let escaped = Value::from(secret).to_string();
        let inside = escaped.trim_matches('"');
        if !inside.is_empty() && inside != secret && text.contains(inside) {
            text = text.replace(inside, REDACTED);
        }
    }
    text
}

fn clean(value: &mut Value, secrets: &[&str]) {
    match value {
        Value::String(text) => {
            if let Some(cleaned) = cleaned(text, secrets) {
                *text = cleaned;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, secrets)),
        Value::Object(map) => {
            let entries = std::mem::take(map);
            for (name, mut item) in entries {
                clean(&mut item, secrets);
                map.insert(cleaned(&name, secrets).unwrap_or(name), item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn cleaned(text: &str, secrets: &[&str]) -> Option<String> {
    let mut result: Option<String> = None;
    for secret in secrets {
        let now = result.as_deref().unwrap_or(text);
        if now.contains(secret) {
            result = Some(now.replace(secret, REDACTED));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(text: &str, secrets: &[&str]) -> String {
        let secrets: Vec<SecretString> = secrets.iter().map(|s| SecretString::from(*s)).collect();
        super::capture(text, &secrets, 4096).text
    }

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "p\"s/w\\é\n";
        for arguments in [
            serde_json::json!({"a": format!("x{secret}y")}).to_string(),
            serde_json::json!({ secret: [secret] }).to_string(),
            r#"{"a":"\u0070\"\u0073\/w\\\u00e9\u000a"}"#.to_owned(),
        ] {
            let text = capture(&arguments, &[secret]);
            assert!(text.contains(REDACTED), "{text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(!value.to_string().contains("s/w"), "{text}");
        }
        assert_eq!(
            capture(r#"{"pin":123456}"#, &["123456"]),
            r#"{"pin":[redacted]}"#
        );
    }

    #[test]
    fn secrets_within_secrets_and_no_secrets() {
        assert_eq!(
            capture(r#"{"a":"abcdef"}"#, &["cd", "abcdef", ""]),
            r#"{"a":"[redacted]"}"#
        );
        let untouched = r#"{ "b" : 1.0, "a": 2 }"#;
        assert_eq!(capture(untouched, &[]), untouched);
    }

    #[test]
    fn the_cut_never_leaves_half_a_secret() {
        let secrets = [SecretString::from("topsecret")];
        for max in 0..40 {
            let cut = super::capture(r#"{"a":"ü topsecret ü"}"#, &secrets, max);
            assert!(
                cut.text.len() <= max && !cut.text.contains("top"),
                "{cut:?}"
            );
            assert_eq!(cut.truncated, max < r#"{"a":"ü [redacted] ü"}"#.len());
        }
    }
}
