//! What a server says of itself, and extensions of the protocol that it and its client have: told to whom they concern,
//! and passed on only where both declare them.

use serde_json::{Value, json};

use super::{OURS, SERVERS};
use crate::face::{Client, initialize, initialized};
use crate::stateless::Client as Stateless;
use crate::world::World;

/// Adds the fixture, of either era.
fn ext(world: &World, era: &str, options: &[&str]) {
    let script = format!("{SERVERS}/ext.py");
    let options = [&["--read", SERVERS], options].concat();
    world.mcp(era, &options, &["python3", &script, era]);
}

#[test]
fn what_a_server_says_of_itself_is_told_at_its_address() {
    let mut world = World::new();
    for era in ["legacy", "modern"] {
        ext(&world, era, &[]);
    }
    let key = world.key("ada");
    // Also when nothing was started since.
    for _ in 0..2 {
        for era in ["legacy", "modern"] {
            let path = format!("/mcp/{era}");
            let client = Stateless::new(&world, &path, &key);
            let found = &client.ask("server/discover", json!({}))["result"];
            let begun = initialized(&world, &path, &key)["result"].clone();
            for said in [found, &begun] {
                assert_eq!(said["instructions"], "Call told first.", "{said}");
            }
            let info = found["_meta"][format!("{OURS}serverInfo")].clone();
            for info in [&info, &begun["serverInfo"]] {
                let named = json!({"name": "ext", "title": "T", "version": "9.9"});
                assert_eq!(*info, named, "{era}");
            }
            let called = client.call("told", json!({}));
            let info = called["result"]["_meta"][format!("{OURS}serverInfo")].clone();
            let more = info["more"].clone();
            let wanted = if era == "modern" {
                json!(1)
            } else {
                Value::Null
            };
            assert_eq!((&info["name"], more), (&json!("ext"), wanted), "{called}");
        }
        let all = initialized(&world, "/mcp", &key)["result"].clone();
        assert_eq!(
            (&all["serverInfo"]["name"], all.get("instructions")),
            (&json!("legation"), None)
        );
        world.stop();
        world.start();
    }
}

const UI: &str = "io.modelcontextprotocol/ui";

fn settings() -> Value {
    json!({UI: {"mimeTypes": ["text/html", "x"]}, "com.example/other": {}})
}

/// What the server was told that its client has, with the call and when it began.
fn told(called: &Value) -> [Value; 2] {
    let text = called["result"]["content"][0]["text"].as_str();
    let said: Value = serde_json::from_str(text.unwrap_or_else(|| panic!("{called}"))).unwrap();
    let of_call = &said["params"]["_meta"][format!("{OURS}clientCapabilities")];
    [
        of_call["extensions"].clone(),
        said["begun"]["capabilities"]["extensions"].clone(),
    ]
}

fn with(extensions: &Value) -> Value {
    json!({"_meta": {format!("{OURS}clientCapabilities"): {"extensions": extensions}}})
}

#[test]
fn an_extension_is_passed_on_where_both_ends_declare_it() {
    let world = World::new();
    ext(&world, "modern", &[]);
    ext(&world, "legacy", &["--sharing", "per_session"]);
    let key = world.key("ada");
    let all = json!({UI: {"mimeTypes": ["text/html"]}, "com.example/ext": {"a": {"b": 1}}});
    let both = json!({UI: settings()[UI]});
    for era in ["modern", "legacy"] {
        let path = format!("/mcp/{era}");
        let modern = Stateless::new(&world, &path, &key);
        let found = modern.ask("server/discover", json!({}));
        assert_eq!(found["result"]["capabilities"]["extensions"], all);
        let mut call = with(&settings());
        call["name"] = json!("told");
        let of_call = told(&modern.ask("tools/call", call))[0].clone();
        let wanted = if era == "modern" {
            both.clone()
        } else {
            Value::Null
        };
        assert_eq!(of_call, wanted, "{era}");
        assert_eq!(
            told(&modern.call("told", json!({}))),
            [Value::Null, Value::Null]
        );
        // A method that only an extension has.
        let mut listed = with(&settings());
        listed["n"] = json!(1);
        let answer = modern.ask("example/list", listed);
        let result = &answer["result"];
        assert_eq!(
            (
                &result["items"],
                &result["said"]["n"],
                &result["resultType"]
            ),
            (&json!([100.0]), &json!(1), &json!("complete")),
            "{answer}"
        );
        for method in ["example/list", "tasks/list", "sampling/createMessage"] {
            let can = if method == "example/list" {
                json!({"com.example/other": {}})
            } else {
                settings()
            };
            let answer = modern.send(method, with(&can), &[]);
            let told = answer.json();
            assert_eq!(
                (answer.status, &told["error"]["code"]),
                (404, &json!(-32601)),
                "{told}"
            );
        }
        let unknown = modern.ask("example/none", with(&settings()));
        assert_eq!(unknown["error"]["message"], "no such method", "{unknown}");
    }
    for era in ["modern", "legacy"] {
        let path = format!("/mcp/{era}");
        let client = Client::that_can(&world, &path, &key, json!({"extensions": settings()}));
        let wanted = match era {
            "modern" => [both.clone(), Value::Null],
            // It is this session's alone, and is told when it begins.
            _ => [Value::Null, both.clone()],
        };
        assert_eq!(told(&client.call(1, "told", json!({}))), wanted, "{era}");
        let answer = client.ask(2, "example/list", json!({"n": 1})).json();
        assert_eq!(answer["result"]["items"], json!([100.0]), "{answer}");
        assert_eq!(answer["result"].get("resultType"), None, "{answer}");
        let other = Client::new(&world, &path, &key);
        let answer = other.ask(3, "example/list", json!({})).json();
        assert_eq!(answer["error"]["code"], -32601, "{answer}");
    }
    // Where all servers are, nobody knows whose it would be.
    let everywhere = Stateless::new(&world, "/mcp", &key);
    let answer = everywhere.send("example/list", with(&settings()), &[]);
    assert_eq!(answer.status, 404, "{answer:?}");
    let client = Client::new(&world, "/mcp/legacy", &key);
    let mut begin = initialize("2025-11-25");
    begin["capabilities"] = json!({"extensions": settings()});
    let begun = client.ask(2, "initialize", begin).json();
    let shown = &begun["result"]["capabilities"]["extensions"];
    assert_eq!(*shown, json!({UI: all[UI]}), "{begun}");
}

#[test]
fn an_error_that_is_none_by_the_protocol_becomes_one() {
    let world = World::new();
    for era in ["modern", "legacy"] {
        ext(&world, era, &[]);
        let path = format!("/mcp/{era}");
        let key = world.key("ada");
        let client = Client::new(&world, &path, &key);
        let modern = Stateless::new(&world, &path, &key);
        for (given, code, message) in [
            (json!("no"), -32603, "no"),
            (json!({"message": "no"}), -32603, "no"),
            (json!({"code": 1.5, "message": "no"}), -32603, "no"),
            (json!({"code": -32001, "message": "own"}), -32001, "own"),
        ] {
            let arguments = json!({"error": given});
            for told in [
                client.call(1, "told", arguments.clone()),
                modern.call("told", arguments.clone()),
            ] {
                let wanted = json!({"code": code, "message": message});
                assert_eq!(told["error"], wanted, "{era}: {told}");
            }
        }
    }
}
