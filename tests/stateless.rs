//! MCP 2026-07-28: clients without sessions, over the same isolates, whose servers speak older versions.

use std::io::{BufRead, BufReader, Write};

use serde_json::{Value, json};

use crate::world::client::read;
use crate::world::{Answer, Http, World};

const VERSION: &str = "2026-07-28";
const OURS: &str = "io.modelcontextprotocol/";

pub(crate) struct Client {
    http: Http,
    path: String,
    key: String,
}

impl Client {
    pub(crate) fn new(world: &World, path: &str, key: &str) -> Self {
        Self {
            http: Http::new(&world.url),
            path: path.to_owned(),
            key: key.to_owned(),
        }
    }

    /// A request as the specification has it; `headers` and `params` may say otherwise.
    fn bytes(&self, id: Value, method: &str, params: Value, headers: &[(&str, &str)]) -> Vec<u8> {
        self.bytes_as(id, method, params, headers, str::to_owned)
    }

    /// The same, with its body written in another way.
    fn bytes_as(
        &self,
        id: Value,
        method: &str,
        params: Value,
        headers: &[(&str, &str)],
        other: impl Fn(&str) -> String,
    ) -> Vec<u8> {
        let name = params["name"].as_str().or(params["uri"].as_str());
        let name = name.unwrap_or_default().to_owned();
        let mut whole = json!({"_meta": {
            format!("{OURS}protocolVersion"): VERSION,
            format!("{OURS}clientCapabilities"): {},
            format!("{OURS}clientInfo"): {"name": "by hand", "version": "1"}}});
        for (key, value) in params.as_object().unwrap() {
            match (key.as_str(), value.as_object()) {
                ("_meta", Some(more)) => {
                    for (key, value) in more {
                        whole["_meta"][key] = value.clone();
                    }
                }
                _ => whole[key] = value.clone(),
            }
        }
        let body =
            json!({"jsonrpc": "2.0", "id": id, "method": method, "params": whole}).to_string();
        let body = other(&body);
        let key = format!("Bearer {}", self.key);
        let length = body.len().to_string();
        let mut all = vec![
            ("Host", "localhost"),
            // Who reads to the end does not wait for another answer.
            ("Connection", "close"),
            ("Authorization", key.as_str()),
            ("Accept", "application/json, text/event-stream"),
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
            ("MCP-Protocol-Version", VERSION),
            ("Mcp-Method", method),
            ("Mcp-Name", name.as_str()),
        ];
        all.retain(|(name, value)| {
            let said = headers
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name));
            !said && !value.is_empty()
        });
        all.extend(headers.iter().filter(|(_, value)| !value.is_empty()));
        let mut head = format!("POST {} HTTP/1.1\r\n", self.path);
        for (name, value) in all {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{head}\r\n{body}").into_bytes()
    }

    pub(crate) fn send(&self, method: &str, params: Value, headers: &[(&str, &str)]) -> Answer {
        let mut stream = self.http.connect();
        let bytes = self.bytes(json!(1), method, params, headers);
        stream.write_all(&bytes).unwrap();
        read(&mut BufReader::new(stream))
    }

    /// An answer to a request whose body is written in another way.
    pub(crate) fn send_as(
        &self,
        method: &str,
        params: Value,
        other: impl Fn(&str) -> String,
    ) -> Value {
        let mut stream = self.http.connect();
        let bytes = self.bytes_as(json!(1), method, params, &[], other);
        stream.write_all(&bytes).unwrap();
        read(&mut BufReader::new(stream)).json()
    }

    pub(crate) fn ask(&self, method: &str, params: Value) -> Value {
        let answer = self.send(method, params, &[]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) fn call(&self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// The messages of an answer, as they come: of a stream, or one alone.
    pub(crate) fn stream(&self, method: &str, params: Value) -> impl Iterator<Item = Value> {
        let mut stream = self.http.connect();
        stream
            .write_all(&self.bytes(json!("s"), method, params, &[("Connection", "close")]))
            .unwrap();
        let lines = BufReader::new(stream).lines().map_while(Result::ok);
        lines.filter_map(|line| {
            let data = line.strip_prefix("data: ").unwrap_or(&line);
            serde_json::from_str(data).ok().filter(Value::is_object)
        })
    }
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn a_client_without_a_session_finds_out_lists_and_calls() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    for path in ["/mcp", "/mcp/demo"] {
        let client = Client::new(&world, path, &key);
        let found = client.ask("server/discover", json!({}));
        let result = &found["result"];
        assert_eq!(result["supportedVersions"], json!([VERSION]), "{found}");
        assert_eq!(
            result["capabilities"]["tools"],
            json!({"listChanged": true})
        );
        for answer in [&found, &client.ask("tools/list", json!({}))] {
            let result = &answer["result"];
            assert_eq!(
                (&result["resultType"], &result["cacheScope"]),
                (&json!("complete"), &json!("private"))
            );
            assert!(result["ttlMs"].is_u64(), "{answer}");
            assert!(result["_meta"][format!("{OURS}serverInfo")]["version"].is_string());
        }
        let answer = client.call("echo", json!({"text": "hello"}));
        assert_eq!(
            (text(&answer), &answer["result"]["resultType"]),
            ("hello", &json!("complete"))
        );
        let failed = client.call("fail", json!({}));
        assert_eq!(failed["result"]["resultType"], "complete", "{failed}");
    }
    // All of it in the name of one session, and in one isolate.
    let client = Client::new(&world, "/mcp", &key);
    client.call("note_put", json!({"key": "a", "value": "kept"}));
    assert_eq!(text(&client.call("note_get", json!({"key": "a"}))), "kept");
    let sessions = world.cli(&["session", "list"]);
    assert_eq!(sessions.as_array().unwrap().len(), 1, "{sessions}");
    assert_eq!(world.isolates().len(), 1);
    // A server of an older version hears nothing of what it cannot know.
    let noted = client.call("whoami", json!({}));
    assert!(!noted.to_string().contains("clientCapabilities"), "{noted}");
}

#[test]
fn what_headers_and_message_say_must_be_the_same() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/demo", &key);
    let call = json!({"name": "echo", "arguments": {"text": "x"}});
    let version = format!("{OURS}protocolVersion");
    let of = |version_said: &str| {
        let mut params = call.clone();
        params["_meta"] = json!({&version: version_said});
        params
    };
    for (params, headers, status, code) in [
        (
            call.clone(),
            &[("MCP-Protocol-Version", "")][..],
            400,
            -32020,
        ),
        (call.clone(), &[("Mcp-Method", "")], 400, -32020),
        (call.clone(), &[("Mcp-Method", "tools/list")], 400, -32020),
        (call.clone(), &[("Mcp-Name", "")], 400, -32020),
        (call.clone(), &[("Mcp-Name", "add")], 400, -32020),
        (of("2025-11-25"), &[], 400, -32020),
        (
            of("2027-01-01"),
            &[("MCP-Protocol-Version", "2027-01-01")],
            400,
            -32022,
        ),
        (
            json!({"name": "echo", "_meta": {format!("{OURS}clientCapabilities"): null}}),
            &[],
            400,
            -32602,
        ),
        (json!({"name": "no-such-tool"}), &[], 200, -32602),
    ] {
        let answer = client.send("tools/call", params, headers);
        assert_eq!(answer.status, status, "{headers:?} {answer:?}");
        let answer = answer.json();
        assert_eq!(
            (&answer["error"]["code"], &answer["id"]),
            (&json!(code), &json!(1)),
            "{answer}"
        );
    }
    for method in [
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/list",
        "no/such",
    ] {
        let answer = client.send(method, json!({}), &[]);
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (404, &json!(-32601)),
            "{method}"
        );
    }
    let page = client.ask("tools/list", json!({"cursor": ""}));
    assert_eq!(page["error"]["code"], -32602);
    let coded = [("Mcp-Name", "=?base64?ZWNobw==?=")];
    assert_eq!(client.send("tools/call", call.clone(), &coded).status, 200);
    let mut stranger = Client::new(&world, "/mcp/demo", &key);
    stranger.key = "amb_pk_nobody".to_owned();
    assert_eq!(stranger.send("tools/call", call.clone(), &[]).status, 401);
    assert_eq!(
        Client::new(&world, "/mcp/other", &key)
            .send("server/discover", json!({}), &[])
            .status,
        404
    );
    world.cli(&["user", "suspend", "ada", "--reason", "x", "--yes"]);
    assert_eq!(client.send("tools/call", call.clone(), &[]).status, 403);
    world.cli(&["user", "resume", "ada"]);
    assert_eq!(
        client.send("tools/call", call, &[]).status,
        200,
        "it begins anew by itself"
    );
}

/// All clients of a key share its standing session, and all count from 1.
#[test]
fn clients_with_the_same_ids_are_not_mixed_up() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let client = Client::new(&world, "/mcp", &key);
            scope.spawn(move || {
                for round in 0..10 {
                    let sum = client.call("add", json!({"a": number, "b": 100 * round}));
                    let expected = (number + 100 * round).to_string();
                    assert_eq!(text(&sum), expected, "{sum}");
                }
            });
        }
    });
}

#[test]
fn letting_go_of_a_request_cancels_it() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/demo", &key);
    client.call("echo", json!({"text": "warm"}));
    let sleep =
        json!({"name": "sleep", "arguments": {"ms": 60_000}, "_meta": {"progressToken": "mine"}});
    let stream = client.stream("tools/call", sleep.clone());
    let since = std::time::Instant::now();
    let running = |world: &World| world.cli(&["call", "list"]).as_array().map(Vec::len);
    world.until("it runs", |world| (running(world) == Some(1)).then_some(()));
    drop(stream);
    world.until("it was cancelled", |world| {
        (running(world) == Some(0)).then_some(())
    });
    // The same for who waits for one JSON answer.
    let mut plain = client.http.connect();
    let json_only = [("Accept", "application/json")];
    plain
        .write_all(&client.bytes(json!(1), "tools/call", sleep, &json_only))
        .unwrap();
    world.until("it runs", |world| (running(world) == Some(1)).then_some(()));
    drop(plain);
    world.until("it was cancelled", |world| {
        (running(world) == Some(0)).then_some(())
    });
    let took = since.elapsed();
    assert!(
        took.as_secs() < 50,
        "nobody waited for the sleeper: {took:?}"
    );
}

#[test]
fn a_subscription_is_acknowledged_tells_of_changes_and_ends_with_an_answer() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp", &key);
    let wanted = json!({"notifications": {"toolsListChanged": true, "promptsListChanged": true}});
    let mut stream = client.stream("subscriptions/listen", wanted);
    let mut quiet = client.stream("subscriptions/listen", json!({"notifications": {}}));
    let subscription = format!("{OURS}subscriptionId");
    let first = stream.next().unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    assert_eq!(
        first["params"]["notifications"],
        json!({"toolsListChanged": true})
    );
    assert_eq!(first["params"]["_meta"][&subscription], "s");
    assert_eq!(quiet.next().unwrap()["params"]["notifications"], json!({}));
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "x",
        "--yes",
    ]);
    let changed = stream.next().unwrap();
    assert_eq!(
        changed["method"], "notifications/tools/list_changed",
        "{changed}"
    );
    assert_eq!(changed["params"]["_meta"][&subscription], "s");
    world.cli(&["kill-switch", "off", "--scope", "mcp", "--target", "demo"]);
    assert_eq!(
        stream.next().unwrap()["method"],
        "notifications/tools/list_changed"
    );
    assert_eq!(world.stop(), 0);
    for mut stream in [
        Box::new(stream) as Box<dyn Iterator<Item = Value>>,
        Box::new(quiet),
    ] {
        let end = stream.next().unwrap();
        assert_eq!(
            (&end["id"], &end["result"]["resultType"]),
            (&json!("s"), &json!("complete")),
            "{end}"
        );
        assert!(stream.next().is_none());
    }
    world.start();
}

/// Two thousand streams of one key took all its places, and its calls none.
#[test]
fn subscriptions_of_a_key_are_few_and_take_no_call_s_place() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    let wanted = || json!({"notifications": {"toolsListChanged": true}});
    let mut open: Vec<_> = (0..32)
        .map(|_| client.stream("subscriptions/listen", wanted()))
        .collect();
    for stream in &mut open {
        assert_eq!(
            stream.next().unwrap()["method"],
            "notifications/subscriptions/acknowledged"
        );
    }
    let refused = client.ask("subscriptions/listen", wanted());
    assert_eq!(refused["error"]["data"]["error"], "busy", "{refused}");
    assert_eq!(
        text(&client.call("echo", json!({"text": "still"}))),
        "still"
    );
    drop(open);
    world.until("there is a place again", |_| {
        let mut stream = client.stream("subscriptions/listen", wanted());
        let first = stream.next()?;
        (first["method"] == "notifications/subscriptions/acknowledged").then_some(())
    });
}

#[test]
fn what_is_to_be_told_of_must_be_an_object() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    for wrong in [json!([true, true, true, []]), json!("tools"), json!(null)] {
        let refused = client.ask("subscriptions/listen", json!({"notifications": wrong}));
        assert_eq!(refused["error"]["code"], -32602, "{refused}");
    }
}
