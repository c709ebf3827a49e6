//! Arguments that clients of MCP 2026-07-28 repeat in headers (SEP-2243): where a tool's schema has `x-mcp-header: X`
//! at a property, its argument must stand in `Mcp-Param-X` as well, so that what is between can route by it.
//!
//! Servers over stdio see no headers: nobody but us can hold one against the other.

pub mod outgoing;

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::modern::{HEADER_MISMATCH, Wrong, decoded, shown};

/// What the headers begin with.
const PREFIX: &str = "Mcp-Param-";
/// The member of a property's schema that asks for it.
const MEMBER: &str = "x-mcp-header";

/// What a request has of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header<'a> {
    /// Nothing.
    Missing,
    /// It is there twice, or is no text.
    Unclear,
    /// Its text.
    Says(&'a str),
}

/// An argument that is to be repeated.
#[derive(Debug, PartialEq, Eq)]
struct Repeated {
    path: Vec<String>,
    header: String,
}

/// Whether a tool wants any of its arguments repeated; cheap, and yes if in doubt.
#[must_use]
pub fn may_want(definition: &str) -> bool {
    definition.contains(MEMBER)
}

/// Checks the arguments of a call against the headers of its request. `definition` is the tool's, `params` are those
/// of `tools/call`. What is no parameters has no arguments; headers that the tool does not ask for are nothing to this check.
///
/// # Errors
/// [`Wrong`]: a header is missing, says something else than the argument, or repeats one that is not there.
pub fn check<'a>(
    definition: &str,
    params: &str,
    header: impl Fn(&str) -> Header<'a>,
) -> Result<(), Wrong> {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        arguments: &'a RawValue,
    }
    let wanted = wanted(definition);
    if wanted.is_empty() {
        return Ok(());
    }
    let arguments = serde_json::from_str::<Params<'_>>(params)
        .ok()
        .and_then(|params| serde_json::from_str::<Value>(params.arguments.get()).ok())
        .unwrap_or_default();
    for one in &wanted {
        let name = format!("{PREFIX}{}", one.header);
        let wrong = |what: String| {
            let path = one.path.join(".");
            let text = format!(
                "the header {} {what}: by the tool's schema it repeats the argument `{}`; list the tools to see it",
                shown(&name),
                shown(&path)
            );
            Err(Wrong::new(HEADER_MISMATCH, text))
        };
        let Some(given) = one.find(&arguments) else {
            if header(&name) == Header::Missing {
                continue;
            }
            return wrong("is there, and the argument is not".to_owned());
        };
        match header(&name) {
            Header::Missing => return wrong("is missing".to_owned()),
            Header::Unclear => return wrong("is there twice, or is no text".to_owned()),
            Header::Says(said) => match decoded(said) {
                None => return wrong("is not in base64 as it says".to_owned()),
                Some(said) if is_same(&said, given) => {}
                Some(said) => {
                    return wrong(format!("is `{}`, which is another value", shown(&said)));
                }
            },
        }
    }
    Ok(())
}

/// What a tool's schema wants repeated; nothing, if it asks in a way that no client may heed.
fn wanted(definition: &str) -> Vec<Repeated> {
    #[derive(Deserialize)]
    struct Definition {
        #[serde(rename = "inputSchema")]
        schema: Value,
    }
    let mut all = Vec::new();
    if may_want(definition)
        && let Ok(Definition { schema }) = serde_json::from_str(definition)
    {
        collect(&schema, &mut Vec::new(), &mut all);
    }
    let taken = |one: &Repeated| {
        let same = |other: &&Repeated| other.header.eq_ignore_ascii_case(&one.header);
        all.iter().filter(same).count() > 1
    };
    if all.iter().any(taken) {
        return Vec::new();
    }
    all
}

/// Goes through `properties` at any depth: what stands elsewhere asks for nothing.
fn collect(schema: &Value, path: &mut Vec<String>, all: &mut Vec<Repeated>) {
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    for (name, property) in properties {
        path.push(name.clone());
        let kind = property["type"].as_str().unwrap_or_default();
        if let Some(header) = property[MEMBER].as_str()
            && ["string", "integer", "number", "boolean"].contains(&kind)
            && http::HeaderName::from_bytes(header.as_bytes()).is_ok()
        {
            all.push(Repeated {
                path: path.clone(),
                header: header.to_owned(),
            });
        }
        collect(property, path, all);
        path.pop();
    }
}

impl Repeated {
    /// Its argument, if that is there and can be repeated.
    fn find<'v>(&self, arguments: &'v Value) -> Option<&'v Value> {
        let step = |at: &'v Value, name: &String| at.get(name);
        let found = self.path.iter().try_fold(arguments, step)?;
        (found.is_string() || found.is_number() || found.is_boolean()).then_some(found)
    }
}

/// Whether a header's text is that of an argument; numbers are the same by their value.
fn is_same(said: &str, given: &Value) -> bool {
    let written: Cow<'_, str> = match given {
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    };
    if said == written {
        return true;
    }
    let is_decimal = |byte: u8| byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    match given {
        Value::Number(number) if said.bytes().all(is_decimal) => match number.as_i64() {
            // Beyond what a float holds exactly, whole numbers are compared as such.
            Some(whole) if said.parse::<i64>().is_ok() => said.parse() == Ok(whole),
            _ => said.parse::<f64>().ok() == number.as_f64(),
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOOL: &str = r#"{"name":"t","inputSchema":{"type":"object","properties":{
        "region":{"type":"string","x-mcp-header":"Region"},
        "deep":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},
        "on":{"type":"boolean","x-mcp-header":"On"},
        "list":{"type":"array","x-mcp-header":"List","items":{"type":"string","x-mcp-header":"Item"}},
        "odd":{"type":"string","x-mcp-header":"a b"},
        "plain":{"type":"string"}}}}"#;

    fn taken(arguments: &str, headers: &[(&str, &str)]) -> bool {
        let params = format!(r#"{{"name":"t","arguments":{arguments}}}"#);
        let header = |name: &str| {
            let found = headers
                .iter()
                .find(|(other, _)| name.eq_ignore_ascii_case(other));
            found.map_or(Header::Missing, |(_, value)| match *value {
                "twice" => Header::Unclear,
                value => Header::Says(value),
            })
        };
        let result = check(TOOL, &params, header);
        if let Err(wrong) = &result {
            assert_eq!(wrong.code, HEADER_MISMATCH);
        }
        result.is_ok()
    }

    #[test]
    fn what_is_given_must_be_repeated_and_the_same() {
        let region = "mcp-param-region";
        for (arguments, headers, is_taken) in [
            ("{}", &[][..], true),
            (
                r#"{"region":null,"plain":"x","list":[],"odd":"x"}"#,
                &[],
                true,
            ),
            ("{}", &[(region, "us")], false),
            ("{}", &[(region, "twice")], false),
            (r#"{"region":null}"#, &[(region, "us")], false),
            (r#"{"region":["us"]}"#, &[(region, "us")], false),
            ("{}", &[("mcp-param-other", "not asked for")], true),
            (r#"{"region":"eu"}"#, &[(region, "eu")], true),
            (r#"{"region":"eu"}"#, &[], false),
            (r#"{"region":"eu"}"#, &[(region, "us")], false),
            (r#"{"region":"eu"}"#, &[(region, "twice")], false),
            (
                r#"{"region":"Hello"}"#,
                &[(region, "=?base64?SGVsbG8=?=")],
                true,
            ),
            (
                r#"{"region":"Hello"}"#,
                &[(region, "=?base64?SGVsbG8?=")],
                false,
            ),
            (
                r#"{"region":"Hello"}"#,
                &[(region, "=?base64?SGVs!!!bG8=?=")],
                false,
            ),
            (r#"{"region":"SGVsbG8="}"#, &[(region, "SGVsbG8=")], true),
            (r#"{"deep":{"n":42}}"#, &[("Mcp-Param-N", "42.0")], true),
            (r#"{"deep":{"n":42.0}}"#, &[("Mcp-Param-N", "42")], true),
            (r#"{"deep":{"n":42}}"#, &[("Mcp-Param-N", "43")], false),
            (r#"{"deep":{"n":42}}"#, &[("Mcp-Param-N", "4e1")], false),
            (
                r#"{"deep":{"n":9007199254740993}}"#,
                &[("Mcp-Param-N", "9007199254740992")],
                false,
            ),
            (r#"{"n":42}"#, &[], true),
            (r#"{"on":true}"#, &[("Mcp-Param-On", "true")], true),
            (r#"{"on":true}"#, &[("Mcp-Param-On", "True")], false),
        ] {
            assert_eq!(
                taken(arguments, headers),
                is_taken,
                "{arguments} {headers:?}"
            );
        }
    }

    #[test]
    fn a_schema_that_asks_for_a_header_twice_asks_for_nothing() {
        let twice = r#"{"inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"X"},
            "b":{"type":"string","x-mcp-header":"x"}}}}"#;
        assert_eq!(wanted(twice), []);
        assert_eq!(wanted("no JSON, but x-mcp-header"), []);
        assert!(!may_want(r#"{"inputSchema":{}}"#));
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}", said in ".{0,20}") {
            let _ = check(&text, &text, |_| Header::Says(&said));
            let params = format!("{{\"arguments\":{{\"region\":{text:?}}}}}");
            let _ = check(TOOL, &params, |_| Header::Says(&said));
        }
    }
}
