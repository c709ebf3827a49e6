//! The transport of 2024-11-05 (HTTP+SSE), for clients that know no newer one: by hand, and by the SDKs that have it.

use std::io::Write;

use serde_json::{Value, json};

use crate::clients_real::{Driven, SCRIPTS};
use crate::questions::{ALL, accepts, call, can_all, said};
use crate::resuming::{Event, events};
use crate::tools::{self, Program};
use crate::world::{Answer, Http, World};

/// A client that writes every header itself.
struct Client {
    http: Http,
    key: String,
    endpoint: String,
    told: Box<dyn Iterator<Item = Event>>,
}

impl Client {
    /// One that has a stream.
    fn listens(world: &World, path: &str, key: &str) -> Self {
        let (status, told) = open(world, path, key);
        assert_eq!(status, 200);
        let mut told: Box<dyn Iterator<Item = Event>> = told;
        let first = told.next().unwrap();
        assert_eq!(first.name, "endpoint");
        let http = Http::new(&world.url);
        let (key, endpoint) = (key.to_owned(), first.data);
        Self {
            http,
            key,
            endpoint,
            told,
        }
    }

    /// One that has begun.
    fn new(world: &World, path: &str, key: &str, capabilities: Value) -> Self {
        let mut client = Self::listens(world, path, key);
        let begin = json!({"protocolVersion": "2024-11-05", "capabilities": capabilities,
            "clientInfo": {"name": "by hand", "version": "1"}});
        let begun = client.ask(0, "initialize", begin);
        assert_eq!(begun["result"]["protocolVersion"], "2024-11-05", "{begun}");
        let told = client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!((told.status, told.body.as_slice()), (202, &b""[..]));
        client
    }

    fn send(&self, message: &Value) -> Answer {
        post(&self.http, &self.endpoint, &self.key, &message.to_string())
    }

    fn next(&mut self) -> Value {
        let event = self.told.next().expect("the stream has ended");
        assert_eq!((event.name.as_str(), event.id.as_str()), ("message", ""));
        event.json()
    }

    /// The answer; nothing else may come before.
    fn ask(&mut self, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let id = id.into();
        let sent =
            self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        assert_eq!(
            (sent.status, sent.body.as_slice()),
            (202, &b""[..]),
            "{sent:?}"
        );
        let answer = self.next();
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }

    fn says(&mut self, id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
        let answer = self.ask(
            id,
            "tools/call",
            json!({"name": tool, "arguments": arguments}),
        );
        answer["result"]["content"][0]["text"].clone()
    }
}

fn open(world: &World, path: &str, key: &str) -> (u16, Box<dyn Iterator<Item = Event>>) {
    let mut stream = Http::new(&world.url).connect();
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let (status, told) = events(stream);
    (status, Box::new(told))
}

fn post(http: &Http, path: &str, key: &str, body: &str) -> Answer {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    http.raw(head.as_bytes())
}

fn with_old() -> World {
    World::with_client("tls = \"off\"\nhttp_sse = true\n", "")
}

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[test]
fn a_client_begins_calls_is_asked_and_leaves() {
    let world = with_old();
    world.demo("demo", &[]);
    crate::questions::add(&world, ALL);
    let key = world.key("ada");
    let mut client = Client::new(&world, "/sse/demo", &key, json!({}));
    let tools = client.ask(1, "tools/list", json!({}));
    assert!(tools["result"]["tools"].to_string().contains("\"echo\""));
    for id in [json!(7), json!("7"), json!("a\"b")] {
        assert_eq!(client.says(id, "echo", json!({"text": "hello"})), "hello");
    }
    let large = "z".repeat(1 << 20);
    assert_eq!(client.says(2, "echo", json!({"text": large})), large);
    assert_eq!(
        client.ask(3, "nothing/like/it", json!({}))["error"]["code"],
        -32601
    );
    assert_eq!(client.ask(4, "ping", json!({}))["result"], json!({}));
    // Progress, questions and answers come on the one stream, and what changes as well.
    let mut asked = Client::new(&world, "/sse/asker", &key, can_all());
    assert_eq!(asked.send(&call("p", "progress", json!({}))).status, 202);
    assert_eq!(asked.next()["params"]["progressToken"], "p");
    let question = asked.next();
    assert_eq!(question["method"], "elicitation/create");
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": accepts("ada")});
    assert_eq!(asked.send(&answer).status, 202);
    assert_eq!(asked.next()["params"]["progress"], 2);
    assert_eq!(said(&asked.next()), accepts("ada"));
    let deny = ["--scope", "tool", "--target", "demo/add", "--reason", "no"];
    world.cli(&[&["kill-switch", "on"], &deny[..]].concat());
    assert_eq!(client.next()["method"], "notifications/tools/list_changed");
    // All of a user's tools are at one address, and it is the same isolate.
    let mut all = Client::new(&world, "/sse", &key, json!({}));
    assert_eq!(all.says(1, "echo", json!({"text": "all"})), "all");
    // Who goes away ends its session, and what is under way.
    let sleep = json!({"jsonrpc": "2.0", "id": "s", "method": "tools/call",
        "params": {"name": "sleep", "arguments": {"ms": 600_000}}});
    assert_eq!(client.send(&sleep).status, 202);
    let running = |world: &World| world.cli(&["call", "list"]).as_array().map(Vec::len);
    world.until("it runs", |world| (running(world) == Some(1)).then_some(()));
    let (http, endpoint) = (client.http.clone(), client.endpoint.clone());
    drop(client);
    world.until("it was cancelled", |world| {
        (running(world) == Some(0)).then_some(())
    });
    world.until("its address is gone", |_| {
        (post(&http, &endpoint, &key, PING).status == 404).then_some(())
    });
    assert_eq!(all.says(2, "echo", json!({"text": "on"})), "on");
}

#[test]
fn a_stream_is_its_key_s_own_and_what_is_wrong_is_said() {
    let world = with_old();
    world.demo("demo", &[]);
    let (ada, bob) = (world.key("ada"), world.key("bob"));
    let mut client = Client::listens(&world, "/sse", &ada);
    // Before it has begun: a newer client looks for a newer version, and is told that there is none.
    assert_eq!(
        client.ask("d", "server/discover", json!({}))["error"]["code"],
        -32601
    );
    assert_eq!(client.ask("p", "ping", json!({}))["result"], json!({}));
    let wrong = client.ask("w", "initialize", json!([]));
    assert_eq!(wrong["error"]["code"], -32602);
    let begin = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let begun = client.ask("b", "initialize", begin.clone());
    assert_eq!(begun["result"]["protocolVersion"], "2025-06-18");
    let twice = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": begin});
    assert_eq!(client.send(&twice).status, 400);
    let http = Http::new(&world.url);
    let id = client.endpoint.clone();
    for (path, key, body, status) in [
        (id.as_str(), bob.as_str(), PING, 404),
        (id.as_str(), "wrong", PING, 401),
        ("/messages", &ada, PING, 404),
        ("/messages?sessionId=", &ada, PING, 404),
        (
            "/messages?sessionId=00000000000000000000000000000000",
            &ada,
            PING,
            404,
        ),
        (id.as_str(), &ada, "{", 400),
        (id.as_str(), &ada, "[]", 400),
        (
            id.as_str(),
            &ada,
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            400,
        ),
    ] {
        let answer = post(&http, path, key, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.json()["error"]["message"].is_string(), "{answer:?}");
    }
    assert_eq!(post(&http, "/sse", &ada, PING).status, 405);
    assert_eq!(open(&world, "/sse", "wrong").0, 401);
    assert_eq!(client.ask("on", "ping", json!({}))["result"], json!({}));
    // An mcp that is not there: its client is told when it begins.
    let mut nowhere = Client::listens(&world, "/sse/nowhere", &ada);
    let begin = json!({"protocolVersion": "2024-11-05", "capabilities": {}});
    let sent = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": begin});
    assert_eq!(nowhere.send(&sent).status, 202);
    assert!(
        nowhere.next()["error"]["message"]
            .to_string()
            .contains("nowhere")
    );
    // So many streams of a key (`MCP_SSE_KEY_MAX`), and another key has its own.
    let mut open_ones: Vec<_> = (0..30)
        .map(|_| Client::listens(&world, "/sse", &ada))
        .collect();
    assert_eq!(open(&world, "/sse", &ada).0, 503);
    let _bobs = Client::listens(&world, "/sse", &bob);
    open_ones.pop();
    world.until("there is room again", |world| {
        (open(world, "/sse", &ada).0 == 200).then_some(())
    });
    // A suspended user's stream ends.
    world.cli(&["user", "suspend", "ada", "--reason", "left us"]);
    assert!(client.told.next().is_none());
}

#[test]
fn nothing_of_it_is_there_unless_the_operator_wants_it() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    assert_eq!(open(&world, "/sse", &key).0, 404);
    let http = Http::new(&world.url);
    assert_eq!(post(&http, "/messages?sessionId=x", &key, PING).status, 404);
}

#[test]
fn the_sdks_that_have_it_list_call_and_are_told() {
    let python = tools::client_python().map(|program| Program {
        program,
        args: [&format!("{SCRIPTS}/driven.py"), "sdk", "sse"]
            .map(str::to_owned)
            .to_vec(),
    });
    let node = tools::client_node().map(|(program, home)| Program {
        program,
        args: vec![
            format!("{SCRIPTS}/driven.mjs"),
            home.display().to_string(),
            "1".into(),
            "sse".into(),
        ],
    });
    let world = with_old();
    world.demo("demo", &[]);
    let url = format!("{}/sse/demo", world.url);
    for (name, program) in [("the Python SDK", python), ("the TypeScript SDK 1", node)] {
        let Some(program) = program else { continue };
        let key = world.key(if name.contains("Python") {
            "ada"
        } else {
            "bob"
        });
        let mut client = Driven::start(name, &program, &url, &key);
        assert_eq!(client.hear()["version"], "2025-11-25", "{name}");
        let listed = client.tell(&json!({"do": "list"}));
        assert!(
            listed["tools"].as_array().unwrap().contains(&json!("echo")),
            "{listed}"
        );
        assert_eq!(
            client.call("echo", &json!({"text": "häh?"}))["text"],
            "häh?"
        );
        let sleep =
            json!({"do": "cancel", "tool": "sleep", "arguments": {"ms": 600_000}, "after_ms": 300});
        assert_eq!(client.tell(&sleep)["cancelled"], true, "{name}");
        let crashed = client.call("crash", &json!({})).to_string();
        assert!(crashed.contains("exited with code 1"), "{name}: {crashed}");
        client.reaches(&world, "after a crash");
        world.cli(&[
            "kill-switch",
            "on",
            "--scope",
            "tool",
            "--target",
            "demo/add",
            "--reason",
            "no",
        ]);
        world.until("it hears that its tools have changed", |_| {
            (client.tell(&json!({"do": "changed"}))["changes"] != 0).then_some(())
        });
        world.cli(&[
            "kill-switch",
            "off",
            "--scope",
            "tool",
            "--target",
            "demo/add",
        ]);
        client.leaves();
    }
}
