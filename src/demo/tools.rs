//! The table of tools. Each is a function of its arguments and the server it runs in.

mod memory;
mod network;
mod process;
mod siege;
mod talk;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub(super) use process::die_by;

use super::server::{Cancel, Server};
use super::wire::{Fault, INVALID_PARAMS, lock};

/// Milliseconds `sleep` accepts at most: an hour.
const SLEEP_MS_MAX: u64 = 3_600_000;

/// What a tool did.
#[derive(Debug, PartialEq)]
pub(super) enum Outcome {
    /// Text items of the result.
    Texts(Vec<String>),
    /// One text item that is this JSON.
    Json(Value),
    /// A result with `isError`.
    Failed(String),
    /// Cancelled: no answer at all.
    Silent,
}

/// What a tool works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) server: Arc<Server>,
    pub(super) cancel: Arc<Cancel>,
}

/// One tool.
#[derive(Debug)]
pub(super) struct Tool {
    pub(super) name: &'static str,
    description: &'static str,
    /// JSON Schema of the arguments.
    schema: &'static str,
    /// `readOnlyHint` and `idempotentHint`: whether a gateway may repeat the call.
    repeatable: bool,
    /// Runs on a thread of its own.
    pub(super) slow: bool,
    pub(super) run: fn(&Context, &RawValue) -> Result<Outcome, Fault>,
}

const NOTHING: &str = r#"{"type":"object","properties":{},"additionalProperties":false}"#;

/// Every tool, in the order it is listed.
pub(super) static TOOLS: &[Tool] = &[
    Tool {
        name: "echo",
        description: "Give the text back, and the nonce as a second item if there is one.",
        schema: r#"{"type":"object","properties":{"text":{"type":"string","description":"What to give back."},"nonce":{"type":"string","description":"Any string; proves that the answer is of this call."}},"required":["text"],"additionalProperties":false}"#,
        repeatable: true,
        slow: false,
        run: echo,
    },
    Tool {
        name: "sleep",
        description: "Answer after some milliseconds. Stops at once when cancelled.",
        schema: r#"{"type":"object","properties":{"ms":{"type":"integer","minimum":0,"maximum":3600000,"description":"How long."}},"required":["ms"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: sleep,
    },
    Tool {
        name: "add",
        description: "Add two numbers.",
        schema: r#"{"type":"object","properties":{"a":{"type":"number"},"b":{"type":"number"}},"required":["a","b"],"additionalProperties":false}"#,
        repeatable: true,
        slow: false,
        run: add,
    },
    Tool {
        name: "note_put",
        description: "Keep a note in this process's memory.",
        schema: r#"{"type":"object","properties":{"key":{"type":"string"},"value":{"type":"string"}},"required":["key","value"],"additionalProperties":false}"#,
        repeatable: false,
        slow: false,
        run: memory::note_put,
    },
    Tool {
        name: "note_get",
        description: "Read a note back.",
        schema: r#"{"type":"object","properties":{"key":{"type":"string"}},"required":["key"],"additionalProperties":false}"#,
        repeatable: true,
        slow: false,
        run: memory::note_get,
    },
    Tool {
        name: "note_list",
        description: "List the keys of all notes, sorted.",
        schema: NOTHING,
        repeatable: true,
        slow: false,
        run: memory::note_list,
    },
    Tool {
        name: "whoami",
        description: "Tell what this process is: pid, uid, run, working directory, environment names, calls so far.",
        schema: NOTHING,
        repeatable: true,
        slow: false,
        run: process::whoami,
    },
    Tool {
        name: "count",
        description: "How many tools/call requests this process has received, per tool, this one included.",
        schema: NOTHING,
        repeatable: true,
        slow: false,
        run: count,
    },
    Tool {
        name: "reach",
        description: "Connect to a host, directly or through the proxy of its environment, say something, and tell what came back.",
        schema: r#"{"type":"object","properties":{"host":{"type":"string"},"port":{"type":"integer","minimum":1,"maximum":65535},"say":{"type":"string","description":"Sent as it is."},"hex":{"type":"boolean","description":"`say` is hexadecimal."},"proxy":{"type":"boolean","description":"Ask the proxy of HTTPS_PROXY for a tunnel first."},"drip_ms":{"type":"integer","minimum":1,"description":"After `say`, one byte more at this interval until something comes back."}},"required":["host","port"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: network::reach,
    },
    Tool {
        name: "bomb",
        description: "Spin on every core, fork until the kernel refuses and go on, and take this much more memory each second, all at once, until this process is ended.",
        schema: r#"{"type":"object","properties":{"mib_per_second":{"type":"integer","minimum":1,"maximum":1048576}},"required":["mib_per_second"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: siege::bomb,
    },
    Tool {
        name: "besiege",
        description: "Connect to the proxy of the environment this often, hold as many connections as may be, and drip an endless request into each, byte by byte, for some seconds; tell how many were made, held and cut.",
        schema: r#"{"type":"object","properties":{"connections":{"type":"integer","minimum":1,"maximum":1000000},"seconds":{"type":"integer","minimum":0,"maximum":3600}},"required":["connections","seconds"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: siege::besiege,
    },
    Tool {
        name: "crash",
        description: "End this process without an answer: with an exit code, or by a signal.",
        schema: r#"{"type":"object","properties":{"code":{"type":"integer","minimum":0,"maximum":255,"description":"Exit code; 1 if neither is given."},"signal":{"type":"string","description":"A signal name without SIG, such as KILL or SEGV."}},"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: process::crash,
    },
    Tool {
        name: "allocate",
        description: "Hold this many MiB of memory, every page touched; 0 gives it back.",
        schema: r#"{"type":"object","properties":{"mib":{"type":"integer","minimum":0,"maximum":1048576}},"required":["mib"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: memory::allocate,
    },
    Tool {
        name: "fork",
        description: "Leave sleeping processes behind, orphaned and in sessions of their own; gives their pids.",
        schema: r#"{"type":"object","properties":{"n":{"type":"integer","minimum":1,"maximum":10000},"seconds":{"type":"integer","minimum":0,"maximum":3600},"hold_pipes":{"type":"boolean","description":"They keep our stdout open."}},"required":["n","seconds"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: process::fork,
    },
    Tool {
        name: "stderr",
        description: "Write lines of some length to stderr.",
        schema: r#"{"type":"object","properties":{"lines":{"type":"integer","minimum":0,"maximum":1000000},"bytes":{"type":"integer","minimum":0,"maximum":1048576}},"required":["lines"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: talk::stderr,
    },
    Tool {
        name: "noise",
        description: "Write lines that are not JSON to stdout, then answer.",
        schema: r#"{"type":"object","properties":{"lines":{"type":"integer","minimum":0,"maximum":1000000}},"required":["lines"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: talk::noise,
    },
    Tool {
        name: "big",
        description: "Answer with a text of this many bytes.",
        schema: r#"{"type":"object","properties":{"bytes":{"type":"integer","minimum":0,"maximum":1073741824}},"required":["bytes"],"additionalProperties":false}"#,
        repeatable: true,
        slow: true,
        run: talk::big,
    },
    Tool {
        name: "fail",
        description: "Answer with a result marked as an error.",
        schema: r#"{"type":"object","properties":{"message":{"type":"string"}},"additionalProperties":false}"#,
        repeatable: false,
        slow: false,
        run: fail,
    },
    Tool {
        name: "notify",
        description: "Send the client a notification, then answer.",
        schema: r#"{"type":"object","properties":{"method":{"type":"string"},"params":{"type":"object"}},"required":["method"],"additionalProperties":false}"#,
        repeatable: false,
        slow: false,
        run: talk::notify,
    },
    Tool {
        name: "ask_client",
        description: "Send the client a request, such as ping or roots/list, and give its answer.",
        schema: r#"{"type":"object","properties":{"method":{"type":"string"},"params":{"type":"object"}},"required":["method"],"additionalProperties":false}"#,
        repeatable: false,
        slow: true,
        run: talk::ask_client,
    },
];

// === impl Tool ===

impl Tool {
    /// The tool as `tools/list` shows it.
    pub(super) fn listed(&self) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "inputSchema": serde_json::from_str::<Value>(self.schema).unwrap_or_default(),
            "annotations": {
                "readOnlyHint": self.repeatable,
                "idempotentHint": self.repeatable,
                "openWorldHint": false,
            },
        })
    }
}

/// The tool of this name.
pub(super) fn find(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

/// Arguments of a tool as its own type; what does not fit is the caller's fault.
fn arguments<'a, T: Deserialize<'a>>(raw: &'a RawValue) -> Result<T, Fault> {
    serde_json::from_str(raw.get())
        .map_err(|why| Fault::new(INVALID_PARAMS, format!("arguments do not fit: {why}")))
}

fn text(text: impl Into<String>) -> Outcome {
    Outcome::Texts(vec![text.into()])
}

fn echo(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        text: String,
        nonce: Option<String>,
    }
    let Arguments { text, nonce } = arguments(raw)?;
    Ok(Outcome::Texts(std::iter::once(text).chain(nonce).collect()))
}

fn sleep(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        ms: u64,
    }
    let Arguments { ms } = arguments(raw)?;
    let ms = ms.min(SLEEP_MS_MAX);
    if context.cancel.wait(Duration::from_millis(ms)) {
        return Ok(Outcome::Silent);
    }
    Ok(text(format!("slept {ms} ms")))
}

fn add(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        a: f64,
        b: f64,
    }
    let Arguments { a, b } = arguments(raw)?;
    Ok(text((a + b).to_string()))
}

fn count(context: &Context, _: &RawValue) -> Result<Outcome, Fault> {
    let per_tool: BTreeMap<String, u64> = lock(&context.server.counts).clone();
    Ok(Outcome::Json(json!({
        "total": context.server.calls_received.load(Ordering::Relaxed),
        "tools": per_tool,
        "cancelled": context.server.calls_cancelled.load(Ordering::Relaxed),
    })))
}

fn fail(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        message: Option<String>,
    }
    let Arguments { message } = arguments(raw)?;
    Ok(Outcome::Failed(
        message.unwrap_or_else(|| "this tool always fails".to_owned()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_lists_a_closed_object_schema_that_requires_only_what_it_has() {
        for tool in TOOLS {
            let listed = tool.listed();
            let schema = &listed["inputSchema"];
            assert_eq!(schema["type"], "object", "{}", tool.name);
            assert_eq!(schema["additionalProperties"], false, "{}", tool.name);
            let properties = schema["properties"].as_object().unwrap();
            for required in schema["required"].as_array().into_iter().flatten() {
                assert!(properties.contains_key(required.as_str().unwrap()));
            }
            assert!(tool.description.ends_with('.'), "{}", tool.name);
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        for tool in TOOLS {
            assert!(std::ptr::eq(find(tool.name).unwrap(), tool));
        }
        assert!(find("nothing").is_none());
    }
}
