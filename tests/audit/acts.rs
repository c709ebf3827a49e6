//! What administrators do, on record whatever happens: on a full disk, for who looks by name, and with
//! a second server at the door.

use super::*;

#[test]
fn a_suspension_on_a_full_disk_is_on_record_though_callers_try_again_and_again() {
    if !am_root() {
        return tools::skip("acts on a full disk", "not root, so nothing can be mounted");
    }
    for required in ["", "required = [\"admin\", \"kill\"]\n"] {
        let place = tempfile::tempdir().unwrap();
        let Some(disk) = Disk::mount(place.path()) else {
            return tools::skip("acts on a full disk", "mount is refused here");
        };
        let path = place.path().display();
        let world = World::with(&format!("[audit]\ndir = \"{path}\"\n{required}"));
        world.demo("demo", &[]);
        let (ada, ben) = (world.client("ada"), world.client("ben"));
        ada.ask("echo", json!({"text": "warm"}));
        disk.fill();
        world.until("the log fails", |world| {
            ben.call("echo", json!({"text": "x"}));
            let ran = world.run(&["-o", "json", "status"]);
            let status: Value = serde_json::from_str(&ran.stdout).unwrap();
            (status["audit"]["failing"] == true).then_some(())
        });
        for _ in 0..200 {
            ada.call("echo", json!({"text": "again"}));
        }
        let report = world.cli(&["user", "suspend", "ada", "--reason", "leak"]);
        let why = report["not_recorded"].as_str().unwrap();
        assert!(why.contains("waits in memory"), "{report}");
        disk.free();
        world.until("it is written again", |world| {
            (world.run(&["user", "add", "eve"]).code == 0).then_some(())
        });
        let all = records(place.path());
        let of = |event: &str| all.iter().filter(|one| one["event"] == event).count();
        assert_eq!(of("kill.on"), 1, "{required}");
        assert_eq!(of("system.lost"), 0, "{required}");
        if required.is_empty() {
            let refused = of("call.refused");
            assert!((1..=4).contains(&refused), "{refused} for 200 and more");
        }
        assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
    }
}

#[test]
fn acts_are_found_by_whom_and_what_they_are_about() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada_secret = world.key("ada");
    let ada = world.client_of_key(&ada_secret);
    ada.ask("echo", json!({"text": "x"}));
    let key = ada_key(&world);
    world.cli(&["user", "suspend", "ada", "--reason", "leak"]);
    world.cli(&["user", "resume", "ada"]);
    let ada = world.client_of_key(&ada_secret);
    let mut denied = Vec::new();
    for (scope, target) in [("tool", "demo/echo"), ("mcp", "demo"), ("client", &*key)] {
        let target = ["--scope", scope, "--target", target];
        let words = [&["kill-switch", "on", "--reason", "drill"], &target[..]].concat();
        let report = world.cli(&words);
        ada.call("echo", json!({"text": "x"}));
        denied.push(report["deny"]["id"].clone());
        world.cli(&[&["kill-switch", "off"], &target[..]].concat());
    }
    let page = search(&world, &["--mcp", "demo", "--event", "call.refused"]);
    let refused = page["items"].as_array().unwrap().iter();
    let by: Vec<&Value> = refused.map(|item| &item["record"]["deny"]).rev().collect();
    assert_eq!(by, denied.iter().collect::<Vec<_>>(), "{page}");
    world.cli(&["key", "revoke", &key]);
    world.cli(&["mcp", "archive", "demo"]);
    let found = |world: &World, args: &[&str]| -> Vec<String> {
        let page = search(world, args);
        let items = page["items"].as_array().unwrap().iter();
        let mut found: Vec<String> = items
            .map(|item| {
                let record = &item["record"];
                let what = record["action"].as_str().or(record["event"].as_str());
                what.unwrap().to_owned()
            })
            .collect();
        found.sort();
        found
    };
    let check = |world: &World| {
        // A key's are its user's.
        let kills = ["kill.off", "kill.off", "kill.on", "kill.on"];
        assert_eq!(found(world, &["--user", "ada", "--event", "kill"]), kills);
        assert_eq!(
            found(world, &["--tool", "echo", "--event", "kill"]),
            ["kill.off", "kill.on"]
        );
        assert_eq!(found(world, &["--mcp", "demo", "--event", "kill"]), kills);
        let acts = found(world, &["--user", "ada", "--event", "admin"]);
        for act in [
            "user.suspend",
            "user.resume",
            "key.revoke",
            "kill_switch.on",
        ] {
            assert!(acts.iter().any(|one| one == act), "{act}: {acts:?}");
        }
        let acts = found(world, &["--client", &key, "--event", "admin"]);
        assert!(acts.iter().any(|one| one == "key.revoke"), "{acts:?}");
    };
    check(&world);
    let archived = found(&world, &["--text", "mcp.archive"]);
    assert_eq!(archived, ["mcp.archive"]);
    let archived = records(&dir(&world));
    let archived = archived.iter().find(|one| one["action"] == "mcp.archive");
    assert!(archived.unwrap()["mcp"].is_string(), "{archived:?}");
    let mut world = world;
    world.stop();
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(dir(&world).join(format!("index.db{end}")));
    }
    world.start();
    world.until("the index is made anew", |world| {
        (world.status()["audit"]["index_lag"] == 0).then_some(())
    });
    check(&world);
}

#[test]
fn acts_have_the_ids_of_keys_users_and_mcps_whatever_those_are_called() {
    let world = World::new();
    let slot = ["mcp", "add", "demo", "--credential", "TOKEN=env:TOKEN"];
    world.cli(&[&slot[..], &["--", LEGATION, "demo-mcp"]].concat());
    let set = |whose: &[&str]| {
        let set = crate::vault::try_set(&world, whose, "demo", "TOKEN", b"secret value");
        assert_eq!(set.code, 0, "{}", set.stderr);
    };
    set(&["--shared"]);
    world.cli(&["mcp", "publish", "demo"]);
    world.cli(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", "demo"]);
    for user in ["ada", "shared"] {
        world.key(user);
    }
    let id = |args: &[&str], name: &str| {
        let all = world.cli(args);
        let mut all = all.as_array().unwrap().iter();
        all.find(|one| one["name"] == name || one["user_name"] == name)
            .unwrap()["id"]
            .clone()
    };
    let (ada, shared) = (
        id(&["user", "list"], "ada"),
        id(&["user", "list"], "shared"),
    );
    let demo = id(&["mcp", "list"], "demo");
    let key = id(&["key", "list"], "ada");
    set(&["--user", "shared"]);
    set(&["--user", "ada"]);
    let group = ["--group", "all", "demo"];
    for whose in [&group[..], &["--user", "ada", "demo"]] {
        world.cli(&[&["subscription", "remove"], whose].concat());
        world.cli(&[&["subscription", "add"], whose].concat());
    }
    let client = world.client("ada");
    let waits = std::thread::spawn(move || client.call("sleep", json!({"ms": 600_000})));
    let call = world.until("it is called", |world| {
        let list = world.cli(&["call", "list"]);
        list[0]["id"].as_str().map(ToOwned::to_owned)
    });
    let caller = world.cli(&["call", "list"])[0]["key"].clone();
    world.cli(&["call", "cancel", &call, "--reason", "enough"]);
    waits.join().unwrap();
    let all = records(&dir(&world));
    let acts = |action: &str| -> Vec<Value> {
        let of = all.iter().filter(|one| one["action"] == action);
        of.cloned().collect()
    };
    let made = &acts("key.create")[0];
    assert_eq!((&made["user"], &made["key"]), (&ada, &key), "{made}");
    let set = acts("credential.set");
    let users: Vec<&Value> = set.iter().map(|one| &one["user"]).collect();
    assert_eq!(users, [&Value::Null, &shared, &ada]);
    assert!(set.iter().all(|one| one["mcp"] == demo), "{set:?}");
    for action in ["subscription.add", "subscription.remove"] {
        let of = acts(action);
        let [group, user] = &of[..] else {
            panic!("{of:?}")
        };
        assert_eq!((&group["mcp"], &group["user"]), (&demo, &Value::Null));
        assert_eq!((&user["mcp"], &user["user"]), (&demo, &ada));
        assert_eq!((&group["keys"], &user["keys"]), (&json!(2), &json!(1)));
        assert_eq!(user["key_ids"], key, "{user}");
        assert!(
            group["key_ids"]
                .as_str()
                .unwrap()
                .contains(key.as_str().unwrap())
        );
    }
    let ids = |one: &Value| ["user", "mcp", "tool", "key"].map(|name| one[name].clone());
    let meant = [ada, demo, json!("sleep"), caller];
    let cancelled = all.iter().find(|one| one["event"] == "call.cancelled");
    assert_eq!(ids(cancelled.unwrap()), meant);
    assert_eq!(ids(&acts("call.cancel")[0]), meant);
}

/// Another server with this data directory and that log.
fn serve_on(log: &Path, data: &Path) -> Ran {
    let set = |key: &str, value: &str| format!("{key}={value}");
    let output = Command::new(LEGATION)
        .args(["-o", "json", "serve", "--dev", "--listen", "127.0.0.1:0"])
        .args(["--set", &set("ops.listen", "off")])
        .args(["--set", &set("audit.dir", &log.display().to_string())])
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn a_second_server_on_one_log_is_refused_and_the_log_stays_whole() {
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let log = dir(&world);
    let other = tempfile::tempdir().unwrap();
    let held = serve_on(&log, &other.path().join("data"));
    assert_eq!(held.code, 6, "{}", held.stderr);
    let pid = format!("pid {}", world.pid());
    assert!(
        held.stderr.contains("lock_held")
            && held.stderr.contains(&pid)
            && held.stderr.contains("audit.dir"),
        "{}",
        held.stderr
    );
    ada.ask("echo", json!({"text": "goes on"}));
    assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
    world.stop();
    // Also when nobody writes it: it is somebody's.
    let before = records(&log);
    let foreign = serve_on(&log, &other.path().join("data"));
    assert_eq!(foreign.code, 2, "{}", foreign.stderr);
    assert!(
        foreign.stderr.contains("config_invalid")
            && foreign.stderr.contains("is of installation")
            && foreign.stderr.contains("mv "),
        "{}",
        foreign.stderr
    );
    assert_eq!(records(&log), before);
    world.start();
    assert_eq!(world.cli(&["audit", "verify"])["whole"], true);
}
