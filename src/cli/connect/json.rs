//! Setting one member of a JSON file and leaving every other byte as it is.
//!
//! Only the text between what is there is written; nothing is parsed and printed again, so order,
//! spacing and numbers of everything else stay.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde::ser::Serialize as _;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::protocol::envelope::locate;

/// What an object has, in its order.
type Members<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// The text with `value` at `path`. Objects on the way are made if they are not there.
///
/// # Errors
/// What is in the way, and where.
pub(super) fn set(text: &str, path: &[&str], value: &Ordered) -> Result<String, String> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let root: &RawValue = serde_json::from_str(text)
        .map_err(|error| format!("line {}, column {}: {error}", error.line(), error.column()))?;
    let unit = indentation(text);
    let mut here = root;
    let mut depth = 0;
    let mut path = path.iter();
    loop {
        let Some(name) = path.next() else {
            let lead = unit.repeat(depth);
            return splice(text, place(text, here)?, &value.render(&unit, &lead));
        };
        let members = members(here)
            .ok_or_else(|| format!("line {}: there should be an object", line_of(text, here)))?;
        depth += 1;
        match members.iter().find(|(key, _)| key == name) {
            Some((_, next)) => here = next,
            None => {
                // What is missing is made around the value.
                let rest: Vec<&str> = path.copied().collect();
                let wrapped = rest.iter().rev().fold(value.clone(), |inner, name| {
                    Ordered::Object(vec![((*name).to_owned(), inner)])
                });
                let lead = unit.repeat(depth);
                let member = format!("{}: {}", Value::from(*name), wrapped.render(&unit, &lead));
                return insert(
                    text,
                    here,
                    members.last().map(|last| last.1),
                    &member,
                    &unit,
                    depth,
                );
            }
        }
    }
}

/// The text with `value` as one more of an array at the top, unless one of it has the same `id`.
pub(super) fn add(text: &str, name: &str, id: &str, value: &Ordered) -> Result<String, String> {
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let root: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let found = members(root).and_then(|all| {
        let found = all.into_iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value)
    });
    let Some(found) = found else {
        return set(text, &[name], &Ordered::Array(vec![value.clone()]));
    };
    let items: Vec<&RawValue> = serde_json::from_str(found.get())
        .map_err(|_| format!("line {}: there should be an array", line_of(text, found)))?;
    let is_it = |item: &&RawValue| {
        let item: Map<String, Value> = serde_json::from_str(item.get()).unwrap_or_default();
        item.get("id").and_then(Value::as_str) == Some(id)
    };
    if items.iter().any(is_it) {
        return Ok(text.to_owned());
    }
    let unit = indentation(text);
    let item = value.render(&unit, &unit.repeat(2));
    insert(text, found, items.last().copied(), &item, &unit, 2)
}

/// The value at `path`.
pub(super) fn get(text: &str, path: &[&str]) -> Option<Value> {
    let root: Value = serde_json::from_str(text).ok()?;
    let mut here = &root;
    for name in path {
        here = here.get(name)?;
    }
    Some(here.clone())
}

/// The text with each of an object's members at `path`; others that are there stay.
///
/// # Errors
/// As for [`set`].
pub(super) fn set_each(text: &str, path: &[&str], value: &Ordered) -> Result<String, String> {
    match (value, get(text, path)) {
        (Ordered::Object(members), Some(Value::Object(_))) => {
            let mut text = text.to_owned();
            for (name, value) in members {
                let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
                text = set_each(&text, &path, value)?;
            }
            Ok(text)
        }
        (value, Some(found)) if found == value.value() => Ok(text.to_owned()),
        (value, _) => set(text, path, value),
    }
}

/// Puts one more into an object or an array, after the last that is there.
fn insert(
    text: &str,
    into: &RawValue,
    last: Option<&RawValue>,
    more: &str,
    unit: &str,
    depth: usize,
) -> Result<String, String> {
    let lead = unit.repeat(depth);
    match last {
        Some(last) => {
            let end = place(text, last)?.end;
            splice(text, end..end, &format!(",\n{lead}{more}"))
        }
        None => {
            // Nothing is in it but blanks.
            let whole = place(text, into)?;
            let outer = unit.repeat(depth.saturating_sub(1));
            let (open, close) = match into.get().starts_with('[') {
                true => ('[', ']'),
                false => ('{', '}'),
            };
            splice(
                text,
                whole,
                &format!("{open}\n{lead}{more}\n{outer}{close}"),
            )
        }
    }
}

fn splice(text: &str, place: Range<usize>, new: &str) -> Result<String, String> {
    let before = text.get(..place.start);
    let after = text.get(place.end..);
    match (before, after) {
        (Some(before), Some(after)) => Ok(format!("{before}{new}{after}")),
        _ => Err("the place to change was not found".to_owned()),
    }
}

fn place(text: &str, part: &RawValue) -> Result<Range<usize>, String> {
    locate(text.as_bytes(), part).ok_or_else(|| "the place to change was not found".to_owned())
}

fn line_of(text: &str, part: &RawValue) -> usize {
    let start = place(text, part).map_or(0, |place| place.start);
    let before = text.as_bytes().get(..start).unwrap_or_default();
    memchr::memchr_iter(b'\n', before).count() + 1
}

/// With what the file indents: that of its first indented line.
fn indentation(text: &str) -> String {
    let first = text.lines().skip(1).find_map(|line| {
        let inner = line.trim_start_matches([' ', '\t']);
        let lead = line.strip_suffix(inner)?;
        (!lead.is_empty() && !inner.is_empty()).then(|| lead.to_owned())
    });
    first.unwrap_or_else(|| "  ".to_owned())
}

/// The members of an object; `None` if it is none.
fn members(object: &RawValue) -> Option<Members<'_>> {
    struct All;
    impl<'de> Visitor<'de> for All {
        type Value = Members<'de>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some(key) = map.next_key::<String>()? {
                members.push((Cow::Owned(key), map.next_value()?));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(object.get());
    reader.deserialize_map(All).ok()
}

/// JSON whose members keep their order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ordered {
    Object(Vec<(String, Ordered)>),
    Array(Vec<Ordered>),
    Plain(Value),
}

// === impl Ordered ===

impl Ordered {
    /// An object of these members.
    pub(super) fn object<const N: usize>(members: [(&str, Self); N]) -> Self {
        Self::Object(members.map(|(name, value)| (name.to_owned(), value)).into())
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Plain(Value::from(text))
    }

    /// Without an order, to compare.
    pub(super) fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// On lines of its own; all but the first begin with `lead`.
    fn render(&self, unit: &str, lead: &str) -> String {
        let mut bytes = Vec::new();
        let pretty = PrettyFormatter::with_indent(unit.as_bytes());
        // A Vec takes every write.
        _ = self.serialize(&mut Serializer::with_formatter(&mut bytes, pretty));
        String::from_utf8_lossy(&bytes).replace('\n', &format!("\n{lead}"))
    }
}

impl serde::Serialize for Ordered {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Object(members) => {
                to.collect_map(members.iter().map(|(name, value)| (name, value)))
            }
            Self::Array(items) => to.collect_seq(items),
            Self::Plain(value) => value.serialize(to),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Ordered {
        Ordered::object([("url", Ordered::text("u")), ("type", Ordered::text("t"))])
    }

    #[test]
    fn an_empty_file_becomes_the_form() {
        let made = set("", &["servers", "x"], &entry()).unwrap();
        insta::assert_snapshot!(made, @r#"
        {
          "servers": {
            "x": {
              "url": "u",
              "type": "t"
            }
          }
        }
        "#);
    }

    #[test]
    fn everything_else_keeps_its_bytes_and_its_order() {
        let text =
            "{\n\t\"z\": 1.0e2,\n\t\"servers\": {\"other\": {\"b\":1,\"a\":2}},\n\t\"a\": [ ]\n}";
        let made = set(text, &["servers", "x"], &entry()).unwrap();
        assert_eq!(
            made,
            "{\n\t\"z\": 1.0e2,\n\t\"servers\": {\"other\": {\"b\":1,\"a\":2},\n\t\t\"x\": {\n\t\t\t\"url\": \"u\",\n\t\t\t\"type\": \"t\"\n\t\t}},\n\t\"a\": [ ]\n}"
        );
        let again = set(&made, &["servers", "x"], &entry()).unwrap();
        assert_eq!(again, made);
        let replaced = set("{\"servers\":{\"x\":7}}", &["servers", "x"], &entry()).unwrap();
        assert_eq!(get(&replaced, &["servers", "x"]), Some(entry().value()));
        assert_eq!(get(&made, &["z"]), get(text, &["z"]));
    }

    #[test]
    fn what_is_in_the_way_is_told_with_its_line() {
        let told = |text: &str| set(text, &["servers", "x"], &entry()).unwrap_err();
        assert!(
            told("{\n \"a\": 1,\n}").starts_with("line 3"),
            "{}",
            told("{\n \"a\": 1,\n}")
        );
        assert!(told("{\n // no\n}").starts_with("line 2"));
        assert!(told("{\n \"servers\": []\n}").starts_with("line 2"));
        assert!(told("[]").starts_with("line 1"));
    }

    #[test]
    fn an_array_gets_one_more_once() {
        let one = Ordered::object([("id", Ordered::text("k"))]);
        let made = add("{}", "inputs", "k", &one).unwrap();
        assert_eq!(add(&made, "inputs", "k", &one).unwrap(), made);
        let more = add("{\"inputs\": [{\"id\": \"a\"}]}", "inputs", "k", &one).unwrap();
        let items = get(&more, &["inputs"]).unwrap();
        assert_eq!(items, serde_json::json!([{"id": "a"}, {"id": "k"}]));
        assert!(add("{\"inputs\": {}}", "inputs", "k", &one).is_err());
    }
}
