//! The way out of an isolate: what its list names is reached, nothing else is, and what was tried is told.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::thread;

use serde_json::{Value, json};

use crate::kill::audit;
use crate::tools;
use crate::world::{Ran, Session, World};

const PRIVATE: &str = "[sandbox]\nallow_network_private = true\n";

/// A host of the test's: says who asked for what, until the test ends.
fn host() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).unwrap_or(0);
                let said = String::from_utf8_lossy(&bytes[..read]).into_owned();
                let _ = write!(stream, "you said {said:?}");
            });
        }
    });
    address
}

fn world(hosts: &[String]) -> (World, Session) {
    let world = World::with(PRIVATE);
    let options: Vec<&str> = hosts.iter().flat_map(|host| ["--host", host]).collect();
    world.demo("demo", &options);
    let session = world.client("ada");
    (world, session)
}

fn reach(session: &Session, arguments: Value) -> Value {
    serde_json::from_str(&session.ask("demo.reach", arguments)).unwrap()
}

fn denials(world: &World) -> Vec<(String, String)> {
    let text = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    audit(world)
        .iter()
        .filter(|record| record["event"] == "isolate.egress_denied")
        .map(|record| (text(record, "target"), text(record, "reason")))
        .collect()
}

#[test]
fn what_is_on_the_list_is_reached_directly_and_through_the_proxy() {
    let there = host();
    let port = there.port();
    let (world, ada) = world(&[
        format!("127.0.0.1:{port}/private"),
        format!("localhost:{port}/private"),
    ]);
    for arguments in [
        json!({"host": "127.0.0.1", "port": port, "say": "hello"}),
        json!({"host": "127.0.0.1", "port": port, "say": "hello", "proxy": true}),
        json!({"host": "LocalHost.", "port": port, "say": "hello", "proxy": true}),
    ] {
        let told = reach(&ada, arguments.clone());
        assert_eq!(told["answer"], "you said \"hello\"", "{arguments}: {told}");
    }
    let id = world.isolate("demo", Some("ada"));
    let shown = world.cli(&["isolate", "show", id["id"].as_str().unwrap()]);
    let out = &shown["egress"];
    assert_eq!(out["connections"], 3, "{shown}");
    assert_eq!(out["denied"], 0, "{shown}");
    assert_eq!(out["sent_bytes"], 15, "{shown}");
    let view = world.cli(&["mcp", "show", "demo"]);
    assert_eq!(view["confinement"]["network"], "allowlist", "{view}");
}

#[test]
fn what_is_not_on_the_list_is_refused_told_and_recorded() {
    let there = host();
    let port = there.port();
    let other = host().port();
    let (world, ada) = world(&[format!("localhost:{port}/private")]);
    let fails = |arguments: Value, steps: &[&str]| {
        let told = reach(&ada, arguments.clone());
        let step = told["failed"].as_str().unwrap_or_default();
        assert!(steps.contains(&step), "{arguments}: {told}");
        told["error"].as_str().unwrap().to_owned()
    };
    // A name that no rule is about has no address; an address is not its name's.
    fails(json!({"host": "example.com", "port": port}), &["lookup"]);
    // The reset may be there before the client has looked.
    fails(
        json!({"host": "127.0.0.1", "port": port}),
        &["talk", "connect"],
    );
    // Another port of the same host meets nobody.
    fails(json!({"host": "127.0.0.1", "port": other}), &["connect"]);
    for (host, port) in [
        ("example.com", 443),
        ("localhost", other),
        ("127.0.0.1", port),
        ("[::1]", port),
        ("169.254.169.254", 80),
        ("metadata.google.internal", 80),
    ] {
        let error = fails(
            json!({"host": host, "port": port, "proxy": true}),
            &["proxy"],
        );
        assert!(
            error.contains("403") && error.contains("--host"),
            "{host}: {error}"
        );
    }
    let told = world.until("it is recorded", |world| {
        let told = denials(world);
        (told.len() >= 8).then_some(told)
    });
    for target in ["example.com", "127.0.0.1", "169.254.169.254:80"] {
        assert!(
            told.iter().any(|(what, _)| what.starts_with(target)),
            "{target}: {told:?}"
        );
    }
}

/// What a server was given went into the audit log as the name of a host.
#[test]
fn a_credential_in_a_name_is_not_recorded() {
    let world = World::with(PRIVATE);
    let options = [
        "--host",
        "localhost:1/private",
        "--credential",
        "T=env:T:optional",
    ];
    world.demo("demo", &options);
    let ada = world.client("ada");
    let value = "Ghp-S3cretOfAda";
    let ran = crate::vault::try_set(&world, &["--user", "ada"], "demo", "T", value.as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for arguments in [
        json!({"host": format!("{value}.example.com"), "port": 443}),
        json!({"host": format!("{value}.example.com"), "port": 443, "proxy": true}),
    ] {
        assert!(reach(&ada, arguments)["failed"].is_string());
    }
    let told = world.until("it is recorded", |world| {
        let told = denials(world);
        (told.len() >= 2).then_some(told)
    });
    for (target, reason) in told {
        assert!(target.contains("[redacted:T].example.com"), "{target}");
        let said = format!("{target} {reason}").to_lowercase();
        assert!(!said.contains(&value.to_lowercase()), "{said}");
    }
}

#[test]
fn a_client_that_talks_tls_to_somebody_else_is_cut_off() {
    let there = host();
    let port = there.port();
    let (world, ada) = world(&[format!("localhost:{port}/private")]);
    // A ClientHello for `evil.example`, as short as one can be.
    let name = b"evil.example";
    let length = u8::try_from(name.len()).unwrap();
    let mut extension = vec![0, 0, 0, length + 5, 0, length + 3, 0, 0, length];
    extension.extend(name);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([
        0,
        0,
        2,
        0x13,
        1,
        1,
        0,
        0,
        u8::try_from(extension.len()).unwrap(),
    ]);
    body.extend(extension);
    let mut hello = vec![22, 3, 1, 0, u8::try_from(body.len() + 4).unwrap(), 1, 0, 0];
    hello.push(u8::try_from(body.len()).unwrap());
    hello.extend(body);
    let hex: String = hello.iter().map(|byte| format!("{byte:02x}")).collect();
    let arguments = json!({
        "host": "localhost", "port": port, "proxy": true, "say": hex, "hex": true
    });
    let told = reach(&ada, arguments);
    assert!(
        told["failed"] == "talk" || told["answer"] == "",
        "nothing of it arrived: {told}"
    );
    let told = world.until("it is recorded", |world| {
        let told = denials(world);
        (!told.is_empty()).then_some(told)
    });
    assert!(told[0].1.contains("evil.example"), "{told:?}");
}

#[test]
fn a_private_address_behind_a_public_rule_is_not_connected_to() {
    let there = host();
    let port = there.port();
    // The name is allowed; where it leads is not.
    let (world, ada) = world(&[format!("localhost:{port}")]);
    let told = reach(
        &ada,
        json!({"host": "localhost", "port": port, "proxy": true}),
    );
    let error = told["error"].as_str().unwrap();
    assert!(
        error.contains("403") && error.contains("the host itself"),
        "{told}"
    );
    let told = world.until("it is recorded", |world| {
        let told = denials(world);
        (!told.is_empty()).then_some(told)
    });
    assert!(told[0].1.contains("127.0.0.1"), "{told:?}");
}

#[test]
fn a_kill_cuts_what_is_under_way_and_the_next_run_has_a_way_out_again() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (world, ada) = world(&[format!("127.0.0.1:{port}/private")]);
    let call = {
        let ada = ada.clone();
        thread::spawn(move || ada.call("demo.reach", json!({"host": "127.0.0.1", "port": port})))
    };
    let (mut stream, _) = listener.accept().unwrap();
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "now",
    ]);
    let mut rest = Vec::new();
    // The end of it, by whatever name.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(rest, b"");
    call.join().unwrap();
    world.cli(&["kill-switch", "off", "--scope", "mcp", "--target", "demo"]);
    let answering = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"again").unwrap();
    });
    let told = reach(&ada, json!({"host": "127.0.0.1", "port": port}));
    assert_eq!(told["answer"], "again", "{told}");
    answering.join().unwrap();
}

#[test]
fn a_list_is_checked_before_it_is_believed() {
    let world = World::new();
    for (words, why) in [
        (&["--host", "*.com"][..], "top-level"),
        (&["--host", "10.0.0.1"], "private"),
        (&["--host", "169.254.169.254/private"], "metadata"),
        (&["--network", "allowlist"], "names no host"),
        (
            &["--network", "host", "--host", "a.example"],
            "not allowlist",
        ),
        (
            &["--profile", "none", "--host", "a.example"],
            "profile none",
        ),
        (&["--host", "a.example:3128"], "proxy"),
    ] {
        let args = [&["mcp", "add", "x"], words, &["--", "/bin/cat"]].concat();
        let ran = world.run(&args);
        assert_eq!(ran.code, 2, "{words:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(why), "{words:?}: {}", ran.stderr);
    }
    // Private hosts are the operator's to allow: said where they are named, not at the first start.
    let private = ["--host", "localhost:1/private"];
    let add = |more: &[&str]| {
        let args = [&["mcp", "add", "y"], more, &["--", "/bin/cat"]].concat();
        world.run(&args)
    };
    let change = [&["mcp", "update", "y"][..], &private].concat();
    let refused = |ran: Ran| {
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        let key = "sandbox.allow_network_private";
        assert!(ran.stderr.contains(key), "{}", ran.stderr);
    };
    refused(add(&private));
    assert_eq!(add(&["--host", "a.example"]).code, 0);
    refused(world.run(&change));
    refused(world.run(&[
        "mcp",
        "add",
        "z",
        "--url",
        "http://127.0.0.1:1/mcp",
        "--allow-private",
    ]));
    // The last host taken away is the end of the network.
    let view = world.cli(&["mcp", "update", "y", "--host", "-"]);
    assert_eq!(view["confinement"]["network"], "none", "{view}");
}

#[test]
fn a_name_on_the_list_leads_to_its_host_without_a_proxy() {
    // A name that the host knows and that is not in every isolate's own file.
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let name = hosts
        .lines()
        .filter_map(|line| line.strip_prefix("127.0.0.1"))
        .flat_map(str::split_whitespace)
        .find(|name| !name.contains("localhost"));
    let Some(name) = name else {
        return tools::skip("names on an allowlist", "/etc/hosts names localhost alone");
    };
    let there = host();
    let port = there.port();
    let (world, ada) = world(&[format!("{name}:{port}/private")]);
    let told = reach(
        &ada,
        json!({"host": name.to_uppercase(), "port": port, "say": "hello"}),
    );
    assert_eq!(told["answer"], "you said \"hello\"", "{told}");
    // What its name has inside is no host's address anywhere.
    assert_eq!(told["address"], format!("198.18.0.1:{port}"));
    // The name on another port, and the address of no name.
    let other = host().port();
    for (host, port) in [(name, other), ("198.18.0.9", port)] {
        let told = reach(&ada, json!({"host": host, "port": port}));
        assert!(told["failed"].is_string(), "{host}:{port}: {told}");
    }
    drop(world);
}
