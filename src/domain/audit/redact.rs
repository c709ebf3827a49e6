//! Taking known secret values out of a call's arguments before they are recorded. What is looked for,
//! and what stands in its place, is [`Redactor`]'s: here it is shown what the escapes of JSON mean.

use serde_json::Value;

use crate::domain::redact::{Extent, Redactor};

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
pub fn capture(arguments: &str, secrets: Option<&Redactor>, bytes_max: usize) -> Captured {
    let mut truncated = false;
    let cleaned = secrets.map(|secrets| {
        let text = match serde_json::from_str::<Value>(arguments) {
            Ok(mut value) => {
                clean(&mut value, secrets, &mut truncated);
                value.to_string()
            }
            Err(_) => arguments.to_owned(),
        };
        // Numbers, and what spans strings.
        cleaned(&text, secrets, &mut truncated).unwrap_or(text)
    });
    let text = cleaned.as_deref().unwrap_or(arguments);
    let end = text.floor_char_boundary(bytes_max.min(text.len()));
    Captured {
        text: text.get(..end).unwrap_or_default().to_owned(),
        truncated: truncated || end < text.len(),
    }
}

fn clean(value: &mut Value, secrets: &Redactor, truncated: &mut bool) {
    match value {
        Value::String(text) => {
            if let Some(cleaned) = cleaned(text, secrets, truncated) {
                *text = cleaned;
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| clean(item, secrets, truncated)),
        Value::Object(map) => {
            let entries = std::mem::take(map);
            for (name, mut item) in entries {
                clean(&mut item, secrets, truncated);
                map.insert(cleaned(&name, secrets, truncated).unwrap_or(name), item);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text without secrets, if it is another one then. Of one that is longer than is kept of all, the
/// beginning.
fn cleaned(text: &str, secrets: &Redactor, truncated: &mut bool) -> Option<String> {
    let kept = secrets.redact(text.as_bytes(), Extent::Whole);
    *truncated |= text.len() > secrets.text_max();
    if *kept == *text.as_bytes() {
        return None;
    }
    // What the cut left of a character is none.
    let lossy = String::from_utf8_lossy(&kept);
    Some(
        lossy
            .trim_end_matches(char::REPLACEMENT_CHARACTER)
            .to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::name::CredentialName;

    fn redactor(secrets: &[&str], text_max: usize) -> Redactor {
        let name = CredentialName::parse("T").unwrap();
        let values = secrets.iter().map(|secret| (&name, secret.as_bytes()));
        Redactor::of_texts(values, text_max).unwrap()
    }

    fn capture(text: &str, secrets: &[&str]) -> String {
        super::capture(text, Some(&redactor(secrets, 4096)), 4096).text
    }

    #[test]
    fn a_secret_is_found_in_every_spelling() {
        let secret = "p\"s/w\\é\n!";
        for arguments in [
            serde_json::json!({"a": format!("x{secret}y")}).to_string(),
            serde_json::json!({ secret: [secret] }).to_string(),
            r#"{"a":"\u0070\"\u0073\/w\\\u00e9\u000a\u0021"}"#.to_owned(),
        ] {
            let text = capture(&arguments, &[secret]);
            assert!(text.contains("[redacted:T]"), "{text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            assert!(!value.to_string().contains("s/w"), "{text}");
        }
        assert_eq!(
            capture(r#"{"pin":123456}"#, &["123456"]),
            r#"{"pin":[redacted:T]}"#
        );
        // As in what servers write: encoded, and in other letters.
        let basic =
            serde_json::json!({"auth": "Basic YWRhOnMzY3JldC12YWx1ZQ==", "b": "S3CRET-value"});
        let text = capture(&basic.to_string(), &["s3cret-value"]);
        assert_eq!(text.matches("[redacted:T]").count(), 2, "{text}");
    }

    #[test]
    fn secrets_within_secrets_and_no_secrets() {
        assert_eq!(
            capture(r#"{"a":"abcdefgh"}"#, &["cdef", "abcdefgh", ""]),
            r#"{"a":"[redacted:T]"}"#
        );
        let untouched = r#"{ "b" : 1.0, "a": 2 }"#;
        let whole = super::capture(untouched, None, 4096);
        assert_eq!((whole.text.as_str(), whole.truncated), (untouched, false));
    }

    #[test]
    fn the_cut_never_leaves_half_a_secret() {
        for max in 10..40 {
            let secrets = redactor(&["topsecret"], max);
            let cut = super::capture(r#"{"a":"ü topsecret ü"}"#, Some(&secrets), max);
            assert!(
                cut.text.len() <= max && !cut.text.contains("tops"),
                "{max}: {cut:?}"
            );
            let whole = r#"{"a":"ü [redacted:T] ü"}"#.len();
            assert_eq!(cut.truncated, max < whole, "{max}: {cut:?}");
        }
        let long = format!("{}topsecret", "x".repeat(5_000));
        let text = serde_json::json!({"a": long, "b": long}).to_string();
        let cut = super::capture(&text, Some(&redactor(&["topsecret"], 4096)), 4096);
        assert!(cut.truncated && cut.text.len() <= 4096);
        // One that is longer than all that is kept.
        let long = "k".repeat(10_000);
        let text = serde_json::json!({ "a": long }).to_string();
        let cut = super::capture(&text, Some(&redactor(&[&long], 4096)), 4096);
        assert!(!cut.text.contains("kkkk"), "{cut:?}");
    }
}
