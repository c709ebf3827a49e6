//! The installer: a small stdio MCP server that downloads a package, behind `legation installer`.
//!
//! It runs in an isolate of its own, with a network and nobody's secrets, and is supervised as any other
//! server is: what hangs is ended, what eats memory is named, what is killed is gone. It answers
//! pings while it works; what the package managers say goes to its stderr. It makes the tree
//! [`TREE`](crate::domain::package::TREE) in its home; the gateway takes that over when all its processes are
//! gone.
//!
//! * `npm` and `uv`: the steps of each package manager, and how what is to be run is found.
//! * `tool`: one program that is run, and its last words.

mod npm;
mod tool;
mod uv;

use std::fs;
use std::io::{BufRead, Write, stdin, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use serde_json::{Value, json};

use crate::domain::package::{Done, INSTALL, Manager, Order};

/// The newest handshake spoken.
const VERSION: &str = "2025-06-18";
/// The JSON-RPC code of an install that failed.
const FAILED: i32 = -32000;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;

/// Why an install failed, in words for whoever defined the mcp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Failure(String);

impl Failure {
    fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }

    fn io(what: &str, error: &std::io::Error) -> Self {
        Self(format!("{what}: {error}"))
    }
}

/// Serves stdin and stdout until stdin ends.
#[must_use]
pub fn run() -> ExitCode {
    for line in stdin().lock().lines() {
        let Ok(line) = line else { break };
        if let Ok(message) = serde_json::from_str::<Value>(&line) {
            receive(&message);
        }
    }
    ExitCode::SUCCESS
}

fn receive(message: &Value) {
    // A notification: nothing here heeds one.
    let Some(id) = message.get("id").cloned() else {
        return;
    };
    match message.get("method").and_then(Value::as_str) {
        Some("initialize") => say(
            &id,
            Ok(json!({
                "protocolVersion": VERSION,
                "capabilities": {},
                "serverInfo": {"name": "legation-installer", "version": env!("CARGO_PKG_VERSION")},
            })),
        ),
        Some("ping") => say(&id, Ok(json!({}))),
        Some(INSTALL) => {
            let order = message.get("params").cloned().unwrap_or_default();
            match serde_json::from_value::<Order>(order) {
                // The reader goes on: whoever asks whether we live is answered.
                Ok(order) => drop(thread::spawn(move || {
                    let done = install(&order).map_err(|failure| (FAILED, failure.to_string()));
                    say(&id, done.map(|done| json!(done)));
                })),
                Err(error) => say(&id, Err((INVALID_PARAMS, error.to_string()))),
            }
        }
        Some(other) => say(
            &id,
            Err((METHOD_NOT_FOUND, format!("no method {other} here"))),
        ),
        None => {}
    }
}

fn install(order: &Order) -> Result<Done, Failure> {
    match order.manager {
        Manager::Npm => npm::install(order),
        Manager::Uv => uv::install(order),
    }
}

/// Puts what was resolved before into a tree; whether there was anything.
fn lay(order: &Order, tree: &Path, known: &[&str]) -> Result<bool, Failure> {
    for (name, text) in &order.locked {
        if !known.contains(&name.as_str()) {
            return Err(Failure::new(format!("`{name}` is no lock file")));
        }
        let what = format!("cannot write {name}");
        fs::write(tree.join(name), text).map_err(|error| Failure::io(&what, &error))?;
    }
    Ok(!order.locked.is_empty())
}

fn say(id: &Value, answer: Result<Value, (i32, String)>) {
    let line = match answer {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err((code, message)) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    };
    let mut out = stdout().lock();
    // Nobody reads it: nothing to be done.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
