//! What servers ask their clients: how a client says what it can answer, how a server is told, and which
//! kind a question is.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::talk::{Question, Questions};

use super::tasks;

#[derive(Deserialize, Default)]
struct Capabilities<'a> {
    #[serde(borrow, default)]
    sampling: Option<&'a RawValue>,
    #[serde(borrow, default)]
    elicitation: Option<&'a RawValue>,
    #[serde(borrow, default)]
    roots: Option<&'a RawValue>,
}

/// What belongs to one capability, where it is there and not null.
#[derive(Deserialize, Default)]
struct Parts<'a> {
    #[serde(borrow, default)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, default)]
    form: Option<&'a RawValue>,
    #[serde(borrow, default)]
    url: Option<&'a RawValue>,
}

fn parts(text: &str) -> Parts<'_> {
    serde_json::from_str(text).unwrap_or_default()
}

fn object(value: Option<&RawValue>) -> Option<&str> {
    value
        .map(RawValue::get)
        .filter(|text| text.starts_with('{'))
}

/// What a client can answer, by the capabilities it declares. What is no object declares nothing.
#[must_use]
pub fn declared(capabilities: &str) -> Questions {
    let none = Questions::NONE;
    if !capabilities.starts_with('{') {
        return none;
    }
    let said: Capabilities<'_> = serde_json::from_str(capabilities).unwrap_or_default();
    let mut all = none;
    if let Some(sampling) = object(said.sampling) {
        all = all.with(Question::Sampling);
        if parts(sampling).tools.is_some() {
            all = all.with(Question::SamplingTools);
        }
    }
    if let Some(elicitation) = object(said.elicitation) {
        let parts = parts(elicitation);
        // One that says nothing of modes is of a version that has forms only.
        if parts.form.is_some() || parts.url.is_none() {
            all = all.with(Question::Elicitation);
        }
        if parts.url.is_some() {
            all = all.with(Question::ElicitationUrl);
        }
    }
    if object(said.roots).is_some() {
        all = all.with(Question::Roots);
    }
    all
}

/// The capabilities that a server is told its client has; JSON.
#[must_use]
pub fn capabilities(questions: Questions) -> String {
    let mut all = Vec::new();
    if questions.has(Question::Sampling) {
        all.push(match questions.has(Question::SamplingTools) {
            true => "\"sampling\":{\"tools\":{}}",
            false => "\"sampling\":{}",
        });
    }
    let form = questions.has(Question::Elicitation);
    let url = questions.has(Question::ElicitationUrl);
    match (form, url) {
        (true, true) => all.push("\"elicitation\":{\"form\":{},\"url\":{}}"),
        (true, false) => all.push("\"elicitation\":{}"),
        (false, true) => all.push("\"elicitation\":{\"url\":{}}"),
        (false, false) => {}
    }
    if questions.has(Question::Roots) {
        all.push("\"roots\":{\"listChanged\":true}");
    }
    format!("{{{}}}", all.join(","))
}

/// Capabilities with one more member, if there is one; JSON.
pub(super) fn with_member(mut capabilities: String, member: &str) -> String {
    if !member.is_empty() && capabilities.pop().is_some() {
        let comma = if capabilities == "{" { "" } else { "," };
        capabilities = format!("{capabilities}{comma}{member}}}");
    }
    capabilities
}

/// The capabilities that a client of a newer version must have for a question; JSON.
#[must_use]
pub fn required(question: Question) -> &'static str {
    match question {
        Question::Sampling => "{\"sampling\":{}}",
        Question::SamplingTools => "{\"sampling\":{\"tools\":{}}}",
        Question::Elicitation => "{\"elicitation\":{}}",
        Question::ElicitationUrl => "{\"elicitation\":{\"url\":{}}}",
        Question::Roots => "{\"roots\":{}}",
    }
}

/// A server's request to its client, as far as we look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posed {
    /// Which kind it is.
    pub question: Question,
    /// Its method.
    pub method: &'static str,
    /// Its parameters; an object.
    pub params: String,
}

/// Reads a request line of a server; `None` if it is no question that clients are asked, or its parameters are
/// no object.
#[must_use]
pub fn read(method: &str, line: &[u8]) -> Option<Posed> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow, default)]
        params: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow, default)]
        mode: Option<Cow<'a, str>>,
        #[serde(borrow, default)]
        tools: Option<&'a RawValue>,
        #[serde(borrow, default, rename = "toolChoice")]
        tool_choice: Option<&'a RawValue>,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let given = line.params.map_or("{}", RawValue::get);
    let given = if given == "null" { "{}" } else { given };
    if !given.starts_with('{') {
        return None;
    }
    let params: Params<'_> = serde_json::from_str(given).ok()?;
    let (question, method) = match method {
        "sampling/createMessage" => match (params.tools, params.tool_choice) {
            (None, None) => (Question::Sampling, "sampling/createMessage"),
            _ => (Question::SamplingTools, "sampling/createMessage"),
        },
        "elicitation/create" => match params.mode.as_deref() {
            None | Some("form") => (Question::Elicitation, "elicitation/create"),
            Some("url") => (Question::ElicitationUrl, "elicitation/create"),
            Some(_) => return None,
        },
        "roots/list" => (Question::Roots, "roots/list"),
        _ => return None,
    };
    Some(Posed {
        question,
        method,
        params: tasks::without_task(given).into_owned(),
    })
}

/// Parameters of a question for a client of a newer version, which knows of no ids of elicitations; the same, if
/// there is none.
#[must_use]
pub fn without_elicitation_id(params: &[u8]) -> Cow<'_, [u8]> {
    const NAME: &str = "elicitationId";
    if memchr::memmem::find(params, NAME.as_bytes()).is_none() {
        return Cow::Borrowed(params);
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(params) {
        Ok(mut members) => {
            members.remove(NAME);
            Cow::Owned(serde_json::to_vec(&members).unwrap_or_default())
        }
        Err(_) => Cow::Borrowed(params),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_declare_and_servers_are_told() {
        for (said, words, told) in [
            ("{}", "", "{}"),
            ("null", "", "{}"),
            (r#"{"sampling":null,"roots":[]}"#, "", "{}"),
            (
                r#"{"sampling":{},"elicitation":{},"roots":{"listChanged":true},"x":1}"#,
                "sampling,elicitation,roots",
                r#"{"sampling":{},"elicitation":{},"roots":{"listChanged":true}}"#,
            ),
            (
                r#"{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
                "sampling,sampling.tools,elicitation,elicitation.url",
                r#"{"sampling":{"tools":{}},"elicitation":{"form":{},"url":{}}}"#,
            ),
            (
                r#"{"elicitation":{"url":{}}}"#,
                "elicitation.url",
                r#"{"elicitation":{"url":{}}}"#,
            ),
        ] {
            let declared = declared(said);
            assert_eq!(declared.to_string(), words, "{said}");
            assert_eq!(capabilities(declared), told, "{said}");
        }
    }

    #[test]
    fn which_kind_a_question_is() {
        let kind = |method: &str, params: &str| {
            let line = format!(r#"{{"id":1,"method":"{method}","params":{params}}}"#);
            read(method, line.as_bytes()).map(|posed| posed.question)
        };
        assert_eq!(kind("roots/list", "null"), Some(Question::Roots));
        assert_eq!(
            kind("elicitation/create", "{}"),
            Some(Question::Elicitation)
        );
        assert_eq!(
            kind("elicitation/create", r#"{"mode":"url"}"#),
            Some(Question::ElicitationUrl)
        );
        assert_eq!(kind("elicitation/create", r#"{"mode":"other"}"#), None);
        assert_eq!(
            kind("sampling/createMessage", r#"{"tools":[]}"#),
            Some(Question::SamplingTools)
        );
        assert_eq!(kind("sampling/createMessage", "[]"), None);
        assert_eq!(kind("tools/call", "{}"), None);
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = declared(&text);
            let _ = read("roots/list", &bytes);
        }
    }
}
