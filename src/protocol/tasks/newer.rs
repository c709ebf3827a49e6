//! Tasks as servers of 2026-07-28 make them (`io.modelcontextprotocol/tasks`): of a client that declares the extension
//! they may answer a call with one, and say of it in one place how it stands, what they ask, and what it ended with.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::talk::Questions;

use super::super::extensions::Extensions;
use super::super::{meta, modern, outbound};
use super::{Seen, seen, taken};

/// What such a server says of a task that it is asked about.
#[derive(Debug)]
pub struct Looked<'a> {
    /// How it stands.
    pub seen: Seen,
    /// What the call is answered with, if it is completed; an object.
    pub result: Option<&'a RawValue>,
    /// Its error, if it failed; an object.
    pub error: Option<&'a RawValue>,
}

/// A task in the place of a call's result, and what is said beside it: an object for `_meta`. `None` if the result is
/// another one.
#[must_use]
pub fn created(result: &[u8]) -> Option<(Seen, Option<Box<RawValue>>)> {
    #[derive(Deserialize)]
    struct Created<'a> {
        #[serde(borrow, rename = "resultType")]
        kind: &'a RawValue,
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    if result.first() != Some(&b'{') {
        return None;
    }
    let created: Created<'_> = serde_json::from_slice(result).ok()?;
    if created.kind.get() != "\"task\"" {
        return None;
    }
    // What is of its version alone is not for every client.
    let own = meta::split(created.meta).ok()?.members;
    let own = String::from_utf8(own).ok().filter(|own| !own.is_empty());
    let own = own.and_then(|own| RawValue::from_string(format!("{{{own}}}")).ok());
    Some((seen(result)?, own))
}

/// Reads the result of `tasks/get`; `None` if it is none of a task.
#[must_use]
pub fn looked(result: &[u8]) -> Option<Looked<'_>> {
    #[derive(Deserialize)]
    struct Ended<'a> {
        #[serde(borrow, default)]
        result: Option<&'a RawValue>,
        #[serde(borrow, default)]
        error: Option<&'a RawValue>,
    }
    let seen = seen(result)?;
    let ended: Ended<'_> = serde_json::from_slice(result).ok()?;
    let object = |value: &&RawValue| value.get().starts_with('{');
    Some(Looked {
        seen,
        result: ended.result.filter(object),
        error: ended.error.filter(object),
    })
}

/// Parameters of a request about a task, of a client that can answer `can`; `more` are members.
#[must_use]
pub fn params(id: &str, can: Questions, more: &[u8]) -> Bytes {
    let about = outbound::about(can, None, true, &Extensions::NONE);
    let id = serde_json::to_string(id).unwrap_or_default();
    let mut out = format!("{{\"_meta\":{{{about}}},\"taskId\":{id}").into_bytes();
    if !more.is_empty() {
        out.push(b',');
        out.extend_from_slice(more);
    }
    out.push(b'}');
    out.into()
}

/// Whether an error says that the call works only for a client that takes tasks.
#[must_use]
pub fn is_required(error: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Error<'a> {
        code: i64,
        #[serde(borrow)]
        data: Data<'a>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data<'a> {
        #[serde(borrow)]
        required_capabilities: &'a RawValue,
    }
    let error = serde_json::from_slice::<Error<'_>>(error);
    error.is_ok_and(|error| {
        error.code == modern::CAPABILITY_MISSING && taken(error.data.required_capabilities.get())
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::super::{REQUIRED, Status};
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        serde_json::to_vec(value).unwrap()
    }

    #[test]
    fn a_result_may_be_a_task() {
        let made = json!({"resultType": "task", "taskId": "t", "status": "working", "ttlMs": 9000,
            "pollIntervalMs": 300, "_meta": {"a": 1, "io.modelcontextprotocol/serverInfo": {}}});
        let (seen, meta) = created(&bytes(&made)).unwrap();
        assert_eq!((&*seen.id, seen.ttl), ("t", Some(9000)));
        assert_eq!(seen.poll, Duration::from_millis(300));
        assert_eq!(meta.unwrap().get(), r#"{"a":1}"#);
        for none in [
            json!({"taskId": "t", "status": "working"}),
            json!({"resultType": "complete", "taskId": "t", "status": "working"}),
            json!({"resultType": "task", "task": {"taskId": "t", "status": "working"}}),
            json!({"resultType": "task", "status": "working"}),
        ] {
            assert!(created(&bytes(&none)).is_none(), "{none}");
        }
    }

    #[test]
    fn it_is_looked_at_in_one_place() {
        let of = |more: Value| {
            let mut whole = json!({"resultType": "complete", "taskId": "t", "status": "working", "ttlMs": null});
            for (name, value) in more.as_object().unwrap() {
                whole[name] = value.clone();
            }
            bytes(&whole)
        };
        let done = of(json!({"status": "completed", "result": {"content": []}}));
        let done = looked(&done).unwrap();
        assert_eq!((done.seen.status, done.seen.ttl), (Status::Completed, None));
        assert_eq!(done.result.unwrap().get(), r#"{"content":[]}"#);
        let failed = of(json!({"status": "failed", "error": {"code": 1}, "result": 7}));
        let failed = looked(&failed).unwrap();
        assert_eq!(failed.error.unwrap().get(), r#"{"code":1}"#);
        assert!(failed.result.is_none());
        assert!(looked(br#"{"resultType":"complete"}"#).is_none());
        let params: Value =
            serde_json::from_slice(&params("a\"b", Questions::NONE, b"\"c\":1")).unwrap();
        assert_eq!(
            (&params["taskId"], &params["c"]),
            (&json!("a\"b"), &json!(1))
        );
        let can = &params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
        assert_eq!(can.to_string(), REQUIRED);
    }

    #[test]
    fn a_server_says_that_it_gives_tasks_alone() {
        let required: Value = serde_json::from_str(REQUIRED).unwrap();
        let error =
            |code: i64, data: Value| bytes(&json!({"code": code, "message": "m", "data": data}));
        assert!(is_required(&error(
            -32021,
            json!({"requiredCapabilities": required})
        )));
        assert!(!is_required(&error(
            -32603,
            json!({"requiredCapabilities": required})
        )));
        assert!(!is_required(&error(
            -32021,
            json!({"requiredCapabilities": {"sampling": {}}})
        )));
        assert!(!is_required(br#"{"code":-32021,"message":"m"}"#));
    }
}
