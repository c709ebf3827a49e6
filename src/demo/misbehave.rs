//! The hostile servers: `demo-mcp --misbehave MODE[=VALUE]`. Each mode is the demo server with
//! one thing done wrong, so that a test of the gateway meets exactly that.

use std::io::{Write, stderr};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio, exit};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::tools::die_by;
use super::wire::{Message, Out};

/// How long a mode that only waits goes on: long for a test, and not for ever.
const LONG: Duration = Duration::from_secs(3600);
/// Between lines of garbage.
const GARBAGE_EVERY: Duration = Duration::from_millis(20);
/// Bytes written at once of a giant line.
const CHUNK_BYTES: usize = 64 << 10;
/// Bytes of a giant line when none are given.
const GIANT_BYTES: u64 = 1 << 30;
/// Set for the second life of `ignore_term`, which has TERM ignored.
const TERM_IGNORED: &str = "DEMO_TERM_IGNORED";

/// Whether the server still has to act on a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    Pass,
    Handled,
}

/// What a server does wrong.
#[derive(Debug)]
pub(super) struct Quirk {
    mode: Mode,
    /// `=VALUE`, or the mode's own default.
    value: u64,
    calls: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    AnswerTwice,
    AnswerUnasked,
    CloseStdout,
    Daemonize,
    DieAfter,
    DieInHandshake,
    DieOnCall,
    ExitAtOnce,
    FloodStderr,
    Garbage,
    GarbageThenOk,
    GiantLine,
    GiantLineOnCall,
    HangHandshake,
    HangOnCall,
    IgnoreTerm,
    InvalidUtf8,
    KillSelfOnCall,
    NeverRead,
    NeverReadAfterHandshake,
    NoPong,
    RefuseHandshake,
    SlowStart,
    ToolsListForever,
    ToolsListHuge,
    WrongInitShape,
    WrongListShape,
    WrongResultShape,
    WrongVersion,
}

/// Mode, its name, the value when none is given.
const MODES: &[(Mode, &str, u64)] = &[
    (Mode::AnswerTwice, "answer_twice", 0),
    (Mode::AnswerUnasked, "answer_unasked", 0),
    (Mode::CloseStdout, "close_stdout", 0),
    (Mode::Daemonize, "daemonize", 0),
    (Mode::DieAfter, "die_after", 1),
    (Mode::DieInHandshake, "die_in_handshake", 1),
    (Mode::DieOnCall, "die_on_call", 1),
    (Mode::ExitAtOnce, "exit_at_once", 1),
    (Mode::FloodStderr, "flood_stderr", 0),
    (Mode::Garbage, "garbage", 0),
    (Mode::GarbageThenOk, "garbage_then_ok", 100),
    (Mode::GiantLine, "giant_line", GIANT_BYTES),
    (Mode::GiantLineOnCall, "giant_line_on_call", GIANT_BYTES),
    (Mode::HangHandshake, "hang_handshake", 0),
    (Mode::HangOnCall, "hang_on_call", 0),
    (Mode::IgnoreTerm, "ignore_term", 0),
    (Mode::InvalidUtf8, "invalid_utf8", 0),
    (Mode::KillSelfOnCall, "kill_self_on_call", 0),
    (Mode::NeverRead, "never_read", 0),
    (
        Mode::NeverReadAfterHandshake,
        "never_read_after_handshake",
        0,
    ),
    (Mode::NoPong, "no_pong", 0),
    (Mode::RefuseHandshake, "refuse_handshake", 0),
    (Mode::SlowStart, "slow_start", 1000),
    (Mode::ToolsListForever, "tools_list_forever", 0),
    (Mode::ToolsListHuge, "tools_list_huge", 5000),
    (Mode::WrongInitShape, "wrong_init_shape", 0),
    (Mode::WrongListShape, "wrong_list_shape", 0),
    (Mode::WrongResultShape, "wrong_result_shape", 0),
    (Mode::WrongVersion, "wrong_version", 0),
];

// === impl Quirk ===

impl Quirk {
    /// No quirk: the demo server as it should be.
    pub(super) fn none() -> Self {
        Self {
            mode: Mode::None,
            value: 0,
            calls: AtomicU64::new(0),
        }
    }

    /// Reads `MODE` or `MODE=VALUE`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => match value.parse() {
                Ok(value) => (name, Some(value)),
                Err(_) => return Err(format!("{value:?} in {text} is no number")),
            },
            None => (text, None),
        };
        let Some((mode, _, default)) = MODES.iter().find(|(_, known, _)| *known == name) else {
            let known: Vec<&str> = MODES.iter().map(|(_, name, _)| *name).collect();
            return Err(format!("no mode {name}; there are {}", known.join(", ")));
        };
        Ok(Self {
            mode: *mode,
            value: value.unwrap_or(*default),
            calls: AtomicU64::new(0),
        })
    }

    /// Before the first line is read; an exit code ends the server.
    pub(super) fn at_start(&self, out: &Out) -> Option<ExitCode> {
        match self.mode {
            Mode::ExitAtOnce => {
                let _ = writeln!(stderr(), "cannot start: told to exit at once");
                return Some(self.exit_code());
            }
            Mode::Garbage => {
                garbage(out, u64::MAX);
                return Some(ExitCode::FAILURE);
            }
            Mode::NeverRead => {
                thread::sleep(LONG);
                return Some(ExitCode::FAILURE);
            }
            Mode::Daemonize => return Some(daemonize()),
            Mode::IgnoreTerm if std::env::var_os(TERM_IGNORED).is_none() => {
                return Some(ignore_term());
            }
            Mode::GarbageThenOk => garbage(out, self.value),
            Mode::GiantLine => {
                giant(out, self.value);
                out.raw(b"\n");
            }
            Mode::SlowStart => thread::sleep(Duration::from_millis(self.value)),
            Mode::FloodStderr => {
                thread::spawn(flood);
            }
            _ => {}
        }
        None
    }

    /// Before a message is acted on.
    pub(super) fn before(&self, message: &Message<'_>, out: &Out) -> Flow {
        let Some(id) = message.id else {
            return Flow::Pass;
        };
        match (message.method.as_ref(), self.mode) {
            ("initialize", Mode::HangHandshake)
            | ("ping", Mode::NoPong)
            | ("tools/call", Mode::HangOnCall) => {}
            ("initialize", Mode::DieInHandshake) | ("tools/call", Mode::DieOnCall) => {
                exit(self.exit_status());
            }
            ("initialize", Mode::RefuseHandshake) => out.raw(&answer(
                id.get(),
                r#""error":{"code":-32000,"message":"this server refuses everyone"}"#,
            )),
            ("initialize", Mode::WrongInitShape) => out.raw(&answer(id.get(), r#""result":[]"#)),
            ("initialize", Mode::WrongVersion) => out.raw(&answer(
                id.get(),
                r#""result":{"protocolVersion":"1999-01-01","capabilities":{"tools":{}},"serverInfo":{"name":"old","version":"0"}}"#,
            )),
            ("tools/list", Mode::WrongListShape) => {
                out.raw(&answer(id.get(), r#""result":{"tools":"none"}"#));
            }
            ("tools/list", Mode::ToolsListForever) => {
                let page = self.calls.fetch_add(1, Ordering::Relaxed);
                out.answer(
                    id,
                    Ok(json!({ "tools": [tool(page)], "nextCursor": (page + 1).to_string() })),
                );
            }
            ("tools/list", Mode::ToolsListHuge) => {
                let tools: Vec<_> = (0..self.value).map(tool).collect();
                out.answer(id, Ok(json!({ "tools": tools })));
            }
            ("tools/call", Mode::KillSelfOnCall) => {
                let _ = die_by("KILL");
            }
            ("tools/call", Mode::WrongResultShape) => {
                out.raw(&answer(id.get(), r#""result":42"#));
            }
            ("tools/call", Mode::InvalidUtf8) => {
                let mut line = answer(
                    id.get(),
                    r#""result":{"content":[{"type":"text","text":"?"}],"isError":false}"#,
                );
                if let Some(mark) = line.iter_mut().rev().find(|byte| **byte == b'?') {
                    *mark = 0xff;
                }
                out.raw(&line);
            }
            ("tools/call", Mode::GiantLineOnCall) => {
                let head = answer(
                    id.get(),
                    r#""result":{"isError":false,"content":[{"type":"text","text":""#,
                );
                // `answer` ends with the closing brace and newline, which come after the text.
                out.raw(head.get(..head.len().saturating_sub(2)).unwrap_or_default());
                giant(out, self.value);
                out.raw(b"\"}]}}\n");
            }
            ("tools/call", Mode::AnswerTwice) => {
                out.answer_twice();
                return Flow::Pass;
            }
            ("tools/call", Mode::AnswerUnasked) => {
                for unasked in ["987654321", "\"never-asked\"", "-1", "1.5", "null"] {
                    out.raw(&answer(unasked, r#""result":{"content":[]}"#));
                }
                return Flow::Pass;
            }
            _ => return Flow::Pass,
        }
        Flow::Handled
    }

    /// After a request was acted on (a slow call may still run).
    pub(super) fn after(&self, message: &Message<'_>) {
        match (message.method.as_ref(), self.mode) {
            ("tools/list", Mode::NeverReadAfterHandshake) => thread::sleep(LONG),
            ("tools/list", Mode::CloseStdout) => {
                // Only another program can close our descriptor 1 without `unsafe`.
                let why = Command::new("/bin/sh")
                    .args(["-c", "exec >&-; exec sleep 3600"])
                    .exec();
                let _ = writeln!(stderr(), "close_stdout: /bin/sh: {why}");
                exit(1);
            }
            ("tools/call", Mode::DieAfter)
                if self.calls.fetch_add(1, Ordering::Relaxed) + 1 >= self.value =>
            {
                exit(1);
            }
            _ => {}
        }
    }

    /// When stdin has ended.
    pub(super) fn at_end(&self) -> ExitCode {
        if self.mode == Mode::IgnoreTerm {
            thread::sleep(LONG);
        }
        ExitCode::SUCCESS
    }

    fn exit_status(&self) -> i32 {
        i32::from(u8::try_from(self.value).unwrap_or(1))
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(u8::try_from(self.value).unwrap_or(1))
    }
}

/// An answer line from its id and its last member as JSON text.
fn answer(id: &str, member: &str) -> Vec<u8> {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{member}}}\n").into_bytes()
}

fn tool(number: u64) -> serde_json::Value {
    json!({
        "name": format!("tool_{number}"),
        "description": "One of too many.",
        "inputSchema": { "type": "object" },
    })
}

fn garbage(out: &Out, lines: u64) {
    for number in 0..lines {
        out.raw(format!("\u{1b}[31mgarbage {number}: {{\"jsonrpc\":\n").as_bytes());
        if lines == u64::MAX {
            thread::sleep(GARBAGE_EVERY);
        }
    }
}

fn giant(out: &Out, bytes: u64) {
    let chunk = [b'g'; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = usize::try_from(left)
            .unwrap_or(CHUNK_BYTES)
            .min(CHUNK_BYTES);
        out.raw(chunk.get(..now).unwrap_or_default());
        left = left.saturating_sub(now as u64);
    }
}

/// Up to some tens of MB a second: a flood, yet the machine's other work goes on.
fn flood() {
    let line = [&[b'f'; 4095][..], b"\n"].concat().repeat(16);
    while stderr().lock().write_all(&line).is_ok() {
        thread::sleep(Duration::from_millis(1));
    }
}

/// The server goes on as an orphan on the same pipes; the process that was started ends.
fn daemonize() -> ExitCode {
    let spawned = std::env::current_exe().and_then(|program| {
        Command::new("setsid")
            .arg(program)
            .arg("demo-mcp")
            .stdin(Stdio::inherit())
            .spawn()
    });
    match spawned {
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(stderr(), "daemonize: setsid: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The same program again with TERM ignored: an ignored signal stays ignored across `exec`.
fn ignore_term() -> ExitCode {
    let why = match std::env::current_exe() {
        Ok(program) => Command::new("/bin/sh")
            .args([
                "-c",
                "trap '' TERM; exec \"$0\" demo-mcp --misbehave ignore_term",
            ])
            .arg(program)
            .env(TERM_IGNORED, "1")
            .exec(),
        Err(why) => why,
    };
    let _ = writeln!(stderr(), "ignore_term: {why}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_values_and_unknown_ones_are_named() {
        assert_eq!(Quirk::parse("slow_start").unwrap().value, 1000);
        assert_eq!(Quirk::parse("slow_start=5").unwrap().value, 5);
        assert!(Quirk::parse("slow_start=x").unwrap_err().contains("\"x\""));
        assert!(Quirk::parse("nice").unwrap_err().contains("answer_twice"));
    }

    #[test]
    fn every_mode_is_in_the_table_once() {
        for (index, (mode, name, _)) in MODES.iter().enumerate() {
            let first = MODES.iter().position(|(other, _, _)| other == mode);
            assert_eq!(first, Some(index), "{name}");
            assert_eq!(Quirk::parse(name).unwrap().mode, *mode);
        }
    }
}
