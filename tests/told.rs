//! What operators and callers are told when something is not as they think: whose limit it was, what was written
//! last, what a value stands for.

use std::thread;

use serde_json::{Value, json};

use crate::face::Client;
use crate::tools;
use crate::world::{Answer, LEGATION, Session, World, am_root};

fn sleeping(session: &Session, tool: &str, ms: u64) -> thread::JoinHandle<Answer> {
    let (session, tool) = (session.clone(), tool.to_owned());
    thread::spawn(move || session.call(&tool, json!({ "ms": ms })))
}

fn in_flight(world: &World, mcp: &str, calls: u64) {
    world.until("the calls are in flight", |world| {
        let all = world.isolates();
        let fits = |one: &Value| one["mcp"] == mcp && one["in_flight"] == calls;
        all.iter().any(fits).then_some(())
    });
}

#[test]
fn what_an_mcp_does_not_say_is_as_the_configuration_of_each_start_says() {
    let mut world = World::with("[calls]\ndeadline_ms = 60000\n");
    world.demo("plain", &[]);
    world.demo(
        "own",
        &[
            "--memory",
            "96MiB",
            "--call-timeout",
            "50s",
            "--idle",
            "never",
        ],
    );
    let shown = |world: &World, mcp: &str| world.cli(&["mcp", "show", mcp]);
    assert_eq!(shown(&world, "plain")["times"]["call_ms"], 60_000);
    world.stop();
    world.reconfigure(
        "[calls]\ndeadline_ms = 1000\n[isolates]\nmemory_bytes = 100663297\npids = 50\n\
         cpu_millis = 700\nidle_ms = 3000\n",
    );
    world.start();
    let plain = shown(&world, "plain");
    assert_eq!(
        (&plain["limits"]["memory_bytes"], &plain["limits"]["pids"]),
        (&json!(100_663_297), &json!(50))
    );
    let own = shown(&world, "own");
    assert_eq!(own["limits"]["memory_bytes"], 96 << 20);
    assert_eq!(own["times"]["idle_ms"], Value::Null, "never is said too");
    assert_eq!(own["as_configured"], json!(["pids", "cpu_millis"]));
    let text = world.run(&["mcp", "show", "plain"]).stdout;
    for words in [
        "50, as isolates.pids says",
        "0.7 cores, as isolates.cpu_millis says",
        "1.0s, as calls.deadline_ms says",
        "3.0s, as isolates.idle_ms says",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    // It is what calls and isolates go by, not only what is shown.
    let ada = world.client("ada");
    let late = ada.call("plain.sleep", json!({"ms": 600_000}));
    assert_eq!(late.code(), "call_timeout", "{}", late.json());
    let limit = world.isolate("plain", Some("ada"))["memory_limit_bytes"].clone();
    assert_eq!(limit, 100_663_297);
    assert_eq!(ada.ask("own.sleep", json!({"ms": 1500})), "slept 1500 ms");
    world.until("it idles out", |world| {
        let there = |one: &Value| one["mcp"] == "plain" && !one["pid"].is_null();
        (!world.isolates().iter().any(there)).then_some(())
    });
    // And back, of what was its own.
    let back = world.cli(&[
        "mcp",
        "update",
        "own",
        "--memory",
        "default",
        "--call-timeout",
        "default",
        "--pids",
        "60",
    ]);
    assert_eq!(
        back["as_configured"],
        json!(["memory_bytes", "cpu_millis", "call_ms"])
    );
    assert_eq!(back["limits"]["memory_bytes"], 100_663_297);
    assert_eq!(back["limits"]["pids"], 60);
    assert_eq!(back["times"]["call_ms"], 1000);
}

#[test]
fn who_finds_no_process_under_the_users_limit_is_told_so_and_not_quarantined() {
    let world = World::with("[isolates]\nuser_pids = 40\npids = 40\n[restart]\nfailures_max = 2\n");
    let enforced = world.status()["enforcement"]["enforced"].to_string();
    if !am_root() || !enforced.contains("cgroup_pids") {
        return tools::skip("a user's limit of processes", "it is not enforced here");
    }
    world.demo("greedy", &[]);
    world.demo("third", &[]);
    world.demo("demo", &[]);
    let ada = world.client("ada");
    // One after the other, until there is no room for a shell and what it starts.
    world.until("the user has hardly a process left", |_| {
        let left = ada.call("greedy.fork", json!({"n": 1, "seconds": 600}));
        (left.json()["metadata"]["is_error"] == true).then_some(())
    });
    // It takes what that left, if it can.
    ada.call("third.echo", json!({"text": "x"}));
    let mut tries = 0;
    let said = world.until("it was tried more often than would quarantine", |world| {
        let answer = ada.call("demo.echo", json!({"text": "x"}));
        assert_eq!(answer.code(), "backing_off", "{}", answer.json());
        let one = world.isolate_detail("demo", Some("ada"));
        assert_ne!(one["view"]["state"], "quarantined", "{one}");
        // It takes nothing of what others are restarted with.
        assert_eq!(one["view"]["restarts"], 0, "{one}");
        tries = tries.max(one["runs"][0]["epoch"].as_u64().unwrap());
        (tries > 4).then(|| answer.json())
    });
    assert_eq!(said["metadata"]["verdict"], "out_of_processes", "{said}");
    let text = said["result"][0]["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("of the user together of 40") && text.contains("isolates.user_pids"),
        "{text}"
    );
    let greedy = world.isolate("greedy", Some("ada"))["id"].clone();
    world.cli(&["isolate", "kill", greedy.as_str().unwrap()]);
    world.until("there is room again", |_| {
        (ada.call("demo.echo", json!({"text": "x"})).code() == "").then_some(())
    });
}

#[test]
fn the_last_words_of_a_run_are_in_the_log_also_when_the_next_one_is_silent() {
    let world = World::new();
    world.cli(&["mcp", "add", "dies", "--", "/bin/sh", "-c", "exit 3"]);
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.call("stderr", json!({"lines": 2}));
    ada.call("crash", json!({"code": 3}));
    assert_eq!(ada.ask("echo", json!({"text": "back"})), "back");
    let id = world.isolate("demo", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let ran = world.run(&["isolate", "logs", &id]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("line 1"), "{}", ran.stdout);
    assert!(
        ran.stderr
            .contains("run 1, which is over: exited with code 3")
            && ran.stderr.contains("run 2 has written nothing yet"),
        "{}",
        ran.stderr
    );
    // Whoever read the first line of the first run gets its rest, then the second run.
    let rest = world.cli(&["isolate", "logs", &id]);
    assert_eq!((&rest["epoch"], &rest["newest"]), (&json!(1), &json!(2)));
    // What is said of a server reads as a sentence.
    let ran = world.run(&["mcp", "discover", "dies"]);
    assert!(
        ran.stderr.contains("it exited with code 3"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_call_whose_answer_was_no_json_says_so_when_it_times_out() {
    let world = World::new();
    world.misbehaving("raw", &["--call-timeout", "1s"], &["invalid_utf8"]);
    let ada = world.client("ada");
    let answer = ada.call("echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "call_timeout", "{}", answer.json());
    let text = answer.text();
    assert!(
        text.contains("wrote 1 line to stdout") && text.contains("is not UTF-8 at its byte"),
        "{text}"
    );
    assert!(text.contains(r#"`{\"jsonrpc\":\"2.0\""#), "{text}");
}

#[test]
fn a_discovery_that_went_well_keeps_its_servers_chatter_to_itself() {
    let world = World::new();
    let script = format!("for n in 1 2 3; do echo chatter $n >&2; done; exec {LEGATION} demo-mcp");
    world.cli(&[
        "mcp", "add", "loud", "--read", LEGATION, "--", "/bin/sh", "-c", &script,
    ]);
    let ran = world.run(&["mcp", "discover", "loud"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(!ran.stderr.contains("chatter"), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("stderr: 3 lines, which -o wide shows"),
        "{}",
        ran.stderr
    );
    let ran = world.run(&["-o", "wide", "mcp", "discover", "loud"]);
    assert!(ran.stderr.contains("stderr: chatter 3"), "{}", ran.stderr);
}

#[test]
fn a_restart_that_cuts_calls_off_asks_first() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    let id = world.isolate("demo", Some("ada"))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    // Nobody is cut off, nobody is asked.
    let ran = world.run(&["isolate", "restart", &id]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let call = sleeping(&ada, "sleep", 600_000);
    in_flight(&world, "demo", 1);
    let ran = world.run(&["isolate", "restart", &id]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(
        ran.stderr.contains("--yes") && ran.stderr.contains("its call in flight"),
        "{}",
        ran.stderr
    );
    in_flight(&world, "demo", 1);
    world.cli(&["isolate", "restart", &id]);
    assert_ne!(call.join().unwrap().code(), "");
}

#[test]
fn a_call_that_no_server_had_seen_is_not_said_to_have_had_an_effect() {
    let world = World::new();
    world.misbehaving("slow", &[], &["slow_start=20000"]);
    let ada = world.client("ada");
    let waiting = sleeping(&ada, "sleep", 1);
    let call = world.until("it waits", |world| {
        let list = world.cli(&["call", "list"]);
        list[0]["id"].as_str().map(ToOwned::to_owned)
    });
    let done = world.run(&["--yes", "call", "cancel", &call]);
    assert!(
        done.stdout.contains("no server had seen it yet"),
        "{}",
        done.stdout
    );
    let text = waiting.join().unwrap().text();
    assert!(
        text.contains("No server had seen it yet, so it had no effect"),
        "{text}"
    );
    // What a command line lacks is named.
    let empty = world.run(&["isolate", "show", ""]);
    assert_eq!(empty.code, 2);
    assert!(empty.stderr.contains("it is empty"), "{}", empty.stderr);
    let wrong = [
        "--scope",
        "all",
        "--reason",
        "x",
        "--expires",
        "2026-13-01T00:00:00Z",
    ];
    let wrong = world.run(&[&["kill-switch", "on"], &wrong[..]].concat());
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("is not a moment"), "{}", wrong.stderr);
}

#[test]
fn each_line_of_a_log_that_programs_read_is_json() {
    let mut world = World::new();
    let url = world.url.clone();
    world.demo("demo", &[]);
    world.client("ada").ask("echo", json!({"text": "hello"}));
    world.stop();
    let log = world.log();
    let lines = log.lines().map(|line| {
        let read: Result<Value, _> = serde_json::from_str(line);
        read.unwrap_or_else(|error| panic!("{error}: {line}"))
    });
    let serving = lines.filter(|line| line["message"] == "serving");
    let serving: Vec<Value> = serving.collect();
    assert_eq!(serving.len(), 1, "{log}");
    assert_eq!(serving[0]["clients"], url, "{log}");
    assert!(serving[0]["isolates"].is_string(), "{log}");
}

/// A tool whose name is none was left out with a line in the log alone.
#[test]
fn tools_that_are_left_out_are_shown_with_the_reason() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    // The isolates' users are others.
    let all_may = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), all_may).unwrap();
    let names = dir.path().join("names");
    std::fs::write(&names, "admin/tools/list \u{e4} zz").unwrap();
    let option = format!("tools={}", names.display());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/shelf.py");
    let command = ["python3", script, "shelf", &option];
    let published = world.mcp(
        "shelf",
        &[
            "--ask",
            "sampling",
            "--audit-arguments",
            "full",
            "--read",
            dir.path().to_str().unwrap(),
        ],
        &command,
    );
    let why = "`\u{e4}` is not a valid tool name: 1 to 128 of";
    let told = |found: &Value| {
        let left_out = found["left_out"].as_array().unwrap();
        assert_eq!(left_out.len(), 1, "{found}");
        assert!(left_out[0].as_str().unwrap().starts_with(why), "{found}");
    };
    told(&published);
    told(&published["discovery"]);
    told(&world.cli(&["mcp", "show", "shelf"]));
    told(&world.cli(&["mcp", "discover", "shelf"]));
    told(&world.cli(&["mcp", "publish", "shelf"]));
    for command in ["discover", "publish", "show"] {
        let text = world.run(&["mcp", command, "shelf"]).stdout;
        assert!(
            text.contains(&format!("left out: {why}")),
            "{command}: {text}"
        );
    }
    let text = world.run(&["mcp", "show", "shelf"]).stdout;
    for row in [("asks", "sampling"), ("audit", "arguments in full")] {
        let is_there = |line: &str| line.starts_with(row.0) && line.contains(row.1);
        assert!(text.lines().any(is_there), "{row:?}: {text}");
    }
    // Names with slashes are names: as they are at the server's own address, in clients' characters at the other.
    let key = world.key("ada");
    for (path, name) in [
        ("/mcp/shelf", "admin/tools/list"),
        ("/mcp", "admin_tools_list"),
    ] {
        let client = Client::new(&world, path, &key);
        let answer = client.call(1, name, json!({})).to_string();
        assert!(
            answer.contains("admin/tools/list of shelf"),
            "{path}: {answer}"
        );
    }
    let target = "shelf/admin/tools/list";
    let switch = |how: &str, more: &[&str]| {
        let args = ["kill-switch", how, "--scope", "tool", "--target", target];
        world.cli(&[&args[..], more].concat())
    };
    switch("on", &["--reason", "no slashes"]);
    let client = Client::new(&world, "/mcp/shelf", &key);
    let answer = client.call(1, "admin/tools/list", json!({})).to_string();
    assert!(answer.contains("no slashes"), "{answer}");
    assert!(
        client
            .call(2, "zz", json!({}))
            .to_string()
            .contains("zz of shelf")
    );
    switch("off", &[]);
    let answer = client.call(3, "admin/tools/list", json!({})).to_string();
    assert!(answer.contains("admin/tools/list of shelf"), "{answer}");
}

#[test]
fn a_grant_tells_of_keys_that_do_not_see_it_and_only_then() {
    let world = World::new();
    world.demo("demo", &[]);
    world.demo("second", &[]);
    world.key("ada");
    let grant = |mcp: &str| world.run(&["group", "grant", "all", mcp]).stderr;
    assert!(
        !grant("second").contains("see it yet"),
        "the key was made after it"
    );
    world.demo("third", &[]);
    let told = grant("third");
    assert!(
        told.contains("1 key that exists does not see it yet"),
        "{told}"
    );
    world.cli(&["subscription", "add", "--group", "all", "third"]);
    assert!(!grant("third").contains("see it yet"));
}
