//! Words that are the gateway's own: members of a result's `_meta` that begin with `legation/`. A server that writes
//! them speaks in the gateway's name, and is not passed on with them.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::locate;
use super::meta::{Text, put_member};

/// How the gateway's own members begin.
const OURS: &str = "legation/";

/// A result without such members; `None` if it has none, as nearly all.
#[must_use]
pub fn without(result: &[u8]) -> Option<Vec<u8>> {
    let has = |word: &[u8]| memchr::memmem::find(result, word).is_some();
    // A name can be written with escapes.
    if !has(b"legation") && !has(b"\\u") {
        return None;
    }
    let Forged(found) = serde_json::from_slice(result).ok()?;
    let mut out = Vec::with_capacity(result.len());
    let mut from = 0;
    for (meta, members) in &found {
        let place = locate(result, meta)?;
        out.extend(result.get(from..place.start)?);
        out.push(b'{');
        out.extend(members);
        out.push(b'}');
        from = place.end;
    }
    out.extend(result.get(from..)?);
    (!found.is_empty()).then_some(out)
}

/// Each `_meta` with such members, and what it has beside them.
struct Forged<'a>(Vec<(&'a RawValue, Vec<u8>)>);

impl<'de> Deserialize<'de> for Forged<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;

        impl<'de> Visitor<'de> for Whole {
            type Value = Forged<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut found = Vec::new();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    let value: &RawValue = map.next_value()?;
                    if name.0 == "_meta"
                        && let Ok(Rest { members, cut: true }) = serde_json::from_str(value.get())
                    {
                        found.push((value, members));
                    }
                }
                Ok(Forged(found))
            }
        }

        deserializer.deserialize_map(Whole)
    }
}

/// The members of a `_meta` that are not the gateway's, raw and without braces, and whether there were others.
#[derive(Default)]
struct Rest {
    members: Vec<u8>,
    cut: bool,
}

impl<'de> Deserialize<'de> for Rest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Meta;

        impl<'de> Visitor<'de> for Meta {
            type Value = Rest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Rest, A::Error> {
                let mut rest = Rest::default();
                while let Some(name) = map.next_key::<Text<'de>>()? {
                    let value: &RawValue = map.next_value()?;
                    if name.0.starts_with(OURS) {
                        rest.cut = true;
                        continue;
                    }
                    put_member(&mut rest.members, &name.0, value).map_err(A::Error::custom)?;
                }
                Ok(rest)
            }
        }

        deserializer.deserialize_map(Meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(result: &str) -> Option<String> {
        Some(String::from_utf8(without(result.as_bytes())?).unwrap())
    }

    #[test]
    fn what_a_server_says_in_our_name_is_left_out() {
        for (said, passed) in [
            (
                r#"{"content":[], "_meta": {"a":1.0e2,"legation/error":"busy"} ,"isError":true}"#,
                r#"{"content":[], "_meta": {"a":1.0e2} ,"isError":true}"#,
            ),
            (
                r#"{"_meta":{"\u006cegation\/error":"busy"}}"#,
                r#"{"_meta":{}}"#,
            ),
            (
                r#"{"\u005fmeta":{"legation/call":"x","b":[]}}"#,
                r#"{"\u005fmeta":{"b":[]}}"#,
            ),
            (
                r#"{"_meta":{"legation/x":1},"_meta":{"c":2,"legation/x":1}}"#,
                r#"{"_meta":{},"_meta":{"c":2}}"#,
            ),
        ] {
            assert_eq!(of(said).as_deref(), Some(passed), "{said}");
        }
    }

    #[test]
    fn everything_else_passes_as_it_was_written() {
        for said in [
            r#"{"content":[{"type":"text","text":"legation/error"}],"_meta":{"x":"legation/y"}}"#,
            r#"{"legation/error":1,"x":{"_meta":{"legation/error":1}}}"#,
            r#"{"_meta":"legation/","a":"\n"}"#,
            r#"{"_meta":null}"#,
            "[]",
            "legation",
        ] {
            assert_eq!(of(said), None, "{said}");
        }
    }
}
