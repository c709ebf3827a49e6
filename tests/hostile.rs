//! Hostile servers: each gets a clear answer or verdict, and none of them touches anyone else.
//!
//! In every test a second user's isolate on the same gateway keeps answering, and ends the test
//! with the one run it began with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{LEGATION, PATIENCE, Session, World};

/// Resident memory the gateway may ever have had, whatever a server streams at it.
const MEMORY_MAX_KIB: u64 = 200 << 10;
/// A failed server waits this long, so a test meets its first failure and no other.
const ONE_TRY: &str = "[restart]\nfloor_ms = 20000\n";

/// A user whose isolate answers all the time.
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    calls: JoinHandle<u64>,
}

impl Bystander {
    /// Publishes a good server and has `bystander` call it until [`Bystander::unharmed`].
    pub(crate) fn begin(world: &World) -> Self {
        world.demo("well", &[]);
        let session = world.client("bystander");
        assert_eq!(session.ask("well.echo", json!({"text": "warm"})), "warm");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let calls = std::thread::spawn(move || {
            let mut calls = 0;
            while !stopped.load(Ordering::Relaxed) {
                let text = format!("call {calls}");
                let since = Instant::now();
                assert_eq!(session.ask("well.echo", json!({ "text": text })), text);
                let took = since.elapsed();
                assert!(
                    took < Duration::from_secs(10),
                    "a bystander waited {took:?}"
                );
                calls += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            calls
        });
        Self { stop, calls }
    }

    /// It answered all the time, out of one process.
    pub(crate) fn unharmed(self, world: &World) {
        self.stop.store(true, Ordering::Relaxed);
        let calls = self.calls.join().expect("the bystander's calls failed");
        assert!(calls > 0, "the bystander was never heard");
        let runs = world.isolate_detail("well", Some("bystander"))["runs"].clone();
        assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
        assert_eq!(runs[0]["verdict"], Value::Null, "{runs}");
    }
}

fn peak_kib(world: &World) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

fn bounded(world: &World) {
    let peak = peak_kib(world);
    assert!(peak < MEMORY_MAX_KIB, "the gateway grew to {peak} KiB");
}

/// The problem document of a command that must fail.
fn refused(world: &World, args: &[&str], exit: i32) -> Value {
    let ran = world.run(&[&["-o", "json", "--yes"], args].concat());
    assert_eq!(ran.code, exit, "{args:?}: {}\n{}", ran.stdout, ran.stderr);
    serde_json::from_str(&ran.stderr).unwrap_or_else(|_| panic!("no problem: {}", ran.stderr))
}

fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// The newest run of alice's isolate of `bad`, once it has ended.
fn ended_run(world: &World) -> Value {
    world.until("the run's verdict is in", |world| {
        let runs = world.isolate_detail("bad", Some("alice"))["runs"].clone();
        let ended = runs
            .as_array()?
            .iter()
            .find(|run| run["verdict"] != Value::Null)?
            .clone();
        Some(ended)
    })
}

/// A server that never becomes ready: discovery says why, and so does a call, when the definition
/// of a published server was changed to it.
fn never_ready(mode: &str, config: &str, kind: &str, words: &[&str]) {
    let world = World::with(&format!("{ONE_TRY}{config}"));
    let bystander = Bystander::begin(&world);
    let command = [LEGATION, "demo-mcp", "--misbehave", mode];
    let mut add = vec!["mcp", "add", "bad", "--start-timeout", "2s", "--"];
    add.extend(command);
    world.cli(&add);
    let problem = refused(&world, &["mcp", "discover", "bad"], 1);
    assert_eq!(problem["code"], "discover_failed", "{problem}");
    assert_says(problem["detail"].as_str().unwrap(), words);
    let problem = refused(&world, &["mcp", "publish", "bad"], 1);
    assert_eq!(problem["code"], "discover_failed", "{problem}");

    world.cli(&["mcp", "update", "bad", "--", LEGATION, "demo-mcp"]);
    world.cli(&["mcp", "publish", "bad"]);
    world.cli(&["group", "grant", "all", "bad"]);
    let alice = world.client("alice");
    world.cli(&[&["mcp", "update", "bad", "--"], &command[..]].concat());
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.code(), "backing_off", "{}", answer.text());
    assert_says(&answer.text(), words);
    let run = ended_run(&world);
    assert_eq!(run["verdict_kind"], kind, "{run}");
    assert_says(run["verdict"].as_str().unwrap(), words.get(..1).unwrap());
    bounded(&world);
    bystander.unharmed(&world);
}

/// A published server that behaves until it is called, its user, and a bystander.
fn published(mode: &str, config: &str, options: &[&str]) -> (World, Bystander, Session) {
    let world = World::with(&format!("{ONE_TRY}{config}"));
    let bystander = Bystander::begin(&world);
    world.misbehaving("bad", options, &[mode]);
    let alice = world.client("alice");
    (world, bystander, alice)
}

/// A server that dies of its first call, in this way.
fn dies_of_a_call(mode: &str, config: &str, kind: &str, words: &[&str]) {
    let (world, bystander, alice) = published(mode, config, &[]);
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.code(), "run_ended", "{}", answer.text());
    assert_says(&answer.text(), words);
    let run = ended_run(&world);
    assert_eq!(run["verdict_kind"], kind, "{run}");
    bounded(&world);
    bystander.unharmed(&world);
}

#[test]
fn garbage_for_ever_is_a_failed_handshake() {
    never_ready(
        "garbage",
        "",
        "handshake",
        &["no answer to initialize within 2 s"],
    );
}

#[test]
fn garbage_before_the_handshake_is_kept_and_never_fatal() {
    let (world, bystander, alice) = published("garbage_then_ok=100", "", &[]);
    assert_eq!(alice.ask("bad.echo", json!({"text": "x"})), "x");
    let detail = world.isolate_detail("bad", Some("alice"));
    assert_eq!(detail["runs"][0]["noise_lines"], 100, "{detail}");
    let kept = detail["runs"][0]["noise_tail"].as_array().unwrap();
    assert!(kept.len() <= 32, "{} lines are kept", kept.len());
    assert_says(kept.last().unwrap().as_str().unwrap(), &["garbage 99"]);
    let isolate = detail["view"]["id"].as_str().unwrap();
    for look in ["show", "logs"] {
        let ran = world.run(&["isolate", look, isolate]);
        assert_says(&ran.stdout, &["garbage 99"]);
        let both = ran.stdout + &ran.stderr;
        assert_says(&both, &["that", "no JSON-RPC"]);
    }
    bystander.unharmed(&world);
}

#[test]
fn a_discovery_names_what_was_no_answer() {
    let world = World::with(ONE_TRY);
    let mut add = vec!["mcp", "add", "bad", "--start-timeout", "2s", "--"];
    add.extend([LEGATION, "demo-mcp", "--misbehave", "garbage"]);
    world.cli(&add);
    let problem = refused(&world, &["mcp", "discover", "bad"], 1);
    let last = "lines to stdout that are no JSON-RPC, the last: ";
    let words = ["no answer to initialize within 2 s", last];
    assert_says(problem["detail"].as_str().unwrap(), &words);
}

#[test]
fn a_line_of_1_gb_ends_a_start_and_is_never_held() {
    never_ready(
        "giant_line",
        "",
        "protocol",
        &["a line of more than 16777216 bytes"],
    );
}

#[test]
fn a_line_over_a_smaller_cap_ends_a_start() {
    let config = "[calls]\nline_bytes_max = 65536\nresponse_bytes_max = 65536\n";
    never_ready(
        "giant_line=70000",
        config,
        "protocol",
        &["a line of more than 65536 bytes"],
    );
}

#[test]
fn a_line_of_1_gb_as_an_answer_ends_the_run_and_is_never_held() {
    let words = ["broke the protocol", "a line of more than 16777216 bytes"];
    dies_of_a_call("giant_line_on_call", "", "protocol", &words);
}

#[test]
fn an_answer_over_a_smaller_cap_ends_the_run() {
    let config = "[calls]\nline_bytes_max = 65536\nresponse_bytes_max = 65536\n";
    let words = ["a line of more than 65536 bytes"];
    dies_of_a_call("giant_line_on_call=70000", config, "protocol", &words);
}

#[test]
fn a_server_that_never_reads_is_a_failed_handshake() {
    never_ready(
        "never_read",
        "",
        "handshake",
        &["no answer to initialize within 2 s"],
    );
}

#[test]
fn a_server_that_stops_reading_times_its_callers_out_and_fills_nothing() {
    let options = ["--call-timeout", "1s"];
    let (world, bystander, alice) = published("never_read_after_handshake", "", &options);
    // More than a pipe holds, and together more than one writer's queue may.
    let big = "x".repeat(2 << 20);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let answer = alice.call("bad.echo", json!({ "text": big }));
                let code = answer.code();
                assert!(
                    matches!(code.as_str(), "call_timeout" | "busy"),
                    "{}",
                    answer.text()
                );
            });
        }
    });
    // Whoever was told that time ran out may be a moment ahead of the place that is given back.
    let answer = world.until("there is room again", |_| {
        let answer = alice.call("bad.echo", json!({"text": "small"}));
        (answer.code() != "busy").then_some(answer)
    });
    assert_eq!(answer.code(), "call_timeout", "{}", answer.text());
    world.until("nothing is in flight", |world| {
        (world.isolate("bad", Some("alice"))["in_flight"] == 0).then_some(())
    });
    bounded(&world);
    bystander.unharmed(&world);
}

#[test]
fn a_flood_of_stderr_blocks_nobody_and_is_kept_short() {
    let (world, bystander, alice) = published("flood_stderr", "", &[]);
    for n in 0..50 {
        let text = n.to_string();
        assert_eq!(alice.ask("bad.echo", json!({ "text": text })), text);
    }
    let flooded = world.until("64 MiB of stderr have come", |world| {
        let run = world.isolate_detail("bad", Some("alice"))["runs"][0].clone();
        (run["stderr_lines"].as_u64()? > (64 << 20) / 4096).then_some(run)
    });
    let kept: usize = flooded["stderr_tail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line.as_str().unwrap().len())
        .sum();
    assert!(kept <= 32 << 10, "{kept} bytes of stderr are kept");
    assert!(
        flooded["stderr_dropped_bytes"].as_u64().unwrap() > 32 << 20,
        "{flooded}"
    );
    bounded(&world);
    bystander.unharmed(&world);
}

#[test]
fn a_server_that_exits_at_once_is_told_with_its_last_words() {
    let words = ["exited with code 3", "cannot start: told to exit at once"];
    never_ready("exit_at_once=3", "", "exited", &words);
}

#[test]
fn a_server_that_cannot_be_executed_is_quarantined_at_once() {
    let (world, bystander, alice) = published("hang_on_call", "", &[]);
    world.cli(&[
        "mcp",
        "update",
        "bad",
        "--",
        LEGATION,
        "demo-mcp",
        "--misbehave",
        "exit_at_once=127",
    ]);
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "quarantined", "{}", answer.text());
    assert_says(
        &answer.text(),
        &["exited with code 127", "told to exit at once"],
    );
    bystander.unharmed(&world);
}

#[test]
fn a_server_that_ignores_term_is_stopped_all_the_same() {
    let (world, bystander, alice) = published("ignore_term", "", &["--idle", "1s"]);
    assert_eq!(alice.ask("bad.echo", json!({"text": "x"})), "x");
    let pid = world.isolate("bad", Some("alice"))["pid"].as_i64().unwrap();
    let run = ended_run(&world);
    assert_eq!(run["verdict_kind"], "idle", "{run}");
    world.until("its init is gone", |_| {
        (!std::path::Path::new(&format!("/proc/{pid}")).exists()).then_some(())
    });
    assert_eq!(alice.ask("bad.echo", json!({"text": "again"})), "again");
    bystander.unharmed(&world);
}

#[test]
fn a_server_that_forks_away_with_its_pipes_has_ended_and_leaves_nothing() {
    let (world, bystander, alice) = published("hang_on_call", "", &[]);
    let command = [LEGATION, "demo-mcp", "--misbehave", "daemonize"];
    world.cli(&[&["mcp", "update", "bad", "--"], &command[..]].concat());
    // What was forked away holds the pipes and may even answer, until the end of the process that
    // was started is noticed: then all of it goes.
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    let code = answer.code();
    assert!(
        matches!(code.as_str(), "" | "run_ended" | "backing_off"),
        "{}",
        answer.text()
    );
    let run = ended_run(&world);
    assert_eq!(run["verdict"], "exited with code 0", "{run}");
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "backing_off", "{}", answer.text());
    assert_says(&answer.text(), &["exited with code 0"]);
    world.until("only the bystander's are left", |world| {
        let home = world.isolate("bad", Some("alice"));
        (home["pid"] == Value::Null && world.processes().len() == 1).then_some(())
    });
    bystander.unharmed(&world);
}

#[test]
fn what_a_server_left_behind_dies_with_it_and_delays_nobody() {
    let world = World::with(ONE_TRY);
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let alice = world.client("alice");
    let before = world.processes();
    let forked = alice.ask(
        "bad.fork",
        json!({"n": 5, "seconds": 600, "hold_pipes": true}),
    );
    assert_says(&forked, &["pids"]);
    // The server and the five; one that is just being executed has no environment to be found by.
    world.until("the server and the five run", |world| {
        (world.processes().len() >= before.len() + 6).then_some(())
    });
    let since = Instant::now();
    let answer = alice.call("bad.crash", json!({"code": 9}));
    assert_eq!(answer.code(), "run_ended", "{}", answer.text());
    assert!(
        since.elapsed() < Duration::from_secs(5),
        "{:?}",
        since.elapsed()
    );
    world.until("the orphans are gone", |world| {
        (world.processes().len() <= before.len()).then_some(())
    });
    let run = ended_run(&world);
    assert_eq!(run["verdict"], "exited with code 9", "{run}");
    bystander.unharmed(&world);
}

/// Answers of hostile servers never reach another call.
fn answers_stay_with_their_calls(mode: &str) {
    let (world, bystander, alice) = published(mode, "", &[]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let alice = &alice;
            scope.spawn(move || {
                for n in 0..25 {
                    let nonce = format!("{thread}-{n}");
                    let answer = alice.call("bad.echo", json!({"text": "x", "nonce": nonce}));
                    assert_eq!(answer.code(), "");
                    assert_eq!(answer.json()["result"][1]["text"], nonce);
                }
            });
        }
    });
    let count: Value = serde_json::from_str(&alice.ask("bad.count", json!({}))).unwrap();
    assert_eq!(count["tools"]["echo"], 200, "{count}");
    let runs = world.isolate_detail("bad", Some("alice"))["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    bystander.unharmed(&world);
}

#[test]
fn a_second_answer_goes_nowhere() {
    answers_stay_with_their_calls("answer_twice");
}

#[test]
fn an_answer_nobody_asked_for_goes_nowhere() {
    answers_stay_with_their_calls("answer_unasked");
}

#[test]
fn a_server_that_hangs_in_the_handshake_is_given_up_in_time() {
    never_ready(
        "hang_handshake",
        "",
        "handshake",
        &["no answer to initialize within 2 s"],
    );
}

#[test]
fn a_server_that_dies_in_the_handshake_is_told() {
    never_ready("die_in_handshake=4", "", "exited", &["exited with code 4"]);
}

#[test]
fn a_server_that_refuses_the_handshake_is_quoted() {
    never_ready(
        "refuse_handshake",
        "",
        "handshake",
        &["this server refuses everyone"],
    );
}

#[test]
fn a_wrong_answer_to_initialize_is_named() {
    let words = ["the answer to initialize is not of its shape"];
    never_ready("wrong_init_shape", "", "handshake", &words);
}

#[test]
fn an_unknown_protocol_version_is_named() {
    never_ready("wrong_version", "", "handshake", &["1999-01-01"]);
}

#[test]
fn a_wrong_tool_list_is_named() {
    let words = ["the answer to tools/list is not of its shape"];
    never_ready("wrong_list_shape", "", "handshake", &words);
}

#[test]
fn an_endless_tool_list_ends() {
    never_ready(
        "tools_list_forever",
        "",
        "handshake",
        &["its tool list does not end"],
    );
}

#[test]
fn too_many_tools_are_refused_with_their_number() {
    never_ready(
        "tools_list_huge=5000",
        "",
        "handshake",
        &["5000 tools", "1000"],
    );
}

#[test]
fn a_server_that_closes_stdout_and_lives_on_is_ended() {
    let words = ["it closed stdout and lived on"];
    dies_of_a_call("close_stdout", "", "protocol", &words);
}

#[test]
fn a_server_that_dies_of_a_call_answers_it() {
    dies_of_a_call("die_on_call=7", "", "exited", &["exited with code 7"]);
}

#[test]
fn a_server_that_is_killed_by_a_signal_answers_its_call() {
    dies_of_a_call("kill_self_on_call", "", "signaled", &["ended by signal 9"]);
}

#[test]
fn a_server_that_never_answers_a_call_is_told_to_stop_and_goes_on() {
    let (world, bystander, alice) = published("hang_on_call", "", &["--call-timeout", "1s"]);
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "call_timeout", "{}", answer.text());
    assert_says(&answer.text(), &["did not answer within 1 s"]);
    let runs = world.isolate_detail("bad", Some("alice"))["runs"].clone();
    assert_eq!(
        runs[0]["verdict"],
        Value::Null,
        "a slow tool is no crash: {runs}"
    );
    bystander.unharmed(&world);
}

#[test]
fn invalid_utf8_never_reaches_a_client() {
    let (world, bystander, alice) = published("invalid_utf8", "", &["--call-timeout", "1s"]);
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert!(std::str::from_utf8(&answer.body).is_ok(), "{answer:?}");
    assert_eq!(answer.code(), "call_timeout", "{}", answer.text());
    // The line is no JSON: it is kept as noise, where a person finds it.
    let run = world.isolate_detail("bad", Some("alice"))["runs"][0].clone();
    assert_eq!(run["noise_lines"], 1, "{run}");
    bystander.unharmed(&world);
}

#[test]
fn a_result_of_the_wrong_shape_is_a_server_error() {
    let (world, bystander, alice) = published("wrong_result_shape", "", &[]);
    let answer = alice.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.code(),
        "server_error",
        "{}",
        String::from_utf8_lossy(&answer.body)
    );
    let runs = world.isolate_detail("bad", Some("alice"))["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "{runs}");
    bystander.unharmed(&world);
}

#[test]
fn a_start_that_is_slow_is_waited_for() {
    let (world, bystander, alice) = published("slow_start=1500", "", &[]);
    let since = Instant::now();
    assert_eq!(alice.ask("bad.echo", json!({"text": "x"})), "x");
    assert!(since.elapsed() < PATIENCE);
    let run = world.isolate_detail("bad", Some("alice"))["runs"][0].clone();
    assert!(run["ready_after_ms"].as_u64().unwrap() >= 1500, "{run}");
    bystander.unharmed(&world);
}
