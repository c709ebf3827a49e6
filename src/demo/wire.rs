//! JSON-RPC lines: one object per line, both ways.
//!
//! A line is written by one `write` under one lock, so that answers of concurrent calls never
//! interleave. When nobody reads our stdout any more the process ends.

use std::borrow::Cow;
use std::io::{BufRead, ErrorKind, Stdout, Write, stdout};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// Bytes of the longest line accepted; a longer one is answered as a parse error.
pub(super) const LINE_BYTES_MAX: usize = 64 << 20;

pub(super) const PARSE_ERROR: i32 = -32700;
pub(super) const INVALID_REQUEST: i32 = -32600;
pub(super) const METHOD_NOT_FOUND: i32 = -32601;
pub(super) const INVALID_PARAMS: i32 = -32602;
pub(super) const INTERNAL_ERROR: i32 = -32603;

/// What came in: a request, a notification (no `id`) or an answer (no `method`).
#[derive(Debug, Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) error: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    pub(super) fn parse(line: &'a [u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(line)
    }
}

/// One JSON-RPC error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Fault {
    pub(super) code: i32,
    pub(super) message: String,
}

impl Fault {
    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

#[derive(Serialize)]
struct Answer<'a, R: Serialize> {
    jsonrpc: &'static str,
    id: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fault>,
}

#[derive(Serialize)]
struct Call<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    params: Value,
}

/// Our stdout.
#[derive(Debug)]
pub(super) struct Out {
    stdout: Mutex<Stdout>,
    twice: AtomicBool,
}

// === impl Out ===

impl Out {
    pub(super) fn new() -> Self {
        Self {
            stdout: Mutex::new(stdout()),
            twice: AtomicBool::new(false),
        }
    }

    /// From now on every answer is sent twice.
    pub(super) fn answer_twice(&self) {
        self.twice.store(true, Ordering::Relaxed);
    }

    /// Writes bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) {
        let mut stdout = lock(&self.stdout);
        if stdout
            .write_all(bytes)
            .and_then(|()| stdout.flush())
            .is_err()
        {
            exit(0);
        }
    }

    pub(super) fn answer(&self, id: &RawValue, result: Result<Value, Fault>) {
        let (result, error) = match result {
            Ok(value) => (Some(value), None),
            Err(fault) => (None, Some(fault)),
        };
        let mut line = json_line(&Answer {
            jsonrpc: "2.0",
            id: Some(id),
            result,
            error,
        });
        if self.twice.load(Ordering::Relaxed) {
            line.extend_from_within(..);
        }
        self.raw(&line);
    }

    /// The answer to what had no readable id.
    pub(super) fn fault(&self, fault: Fault) {
        self.raw(&json_line(&Answer::<()> {
            jsonrpc: "2.0",
            id: None,
            result: None,
            error: Some(fault),
        }));
    }

    /// Sends a request (with an id) or a notification to the client.
    pub(super) fn call(&self, id: Option<u64>, method: &str, params: Value) {
        self.raw(&json_line(&Call {
            jsonrpc: "2.0",
            id,
            method,
            params,
        }));
    }
}

/// What reading one line gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Read,
    TooLong,
    End,
}

/// Reads one line without its newline into `line`; a longer one than [`LINE_BYTES_MAX`] is
/// consumed and dropped.
pub(super) fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> Line {
    line.clear();
    let mut too_long = false;
    loop {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(why) if why.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return Line::End,
        };
        if chunk.is_empty() {
            return match (line.is_empty(), too_long) {
                (_, true) => Line::TooLong,
                (true, false) => Line::End,
                (false, false) => Line::Read,
            };
        }
        let end = memchr::memchr(b'\n', chunk);
        let taken = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        if line.len() + taken.len() > LINE_BYTES_MAX {
            too_long = true;
            line.clear();
        }
        if !too_long {
            line.extend_from_slice(taken);
        }
        let used = taken.len() + usize::from(end.is_some());
        input.consume(used);
        if end.is_some() {
            return if too_long { Line::TooLong } else { Line::Read };
        }
    }
}

/// A lock whose holder panicked still guards sound data here: every value is replaced whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn json_line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_newlines_and_at_the_end() {
        let mut input: &[u8] = b"one\n\ntwo";
        let mut line = Vec::new();
        let mut seen = Vec::new();
        while read_line(&mut input, &mut line) == Line::Read {
            seen.push(String::from_utf8(line.clone()).unwrap());
        }
        assert_eq!(seen, ["one", "", "two"]);
    }

    #[test]
    fn a_message_is_borrowed_whole() {
        let line = br#"{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":[1]}}"#;
        let message = Message::parse(line).unwrap();
        assert_eq!(message.id.unwrap().get(), "\"a\"");
        assert_eq!(message.method, "ping");
        assert_eq!(message.params.unwrap().get(), r#"{"x":[1]}"#);
    }
}
