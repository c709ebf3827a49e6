//! Kill switches, suspensions and cancelled calls, from outside: what is killed is dead, what was
//! acknowledged holds, and nobody else loses anything.

mod calls;
mod desk;
mod durable;
mod people;

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
use crate::lifecycle::Disk;
use crate::processes::{inhabitants, no_zombies, pid_of};
use crate::tools;
use crate::world::{Answer, Http, LEGATION, Ran, Session, World, am_root};

/// The first call of each session to each mcp: their servers run.
fn warm(sessions: &[&Session], mcps: &[&str]) {
    for session in sessions {
        for mcp in mcps {
            session.ask(&format!("{mcp}.echo"), json!({"text": "warm"}));
        }
    }
}

/// All records of the audit log.
pub(crate) fn audit(world: &World) -> Vec<Value> {
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
fn what_is_lifted_is_what_the_name_means_now() {
    let world = World::new();
    world.demo("demo", &[]);
    on(&world, "mcp", "demo", "a bad release");
    world.cli(&["mcp", "archive", "demo"]);
    world.demo("demo", &[]);
    let ada = world.client("ada");
    world.cli(&["mcp", "suspend", "demo", "--reason", "maintenance"]);
    switched_off(
        &ada.call("demo.echo", json!({"text": "x"})),
        "mcp",
        "maintenance",
    );
    let lifted = world.cli(&["mcp", "resume", "demo"]);
    assert_eq!(lifted["reason"], "maintenance", "{lifted}");
    assert_eq!(ada.ask("demo.echo", json!({"text": "back"})), "back");
    // Then only the archived one's is left to be meant.
    assert_eq!(off(&world, "mcp", "demo")["reason"], "a bad release");
}

#[test]
fn a_user_is_switched_off_alone_also_in_what_is_shared() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("own", &[]);
    world.demo("hub", &["--sharing", "shared"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    warm(&[&ada, &ben], &["own", "hub"]);
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
    warm(&[&one, &two], &["own", "solo"]);
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
    warm(&[&ada, &ben], &["own", "hub"]);
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
