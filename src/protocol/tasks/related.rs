//! What ties a message to a task: in place of the server's name of it, ours.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::modern::Members;

/// The member of `_meta` that ties a message to a task.
const RELATED: &str = "io.modelcontextprotocol/related-task";

/// The task that parameters or a result belong to.
#[must_use]
pub fn related(object: &str) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow, default, rename = "_meta")]
        meta: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Related<'a> {
        #[serde(borrow, default, rename = "io.modelcontextprotocol/related-task")]
        task: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Task<'a> {
        #[serde(borrow)]
        task_id: Cow<'a, str>,
    }
    memchr::memmem::find(object.as_bytes(), b"related-task")?;
    let object: Object<'_> = serde_json::from_str(object).ok()?;
    let meta: Related<'_> = serde_json::from_str(object.meta?.get()).ok()?;
    let task: Task<'_> = serde_json::from_str(meta.task?.get()).ok()?;
    Some(task.task_id.into())
}

/// The task that a notification line belongs to.
#[must_use]
pub fn related_line(line: &[u8]) -> Option<Box<str>> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        params: &'a RawValue,
    }
    memchr::memmem::find(line, b"related-task")?;
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    related(line.params.get())
}

/// Whether a tool's result says that it failed.
#[must_use]
pub fn says_error(result: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct ToolResult {
        #[serde(default, rename = "isError")]
        is_error: bool,
    }
    memchr::memmem::find(result, b"isError").is_some()
        && serde_json::from_slice::<ToolResult>(result).is_ok_and(|result| result.is_error)
}

/// Parameters or a result that say to which task of ours they belong, in place of what the server calls it; or to none.
/// Whatever else is in them keeps its bytes. `None` if they are no object whose members stand there once.
#[must_use]
pub fn relate(object: &[u8], ours: Option<&str>) -> Option<Bytes> {
    let Members(members) = serde_json::from_slice(object).ok()?;
    let mut meta = BytesMut::new();
    if let Some(ours) = ours {
        // An id of ours has nothing to escape.
        meta.put_slice(format!("\"{RELATED}\":{{\"taskId\":\"{ours}\"}}").as_bytes());
    }
    let mut out = BytesMut::with_capacity(object.len() + 128);
    out.put_u8(b'{');
    for (key, value) in &members {
        if &**key == "_meta" && value.get() != "null" {
            let Members(own) = serde_json::from_str(value.get()).ok()?;
            for (key, value) in own.iter().filter(|(key, _)| &**key != RELATED) {
                put_member(&mut meta, key, value.get());
            }
        } else if &**key != "_meta" {
            if out.len() > 1 {
                out.put_u8(b',');
            }
            out.put_slice(serde_json::to_string(&**key).ok()?.as_bytes());
            out.put_u8(b':');
            out.put_slice(value.get().as_bytes());
        }
    }
    if !meta.is_empty() {
        if out.len() > 1 {
            out.put_u8(b',');
        }
        out.put_slice(b"\"_meta\":{");
        out.put_slice(&meta);
        out.put_u8(b'}');
    }
    out.put_u8(b'}');
    Some(out.freeze())
}

fn put_member(out: &mut BytesMut, key: &str, value: &str) {
    if !out.is_empty() {
        out.put_u8(b',');
    }
    out.put_slice(serde_json::to_string(key).unwrap_or_default().as_bytes());
    out.put_u8(b':');
    out.put_slice(value.as_bytes());
}

/// A notification line whose parameters say to which task of ours they belong.
#[must_use]
pub fn relate_line(line: &[u8], ours: Option<&str>) -> Option<Bytes> {
    #[derive(Deserialize)]
    struct Line<'a> {
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        params: &'a RawValue,
    }
    let line: Line<'_> = serde_json::from_slice(line).ok()?;
    let params = relate(line.params.get().as_bytes(), ours)?;
    let mut out = BytesMut::with_capacity(params.len() + 64);
    out.put_slice(b"{\"jsonrpc\":\"2.0\",\"method\":");
    out.put_slice(serde_json::to_string(&*line.method).ok()?.as_bytes());
    out.put_slice(b",\"params\":");
    out.put_slice(&params);
    out.put_u8(b'}');
    Some(out.freeze())
}

/// A question's parameters without the wish that its answer be a task: we declare that to no server.
#[must_use]
pub fn without_task(params: &str) -> Cow<'_, str> {
    if memchr::memmem::find(params.as_bytes(), b"\"task\"").is_none() {
        return Cow::Borrowed(params);
    }
    let Ok(Members(members)) = serde_json::from_str(params) else {
        return Cow::Borrowed(params);
    };
    if !members.iter().any(|(key, _)| &**key == "task") {
        return Cow::Borrowed(params);
    }
    let mut out = BytesMut::new();
    for (key, value) in members.iter().filter(|(key, _)| &**key != "task") {
        put_member(&mut out, key, value.get());
    }
    Cow::Owned(format!("{{{}}}", String::from_utf8_lossy(&out)))
}
