//! Tools about what comes out: stderr, noise, big results, messages to the client.

use std::io::Write;
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{Context, Outcome, arguments, text};
use crate::demo::wire::Fault;

/// How long a client may take to answer `ask_client`.
const ASK_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a stderr line when none are asked for.
const STDERR_LINE_BYTES: usize = 80;
/// The biggest result `big` makes.
const BIG_BYTES_MAX: usize = 1 << 30;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    lines: u32,
    bytes: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Big {
    bytes: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Talk {
    method: String,
    #[serde(default)]
    params: Option<Value>,
}

pub(super) fn stderr(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Lines { lines, bytes } = arguments(raw)?;
    let bytes = bytes.unwrap_or(STDERR_LINE_BYTES).min(1 << 20);
    let mut stderr = std::io::stderr().lock();
    for number in 0..lines {
        let mut line = format!("line {number} ");
        line.extend(std::iter::repeat_n('e', bytes.saturating_sub(line.len())));
        line.truncate(bytes);
        line.push('\n');
        if stderr.write_all(line.as_bytes()).is_err() {
            return Ok(Outcome::Failed(format!("stderr closed at line {number}")));
        }
    }
    Ok(text(format!("wrote {lines} lines of {bytes} bytes")))
}

pub(super) fn noise(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Lines { lines, .. } = arguments(raw)?;
    for number in 0..lines {
        context
            .server
            .out
            .raw(format!("this is no JSON, line {number}\n").as_bytes());
    }
    Ok(text(format!("wrote {lines} lines")))
}

pub(super) fn big(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Big { bytes } = arguments(raw)?;
    Ok(text("b".repeat(bytes.min(BIG_BYTES_MAX))))
}

pub(super) fn notify(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Talk { method, params } = arguments(raw)?;
    let params = params.unwrap_or_else(|| json!({}));
    context.server.out.call(None, &method, params);
    Ok(text(format!("sent {method}")))
}

pub(super) fn ask_client(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Talk { method, params } = arguments(raw)?;
    let params = params.unwrap_or_else(|| json!({}));
    Ok(match context.server.ask(&method, params, ASK_WAIT) {
        Some(answer) => text(answer),
        None => Outcome::Failed(format!("the client did not answer {method}")),
    })
}
