//! The unmodified standard client: its process between these tests and the gateway.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use serde_json::{Value, json};

use crate::tools;
use crate::world::{PATIENCE, World};

/// A running client, spoken to as an AI tool would.
struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<Value>,
    kept: HashMap<u64, Value>,
    next: u64,
}

impl Client {
    fn start(world: &World, key: &str) -> Option<Self> {
        let program = tools::standard_client()?;
        // It sends http only if it is told the port; the world's port is not its default.
        let mut child = Command::new(&program.program)
            .args(&program.args)
            .env("MCP_AMBASSADOR_URL", &world.url)
            .env("MCP_AMBASSADOR_PRESHARED_KEY", key)
            .env("MCP_AMBASSADOR_ALLOW_SELF_SIGNED", "true")
            .env("MCP_AMBASSADOR_DISABLE_CACHE", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, answers) = channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // It answers notifications too, without an id: not ours.
                let frame: Value = serde_json::from_str(&line).unwrap_or_default();
                if frame["id"].is_u64() && send.send(frame).is_err() {
                    return;
                }
            }
        });
        let mut client = Self {
            child,
            stdin,
            answers,
            kept: HashMap::new(),
            next: 0,
        };
        let hello = client.ask("initialize", json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}));
        assert_eq!(
            hello["result"]["serverInfo"]["name"], "@mcpambassador/client",
            "{hello}"
        );
        client.write(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        Some(client)
    }

    fn send(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let frame = json!({"jsonrpc": "2.0", "id": self.next, "method": method, "params": params});
        self.write(&frame);
        self.next
    }

    fn write(&mut self, frame: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{frame}").unwrap();
    }

    fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(answer) = self.kept.remove(&id) {
                return answer;
            }
            let frame = self
                .answers
                .recv_timeout(PATIENCE)
                .expect("the client answers");
            self.kept.insert(frame["id"].as_u64().unwrap(), frame);
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.send(method, params);
        self.answer(id)
    }

    fn call(&mut self, tool: &str, arguments: Value) -> u64 {
        self.send("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    fn text(&mut self, tool: &str, arguments: Value) -> String {
        let id = self.call(tool, arguments);
        let answer = self.answer(id);
        answer["result"]["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_standard_client_lists_calls_and_leaves() {
    let world = World::new();
    world.demo("demo", &[]);
    let Some(mut client) = Client::start(&world, &world.key("ada")) else {
        return;
    };
    let listed = client.ask("tools/list", json!({}));
    let tools = listed["result"]["tools"].as_array().unwrap();
    let echo = tools.iter().find(|tool| tool["name"] == "echo").unwrap();
    assert_eq!(echo["inputSchema"]["required"], json!(["text"]));
    let odd = "ä语😀 \u{2028} \\ \"";
    assert_eq!(client.text("echo", json!({"text": odd})), odd);
    // A failure reaches the AI tool as a text.
    let id = client.call("echo", json!({"wrong": 1}));
    let failed = client.answer(id);
    assert!(
        failed["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .contains("-32602"),
        "{failed}"
    );
    assert!(
        client
            .text("nothing_like_it", json!({}))
            .contains("nothing_like_it")
    );
    // The end of its input: it disconnects and exits by itself.
    drop(client.stdin.take());
    let status = world.until("it has left", |_| client.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn parallel_calls_of_the_standard_client_all_succeed() {
    let world = World::with_client("tls = \"self\"\n", "");
    world.demo("demo", &[]);
    let key = world.key("ada");
    let Some(mut one) = Client::start(&world, &key) else {
        return;
    };
    // A second window with the same key.
    let mut two = Client::start(&world, &key).unwrap();
    // Cold: all of them wait for one start.
    let calls: Vec<u64> = (0..3)
        .map(|n| one.call("echo", json!({"text": n.to_string()})))
        .collect();
    let others: Vec<u64> = (0..3)
        .map(|n| two.call("echo", json!({"text": (n + 10).to_string()})))
        .collect();
    for (n, id) in calls.into_iter().enumerate() {
        assert_eq!(
            one.answer(id)["result"]["content"][0]["text"],
            n.to_string()
        );
    }
    for (n, id) in others.into_iter().enumerate() {
        assert_eq!(
            two.answer(id)["result"]["content"][0]["text"],
            (n + 10).to_string()
        );
    }
    assert_eq!(world.isolates().len(), 1);
}

#[test]
fn the_standard_client_outlives_a_restart_of_the_gateway() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut world = World::at_port(port);
    world.demo("demo", &[]);
    let key = world.key("ada");
    let Some(mut client) = Client::start(&world, &key) else {
        return;
    };
    assert_eq!(client.text("echo", json!({"text": "before"})), "before");
    world.stop();
    world.start();
    let ids: Vec<u64> = (0..3)
        .map(|_| client.call("echo", json!({"text": "after"})))
        .collect();
    for id in ids {
        let answer = client.answer(id);
        assert_eq!(
            answer["result"]["content"][0]["text"], "after",
            "no passing 401: {answer}"
        );
    }
    world.kill_9();
    world.start();
    assert_eq!(client.text("echo", json!({"text": "again"})), "again");
    let sessions = world.cli(&["session", "list"]);
    assert_eq!(
        sessions.as_array().unwrap().len(),
        1,
        "it never had to register again: {sessions}"
    );
}

#[test]
fn a_revoked_key_stops_the_standard_client() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let Some(mut client) = Client::start(&world, &key) else {
        return;
    };
    assert_eq!(client.text("echo", json!({"text": "on"})), "on");
    let id = world.cli(&["key", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.cli(&["key", "revoke", &id]);
    let call = client.call("echo", json!({"text": "x"}));
    let refused = client.answer(call);
    assert!(refused["error"]["message"].is_string(), "{refused}");
}
