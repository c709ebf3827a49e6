//! The demo server and its hostile modes, driven over real pipes: what the other tests rely on.

#![expect(clippy::unwrap_used, reason = "a test says so by failing")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A demo server on pipes; killed when dropped.
struct Demo {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Demo {
    fn start(args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_legation"))
            .arg("demo-mcp")
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
        }
    }

    fn ready(args: &[&str]) -> Self {
        let mut demo = Self::start(args, &[]);
        demo.send(&initialize("2025-06-18"));
        assert_eq!(demo.line()["result"]["protocolVersion"], "2025-06-18");
        demo.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        demo
    }

    fn misbehaving(mode: &str) -> Self {
        Self::ready(&["--misbehave", mode])
    }

    fn send(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{message}\n").as_bytes()).unwrap();
    }

    fn call(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) {
        self.send(&json!({
            "jsonrpc": "2.0", "id": id.into(), "method": "tools/call",
            "params": {"name": tool, "arguments": arguments},
        }));
    }

    fn raw_line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.stdout.read_until(b'\n', &mut line).unwrap();
        line
    }

    fn line(&mut self) -> Value {
        serde_json::from_slice(&self.raw_line()).unwrap()
    }

    fn text(&mut self) -> String {
        let answer = self.line();
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| unreachable!("no text in {answer}"))
            .to_owned()
    }

    fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "still alive after 10 s");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn initialize(version: &str) -> Value {
    json!({
        "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
    })
}

#[test]
fn agrees_on_known_versions_and_offers_the_latest_otherwise() {
    for (asked, given) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
    ] {
        let mut demo = Demo::start(&[], &[]);
        demo.send(&initialize(asked));
        assert_eq!(demo.line()["result"]["protocolVersion"], given);
    }
}

#[test]
fn refuses_calls_before_the_handshake_and_methods_it_has_not() {
    let mut demo = Demo::start(&[], &[]);
    demo.call(1, "add", json!({"a": 1, "b": 2}));
    assert_eq!(demo.line()["error"]["code"], -32600);
    demo.send(&initialize("2025-06-18"));
    demo.line();
    demo.send(&json!({"jsonrpc": "2.0", "id": "x", "method": "prompts/list"}));
    let answer = demo.line();
    assert_eq!(
        (&answer["id"], &answer["error"]["code"]),
        (&json!("x"), &json!(-32601))
    );
    demo.call(2, "nothing", json!({}));
    assert_eq!(demo.line()["error"]["code"], -32602);
    demo.call(3, "add", json!({"a": 1}));
    assert_eq!(demo.line()["error"]["code"], -32602);
    demo.stdin
        .as_mut()
        .unwrap()
        .write_all(b"{nonsense\n")
        .unwrap();
    assert_eq!(demo.line()["error"]["code"], -32700);
}

#[test]
fn keeps_notes_counts_calls_and_tells_errors() {
    let mut demo = Demo::ready(&[]);
    demo.call("a", "echo", json!({"text": "ä\n", "nonce": "n"}));
    let answer = demo.line();
    assert_eq!(answer["id"], "a");
    assert_eq!(answer["result"]["content"][0]["text"], "ä\n");
    assert_eq!(answer["result"]["content"][1]["text"], "n");
    demo.call(1, "add", json!({"a": 1.5, "b": 2}));
    assert_eq!(demo.text(), "3.5");
    demo.call(2, "note_put", json!({"key": "k", "value": "v"}));
    demo.line();
    demo.call(3, "note_get", json!({"key": "k"}));
    assert_eq!(demo.text(), "v");
    demo.call(4, "note_get", json!({"key": "other"}));
    assert_eq!(demo.line()["result"]["isError"], true);
    demo.call(5, "fail", json!({}));
    assert_eq!(demo.line()["result"]["isError"], true);
    demo.call(6, "count", json!({}));
    let counts: Value = serde_json::from_str(&demo.text()).unwrap();
    assert_eq!(counts["total"], 7);
    assert_eq!(counts["tools"]["note_get"], 2);
    demo.call(7, "whoami", json!({}));
    let me: Value = serde_json::from_str(&demo.text()).unwrap();
    assert_eq!(me["pid"], demo.child.id());
    demo.stdin = None;
    assert!(demo.ended().success());
}

#[test]
fn pages_its_tools_when_told() {
    let mut demo = Demo::start(&[], &[("DEMO_PAGE_SIZE", "5")]);
    demo.send(&initialize("2025-06-18"));
    demo.line();
    let mut names = Vec::new();
    let mut cursor = Value::Null;
    let mut pages = 0;
    loop {
        let params = if cursor.is_null() {
            json!({})
        } else {
            json!({"cursor": cursor})
        };
        demo.send(
            &json!({"jsonrpc": "2.0", "id": pages, "method": "tools/list", "params": params}),
        );
        let answer = demo.line();
        let tools = answer["result"]["tools"].as_array().unwrap();
        assert!(tools.len() <= 5);
        names.extend(tools.iter().map(|tool| tool["name"].to_string()));
        pages += 1;
        cursor = answer["result"]["nextCursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let all = names.len();
    assert!(pages > 2 && all > 10, "{pages} pages, {names:?}");
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn slow_calls_run_side_by_side_and_a_cancelled_one_never_answers() {
    let mut demo = Demo::ready(&[]);
    demo.call(1, "sleep", json!({"ms": 60_000}));
    demo.call(2, "sleep", json!({"ms": 60}));
    demo.call(3, "add", json!({"a": 1, "b": 1}));
    assert_eq!(demo.line()["id"], 3);
    assert_eq!(demo.line()["id"], 2);
    demo.send(&json!({
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1},
    }));
    demo.call(4, "count", json!({}));
    let answer = demo.line();
    assert_eq!(answer["id"], 4);
    let counts: Value =
        serde_json::from_str(answer["result"]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(counts["cancelled"], 1);
    demo.stdin = None;
    assert!(demo.ended().success());
    let mut rest = Vec::new();
    demo.stdout.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

#[test]
fn asks_and_notifies_its_client() {
    let mut demo = Demo::ready(&[]);
    demo.call(1, "ask_client", json!({"method": "roots/list"}));
    let question = demo.line();
    assert_eq!(question["method"], "roots/list");
    demo.send(&json!({"jsonrpc": "2.0", "id": question["id"], "error": {"code": -32601, "message": "no"}}));
    assert!(demo.text().contains("-32601"));
    demo.call(
        2,
        "notify",
        json!({"method": "notifications/message", "params": {"level": "info"}}),
    );
    let note = demo.line();
    assert_eq!(note["method"], "notifications/message");
    assert_eq!(note["params"]["level"], "info");
    assert_eq!(demo.line()["id"], 2);
}

#[test]
fn dies_by_code_and_by_signal() {
    use std::os::unix::process::ExitStatusExt;
    let mut demo = Demo::ready(&[]);
    demo.call(1, "crash", json!({"code": 7}));
    assert_eq!(demo.ended().code(), Some(7));
    let mut demo = Demo::ready(&[]);
    demo.call(1, "crash", json!({"signal": "SEGV"}));
    assert_eq!(demo.ended().signal(), Some(11));
}

#[test]
fn leaves_orphans_behind_and_allocates_for_real() {
    let mut demo = Demo::ready(&[]);
    demo.call(1, "fork", json!({"n": 2, "seconds": 20}));
    let forked: Value = serde_json::from_str(&demo.text()).unwrap();
    let pids: Vec<u64> = forked["pids"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    assert_eq!(pids.len(), 2);
    for pid in &pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let after = stat.rsplit(')').next().unwrap();
        let fields: Vec<&str> = after.split_whitespace().collect();
        assert_ne!(fields[1], demo.child.id().to_string(), "not our child");
    }
    for pid in &pids {
        Command::new("/bin/kill")
            .args(["-9", &pid.to_string()])
            .status()
            .unwrap();
    }
    demo.call(2, "allocate", json!({"mib": 64}));
    assert_eq!(demo.text(), "holding 64 MiB");
    let held = resident_kib(demo.child.id());
    assert!(held > 64 << 10, "{held} KiB");
    // The allocator gives memory back when it next has something to do, not at once.
    let given_back = (3..503).any(|id| {
        demo.call(id, "allocate", json!({"mib": 0}));
        demo.line();
        std::thread::sleep(std::time::Duration::from_millis(10));
        resident_kib(demo.child.id()) < held - (32 << 10)
    });
    assert!(given_back, "still {} KiB", resident_kib(demo.child.id()));
}

fn resident_kib(pid: u32) -> u64 {
    std::fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap()
}

#[test]
fn makes_noise_and_big_answers() {
    let mut demo = Demo::ready(&[]);
    demo.call(1, "noise", json!({"lines": 3}));
    for _ in 0..3 {
        assert!(serde_json::from_slice::<Value>(&demo.raw_line()).is_err());
    }
    assert_eq!(demo.line()["id"], 1);
    demo.call(2, "big", json!({"bytes": 3_000_000}));
    assert_eq!(demo.text().len(), 3_000_000);
    demo.call(3, "stderr", json!({"lines": 10, "bytes": 100}));
    assert_eq!(demo.line()["id"], 3);
}

#[test]
fn hostile_answers_are_as_wrong_as_they_say() {
    let mut demo = Demo::misbehaving("answer_twice");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    assert_eq!(demo.raw_line(), demo.raw_line());

    let mut demo = Demo::misbehaving("answer_unasked");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    let ids: Vec<Value> = (0..6).map(|_| demo.line()["id"].clone()).collect();
    assert_eq!(ids[5], 1);
    assert!(!ids[..5].contains(&json!(1)));

    let mut demo = Demo::misbehaving("invalid_utf8");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    assert!(String::from_utf8(demo.raw_line()).is_err());

    let mut demo = Demo::misbehaving("wrong_result_shape");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    assert_eq!(demo.line()["result"], 42);

    let mut demo = Demo::misbehaving("giant_line_on_call=3000000");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    assert_eq!(demo.text().len(), 3_000_000);

    let mut demo = Demo::misbehaving("tools_list_forever");
    for page in 0..3 {
        demo.send(&json!({"jsonrpc": "2.0", "id": page, "method": "tools/list"}));
        assert_eq!(demo.line()["result"]["nextCursor"], (page + 1).to_string());
    }
}

#[test]
fn hostile_lives_end_as_they_say() {
    let mut demo = Demo::start(&["--misbehave", "exit_at_once=9"], &[]);
    assert_eq!(demo.ended().code(), Some(9));

    let mut demo = Demo::misbehaving("die_on_call=3");
    demo.call(1, "add", json!({"a": 1, "b": 1}));
    assert_eq!(demo.ended().code(), Some(3));

    let mut demo = Demo::misbehaving("die_after=2");
    for id in 1..=2 {
        demo.call(id, "add", json!({"a": 1, "b": 1}));
        assert_eq!(demo.text(), "2");
    }
    assert_eq!(demo.ended().code(), Some(1));

    let mut demo = Demo::misbehaving("close_stdout");
    demo.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}));
    demo.line();
    assert_eq!(demo.raw_line(), b"");
    assert!(demo.child.try_wait().unwrap().is_none());

    let mut demo = Demo::start(&["--misbehave", "hang_handshake"], &[]);
    demo.send(&initialize("2025-06-18"));
    demo.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    assert_eq!(demo.line()["id"], 1);

    let mut demo = Demo::start(&["--misbehave", "daemonize"], &[]);
    assert!(demo.ended().success());
    demo.send(&initialize("2025-06-18"));
    assert_eq!(demo.line()["id"], 0);

    let mut demo = Demo::misbehaving("ignore_term");
    let pid = demo.child.id().to_string();
    Command::new("/bin/kill")
        .args(["-TERM", &pid])
        .status()
        .unwrap();
    demo.stdin = None;
    std::thread::sleep(Duration::from_millis(300));
    assert!(demo.child.try_wait().unwrap().is_none());
}

#[test]
fn the_echo_server_answers_the_least() {
    let mut demo = Demo::ready(&["--echo"]);
    demo.call("n-1", "echo", json!({"text": "nonce"}));
    let answer = demo.line();
    assert_eq!(answer["id"], "n-1");
    assert_eq!(answer["result"]["content"][0]["text"], "nonce");
    demo.stdin = None;
    assert!(demo.ended().success());
}
