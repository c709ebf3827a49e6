//! What has to work: real servers, users apart, one for all, credentials, TLS, restarts.

use std::process::Command;
use std::sync::Barrier;

use serde_json::{Value, json};

use super::server::Server;
use super::{PRIVATE, remote};
use crate::face::{Client, all_is_well, saw};
use crate::kill::audit;
use crate::questions::{accepts, answered, can_all, said};
use crate::tools;
use crate::world::{LEGATION, Session, World};

#[test]
fn a_real_server_is_discovered_called_and_left() {
    let Some(server) = Server::everything("streamableHttp") else {
        return;
    };
    let world = World::with(PRIVATE);
    remote(&world, "every", &server.url("/mcp"), &[]);
    let ada = world.client("ada");
    assert!(
        ada.tools().contains(&"echo".to_owned()),
        "{:?}",
        ada.tools()
    );
    for n in 0..20 {
        let told = ada.ask("echo", json!({"message": format!("m{n}")}));
        assert!(told.ends_with(&format!("m{n}")), "{told}");
    }
    let one = world.isolate("every", Some("ada"));
    assert_eq!(one["state"], "ready", "{one}");
    assert!(one["pid"].is_null(), "{one}");
    let detail = world.isolate_detail("every", Some("ada"));
    let phases: Vec<_> = detail["runs"][0]["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(phases, ["permit", "connect", "initialize", "list_tools"]);
}

#[test]
fn the_older_transport_is_spoken_too() {
    let Some(server) = Server::everything("sse") else {
        return;
    };
    let world = World::with(PRIVATE);
    remote(
        &world,
        "every",
        &server.url("/sse"),
        &["--transport", "sse"],
    );
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for n in 0..10 {
        for session in [&ada, &ben] {
            let told = session.ask("echo", json!({"message": format!("m{n}")}));
            assert!(told.ends_with(&format!("m{n}")), "{told}");
        }
    }
    let shown = world.cli(&["mcp", "show", "every"]);
    assert_eq!(shown["program"]["remote"]["transport"], "sse", "{shown}");
}

fn who(session: &Session) -> Value {
    serde_json::from_str(&session.ask("whoami", json!({}))).unwrap()
}

fn set(world: &World, whose: &[&str], value: &str) {
    let ran = crate::vault::try_set(world, whose, "crm", "TOKEN", value.as_bytes());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

#[test]
fn users_are_apart_each_with_their_own_header() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    let options = [
        "--header",
        "X-Who={user.name}",
        "--credential",
        "TOKEN=header:Authorization",
    ];
    let url = server.url("/mcp");
    let mut add = vec!["mcp", "add", "crm", "--url", &url, "--allow-private"];
    add.extend(options);
    world.cli(&add);
    set(&world, &["--shared"], "Bearer for-discovery");
    world.cli(&["mcp", "publish", "crm"]);
    world.cli(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", "crm"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    set(&world, &["--user", "ada"], "Bearer of-ada-0123456789");
    assert_eq!(
        who(&ada),
        json!({"authorization": "Bearer of-ada-0123456789", "custom": "ada"})
    );
    let told = ben.call("whoami", json!({}));
    assert_eq!(told.code(), "credential_missing", "{}", told.text());
    set(&world, &["--user", "ben"], "Bearer of-ben-0123456789");
    assert_eq!(
        who(&ben),
        json!({"authorization": "Bearer of-ben-0123456789", "custom": "ben"})
    );
    // Every request says whose it is, those between calls too; no session is anybody else's.
    let mut whose = std::collections::BTreeMap::new();
    for seen in server.seen() {
        let Some(session) = seen["session"].as_str() else {
            continue;
        };
        let bearer = seen["authorization"]
            .as_str()
            .unwrap_or("nobody")
            .to_owned();
        let first = whose.entry(session.to_owned()).or_insert(bearer.clone());
        assert_eq!(*first, bearer, "{seen}");
        assert_eq!(seen["version"], "2025-06-18", "{seen}");
    }
    assert!(whose.len() >= 3, "{whose:?}");
    // What the server says of a credential that it does not take is kept without it.
    server.command(&json!({"needs": ["Bearer of-ben-0123456789"]}));
    let told = ada.call("whoami", json!({}));
    assert!(!told.text().contains("of-ada"), "{}", told.text());
    let detail = world.isolate_detail("crm", Some("ada"));
    let text = detail.to_string();
    assert!(text.contains("did not take the credentials"), "{text}");
    assert!(!text.contains("of-ada-0123456789"), "{text}");
    assert_eq!(world.isolate("crm", Some("ada"))["state"], "quarantined");
    assert!(who(&ben).to_string().contains("of-ben"), "ben goes on");
    let leak =
        json!({"status": 500, "message": "rejected Bearer of-ben-0123456789 (of-ben-0123456789)"});
    let told = ben.call("fail", leak).text();
    assert!(
        told.contains("rejected") && !told.contains("of-ben"),
        "{told}"
    );
    // A better one ends the quarantine.
    server.command(&json!({"needs": ["Bearer of-ben-0123456789", "Bearer second-of-ada"]}));
    set(&world, &["--user", "ada"], "Bearer second-of-ada");
    assert_eq!(who(&ada)["authorization"], "Bearer second-of-ada");
    let shown = world.run(&["mcp", "show", "crm"]).stdout;
    for word in [
        url.as_str(),
        "x-who: {user.name}",
        "TOKEN=header:authorization",
        "none: it runs elsewhere",
    ] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    assert!(!shown.contains("memory"), "{shown}");
    // A header that breaks the line is refused where it is set.
    let bad = crate::vault::try_set(
        &world,
        &["--user", "ada"],
        "crm",
        "TOKEN",
        b"a\r\nX-Evil: 1",
    );
    assert_ne!(bad.code, 0);
    assert!(bad.stderr.contains("no header can"), "{}", bad.stderr);
}

#[test]
fn one_instance_for_all_carries_their_calls_side_by_side() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    remote(&world, "all", &server.url("/mcp"), &["--sharing", "shared"]);
    let begun = server.count("initialize");
    let users: Vec<Session> = ["ada", "ben", "cleo"].map(|user| world.client(user)).into();
    let barrier = Barrier::new(users.len());
    std::thread::scope(|scope| {
        for (index, session) in users.iter().enumerate() {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                for n in 0..30 {
                    let said = format!("{index}-{n}");
                    assert_eq!(session.ask("echo", json!({"text": said})), said);
                }
            });
        }
    });
    assert_eq!(server.count("initialize"), begun + 1, "one session for all");
    let one = world.isolate("all", None);
    assert_eq!(one["calls_total"], 90, "{one}");
    // Connections are used again.
    let ports: std::collections::BTreeSet<u64> = server
        .seen()
        .iter()
        .filter(|one| one["method"] == "tools/call")
        .map(|one| one["port"].as_u64().unwrap())
        .collect();
    assert!(ports.len() < 45, "{} connections for 90 calls", ports.len());
}

#[test]
fn a_certificate_is_trusted_by_the_authority_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Server::faulty_over_tls(&cert, &key);
    let world = World::with(PRIVATE);
    let url = format!("https://localhost:{}/mcp", server.port);
    world.cli(&["mcp", "add", "crm", "--url", &url, "--allow-private"]);
    let ran = world.run(&["mcp", "publish", "crm"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("could not be trusted"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("--ca"), "{}", ran.stderr);
    world.cli(&["mcp", "update", "crm", "--ca", cert.to_str().unwrap()]);
    world.cli(&["mcp", "publish", "crm"]);
    world.cli(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", "crm"]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "sealed"})), "sealed");
    let none = folder.path().join("none.pem");
    let ran = world.run(&["mcp", "update", "crm", "--ca", none.to_str().unwrap()]);
    assert!(ran.stderr.contains("none.pem"), "{}", ran.stderr);
}

#[test]
fn a_restarted_gateway_begins_anew_and_leaves_nothing_open() {
    let server = Server::faulty();
    let mut world = World::with(PRIVATE);
    remote(&world, "crm", &server.url("/mcp"), &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "one"}));
    let (begun, ended) = (server.count("initialize"), server.verbs("DELETE"));
    assert_eq!(ended, begun - 1, "the one that discovered has left");
    assert_eq!(world.stop(), 0);
    assert_eq!(server.verbs("DELETE"), begun, "told that it is over");
    world.start();
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "two"})), "two");
    world.kill_9();
    world.start();
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "three"})), "three");
    assert_eq!(server.count("initialize"), begun + 2);
}

#[test]
fn a_kill_switch_cuts_calls_in_flight_and_the_session_with_them() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    remote(&world, "crm", &server.url("/mcp"), &[]);
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("crm.echo", json!({"text": "warm"}));
    ben.ask("demo.echo", json!({"text": "warm"}));
    let ended = server.verbs("DELETE");
    std::thread::scope(|scope| {
        let call = scope.spawn(|| ada.call("crm.slow", json!({"seconds": 30})));
        world.until("the call is there", |_| {
            let seen = server.seen();
            seen.iter()
                .any(|one| one["params"]["name"] == "slow")
                .then_some(())
        });
        let report = world.cli(&[
            "kill-switch",
            "on",
            "--scope",
            "mcp",
            "--target",
            "crm",
            "--reason",
            "leak",
        ]);
        assert_eq!(report["survivors"], json!([]), "{report}");
        let told = call.join().unwrap();
        assert_eq!(told.code(), "kill_switch_active", "{}", told.text());
        assert!(told.text().contains("leak"), "{}", told.text());
    });
    let told = ada.call("crm.echo", json!({"text": "x"}));
    assert_eq!(told.code(), "kill_switch_active", "{}", told.text());
    assert_eq!(ben.ask("demo.echo", json!({"text": "on"})), "on");
    world.until("the server is told", |_| {
        (server.verbs("DELETE") > ended).then_some(())
    });
    let before = server.seen().len();
    world.cli(&["kill-switch", "off", "--scope", "mcp", "--target", "crm"]);
    assert_eq!(server.seen().len(), before, "nothing is begun by itself");
    assert_eq!(ada.ask("crm.echo", json!({"text": "back"})), "back");
    let records = audit(&world);
    let of = |event: &str| records.iter().filter(|one| one["event"] == event).count();
    assert!(of("isolate.ready") >= 3, "{records:?}");
    let verified = world.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
}

#[test]
fn a_client_is_asked_through_the_stream_of_its_call() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    let ask = ["--ask", "elicitation"];
    remote(&world, "crm", &server.url("/mcp"), &ask);
    let key = world.key("ada");
    let client = Client::that_can(&world, "/mcp/crm", &key, can_all());
    for n in 0..3 {
        let request = json!({"jsonrpc": "2.0", "id": n, "method": "tools/call",
            "params": {"name": "ask", "arguments": {}}});
        let answer = answered(&client, &request, |asked| {
            assert_eq!(asked["method"], "elicitation/create", "{asked}");
            accepts("ada")
        });
        assert_eq!(said(&answer), accepts("ada"));
    }
    assert_eq!(world.isolate("crm", Some("ada"))["restarts"], 0);
}

#[test]
fn what_the_server_asks_by_itself_is_answered() {
    let server = Server::faulty();
    server.command(&json!({"stream": "yes"}));
    let world = World::with(PRIVATE);
    remote(&world, "crm", &server.url("/mcp"), &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    world.until("its own stream is open", |_| {
        let seen = server.seen();
        let mut gets = seen.iter().filter(|one| one["verb"] == "GET");
        gets.any(|one| one["accept"] == "text/event-stream")
            .then_some(())
    });
    server.command(
        &json!({"stream": "yes", "say": [{"jsonrpc": "2.0", "id": "srv-1", "method": "ping"}]}),
    );
    world.until("its ping is answered", |_| {
        let seen = server.seen();
        seen.iter().any(|one| one["id"] == "srv-1").then_some(())
    });
}

#[test]
fn definitions_that_cannot_be_are_refused_with_what_to_do() {
    let world = World::new();
    let add = |options: &[&str]| {
        let mut args = vec!["mcp", "add", "bad"];
        args.extend(options);
        let ran = world.run(&args);
        assert_ne!(ran.code, 0, "{options:?}");
        ran.stderr
    };
    for (options, word) in [
        (&["--url", "http://tools.example/mcp"][..], "in the clear"),
        (&["--url", "https://10.0.0.1/mcp"], "--allow-private"),
        (
            &["--url", "http://169.254.169.254/mcp", "--allow-private"],
            "metadata",
        ),
        (&["--url", "https://user:pw@tools.example/mcp"], "password"),
        (
            &["--url", "https://tools.example/mcp", "--memory", "1GiB"],
            "cannot be used with",
        ),
        (
            &["--url", "https://tools.example/mcp", "--", "cat"],
            "cannot be used with",
        ),
        (&["--header", "X-A=b", "--", "cat"], "need --url"),
        (
            &["--url", "https://tools.example/mcp", "--header", "Host=x"],
            "the gateway's own",
        ),
        (
            &[
                "--url",
                "https://tools.example/mcp",
                "--header",
                "Authorization=x",
            ],
            "secret",
        ),
        (
            &[
                "--url",
                "https://tools.example/mcp",
                "--credential",
                "T=env:T",
            ],
            "headers alone",
        ),
        (
            &["--credential", "T=header:X-T", "--", "/bin/cat"],
            "only a server behind HTTP",
        ),
    ] {
        let told = add(options);
        assert!(told.contains(word), "{options:?}: {told}");
    }
    // What the operator does not allow, no definition does.
    let url = ["--url", "http://127.0.0.1:9/mcp", "--allow-private"];
    let told = add(&url);
    assert!(told.contains("sandbox.allow_network_private"), "{told}");
    world.cli(&["mcp", "add", "own", "--url", "https://tools.example/mcp"]);
    let ran = world.run(&["mcp", "update", "own", "--env", "A=b"]);
    assert!(ran.stderr.contains("has no command"), "{}", ran.stderr);
    world.cli(&["mcp", "add", "cmd", "--", LEGATION, "demo-mcp"]);
    let ran = world.run(&["mcp", "update", "cmd", "--url", "https://tools.example/mcp"]);
    assert!(
        ran.stderr.contains("no server behind HTTP"),
        "{}",
        ran.stderr
    );
}

#[test]
fn real_clients_reach_a_real_server_over_both_transports_with_progress_and_cancellation() {
    let (Some(python), Some((node, home))) = (tools::python_sdk(), tools::typescript_sdk()) else {
        return;
    };
    let scripts = format!("{}/tests/clients", env!("CARGO_MANIFEST_DIR"));
    for (mode, path, transport) in [
        ("streamableHttp", "/mcp", "streamable"),
        ("sse", "/sse", "sse"),
    ] {
        let Some(server) = Server::everything(mode) else {
            return;
        };
        let world = World::with(PRIVATE);
        let options = ["--transport", transport];
        remote(&world, "everything", &server.url(path), &options);
        let (key, url) = (world.key("ada"), format!("{}/mcp/everything", world.url));
        let script = format!("{scripts}/python_sdk.py");
        let mut client = Command::new(&python);
        let told = saw(client.args([&script, &url, &key, "legacy"]));
        all_is_well(&told);
        let script = format!("{scripts}/typescript_sdk.mjs");
        let mut client = Command::new(&node);
        let told = saw(client.args([&script, home.to_str().unwrap(), &url, &key]));
        all_is_well(&told);
        assert!(
            told["cancelled"].as_str().unwrap().contains("enough"),
            "{told}"
        );
        world.until("the call is over", |world| {
            let calls = world.cli(&["call", "list"]);
            (calls == json!([])).then_some(())
        });
        let one = world.isolate("everything", Some("ada"));
        assert_eq!(one["restarts"], 0, "{one}");
    }
}

#[test]
fn nobody_s_session_is_left_at_the_server_once_it_is_idle() {
    let server = Server::faulty();
    let world = World::with(PRIVATE);
    let idle = ["--idle", "1s"];
    remote(&world, "crm", &server.url("/mcp"), &idle);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "one"}));
    let ended = world.until("it is idle", |world| {
        let one = world.isolate("crm", Some("ada"));
        (one["state"] == "resting").then(|| server.verbs("DELETE"))
    });
    assert_eq!(ended, server.count("initialize"));
    assert_eq!(ada.ask("echo", json!({"text": "two"})), "two");
}
