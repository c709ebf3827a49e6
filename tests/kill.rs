//! Kill switches, suspensions and cancelled calls, from outside: what is killed is dead, what was
//! acknowledged holds, and nobody else loses anything.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection;

use crate::hostile::Bystander;
use crate::processes::{inhabitants, no_zombies, pid_of};
use crate::tools;
use crate::world::{Answer, Http, LEGATION, Ran, Session, World, am_root};

/// Checks a call that was refused or cut off by a deny; its text.
fn denied(answer: &Answer, code: &str, scope: &str, reason: &str) -> String {
    let body = answer.json();
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (200, code),
        "{body}"
    );
    let metadata = &body["metadata"];
    assert_eq!(metadata["scope"], scope, "{body}");
    assert_eq!(metadata["reason"], reason, "{body}");
    assert_eq!(metadata["retryable"], false, "{body}");
    let text = answer.text();
    assert!(text.contains(reason), "{text}");
    text
}

fn switched_off(answer: &Answer, scope: &str, reason: &str) -> String {
    denied(answer, "kill_switch_active", scope, reason)
}

fn on(world: &World, scope: &str, target: &str, reason: &str) -> Value {
    let mut words = vec!["kill-switch", "on", "--scope", scope, "--reason", reason];
    if !target.is_empty() {
        words.extend(["--target", target]);
    }
    world.cli(&words)
}

fn off(world: &World, scope: &str, target: &str) -> Value {
    let mut words = vec!["kill-switch", "off", "--scope", scope];
    if !target.is_empty() {
        words.extend(["--target", target]);
    }
    world.cli(&words)
}

fn run_of(session: &Session, mcp: &str) -> String {
    let told = session.ask(&format!("{mcp}.whoami"), json!({}));
    let me: Value = serde_json::from_str(&told).unwrap();
    me["run"].as_str().unwrap().to_owned()
}

fn sleeping(session: &Session, tool: &str, ms: u64) -> thread::JoinHandle<Answer> {
    let (session, tool) = (session.clone(), tool.to_owned());
    thread::spawn(move || session.call(&tool, json!({ "ms": ms })))
}

/// Waits until so many calls are under way in this state.
fn under_way(world: &World, state: &str, calls: usize) -> Vec<Value> {
    world.until("the calls are under way", |world| {
        let mut list = world.cli(&["call", "list"]).as_array().cloned()?;
        list.retain(|call| call["state"] == state);
        (list.len() == calls).then_some(list)
    })
}

/// The ids of a user's keys, oldest first.
fn keys_of(world: &World, user: &str) -> Vec<String> {
    let keys = world.cli(&["key", "list", "--user", user]);
    let ids = keys.as_array().unwrap().iter();
    ids.map(|key| key["id"].as_str().unwrap().to_owned())
        .collect()
}

fn refuses(world: &World, exit: i32, code: &str, words: &[&str]) -> Value {
    let ran = world.run(&[&["-o", "json", "--yes"], words].concat());
    assert_eq!(ran.code, exit, "{words:?}: {}{}", ran.stdout, ran.stderr);
    let problem: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    assert_eq!(problem["code"], code, "{problem}");
    problem
}

// === the five scopes ===

#[test]
fn a_tool_is_switched_off_and_its_process_serves_the_others() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    let before = run_of(&ada, "demo");
    let cut = sleeping(&ada, "demo.sleep", 600_000);
    under_way(&world, "in_flight", 1);
    let spared = {
        let ada = ada.clone();
        thread::spawn(move || ada.call("demo.whoami", json!({})))
    };
    assert!(ada.tools().contains(&"sleep".to_owned()));
    let report = on(&world, "tool", "demo/sleep", "it leaks");
    assert_eq!(report["isolates_stopped"], 0, "{report}");
    assert_eq!(report["calls_cancelled"], 1, "{report}");
    assert_eq!(report["deny"]["stored"], true, "{report}");
    assert_eq!(report["not_recorded"], Value::Null, "{report}");
    switched_off(&cut.join().unwrap(), "tool", "it leaks");
    assert_eq!(spared.join().unwrap().code(), "");
    for session in [&ada, &ben] {
        let text = switched_off(
            &session.call("demo.sleep", json!({"ms": 1})),
            "tool",
            "it leaks",
        );
        assert!(
            text.contains("`sleep`") && text.contains("`demo`"),
            "{text}"
        );
        assert!(!session.tools().contains(&"sleep".to_owned()));
        assert_eq!(session.ask("demo.echo", json!({"text": "on"})), "on");
    }
    assert_eq!(run_of(&ada, "demo"), before, "the process goes on");
    // The server was told to stop working on that one call.
    let count: Value = serde_json::from_str(&ada.ask("demo.count", json!({}))).unwrap();
    assert_eq!(count["cancelled"], 1, "{count}");
    off(&world, "tool", "demo/sleep");
    assert_eq!(ada.ask("demo.sleep", json!({"ms": 1})), "slept 1 ms");
    assert!(ada.tools().contains(&"sleep".to_owned()));
}

#[test]
fn an_mcp_is_switched_off_for_everybody_and_its_processes_are_gone_before_the_answer() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for session in [&ada, &ben] {
        session.ask(
            "bad.fork",
            json!({"n": 3, "seconds": 600, "hold_pipes": true}),
        );
    }
    let trees: Vec<i32> = ["ada", "ben"]
        .iter()
        .flat_map(|user| inhabitants(&world.isolate("bad", Some(user))))
        .collect();
    assert!(trees.len() >= 8, "{trees:?}");
    let calls: Vec<_> = [&ada, &ben, &ada]
        .iter()
        .map(|session| sleeping(session, "bad.sleep", 600_000))
        .collect();
    under_way(&world, "in_flight", 3);
    let report = on(&world, "mcp", "bad", "it smells of smoke");
    let alive: Vec<&i32> = trees
        .iter()
        .filter(|pid| Path::new(&format!("/proc/{pid}")).exists())
        .collect();
    assert!(alive.is_empty(), "outlived the answer: {alive:?}");
    assert_eq!(
        (&report["isolates_stopped"], &report["calls_cancelled"]),
        (&json!(2), &json!(3)),
        "{report}"
    );
    assert_eq!(report["stopped"].as_array().map(Vec::len), Some(2));
    let times: Vec<u64> = ["journal_us", "told_us", "killed_us", "gone_us"]
        .iter()
        .map(|time| report[*time].as_u64().unwrap())
        .collect();
    assert!(times[0] > 0 && times.is_sorted(), "{times:?}");
    for call in calls {
        switched_off(&call.join().unwrap(), "mcp", "it smells of smoke");
    }
    switched_off(
        &ada.call("bad.echo", json!({"text": "x"})),
        "mcp",
        "it smells of smoke",
    );
    let tools = ada.tools();
    assert!(
        !tools.iter().any(|tool| tool.starts_with("bad")),
        "{tools:?}"
    );
    refuses(&world, 4, "kill_switch_active", &["mcp", "discover", "bad"]);
    let id = world.isolate("bad", Some("ada"))["id"].clone();
    refuses(
        &world,
        6,
        "conflict",
        &["isolate", "restart", id.as_str().unwrap()],
    );
    // `mcp suspend` is the same by another name.
    world.cli(&["mcp", "resume", "bad"]);
    assert_eq!(ada.ask("bad.echo", json!({"text": "back"})), "back");
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn a_user_is_switched_off_alone_also_in_what_is_shared() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("own", &[]);
    world.demo("hub", &["--sharing", "shared"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for session in [&ada, &ben] {
        session.ask("own.echo", json!({"text": "warm"}));
        session.ask("hub.echo", json!({"text": "warm"}));
    }
    let hub = run_of(&ben, "hub");
    let hers = inhabitants(&world.isolate("own", Some("ada")));
    let cut = [
        sleeping(&ada, "own.sleep", 600_000),
        sleeping(&ada, "hub.sleep", 600_000),
    ];
    let spared = [
        sleeping(&ben, "own.sleep", 1500),
        sleeping(&ben, "hub.sleep", 1500),
    ];
    under_way(&world, "in_flight", 4);
    let report = on(&world, "user", "ada", "left the firm");
    assert_eq!(report["isolates_stopped"], 1, "{report}");
    assert_eq!(report["calls_cancelled"], 2, "{report}");
    assert_eq!(report["sessions_ended"], 0, "a kill switch ends no session");
    for pid in hers {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
    }
    for call in cut {
        switched_off(&call.join().unwrap(), "user", "left the firm");
    }
    for call in spared {
        assert_eq!(call.join().unwrap().text(), "slept 1500 ms");
    }
    assert_eq!(run_of(&ben, "hub"), hub, "the shared process goes on");
    // Sessions live: 200 with the reason, not 401.
    switched_off(
        &ada.call("hub.echo", json!({"text": "x"})),
        "user",
        "left the firm",
    );
    assert_eq!(ada.tools(), Vec::<String>::new());
    off(&world, "user", "ada");
    assert_eq!(ada.ask("own.echo", json!({"text": "back"})), "back");
    bystander.unharmed(&world);
}

#[test]
fn a_client_is_switched_off_and_its_users_other_clients_are_not() {
    let world = World::new();
    world.demo("own", &[]);
    world.demo("solo", &["--sharing", "per_session"]);
    let one = world.client("ada");
    let key = keys_of(&world, "ada").remove(0);
    let two = world.client("ada");
    for session in [&one, &two] {
        session.ask("own.echo", json!({"text": "warm"}));
        session.ask("solo.echo", json!({"text": "warm"}));
    }
    let own = run_of(&two, "own");
    let solo = run_of(&two, "solo");
    let cut = [
        sleeping(&one, "own.sleep", 600_000),
        sleeping(&one, "solo.sleep", 600_000),
    ];
    let spared = [
        sleeping(&two, "own.sleep", 1500),
        sleeping(&two, "solo.sleep", 1500),
    ];
    under_way(&world, "in_flight", 4);
    let report = on(&world, "client", &key, "stolen laptop");
    assert_eq!(report["isolates_stopped"], 1, "{report}");
    assert_eq!(report["stopped"][0]["mcp"], "solo", "{report}");
    assert_eq!(report["calls_cancelled"], 2, "{report}");
    for call in cut {
        switched_off(&call.join().unwrap(), "client", "stolen laptop");
    }
    for call in spared {
        assert_eq!(call.join().unwrap().text(), "slept 1500 ms");
    }
    assert_eq!((run_of(&two, "own"), run_of(&two, "solo")), (own, solo));
    switched_off(
        &one.call("own.echo", json!({"text": "x"})),
        "client",
        "stolen laptop",
    );
    // A prefix of the key's id will do.
    off(&world, "client", &key);
    assert_eq!(one.ask("solo.echo", json!({"text": "back"})), "back");
}

#[test]
fn everything_is_switched_off() {
    let world = World::new();
    world.demo("own", &[]);
    world.demo("hub", &["--sharing", "shared"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for session in [&ada, &ben] {
        session.ask("own.echo", json!({"text": "warm"}));
        session.ask("hub.echo", json!({"text": "warm"}));
    }
    let calls = [
        sleeping(&ada, "hub.sleep", 600_000),
        sleeping(&ben, "own.sleep", 600_000),
    ];
    under_way(&world, "in_flight", 2);
    let report = on(&world, "all", "", "incident 7");
    assert_eq!(report["isolates_stopped"], 3, "{report}");
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    for call in calls {
        switched_off(&call.join().unwrap(), "all", "incident 7");
    }
    switched_off(
        &ben.call("hub.echo", json!({"text": "x"})),
        "all",
        "incident 7",
    );
    // Clients may register, and see that it is off.
    let cleo = world.client("cleo");
    assert_eq!(cleo.tools(), Vec::<String>::new());
    let status = world.status();
    assert_eq!(status["kill_switches"], 1, "{status}");
    let screen = world.run(&["status"]).stdout;
    assert!(screen.contains("incident 7"), "{screen}");
    off(&world, "all", "");
    assert_eq!(cleo.ask("hub.echo", json!({"text": "back"})), "back");
}

// === starts ===

#[test]
fn calls_that_wait_for_a_start_are_told_at_once_and_what_starts_never_serves() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.misbehaving("slow", &[], &["slow_start=1500"]);
    let users: Vec<Session> = (0..6).map(|n| world.client(&format!("user{n}"))).collect();
    let barrier = Barrier::new(users.len() + 1);
    thread::scope(|scope| {
        let calls: Vec<_> = users
            .iter()
            .map(|user| {
                scope.spawn(|| {
                    barrier.wait();
                    let answer = user.call("slow.echo", json!({"text": "x"}));
                    (answer, Instant::now())
                })
            })
            .collect();
        barrier.wait();
        under_way(&world, "waiting", users.len());
        let report = on(&world, "mcp", "slow", "not now");
        assert_eq!(report["calls_cancelled"], 6, "{report}");
        let answered = Instant::now();
        for call in calls {
            let (answer, at) = call.join().unwrap();
            switched_off(&answer, "mcp", "not now");
            // Told by the switch, not by the end of the start.
            assert!(at <= answered + Duration::from_millis(500));
        }
    });
    for isolate in world.isolates() {
        if isolate["mcp"] == "slow" {
            assert_eq!(isolate["state"], "resting", "{isolate}");
            assert_eq!(isolate["pid"], Value::Null, "{isolate}");
        }
    }
    bystander.unharmed(&world);
}

#[test]
fn a_switch_that_races_many_starts_leaves_no_process() {
    let world = World::new();
    world.demo("demo", &[]);
    let users: Vec<Session> = (0..8).map(|n| world.client(&format!("user{n}"))).collect();
    for round in 0..4u64 {
        thread::scope(|scope| {
            let calls: Vec<_> = users
                .iter()
                .map(|user| scope.spawn(|| user.call("demo.echo", json!({"text": "x"}))))
                .collect();
            thread::sleep(Duration::from_millis(round * 7));
            on(&world, "mcp", "demo", "race");
            // The answer is the promise: from here on nothing of it runs.
            assert!(world.processes().is_empty(), "{:?}", world.processes());
            for call in calls {
                let answer = call.join().unwrap();
                if !answer.code().is_empty() {
                    switched_off(&answer, "mcp", "race");
                }
            }
        });
        let states: Vec<Value> = world
            .isolates()
            .iter()
            .map(|one| one["state"].clone())
            .collect();
        assert!(states.iter().all(|state| state == "resting"), "{states:?}");
        off(&world, "mcp", "demo");
    }
}

// === durability ===

#[test]
fn the_state_holds_after_a_restart_and_after_a_kill() {
    let mut world = World::new();
    world.demo("demo", &[]);
    world.demo("other", &[]);
    let ada = world.client("ada");
    on(&world, "mcp", "demo", "leaks");
    on(&world, "tool", "other/sleep", "slow");
    on(&world, "user", "ada", "brief");
    off(&world, "user", "ada");
    for kill in [false, true] {
        if kill {
            world.kill_9();
        } else {
            assert_eq!(world.stop(), 0);
        }
        world.start();
        let ada = Session {
            http: Http::new(&world.url),
            ..ada.clone()
        };
        switched_off(&ada.call("demo.echo", json!({"text": "x"})), "mcp", "leaks");
        switched_off(&ada.call("other.sleep", json!({"ms": 1})), "tool", "slow");
        assert_eq!(ada.ask("other.echo", json!({"text": "x"})), "x");
        let list = world.cli(&["kill-switch", "list"]);
        assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
        let past = world.cli(&["kill-switch", "list", "--history"]);
        let brief = past
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["reason"] == "brief")
            .unwrap();
        assert_eq!(brief["state"], "lifted", "{brief}");
        let id = brief["id"].as_str().unwrap();
        assert_eq!(world.cli(&["kill-switch", "show", id])["reason"], "brief");
    }
}

/// A command of the product against a data directory, which the gateway may leave in the middle.
fn legation(data: &Path, words: &[&str]) -> Option<i32> {
    let ran = Command::new(LEGATION)
        .args(["-o", "json", "--yes"])
        .args(words)
        .env("LEGATION_DATA_DIR", data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    ran.status.code()
}

/// What a target may be after a crash: what was acknowledged, or what was being asked for.
#[derive(Debug, Clone, Copy)]
struct May {
    on: bool,
    off: bool,
}

#[test]
fn every_acknowledged_switch_holds_whenever_the_gateway_is_killed() {
    const ROUNDS: u64 = 12;
    let mut world = World::new();
    let names = ["m0", "m1", "m2"];
    for name in names {
        world.demo(name, &[]);
    }
    let data = world.data_dir();
    let known = Mutex::new(BTreeMap::new());
    for name in names {
        known.lock().unwrap().insert(
            name,
            May {
                on: false,
                off: true,
            },
        );
    }
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        let stop = AtomicBool::new(false);
        let count = Mutex::new(0);
        thread::scope(|scope| {
            for name in names {
                let (known, stop, data, count) = (&known, &stop, &data, &count);
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let was_on = known.lock().unwrap()[name].on;
                        // Until it is acknowledged both may be.
                        known.lock().unwrap().insert(
                            name,
                            May {
                                on: true,
                                off: true,
                            },
                        );
                        let done = if was_on {
                            let words = ["kill-switch", "off", "--scope", "mcp", "--target", name];
                            legation(data, &words)
                        } else {
                            let words = [
                                "kill-switch",
                                "on",
                                "--scope",
                                "mcp",
                                "--target",
                                name,
                                "--reason",
                                "to and fro",
                            ];
                            legation(data, &words)
                        };
                        if done != Some(0) {
                            return;
                        }
                        let now = May {
                            on: !was_on,
                            off: was_on,
                        };
                        known.lock().unwrap().insert(name, now);
                        *count.lock().unwrap() += 1;
                    }
                });
            }
            // Not a wait for anything: a moment that is another one each time.
            thread::sleep(Duration::from_millis(150 + (round * 7919) % 400));
            world.kill_9();
            stop.store(true, Ordering::Relaxed);
        });
        acknowledged += *count.lock().unwrap();
        world.start();
        let list = world.cli(&["kill-switch", "list"]);
        let active: Vec<&str> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["label"].as_str().unwrap())
            .collect();
        for name in names {
            let is_on = active.contains(&name);
            let may = known.lock().unwrap()[name];
            assert!(
                if is_on { may.on } else { may.off },
                "round {round}: {name} is on: {is_on}, but {may:?}: {list}\n{}",
                world.log()
            );
            let now = May {
                on: is_on,
                off: !is_on,
            };
            known.lock().unwrap().insert(name, now);
        }
        // The store says the same as soon as it has heard of it.
        world.until("the store has it all", |world| {
            let list = world.cli(&["kill-switch", "list"]);
            let all = list.as_array()?;
            all.iter().all(|one| one["stored"] == true).then_some(())
        });
    }
    assert!(
        acknowledged > ROUNDS,
        "only {acknowledged} were acknowledged"
    );
}

#[test]
fn a_damaged_journal_stops_the_start_and_a_torn_line_does_not() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    on(&world, "mcp", "demo", "leaks");
    on(&world, "user", "ada", "also");
    world.kill_9();
    let journal = world.data_dir().join("kill.journal");
    let whole = std::fs::read(&journal).unwrap();
    // A record that was never acknowledged.
    std::fs::write(
        &journal,
        [&whole[..], b"0123456789abcdef {\"op\":\"of"].concat(),
    )
    .unwrap();
    world.start();
    assert!(world.log().contains("torn"), "{}", world.log());
    let moved = Session {
        http: Http::new(&world.url),
        ..ada
    };
    switched_off(
        &moved.call("demo.echo", json!({"text": "x"})),
        "user",
        "also",
    );
    world.kill_9();
    let mut bad = whole.clone();
    bad[30] ^= 1;
    std::fs::write(&journal, &bad).unwrap();
    let ran = Command::new(LEGATION)
        .args(["-o", "json", "serve", "--config"])
        .arg(world.dir.path().join("legation.toml"))
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    let problem: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(problem["code"], "kill_journal_damaged", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("kill.journal") && detail.contains("line 1"),
        "{detail}"
    );
    // Set aside, as it says: the store still has what was in force.
    std::fs::rename(&journal, world.data_dir().join("aside")).unwrap();
    world.start();
    let list = world.cli(&["kill-switch", "list"]);
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
}

#[test]
fn a_switch_takes_effect_while_the_store_is_away_and_is_stored_when_it_is_back() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let thief = Thief::locks(&world);
    let call = sleeping(&ada, "demo.sleep", 600_000);
    under_way(&world, "in_flight", 1);
    let ran = world.run(&[
        "-o",
        "json",
        "--yes",
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "now",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(report["not_stored"].is_string(), "{report}");
    assert_eq!(report["deny"]["stored"], false, "{report}");
    switched_off(&call.join().unwrap(), "mcp", "now");
    switched_off(&ada.call("demo.echo", json!({"text": "x"})), "mcp", "now");
    let status = world.run(&["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["denies_not_stored"], 1, "{status}");
    thief.gives_back();
    world.until("it is stored", |world| {
        (world.cli(&["kill-switch", "list"])[0]["stored"] == true).then_some(())
    });
    // And one that is killed before it could be stored holds by the journal.
    let thief = Thief::locks(&world);
    let words = "--yes kill-switch on --scope user --target ada --reason too";
    let ran = world.run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stderr.contains("not in the database"), "{}", ran.stderr);
    world.kill_9();
    thief.gives_back();
    world.start();
    let list = world.cli(&["kill-switch", "list"]);
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    world.until("both are stored", |world| {
        let list = world.cli(&["kill-switch", "list"]);
        let all = list.as_array()?;
        all.iter().all(|one| one["stored"] == true).then_some(())
    });
}

/// Another process that holds the store's lock: what a backup gone wrong does.
struct Thief {
    runtime: tokio::runtime::Runtime,
    connection: sqlx::SqliteConnection,
}

impl Thief {
    fn locks(world: &World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let url = format!(
            "sqlite://{}",
            world.data_dir().join("legation.db").display()
        );
        let connection = runtime.block_on(async {
            let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query("BEGIN EXCLUSIVE")
                .execute(&mut connection)
                .await
                .unwrap();
            connection
        });
        Self {
            runtime,
            connection,
        }
    }

    fn gives_back(mut self) {
        let rolled = sqlx::query("ROLLBACK").execute(&mut self.connection);
        self.runtime.block_on(rolled).unwrap();
        self.runtime.block_on(self.connection.close()).unwrap();
    }
}

#[test]
fn an_administrator_who_hangs_up_leaves_no_half_switch() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let body = json!({"scope": "mcp", "target": "demo", "reason": "hung up"}).to_string();
    let request = format!(
        "POST /v1/kill-switches HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    // Its answer waits for the store, so there is a middle to leave in.
    let thief = Thief::locks(&world);
    let mut socket = UnixStream::connect(world.data_dir().join("admin.sock")).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    world.until("it is on", |world| {
        let list = world.cli(&["kill-switch", "list"]);
        (list[0]["reason"] == "hung up").then_some(())
    });
    drop(socket);
    thief.gives_back();
    world.until("the rest of it is done as well", |world| {
        let list = world.cli(&["kill-switch", "list"]);
        let log = audit(world);
        let recorded = |name: &str, value: &str| log.iter().any(|record| record[name] == value);
        (list[0]["stored"] == true
            && recorded("event", "kill.on")
            && recorded("action", "kill_switch.on"))
        .then_some(())
    });
    world.until("nothing of it runs", |world| {
        world.processes().is_empty().then_some(())
    });
    switched_off(
        &ada.call("demo.echo", json!({"text": "x"})),
        "mcp",
        "hung up",
    );
}

// === time ===

#[test]
fn a_switch_with_an_end_ends_by_itself() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    world.cli(&[
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "a while",
        "--expires",
        "2s",
    ]);
    let answer = ada.call("demo.echo", json!({"text": "x"}));
    let text = switched_off(&answer, "mcp", "a while");
    assert!(text.contains("It ends at 20"), "{text}");
    world.until("it is over", |_| {
        ada.call("demo.echo", json!({"text": "x"}))
            .code()
            .is_empty()
            .then_some(())
    });
    let past = world.until("the history says so", |world| {
        let past = world.cli(&["kill-switch", "list", "--history"]);
        (past[0]["state"] == "expired").then(|| past.clone())
    });
    assert_eq!(past[0]["lifted"]["by"], "clock", "{past}");
    assert_eq!(world.cli(&["kill-switch", "list"]), json!([]));
    // Its target may be switched off again.
    on(&world, "mcp", "demo", "again");
}

// === what does not die ===

/// A frozen cgroup of our own: what is in it does not die before it is thawed.
struct Ice(PathBuf);

impl Ice {
    fn freezes(pids: &[i32]) -> Option<Self> {
        let base = Path::new("/sys/fs/cgroup/freezer");
        if !am_root() || !base.join("tasks").exists() {
            return None;
        }
        let ice = Self(base.join(format!("legation-ice-{}", std::process::id())));
        std::fs::create_dir(&ice.0).ok()?;
        for pid in pids {
            std::fs::write(ice.0.join("cgroup.procs"), pid.to_string()).ok()?;
        }
        std::fs::write(ice.0.join("freezer.state"), "FROZEN").ok()?;
        Some(ice)
    }
}

impl Drop for Ice {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("freezer.state"), "THAWED");
        let since = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && since.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn a_process_that_cannot_be_killed_is_named_and_its_slot_stays_shut() {
    let world = World::with("[isolates]\nkill_wait_ms = 1000\n");
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let ada = world.client("ada");
    let before = run_of(&ada, "bad");
    let call = sleeping(&ada, "bad.sleep", 600_000);
    under_way(&world, "in_flight", 1);
    let isolate = world.isolate("bad", Some("ada"));
    let mut tree = inhabitants(&isolate);
    tree.push(pid_of(&isolate));
    let Some(ice) = Ice::freezes(&tree) else {
        return tools::skip(
            "a process that cannot be killed",
            "needs root and the v1 freezer",
        );
    };
    let ran: Ran = world.run(&[
        "-o",
        "json",
        "--yes",
        "kill-switch",
        "on",
        "--scope",
        "user",
        "--target",
        "ada",
        "--reason",
        "frozen",
    ]);
    assert_eq!(ran.code, 8, "{}{}", ran.stdout, ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["left"][0]["isolate"], isolate["id"], "{report}");
    assert_ne!(report["survivors"], json!([]), "{report}");
    switched_off(&call.join().unwrap(), "user", "frozen");
    world.until("the slot is stuck", |world| {
        (world.isolate("bad", Some("ada"))["state"] == "stuck").then_some(())
    });
    let words = "--yes kill-switch on --scope mcp --target bad --reason again";
    let ran = world.run(&words.split(' ').collect::<Vec<_>>());
    assert_eq!(ran.code, 8, "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("does not die"), "{}", ran.stderr);
    off(&world, "mcp", "bad");
    // Lifted, it still does not serve: the next run starts only when the last is gone.
    off(&world, "user", "ada");
    let answer = ada.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "stuck", "{}", answer.text());
    drop(ice);
    world.until("it heals", |_| {
        ada.call("bad.echo", json!({"text": "x"}))
            .code()
            .is_empty()
            .then_some(())
    });
    assert_ne!(run_of(&ada, "bad"), before);
    bystander.unharmed(&world);
}

// === suspensions ===

#[test]
fn a_suspended_key_is_out_until_resumed_and_the_users_other_key_is_not() {
    let world = World::new();
    world.demo("demo", &[]);
    let (first, second) = (world.key("ada"), world.key("ada"));
    let http = Http::new(&world.url);
    let (one, two) = (http.register(&first), http.register(&second));
    one.ask("demo.echo", json!({"text": "warm"}));
    let id = keys_of(&world, "ada")
        .into_iter()
        .find(|id| {
            let dry = world.cli(&[
                "kill-switch",
                "on",
                "--scope",
                "client",
                "--target",
                id,
                "--reason",
                "x",
                "--dry-run",
            ]);
            assert_eq!(dry["dry_run"], true);
            // Which of the two registered `one`: the one whose call is seen.
            let call = sleeping(&one, "demo.sleep", 300);
            let seen = under_way(&world, "in_flight", 1);
            call.join().unwrap();
            seen[0]["key"] == **id
        })
        .unwrap();
    let waiting = sleeping(&one, "demo.sleep", 600_000);
    under_way(&world, "in_flight", 1);
    let report = world.cli(&["key", "suspend", &id, "--reason", "stolen"]);
    assert_eq!(report["sessions_ended"], 1, "{report}");
    assert_eq!(report["calls_cancelled"], 1, "{report}");
    assert_eq!(report["deny"]["kind"], "suspension", "{report}");
    denied(
        &waiting.join().unwrap(),
        "session_suspended",
        "client",
        "stolen",
    );
    let refused = one.call("demo.echo", json!({"text": "x"}));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (401, "session_suspended")
    );
    let again = http.register_with(&first);
    assert_eq!(
        (again.status, again.code().as_str()),
        (403, "user_disabled"),
        "{again:?}"
    );
    assert!(
        String::from_utf8_lossy(&again.body).contains("stolen"),
        "{again:?}"
    );
    assert_eq!(two.ask("demo.echo", json!({"text": "on"})), "on");
    let states: Vec<Value> = world
        .cli(&["key", "list", "--user", "ada"])
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["state"].clone())
        .collect();
    assert!(states.contains(&json!("suspended")), "{states:?}");
    // A kill switch of the same key is another thing, and both may be.
    on(&world, "client", &id, "as well");
    refuses(&world, 6, "conflict", &["key", "suspend", &id]);
    world.cli(&["key", "resume", &id]);
    let anew = http.register(&first);
    switched_off(
        &anew.call("demo.echo", json!({"text": "x"})),
        "client",
        "as well",
    );
    off(&world, "client", &id);
    assert_eq!(anew.ask("demo.echo", json!({"text": "back"})), "back");
    assert_eq!(
        one.call("demo.echo", json!({"text": "x"})).status,
        401,
        "ended is ended"
    );
}

#[test]
fn parallel_calls_never_get_a_passing_401() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("demo.echo", json!({"text": "warm"}));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let callers: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(|| {
                    let (mut good, mut off) = (0u32, 0u32);
                    while !stop.load(Ordering::Relaxed) {
                        let answer = ada.call("demo.echo", json!({"text": "x"}));
                        assert_eq!(answer.status, 200, "{answer:?}");
                        match answer.code().as_str() {
                            "" => good += 1,
                            "kill_switch_active" => off += 1,
                            // Cut off by a switch that was lifted before its caller looked.
                            "cancelled" => {}
                            other => panic!("{other}: {}", answer.text()),
                        }
                    }
                    (good, off)
                })
            })
            .collect();
        for _ in 0..4 {
            on(&world, "user", "ada", "to and fro");
            world.run(&["--yes", "user", "suspend", "ben"]);
            off(&world, "user", "ada");
            world.run(&["--yes", "user", "resume", "ben"]);
        }
        let served = world.until("she is served again", |_| {
            ada.call("demo.echo", json!({"text": "x"}))
                .code()
                .is_empty()
                .then_some(true)
        });
        stop.store(true, Ordering::Relaxed);
        assert!(served);
        let told: Vec<(u32, u32)> = callers.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(told.iter().any(|(_, off)| *off > 0), "{told:?}");
        assert!(told.iter().any(|(good, _)| *good > 0), "{told:?}");
    });
    assert_eq!(ben.call("demo.echo", json!({"text": "x"})).status, 401);
}

// === the command line ===

#[test]
fn what_makes_no_sense_is_refused_with_the_nearest_that_does() {
    let world = World::new();
    world.demo("demo", &[]);
    world.key("ada");
    let switch = |scope: &str, target: &str, reason: &str, more: &[&str]| {
        let mut words = vec!["kill-switch".to_owned(), "on".to_owned()];
        for (name, value) in [
            ("--scope", scope),
            ("--target", target),
            ("--reason", reason),
        ] {
            words.extend([name.to_owned(), value.to_owned()]);
        }
        words.extend(more.iter().map(|word| (*word).to_owned()));
        words
    };
    let refused = |exit: i32, code: &str, words: Vec<String>| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refuses(&world, exit, code, &words)["next"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for (scope, target, exit, code, near) in [
        ("mcps", "demo", 2, "invalid_request", "--scope mcp"),
        ("global", "", 2, "invalid_request", ""),
        ("mcp", "dem0", 5, "not_found", "demo"),
        ("mcp", "zebra", 5, "not_found", "legation mcp list"),
        ("tool", "demo/ecko", 5, "not_found", "demo/echo"),
        ("tool", "demo", 5, "not_found", "mcp/tool"),
        ("user", "adda", 5, "not_found", "ada"),
        ("client", "key_zzzz", 5, "not_found", "legation key list"),
        ("all", "everyone", 5, "not_found", "all"),
    ] {
        let next = refused(exit, code, switch(scope, target, "r", &[]));
        assert!(next.contains(near), "{scope} {target}: {next}");
    }
    refused(2, "invalid_request", switch("mcp", "demo", "  ", &[]));
    refused(
        2,
        "invalid_request",
        switch("mcp", "demo", &"x".repeat(501), &[]),
    );
    let past = switch("mcp", "demo", "r", &["--expires", "2001-01-01T00:00:00Z"]);
    refused(2, "invalid_request", past);
    let first = on(&world, "mcp", "demo", "the first");
    let taken = refuses(
        &world,
        6,
        "conflict",
        &[
            "kill-switch",
            "on",
            "--scope",
            "mcp",
            "--target",
            "demo",
            "--reason",
            "second",
        ],
    );
    let detail = taken["detail"].as_str().unwrap();
    assert!(
        detail.contains(first["deny"]["id"].as_str().unwrap()) && detail.contains("the first"),
        "{detail}"
    );
    assert_eq!(
        world.cli(&["kill-switch", "list"]).as_array().map(Vec::len),
        Some(1)
    );
    let none = ["kill-switch", "off", "--scope", "user", "--target", "ada"];
    refuses(&world, 5, "not_found", &none);
    refuses(
        &world,
        5,
        "not_found",
        &["kill-switch", "show", "deny_zzzz"],
    );
    // Taking away needs a yes, and there is no terminal to ask on.
    let ran = world.run(&["kill-switch", "on", "--scope", "all", "--reason", "r"]);
    assert_eq!(ran.code, 2, "{}", ran.stderr);
    assert!(ran.stderr.contains("--yes"), "{}", ran.stderr);
}

#[test]
fn a_dry_run_shows_the_impact_and_changes_nothing() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let call = sleeping(&ada, "demo.sleep", 1000);
    under_way(&world, "in_flight", 1);
    let words = [
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "r",
        "--dry-run",
    ];
    let ran = world.run(&[&["-o", "json"], &words[..]].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (
            &report["dry_run"],
            &report["isolates_stopped"],
            &report["calls_cancelled"]
        ),
        (&json!(true), &json!(1), &json!(1)),
        "{report}"
    );
    let text = world.run(&words).stdout;
    assert!(
        text.contains("would stop 1 isolate, cancel 1 call"),
        "{text}"
    );
    assert_eq!(call.join().unwrap().text(), "slept 1000 ms");
    assert_eq!(world.cli(&["kill-switch", "list"]), json!([]));
}

#[test]
fn people_are_told_what_was_stopped_how_long_it_took_and_how_to_undo_it() {
    let world = World::new();
    world.demo("demo", &[]);
    world
        .client("ada")
        .ask("demo.echo", json!({"text": "warm"}));
    let ran = world.run(&[
        "--yes",
        "kill-switch",
        "on",
        "--scope",
        "mcp",
        "--target",
        "demo",
        "--reason",
        "leaks",
    ]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("kill switch on mcp demo after ")
            && ran
                .stdout
                .contains(" ms: stopped 1 isolate, cancelled 0 calls")
            && ran.stdout.contains("ada"),
        "{}",
        ran.stdout
    );
    assert!(
        ran.stderr
            .contains("undo: legation kill-switch off --scope mcp --target demo"),
        "{}",
        ran.stderr
    );
    let list = world.run(&["kill-switch", "list"]).stdout;
    assert!(
        list.contains("leaks") && list.contains("kill_switch"),
        "{list}"
    );
    let id = world.cli(&["kill-switch", "list"])[0]["id"].clone();
    let shown = world
        .run(&["kill-switch", "show", id.as_str().unwrap()])
        .stdout;
    assert!(shown.contains("uid:"), "{shown}");
    // On record: who, what, and the measured times.
    let log = audit(&world);
    let record = log
        .iter()
        .find(|record| record["event"] == "kill.on")
        .unwrap();
    assert_eq!(record["reason"], "leaks", "{record}");
    assert!(record["gone_us"].as_u64().unwrap() > 0, "{record}");
    let action = log
        .iter()
        .find(|record| record["action"] == "kill_switch.on");
    assert!(
        action.unwrap()["actor"]
            .as_str()
            .unwrap()
            .starts_with("uid:")
    );
}

/// All records of the audit log.
fn audit(world: &World) -> Vec<Value> {
    let mut records = Vec::new();
    for file in std::fs::read_dir(world.data_dir().join("audit")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap_or_default();
        let lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        records.extend(lines);
    }
    records
}

// === one call ===

#[test]
fn one_call_is_cancelled_and_only_its_isolate_is_recycled() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    let before = (run_of(&ada, "demo"), run_of(&ben, "demo"));
    let cut = sleeping(&ada, "demo.sleep", 600_000);
    let first = under_way(&world, "in_flight", 1);
    let other = sleeping(&ada, "demo.sleep", 600_000);
    let calls = under_way(&world, "in_flight", 2);
    assert_eq!(calls[0]["id"], first[0]["id"], "newest last");
    assert_eq!(
        (
            &calls[0]["user"],
            &calls[0]["mcp"],
            &calls[0]["tool"],
            &calls[0]["client"]
        ),
        (
            &json!("ada"),
            &json!("demo"),
            &json!("sleep"),
            &json!("test")
        ),
        "{calls:?}"
    );
    // The demo does as MCP says: a cancelled call is never answered, so nobody can know whether it
    // still works on it.
    let id = calls[0]["id"].as_str().unwrap();
    let report = world.cli(&["call", "cancel", id, "--reason", "too long"]);
    assert_eq!(
        (
            &report["server"],
            &report["recycled"],
            &report["others_told"]
        ),
        (&json!("silent"), &json!(true), &json!(1)),
        "{report}"
    );
    let told = cut.join().unwrap();
    assert_eq!(told.code(), "cancelled", "{}", told.text());
    assert!(told.text().contains("too long"), "{}", told.text());
    let told = other.join().unwrap();
    assert_eq!(told.code(), "run_ended", "{}", told.text());
    assert!(
        told.text().contains("recycled") && told.text().contains("too long"),
        "{}",
        told.text()
    );
    assert_ne!(run_of(&ada, "demo"), before.0);
    assert_eq!(run_of(&ben, "demo"), before.1, "nobody else's");
    let view = world.isolate_detail("demo", Some("ada"));
    assert_eq!(
        view["view"]["restarts"]
            .as_u64()
            .or(view["restarts"].as_u64()),
        Some(0),
        "{view}"
    );
    assert_eq!(view["runs"][1]["verdict_kind"], "recycled", "{view}");

    // Trusted, it goes on.
    let run = run_of(&ada, "demo");
    let cut = sleeping(&ada, "demo.sleep", 600_000);
    let calls = under_way(&world, "in_flight", 1);
    let id = calls[0]["id"].as_str().unwrap();
    let report = world.cli(&["call", "cancel", id, "--no-recycle"]);
    assert_eq!(report["recycled"], false, "{report}");
    assert_eq!(cut.join().unwrap().code(), "cancelled");
    assert_eq!(run_of(&ada, "demo"), run);
    refuses(&world, 5, "not_found", &["call", "cancel", id]);
    refuses(&world, 5, "not_found", &["call", "cancel", "nonsense"]);
    bystander.unharmed(&world);
}

#[test]
fn a_shared_server_is_recycled_only_if_that_is_asked_for() {
    let world = World::new();
    world.demo("hub", &["--sharing", "shared"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    let run = run_of(&ben, "hub");
    for (more, recycled) in [(&[][..], false), (&["--recycle"], true)] {
        let cut = sleeping(&ada, "hub.sleep", 600_000);
        let calls = under_way(&world, "in_flight", 1);
        let id = calls[0]["id"].as_str().unwrap();
        let report = world.cli(&[&["call", "cancel", id], more].concat());
        assert_eq!(report["recycled"], recycled, "{report}");
        assert_eq!(cut.join().unwrap().code(), "cancelled");
        assert_eq!(run_of(&ben, "hub") != run, recycled);
    }
}

#[test]
fn a_call_that_waits_for_a_start_is_cancelled_at_once() {
    let world = World::new();
    world.misbehaving("slow", &[], &["slow_start=2000"]);
    let ada = world.client("ada");
    let call = {
        let ada = ada.clone();
        thread::spawn(move || ada.call("slow.echo", json!({"text": "x"})))
    };
    let calls = under_way(&world, "waiting", 1);
    assert_eq!(calls[0]["isolate"], Value::Null);
    let id = calls[0]["id"].as_str().unwrap();
    let report = world.cli(&["call", "cancel", id, "--reason", "never mind"]);
    assert_eq!(
        (&report["state"], &report["recycled"]),
        (&json!("waiting"), &json!(false)),
        "{report}"
    );
    let answer = call.join().unwrap();
    assert_eq!(answer.code(), "cancelled", "{}", answer.text());
    assert!(answer.text().contains("never mind"), "{}", answer.text());
    // The start goes on and serves the next.
    assert_eq!(ada.ask("slow.echo", json!({"text": "x"})), "x");
}
