//! Whose word about a client's address is believed.

use serde_json::{Value, json};

use crate::world::{Http, World};

/// The address that the log has for a registration with this header line.
fn logged(world: &World, key: &str, header: &str) -> String {
    let seen = world.log().lines().count();
    let body = json!({"preshared_key": key}).to_string();
    let head = format!(
        "POST /v1/sessions/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{header}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(Http::new(&world.url).raw(head.as_bytes()).status, 201);
    world.until("the registration is in the log", |world| {
        world.log().lines().skip(seen).find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["message"] == "registered")
                .then(|| line["client.address"].as_str().unwrap().to_owned())
        })
    })
}

#[test]
fn a_stranger_cannot_name_an_address() {
    let world = World::new();
    let key = world.key_alone("ada");
    for header in [
        "",
        "X-Forwarded-For: 203.0.113.9\r\n",
        "Forwarded: for=203.0.113.9\r\n",
    ] {
        assert_eq!(logged(&world, &key, header), "127.0.0.1", "{header}");
    }
}

#[test]
fn a_trusted_proxy_names_the_last_address_it_does_not_trust_itself() {
    let world = World::with_client(
        "tls = \"off\"\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n",
        "",
    );
    let key = world.key_alone("ada");
    for (header, address) in [
        ("", "127.0.0.1"),
        ("X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        // What the client itself wrote before the first trusted hop is a claim.
        (
            "X-Forwarded-For: 198.51.100.1, 203.0.113.9, 10.1.2.3\r\n",
            "203.0.113.9",
        ),
        ("X-Forwarded-For: 2001:db8::7\r\n", "2001:db8::7"),
    ] {
        assert_eq!(logged(&world, &key, header), address, "{header}");
    }
    let garbage = logged(
        &world,
        &key,
        "X-Forwarded-For: nonsense\u{1b}[2J\r\n"
            .replace('\u{1b}', "")
            .as_str(),
    );
    assert_eq!(garbage, "127.0.0.1");
}

#[test]
fn a_proxy_elsewhere_is_not_the_one_that_is_trusted() {
    let world = World::with_client("tls = \"off\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n", "");
    let key = world.key_alone("ada");
    assert_eq!(
        logged(&world, &key, "X-Forwarded-For: 203.0.113.9\r\n"),
        "127.0.0.1"
    );
}

#[test]
fn the_audit_log_says_where_those_are_who_were_let_in_or_refused() {
    let world = World::with_client("tls = \"off\"\ntrusted_proxies = [\"127.0.0.0/8\"]\n", "");
    let key = world.key_alone("ada");
    // One that nobody has, and one that is none.
    let (unknown, none) = (format!("amb_pk_{}", "A".repeat(48)), "none");
    let from = |path: &str, more: &str, body: &Value| {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             X-Forwarded-For: 203.0.113.9\r\n{more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Http::new(&world.url).raw(head.as_bytes()).status
    };
    for (key, status) in [(key.as_str(), 201), (&unknown, 401), (none, 401)] {
        let body = json!({"preshared_key": key});
        assert_eq!(from("/v1/sessions/register", "", &body), status, "{key}");
    }
    let begin = crate::face::initialize("2025-11-25");
    let begin = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": begin});
    for (bearer, status) in [(key.as_str(), 200), (none, 401)] {
        let more = format!("Authorization: Bearer {bearer}\r\n");
        assert_eq!(from("/mcp", &more, &begin), status, "{bearer}");
    }
    let seen = |event: &str| -> Vec<Value> {
        let page = world.cli(&["audit", "search", "--event", event]);
        let items = page["items"].as_array().unwrap().iter();
        let fields = items.map(|one| json!([one["record"]["outcome"], one["record"]["address"]]));
        fields.collect()
    };
    let count = |event: &str, outcome: &str| {
        let wanted = json!([outcome, "203.0.113.9"]);
        seen(event).iter().filter(|one| **one == wanted).count()
    };
    assert_eq!(count("auth.register", "ok"), 2);
    // Of those who are alike the first.
    assert!(count("auth.register", "key_unknown") >= 1);
    assert_eq!(count("auth.refused", "unauthorized"), 1);
}
