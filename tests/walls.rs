//! The walls as an operator meets them: defaults, what a definition may ask for, and the doctor.

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

use crate::processes::{inhabitants, status_of};
use crate::world::{World, am_root};

fn detail(world: &World, name: &str) -> String {
    let ran = world.run(&["mcp", "discover", name, "-o", "json"]);
    assert_ne!(ran.code, 0, "{}", ran.stdout);
    let problem: Value = serde_json::from_str(ran.stderr.lines().last().unwrap()).unwrap();
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn users_isolates_have_uids_of_their_own_and_strict_walls_by_default() {
    let world = World::new();
    let home = "echo kept > \"$HOME/kept\"; exec ";
    let script = format!("{home}{} demo-mcp", crate::world::LEGATION);
    let options = ["--read", crate::world::LEGATION];
    world.mcp("demo", &options, &["/bin/sh", "-c", &script]);
    let sessions = [world.client("ada"), world.client("ben")];
    let mut uids = Vec::new();
    for (session, user) in sessions.iter().zip(["ada", "ben"]) {
        session.ask("echo", json!({"text": "x"}));
        let isolate = world.isolate("demo", Some(user));
        for pid in inhabitants(&isolate) {
            let uid = status_of(pid, "Uid")
                .split_whitespace()
                .next()
                .unwrap()
                .to_owned();
            assert_ne!(uid, "0", "{user}");
            assert_eq!(status_of(pid, "CapEff"), "0000000000000000");
            assert_eq!(status_of(pid, "Seccomp"), "2");
            assert_eq!(status_of(pid, "NoNewPrivs"), "1");
            uids.push(uid);
        }
    }
    if !am_root() {
        return;
    }
    assert_ne!(uids.first(), uids.last(), "{uids:?}");
    let homes = world.data_dir().join("homes");
    let mut owners: Vec<String> = std::fs::read_dir(homes)
        .unwrap()
        .flat_map(|user| std::fs::read_dir(user.unwrap().path()).unwrap())
        .map(|home| home.unwrap().metadata().unwrap().uid().to_string())
        .collect();
    owners.retain(|owner| uids.contains(owner));
    owners.dedup();
    assert_eq!(owners.len(), 2, "each home is its user's: {owners:?}");
}

/// It was quarantined at once, until an operator set the modes.
#[test]
fn who_closes_its_own_home_starts_again() {
    let world = World::new();
    let script = format!(
        "cd / && chmod 000 \"$HOME\"; exec {} demo-mcp",
        crate::world::LEGATION
    );
    let options = ["--read", crate::world::LEGATION];
    world.mcp("demo", &options, &["/bin/sh", "-c", &script]);
    let session = world.client("ada");
    for _ in 0..2 {
        assert_eq!(session.ask("echo", json!({"text": "x"})), "x");
        let isolate = world.isolate("demo", Some("ada"));
        world.cli(&["isolate", "kill", isolate["id"].as_str().unwrap()]);
    }
    assert_eq!(session.ask("echo", json!({"text": "y"})), "y");
}

#[test]
fn a_definition_asks_for_no_more_than_the_operator_gives() {
    let world = World::new();
    let path = world.dir.path().join("missing").display().to_string();
    world.cli(&["mcp", "add", "gone", "--write", &path, "--", "/bin/cat"]);
    let told = detail(&world, "gone");
    assert!(told.contains("which cannot be opened"), "{told}");
    // What the configuration decides is said where it is asked for, not at the first start.
    let net = world.run(&["mcp", "add", "net", "--network", "host", "--", "/bin/cat"]);
    assert_eq!(net.code, 2, "{}", net.stderr);
    let key = "sandbox.allow_network_host";
    assert!(net.stderr.contains(key), "{}", net.stderr);
    let wrong = world.run(&["mcp", "add", "x", "--read", "/srv/../etc", "--", "/bin/cat"]);
    assert_eq!(wrong.code, 2, "{}", wrong.stderr);
    let thin = world.run(&["mcp", "add", "x", "--profile", "thin", "--", "/bin/cat"]);
    assert_eq!(thin.code, 2, "{}", thin.stderr);
}

/// A path that isolates will never be shown is refused where it is named, not at the first start.
#[test]
fn a_path_outside_the_roots_is_refused_at_once() {
    let world = World::with("[sandbox]\npath_roots = [\"/srv\", \"/opt\"]\n");
    let add =
        |name: &str, path: &str| world.run(&["mcp", "add", name, "--read", path, "--", "/bin/cat"]);
    for path in ["/etc", "/srv-2/x", "/etc/no/such"] {
        let refused = add("bad", path);
        assert_ne!(refused.code, 0, "{path}");
        assert!(
            refused.stderr.contains("sandbox.path_roots"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(add("good", "/srv/later").code, 0);
    let refused = world.run(&["mcp", "update", "good", "--write", "/var/x"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("/var/x"), "{}", refused.stderr);
    let list = world.cli(&["mcp", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        world.cli(&["mcp", "show", "good"])["confinement"]["write"],
        json!([])
    );
}

#[test]
fn walls_of_a_definition_can_be_changed_and_are_shown() {
    let world = World::new();
    let added = [
        "mcp",
        "add",
        "a",
        "--profile",
        "none",
        "--network",
        "loopback",
    ];
    let more = ["--read", "/srv/a", "--", "/bin/cat"];
    let view = world.cli(&[&added[..], &more[..]].concat());
    let walls = json!({"profile": "none", "network": "loopback", "read": ["/srv/a"], "write": []});
    assert_eq!(view["confinement"], walls);
    let before = view["config_hash"].clone();
    let changed = world.cli(&["mcp", "update", "a", "--profile", "default", "--read", "-"]);
    let walls = json!({"network": "loopback", "read": [], "write": []});
    assert_eq!(changed["confinement"], walls);
    assert_ne!(changed["config_hash"], before, "its isolates are replaced");
}

#[test]
fn the_doctor_tries_each_facility_beside_a_running_server() {
    let world = World::new();
    let file = world.dir.path().join("legation.toml");
    let config = file.to_str().unwrap();
    let ran = world.run(&["-o", "json", "doctor", "--config", config]);
    let found: Vec<Value> = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| {
        panic!("{}{}", ran.stdout, ran.stderr);
    });
    for one in &found {
        assert!(!one["evidence"].as_str().unwrap().is_empty(), "{one}");
        let well = one["verdict"] == "ok";
        assert_eq!(one["fix"].is_null(), well, "{one}");
    }
    let named = |name: &str| found.iter().any(|one| one["facility"] == name);
    assert!(named("landlock") && named("cgroup_memory") && named("host_pressure"));
    let verdict = |word: &str| found.iter().any(|one| one["verdict"] == word);
    let expected = match (verdict("missing"), verdict("degraded") || verdict("unused")) {
        (true, _) => 2,
        (false, true) => 1,
        (false, false) => 0,
    };
    assert_eq!(ran.code, expected, "{}", ran.stdout);
    if am_root() {
        let mine = found
            .iter()
            .find(|one| one["facility"] == "uid_claim")
            .unwrap();
        let evidence = mine["evidence"].as_str().unwrap();
        assert!(evidence.contains("a running server's"), "{evidence}");
    }
}
