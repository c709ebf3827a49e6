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
