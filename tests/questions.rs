//! What servers ask their clients, in both eras, and what they log: a server of plain Python that asks, behind a real
//! gateway, and clients that answer, decline, come back late, or are somebody else.

use serde_json::{Value, json};

use crate::face::{Client, text};
use crate::stateless::Client as Stateless;
use crate::world::{World, free_port};

const OURS: &str = "io.modelcontextprotocol/";

/// A gateway with the server, and a key that may use it.
pub(crate) fn asker(options: &[&str]) -> (World, String) {
    let world = World::new();
    add(&world, options);
    let key = world.key("ada");
    (world, key)
}

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/asker.py");

pub(crate) fn add(world: &World, options: &[&str]) {
    world.mcp("asker", options, &["python3", SCRIPT]);
}

pub(crate) const ALL: &[&str] = &["--ask", "sampling,elicitation,roots"];

pub(crate) fn can_all() -> Value {
    json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {"listChanged": true}})
}

pub(crate) fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": {"progressToken": "p"}}})
}

/// What the server's tool says, which is JSON.
pub(crate) fn said(answer: &Value) -> Value {
    serde_json::from_str(text(answer)).unwrap_or_else(|_| panic!("{answer}"))
}

pub(crate) fn accepts(name: &str) -> Value {
    json!({"action": "accept", "content": {"name": name}})
}

/// Plays the client of one request: answers what is asked, until the answer.
pub(crate) fn answered(
    client: &Client,
    request: &Value,
    mut answer: impl FnMut(&Value) -> Value,
) -> Value {
    for message in client.messages(request) {
        if message.get("id") == request.get("id") {
            return message;
        }
        if message["method"].is_string() && message.get("id").is_some() {
            let told = answer(&message);
            let mut reply = json!({"jsonrpc": "2.0", "id": message["id"]});
            let is_error = told["code"].is_i64();
            reply[if is_error { "error" } else { "result" }] = told;
            assert_eq!(client.send(reply).status, 202);
        }
    }
    panic!("no answer to {request}")
}

#[test]
fn a_client_with_a_session_is_asked_in_its_stream_and_answers_beside_it() {
    let (world, key) = asker(ALL);
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    let declared = said(&client.call(1, "declared", json!({})));
    assert_eq!(declared, can_all());
    let request = call(
        "a",
        "ask",
        json!({"kinds": ["elicitation", "sampling", "roots", "url"]}),
    );
    let mut methods = Vec::new();
    let answer = answered(&client, &request, |asked| {
        methods.push(asked["method"].as_str().unwrap().to_owned());
        match asked["method"].as_str().unwrap() {
            "elicitation/create" if asked["params"]["mode"] == "url" => {
                json!({"action": "decline"})
            }
            "elicitation/create" => accepts("ada"),
            "sampling/createMessage" => json!({"code": -1, "message": "the user says no"}),
            _ => json!({"roots": [{"uri": "file:///a"}]}),
        }
    });
    assert_eq!(
        said(&answer),
        json!([
            accepts("ada"),
            {"error": {"code": -1, "message": "the user says no"}},
            {"roots": [{"uri": "file:///a"}]},
            {"action": "decline"},
        ])
    );
    assert_eq!(methods.len(), 4, "{methods:?}");
    // Questions one after the other, on the same stream; and news of progress between them.
    let answer = answered(&client, &call("b", "two", json!({})), |_| accepts("bob"));
    assert_eq!(said(&answer), json!([accepts("bob"), accepts("bob")]));
    let progress = client.messages(&call("c", "progress", json!({})));
    let mut seen = Vec::new();
    for message in progress {
        if message["method"] == "notifications/progress" {
            seen.push(message["params"]["progress"].clone());
        } else if message["method"] == "elicitation/create" {
            seen.push(json!("asked"));
            client.send(json!({"jsonrpc": "2.0", "id": message["id"], "result": accepts("x")}));
        } else {
            assert_eq!(said(&message), accepts("x"));
            break;
        }
    }
    assert_eq!(seen, [json!(1), json!("asked"), json!(2)]);
}

#[test]
fn a_server_asks_only_what_its_operator_permits_and_its_client_can_answer() {
    let (world, key) = asker(&["--ask", "elicitation"]);
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    let url = json!({"elicitation": {"form": {}, "url": {}}});
    assert_eq!(said(&client.call(1, "declared", json!({}))), url);
    let request = call(
        2,
        "ask",
        json!({"kinds": ["sampling", "elicitation", "roots"]}),
    );
    let answer = said(&answered(&client, &request, |_| accepts("ada")));
    let codes = [&answer[0]["error"]["code"], &answer[2]["error"]["code"]];
    assert_eq!(codes, [&json!(-32601), &json!(-32601)], "{answer}");
    assert_eq!(answer[1], accepts("ada"));
    // Another client of the same user can do nothing, and has an isolate that knows.
    let plain = Client::that_can(&world, "/mcp/asker", &key, json!({}));
    assert_eq!(said(&plain.call(1, "declared", json!({}))), json!({}));
    let refused = said(&plain.call(2, "ask", json!({"kinds": ["elicitation"]})));
    assert_eq!(refused[0]["error"]["code"], -32601, "{refused}");
    // Who sees the list of isolates sees which is which.
    let isolates = world.isolates();
    assert_eq!(isolates.len(), 2, "{isolates:?}");
}

#[test]
fn questions_are_never_left_open() {
    let (world, key) = asker(ALL);
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    // Taken back: the client is told.
    let mut told = client.messages(&call(1, "withdraw", json!({})));
    let asked = told.next().unwrap();
    assert_eq!(asked["method"], "elicitation/create");
    let cancelled = told.next().unwrap();
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &asked["id"])
    );
    assert_eq!(said(&told.next().unwrap()), "withdrawn");
    // Too late, of somebody else, or nonsense: accepted where it does no harm, and nobody hears it.
    let late = json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts("late")});
    assert_eq!(client.send(late).status, 202);
    let nonsense = json!({"jsonrpc": "2.0", "id": asked["id"], "result": 7});
    assert_eq!(client.send(nonsense).status, 400);
    let other = Client::that_can(&world, "/mcp/asker", &key, can_all());
    let mut waiting = client.messages(&call(2, "ask", json!({"kinds": ["elicitation"]})));
    let asked = waiting.next().unwrap();
    let theirs = json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts("other")});
    assert_eq!(other.send(theirs).status, 202);
    client.send(json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts("own")}));
    assert_eq!(said(&waiting.next().unwrap()), json!([accepts("own")]));
    // One that takes no events cannot be asked; the server hears so.
    let request = call(3, "ask", json!({"kinds": ["elicitation"]})).to_string();
    let deaf = client.raw("POST", &[("Accept", "application/json")], &request);
    assert!(said(&deaf.json())[0]["error"]["code"].is_i64(), "{deaf:?}");
    // Of a call that is cancelled, its question is too.
    let mut told = client.messages(&call(6, "ask", json!({"kinds": ["elicitation"]})));
    let asked = told.next().unwrap();
    client.send(
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": 6}}),
    );
    let cancelled = told.next().unwrap();
    assert_eq!(
        (&cancelled["method"], &cancelled["params"]["requestId"]),
        (&json!("notifications/cancelled"), &asked["id"])
    );
    assert_eq!(told.next(), None);
    // One that goes away in the middle: its server goes on, and answers the next.
    drop(client.messages(&call(4, "ask", json!({"kinds": ["elicitation"]}))));
    world.until("the call has ended", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    assert_eq!(said(&client.call(5, "declared", json!({}))), can_all());
}

#[test]
fn an_answer_to_a_question_of_an_earlier_life_answers_no_other() {
    let mut world = World::at_port(free_port());
    add(&world, ALL);
    let key = world.key("ada");
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    let ask = json!({"kinds": ["elicitation"]});
    let first = client
        .messages(&call(1, "ask", ask.clone()))
        .next()
        .unwrap();
    world.kill_9();
    world.start();
    let mut told = client.messages(&call(2, "ask", ask));
    let second = told.next().unwrap();
    assert_ne!(first["id"], second["id"]);
    for (asked, name) in [(&first, "old"), (&second, "new")] {
        client.send(json!({"jsonrpc": "2.0", "id": asked["id"], "result": accepts(name)}));
    }
    assert_eq!(said(&told.next().unwrap()), json!([accepts("new")]));
}

#[test]
fn roots_asked_for_outside_of_a_call_wait_for_who_can_say() {
    let world = World::new();
    world.mcp("asker", ALL, &["python3", SCRIPT, "--roots"]);
    let key = world.key("ada");
    let client = Client::that_can(&world, "/mcp/asker", &key, can_all());
    // Asked at its start, when nobody could be: it is told to ask again, and does.
    let asked = |request: &Value| {
        answered(&client, request, |asked| {
            assert_eq!(asked["method"], "roots/list", "{asked}");
            json!({"roots": [{"uri": "file:///work"}]})
        })
    };
    world.until("the roots are known", |_| {
        let roots = said(&asked(&call(1, "roots", json!({}))));
        (roots == json!({"roots": [{"uri": "file:///work"}]})).then_some(())
    });
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(client.send(changed).status, 202);
    assert_eq!(said(&asked(&call(2, "declared", json!({})))), can_all());
}

#[test]
fn logs_reach_who_called_from_the_level_they_asked_for() {
    let (world, key) = asker(&[]);
    let client = Client::that_can(&world, "/mcp/asker", &key, json!({}));
    let levels = |id: i64| -> (Vec<String>, Value) {
        let mut seen = Vec::new();
        for message in client.messages(&call(id, "log", json!({}))) {
            match message["params"]["level"].as_str() {
                Some(level) => seen.push(level.to_owned()),
                None => return (seen, said(&message)),
            }
        }
        panic!("no answer")
    };
    assert_eq!(
        levels(1),
        (
            vec!["debug".into(), "info".into(), "error".into()],
            Value::Null
        )
    );
    let set = |level: &str| {
        client
            .ask("l", "logging/setLevel", json!({"level": level}))
            .json()
    };
    assert_eq!(set("error")["result"], json!({}));
    assert_eq!(levels(2), (vec!["error".into()], json!("error")));
    assert_eq!(set("info")["result"], json!({}));
    assert_eq!(
        levels(3),
        (vec!["info".into(), "error".into()], json!("info"))
    );
    assert_eq!(set("loud")["error"]["code"], -32602);
    // Without a session, only who asks for logs hears them.
    let modern = Stateless::new(&world, "/mcp/asker", &key);
    let heard = |meta: Value| -> Vec<Value> {
        let params = json!({"name": "log", "arguments": {}, "_meta": meta});
        let messages = modern.stream("tools/call", params);
        messages
            .map(|message| message["params"]["level"].clone())
            .collect()
    };
    let asks = heard(json!({format!("{OURS}logLevel"): "error"}));
    assert_eq!(asks, [json!("error"), Value::Null]);
    let params = json!({"name": "log", "arguments": {}});
    assert_eq!(
        modern.ask("tools/call", params)["result"]["resultType"],
        "complete"
    );
    let params =
        json!({"name": "log", "arguments": {}, "_meta": {format!("{OURS}logLevel"): "loud"}});
    let refused = modern.send("tools/call", params, &[]);
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (400, &json!(-32602))
    );
}
