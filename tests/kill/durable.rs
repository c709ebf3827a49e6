//! What is switched holds: after restarts, kills, with the store away, until its end.

use super::*;

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

#[test]
fn a_kill_switch_works_with_the_data_directory_full() {
    const WHAT: &str = "a full disk under the data directory";
    if !am_root() {
        return tools::skip(WHAT, "not root, so nothing can be mounted");
    }
    // Outlives the world, which looks into its data directory to the last.
    let disk;
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    assert_eq!(world.stop(), 0);
    let data = world.data_dir();
    let aside = data.with_extension("aside");
    std::fs::rename(&data, &aside).unwrap();
    std::fs::create_dir(&data).unwrap();
    let Some(mounted) = Disk::mount(&data) else {
        return tools::skip(WHAT, "mount is refused here");
    };
    disk = mounted;
    let copied = Command::new("cp")
        .args(["-a", "--"])
        .arg(aside.join("."))
        .arg(&data)
        .status();
    assert!(copied.unwrap().success());
    world.start();
    let ada = Session {
        http: Http::new(&world.url),
        ..ada
    };
    ada.ask("demo.echo", json!({"text": "warm again"}));
    disk.fill();
    let report = on(&world, "mcp", "demo", "it leaks");
    assert_eq!(report["isolates_stopped"], 1, "{report}");
    switched_off(
        &ada.call("demo.echo", json!({"text": "x"})),
        "mcp",
        "it leaks",
    );
    world.kill_9();
    disk.free();
    world.start();
    let list = world.cli(&["kill-switch", "list"]);
    assert_eq!(list[0]["reason"], "it leaks", "{list}");
}
