//! `_meta` of a request: what is routed on is taken out, the rest stays as it was written.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::limits::META_MEMBERS_MAX;

/// `_meta` in two parts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Split {
    /// Its members but for the token and what only a newer version knows, raw, with commas between and no braces
    /// around.
    pub members: Vec<u8>,
    /// `progressToken`, raw.
    pub token: Option<String>,
    /// What names a server of 2026-07-28, raw; an object.
    pub server: Option<String>,
    /// Whether something was left out that is of no concern to a server of an older version.
    pub cut: bool,
}

/// Splits `_meta`; nothing gives nothing.
///
/// # Errors
/// It is no object, has a member twice or too many of them, or its token is neither text nor a whole number.
pub fn split(meta: Option<&RawValue>) -> Result<Split, serde_json::Error> {
    match meta.map(RawValue::get) {
        None | Some("null") => Ok(Split::default()),
        Some(text) => serde_json::from_str(text),
    }
}

/// Parameters whose `_meta` asks for no progress, and has nothing that only a newer version knows: the same, if
/// that is so already.
///
/// # Errors
/// They are no object, or `_meta` is not one that [`split`] takes.
pub fn without_token(params: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    if !params.starts_with('{') {
        return Err(serde_json::Error::custom("no object"));
    }
    let Params { meta } = serde_json::from_str(params)?;
    let split = split(meta)?;
    let place = meta.and_then(|meta| super::envelope::locate(params.as_bytes(), meta));
    match (split.token.is_some() || split.cut, place) {
        (true, Some(place)) => {
            let members = String::from_utf8(split.members).map_err(serde_json::Error::custom)?;
            let (before, after) = (params.get(..place.start), params.get(place.end..));
            let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
            Ok(Cow::Owned(format!("{before}{{{members}}}{after}")))
        }
        _ => Ok(Cow::Borrowed(params)),
    }
}

impl<'de> Deserialize<'de> for Split {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Split;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Split, A::Error> {
                let mut split = Split::default();
                let mut seen: HashSet<String> = HashSet::new();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    let value: &RawValue = map.next_value()?;
                    if seen.len() >= META_MEMBERS_MAX {
                        return Err(A::Error::custom("too many members"));
                    }
                    if !seen.insert(key.0.to_string()) {
                        return Err(A::Error::custom("a member stands there twice"));
                    }
                    if super::modern::is_only_modern(&key.0) {
                        split.cut = true;
                        if super::modern::names_server(&key.0) && value.get().starts_with('{') {
                            split.server = Some(value.get().to_owned());
                        }
                    } else if key.0 == "progressToken" {
                        let token = value.get();
                        if !token.starts_with('"') && token.parse::<i64>().is_err() {
                            return Err(A::Error::custom("no token"));
                        }
                        split.token = Some(token.to_owned());
                    } else {
                        put_member(&mut split.members, &key.0, value).map_err(A::Error::custom)?;
                    }
                }
                Ok(split)
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// Puts a member behind those that are there.
pub(super) fn put_member(
    members: &mut Vec<u8>,
    name: &str,
    value: &RawValue,
) -> Result<(), serde_json::Error> {
    if !members.is_empty() {
        members.push(b',');
    }
    members.extend(serde_json::to_vec(name)?);
    members.push(b':');
    members.extend(value.get().as_bytes());
    Ok(())
}

/// A key that is only copied if it has escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Result<Split, serde_json::Error> {
        let raw = RawValue::from_string(text.to_owned()).unwrap();
        split(Some(&raw))
    }

    #[test]
    fn the_token_is_taken_out_and_the_rest_stays() {
        let meta = of(r#"{ "a" : {"x":1.0e2} , "progressToken":"t\u0031", "traceparent":"00-1" }"#);
        let meta = meta.unwrap();
        assert_eq!(meta.token.as_deref(), Some(r#""t\u0031""#));
        let members = String::from_utf8(meta.members).unwrap();
        assert_eq!(members, r#""a":{"x":1.0e2},"traceparent":"00-1""#);
        assert_eq!(of("{}").unwrap(), Split::default());
        assert_eq!(split(None).unwrap(), Split::default());
        assert_eq!(
            of(r#"{"progressToken":7}"#).unwrap().token.as_deref(),
            Some("7")
        );
    }

    #[test]
    fn what_only_a_newer_version_knows_does_not_reach_a_server() {
        let meta = of(
            r#"{"io.modelcontextprotocol/logLevel":"info","io.modelcontextprotocol/related-task":{"a":1},"x":2}"#,
        );
        let meta = meta.unwrap();
        assert!(meta.cut);
        let members = String::from_utf8(meta.members).unwrap();
        assert_eq!(
            members,
            r#""io.modelcontextprotocol/related-task":{"a":1},"x":2"#
        );
        let params = r#"{"_meta":{"io.modelcontextprotocol/clientInfo":{}},"uri":"x"}"#;
        assert_eq!(without_token(params).unwrap(), r#"{"_meta":{},"uri":"x"}"#);
    }

    #[test]
    fn parameters_without_a_token_stay_the_same() {
        let same = r#"{ "uri":"x", "_meta":{"a":1} }"#;
        assert!(matches!(without_token(same), Ok(Cow::Borrowed(text)) if text == same));
        let token = r#"{ "uri":"x", "_meta":{"progressToken":1,"a":{"b":2}} }"#;
        let without = without_token(token).unwrap();
        assert_eq!(without, r#"{ "uri":"x", "_meta":{"a":{"b":2}} }"#);
        assert!(without_token(r#"{"_meta":[]}"#).is_err());
        assert!(without_token("[]").is_err());
    }

    #[test]
    fn what_is_no_meta_is_refused() {
        for bad in [
            "[]",
            "7",
            r#"{"progressToken":{}}"#,
            r#"{"progressToken":1.5}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"progressToken":1,"progressToken":2}"#,
        ] {
            assert!(of(bad).is_err(), "{bad}");
        }
        // A hundred thousand held a thread for half a minute.
        let many: Vec<String> = (0..=META_MEMBERS_MAX)
            .map(|n| format!("\"k{n}\":1"))
            .collect();
        assert!(of(&format!("{{{}}}", many.join(","))).is_err());
    }

    proptest! {
        /// What is split is what was there: the token out of it, everything else as it was written, in its order.
        #[test]
        fn nothing_is_lost_but_the_token(
            names in proptest::collection::vec("[a-z\"\\\\]{1,6}", 0..6),
            token in proptest::option::of(any::<i32>()),
            at in 0usize..6,
        ) {
            let mut members: Vec<(String, String)> = Vec::new();
            for (n, name) in names.into_iter().enumerate() {
                if members.iter().all(|(other, _)| *other != name) {
                    members.push((name, format!("{{\"n\":{n}.0e0}}")));
                }
            }
            let told = |members: &[(String, String)]| {
                let all = members.iter().map(|(name, value)| {
                    format!("{}:{value}", serde_json::to_string(name).unwrap())
                });
                all.collect::<Vec<_>>().join(",")
            };
            let rest = told(&members);
            if let Some(token) = token {
                let at = at.min(members.len());
                members.insert(at, ("progressToken".to_owned(), token.to_string()));
            }
            let split = of(&format!("{{{}}}", told(&members))).unwrap();
            prop_assert_eq!(String::from_utf8(split.members).unwrap(), rest);
            prop_assert_eq!(split.token, token.map(|token| token.to_string()));
        }

        #[test]
        fn any_text_is_taken(text in ".{0,80}") {
            if let Ok(raw) = RawValue::from_string(text.clone()) {
                let _ = split(Some(&raw));
            }
            let _ = without_token(&text);
        }
    }
}
