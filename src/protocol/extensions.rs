//! Extensions of the protocol, as clients and servers declare them: by their names, with settings that only those two
//! understand. Tasks are not among them: that one is the gateway's own ([`super::tasks`]).
//!
//! Source: MCP 2026-07-28, `extensions` of `ClientCapabilities` and `ServerCapabilities` (SEP-2133).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::limits::{EXTENSIONS_BYTES_MAX, EXTENSIONS_MAX};

use super::modern::Members;
use super::tasks;

/// Names of extensions with their settings, which are objects; raw.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Extensions(Option<Arc<BTreeMap<String, String>>>);

impl From<BTreeMap<String, String>> for Extensions {
    fn from(all: BTreeMap<String, String>) -> Self {
        Self((!all.is_empty()).then(|| Arc::new(all)))
    }
}

impl From<Extensions> for BTreeMap<String, String> {
    fn from(all: Extensions) -> Self {
        all.0.map(Arc::unwrap_or_clone).unwrap_or_default()
    }
}

impl Extensions {
    /// None.
    pub const NONE: Self = Self(None);

    /// Those that capabilities have. Where there are too many, or they can be read in two ways, there are none.
    #[must_use]
    pub fn declared(capabilities: &str) -> Self {
        #[derive(Deserialize)]
        struct Capabilities<'a> {
            #[serde(borrow, default)]
            extensions: Option<&'a RawValue>,
        }
        if !capabilities.starts_with('{') || !capabilities.contains("\"extensions\"") {
            return Self::NONE;
        }
        let read: Option<Capabilities<'_>> = serde_json::from_str(capabilities).ok();
        let Some(given) = read.and_then(|read| read.extensions).map(RawValue::get) else {
            return Self::NONE;
        };
        if given.len() > EXTENSIONS_BYTES_MAX {
            return Self::NONE;
        }
        let Ok(Members(all)) = serde_json::from_str(given) else {
            return Self::NONE;
        };
        let fits = all.len() <= EXTENSIONS_MAX;
        let all = all.into_iter().filter(|(name, settings)| {
            fits && **name != *tasks::EXTENSION && settings.get().starts_with('{')
        });
        let all: BTreeMap<_, _> = all
            .map(|(name, settings)| (name.into_owned(), settings.get().to_owned()))
            .collect();
        all.into()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Those of these that the other side has as well, as they are declared here.
    #[must_use]
    pub fn both(&self, other: &Self) -> Self {
        let (Some(own), Some(other)) = (&self.0, &other.0) else {
            return Self::NONE;
        };
        let both = own.iter().filter(|(name, _)| other.contains_key(*name));
        let both: BTreeMap<_, _> = both.map(|(name, of)| (name.clone(), of.clone())).collect();
        both.into()
    }

    /// With each of their settings as `clean` makes them; those that are no JSON then are left out.
    #[must_use]
    pub fn cleaned(self, clean: impl Fn(&str) -> String) -> Self {
        let all: BTreeMap<String, String> = self.into();
        let all = all.into_iter().filter_map(|(name, settings)| {
            let settings = clean(&settings);
            let is_object = serde_json::from_str::<&RawValue>(&settings).is_ok();
            is_object.then_some((name, settings))
        });
        all.collect::<BTreeMap<_, _>>().into()
    }

    /// As a member of capabilities, with tasks if that is wanted; nothing if there are none.
    #[must_use]
    pub fn member(&self, tasks: bool) -> String {
        let mut all = Vec::new();
        if tasks {
            all.push(format!("\"{}\":{{}}", tasks::EXTENSION));
        }
        for (name, settings) in self.0.iter().flat_map(|all| all.iter()) {
            let name = serde_json::to_string(name).unwrap_or_default();
            all.push(format!("{name}:{settings}"));
        }
        match all.is_empty() {
            true => String::new(),
            false => format!("\"extensions\":{{{}}}", all.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_both_sides_declare_is_what_there_is() {
        let client = r#"{"sampling":{},"extensions":{"a/x":{"n":1.0e2},"a/y":{},"io.modelcontextprotocol/tasks":{},"a/z":7}}"#;
        let client = Extensions::declared(client);
        assert_eq!(
            client.member(false),
            r#""extensions":{"a/x":{"n":1.0e2},"a/y":{}}"#
        );
        let server = Extensions::declared(r#"{"extensions":{"a/x":{"s":2},"b":{}}}"#);
        assert_eq!(
            client.both(&server).member(false),
            r#""extensions":{"a/x":{"n":1.0e2}}"#
        );
        assert_eq!(
            server.both(&client).member(false),
            r#""extensions":{"a/x":{"s":2}}"#
        );
        let tasks = r#""extensions":{"io.modelcontextprotocol/tasks":{}}"#;
        assert_eq!(Extensions::NONE.member(true), tasks);
        assert!(Extensions::NONE.both(&server).is_empty());
        assert_eq!(Extensions::NONE.member(false), "");
        let kept = serde_json::to_string(&client).unwrap();
        assert_eq!(serde_json::from_str::<Extensions>(&kept).unwrap(), client);
    }

    #[test]
    fn what_is_too_much_or_unclear_is_none() {
        let many: BTreeMap<_, _> = (0..=EXTENSIONS_MAX)
            .map(|n| (n.to_string(), json!({})))
            .collect();
        for none in [
            "[]".to_owned(),
            r#"{"extensions":[]}"#.to_owned(),
            r#"{"extensions":{"a":{},"a":{}}}"#.to_owned(),
            r#"{"extensions":{"a":{}},"extensions":{"b":{}}}"#.to_owned(),
            json!({"extensions": many}).to_string(),
            json!({"extensions": {"a": {"b": "x".repeat(EXTENSIONS_BYTES_MAX)}}}).to_string(),
        ] {
            assert!(Extensions::declared(&none).is_empty(), "{none}");
        }
        let cleaned = Extensions::declared(r#"{"extensions":{"a":{"b":"secret"},"c":{}}}"#);
        let cleaned = cleaned.cleaned(|text| text.replace("\"secret\"", "x"));
        assert_eq!(cleaned.member(false), r#""extensions":{"c":{}}"#);
    }
}
