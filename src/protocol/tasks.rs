//! Tasks as they stand on the wire: those of 2025-11-25 (experimental, asked for by clients), and those of the
//! extension of 2026-07-28 (decided by servers). What servers say of the first is read here, of the second in [`newer`];
//! what the gateway tells of a task is written for either.
//!
//! Sources: MCP 2025-11-25, `basic/utilities/tasks`; `io.modelcontextprotocol/tasks` (SEP-2663).

pub mod newer;
mod related;
mod shown;

use std::borrow::Cow;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::limits::{
    TASK_ID_BYTES_MAX, TASK_MESSAGE_CHARS_MAX, TASK_POLL, TASK_POLL_MAX, TASK_POLL_MIN,
};

use super::envelope::{self, Meta};
use super::modern::Members;
pub use related::{relate, relate_line, related, related_line, says_error, without_task};
pub use shown::Shown;

/// The extension of 2026-07-28.
pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// The capabilities that a client must have for it; JSON.
pub const REQUIRED: &str = "{\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}}";

/// Whether a tool works as a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Support {
    /// No (what a tool is that says nothing).
    #[default]
    Forbidden,
    /// As its caller likes.
    Optional,
    /// Only so.
    Required,
}

#[derive(Deserialize)]
struct Definition<'a> {
    #[serde(borrow, default)]
    execution: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Execution<'a> {
    #[serde(borrow, default)]
    task_support: Option<&'a RawValue>,
}

fn said(definition: &str) -> Option<&RawValue> {
    memchr::memmem::find(definition.as_bytes(), b"taskSupport")?;
    let definition: Definition<'_> = serde_json::from_str(definition).ok()?;
    let execution: Execution<'_> = serde_json::from_str(definition.execution?.get()).ok()?;
    execution.task_support
}

/// What a tool's definition says.
#[must_use]
pub fn support(definition: &str) -> Support {
    let word =
        said(definition).and_then(|said| serde_json::from_str::<Cow<'_, str>>(said.get()).ok());
    match word.as_deref() {
        Some("optional") => Support::Optional,
        Some("required") => Support::Required,
        _ => Support::Forbidden,
    }
}

/// The definition as it is true here: a tool that works only as a task can be called like any other, since the
/// gateway waits for its task then.
#[must_use]
pub fn as_offered(definition: &str) -> Cow<'_, str> {
    let place = (support(definition) == Support::Required)
        .then(|| said(definition))
        .flatten()
        .and_then(|said| envelope::locate(definition.as_bytes(), said));
    let parts = place.and_then(|at| Some((definition.get(..at.start)?, definition.get(at.end..)?)));
    match parts {
        Some((before, after)) => Cow::Owned(format!("{before}\"optional\"{after}")),
        None => Cow::Borrowed(definition),
    }
}

/// What a server's `tasks` capability says: whether calls of its tools can be tasks, and whether these can be
/// cancelled.
#[must_use]
pub fn declared(capability: Option<&RawValue>) -> (bool, bool) {
    fn member<'a>(of: Option<&'a RawValue>, name: &str) -> Option<&'a RawValue> {
        let Members(members) = serde_json::from_str(of?.get()).ok()?;
        let found = members.into_iter().find(|(key, _)| &**key == name);
        found
            .map(|(_, value)| value)
            .filter(|value| value.get().starts_with('{'))
    }
    let calls = member(member(member(capability, "requests"), "tools"), "call");
    (calls.is_some(), member(capability, "cancel").is_some())
}

/// Whether a client of 2026-07-28 takes a task for a result, or a server of it may give one, by the capabilities that
/// it declares.
#[must_use]
pub fn taken(capabilities: &str) -> bool {
    let member = |of: &str, name: &str| {
        let Members(members) = serde_json::from_str(of).ok()?;
        let found = members.into_iter().find(|(key, _)| &**key == name);
        found.map(|(_, value)| value.get().to_owned())
    };
    let extension = member(capabilities, "extensions").and_then(|all| member(&all, EXTENSION));
    extension.is_some_and(|settings| settings.starts_with('{'))
}

/// What a client wants of the task that it asks for: how long it is kept, in milliseconds.
///
/// # Errors
/// In words.
pub fn wish(task: &RawValue) -> Result<Option<u64>, &'static str> {
    #[derive(Deserialize)]
    struct Wish {
        #[serde(default)]
        ttl: Option<serde_json::Number>,
    }
    const WRONG: &str = "`task` must be an object, and its `ttl` milliseconds";
    if !task.get().starts_with('{') {
        return Err(WRONG);
    }
    let Wish { ttl } = serde_json::from_str(task.get()).map_err(|_| WRONG)?;
    match ttl {
        None => Ok(None),
        Some(ttl) => whole(&ttl).map(Some).ok_or(WRONG),
    }
}

/// A number of milliseconds; servers and clients in some languages write them with a point.
fn whole(number: &serde_json::Number) -> Option<u64> {
    number.as_u64().or_else(|| {
        let number = number.as_f64().filter(|number| *number >= 0.0)?;
        // Whatever is longer is cut to the most later.
        Duration::try_from_secs_f64(number / 1000.0)
            .ok()
            .and_then(|time| u64::try_from(time.as_millis()).ok())
    })
}

/// The request line of a call that is to be a task.
#[must_use]
pub fn tool_call(id: u64, name: &str, arguments: &[u8], meta: Meta<'_>, ttl: Option<u64>) -> Bytes {
    let plain = envelope::tool_call(id, name, arguments, meta);
    let mut line = BytesMut::with_capacity(plain.len() + 48);
    line.put_slice(plain.strip_suffix(b"}}\n").unwrap_or(&plain));
    let ttl = ttl.map(|ttl| format!("\"ttl\":{ttl}")).unwrap_or_default();
    line.put_slice(format!(",\"task\":{{{ttl}}}}}}}\n").as_bytes());
    line.freeze()
}

/// The parameters that name a task to its server.
#[must_use]
pub fn named(id: &str) -> Bytes {
    serde_json::json!({ "taskId": id }).to_string().into()
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is worked on.
    Working,
    /// Its client is asked something.
    InputRequired,
    /// It has a result.
    Completed,
    /// It has none, or one that says that it failed.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
}

impl Status {
    /// Its word on the wire.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Working => "working",
            Self::InputRequired => "input_required",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_last(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    fn of(word: &str) -> Option<Self> {
        const ALL: [Status; 5] = [
            Status::Working,
            Status::InputRequired,
            Status::Completed,
            Status::Failed,
            Status::Cancelled,
        ];
        ALL.into_iter().find(|status| status.word() == word)
    }
}

/// What a server says of a task of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What it calls it.
    pub id: Box<str>,
    /// How it stands.
    pub status: Status,
    /// In words.
    pub message: Option<Box<str>>,
    /// How long it keeps it from its beginning on, in milliseconds; `None` if it does not say, or for ever.
    pub ttl: Option<u64>,
    /// How often to look.
    pub poll: Duration,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    #[serde(borrow)]
    task_id: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow, default)]
    status_message: Option<Cow<'a, str>>,
    #[serde(default)]
    ttl: Option<serde_json::Number>,
    #[serde(default)]
    ttl_ms: Option<serde_json::Number>,
    #[serde(default)]
    poll_interval: Option<serde_json::Number>,
    #[serde(default)]
    poll_interval_ms: Option<serde_json::Number>,
}

/// Reads a task as a server of either version writes it: the result of `tasks/get`, or what it tells unasked. `None` if
/// it is none.
#[must_use]
pub fn seen(object: &[u8]) -> Option<Seen> {
    if object.first() != Some(&b'{') {
        return None;
    }
    let wire: Wire<'_> = serde_json::from_slice(object).ok()?;
    if wire.task_id.is_empty() || wire.task_id.len() > TASK_ID_BYTES_MAX {
        return None;
    }
    let message = |text: Cow<'_, str>| -> Box<str> {
        text.chars()
            .take(TASK_MESSAGE_CHARS_MAX)
            .collect::<String>()
            .into()
    };
    let poll = wire
        .poll_interval_ms
        .as_ref()
        .or(wire.poll_interval.as_ref());
    let poll = poll.and_then(whole);
    let ttl = wire.ttl_ms.as_ref().or(wire.ttl.as_ref());
    Some(Seen {
        id: wire.task_id.into(),
        status: Status::of(&wire.status)?,
        message: wire.status_message.map(message),
        ttl: ttl.and_then(whole),
        poll: poll.map_or(TASK_POLL, |ms| {
            Duration::from_millis(ms).clamp(TASK_POLL_MIN, TASK_POLL_MAX)
        }),
    })
}

/// A task that a server made in answer to a call, and what it says beside it in `_meta`. `None` if the answer is
/// another one.
#[must_use]
pub fn created(result: &[u8]) -> Option<(Seen, Option<&RawValue>)> {
    #[derive(Deserialize)]
    struct Created<'a> {
        #[serde(borrow)]
        task: &'a RawValue,
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    if result.first() != Some(&b'{') {
        return None;
    }
    let created: Created<'_> = serde_json::from_slice(result).ok()?;
    Some((seen(created.task.get().as_bytes())?, created.meta))
}

/// What a server tells of a task unasked: a line of `notifications/tasks/status`.
#[must_use]
pub fn told(line: &[u8]) -> Option<Seen> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        params: &'a RawValue,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    seen(line.params.get().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    fn text(bytes: Option<Bytes>) -> String {
        String::from_utf8(bytes.unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_tool_says_whether_it_works_as_a_task() {
        for (definition, is) in [
            ("{}", Support::Forbidden),
            (
                r#"{"execution":{"taskSupport":"optional"}}"#,
                Support::Optional,
            ),
            (
                r#"{"execution":{"taskSupport":"requ\u0069red"}}"#,
                Support::Required,
            ),
            (
                r#"{"execution":{"taskSupport":"forbidden"}}"#,
                Support::Forbidden,
            ),
            (r#"{"execution":{"taskSupport":7}}"#, Support::Forbidden),
            (
                r#"{"execution":null,"taskSupport":"required"}"#,
                Support::Forbidden,
            ),
            (r#"{"execution":"taskSupport"}"#, Support::Forbidden),
        ] {
            assert_eq!(support(definition), is, "{definition}");
        }
        let required = r#"{ "name":"a", "execution" : { "taskSupport":  "required" },"x":1.0e2 }"#;
        assert_eq!(
            as_offered(required),
            r#"{ "name":"a", "execution" : { "taskSupport":  "optional" },"x":1.0e2 }"#
        );
        let optional = r#"{"execution":{"taskSupport":"optional"},"description":"required"}"#;
        assert_eq!(as_offered(optional), optional);
    }

    #[test]
    fn a_server_says_what_of_it_works_as_a_task() {
        for (capability, is) in [
            (
                r#"{"list":{},"cancel":{},"requests":{"tools":{"call":{}}}}"#,
                (true, true),
            ),
            (r#"{"requests":{"tools":{"call":{"x":1}}}}"#, (true, false)),
            (
                r#"{"requests":{"tools":{"call":true}},"cancel":null}"#,
                (false, false),
            ),
            ("{}", (false, false)),
            ("7", (false, false)),
        ] {
            assert_eq!(declared(Some(&raw(capability))), is, "{capability}");
        }
        assert_eq!(declared(None), (false, false));
        assert!(taken(REQUIRED));
        for none in [
            "{}",
            "[]",
            r#"{"extensions":{"io.modelcontextprotocol/tasks":true}}"#,
            r#"{"extensions":null}"#,
        ] {
            assert!(!taken(none), "{none}");
        }
    }

    #[test]
    fn what_a_client_wants_is_read() {
        assert_eq!(wish(&raw("{}")), Ok(None));
        assert_eq!(wish(&raw(r#"{"ttl":null,"x":1}"#)), Ok(None));
        assert_eq!(wish(&raw(r#"{"ttl":60000}"#)), Ok(Some(60_000)));
        assert_eq!(wish(&raw(r#"{"ttl":60000.0}"#)), Ok(Some(60_000)));
        for wrong in [
            "[]",
            "true",
            r#"{"ttl":-1}"#,
            r#"{"ttl":"1"}"#,
            r#"{"ttl":1e300}"#,
        ] {
            assert!(wish(&raw(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_call_asks_for_a_task() {
        let line = tool_call(7, "t", br#"{"a":"}}"}"#, Meta::default(), Some(60_000));
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(
            value["params"],
            serde_json::json!({"name": "t", "arguments": {"a": "}}"}, "task": {"ttl": 60000}})
        );
        assert!(line.ends_with(b"}\n"));
    }

    #[test]
    fn what_a_server_says_of_a_task_is_read() {
        let (task, meta) = created(
            br#"{"task":{"taskId":"a\"b","status":"working","ttl":null,"pollInterval":5},"_meta":{"x":1}}"#,
        )
        .unwrap();
        assert_eq!(
            (&*task.id, task.status, task.ttl),
            ("a\"b", Status::Working, None)
        );
        assert_eq!(
            (task.poll, meta.unwrap().get()),
            (TASK_POLL_MIN, r#"{"x":1}"#)
        );
        assert_eq!(&named(&task.id)[..], br#"{"taskId":"a\"b"}"#);
        for none in [
            r#"{"content":[]}"#,
            r#"{"task":7}"#,
            r#"{"task":{"taskId":"","status":"working"}}"#,
            r#"{"task":{"taskId":"a","status":"new"}}"#,
            r#"{"task":{"taskId":7,"status":"working"}}"#,
            "[]",
            "null",
        ] {
            assert!(created(none.as_bytes()).is_none(), "{none}");
        }
        let long = format!(r#"{{"taskId":"{}","status":"working"}}"#, "x".repeat(1025));
        assert!(seen(long.as_bytes()).is_none());
        let line = br#"{"method":"notifications/tasks/status","params":{"taskId":"a","status":"failed","statusMessage":"m"}}"#;
        let told = told(line).unwrap();
        assert_eq!(
            (told.status, told.message.as_deref()),
            (Status::Failed, Some("m"))
        );
    }

    #[test]
    fn what_belongs_to_a_task_says_so_by_our_name_of_it() {
        let theirs = r#"{"message":"m","_meta":{"a":[1.0e2],"io.modelcontextprotocol/related-task":{"taskId":"s-1"}},"x":null}"#;
        assert_eq!(related(theirs).as_deref(), Some("s-1"));
        assert_eq!(related(r#"{"related-task":1}"#), None);
        assert_eq!(
            text(relate(theirs.as_bytes(), Some("tsk_1"))),
            r#"{"message":"m","x":null,"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"tsk_1"},"a":[1.0e2]}}"#
        );
        assert_eq!(
            text(relate(theirs.as_bytes(), None)),
            r#"{"message":"m","x":null,"_meta":{"a":[1.0e2]}}"#
        );
        assert_eq!(text(relate(b"{}", None)), "{}");
        assert_eq!(text(relate(br#"{"_meta":null}"#, None)), "{}");
        assert_eq!(relate(br#"{"a":1,"a":2}"#, None), None);
        assert_eq!(relate(br#"{"_meta":7}"#, None), None);
        let line =
            br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}"#;
        assert!(text(relate_line(line, Some("tsk_1"))).contains(r#""progress":1,"_meta""#));
    }

    #[test]
    fn a_question_does_not_want_a_task() {
        assert_eq!(without_task(r#"{"a":"task"}"#), r#"{"a":"task"}"#);
        assert_eq!(
            without_task(r#"{"a":1,"task":{"ttl":1},"b":2}"#),
            r#"{"a":1,"b":2}"#
        );
        assert_eq!(without_task(r#"{"a":{"task":1}}"#), r#"{"a":{"task":1}}"#);
    }

    #[test]
    fn a_task_is_written_for_both_versions() {
        let mut shown = Shown {
            id: "tsk_1".into(),
            status: Status::Working,
            message: None,
            created_at: 0,
            updated_at: 1_500,
            ttl: 60_000,
            poll: Duration::from_secs(1),
        };
        assert_eq!(
            shown.core(),
            r#""taskId":"tsk_1","status":"working","createdAt":"1970-01-01T00:00:00.000Z","lastUpdatedAt":"1970-01-01T00:00:01.500Z","ttl":60000,"pollInterval":1000"#
        );
        shown.message = Some("a \"b\"".into());
        let newer = shown.extension(Status::Completed);
        assert!(
            newer.contains(r#""status":"completed","statusMessage":"a \"b\"","#),
            "{newer}"
        );
        assert!(
            newer.ends_with(r#""ttlMs":60000,"pollIntervalMs":1000"#),
            "{newer}"
        );
    }
}
