//! Clients of the face that take too much, give nothing back, or are somewhere they may not be.

use std::io::{BufRead, BufReader};
use std::time::Instant;

use serde_json::{Value, json};

use crate::face::{Client, text};
use crate::questions::asker;
use crate::world::World;

/// Resources of one isolate that are subscribed to (`WATCHED_MAX`).
const WATCHED: usize = 1024;
const OURS: &str = "io.modelcontextprotocol/";

#[test]
fn a_million_subscriptions_are_a_thousand_and_a_clear_answer() {
    let (world, key) = asker(&[]);
    let client = Client::new(&world, "/mcp/asker", &key);
    let subscribe = |client: &Client, uri: &str| {
        client
            .ask("s", "resources/subscribe", json!({"uri": uri}))
            .json()
    };
    for n in 0..WATCHED {
        assert_eq!(
            subscribe(&client, &format!("a:{n}"))["result"],
            json!({}),
            "{n}"
        );
    }
    // However many more are tried (a million of them in `actors::ears`), and by whomever.
    let other = Client::new(&world, "/mcp/asker", &key);
    for n in 0..50 {
        for client in [&client, &other] {
            let refused = subscribe(client, &format!("b:{n}"));
            assert_eq!(refused["error"]["data"]["error"], "busy", "{refused}");
            let why = refused["error"]["message"].to_string();
            assert!(why.contains("too many resources"), "{why}");
        }
    }
    // What is there already can be subscribed to, and nothing else suffers.
    assert_eq!(subscribe(&other, "a:1")["result"], json!({}));
    assert_eq!(client.call("c", "touch", json!({"uris": []}))["id"], "c");
    // Who ends some of it has room again, and so has everybody once the session is over.
    let ended = client
        .ask("u", "resources/unsubscribe", json!({"uri": "a:2"}))
        .json();
    assert_eq!(ended["result"], json!({}));
    assert_eq!(subscribe(&other, "a:b1")["result"], json!({}));
    assert_eq!(client.raw("DELETE", &[], "").status, 204);
    assert_eq!(subscribe(&other, "a:b2")["result"], json!({}));
    // Another user has an isolate of its own.
    let bob = Client::new(&world, "/mcp/asker", &world.key("bob"));
    assert_eq!(subscribe(&bob, "a:b3")["result"], json!({}));
}

/// Resident memory of the gateway, in KiB.
fn resident(world: &World) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}

#[test]
fn who_never_reads_its_streams_costs_little_and_nobody_else() {
    let world = World::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/shared.py");
    world.mcp("steps", &[], &["python3", script]);
    let key = world.key("ada");
    let client = Client::new(&world, "/mcp/steps", &key);
    let call = |id: &str, words: &str, steps: usize| {
        json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {
            "name": "steps", "arguments": {"words": words, "steps": steps},
            "_meta": {"progressToken": id}}})
    };
    client.send(call("warm", "x", 0));
    let before = resident(&world);
    // Each is told 40 MB of progress, and then an answer, and reads nothing of it.
    let words = "n".repeat(200_000);
    let unread: Vec<_> = (0..4)
        .map(|n| {
            client.sent(
                "POST",
                &[],
                &call(&format!("n{n}"), &words, 200).to_string(),
            )
        })
        .collect();
    let listens = client.sent("GET", &[], "");
    let since = Instant::now();
    let mut most = 0;
    while since.elapsed().as_secs() < 8 {
        let answer = client.send(call("other", "on", 1)).json();
        assert_eq!(text(&answer), "on");
        most = most.max(resident(&world).saturating_sub(before));
    }
    assert!(most < 96 << 10, "{most} KiB");
    // The answer is there for who reads after all; news in between were missed.
    world.until("its calls are over", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
    let first = BufReader::new(&unread[0]).lines().map_while(Result::ok);
    let answered = first
        .filter(|line| line.contains("\"result\""))
        .take(1)
        .count();
    assert_eq!(answered, 1);
    drop((unread, listens));
    assert_eq!(text(&client.send(call("end", "on", 0)).json()), "on");
}

#[test]
fn a_session_begun_at_one_mcp_opens_no_other() {
    let world = World::new();
    world.demo("first", &[]);
    let key = world.key("ada");
    world.demo("second", &[]);
    let mut client = Client::new(&world, "/mcp/first", &key);
    assert_eq!(text(&client.call(1, "echo", json!({"text": "a"}))), "a");
    let token = world.client_of_key(&key).token;
    for bearer in [&key, &token] {
        client.path = "/mcp/second".to_owned();
        let headers = [("Authorization", format!("Bearer {bearer}"))];
        let headers = headers
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        let none = ("Mcp-Session-Id", "");
        // A session's token is its own session.
        let headers = if bearer == &token {
            [headers[0], none]
        } else {
            [headers[0], ("X-None", "")]
        };
        for (method, params) in [
            ("tools/list", json!({})),
            (
                "tools/call",
                json!({"name": "echo", "arguments": {"text": "a"}}),
            ),
            ("resources/list", json!({})),
        ] {
            let message = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
            let answer = client.raw("POST", &headers, &message.to_string());
            let told = answer.json();
            assert!(
                told["result"].is_null() && told["error"].is_object(),
                "{method}: {told}"
            );
        }
    }
    assert!(!world.isolates().iter().any(|one| one["mcp"] == "second"));
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params":
        {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}});
    let answer = client.raw("POST", &[("Mcp-Session-Id", "")], &begin.to_string());
    assert_eq!(answer.status, 404, "{answer:?}");
}

#[test]
fn signals_of_two_eras_at_once_are_refused_or_mean_one_thing() {
    let world = World::new();
    world.demo("demo", &[]);
    let client = Client::new(&world, "/mcp/demo", &world.key("ada"));
    let meta = |version: &str| json!({format!("{OURS}protocolVersion"): version, format!("{OURS}clientCapabilities"): {}});
    let list = |meta: Value| {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}})
            .to_string()
    };
    let (new, old) = ("2026-07-28", "2025-11-25");
    let none = ("Mcp-Session-Id", "");
    let version = |version| ("MCP-Protocol-Version", version);
    let method = ("Mcp-Method", "tools/list");
    for (headers, body, status, code) in [
        // The newer version by its header, the older one by the message, and the other way round.
        (
            vec![none, version(new), method],
            list(meta(old)),
            400,
            -32020,
        ),
        (
            vec![none, version(old), method],
            list(meta(new)),
            400,
            -32020,
        ),
        (vec![none, version("")], list(meta(new)), 400, -32020),
        (
            vec![none, version(new), method],
            list(json!({})),
            400,
            -32602,
        ),
        (vec![none, version(new)], list(meta(new)), 400, -32020),
        (
            vec![none, version("2031-01-01"), method],
            list(meta("2031-01-01")),
            400,
            -32022,
        ),
        // The message alone says what it is, or one header does.
        (
            vec![none, version("")],
            list(json!({format!("{OURS}clientCapabilities"): {}})),
            400,
            -32020,
        ),
        (
            vec![none, version(old), method],
            list(json!({})),
            400,
            -32602,
        ),
        // A session is of the older versions: it has no newer one.
        (vec![version(new), method], list(meta(new)), 400, -32600),
    ] {
        let answer = client.raw("POST", &headers, &body);
        let told = answer.json();
        assert_eq!(
            (answer.status, &told["error"]["code"]),
            (status, &json!(code)),
            "{headers:?} {body}: {told}"
        );
        assert_eq!(told["id"], 1, "{told}");
    }
    // Who may not speak is told that first.
    let wrong = [
        none,
        ("Authorization", "Bearer wrong"),
        version(old),
        method,
    ];
    let answer = client.raw("POST", &wrong, &list(json!({})));
    assert_eq!(answer.status, 401, "{answer:?}");
    // A notification has a version, too.
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled"}"#;
    for (given, status) in [(new, 202), ("2031-01-01", 400)] {
        let answer = client.raw("POST", &[none, version(given)], cancelled);
        assert_eq!(answer.status, status, "{answer:?}");
    }
    // Within a session, what only a newer version knows is nothing.
    let answer = client.raw("POST", &[], &list(meta(new)));
    assert!(answer.json()["result"]["tools"].is_array(), "{answer:?}");
}
