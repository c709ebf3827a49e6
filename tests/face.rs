//! The face for every MCP client: Streamable HTTP, spoken by hand and by the SDKs that people use.

use std::io::{BufReader, Write};
use std::process::Command;

use serde_json::{Value, json};

use crate::tools;
use crate::world::client::read;
use crate::world::{Answer, Http, World};

/// A client that writes every header itself.
pub(crate) struct Client {
    http: Http,
    pub(crate) path: String,
    key: String,
    session: Option<String>,
}

impl Client {
    /// One that has begun.
    pub(crate) fn new(world: &World, path: &str, key: &str) -> Self {
        Self::that_can(world, path, key, json!({}))
    }

    /// The same with capabilities.
    pub(crate) fn that_can(world: &World, path: &str, key: &str, capabilities: Value) -> Self {
        let mut client = Self {
            http: Http::new(&world.url),
            path: path.to_owned(),
            key: key.to_owned(),
            session: None,
        };
        let mut begin = initialize("2025-11-25");
        begin["capabilities"] = capabilities;
        let answer = client.ask(1, "initialize", begin);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["result"]["protocolVersion"], "2025-11-25");
        client.session = Some(header(&answer, "mcp-session-id").unwrap());
        let told = client.send(json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!((told.status, told.body.as_slice()), (202, &b""[..]));
        client
    }

    pub(crate) fn ask(&self, id: impl Into<Value>, method: &str, params: Value) -> Answer {
        self.send(json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}))
    }

    pub(crate) fn send(&self, message: Value) -> Answer {
        self.raw("POST", &[], &message.to_string())
    }

    pub(crate) fn raw(&self, method: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let mut answer = read(&mut BufReader::new(self.sent(method, more, body)));
        // One that took a moment comes as a stream: its last message is the answer.
        if answer.headers.to_lowercase().contains("text/event-stream") {
            let body = String::from_utf8(answer.body).unwrap();
            let data = body
                .lines()
                .rev()
                .find_map(|line| line.strip_prefix("data: {"));
            answer.body = data.map_or(Vec::new(), |data| format!("{{{data}").into_bytes());
        }
        answer
    }

    /// The messages of the answer to a request, as they come: of a stream, or one alone.
    pub(crate) fn messages(&self, message: &Value) -> impl Iterator<Item = Value> + use<> {
        let lines =
            BufReader::new(self.sent("POST", &[("Connection", "close")], &message.to_string()));
        let lines = std::io::BufRead::lines(lines).map_while(Result::ok);
        lines.filter_map(|line| {
            let data = line.strip_prefix("data: ").unwrap_or(&line);
            serde_json::from_str(data).ok().filter(Value::is_object)
        })
    }

    pub(crate) fn sent(
        &self,
        method: &str,
        more: &[(&str, &str)],
        body: &str,
    ) -> std::net::TcpStream {
        let mut stream = self.http.connect();
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: localhost\r\n", self.path);
        let mut put = |name: &str, value: &str| {
            if !more
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        };
        put("Authorization", &format!("Bearer {}", self.key));
        put("Accept", "application/json, text/event-stream");
        put("Content-Type", "application/json");
        if let Some(session) = &self.session {
            put("Mcp-Session-Id", session);
            put("MCP-Protocol-Version", "2025-11-25");
        }
        for (name, value) in more.iter().filter(|(_, value)| !value.is_empty()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(head.as_bytes()).unwrap();
        stream
    }

    fn tools(&self) -> Vec<String> {
        let answer = self.ask(2, "tools/list", json!({}));
        assert_eq!(answer.status, 200, "{answer:?}");
        let answer = answer.json();
        let tools = answer["result"]["tools"].as_array().unwrap();
        let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
        tools.iter().map(name).collect()
    }

    pub(crate) fn call(&self, id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
        let answer = self.ask(
            id,
            "tools/call",
            json!({"name": tool, "arguments": arguments}),
        );
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// The answer to the beginning of one.
pub(crate) fn initialized(world: &World, path: &str, key: &str) -> Value {
    let client = Client {
        http: Http::new(&world.url),
        path: path.to_owned(),
        key: key.to_owned(),
        session: None,
    };
    client.ask(1, "initialize", initialize("2025-11-25")).json()
}

pub(crate) fn initialize(version: &str) -> Value {
    json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "by hand", "version": "1"}})
}

fn header(answer: &Answer, name: &str) -> Option<String> {
    answer.headers.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.eq_ignore_ascii_case(name)).then(|| value.trim().to_owned())
    })
}

pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}

#[test]
fn a_client_begins_lists_calls_and_leaves() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/demo", &key);
    assert!(client.tools().contains(&"echo".to_owned()));
    // The client's id comes back as it was, whatever its type.
    for id in [json!(7), json!("7"), json!("a\"b"), json!(-1)] {
        let answer = client.call(id.clone(), "echo", json!({"text": "hello"}));
        assert_eq!((&answer["id"], text(&answer)), (&id, "hello"), "{answer}");
    }
    assert_eq!(client.ask(9, "ping", json!({})).json()["result"], json!({}));
    let isolate = world.isolate("demo", Some("ada"));
    assert_eq!(isolate["state"], "ready", "{isolate}");
    let wrong = client.call(3, "nothing", json!({}));
    assert_eq!(wrong["error"]["code"], -32602, "{wrong}");
    let other = client.ask(4, "resources/list", json!({})).json();
    assert_eq!(other["error"]["code"], -32601, "{other}");

    // It is the same user's isolate as the standard client's, and the same audit.
    let standard = world.client_of_key(&key);
    standard.ask("note_put", json!({"key": "k", "value": "v"}));
    let note = client.call(5, "note_get", json!({"key": "k"}));
    assert_eq!(text(&note), "v", "{note}");
    let records = crate::kill::audit(&world);
    let count = |event: &str| records.iter().filter(|one| one["event"] == event).count();
    assert_eq!(count("call.start"), count("call.end"));
    let echoes = records.iter().filter(|one| one["tool"] == "echo");
    assert_eq!(echoes.count(), 4, "{records:?}");
    assert!(
        !records.iter().any(|one| one["tool"] == "ping"),
        "discovery told what it can do"
    );

    assert_eq!(client.raw("DELETE", &[], "").status, 204);
    assert_eq!(client.ask(6, "ping", json!({})).status, 404);
    assert_eq!(client.raw("GET", &[], "").status, 404);
    assert_eq!(client.raw("PUT", &[], "").status, 405);
}

#[test]
fn all_of_a_user_s_tools_are_at_one_address_under_names_of_their_own() {
    let world = World::new();
    world.demo("first", &[]);
    world.demo("second", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp", &key);
    let tools = client.tools();
    assert!(
        tools.contains(&"echo".to_owned()) && tools.contains(&"second_echo".to_owned()),
        "{tools:?}"
    );
    assert_eq!(tools, client.tools(), "the order stays");
    client.call(
        1,
        "second_note_put",
        json!({"key": "k", "value": "of the second"}),
    );
    assert_eq!(
        text(&client.call(2, "second_note_get", json!({"key": "k"}))),
        "of the second"
    );
    assert_ne!(
        text(&client.call(3, "note_get", json!({"key": "k"}))),
        "of the second"
    );
    // By its own address each has its own names, and a session is good for both.
    let second = Client::new(&world, "/mcp/second", &key);
    assert!(second.tools().contains(&"echo".to_owned()));
    assert_eq!(
        text(&second.call(4, "note_get", json!({"key": "k"}))),
        "of the second"
    );
}

#[test]
fn who_may_not_is_told_why_with_the_status_of_the_specification() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, bob) = (world.key("ada"), world.key("bob"));
    let client = Client::new(&world, "/mcp/demo", &ada);
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    for (headers, body, status) in [
        (&[("Authorization", "")][..], ping, 401),
        (&[("Authorization", "Bearer wrong")], ping, 401),
        (&[("Authorization", "Basic eDp5")], ping, 401),
        (&[("Mcp-Session-Id", "")], ping, 400),
        (&[("Mcp-Session-Id", "ses_0000000000000000")], ping, 404),
        (&[("Mcp-Session-Id", "x")], ping, 404),
        (&[("MCP-Protocol-Version", "1999-01-01")], ping, 400),
        (&[("Origin", "https://evil.example")], ping, 403),
        (&[("Content-Type", "text/plain")], ping, 415),
        (&[("Accept", "text/html")], ping, 406),
        (&[], "{", 400),
        (&[], "[]", 400),
        (&[], r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, 400),
        (
            &[],
            r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#,
            400,
        ),
    ] {
        let answer = client.raw("POST", headers, body);
        assert_eq!(answer.status, status, "{headers:?} {body}: {answer:?}");
        let told = answer.json();
        assert!(told["error"]["message"].is_string(), "{told}");
        if headers.contains(&("Authorization", "Bearer wrong")) {
            let text = told["error"]["message"].as_str().unwrap();
            assert!(text.contains("no client key"), "{text}");
        }
        let asks = header(&answer, "www-authenticate").is_some();
        assert_eq!(asks, status == 401, "{answer:?}");
    }
    // Once a message was read, its id is told with what is wrong.
    for (headers, body) in [
        (&[("Mcp-Session-Id", "")][..], ping),
        (&[("MCP-Protocol-Version", "1999-01-01")], ping),
    ] {
        assert_eq!(client.raw("POST", headers, body).json()["id"], 1);
    }
    // What must be an object is one, and a cursor is one that was given to somebody.
    for (method, params) in [
        ("logging/setLevel", json!(["debug"])),
        ("tools/list", json!({"cursor": "x"})),
        ("tools/list", json!({"cursor": ""})),
    ] {
        let refused = client.ask(5, method, params).json();
        assert_eq!(refused["error"]["code"], -32602, "{method}: {refused}");
    }
    // Somebody else's session is none of yours.
    let mut thief = Client::new(&world, "/mcp/demo", &bob);
    thief.session.clone_from(&client.session);
    assert_eq!(thief.ask(1, "ping", json!({})).status, 404);
    // An mcp that is not there, or not for this key.
    let nowhere = Client {
        http: Http::new(&world.url),
        path: "/mcp/nowhere".to_owned(),
        key: ada.clone(),
        session: None,
    };
    assert_eq!(
        nowhere
            .ask(1, "initialize", initialize("2025-11-25"))
            .status,
        404
    );
    // No document sends a client to a login that is not there.
    let http = Http::new(&world.url);
    for path in [
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
    ] {
        let answer = http.send("GET", path, None, None);
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"));
    }
    // Suspended is suspended, here as there.
    world.cli(&["user", "suspend", "ada", "--reason", "left us"]);
    assert_eq!(client.ask(1, "ping", json!({})).status, 401);
}

#[test]
fn a_session_that_was_ended_is_gone_also_where_its_token_is_the_bearer() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let token = world.client_of_key(&key).token;
    for bearer in [key, token] {
        let client = Client::new(&world, "/mcp/demo", &bearer);
        // Nothing is ended, or opened, in a version that is not spoken.
        let unknown = [("MCP-Protocol-Version", "2099-01-01")];
        for method in ["DELETE", "GET"] {
            let refused = client.raw(method, &unknown, "");
            assert_eq!(
                (refused.status, &refused.json()["error"]["code"]),
                (400, &json!(-32600))
            );
        }
        assert_eq!(client.ask(1, "ping", json!({})).status, 200);
        assert_eq!(client.raw("DELETE", &[], "").status, 204);
        assert_eq!(client.ask(2, "ping", json!({})).status, 404);
        assert_eq!(client.raw("DELETE", &[], "").status, 404);
        let again = Client::new(&world, "/mcp/demo", &bearer);
        assert_eq!(again.ask(3, "ping", json!({})).status, 200);
    }
}

#[test]
fn a_kill_switch_is_told_as_a_result_and_the_session_lives_on() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    client.call(1, "echo", json!({"text": "x"}));
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "tool",
        "--target",
        "demo/echo",
        "--reason",
        "it leaks",
    ]);
    let told = client.call(2, "echo", json!({"text": "x"}));
    assert_eq!(told["result"]["isError"], true, "{told}");
    assert!(text(&told).contains("it leaks"), "{told}");
    assert_eq!(
        told["result"]["_meta"]["legation/error"],
        "kill_switch_active"
    );
    assert!(!client.tools().contains(&"echo".to_owned()));
    assert!(text(&client.call(3, "add", json!({"a": 1, "b": 2}))).contains('3'));
}

#[test]
fn a_session_outlives_the_gateway() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let mut client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    world.kill_9();
    world.start();
    client.http = Http::new(&world.url);
    assert_eq!(
        text(&client.call(1, "echo", json!({"text": "still"}))),
        "still"
    );
}

#[test]
fn a_cancelled_call_is_stopped_and_its_server_told() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    client.call(1, "echo", json!({"text": "warm"}));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            client.ask(
                "long",
                "tools/call",
                json!({"name": "sleep", "arguments": {"ms": 600_000}}),
            )
        });
        world.until("it is under way", |world| {
            let calls = world.cli(&["call", "list"]);
            (!calls.as_array().unwrap().is_empty()).then_some(())
        });
        // Somebody else's id, or another one's, cancels nothing.
        for id in [json!("other"), json!(1)] {
            client.send(json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}));
        }
        let twice = client.call("long", "echo", json!({"text": "x"}));
        assert_eq!(twice["error"]["code"], -32600, "{twice}");
        client.send(
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": {"requestId": "long", "reason": "enough"}}),
        );
        let answer = waiting.join().unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (202, &b""[..]));
    });
    let calls = world.cli(&["call", "list"]);
    assert_eq!(calls, json!([]));
    assert_eq!(text(&client.call(2, "echo", json!({"text": "on"}))), "on");
}

pub(crate) fn everything(world: &World) -> Option<()> {
    let server = tools::npm_server("server-everything")?;
    let mut command = vec![server.program.to_str().unwrap()];
    command.extend(server.args.iter().map(String::as_str));
    command.push("stdio");
    world.mcp("everything", &[], &command);
    Some(())
}

pub(crate) fn saw(command: &mut Command) -> Value {
    let output = command.output().unwrap();
    let (out, err) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{err}");
    serde_json::from_slice(out)
        .unwrap_or_else(|_| panic!("{}\n{err}", String::from_utf8_lossy(out)))
}

pub(crate) fn all_is_well(saw: &Value) {
    assert_eq!(saw["echo"], "Echo: häh?", "{saw}");
    let heard = saw["progress"].as_array().unwrap();
    let heard: Vec<f64> = heard.iter().map(|one| one.as_f64().unwrap()).collect();
    assert_eq!(heard, [1.0, 2.0, 3.0], "{saw}");
    assert!(saw["long"].as_str().unwrap().contains("completed"), "{saw}");
    let tools = saw["tools"].as_array().unwrap();
    assert!(tools.contains(&json!("echo")) && tools.len() > 5, "{saw}");
}

#[test]
fn the_python_sdk_finds_its_way() {
    let Some(python) = tools::python_sdk() else {
        return;
    };
    let world = World::new();
    if everything(&world).is_none() {
        return;
    }
    let key = world.key("ada");
    let script = format!("{}/tests/clients/python_sdk.py", env!("CARGO_MANIFEST_DIR"));
    for (path, mode, version) in [
        ("/mcp", "legacy", "2025-11-25"),
        ("/mcp/everything", "auto", "2026-07-28"),
    ] {
        let url = format!("{}{path}", world.url);
        let saw = saw(Command::new(&python).args([&script, &url, &key, mode]));
        all_is_well(&saw);
        assert_eq!(saw["version"], version, "{saw}");
        assert!(
            saw["unknown"].as_str().unwrap().contains("no-such-tool"),
            "{saw}"
        );
    }
}

#[test]
fn the_typescript_sdk_finds_its_way() {
    let Some((node, home)) = tools::typescript_sdk() else {
        return;
    };
    let world = World::new();
    if everything(&world).is_none() {
        return;
    }
    let key = world.key("ada");
    let script = format!(
        "{}/tests/clients/typescript_sdk.mjs",
        env!("CARGO_MANIFEST_DIR")
    );
    let url = format!("{}/mcp/everything", world.url);
    let saw = saw(Command::new(&node).args([&script, home.to_str().unwrap(), &url, &key]));
    all_is_well(&saw);
    assert_eq!(saw["session"], "string", "{saw}");
    assert!(
        saw["cancelled"].as_str().unwrap().contains("enough"),
        "{saw}"
    );
    // Cancelled, and not merely forgotten.
    world.until("the call is over", |world| {
        let calls = world.cli(&["call", "list"]);
        (calls == json!([])).then_some(())
    });
}

#[test]
fn resources_prompts_and_completions_are_passed_on() {
    let world = World::new();
    if everything(&world).is_none() {
        return;
    }
    let key = world.key("ada");
    let mut client = Client {
        http: Http::new(&world.url),
        path: "/mcp/everything".to_owned(),
        key: key.clone(),
        session: None,
    };
    let begun = client.ask(1, "initialize", initialize("2025-06-18"));
    client.session = header(&begun, "mcp-session-id");
    let able = begun.json()["result"]["capabilities"].clone();
    let all = json!({"tools": {"listChanged": true}, "resources": {"subscribe": true, "listChanged": true}, "prompts": {"listChanged": true}, "completions": {}, "logging": {}});
    assert_eq!(able, all);
    let result = |method: &str, params: Value| {
        let answer = client.ask(json!(method), method, params).json();
        assert!(answer["result"].is_object(), "{method}: {answer}");
        assert_eq!(answer["id"], method);
        answer["result"].clone()
    };
    let listed = result("resources/list", json!({}));
    let uri = &listed["resources"][0]["uri"];
    let read = result(
        "resources/read",
        json!({"uri": uri, "_meta": {"progressToken": 1}}),
    );
    assert_eq!(&read["contents"][0]["uri"], uri, "{read}");
    let templates = result("resources/templates/list", json!({}));
    assert!(
        templates["resourceTemplates"][0]["uriTemplate"].is_string(),
        "{templates}"
    );
    let prompts = result("prompts/list", json!({}));
    let name = &prompts["prompts"][0]["name"];
    let prompt = result("prompts/get", json!({"name": name}));
    assert!(prompt["messages"][0].is_object(), "{prompt}");
    let asked = json!({
        "ref": {"type": "ref/prompt", "name": "completable-prompt"},
        "argument": {"name": "department", "value": "E"},
    });
    let completed = result("completion/complete", asked);
    assert!(completed["completion"]["values"].is_array(), "{completed}");
    // The server's own error is passed on as it is.
    let wrong = client
        .ask(9, "resources/read", json!({"uri": "nowhere://x"}))
        .json();
    assert!(
        wrong["error"]["code"].is_i64() && wrong["error"]["data"]["error"].is_null(),
        "{wrong}"
    );
    // What was asked is on record, and what is denied is refused.
    let records = crate::kill::audit(&world);
    let on_record = |tool: &str| {
        records
            .iter()
            .any(|one| one["event"] == "call.start" && one["tool"] == tool)
    };
    assert!(
        on_record("resources.read") && on_record("prompts.get"),
        "{records:?}"
    );
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "everything",
        "--reason",
        "no",
    ]);
    let denied = client.ask(10, "resources/list", json!({})).json();
    assert_eq!(
        denied["error"]["data"]["error"], "kill_switch_active",
        "{denied}"
    );
}

/// The lines of a stream, as they come.
pub(crate) fn listen(client: &Client) -> impl Iterator<Item = String> {
    let mut stream = client.http.connect();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let session = client.session.as_deref().unwrap();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: text/event-stream\r\nConnection: close\r\nMcp-Session-Id: {session}\r\n\r\n",
        client.path, client.key
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = std::io::BufRead::lines(BufReader::new(stream)).map_while(Result::ok);
    assert!(lines.next().unwrap().contains("200"));
    lines
}

fn hears_of_a_change(lines: &mut impl Iterator<Item = String>) -> bool {
    lines.any(|line| line.contains("notifications/tools/list_changed"))
}

#[test]
fn a_stream_tells_when_the_list_of_tools_changes_and_ends_with_its_session() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp", &key);
    let mut older = listen(&client);
    let mut lines = listen(&client);
    assert!(
        !hears_of_a_change(&mut older),
        "a newer stream takes its place"
    );
    let denied = [
        "kill-switch",
        "on",
        "--scope",
        "tool",
        "--target",
        "demo/echo",
        "--reason",
        "no",
    ];
    world.cli(&denied);
    assert!(hears_of_a_change(&mut lines));
    assert!(!client.tools().contains(&"echo".to_owned()));
    // Another mcp, published and subscribed to.
    world.demo("second", &[]);
    let id = world.cli(&["key", "list", "--user", "ada"])[0]["id"].clone();
    world.cli(&["subscription", "add", id.as_str().unwrap(), "second"]);
    assert!(hears_of_a_change(&mut lines));
    // A suspended user's stream ends; and one that is open does not keep the server from stopping.
    world.cli(&["user", "suspend", "ada", "--reason", "left us"]);
    assert!(!hears_of_a_change(&mut lines));
    let bob = Client::new(&world, "/mcp/demo", &world.key("bob"));
    let mut open = listen(&bob);
    let began = std::time::Instant::now();
    assert_eq!(world.stop(), 0);
    assert!(!hears_of_a_change(&mut open));
    assert!(
        began.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn nobody_sends_a_large_body_before_it_is_known_who_it_is() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    let large = "x".repeat(100_000);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "echo", "arguments": {"text": large}}});
    let wrong = [("Authorization", "Bearer wrong")];
    assert_eq!(client.raw("POST", &wrong, &call.to_string()).status, 401);
    let none = [("Mcp-Session-Id", "")];
    assert_eq!(client.raw("POST", &none, &call.to_string()).status, 413);
    assert_eq!(text(&client.send(call).json()).len(), large.len());
}

/// A call at `/mcp/bank.eu` was delivered to the tool `eu.pay` of mcp `bank`.
#[test]
fn names_with_dots_lead_to_one_mcp_only() {
    let world = World::new();
    for (mcp, tool) in [("bank", "eu.pay"), ("bank.eu", "pay")] {
        let script =
            crate::standard::CANNED.replace(r#""name":"canned""#, &format!(r#""name":"{tool}""#));
        let answer = json!({"content": [{"type": "text", "text": format!("{tool} of {mcp}")}]});
        world.mcp(mcp, &[], &["sh", "-c", &script, "sh", &answer.to_string()]);
    }
    let key = world.key("ada");
    let bank = Client::new(&world, "/mcp/bank", &key);
    let eu = Client::new(&world, "/mcp/bank.eu", &key);
    assert_eq!(text(&eu.call(1, "pay", json!({}))), "pay of bank.eu");
    assert_eq!(text(&bank.call(2, "eu.pay", json!({}))), "eu.pay of bank");
    assert_eq!(bank.call(3, "pay", json!({}))["error"]["code"], -32602);
    // What can be read in two ways is nobody's; the exposed names tell them apart.
    let all = Client::new(&world, "/mcp", &key);
    assert_eq!(
        all.call(4, "bank.eu.pay", json!({}))["error"]["code"],
        -32602
    );
    assert_eq!(text(&all.call(5, "pay", json!({}))), "pay of bank.eu");
    let other = all.tools().into_iter().find(|name| name != "pay").unwrap();
    assert_eq!(text(&all.call(6, &other, json!({}))), "eu.pay of bank");
}

#[test]
fn a_batch_is_answered_as_one_where_its_version_has_them() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    let old = [("MCP-Protocol-Version", "2025-03-26")];
    let ask = |id: i64, method: &str, params: Value| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
    let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    let batch = json!([
        ask(
            1,
            "tools/call",
            json!({"name": "echo", "arguments": {"text": "a"}})
        ),
        told,
        ask(2, "nothing/like/it", json!({})),
        ask(3, "ping", json!({})),
        ask(
            3,
            "tools/call",
            json!({"name": "echo", "arguments": {"text": "b"}})
        ),
    ]);
    let answer = client.raw("POST", &old, &format!(" {batch}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = answer.json();
    let all = all.as_array().unwrap();
    let ids: Vec<_> = all.iter().map(|one| one["id"].as_i64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3, 3], "{all:?}");
    assert_eq!((text(&all[0]), text(&all[3])), ("a", "b"));
    assert_eq!(all[1]["error"]["code"], -32601);
    // Without a version it is of that one; another one has no batches.
    let none = client.raw(
        "POST",
        &[("MCP-Protocol-Version", "")],
        &json!([told]).to_string(),
    );
    assert_eq!((none.status, none.body.as_slice()), (202, &b""[..]));
    assert_eq!(client.raw("POST", &[], &batch.to_string()).status, 400);
    let many: Vec<Value> = (0..33).map(|id| ask(id, "ping", json!({}))).collect();
    let begin = json!([{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize("2025-03-26")}]);
    for wrong in [json!([]), json!([1]), json!([[]]), json!(many), begin] {
        let answer = client.raw("POST", &old, &wrong.to_string());
        assert_eq!(answer.status, 400, "{wrong}: {answer:?}");
    }
}
