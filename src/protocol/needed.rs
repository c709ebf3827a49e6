//! What a server of 2026-07-28 needs to know before it can answer: read from its result, and answered with the
//! request that is sent again.

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::limits::{MCP_QUESTIONS_MAX, QUESTION_BYTES_MAX, REQUEST_STATE_BYTES_MAX};
use crate::domain::talk::{Question, Questions};

use super::meta;
use super::modern::{self, Members};
use super::questions::{self, Posed};

/// What a result asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Needed {
    /// Its questions, by the server's names.
    pub questions: Vec<(String, Posed)>,
    /// Its `requestState`, raw.
    pub state: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw<'a> {
    #[serde(borrow, default)]
    input_requests: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request_state: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_meta")]
    meta: Option<&'a RawValue>,
}

struct Asks<'a> {
    input_requests: Option<Members<'a>>,
    request_state: Option<&'a RawValue>,
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Request<'a> {
    method: std::borrow::Cow<'a, str>,
}

fn read_parts(result: &[u8]) -> Result<Asks<'_>, String> {
    let shapeless = |_| "what it asks for is not of its shape".to_owned();
    let raw: Raw<'_> = serde_json::from_slice(result).map_err(shapeless)?;
    let requests = raw.input_requests.map(RawValue::get);
    let asks = Asks {
        input_requests: requests
            .map(serde_json::from_str)
            .transpose()
            .map_err(shapeless)?,
        request_state: raw.request_state,
        meta: raw.meta,
    };
    let state = asks.request_state.map(RawValue::get);
    if state.is_some_and(|state| !state.starts_with('"')) {
        return Err("its `requestState` is no text".to_owned());
    }
    if state.is_some_and(|state| state.len() > REQUEST_STATE_BYTES_MAX) {
        return Err(format!(
            "its `requestState` is larger than {REQUEST_STATE_BYTES_MAX} bytes"
        ));
    }
    if state.is_none() && asks.input_requests.is_none() {
        return Err("it asks for nothing".to_owned());
    }
    Ok(asks)
}

fn posed(name: &str, request: &RawValue, can: Questions) -> Result<Posed, String> {
    let shown = modern::shown(name);
    let text = request.get();
    if text.len() > QUESTION_BYTES_MAX {
        return Err(format!("what it asks as `{shown}` is larger than 4 MiB"));
    }
    let method = serde_json::from_str::<Request<'_>>(text).ok();
    let posed = method.and_then(|Request { method }| questions::read(&method, text.as_bytes()));
    let posed = posed.ok_or_else(|| format!("what it asks as `{shown}` is no question"))?;
    if !can.has(posed.question) {
        return Err(format!(
            "it asks as `{shown}` for `{}`, which it was not told that its client can answer",
            posed.question.word()
        ));
    }
    Ok(posed)
}

/// Reads a result that asks. `can` is what the server was told that its client can answer.
///
/// # Errors
/// It asks for what it may not, or too much: in words.
pub fn read(result: &[u8], can: Questions) -> Result<Needed, String> {
    let asks = read_parts(result)?;
    let requests = asks
        .input_requests
        .map_or_else(Vec::new, |Members(all)| all);
    if requests.len() > MCP_QUESTIONS_MAX {
        return Err(format!(
            "it asks more than {MCP_QUESTIONS_MAX} things at once"
        ));
    }
    let questions = requests
        .into_iter()
        .map(|(name, request)| Ok((name.to_string(), posed(&name, request, can)?)));
    Ok(Needed {
        questions: questions.collect::<Result<_, String>>()?,
        state: asks.request_state.map(|state| state.get().to_owned()),
    })
}

/// Members of the parameters of the request that is sent again: answers by the server's names, and its state.
#[must_use]
pub fn brought(answers: &[(String, Bytes)], state: Option<&str>) -> Bytes {
    let mut out = BytesMut::new();
    if !answers.is_empty() {
        out.put_slice(b"\"inputResponses\":{");
        for (at, (name, answer)) in answers.iter().enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            out.put_slice(serde_json::to_string(name).unwrap_or_default().as_bytes());
            out.put_u8(b':');
            out.put_slice(answer);
        }
        out.put_u8(b'}');
    }
    if let Some(state) = state {
        if !out.is_empty() {
            out.put_u8(b',');
        }
        out.put_slice(b"\"requestState\":");
        out.put_slice(state.as_bytes());
    }
    out.freeze()
}

/// A question of this version as one of 2025-11-25, which names every visit of an address.
#[must_use]
pub fn as_older(mut posed: Posed, visit: &str) -> Posed {
    if posed.question == Question::ElicitationUrl && !posed.params.contains("elicitationId") {
        let rest = posed.params.trim_start().strip_prefix('{').unwrap_or("}");
        let comma = if rest.trim() == "}" { "" } else { "," };
        posed.params = format!("{{\"elicitationId\":\"{visit}\"{comma}{rest}");
    }
    posed
}

/// A result that asks, for a client of the same version: as its server wrote it, with its state sealed by `seal`
/// (which is given it raw) and in the name of `server` (its `serverInfo`, JSON) if it does not say who it is.
///
/// # Errors
/// It asks for what it may not, or too much: in words.
pub fn passed(
    result: &[u8],
    can: Questions,
    server: &str,
    seal: impl FnOnce(&str) -> String,
) -> Result<Bytes, String> {
    let needed = read(result, can)?;
    let asks = read_parts(result)?;
    let mut out = BytesMut::with_capacity(result.len() + 256);
    out.put_slice(b"{\"resultType\":\"input_required\",");
    let named = meta::split(asks.meta).ok().and_then(|split| split.server);
    let server = named.as_deref().unwrap_or(server);
    out.put_slice(modern::server_info(server).as_bytes());
    if let Some(Members(requests)) = asks.input_requests {
        out.put_slice(b",\"inputRequests\":{");
        for (at, (name, request)) in requests.iter().enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            out.put_slice(
                serde_json::to_string(&**name)
                    .unwrap_or_default()
                    .as_bytes(),
            );
            out.put_u8(b':');
            out.put_slice(request.get().as_bytes());
        }
        out.put_u8(b'}');
    }
    if let Some(state) = &needed.state {
        out.put_slice(b",\"requestState\":\"");
        out.put_slice(seal(state).as_bytes());
        out.put_u8(b'"');
    }
    out.put_u8(b'}');
    Ok(out.freeze())
}

/// What a server of 2025-11-25 wants visited before it goes on (its error -32042), as a result that asks. `None` if
/// its error is not that, or wants anything else than addresses visited.
#[must_use]
pub fn of_visits(error: &[u8], server: &str, seal: impl FnOnce() -> String) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i64,
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    struct Data<'a> {
        #[serde(borrow)]
        elicitations: Vec<&'a RawValue>,
    }
    let error: Error<'_> = serde_json::from_slice(error).ok()?;
    let visits = error.data.elicitations;
    if error.code != OLD_URL_NEEDED || visits.is_empty() || visits.len() > MCP_QUESTIONS_MAX {
        return None;
    }
    if !visits.iter().all(|visit| is_visit(visit)) {
        return None;
    }
    let mut out = BytesMut::new();
    out.put_slice(b"{\"resultType\":\"input_required\",");
    out.put_slice(modern::server_info(server).as_bytes());
    out.put_slice(b",\"inputRequests\":{");
    for (at, visit) in visits.iter().enumerate() {
        let params = questions::without_elicitation_id(visit.get().as_bytes());
        if !params.starts_with(b"{") {
            return None;
        }
        let comma = if at == 0 { "" } else { "," };
        let name = format!(
            "{comma}\"q{}\":{{\"method\":\"elicitation/create\",\"params\":",
            at + 1
        );
        out.put_slice(name.as_bytes());
        out.put_slice(&params);
        out.put_u8(b'}');
    }
    out.put_slice(b"},\"requestState\":\"");
    out.put_slice(seal().as_bytes());
    out.put_slice(b"\"}");
    Some(out.freeze())
}

/// Whether it is an address to visit: a form would be another question, which its server was not permitted.
fn is_visit(visit: &RawValue) -> bool {
    #[derive(Deserialize)]
    struct Visit<'a> {
        #[serde(borrow)]
        mode: std::borrow::Cow<'a, str>,
        #[serde(borrow, rename = "url")]
        _url: std::borrow::Cow<'a, str>,
    }
    serde_json::from_str::<Visit<'_>>(visit.get()).is_ok_and(|visit| visit.mode == "url")
}

/// What 2025-11-25 answers where its user is to visit an address first.
const OLD_URL_NEEDED: i64 = -32042;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ALL: Questions = Questions::from_bits(u8::MAX);
    const NAMED: &str = r#"{"name":"x","version":"1"}"#;

    fn asks(value: &Value) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    #[test]
    fn what_is_asked_is_read_and_bounded() {
        let form = json!({"method": "elicitation/create", "params": {"message": "m", "requestedSchema": {}}});
        let good = json!({"resultType": "input_required", "inputRequests": {"a b": form}, "requestState": "s\n"});
        let needed = read(&asks(&good), ALL).unwrap();
        assert_eq!(needed.questions[0].0, "a b");
        assert_eq!(needed.state.as_deref(), Some("\"s\\n\""));
        let answers = [(
            "a b".to_owned(),
            Bytes::from_static(b"{\"action\":\"accept\"}"),
        )];
        let brought = brought(&answers, needed.state.as_deref());
        let back: Value = serde_json::from_slice(&[b"{", &brought[..], b"}"].concat()).unwrap();
        assert_eq!(
            back,
            json!({"inputResponses": {"a b": {"action": "accept"}}, "requestState": "s\n"})
        );
        let many: serde_json::Map<_, _> = (0..=MCP_QUESTIONS_MAX)
            .map(|at| (at.to_string(), form.clone()))
            .collect();
        for bad in [
            json!({}),
            json!({"requestState": 7}),
            json!({"requestState": "x".repeat(REQUEST_STATE_BYTES_MAX)}),
            json!({"inputRequests": []}),
            json!({"inputRequests": {"a": 7}}),
            json!({"inputRequests": {"a": {"method": "tools/call"}}}),
            json!({"inputRequests": {"a": {"method": "elicitation/create", "params": []}}}),
            json!({"inputRequests": many}),
        ] {
            assert!(read(&asks(&bad), ALL).is_err(), "{bad}");
        }
        let twice =
            br#"{"inputRequests":{"a":{"method":"roots/list"},"a":{"method":"roots/list"}}}"#;
        assert!(read(twice, ALL).is_err());
        let why = read(&asks(&good), Questions::NONE).unwrap_err();
        assert!(why.contains("elicitation"), "{why}");
    }

    #[test]
    fn it_is_passed_on_with_another_state() {
        let good = json!({"resultType": "input_required", "requestState": "own",
            "inputRequests": {"r": {"method": "roots/list"}}});
        let out = passed(&asks(&good), ALL, NAMED, |own| {
            assert_eq!(own, "\"own\"");
            "ours".to_owned()
        });
        let out: Value = serde_json::from_slice(&out.unwrap()).unwrap();
        assert_eq!(out["requestState"], "ours");
        assert_eq!(out["inputRequests"], good["inputRequests"]);
        let none = json!({"inputRequests": {"r": {"method": "roots/list"}}});
        let out = passed(&asks(&none), ALL, NAMED, |_| unreachable!()).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        assert!(out.get("requestState").is_none());
    }

    #[test]
    fn visits_are_asked_for_in_both_ways() {
        let error = json!({"code": -32042, "message": "m", "data": {"elicitations": [
            {"mode": "url", "url": "https://a.example/", "message": "go", "elicitationId": "e"}]}});
        let out = of_visits(&asks(&error), NAMED, || "s".to_owned()).unwrap();
        let out: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(
            out["inputRequests"]["q1"]["params"],
            json!({"mode": "url", "url": "https://a.example/", "message": "go"})
        );
        for other in [
            json!({"code": -32041, "data": {"elicitations": [{}]}}),
            json!({"code": -32042, "data": {"elicitations": []}}),
            json!({"code": -32042}),
            json!({"code": -32042, "data": {"elicitations": [{"mode": "url", "message": "go"}]}}),
            json!({"code": -32042, "data": {"elicitations": [{"mode": "url", "url": 7}]}}),
            json!({"code": -32042, "data": {"elicitations": [
                {"mode": "url", "url": "https://a.example/", "message": "go"},
                {"mode": "form", "url": "u", "message": "your password?", "requestedSchema": {}}]}}),
        ] {
            assert_eq!(
                of_visits(&asks(&other), NAMED, String::new),
                None,
                "{other}"
            );
        }
        let posed = Posed {
            question: Question::ElicitationUrl,
            method: "elicitation/create",
            params: r#"{"url":"u"}"#.to_owned(),
        };
        assert_eq!(
            as_older(posed, "v").params,
            r#"{"elicitationId":"v","url":"u"}"#
        );
    }
}
