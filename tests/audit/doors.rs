//! Who tries keys is seen at every door, and whose key it was.

use super::*;
use crate::metrics::scrape;
use crate::stateless::Client;

fn attempts(world: &World, method: &str, outcome: &str) -> f64 {
    let labels = [("method", method), ("outcome", outcome)];
    scrape(world, "/metrics").value("legation_auth_attempts_total", &labels)
}

fn is(found: f64, wanted: u32) {
    assert!((found - f64::from(wanted)).abs() < f64::EPSILON, "{found}");
}

/// A key of the right form that nobody has.
fn wrong(number: usize) -> String {
    format!("amb_pk_t{number:07}{}", "x".repeat(40))
}

fn of<'a>(all: &'a [Value], event: &str) -> Vec<&'a Value> {
    all.iter().filter(|one| one["event"] == event).collect()
}

#[test]
fn keys_that_are_tried_at_mcp_count_and_are_recorded_as_keys() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let good = Client::new(&world, "/mcp/demo", &world.key("ada"));
    good.ask("tools/list", json!({}));
    good.ask("tools/list", json!({}));
    is(attempts(&world, "key", "ok"), 1);
    is(attempts(&world, "session", "ok"), 1);
    for number in 0..80 {
        let answer =
            Client::new(&world, "/mcp/demo", &wrong(number)).send("tools/list", json!({}), &[]);
        assert_eq!(answer.status, 401, "{answer:?}");
    }
    // And beside a session, in the older versions.
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\
         Mcp-Session-Id: ses_aaaaaaaaaaaaaaaa\r\nMCP-Protocol-Version: 2025-11-25\r\n\
         Accept: application/json, text/event-stream\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{ping}",
        wrong(0),
        ping.len()
    );
    let answer = Http::new(&world.url).raw(request.as_bytes());
    assert_eq!(answer.status, 401, "{answer:?}");
    is(attempts(&world, "key", "invalid"), 81);
    is(attempts(&world, "session", "invalid"), 0);
    world.stop();
    let all = records(&dir(&world));
    let (full, counted) = (of(&all, "auth.refused"), of(&all, "auth.refused_more"));
    assert!(full.len() > 60, "{}", full.len());
    for one in &full {
        let prefix = one["prefix"].as_str().unwrap();
        assert!(prefix.starts_with("t00000") && prefix.len() == 8, "{one}");
        assert_eq!(
            (&one["outcome"], &one["address"]),
            (&json!("key_unknown"), &json!("127.0.0.1"))
        );
    }
    let prefixes: HashSet<&str> = full
        .iter()
        .map(|one| one["prefix"].as_str().unwrap())
        .collect();
    assert_eq!(prefixes.len(), full.len(), "each once");
    assert!(
        counted.iter().all(|one| one["what"] == "key"),
        "{counted:?}"
    );
    let more: u64 = counted
        .iter()
        .map(|one| one["count"].as_u64().unwrap())
        .sum();
    assert_eq!(full.len() as u64 + more, 81);
}

#[test]
fn a_key_that_is_over_is_recorded_with_whose_it_was_and_why() {
    let mut world = World::new();
    world.cli(&["user", "add", "ada"]);
    world.cli(&["user", "add", "ben"]);
    let make = |words: &[&str]| -> (String, String) {
        let made = world.cli(&[&["key", "create"], words].concat());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&made["key"]["id"]), text(&made["secret"]))
    };
    let (revoked, of_revoked) = make(&["ada"]);
    let (expired, of_expired) = make(&["ada", "--expires-in", "1ms"]);
    let (suspended, of_suspended) = make(&["ben"]);
    world.cli(&["key", "revoke", &revoked]);
    world.cli(&["user", "suspend", "ben", "--reason", "a test"]);
    let http = Http::new(&world.url);
    for (secret, code) in [
        (&of_revoked, "key_unknown"),
        (&of_expired, "key_unknown"),
        (&of_suspended, "user_disabled"),
    ] {
        let answer = http.register_with(secret);
        // What the client is told gives nothing away.
        assert_eq!(answer.code(), code, "{answer:?}");
    }
    // A try with another secret behind the same prefix says nothing of who owns the key, nor hides who comes next.
    let guess = format!(
        "{}{}",
        of_revoked.get(..of_revoked.len() - 3).unwrap(),
        "xyz"
    );
    assert_eq!(http.register_with(&guess).status, 401);
    let at_mcp = Client::new(&world, "/mcp", &of_revoked).send("tools/list", json!({}), &[]);
    assert_eq!(at_mcp.status, 401, "{at_mcp:?}");
    is(attempts(&world, "key", "revoked"), 3);
    is(attempts(&world, "key", "expired"), 1);
    is(attempts(&world, "key", "invalid"), 1);
    let found = search(&world, &["--client", &revoked, "--event", "auth"]);
    assert_eq!(events(&found), ["auth.refused", "auth.register"], "{found}");
    world.stop();
    let all = records(&dir(&world));
    let tried = of(&all, "auth.register");
    let told = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap_or("-").to_owned();
        (text("outcome"), text("reason"), text("key"))
    };
    let told: Vec<_> = tried.iter().map(|one| told(one)).collect();
    let is = |outcome: &str, reason: &str, key: &str| {
        (outcome.to_owned(), reason.to_owned(), key.to_owned())
    };
    assert_eq!(
        told,
        [
            is("key_unknown", "revoked", &revoked),
            is("key_unknown", "expired", &expired),
            is("user_disabled", "-", &suspended),
            is("key_unknown", "-", "-"),
        ]
    );
    for one in &tried[..3] {
        assert!(
            one["user"]
                .as_str()
                .is_some_and(|user| user.starts_with("usr_")),
            "{one}"
        );
    }
}
