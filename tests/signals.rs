//! Signals as shells, process managers and log rotation send them to a running gateway, and what the command line says while
//! one stops.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::tools;
use crate::world::{LEGATION, PATIENCE, World};

fn send(world: &World, signal: Signal) {
    kill(Pid::from_raw(world.pid()), signal).unwrap();
}

#[test]
fn a_hangup_without_a_terminal_ends_nothing() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let run = || {
        let told: Value = serde_json::from_str(&ada.ask("whoami", json!({}))).unwrap();
        told["run"].clone()
    };
    let before = run();
    for _ in 0..2 {
        send(&world, Signal::SIGHUP);
    }
    world.until("the log says so", |world| {
        world.log().contains("SIGHUP is ignored").then_some(())
    });
    assert_eq!(run(), before, "the same process");
}

/// What /proc says of the hangup: ignored, caught.
fn hangup_of(pid: u32) -> (bool, bool) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.unwrap_or(0) & 1 != 0
    };
    (has("SigIgn:"), has("SigCgt:"))
}

#[test]
fn a_hangup_at_the_very_beginning_ends_nothing_and_no_isolate_is_born_deaf_to_it() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.key("ada");
    world.stop();
    let mut server = Command::new(LEGATION)
        .args(["serve", "--config"])
        .arg(world.dir.path().join("legation.toml"))
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = server.id();
    let raw = Pid::from_raw(pid.try_into().unwrap());
    // What comes first is there for a few milliseconds only.
    let since = std::time::Instant::now();
    let seen = loop {
        let seen = hangup_of(pid);
        if seen.0 || seen.1 || since.elapsed() > PATIENCE {
            break seen;
        }
    };
    assert_eq!(seen, (true, false), "ignored before it is heard");
    kill(raw, Signal::SIGHUP).unwrap();
    world.until("it serves", |world| {
        assert_eq!(server.try_wait().unwrap(), None);
        (world.run(&["status"]).code != 3).then_some(())
    });
    assert_eq!(hangup_of(pid), (false, true));
    kill(raw, Signal::SIGTERM).unwrap();
    assert_eq!(server.wait().unwrap().code(), Some(0));
    world.start();
    world.client_of_key(&ada).ask("echo", json!({"text": "x"}));
    let isolate = world.isolate("demo", Some("ada"));
    // Its init is one of ours; the server is what that started.
    let init = isolate["pid"].as_u64().unwrap();
    let born = std::fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    let born: Vec<u32> = born.split(' ').filter_map(|pid| pid.parse().ok()).collect();
    assert_eq!(born.len(), 1, "{born:?}");
    assert_eq!(hangup_of(born[0]), (false, false));
}

#[test]
fn a_hangup_ends_a_server_whose_terminal_it_was() {
    let Some(script) = tools::on_path("script") else {
        return tools::skip("a terminal that goes", "no script(1) on PATH");
    };
    let mut world = World::new();
    world.stop();
    let line = format!(
        "exec {LEGATION} serve --config {} --data-dir {}",
        world.dir.path().join("legation.toml").display(),
        world.data_dir().display()
    );
    let mut terminal = Command::new(script)
        .args(["-qefc", &line, "/dev/null"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    world.until("it runs", |world| {
        (world.run(&["status"]).code != 3).then_some(())
    });
    let lock = std::fs::read_to_string(world.data_dir().join("lock")).unwrap();
    let pid: i32 = lock.trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGHUP).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(0));
    world.nothing_is_left();
}

/// As systemd's `Type=notify` hears it.
#[test]
fn a_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let mut world = World::new();
    world.stop();
    let path = world.dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = || {
        let mut room = [0; 256];
        let got = manager.recv(&mut room).unwrap();
        String::from_utf8_lossy(&room[..got]).into_owned()
    };
    let mut server = Command::new(LEGATION)
        .args(["serve", "--config"])
        .arg(world.dir.path().join("legation.toml"))
        .arg("--data-dir")
        .arg(world.data_dir())
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(hear(), "READY=1");
    // Twice in each time, for as long as its root and a worker answer.
    for _ in 0..3 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    let pid = Pid::from_raw(server.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_millis(600)))
        .unwrap();
    // What it said before it was stopped.
    let mut room = [0; 256];
    while manager.recv(&mut room).is_ok() {}
    kill(pid, Signal::SIGCONT).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let ran = world.run(&["status"]);
    assert_ne!(ran.code, 3, "{}", ran.stderr);
    kill(
        Pid::from_raw(server.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    while hear() != "STOPPING=1" {}
    assert_eq!(server.wait().unwrap().code(), Some(0));
    world.nothing_is_left();
}

/// `timeout` and others send it to the process and to its group, a millisecond later.
#[test]
fn a_stop_that_is_told_twice_is_one_stop() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    let call = std::thread::spawn(move || ada.ask("sleep", json!({"ms": 2_000})));
    world.until("it is called", |world| {
        (world.cli(&["call", "list"]) != json!([])).then_some(())
    });
    send(&world, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(5));
    send(&world, Signal::SIGTERM);
    send(&world, Signal::SIGINT);
    assert_eq!(
        call.join().unwrap(),
        "slept 2000 ms",
        "what was inside ends"
    );
    assert_eq!(world.stop_told(), 0);
    let log = world.log();
    assert!(!log.contains("killed while stopping"), "{log}");
    world.nothing_is_left();
}

#[test]
fn a_stopping_server_says_so_and_another_signal_ends_it_at_once() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    let call = std::thread::spawn(move || ada.call("sleep", json!({"ms": 20_000})).status);
    world.until("it is called", |world| {
        (world.cli(&["call", "list"]) != json!([])).then_some(())
    });
    send(&world, Signal::SIGTERM);
    let pid = format!("process {}", world.pid());
    let told = world.until("the command line says so", |world| {
        let ran = world.run(&["status"]);
        (ran.code == 3).then_some(ran.stderr)
    });
    assert!(
        told.contains(&pid) && told.contains("is stopping"),
        "{told}"
    );
    let second = Command::new(LEGATION)
        .args(["serve", "--set", "client.listen=127.0.0.1:0", "--data-dir"])
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(6), "{text}");
    assert!(text.contains("which is stopping"), "{text}");
    std::thread::sleep(Duration::from_millis(600));
    send(&world, Signal::SIGTERM);
    assert_eq!(world.stop_told(), 1, "{}", world.log());
    assert!(world.log().contains("killed while stopping"));
    drop(call.join());
    world.until("its isolates die with it", |world| {
        world.processes().is_empty().then_some(())
    });
    // A server that is gone is told from one that stops.
    let told = world.run(&["status"]).stderr;
    assert!(
        !told.contains("is stopping") && told.contains("legation serve"),
        "{told}"
    );
    // The next start takes away what the last one could not.
    world.start();
}
