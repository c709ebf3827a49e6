//! `legation bridge`: an AI tool that speaks stdio only, in front of a real gateway.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::face::{all_is_well, everything, saw};
use crate::tools;
use crate::world::{LEGATION, World, free_port};

mod again;
mod connect;
mod cut;
mod fake;
pub(crate) mod host;

use fake::Fake;
use host::{Host, bridge, initialize, text};

fn mcp(world: &World) -> String {
    format!("{}/mcp", world.url)
}

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn until_a_call_is_under_way(world: &World) {
    world.until("it is under way", |world| {
        let calls = world.cli(&["call", "list"]);
        (!calls.as_array().unwrap().is_empty()).then_some(())
    });
}

fn sessions(world: &World) -> usize {
    let list = world.cli(&["session", "list"]);
    list.as_array().map_or(0, Vec::len)
}

#[test]
fn a_bridge_lists_calls_and_leaves_nothing_behind() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key) = (home(), world.key("ada"));
    let mut host = Host::start(home.path(), &mcp(&world), &key);
    let begun = host.begin();
    assert_eq!(begun["protocolVersion"], "2025-11-25", "{begun}");
    assert_eq!(begun["serverInfo"]["name"], "legation", "{begun}");
    assert!(host.tools().contains(&"echo".to_owned()));
    for id in [json!(700), json!("7"), json!("a\"b"), json!(-1)] {
        let call = json!({"name": "echo", "arguments": {"text": "hello"}});
        host.ask_as(&id, "tools/call", call);
        let answer = host.answer(&id);
        assert_eq!((&answer["id"], text(&answer)), (&id, "hello"), "{answer}");
    }
    let unknown = host.done("nothing", json!({}));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let ping = host.ask("ping", json!({}));
    assert_eq!(host.answer(&ping)["result"], json!({}));
    // A change is told without being asked for.
    world.demo("second", &[]);
    world.cli(&["subscription", "list"]);
    let id = world.cli(&["key", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.cli(&["subscription", "add", &id, "second"]);
    host.told("notifications/tools/list_changed");
    assert!(host.tools().contains(&"second_echo".to_owned()));
    assert_eq!(sessions(&world), 1);
    assert_eq!(host.leave().code(), Some(0));
    assert_eq!(sessions(&world), 0, "the session ends with its bridge");
    let log = host.log();
    assert!(
        log.contains("a session has begun") && !log.contains(&key),
        "{log}"
    );
}

#[test]
fn a_signal_ends_it_as_the_end_of_its_input_does() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    host.call("sleep", json!({"ms": 600_000}));
    until_a_call_is_under_way(&world);
    let pid = host.pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    assert_eq!(host.ended().code(), Some(0));
    assert_eq!(sessions(&world), 0);
    world.until("its call is over", |world| {
        (world.cli(&["call", "list"]) == json!([])).then_some(())
    });
}

#[test]
fn what_is_asked_before_the_end_of_the_input_is_answered() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    let begin = host.ask("initialize", initialize());
    let list = host.ask("tools/list", json!({}));
    let call = host.call("echo", json!({"text": "quick"}));
    assert_eq!(host.leave().code(), Some(0));
    assert!(host.answer(&begin)["result"].is_object());
    assert!(host.answer(&list)["result"]["tools"].is_array());
    assert_eq!(text(&host.answer(&call)), "quick");
}

#[test]
fn progress_passes_before_the_answer() {
    let world = World::new();
    if everything(&world).is_none() {
        return;
    }
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    let id = host.ask(
        "tools/call",
        json!({"name": "trigger-long-running-operation", "arguments": {"duration": 0.3, "steps": 3},
            "_meta": {"progressToken": "mine"}}),
    );
    let answer = host.answer(&id);
    assert!(text(&answer).contains("completed"), "{answer}");
    // All of it came before the answer, in its order.
    let progress: Vec<Value> = host
        .before()
        .into_iter()
        .filter(|message| message["method"] == "notifications/progress")
        .map(|message| message["params"].clone())
        .collect();
    let steps: Vec<_> = progress
        .iter()
        .map(|one| one["progress"].as_f64())
        .collect();
    assert_eq!(steps, [Some(1.0), Some(2.0), Some(3.0)], "{progress:?}");
    assert!(
        progress.iter().all(|one| one["progressToken"] == "mine"),
        "{progress:?}"
    );
}

#[test]
fn a_cancelled_call_is_stopped_at_the_server_and_never_answered() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    host.done("echo", json!({"text": "warm"}));
    for meta in [json!({}), json!({"progressToken": 1})] {
        let params = json!({"name": "sleep", "arguments": {"ms": 600_000}, "_meta": meta});
        let id = host.ask("tools/call", params.clone());
        until_a_call_is_under_way(&world);
        host.ask_as(&id, "tools/call", params);
        let twice = host.answer(&id);
        assert_eq!(twice["error"]["code"], -32600, "{twice}");
        // Another's id cancels nothing.
        host.tell("notifications/cancelled", json!({"requestId": "other"}));
        host.tell(
            "notifications/cancelled",
            json!({"requestId": id, "reason": "enough"}),
        );
        world.until("the call is over", |world| {
            (world.cli(&["call", "list"]) == json!([])).then_some(())
        });
        assert_eq!(text(&host.done("echo", json!({"text": "on"}))), "on");
        let rest = host.rest(Duration::from_millis(300));
        assert!(rest.iter().all(|message| message["id"] != id), "{rest:?}");
    }
}

#[test]
fn a_key_that_is_not_good_is_told_in_words_and_not_tried_for_ever() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), "amb_pk_wrong");
    let id = host.ask("initialize", initialize());
    let refused = host.answer(&id);
    let told = refused["error"]["message"].as_str().unwrap();
    assert!(
        told.contains("refuses this key") && told.contains("LEGATION_KEY"),
        "{told}"
    );
    assert!(!told.contains("amb_pk_wrong"), "{told}");

    let key = world.key("ada");
    let mut host = Host::start(home.path(), &mcp(&world), &key);
    host.begin();
    host.done("echo", json!({"text": "x"}));
    world.cli(&["user", "suspend", "ada", "--reason", "left us"]);
    let refused = host.done("echo", json!({"text": "x"}));
    assert_eq!(refused["result"]["isError"], true, "{refused}");
    assert!(text(&refused).contains("refuses this key"), "{refused}");
    // It works again when the key does.
    world.cli(&["user", "resume", "ada"]);
    world.until("it works again", |_| {
        (text(&host.done("echo", json!({"text": "again"}))) == "again").then_some(())
    });
}

#[test]
fn a_restart_of_the_gateway_is_not_noticed_by_the_next_call() {
    let mut world = World::at_port(free_port());
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    assert_eq!(
        text(&host.done("echo", json!({"text": "before"}))),
        "before"
    );
    world.stop();
    world.start();
    assert_eq!(text(&host.done("echo", json!({"text": "after"}))), "after");
    // A call that is made while it is away waits for it.
    world.kill_9();
    let waits = host.call("echo", json!({"text": "waited"}));
    world.start();
    assert_eq!(text(&host.answer(&waits)), "waited");
    host.told("notifications/tools/list_changed");
    assert_eq!(sessions(&world), 1);
}

#[test]
fn a_session_that_is_gone_is_begun_again_and_the_call_made_once() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key) = (home(), world.key("ada"));
    let mut host = Host::start(home.path(), &mcp(&world), &key);
    host.begin();
    host.done("echo", json!({"text": "x"}));
    // Another client ends the session, as an operator or time would.
    let id = world.cli(&["session", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let head = format!(
        "DELETE /mcp HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
         Mcp-Session-Id: {id}\r\n\r\n"
    );
    let left = crate::world::Http::new(&world.url).raw(head.as_bytes());
    assert_eq!(left.status, 204, "{left:?}");
    let count = host.done("count", json!({}));
    assert!(text(&count).contains("count"), "{count}");
    assert_eq!(sessions(&world), 1);
}

#[test]
fn with_the_gateway_away_the_tools_stay_known_and_a_call_says_why_it_fails() {
    let port = free_port();
    let mut world = World::at_port(port);
    world.demo("demo", &[]);
    let (home, key) = (home(), world.key("ada"));
    let url = mcp(&world);
    let mut host = Host::start(home.path(), &url, &key);
    let begun = host.begin();
    let tools = host.tools();
    assert!(begun["instructions"].is_null(), "{begun}");
    assert_eq!(host.leave().code(), Some(0));
    world.stop();

    let mut host = Host::start(home.path(), &url, &key);
    let begun = host.begin();
    assert_eq!(begun["serverInfo"]["name"], "legation", "{begun}");
    let told = begun["instructions"].as_str().unwrap();
    assert!(
        told.contains("not reachable") && told.contains(&url),
        "{told}"
    );
    assert_eq!(host.tools(), tools);
    let failed = host.done("echo", json!({"text": "x"}));
    assert_eq!(failed["result"]["isError"], true, "{failed}");
    for part in ["not reachable", &url, "efused", "since 2", "retried"] {
        assert!(text(&failed).contains(part), "{part}: {failed}");
    }
    assert_eq!(
        failed["result"]["_meta"]["legation/error"],
        "daemon_unreachable"
    );
    let other = host.ask("resources/list", json!({}));
    let other = host.answer(&other);
    let why = other["error"]["message"].as_str().unwrap();
    assert!(why.contains("not reachable"), "{other}");

    world.start();
    host.told("notifications/tools/list_changed");
    assert_eq!(host.tools(), tools);
    assert_eq!(text(&host.done("echo", json!({"text": "back"}))), "back");

    // Another key has no use for what this one saw.
    world.stop();
    let mut other = Host::start(home.path(), &url, "amb_pk_other");
    let id = other.ask("initialize", initialize());
    let told = other.answer(&id)["error"]["message"].to_string();
    assert!(told.contains("No earlier answer"), "{told}");
    world.start();
}

#[test]
fn a_call_in_flight_when_the_gateway_dies_is_answered_and_not_repeated() {
    let mut world = World::at_port(free_port());
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    let lost = host.call("sleep", json!({"ms": 600_000}));
    until_a_call_is_under_way(&world);
    world.kill_9();
    let answer = host.answer(&lost);
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(text(&answer).contains("not repeated"), "{answer}");
    world.start();
    assert_eq!(text(&host.done("echo", json!({"text": "on"}))), "on");
    assert_eq!(world.cli(&["call", "list"]), json!([]));
    let records = crate::kill::audit(&world);
    let sleeps = records
        .iter()
        .filter(|one| one["event"] == "call.start" && one["tool"] == "sleep");
    assert_eq!(sleeps.count(), 1, "{records:?}");
    let rest = host.rest(Duration::from_millis(200));
    assert!(rest.iter().all(|message| message["id"] != lost), "{rest:?}");
}

#[test]
fn answers_of_equal_ids_do_not_mix() {
    let world = World::new();
    world.demo("demo", &[]);
    let (home, key) = (home(), world.key("ada"));
    let mut hosts: Vec<Host> = (0..2)
        .map(|_| Host::start(home.path(), &mcp(&world), &key))
        .collect();
    for host in &mut hosts {
        host.begin();
    }
    // More than one page of requests at once, each with the ids of the other bridge.
    for (number, host) in hosts.iter_mut().enumerate() {
        for id in 100..140 {
            let nonce = format!("{number}/{id}");
            let call = json!({"name": "echo", "arguments": {"text": nonce}});
            host.ask_as(&json!(id), "tools/call", call);
        }
    }
    for (number, host) in hosts.iter_mut().enumerate() {
        for id in 100..140 {
            let answer = host.answer(&json!(id));
            assert_eq!(text(&answer), format!("{number}/{id}"), "{answer}");
        }
    }
}

#[test]
fn more_requests_than_there_is_room_for_are_told_so() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    host.begin();
    let ids: Vec<Value> = (0..65)
        .map(|_| host.call("sleep", json!({"ms": 600_000})))
        .collect();
    let busy = host.answer(ids.last().unwrap());
    assert_eq!(busy["error"]["data"]["error"], "busy", "{busy}");
    let ping = host.ask("ping", json!({}));
    assert_eq!(host.answer(&ping)["result"], json!({}));
}

#[test]
fn lines_that_are_no_messages_are_answered_and_the_next_one_is_taken() {
    let world = World::new();
    world.demo("demo", &[]);
    let home = home();
    let mut host = Host::start(home.path(), &mcp(&world), &world.key("ada"));
    let early = host.ask("tools/list", json!({}));
    assert_eq!(host.answer(&early)["error"]["code"], -32600);
    host.begin();
    let huge = format!("\"{}\"", "x".repeat(17 << 20));
    for (line, code) in [
        ("{", -32700),
        ("nonsense", -32700),
        (
            "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            -32600,
        ),
        ("7", -32600),
        ("{\"id\":1,\"method\":\"ping\"}", -32600),
        (huge.as_str(), -32600),
    ] {
        host.write(line);
        let refused = host.find("a refusal", |message| {
            message["id"].is_null() && message["error"].is_object()
        });
        assert_eq!(refused["error"]["code"], code, "{refused}");
    }
    // More than the gateway takes, and less than the bridge does.
    let large = host.done("echo", json!({"text": "x".repeat(5 << 20)}));
    assert!(text(&large).contains("status 413"), "{}", text(&large));
    host.write("");
    assert_eq!(text(&host.done("echo", json!({"text": "on"}))), "on");
}

#[test]
fn a_self_signed_certificate_is_taken_by_its_file_or_on_this_machine_only() {
    let world = World::with_client("tls = \"self\"\n", "");
    world.demo("demo", &[]);
    let (home, key) = (home(), world.key("ada"));
    let url = mcp(&world);
    assert!(url.starts_with("https://"), "{url}");
    let cert = world.data_dir().join("tls/cert.pem");
    let cert = cert.to_str().unwrap();
    for flags in [&["--ca-file", cert][..], &["--allow-self-signed"]] {
        let mut host = Host::spawn(bridge(home.path(), &url, &key).args(flags), home.path());
        host.begin();
        assert!(host.tools().contains(&"echo".to_owned()), "{flags:?}");
        assert_eq!(host.leave().code(), Some(0));
    }
    let mut command = bridge(home.path(), &url, &key);
    let mut host = Host::spawn(command.env("SSL_CERT_FILE", cert), home.path());
    host.begin();
    assert_eq!(host.leave().code(), Some(0));
    let own = home.path().join("other.pem");
    let made = rcgen_other();
    std::fs::write(&own, made).unwrap();
    let home = tempfile::tempdir().unwrap();
    let mut command = bridge(home.path(), &url, &key);
    let mut host = Host::spawn(command.arg("--ca-file").arg(&own), home.path());
    let id = host.ask("initialize", initialize());
    let told = host.answer(&id)["error"]["message"].to_string();
    assert!(
        told.contains("not trusted") && told.contains("--ca-file"),
        "{told}"
    );

    let mut far = bridge(home.path(), "https://tools.example/mcp", &key);
    let output = far.arg("--allow-self-signed").output().unwrap();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{why}");
    assert!(
        why.contains("on this machine") && output.stdout.is_empty(),
        "{why}"
    );
}

/// A certificate that nobody uses.
fn rcgen_other() -> String {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    made.cert.pem()
}

#[test]
fn the_python_sdk_s_stdio_client_finds_its_way_over_the_bridge() {
    let Some(python) = tools::python_sdk() else {
        return;
    };
    let world = World::new();
    if everything(&world).is_none() {
        return;
    }
    let (home, key) = (home(), world.key("ada"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = root.join("tests/clients/python_stdio.py");
    for mode in ["legacy", "auto"] {
        let mut command = Command::new(&python);
        command
            .arg(&script)
            .args([mode, LEGATION, "bridge"])
            .env("HOME", home.path())
            .env("LEGATION_URL", mcp(&world))
            .env("LEGATION_KEY", &key)
            .stdin(Stdio::null());
        let saw = saw(&mut command);
        all_is_well(&saw);
        assert_eq!(saw["version"], "2025-11-25", "{saw}");
    }
    assert_eq!(sessions(&world), 0);
}

#[test]
fn a_call_that_may_have_arrived_is_made_once_and_a_list_again() {
    let fake = Fake::start(|verb, message| match message["method"].as_str() {
        Some("tools/call" | "tools/list") => None,
        _ if verb == "GET" => fake::refused(405, "no stream"),
        _ => fake::begun(message),
    });
    let home = home();
    let mut host = Host::start(home.path(), &fake.url, "key");
    host.begin();
    let lost = host.done("pay", json!({}));
    assert_eq!(lost["result"]["isError"], true, "{lost}");
    assert!(text(&lost).contains("may have been carried out"), "{lost}");
    assert_eq!(fake.count("tools/call"), 1);
    let list = host.ask("tools/list", json!({}));
    assert!(host.answer(&list)["error"]["message"].is_string());
    assert!(fake.count("tools/list") > 1);
}

#[test]
fn a_session_that_is_never_known_is_begun_again_once_for_a_request() {
    let fake = Fake::start(|verb, message| match message["method"].as_str() {
        Some("tools/call") => fake::refused(404, "no such session"),
        _ if verb == "GET" => fake::refused(405, "no stream"),
        _ => fake::begun(message),
    });
    let home = home();
    let mut host = Host::start(home.path(), &fake.url, "key");
    host.begin();
    let lost = host.done("echo", json!({}));
    assert!(text(&lost).contains("no such session"), "{lost}");
    assert_eq!((fake.count("tools/call"), fake.count("initialize")), (2, 2));
}

#[test]
fn a_key_that_is_refused_is_not_presented_again_and_again() {
    let fake = Fake::start(|verb, message| match message["method"].as_str() {
        Some("tools/call") => fake::refused(401, "the key is suspended: it leaked"),
        _ if verb == "GET" => fake::refused(401, "the key is suspended: it leaked"),
        _ => fake::begun(message),
    });
    let home = home();
    let mut host = Host::start(home.path(), &fake.url, "key");
    host.begin();
    let refused = host.done("echo", json!({}));
    assert!(text(&refused).contains("it leaked"), "{refused}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!((fake.count("tools/call"), fake.count("initialize")), (1, 1));
    assert!(fake.count("GET") <= 3, "{}", fake.count("GET"));
}

#[test]
fn an_answer_on_several_lines_is_written_on_one() {
    let fake = Fake::start(|verb, message| match message["method"].as_str() {
        Some("tools/call") if message["params"]["name"] == "pretty" => {
            let id = &message["id"];
            let body =
                format!("{{\n  \"jsonrpc\": \"2.0\",\r\n  \"id\": {id},\n  \"result\": {{}}\n}}\n");
            Some((200, "application/json", body))
        }
        Some("tools/call") => {
            let id = &message["id"];
            let body = format!(
                "id: 1\ndata:\n\ndata: {{\"jsonrpc\":\"2.0\",\ndata: \"method\":\"notifications/message\"}}\n\n\
                 event: message\ndata: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n\n"
            );
            Some((200, "text/event-stream", body))
        }
        _ if verb == "GET" => fake::refused(405, "no stream"),
        _ => fake::begun(message),
    });
    let home = home();
    let mut host = Host::start(home.path(), &fake.url, "key");
    host.begin();
    assert_eq!(host.done("pretty", json!({}))["result"], json!({}));
    assert_eq!(host.done("stream", json!({}))["result"], json!({}));
    host.told("notifications/message");
}
