//! What a failed call says: a `200` whose text tells a person what happened and what to do, and
//! whose `metadata` tells a machine.

use std::io::Write;
use std::thread;

use serde_json::{Value, json};

use crate::tools;
use crate::world::client::request;
use crate::world::{Answer, Session, World, am_root};

/// Checks the common shape of a failure; its text and metadata.
fn failed(answer: &Answer, code: &str) -> (String, Value) {
    let body = answer.json();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (200, code),
        "{body}"
    );
    assert_eq!(body["result"].as_array().unwrap().len(), 1, "{body}");
    assert_eq!(body["result"][0]["type"], "text");
    let metadata = &body["metadata"];
    assert_eq!(metadata["is_error"], true);
    assert!(
        metadata["retryable"].is_boolean() && metadata["duration_ms"].is_u64(),
        "{body}"
    );
    (answer.text(), metadata.clone())
}

fn counts(session: &Session) -> Value {
    serde_json::from_str(&session.ask("count", json!({}))).unwrap()
}

fn in_flight(world: &World, calls: u64) {
    world.until("the calls are in flight", |world| {
        world
            .isolates()
            .iter()
            .any(|one| one["in_flight"] == calls)
            .then_some(())
    });
}

fn sleeping(session: &Session, ms: u64) -> thread::JoinHandle<Answer> {
    let session = session.clone();
    thread::spawn(move || session.call("sleep", json!({"ms": ms})))
}

/// All lines of the audit log.
fn audit(world: &World) -> Vec<Value> {
    let mut lines = Vec::new();
    for file in std::fs::read_dir(world.data_dir().join("audit")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|end| end != "jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        lines.extend(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok()),
        );
    }
    lines
}

#[test]
fn starting_says_that_it_starts_and_when_to_come_back() {
    let world = World::new();
    world.misbehaving("slow", &["--call-timeout", "1s"], &["slow_start=3000"]);
    let ada = world.client("ada");
    let (text, metadata) = failed(&ada.call("echo", json!({"text": "x"})), "starting");
    assert!(
        text.contains("`slow`") && text.contains("starting"),
        "{text}"
    );
    assert_eq!(metadata["retryable"], true);
    assert!(metadata["retry_after_ms"].as_u64().unwrap() >= 1000);
    // The start goes on without the caller, and is the only one.
    let sent_too_late = std::cell::Cell::new(0);
    world.until("it started", |_| {
        let code = ada.call("echo", json!({"text": "x"})).code();
        if code == "call_timeout" {
            // It was ready in the last moment of this one.
            sent_too_late.set(sent_too_late.get() + 1);
        }
        code.is_empty().then_some(())
    });
    assert_eq!(
        world.isolate_detail("slow", Some("ada"))["runs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        counts(&ada)["tools"]["echo"],
        1 + sent_too_late.get(),
        "calls that were given up were never sent"
    );
}

#[test]
fn a_crash_answers_every_caller_at_once_and_then_backs_off_with_the_seconds() {
    let world = World::with("[restart]\nfloor_ms = 60000\ncap_ms = 60000\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("stderr", json!({"lines": 1}));
    let waiting = [sleeping(&ada, 600_000), sleeping(&ada, 600_000)];
    in_flight(&world, 2);
    let crash = ada.call("crash", json!({"code": 3}));
    let (text, metadata) = failed(&crash, "run_ended");
    assert!(
        text.contains('3') && text.contains("not repeated") && text.contains("line 0"),
        "{text}"
    );
    assert_eq!(metadata["verdict"], "exited", "{metadata}");
    for caller in waiting {
        failed(&caller.join().unwrap(), "run_ended");
    }
    let (text, metadata) = failed(&ada.call("echo", json!({"text": "x"})), "backing_off");
    let wait = metadata["retry_after_ms"].as_u64().unwrap();
    assert!((20_000..=60_000).contains(&wait), "{metadata}");
    assert!(text.contains(" s."), "{text}");
    assert_eq!(world.isolate("demo", Some("ada"))["state"], "backoff");
}

#[test]
fn a_crashed_server_is_back_for_the_next_call() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    bob.ask("note_put", json!({"key": "k", "value": "v"}));
    failed(&ada.call("crash", json!({"signal": "SEGV"})), "run_ended");
    assert_eq!(
        ada.ask("echo", json!({"text": "again"})),
        "again",
        "a short backoff is waited for"
    );
    assert_eq!(
        bob.ask("note_get", json!({"key": "k"})),
        "v",
        "nobody else noticed"
    );
}

#[test]
fn quarantined_says_so_with_the_last_words() {
    let world = World::with("[restart]\nfailures_max = 1\n");
    world.demo("demo", &[]);
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    ada.ask("stderr", json!({"lines": 2}));
    failed(&ada.call("crash", json!({"code": 9})), "run_ended");
    let (text, metadata) = failed(&ada.call("echo", json!({"text": "x"})), "quarantined");
    assert!(
        text.contains("quarantined") && text.contains("line 1"),
        "{text}"
    );
    assert!(
        metadata["retry_after_ms"].as_u64().unwrap() > 60_000,
        "{metadata}"
    );
    assert_eq!(bob.ask("echo", json!({"text": "mine"})), "mine");
    // An operator's restart forgives.
    let id = world.isolate("demo", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.cli(&["isolate", "restart", &id]);
    assert_eq!(ada.ask("echo", json!({"text": "again"})), "again");
}

#[test]
fn out_of_memory_names_the_limit() {
    let world = World::new();
    let enforced = world.status()["enforcement"]["enforced"].to_string();
    if !am_root() || !enforced.contains("cgroup_memory") {
        return tools::skip("out of memory", "memory limits are not enforced here");
    }
    world.demo("demo", &["--memory", "64MiB"]);
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    bob.ask("note_put", json!({"key": "k", "value": "v"}));
    let (text, metadata) = failed(&ada.call("allocate", json!({"mib": 512})), "out_of_memory");
    assert!(text.contains("64") && text.contains("--memory"), "{text}");
    assert_eq!(metadata["verdict"], "out_of_memory", "{metadata}");
    assert_eq!(bob.ask("note_get", json!({"key": "k"})), "v");
    assert_eq!(ada.ask("echo", json!({"text": "again"})), "again");
}

#[test]
fn a_timed_out_call_reached_its_server_once_and_was_cancelled_there() {
    let world = World::new();
    world.demo("demo", &["--call-timeout", "1s"]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    let (text, metadata) = failed(&ada.call("sleep", json!({"ms": 600_000})), "call_timeout");
    assert!(
        text.contains("`sleep`") && text.contains("1 s") && text.contains("--call-timeout"),
        "{text}"
    );
    assert_eq!(
        metadata["retryable"], false,
        "whether it had an effect is unknown"
    );
    let counts = world.until("it was told", |_| {
        let counts = counts(&ada);
        (counts["cancelled"] == 1).then_some(counts)
    });
    assert_eq!(counts["tools"]["sleep"], 1, "exactly once: {counts}");
    assert_eq!(world.isolate("demo", Some("ada"))["restarts"], 0);
}

#[test]
fn a_caller_who_leaves_is_cancelled_and_on_record() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    let body = json!({"tool": "sleep", "arguments": {"ms": 600_000}}).to_string();
    let mut stream = ada.http.connect();
    stream
        .write_all(&request(
            "POST",
            "/v1/tools/invoke",
            Some(&ada.token),
            Some(body.as_bytes()),
        ))
        .unwrap();
    in_flight(&world, 1);
    drop(stream);
    in_flight(&world, 0);
    world.until("the server was told", |_| {
        (counts(&ada)["cancelled"] == 1).then_some(())
    });
    assert_eq!(counts(&ada)["tools"]["sleep"], 1);
    world.until("it is on record", |world| {
        audit(world)
            .iter()
            .any(|line| line["event"] == "call.end" && line["outcome"] == "caller_left")
            .then_some(())
    });
    assert_eq!(ada.ask("echo", json!({"text": "well"})), "well");
    // Every call that began has an end.
    let lines = audit(&world);
    let of = |event: &str| {
        let mut calls: Vec<String> = lines
            .iter()
            .filter(|line| line["event"] == event)
            .map(|line| line["call"].to_string())
            .collect();
        calls.sort();
        calls
    };
    assert_eq!(of("call.start"), of("call.end"));
}

#[test]
fn a_disabled_mcp_says_why_and_leaves_sessions_alive() {
    let world = World::new();
    world.demo("demo", &[]);
    world.demo("other", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let waiting = sleeping(&ada, 600_000);
    in_flight(&world, 1);
    let report = world.cli(&["mcp", "suspend", "demo", "--reason", "leaks secrets"]);
    assert_eq!(report["calls_cancelled"], 1, "{report}");
    let (text, metadata) = failed(&waiting.join().unwrap(), "kill_switch_active");
    assert!(text.contains("leaks secrets"), "{text}");
    assert_eq!(metadata["scope"], "mcp", "{metadata}");
    assert_eq!(metadata["reason"], "leaks secrets", "{metadata}");
    let (text, _) = failed(
        &ada.call("demo.echo", json!({"text": "x"})),
        "kill_switch_active",
    );
    assert!(
        text.contains("leaks secrets") && text.contains("`demo`"),
        "{text}"
    );
    assert!(!ada.tools().contains(&"echo".to_owned()));
    assert_eq!(ada.ask("other_echo", json!({"text": "well"})), "well");
    world.cli(&["mcp", "resume", "demo"]);
    assert_eq!(ada.ask("echo", json!({"text": "back"})), "back");
}

#[test]
fn too_many_calls_at_once_are_busy_at_once() {
    let world = World::with("[calls]\nin_flight_max = 1\n");
    world.demo("demo", &[]);
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    ada.ask("echo", json!({"text": "warm"}));
    let mut first = ada.http.connect();
    let body = json!({"tool": "sleep", "arguments": {"ms": 600_000}}).to_string();
    first
        .write_all(&request(
            "POST",
            "/v1/tools/invoke",
            Some(&ada.token),
            Some(body.as_bytes()),
        ))
        .unwrap();
    in_flight(&world, 1);
    let (text, metadata) = failed(&ada.call("echo", json!({"text": "x"})), "busy");
    assert!(text.contains("`demo`") && text.contains('1'), "{text}");
    assert_eq!(metadata["retryable"], true);
    assert_eq!(bob.ask("echo", json!({"text": "mine"})), "mine");
    drop(first);
    world.until("there is room again", |_| {
        (ada.call("echo", json!({"text": "x"})).code() == "").then_some(())
    });
}

#[test]
fn a_result_too_large_for_the_client_is_named_with_its_size() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let (text, _) = failed(
        &ada.call("big", json!({"bytes": 11 << 20})),
        "result_too_large",
    );
    assert!(text.contains("11.") && text.contains("10.0 MiB"), "{text}");
    assert_eq!(ada.ask("big", json!({"bytes": 9 << 20})).len(), 9 << 20);
}

#[test]
fn a_servers_error_is_told_apart_from_ours() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let (text, metadata) = failed(&ada.call("echo", json!({"txt": 1})), "server_error");
    assert!(text.contains("-32602") && text.contains("txt"), "{text}");
    assert_eq!(metadata["mcp_server"], "demo");
    world.misbehaving("odd", &[], &["wrong_result_shape"]);
    let bob = world.client("bob");
    let (text, _) = failed(&bob.call("odd.echo", json!({"text": "x"})), "server_error");
    assert!(text.contains("`odd`"), "{text}");
}

#[test]
fn a_killed_isolate_tells_its_callers_the_reason() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let waiting = sleeping(&ada, 600_000);
    in_flight(&world, 1);
    let id = world.isolate("demo", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let report = world.cli(&["isolate", "kill", &id, "--reason", "too greedy"]);
    assert_eq!(
        (report["cancelled_calls"].as_u64(), &report["survivors"]),
        (Some(1), &json!([])),
        "{report}"
    );
    let (text, _) = failed(&waiting.join().unwrap(), "cancelled");
    assert!(text.contains("too greedy"), "{text}");
    assert_eq!(
        ada.ask("echo", json!({"text": "again"})),
        "again",
        "a kill is not a ban"
    );
}

#[test]
fn a_stopping_gateway_answers_who_waits_for_a_start() {
    let mut world = World::new();
    world.misbehaving("slow", &[], &["slow_start=5000"]);
    let ada = world.client("ada");
    let waiting = sleeping(&ada, 0);
    world.until("it starts", |world| {
        (!world.isolates().is_empty()).then_some(())
    });
    assert_eq!(world.stop(), 0);
    let (_, metadata) = failed(&waiting.join().unwrap(), "shutting_down");
    assert_eq!(metadata["retryable"], true);
}

#[test]
fn a_suspended_users_callers_are_told() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let waiting = sleeping(&ada, 600_000);
    in_flight(&world, 1);
    world.cli(&["user", "suspend", "ada", "--reason", "left the firm"]);
    let (text, _) = failed(&waiting.join().unwrap(), "user_disabled");
    assert!(text.contains("left the firm"), "{text}");
}

#[test]
fn a_stopping_gateway_answers_its_callers() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let waiting = sleeping(&ada, 600_000);
    in_flight(&world, 1);
    assert_eq!(world.stop(), 0);
    let answer = waiting.join().unwrap();
    assert_eq!(answer.code(), "shutting_down", "{answer:?}");
}
