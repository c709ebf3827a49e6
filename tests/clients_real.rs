//! Clients as people run them, of several makers and both eras: each lists, calls, hears of progress and of changes,
//! answers what a server asks, cancels, and lives on when the isolate dies and when the gateway starts again.
//!
//! The SDKs are driven by scripts (`clients/driven.*`) that do what a JSON line says; MCP Inspector's command line
//! is run once for each deed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::tools::{self, Program};
use crate::world::{PATIENCE, World, free_port};

pub(crate) const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");
const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";

/// A script that does what it is told, and its name in messages.
pub(crate) struct Driven {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Driven {
    pub(crate) fn start(name: &str, program: &Program, url: &str, key: &str) -> Self {
        let mut child = Command::new(&program.program)
            .args(&program.args)
            .args([url, key])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        Self {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            lines,
        }
    }

    pub(crate) fn hear(&self) -> Value {
        let line = self.lines.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|why| panic!("{} says nothing: {why}", self.name));
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{}: {line}", self.name))
    }

    pub(crate) fn tell(&mut self, deed: &Value) -> Value {
        let line = format!("{deed}\n");
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        self.hear()
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.tell(&json!({"do": "call", "tool": tool, "arguments": arguments}))
    }

    /// Calls until it is answered with what a tool answers: an isolate may be between two runs.
    pub(crate) fn reaches(&mut self, world: &World, words: &str) {
        let name = self.name.clone();
        world.until(&format!("{name} is answered again"), |_| {
            let answer = self.call("echo", &json!({"text": words}));
            (answer["text"] == words).then_some(())
        });
    }

    pub(crate) fn leaves(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}: {status}", self.name);
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The clients that are installed here, by name, with the version each is to find.
fn clients() -> Vec<(String, Program, &'static str)> {
    let mut all = Vec::new();
    let mut add = |name: &str, script: Option<Program>, first: &[&str]| {
        for (mode, version) in [("legacy", LEGACY), ("auto", MODERN)] {
            let Some(mut program) = script.clone() else {
                return;
            };
            program
                .args
                .extend(first.iter().map(|one| (*one).to_owned()));
            program.args.push(mode.to_owned());
            all.push((format!("{name}, {mode}"), program, version));
        }
    };
    let python = tools::client_python().map(|program| Program {
        program,
        args: vec![format!("{SCRIPTS}/driven.py")],
    });
    add("the Python SDK", python.clone(), &["sdk"]);
    add("fastmcp", python, &["fastmcp"]);
    let node = tools::client_node().map(|(program, home)| Program {
        program,
        args: vec![format!("{SCRIPTS}/driven.mjs"), home.display().to_string()],
    });
    add("the TypeScript SDK 2", node.clone(), &["2"]);
    add("the TypeScript SDK 1", node, &["1"]);
    // The older SDK knows the older versions only.
    all.retain(|(name, ..)| name != "the TypeScript SDK 1, auto");
    all
}

/// What everybody does first.
fn begins(client: &mut Driven, version: &str) {
    assert_eq!(client.hear()["version"], version, "{}", client.name);
    let name = client.name.clone();
    let listed = client.tell(&json!({"do": "list"}));
    for tool in ["echo", "test_tool_with_progress"] {
        assert!(
            listed["tools"].as_array().unwrap().contains(&json!(tool)),
            "{name}: {listed}"
        );
    }
    let answer = client.call("echo", &json!({"text": "häh?"}));
    assert_eq!(answer["text"], "häh?", "{name}: {answer}");
    let answer = client.call("test_tool_with_progress", &json!({}));
    let heard: Vec<_> = answer["progress"].as_array().unwrap().iter().collect();
    let heard: Vec<_> = heard.into_iter().map(|one| one.as_f64().unwrap()).collect();
    assert_eq!(heard, [0.0, 50.0, 100.0], "{name}: {answer}");
    // Asked twice on the way, one after the other.
    let answer = client.call("test_input_required_result_multi_round", &json!({}));
    let words = "Multi-round complete for Ada who likes Ada";
    assert_eq!(answer["text"], words, "{name}: {answer}");
    // In the newer version it stands in a header as well, in base64.
    let answer = client.call("test_header_param", &json!({"region": "Köln"}));
    assert_eq!(answer["text"], "region=Köln", "{name}: {answer}");
    let unknown = client.call("no-such-tool", &json!({}));
    assert!(
        unknown.to_string().contains("no-such-tool"),
        "{name}: {unknown}"
    );
}

#[test]
fn clients_of_several_makers_live_through_cancellation_crash_and_restart() {
    let clients = clients();
    let Some(python) = tools::python_sdk() else {
        return;
    };
    let mut world = World::at_port(free_port());
    world.demo("demo", &[]);
    let fixture = format!("{SERVERS}/conformance.py");
    let command = [python.to_str().unwrap(), &fixture];
    let options = ["--read", SERVERS, "--ask", "elicitation"];
    world.mcp("fixture", &options, &command);
    let url = format!("{}/mcp", world.url);
    // Each of a user of its own: what one breaks is not another's.
    let mut started: Vec<_> = clients
        .iter()
        .enumerate()
        .map(|(number, (name, program, version))| {
            let key = world.key(&format!("user{number}"));
            (Driven::start(name, program, &url, &key), *version)
        })
        .collect();
    std::thread::scope(|scope| {
        for (client, version) in &mut started {
            let world = &world;
            scope.spawn(move || {
                begins(client, version);
                let sleep = json!({"do": "cancel", "tool": "sleep", "arguments": {"ms": 600_000}, "after_ms": 300});
                let cancelled = client.tell(&sleep);
                assert_eq!(cancelled["cancelled"], true, "{}: {cancelled}", client.name);
                client.reaches(world, "after a cancellation");
                let crashed = client.call("crash", &json!({}));
                assert!(
                    crashed.to_string().contains("exited with code 1"),
                    "{}: {crashed}",
                    client.name
                );
                client.reaches(world, "after a crash");
            });
        }
    });
    // Cancelled, and not merely forgotten.
    world.until("no call is under way", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    let heard = |client: &mut Driven| {
        let heard = client.tell(&json!({"do": "changed"}));
        heard["changes"].as_u64().unwrap()
    };
    let before: Vec<_> = started
        .iter_mut()
        .map(|(client, _)| heard(client))
        .collect();
    let switch = ["--scope", "tool", "--target", "demo/add"];
    world.cli(&[&["kill-switch", "on", "--reason", "no"], &switch[..]].concat());
    for ((client, _), before) in started.iter_mut().zip(before) {
        let what = format!("{} hears that its tools have changed", client.name);
        world.until(&what, |_| (heard(client) > before).then_some(()));
    }
    assert_eq!(world.stop(), 0);
    world.start();
    for (client, _) in &mut started {
        client.reaches(&world, "after a restart");
    }
    for (client, _) in started {
        client.leaves();
    }
}

/// One deed of MCP Inspector's command line.
fn inspect(inspector: &Program, url: &str, key: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(&inspector.program);
    command
        .args(&inspector.args)
        .args(["--cli", url, "--transport", "http", "--format", "json"])
        .args(["--header", &format!("Authorization: Bearer {key}")])
        .args(arguments);
    command
}

#[test]
fn mcp_inspector_s_command_line_lists_calls_cancels_and_comes_back() {
    let Some(inspector) = tools::inspector() else {
        return;
    };
    let mut world = World::at_port(free_port());
    world.demo("demo", &[]);
    let key = world.key("ada");
    let url = format!("{}/mcp/demo", world.url);
    // It keeps things in its home.
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| -> Value {
        let ran = inspect(&inspector, &url, &key, arguments)
            .env("HOME", home.path())
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&ran.stdout);
        let err = String::from_utf8_lossy(&ran.stderr);
        // A failure is told on stderr, in JSON as well.
        let told = if out.trim().is_empty() { &err } else { &out };
        serde_json::from_str(told).unwrap_or_else(|_| panic!("{out}\n{err}"))
    };
    let echo = |era: &str, words: &str| {
        let arguments = json!({"text": words}).to_string();
        let call = ["--method", "tools/call", "--tool-name", "echo"];
        let rest = ["--tool-args-json", &arguments, "--protocol-era", era];
        run(&[&call[..], &rest].concat())
    };
    let text = |answer: &Value| answer["result"]["content"][0]["text"].clone();
    for era in ["legacy", "modern"] {
        let listed = run(&["--method", "tools/list", "--protocol-era", era]);
        assert!(listed.to_string().contains("\"echo\""), "{era}: {listed}");
        assert_eq!(text(&echo(era, "häh?")), "häh?");
        let crash = ["--method", "tools/call", "--tool-name", "crash"];
        let crashed = run(&[&crash[..], &["--protocol-era", era]].concat());
        assert!(
            crashed.to_string().contains("exited with code 1"),
            "{crashed}"
        );
        world.until("it is answered again", |_| {
            (text(&echo(era, "again")) == "again").then_some(())
        });
    }
    // Letting go of a request cancels it in the newer era, and only there.
    let running = |world: &World| world.cli(&["call", "list"]).as_array().map(Vec::len);
    let sleep = [
        "--method",
        "tools/call",
        "--tool-name",
        "sleep",
        "--tool-args-json",
        r#"{"ms": 600000}"#,
    ];
    let mut sleeper = inspect(&inspector, &url, &key, &sleep)
        .args(["--protocol-era", "modern"])
        .env("HOME", home.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    world.until("it runs", |world| (running(world) == Some(1)).then_some(()));
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    world.until("it was cancelled", |world| {
        (running(world) == Some(0)).then_some(())
    });
    assert_eq!(world.stop(), 0);
    world.start();
    for era in ["legacy", "modern"] {
        assert_eq!(text(&echo(era, "after a restart")), "after a restart");
    }
}
