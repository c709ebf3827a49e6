//! Birth and death: of the gateway, of isolates, of what they stand on. Nothing is ever left behind
//! and nothing of anybody else's is touched.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::Connection;

use crate::hostile::Bystander;
use crate::processes::{children_of, inhabitants, kill_9, no_zombies, pid_of};
use crate::tools;
use crate::world::{Http, LEGATION, PATIENCE, Session, World, am_root, pids};

/// The same client at a gateway that came back on another port.
fn moved(session: &Session, world: &World) -> Session {
    Session {
        http: Http::new(&world.url),
        ..session.clone()
    }
}

fn runs(world: &World, mcp: &str, user: &str) -> Vec<Value> {
    world.isolate_detail(mcp, Some(user))["runs"]
        .as_array()
        .unwrap()
        .clone()
}

/// Which process answers.
fn run_of(session: &Session, mcp: &str) -> String {
    let me: Value =
        serde_json::from_str(&session.ask(&format!("{mcp}.whoami"), json!({}))).unwrap();
    me["run"].as_str().unwrap().to_owned()
}

fn in_flight(world: &World, mcp: &str, user: &str, calls: u64) {
    world.until("the calls are in flight", |world| {
        let isolates = world.isolates();
        let isolate = isolates
            .iter()
            .find(|one| one["mcp"] == mcp && one["user"] == user)?;
        (isolate["in_flight"] == calls).then_some(())
    });
}

#[test]
fn a_killed_gateway_leaves_no_process_and_its_next_life_sweeps_and_serves() {
    let mut world = World::new();
    world.demo("one", &[]);
    world.demo("two", &["--sharing", "shared"]);
    let sessions: Vec<Session> = ["ada", "ben", "cleo"]
        .iter()
        .map(|user| world.client(user))
        .collect();
    for session in &sessions {
        session.ask(
            "one.fork",
            json!({"n": 3, "seconds": 600, "hold_pipes": true}),
        );
        session.ask("two.echo", json!({"text": "x"}));
    }
    assert_eq!(world.isolates().len(), 4);
    // Under load: connections that break off are what the callers see.
    let load: Vec<_> = sessions
        .iter()
        .flat_map(|session| [session.clone(), session.clone()])
        .map(|session| {
            std::thread::spawn(move || {
                let body = json!({"tool": "one.sleep", "arguments": {"ms": 60_000}}).to_string();
                let lost = std::panic::catch_unwind(|| {
                    session.send("POST", "/v1/tools/invoke", Some(body.as_bytes()))
                });
                assert!(lost.is_err(), "nobody could have answered");
            })
        })
        .collect();
    for user in ["ada", "ben", "cleo"] {
        in_flight(&world, "one", user, 2);
    }
    assert!(world.processes().len() >= 3 * 4);
    // An init has its maker's environment, not its server's: it is known by its pid.
    let inits: Vec<i32> = world.isolates().iter().map(pid_of).collect();
    world.kill_9();
    for call in load {
        call.join().unwrap();
    }
    let since = Instant::now();
    let lives = |pid: &i32| Path::new(&format!("/proc/{pid}")).exists();
    while !world.processes().is_empty() || inits.iter().any(lives) {
        assert!(since.elapsed() < PATIENCE, "left: {:?}", world.processes());
        std::thread::sleep(Duration::from_millis(10));
    }
    world.start();
    let left = world.leaves();
    assert!(left.is_empty(), "not swept: {left:?}");
    for session in &sessions {
        let session = moved(session, &world);
        assert_eq!(session.ask("one.echo", json!({"text": "again"})), "again");
        assert_eq!(session.ask("two.echo", json!({"text": "again"})), "again");
    }
    no_zombies(&world);
}

#[test]
fn a_gateway_told_to_stop_ends_calls_and_leaves_nothing() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    std::thread::scope(|scope| {
        let short = scope.spawn(|| ada.call("demo.sleep", json!({"ms": 400})));
        let long = scope.spawn(|| ada.call("demo.sleep", json!({"ms": 600_000})));
        in_flight(&world, "demo", "ada", 2);
        let since = Instant::now();
        assert_eq!(world.stop(), 0);
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{:?}",
            since.elapsed()
        );
        let short = short.join().unwrap();
        assert_eq!(
            short.code(),
            "",
            "a call that ends soon is let end: {}",
            short.text()
        );
        assert_eq!(short.text(), "slept 400 ms");
        let long = long.join().unwrap();
        assert_eq!(long.status, 200, "{long:?}");
        assert_eq!(long.code(), "shutting_down", "{}", long.text());
    });
    world.nothing_is_left();
}

#[test]
fn a_second_gateway_on_the_same_data_is_refused_and_harms_nothing() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    let config = world.dir.path().join("legation.toml");
    let ran = Command::new(LEGATION)
        .args(["-o", "json", "serve", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(6), "{stderr}");
    let problem: Value = serde_json::from_str(stderr.lines().last().unwrap()).unwrap();
    assert_eq!(problem["code"], "lock_held", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("pid {}", world.pid())), "{detail}");
    bystander.unharmed(&world);
}

#[test]
fn two_gateways_side_by_side_never_touch_each_other() {
    let steady = World::new();
    let bystander = Bystander::begin(&steady);
    let mut wild = World::new();
    wild.demo("well", &[]);
    // The same names in both.
    let theirs = wild.client("bystander");
    theirs.ask("well.echo", json!({"text": "x"}));
    wild.kill_9();
    wild.start();
    moved(&theirs, &wild).ask("well.echo", json!({"text": "x"}));
    assert_eq!(wild.stop(), 0);
    wild.nothing_is_left();
    bystander.unharmed(&steady);
}

#[test]
fn a_killed_spawner_ends_no_run_and_is_replaced() {
    let world = World::new();
    world.demo("two", &[]);
    let before = children_of(world.pid());
    assert_eq!(before.len(), 1, "only the spawner: {before:?}");
    let spawner = before[0].0;
    let bystander = Bystander::begin(&world);
    let ada = world.client("ada");
    kill_9(spawner);
    world.until("it is gone", |_| {
        (!Path::new(&format!("/proc/{spawner}")).exists()).then_some(())
    });
    // At the latest the second call: the first may meet the very moment.
    world.until("new isolates start", |_| {
        let answer = ada.call("two.echo", json!({"text": "new"}));
        answer.code().is_empty().then_some(())
    });
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn an_idle_isolate_stops_and_the_next_call_starts_it_again() {
    let world = World::new();
    world.demo("demo", &["--idle", "1s"]);
    let ada = world.client("ada");
    let first = run_of(&ada, "demo");
    world.until("it has stopped", |world| {
        (world.isolate("demo", Some("ada"))["state"] == "resting").then_some(())
    });
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    assert!(world.leaves().is_empty(), "{:?}", world.leaves());
    assert_eq!(runs(&world, "demo", "ada")[0]["verdict_kind"], "idle");
    assert_ne!(run_of(&ada, "demo"), first);
    assert_eq!(runs(&world, "demo", "ada").len(), 2);
    assert_eq!(
        world.isolate("demo", Some("ada"))["restarts"],
        0,
        "it did not fail"
    );
    no_zombies(&world);
}

#[test]
fn an_isolate_with_a_call_in_flight_is_not_idle() {
    let world = World::new();
    world.demo("demo", &["--idle", "1s"]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("demo.sleep", json!({"ms": 3500})), "slept 3500 ms");
    assert_eq!(runs(&world, "demo", "ada").len(), 1);
}

#[test]
fn first_calls_at_once_start_one_process() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let barrier = Barrier::new(32);
    let seen: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    run_of(&ada, "demo")
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|run| *run == seen[0]), "{seen:?}");
    assert_eq!(runs(&world, "demo", "ada").len(), 1);
    let count: Value = serde_json::from_str(&ada.ask("demo.count", json!({}))).unwrap();
    assert_eq!(
        count["tools"]["whoami"], 32,
        "each call reached it once: {count}"
    );
}

#[test]
fn a_crash_answers_every_call_in_flight_and_the_server_comes_back() {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let ada = world.client("ada");
    ada.ask("bad.echo", json!({"text": "warm"}));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| ada.call("bad.sleep", json!({"ms": 600_000}))))
            .collect();
        in_flight(&world, "bad", "ada", 8);
        let since = Instant::now();
        let crash = ada.call("bad.crash", json!({"signal": "SEGV"}));
        for answer in waiting
            .into_iter()
            .map(|call| call.join().unwrap())
            .chain([crash])
        {
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.code(), "run_ended", "{}", answer.text());
            assert!(
                answer.text().contains("ended by signal 11"),
                "{}",
                answer.text()
            );
        }
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "{:?}",
            since.elapsed()
        );
    });
    assert_eq!(ada.ask("bad.echo", json!({"text": "back"})), "back");
    let isolate = world.isolate("bad", Some("ada"));
    assert_eq!(isolate["restarts"], 1, "{isolate}");
    assert_eq!(isolate["last_verdict"], "ended by signal 11", "{isolate}");
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn too_many_crashes_end_in_quarantine_and_a_restart_by_hand_ends_it() {
    let world = World::with("[restart]\nfloor_ms = 10\ncap_ms = 20\nfailures_max = 3\n");
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let ada = world.client("ada");
    for _ in 0..3 {
        let answer = ada.call("bad.crash", json!({"code": 5}));
        assert_eq!(answer.code(), "run_ended", "{}", answer.text());
    }
    let answer = ada.call("bad.echo", json!({"text": "x"}));
    assert_eq!(answer.code(), "quarantined", "{}", answer.text());
    assert!(
        answer.text().contains("exited with code 5"),
        "{}",
        answer.text()
    );
    let isolate = world.isolate("bad", Some("ada"));
    assert_eq!(isolate["state"], "quarantined", "{isolate}");
    let view = world.cli(&["isolate", "restart", isolate["id"].as_str().unwrap()]);
    assert_eq!(view["state"], "ready", "{view}");
    assert_eq!(ada.ask("bad.echo", json!({"text": "x"})), "x");
    no_zombies(&world);
    bystander.unharmed(&world);
}

/// An administrator's command with a call in flight: the caller is told why.
fn told_of(command: &[&str], words: &str) {
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("bad", &[]);
    let ada = world.client("ada");
    let before = run_of(&ada, "bad");
    let isolate = world.isolate("bad", Some("ada"));
    let tree = inhabitants(&isolate);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| ada.call("bad.sleep", json!({"ms": 600_000})));
        in_flight(&world, "bad", "ada", 1);
        let (verb, rest) = command.split_first().unwrap();
        let id = isolate["id"].as_str().unwrap();
        let report = world.cli(&[&["isolate", verb, id], rest].concat());
        if *verb == "kill" {
            assert_eq!(report["cancelled_calls"], 1, "{report}");
            assert_eq!(report["survivors"], json!([]), "{report}");
        } else {
            assert_eq!(report["state"], "ready", "{report}");
        }
        for pid in &tree {
            assert!(
                !Path::new(&format!("/proc/{pid}")).exists(),
                "{pid} outlived the command"
            );
        }
        let answer = waiting.join().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.code(), "cancelled", "{}", answer.text());
        assert!(answer.text().contains(words), "{}", answer.text());
    });
    assert_ne!(run_of(&ada, "bad"), before);
    assert_eq!(runs(&world, "bad", "ada").len(), 2);
    assert_eq!(runs(&world, "bad", "ada")[1]["verdict_kind"], "killed");
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn a_kill_by_hand_tells_the_callers_its_reason() {
    told_of(
        &["kill", "--reason", "it smelled of smoke"],
        "it smelled of smoke",
    );
}

#[test]
fn a_restart_by_hand_tells_the_callers() {
    told_of(&["restart"], "restarted by an administrator");
}

#[test]
fn a_changed_definition_replaces_running_isolates() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let before = run_of(&ada, "demo");
    let old = inhabitants(&world.isolate("demo", Some("ada")));
    world.cli(&["mcp", "update", "demo", "--env", "FRESH=1"]);
    assert_ne!(run_of(&ada, "demo"), before);
    let me: Value = serde_json::from_str(&ada.ask("demo.whoami", json!({}))).unwrap();
    assert!(
        me["env"].as_array().unwrap().contains(&json!("FRESH")),
        "{me}"
    );
    world.until("the old one is gone", |_| {
        old.iter()
            .all(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            .then_some(())
    });
}

// === what it stands on ===

/// A small file system of its own, until dropped.
pub(crate) struct Disk(PathBuf);

impl Disk {
    pub(crate) fn mount(dir: &Path) -> Option<Self> {
        Self::mount_of(dir, "size=4m")
    }

    pub(crate) fn mount_of(dir: &Path, size: &str) -> Option<Self> {
        let kind = ["-t", "tmpfs", "-o", size, "legation-test"];
        let mounted = Command::new("mount").args(kind).arg(dir).output();
        mounted
            .is_ok_and(|done| done.status.success())
            .then(|| Self(dir.to_owned()))
    }

    /// Takes what is free.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[b'f'; 512]).is_ok() {}
    }

    pub(crate) fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Starts the gateway of a world that was stopped, with more on its command line, and gives what it said as it failed.
fn fails_to_start(world: &World, more: &[&str]) -> String {
    let ran = Command::new(LEGATION)
        .args(["serve", "--config"])
        .arg(world.dir.path().join("legation.toml"))
        .arg("--data-dir")
        .arg(world.data_dir())
        .args(more)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(!ran.status.success(), "{said}");
    said
}

#[test]
fn a_start_on_a_full_disk_says_that_it_is_full() {
    let what = "a start on a full disk";
    if !am_root() {
        return tools::skip(what, "not root, so nothing can be mounted");
    }
    let mut world = World::new();
    assert_eq!(world.stop(), 0);
    let (data, kept) = (world.data_dir(), world.dir.path().join("kept"));
    std::fs::rename(&data, &kept).unwrap();
    std::fs::create_dir(&data).unwrap();
    let Some(disk) = Disk::mount_of(&data, "size=32m,mode=0700") else {
        return tools::skip(what, "mount is refused here");
    };
    let mut copy = Command::new("cp");
    copy.arg("-a").arg(kept.join(".")).arg(&data);
    assert!(copy.status().unwrap().success());
    disk.fill();
    let said = fails_to_start(&world, &[]);
    assert!(said.contains("full"), "{said}");
    assert!(!said.contains("kernel's log"), "{said}");
    disk.free();
    world.start();
    assert_eq!(world.stop(), 0);
    drop(disk);
    std::fs::remove_dir(&data).unwrap();
    std::fs::rename(&kept, &data).unwrap();
}

#[test]
fn a_port_that_is_taken_is_told_with_the_setting_that_names_it() {
    let mut world = World::new();
    assert_eq!(world.stop(), 0);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    for setting in ["client.listen", "ops.listen"] {
        let said = fails_to_start(&world, &["--set", &format!("{setting}={taken}")]);
        let named = format!("{setting}: cannot listen on {taken}");
        assert!(said.contains(&named), "{said}");
    }
}

#[test]
fn no_call_is_made_that_cannot_be_audited() {
    let place = tempfile::tempdir().unwrap();
    if !am_root() {
        return tools::skip(
            "a full disk under the audit log",
            "not root, so nothing can be mounted",
        );
    }
    let Some(disk) = Disk::mount(place.path()) else {
        return tools::skip("a full disk under the audit log", "mount is refused here");
    };
    let config = format!("[audit]\ndir = \"{}\"\n", place.path().display());
    let world = World::with(&config);
    world.demo("demo", &[]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
    let before = calls_of(&ada);
    disk.fill();
    let refused = world.until("calls are refused", |_| {
        let answer = ada.call("demo.add", json!({"a": 1, "b": 2}));
        assert_eq!(answer.status, 200, "{answer:?}");
        (!answer.code().is_empty()).then_some(answer)
    });
    assert_eq!(refused.code(), "audit_unavailable", "{}", refused.text());
    assert_eq!(status(&world)["audit"]["failing"], true);
    for _ in 0..20 {
        let answer = ada.call("demo.fail", json!({}));
        assert_eq!(answer.code(), "audit_unavailable", "{}", answer.text());
    }
    disk.free();
    world.until("calls are made again", |_| {
        ada.call("demo.echo", json!({"text": "x"}))
            .code()
            .is_empty()
            .then_some(())
    });
    let after = calls_of(&ada);
    assert_eq!(
        after["tools"]["fail"],
        Value::Null,
        "no refused call was made: {before} {after}"
    );
    // Every line is whole, and none is missing.
    let report = world.cli(&["audit", "verify"]);
    assert_eq!(report["whole"], true, "{report}");
    drop(world);
    drop(disk);
}

/// `status` ends with another code while something is wrong.
fn status(world: &World) -> Value {
    serde_json::from_str(&world.run(&["status", "-o", "json"]).stdout).unwrap()
}

fn calls_of(session: &Session) -> Value {
    serde_json::from_str(&session.ask("demo.count", json!({}))).unwrap()
}

#[test]
fn without_the_store_registered_clients_go_on_and_new_ones_are_told() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let key = world.key("ben");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let file = world.data_dir().join("legation.db");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let url = format!("sqlite://{}", file.display());
    // Another process that holds the lock: what a backup gone wrong does.
    let mut thief = runtime
        .block_on(sqlx::SqliteConnection::connect(&url))
        .unwrap();
    runtime
        .block_on(sqlx::query("BEGIN EXCLUSIVE").execute(&mut thief))
        .unwrap();
    std::thread::scope(|scope| {
        let refused = scope.spawn(|| Http::new(&world.url).register_with(&key));
        for n in 0..50 {
            let text = n.to_string();
            assert_eq!(ada.ask("demo.echo", json!({ "text": text })), text);
        }
        let refused = refused.join().unwrap();
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.code(), "store_unavailable", "{refused:?}");
    });
    assert_eq!(ada.ask("demo.echo", json!({"text": "still"})), "still");
    runtime
        .block_on(sqlx::query("ROLLBACK").execute(&mut thief))
        .unwrap();
    runtime.block_on(thief.close()).unwrap();
    let ben = world.until("registration works again", |_| {
        let answer = Http::new(&world.url).register_with(&key);
        (answer.status == 201).then(|| Http::new(&world.url).register(&key))
    });
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
}

#[test]
fn a_gateway_whose_store_cannot_be_opened_says_so_and_leaves_nothing() {
    let mut world = World::new();
    assert_eq!(world.stop(), 0);
    let file = world.data_dir().join("legation.db");
    let kept = std::fs::read(&file).unwrap();
    for name in ["legation.db", "legation.db-wal", "legation.db-shm"] {
        let _ = std::fs::remove_file(world.data_dir().join(name));
    }
    std::fs::create_dir(&file).unwrap();
    let config = world.dir.path().join("legation.toml");
    let ran = Command::new(LEGATION)
        .args(["-o", "json", "serve", "--config"])
        .arg(config)
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("legation.db"), "{stderr}");
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, kept).unwrap();
    world.start();
}

/// It started as a healthy server that knew nobody.
#[test]
fn a_lost_database_is_not_begun_anew() {
    let mut world = World::new();
    world.demo("demo", &[]);
    world.client("ada").ask("echo", json!({"text": "x"}));
    assert_eq!(world.stop(), 0);
    let data = world.data_dir();
    let config = world.dir.path().join("legation.toml");
    let serve = || {
        let ran = Command::new(LEGATION)
            .args(["-o", "json", "serve", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    for name in ["legation.db-wal", "legation.db-shm"] {
        let _ = std::fs::remove_file(data.join(name));
    }
    let file = data.join("legation.db");
    std::fs::rename(&file, data.join("aside.db")).unwrap();
    // Deleted, then made by the start before; then empty.
    for _ in 0..2 {
        let (code, stderr) = serve();
        assert_eq!(code, Some(2), "{stderr}");
        for told in [
            "store_lost",
            "audit.before",
            "homes.before",
            "docs/install.md",
        ] {
            assert!(stderr.contains(told), "{told}: {stderr}");
        }
    }
    std::fs::write(&file, "").unwrap();
    assert_eq!(serve().0, Some(2));
    // What was there is found again; and without what tells of it, a start is a first one.
    std::fs::rename(data.join("aside.db"), &file).unwrap();
    world.start();
    assert_eq!(world.cli(&["user", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(world.stop(), 0);
    for name in ["legation.db", "audit", "homes"] {
        std::fs::rename(data.join(name), data.join(format!("{name}.before"))).unwrap();
    }
    world.start();
    assert_eq!(world.cli(&["user", "list"]), json!([]));
}

#[test]
fn no_descriptor_and_no_process_is_lost_over_many_lives() {
    let world = World::with("[restart]\nfloor_ms = 10\ncap_ms = 10\nfailures_max = 100\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let open = || {
        std::fs::read_dir(format!("/proc/{}/fd", world.pid()))
            .unwrap()
            .count()
    };
    let life = || {
        assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
        let answer = ada.call("demo.crash", json!({"signal": "KILL"}));
        assert_eq!(answer.code(), "run_ended", "{}", answer.text());
    };
    life();
    ada.ask("demo.echo", json!({"text": "x"}));
    let before = open();
    for _ in 0..20 {
        life();
    }
    ada.ask("demo.echo", json!({"text": "x"}));
    // Connections of this test come and go.
    world.until("descriptors are given back", |_| {
        (open() <= before + 4).then_some(())
    });
    no_zombies(&world);
    let init = pid_of(&world.isolate("demo", Some("ada")));
    let mut children: Vec<i32> = children_of(world.pid())
        .into_iter()
        .map(|(pid, _)| pid)
        .collect();
    children.retain(|pid| pids().contains(pid));
    assert_eq!(children.len(), 2, "the spawner and {init}: {children:?}");
}

#[test]
fn a_store_whose_file_is_gone_acknowledges_nothing() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let key = world.key("ben");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let data = world.data_dir();
    let files = ["legation.db", "legation.db-wal", "legation.db-shm"];
    for name in files {
        let _ = std::fs::rename(data.join(name), data.join(format!("{name}.away")));
    }
    // At once: a session that is acknowledged must be there after a restart.
    let refused = Http::new(&world.url).register_with(&key);
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.code(), "store_unavailable", "{refused:?}");
    assert_eq!(ada.ask("demo.echo", json!({"text": "still"})), "still");
    for name in files {
        let _ = std::fs::rename(data.join(format!("{name}.away")), data.join(name));
    }
    world.until("registration works again", |_| {
        (Http::new(&world.url).register_with(&key).status == 201).then_some(())
    });
}
