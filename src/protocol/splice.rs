//! Texts within JSON that are others where all servers are: names of prompts and URIs of resources. What is around
//! them keeps its bytes.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memmem;
use serde_json::value::RawValue;

use super::envelope::locate;
use super::modern::Members;

/// Values of one object that are looked at for a URI.
const BLOCKS_MAX: usize = 10_000;

/// A text in JSON: what it says, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it says.
    pub text: String,
    at: Range<usize>,
}

/// The text that stands under these keys, one in the other; `None` if there is none, or a key on the way
/// stands there twice.
#[must_use]
pub fn find(json: &str, path: &[&str]) -> Option<Place> {
    let mut inner: Cow<'_, str> = Cow::Borrowed(json);
    let mut at = 0..json.len();
    for key in path {
        let (_, value) = member(json.get(at)?, key)?;
        at = locate(json.as_bytes(), value)?;
        inner = Cow::Borrowed(value.get());
    }
    let text: Cow<'_, str> = serde_json::from_str(&inner).ok()?;
    Some(Place {
        text: text.into_owned(),
        at,
    })
}

fn member<'a>(object: &'a str, key: &str) -> Option<(Cow<'a, str>, &'a RawValue)> {
    let Members(members) = serde_json::from_str(object).ok()?;
    members.into_iter().find(|(name, _)| name == key)
}

/// JSON with other texts in these places, which are in their order.
#[must_use]
pub fn put(json: &str, places: &[Place], other: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(json.len() + places.len() * 32);
    let mut done = 0;
    for place in places {
        out.push_str(json.get(done..place.at.start).unwrap_or_default());
        out.push_str(&serde_json::to_string(&other(&place.text)).unwrap_or_default());
        done = place.at.end;
    }
    out.push_str(json.get(done..).unwrap_or_default());
    out
}

/// It is not certain which resources a result names: a member stands there twice, too many values do, or a text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unclear;

/// Where a result names resources that can be read: the contents of `resources/read`, links and resources in the
/// content of a tool's result and in the messages of a prompt. In texts, and in what only a server and its clients
/// know, nobody looks.
///
/// # Errors
/// A client could read the result in another way than this does.
pub fn uris(result: &str) -> Result<Vec<Place>, Unclear> {
    let mut places = Vec::new();
    // Most results have none.
    if !may_name(result) {
        return Ok(places);
    }
    for (key, value) in members(result)? {
        match &*key {
            "contents" => {
                for one in each(value)? {
                    places.extend(within(result, one, &["uri"])?);
                }
            }
            "content" => of_blocks(result, value, &mut places)?,
            "messages" => {
                for message in each(value)? {
                    if let Some(content) = of(message, "content")? {
                        of_blocks(result, content, &mut places)?;
                    }
                }
            }
            _ => {}
        }
    }
    places.sort_by_key(|place| place.at.start);
    Ok(places)
}

/// Whether a member may be called `uri`, however that is written.
fn may_name(json: &str) -> bool {
    let has = |what: &[u8]| memmem::find(json.as_bytes(), what).is_some();
    has(b"\"uri\"") || has(b"\\u")
}

/// The members of an object; what is none has none.
fn members(value: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, Unclear> {
    if !value.trim_ascii_start().starts_with('{') {
        return Ok(Vec::new());
    }
    let Members(members) = serde_json::from_str(value).map_err(|_| Unclear)?;
    Ok(members)
}

fn of<'a>(object: &'a str, key: &str) -> Result<Option<&'a RawValue>, Unclear> {
    let mut all = members(object)?.into_iter();
    Ok(all.find(|(name, _)| name == key).map(|(_, value)| value))
}

/// Each value of an array; one that is no array is alone.
fn each(value: &RawValue) -> Result<Vec<&str>, Unclear> {
    let value = value.get();
    if !value.trim_ascii_start().starts_with('[') {
        return Ok(vec![value]);
    }
    let all: Vec<&RawValue> = serde_json::from_str(value).map_err(|_| Unclear)?;
    match all.len() > BLOCKS_MAX {
        true => Err(Unclear),
        false => Ok(all.into_iter().map(RawValue::get).collect()),
    }
}

fn of_blocks(whole: &str, blocks: &RawValue, places: &mut Vec<Place>) -> Result<(), Unclear> {
    for block in each(blocks)? {
        // Texts and images are long, and most have none.
        if !may_name(block) {
            continue;
        }
        let Some(kind) = within(whole, block, &["type"])? else {
            continue;
        };
        places.extend(match &*kind.text {
            "resource_link" => within(whole, block, &["uri"])?,
            "resource" => within(whole, block, &["resource", "uri"])?,
            _ => None,
        });
    }
    Ok(())
}

/// The text under these keys of a part of `whole`, if one stands there.
fn within(whole: &str, part: &str, path: &[&str]) -> Result<Option<Place>, Unclear> {
    let mut value = part;
    for key in path {
        match of(value, key)? {
            Some(inner) => value = inner.get(),
            None => return Ok(None),
        }
    }
    if !value.starts_with('"') {
        return Ok(None);
    }
    // Half of a surrogate pair is a text to some.
    let text = serde_json::from_str(value).map_err(|_| Unclear)?;
    let start = (value.as_ptr() as usize).checked_sub(whole.as_ptr() as usize);
    let start = start.ok_or(Unclear)?;
    let end = start.checked_add(value.len()).ok_or(Unclear)?;
    match end <= whole.len() {
        true => Ok(Some(Place {
            text,
            at: start..end,
        })),
        false => Err(Unclear),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn marked(json: &str, places: &[Place]) -> String {
        put(json, places, |own| format!("<{own}>"))
    }

    #[test]
    fn only_the_text_is_another() {
        let raw = r#"{ "ref" : {"x":1.0e2,"n\u0061me" :"\u0061" , "y":"a"} }"#;
        let place = find(raw, &["ref", "name"]).unwrap();
        assert_eq!(place.text, "a");
        assert_eq!(
            marked(raw, &[place]),
            r#"{ "ref" : {"x":1.0e2,"n\u0061me" :"<a>" , "y":"a"} }"#
        );
        for none in [
            r#"{"name":"a"}"#,
            r#"{"ref":{"name":7}}"#,
            r#"{"ref":{"name":"a","name":"b"}}"#,
            "[]",
            "",
        ] {
            assert_eq!(find(none, &["ref", "name"]), None, "{none}");
        }
    }

    #[test]
    fn links_and_resources_of_results_are_found_and_nothing_else() {
        let raw = r#"{"content":[ {"type":"text","text":"\"uri\":\"a:0\""},
            {"type":"resource_link", "uri": "a:1", "name":"a:1"},
            {"type":"resource","resource":{"uri":"a:2","text":"{\"uri\":\"a:3\"}"}},
            {"type":"other","uri":"a:4"}, {"uri":"a:5"}, 7 ],
            "structuredContent":{"uri":"a:6"}, "uri":"a:7", "_meta":{"uri":"a:8"}}"#;
        let found: Vec<_> = uris(raw)
            .unwrap()
            .into_iter()
            .map(|place| place.text)
            .collect();
        assert_eq!(found, ["a:1", "a:2"]);
        let there = marked(raw, &uris(raw).unwrap());
        assert_eq!(there.replace("<a:1>", "a:1").replace("<a:2>", "a:2"), raw);
        for (raw, wanted) in [
            (r#"{"contents":[{"uri":"a:1"},{"uri":"a:2"}]}"#, 2),
            (
                r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"a:1"}}}]}"#,
                1,
            ),
            (
                r#"{"messages":[{"content":[{"type":"resource_link","uri":"a:1"},{"type":"text","text":"x"}]}]}"#,
                1,
            ),
            (r#"{"content":{"type":"resource_link","uri":"a:1"}}"#, 1),
            (
                r#"{"content":[{"type":"resource_link","\u0075ri":"a"}]}"#,
                1,
            ),
            (r#"{"content":[{"type":"resource_link","uri":7}]}"#, 0),
            (r#"{"uri":"x"}"#, 0),
            (r#"["uri"]"#, 0),
        ] {
            assert_eq!(uris(raw).unwrap().len(), wanted, "{raw}");
        }
    }

    #[test]
    fn what_could_be_read_in_another_way_is_unclear() {
        let link = r#"{"type":"resource_link","uri":"a"}"#;
        let many = format!(
            r#"{{"content":[{}{link}]}}"#,
            format!("{link},").repeat(BLOCKS_MAX)
        );
        let wide: String = (0..100).map(|n| format!("\"m{n}\":0,")).collect();
        let wide = format!(r#"{{"content":[{{{wide}"type":"resource_link","uri":"a"}}]}}"#);
        for raw in [
            r#"{"content":[{"type":"resource_link","uri":"a","uri":"b"}]}"#,
            r#"{"content":[{"type":"resource_link","uri":"a","\u0075ri":"b"}]}"#,
            r#"{"content":[{"type":"text","type":"resource_link","uri":"a"}]}"#,
            r#"{"content":[],"content":[{"type":"resource_link","uri":"a"}]}"#,
            r#"{"content":[{"type":"resource","resource":{"uri":"a","uri":"b"}}]}"#,
            r#"{"messages":[{"content":[],"content":{"type":"resource_link","uri":"a"}}]}"#,
            r#"{"contents":[{"uri":"a\ud800"}]}"#,
            &many,
            &wide,
        ] {
            assert_eq!(uris(raw), Err(Unclear), "{:.100}", raw);
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<i32>().prop_map(|n| json!(n)),
            "[a-z\"\\\\é]{0,6}".prop_map(|text| json!(text)),
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = prop::sample::select(vec![
                "uri", "type", "content", "contents", "messages", "resource", "x",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5).prop_map(|members| {
                    let members = members.into_iter().map(|(k, v)| (k.to_owned(), v));
                    Value::Object(members.collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_put_back_is_what_was_there(value in value(), pretty in any::<bool>()) {
            let raw = if pretty {
                serde_json::to_string_pretty(&value).unwrap()
            } else {
                value.to_string()
            };
            let places = uris(&raw).unwrap();
            let same = put(&raw, &places, str::to_owned);
            prop_assert_eq!(&same, &raw);
            let other: Value = serde_json::from_str(&marked(&raw, &places)).unwrap();
            prop_assert_eq!(other.is_object(), value.is_object());
        }
    }
}
