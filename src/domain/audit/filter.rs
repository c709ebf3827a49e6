//! What somebody looks for in the log, and one thing found: a call with both its records, or
//! another record.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::domain::account::Millis;

/// The event that begins a call.
pub const CALL_START: &str = "call.start";
/// The event that ends it.
pub const CALL_END: &str = "call.end";

/// What is looked for; what is absent does not matter. Ids, never names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Not before.
    pub since: Option<Millis>,
    /// Before.
    pub until: Option<Millis>,
    /// About this user.
    pub user: Option<String>,
    /// About this mcp.
    pub mcp: Option<String>,
    /// About this tool.
    pub tool: Option<String>,
    /// About this client: a key.
    pub client: Option<String>,
    /// With this event, or one that begins with it and a dot.
    pub event: Option<String>,
    /// With this outcome.
    pub outcome: Option<String>,
    /// About this call.
    pub call: Option<String>,
    /// With this text anywhere in the record.
    pub text: Option<String>,
    /// Calls that began and have no end.
    #[serde(default)]
    pub unfinished: bool,
}

/// One thing found. A call is one thing, though it has two records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Item {
    /// The number of its (first) record: its place in every list.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// What happened; `call` for a call with start or end.
    pub event: String,
    /// The record as it stands in the log.
    pub record: Value,
    /// The record of a call's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Value>,
}

/// The columns by which records are found. What is not text under such a name is another thing: a `system.lost` of
/// older logs counted under `call` the records that were lost of that kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Columns {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: Millis,
    /// What happened.
    pub event: String,
    /// The call.
    #[serde(deserialize_with = "text")]
    pub call: Option<String>,
    /// The user.
    #[serde(deserialize_with = "text")]
    pub user: Option<String>,
    /// The mcp.
    #[serde(deserialize_with = "text")]
    pub mcp: Option<String>,
    /// The tool.
    #[serde(deserialize_with = "text")]
    pub tool: Option<String>,
    /// The key.
    #[serde(deserialize_with = "text")]
    pub key: Option<String>,
    /// How it ended.
    #[serde(deserialize_with = "text")]
    pub outcome: Option<String>,
    /// The code with which it was refused, in place of an outcome.
    #[serde(deserialize_with = "text")]
    pub code: Option<String>,
}

/// A text; anything else counts as absent.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    struct Text;

    impl<'de> Visitor<'de> for Text {
        type Value = Option<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("anything")
        }

        fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(text.to_owned()))
        }

        fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
            Ok(Some(text))
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut of: A) -> Result<Self::Value, A::Error> {
            while of.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut of: A) -> Result<Self::Value, A::Error> {
            while of.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }

    from.deserialize_any(Text)
}

impl Columns {
    /// Reads the columns of a record's line.
    #[must_use]
    pub fn of(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// How it ended, in one word.
    #[must_use]
    pub fn outcome(&self) -> Option<&str> {
        self.outcome.as_deref().or(self.code.as_deref())
    }
}

impl Filter {
    /// Whether a record alone has what is looked for, apart from outcome, end and text, which a
    /// call has only with both its records.
    #[must_use]
    pub fn fits(&self, record: &Columns) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| {
            wanted
                .as_ref()
                .is_none_or(|wanted| found.as_ref() == Some(wanted))
        };
        self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
            && is(&self.user, &record.user)
            && is(&self.mcp, &record.mcp)
            && is(&self.tool, &record.tool)
            && is(&self.client, &record.key)
            && is(&self.call, &record.call)
            && self.is_event(&record.event)
    }

    /// Whether the event is one that is looked for.
    #[must_use]
    pub fn is_event(&self, event: &str) -> bool {
        self.event.as_ref().is_none_or(|wanted| {
            event
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    }

    /// For whoever is shown things instead of records: a call's end is found by its start, both are one thing.
    #[must_use]
    pub fn of_things(mut self) -> Self {
        if self.event.as_deref() == Some(CALL_END) {
            self.event = Some(CALL_START.to_owned());
        }
        self
    }

    /// Whether the whole thing has the outcome, the end and the text that are looked for.
    #[must_use]
    pub fn fits_whole(&self, start: &Columns, end: Option<&Columns>, texts: &[&[u8]]) -> bool {
        let outcome = end.unwrap_or(start).outcome();
        let unfinished = start.event == CALL_START && end.is_none();
        (!self.unfinished || unfinished)
            && self
                .outcome
                .as_ref()
                .is_none_or(|wanted| outcome == Some(wanted.as_str()))
            && self.text.as_ref().is_none_or(|wanted| {
                texts
                    .iter()
                    .any(|text| memchr::memmem::find(text, wanted.as_bytes()).is_some())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Columns {
        Columns::of(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_no_text_is_absent_and_costs_nothing_else() {
        let lost = record(
            r#"{"seq":7,"at":3,"event":"system.lost","records":9,"call":9,"key":null,"tool":1.5,"mcp":[1,{"a":2}],"user":{"a":[]},"code":true,"outcome":-1}"#,
        );
        assert_eq!((lost.seq, lost.event.as_str()), (7, "system.lost"));
        let columns = [&lost.call, &lost.key, &lost.tool, &lost.mcp, &lost.user];
        assert!(columns.iter().all(|one| one.is_none()) && lost.outcome().is_none());
        let named = record(r#"{"seq":8,"call":"a\"b","user":"u"}"#);
        assert_eq!(named.call.as_deref(), Some("a\"b"));
        assert_eq!(named.user.as_deref(), Some("u"));
    }

    #[test]
    fn filters_by_column_and_by_the_whole() {
        let start = record(
            r#"{"seq":1,"at":10,"event":"call.start","call":"c","user":"u","key":"k","tool":"t","mcp":"m"}"#,
        );
        let end = record(r#"{"seq":2,"at":11,"event":"call.end","call":"c","outcome":"answered"}"#);
        let all = Filter::default();
        assert!(all.fits(&start) && all.fits_whole(&start, None, &[]));
        let fits = |change: fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.fits(&start) && filter.fits_whole(&start, Some(&end), &[b"abc"])
        };
        assert!(fits(|f| f.user = Some("u".into())) && !fits(|f| f.user = Some("v".into())));
        assert!(fits(|f| f.client = Some("k".into())) && !fits(|f| f.mcp = Some("x".into())));
        assert!(fits(|f| f.since = Some(10)) && !fits(|f| f.since = Some(11)));
        assert!(fits(|f| f.until = Some(11)) && !fits(|f| f.until = Some(10)));
        assert!(fits(|f| f.event = Some("call".into())) && !fits(|f| f.event = Some("cal".into())));
        assert!(fits(|f| f.outcome = Some("answered".into())));
        assert!(!fits(|f| f.outcome = Some("busy".into())) && !fits(|f| f.unfinished = true));
        assert!(fits(|f| f.text = Some("bc".into())) && !fits(|f| f.text = Some("x".into())));
        let open = Filter {
            unfinished: true,
            ..Filter::default()
        };
        assert!(open.fits_whole(&start, None, &[]));
    }
}
