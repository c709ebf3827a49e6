//! The command line, end to end: what it prints, how it exits, and that what it changes counts at
//! once.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::tools;
use crate::world::{LEGATION, Ran, Session, World, am_root};

fn exits(world: &World, code: i32, words: &[&str]) -> Ran {
    let ran = world.run(words);
    assert_eq!(ran.code, code, "{words:?}: {}{}", ran.stdout, ran.stderr);
    ran
}

/// A refusal as people and as programs see it.
fn refuses(world: &World, code: i32, name: &str, words: &[&str]) -> String {
    let people = exits(world, code, words).stderr;
    let starts = |mark: &str| people.lines().any(|line| line.starts_with(mark));
    assert!(starts("error[E") && starts("try: "), "{words:?}: {people}");
    let docs = people.lines().find_map(|line| line.strip_prefix("docs: "));
    let docs = docs.unwrap_or_else(|| panic!("{people}"));
    // What it points to is there: whoever has the program has its documentation.
    let docs: Vec<&str> = docs.split(' ').collect();
    let explained = exits(world, 0, &docs[1..]).stdout;
    assert!(explained.contains(name), "{docs:?}: {explained}");
    let mut with_json = vec!["-o", "json"];
    with_json.extend(words);
    let ran = exits(world, code, &with_json);
    let error: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(error["code"], name, "{error}");
    assert_eq!(ran.stdout, "", "data only");
    people
}

fn run_of(session: &Session) -> String {
    let told: Value = serde_json::from_str(&session.ask("whoami", json!({}))).unwrap();
    told["run"].as_str().unwrap().to_owned()
}

fn id_of(world: &World, mcp: &str, user: &str) -> String {
    world.isolate(mcp, Some(user))["id"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_command_speaks_to_people_and_to_programs() {
    let world = World::new();
    // In order: the story of an installation. A word that the table must have.
    let story: &[(&[&str], &str)] = &[
        (
            &[
                "mcp",
                "add",
                "demo",
                "--description",
                "a demo",
                "--",
                LEGATION,
                "demo-mcp",
            ],
            "demo",
        ),
        (&["mcp", "update", "demo", "--memory", "256MiB"], "demo"),
        (&["mcp", "discover", "demo"], "initialize"),
        (&["mcp", "publish", "demo"], "published"),
        (&["mcp", "list"], "published"),
        (&["mcp", "show", "demo"], "256 MiB"),
        (&["group", "add", "dev"], "dev"),
        (&["user", "add", "ada"], "ada"),
        (&["group", "member", "add", "dev", "ada"], "ada"),
        (&["group", "grant", "dev", "demo"], "demo"),
        (&["group", "list"], "demo"),
        (&["user", "list"], "ada"),
        (&["key", "create", "ada", "--label", "laptop"], "amb_pk_"),
        (&["key", "list"], "laptop"),
        (&["subscription", "list"], "laptop"),
    ];
    for (words, expected) in story {
        let ran = exits(&world, 0, words);
        assert!(
            ran.stdout.contains(expected),
            "{words:?}: {}\n{}",
            ran.stdout,
            ran.stderr
        );
        assert!(
            !ran.stdout.contains("\u{1b}["),
            "no colour without a terminal: {words:?}"
        );
    }
    let ada = world.client_of_key(exits(&world, 0, &["key", "create", "ada"]).stdout.trim());
    ada.ask("stderr", json!({"lines": 3}));
    let isolate = id_of(&world, "demo", "ada");
    let key = world.cli(&["key", "list"])[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(world.status()["isolates"]["ready"], 1);
    assert!(world.run(&["status"]).stdout.contains("ready"));
    let looks: &[(&[&str], &str)] = &[
        (&["tree"], "listeners"),
        (&["ps"], &isolate),
        (&["isolate", "list"], "ready"),
        (&["isolate", "show", &isolate], "alive"),
        (&["isolate", "logs", &isolate], "line 2"),
        (&["session", "list"], "ada"),
        (&["subscription", "list", "--key", &key], "echo"),
        (&["config", "show"], "in_flight_max"),
        (&["user", "show", "ada"], &key),
        (&["group", "show", "dev"], "published"),
        (&["explain", "E0407"], "command_not_found"),
        (&["explain"], "E0101"),
    ];
    for (words, expected) in looks {
        let ran = exits(&world, 0, words);
        assert!(
            ran.stdout.contains(expected),
            "{words:?}: {}\n{}",
            ran.stdout,
            ran.stderr
        );
        let mut with_json = vec!["-o", "json"];
        with_json.extend(*words);
        let ran = exits(&world, 0, &with_json);
        serde_json::from_str::<Value>(&ran.stdout)
            .unwrap_or_else(|why| panic!("{words:?}: {why}: {}", ran.stdout));
        assert_eq!(ran.stderr, "", "{words:?}");
    }
    for name in [&["-o", "name", "mcp", "list"][..], &["-o", "wide", "ps"]] {
        assert!(exits(&world, 0, name).stdout.contains("demo"));
    }
    let changes: &[&[&str]] = &[
        &["isolate", "restart", &isolate],
        &["isolate", "kill", &isolate, "--reason", "a test"],
        &["subscription", "remove", &key, "demo"],
        &["subscription", "add", &key, "demo"],
        &["key", "revoke", &key],
        &["mcp", "suspend", "demo", "--reason", "a test"],
        &["mcp", "resume", "demo"],
        &["user", "suspend", "ada"],
        &["user", "resume", "ada"],
        &["group", "revoke", "dev", "demo"],
        &["group", "member", "remove", "dev", "ada"],
        &["mcp", "archive", "demo"],
    ];
    for words in changes {
        let mut all = vec!["--yes", "-o", "json"];
        all.extend(*words);
        let ran = exits(&world, 0, &all);
        serde_json::from_str::<Value>(&ran.stdout)
            .unwrap_or_else(|why| panic!("{words:?}: {why}: {}", ran.stdout));
    }
}

#[test]
fn the_exit_code_tells_why_not() {
    let world = World::new();
    world.demo("demo", &[]);
    world.key("ada");
    for wrong in [
        &["nothing"][..],
        &["mcp", "add", "x"],
        &["mcp", "add", "UPPER CASE", "--", "cat"],
        &["status", "-o", "yaml"],
    ] {
        exits(&world, 2, wrong);
    }
    // Taking away needs a yes, and there is no terminal to ask on.
    refuses(&world, 2, "usage", &["mcp", "archive", "demo"]);
    refuses(&world, 5, "not_found", &["mcp", "show", "absent"]);
    refuses(&world, 5, "not_found", &["mcp", "publish", "absent"]);
    refuses(
        &world,
        5,
        "not_found",
        &["isolate", "show", "iso_0000000000000000"],
    );
    refuses(&world, 5, "not_found", &["key", "create", "absent"]);
    refuses(
        &world,
        5,
        "not_found",
        &["group", "grant", "absent", "demo"],
    );
    refuses(
        &world,
        5,
        "not_found",
        &["group", "member", "add", "all", "absent"],
    );
    refuses(
        &world,
        5,
        "not_found",
        &["subscription", "add", "key_0000000000000000", "demo"],
    );
    refuses(&world, 6, "conflict", &["user", "add", "ada"]);
    refuses(&world, 6, "conflict", &["group", "add", "all"]);
    refuses(
        &world,
        6,
        "conflict",
        &["mcp", "add", "demo", "--", LEGATION, "demo-mcp"],
    );

    let elsewhere = tempfile::tempdir().unwrap();
    let away = Command::new(LEGATION)
        .args(["status", "--data-dir"])
        .arg(elsewhere.path())
        .env_remove("LEGATION_SOCKET")
        .output()
        .unwrap();
    assert_eq!(
        away.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&away.stderr)
    );

    // Two servers never share a directory.
    let config = world.dir.path().join("legation.toml");
    let second = Command::new(LEGATION)
        .args(["serve", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(world.data_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(
        second.status.code(),
        Some(6),
        "{}",
        String::from_utf8_lossy(&second.stderr)
    );
    assert!(String::from_utf8_lossy(&second.stderr).contains("in use"));
}

#[test]
fn a_stranger_on_the_host_is_denied() {
    let (true, Some(setpriv)) = (am_root(), tools::on_path("setpriv")) else {
        return tools::skip("a stranger's command line", "needs root and setpriv");
    };
    let world = World::new();
    let data = world.data_dir();
    // Where the stranger can run it.
    let program = world.dir.path().join("legation");
    if std::fs::hard_link(LEGATION, &program).is_err() {
        std::fs::copy(LEGATION, &program).unwrap();
    }
    let open = |path: &std::path::Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(world.dir.path(), 0o755);
    let ask = || {
        Command::new(&setpriv)
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "--",
            ])
            .arg(&program)
            .args(["user", "list", "--data-dir"])
            .arg(&data)
            .output()
            .unwrap()
    };
    let denied = |what: &str| {
        let ran = ask();
        let stderr = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(4), "{what}: {stderr}");
        stderr
    };
    denied("by the directory");
    let mode = std::fs::metadata(&data).unwrap().permissions().mode();
    open(&data, 0o755);
    denied("by the socket's mode");
    open(&data.join("admin.sock"), 0o666);
    let said = denied("by who it is");
    assert!(said.contains("65534"), "{said}");
    open(&data, mode);
}

#[test]
fn a_command_that_is_not_there_is_refused_and_nothing_is_kept() {
    let world = World::new();
    let text = refuses(
        &world,
        1,
        "command_not_found",
        &["mcp", "add", "x", "--", "no-such-program-here"],
    );
    assert!(text.contains("no-such-program-here"), "{text}");
    refuses(
        &world,
        1,
        "command_not_found",
        &["mcp", "add", "x", "--", "/no/such/program"],
    );
    // There, but nothing to execute.
    let file = world.dir.path().join("plain");
    std::fs::write(&file, "text").unwrap();
    refuses(
        &world,
        1,
        "command_not_found",
        &["mcp", "add", "x", "--", file.to_str().unwrap()],
    );
    assert_eq!(world.cli(&["mcp", "list"]), json!([]));
    world.demo("demo", &[]);
    refuses(
        &world,
        1,
        "command_not_found",
        &["mcp", "update", "demo", "--", "/no/such/program"],
    );
    assert_eq!(
        world.client("ada").ask("echo", json!({"text": "well"})),
        "well"
    );
}

#[test]
fn discovering_tells_the_phases_or_the_last_words() {
    let world = World::new();
    world.cli(&["mcp", "add", "good", "--", LEGATION, "demo-mcp"]);
    let found = world.cli(&["mcp", "discover", "good"]);
    let phases: Vec<&str> = found["phases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|phase| phase["name"].as_str().unwrap())
        .collect();
    for phase in ["spawn", "initialize", "list_tools"] {
        assert!(phases.contains(&phase), "{phases:?}");
    }
    assert_eq!(found["server_name"], "legation-demo");
    assert!(found["tools"].as_array().unwrap().len() > 10);

    world.cli(&[
        "mcp",
        "add",
        "broken",
        "--",
        LEGATION,
        "demo-mcp",
        "--misbehave",
        "exit_at_once=3",
    ]);
    for words in [["mcp", "discover", "broken"], ["mcp", "publish", "broken"]] {
        let text = refuses(&world, 1, "discover_failed", &words);
        assert!(
            text.contains("cannot start: told to exit at once") && text.contains('3'),
            "{text}"
        );
    }
    world.cli(&[
        "mcp",
        "add",
        "mute",
        "--start-timeout",
        "1s",
        "--",
        LEGATION,
        "demo-mcp",
        "--misbehave",
        "hang_handshake",
    ]);
    let text = refuses(&world, 1, "discover_failed", &["mcp", "discover", "mute"]);
    assert!(text.contains("initialize"), "{text}");
    let states = world.cli(&["mcp", "list"]);
    assert!(
        states
            .as_array()
            .unwrap()
            .iter()
            .all(|mcp| mcp["state"] == "draft"),
        "{states}"
    );
    assert_eq!(
        world.isolates(),
        [] as [Value; 0],
        "a probe is nobody's isolate"
    );
}

#[test]
fn an_archived_mcp_is_gone_for_good_and_its_tools_at_once() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "warm"}));
    world.cli(&["mcp", "archive", "demo"]);
    assert_eq!(ada.tools(), [] as [&str; 0]);
    assert_eq!(
        ada.call("echo", json!({"text": "x"})).code(),
        "tool_unknown"
    );
    world.until("its isolate is gone", |world| {
        world.processes().is_empty().then_some(())
    });
    let text = refuses(&world, 6, "conflict", &["mcp", "publish", "demo"]);
    assert!(text.contains("legation mcp add"), "{text}");
    refuses(&world, 6, "conflict", &["mcp", "discover", "demo"]);
    // Its name is free for another.
    world.demo("demo", &[]);
    assert_eq!(
        world.client("bob").ask("echo", json!({"text": "new"})),
        "new"
    );
}

#[test]
fn a_key_sees_what_its_groups_are_granted_and_what_it_subscribes_to() {
    let world = World::new();
    world.demo("demo", &[]);
    let key = world.key("ada");
    let ada = world.client_of_key(&key);
    assert!(
        ada.tools().contains(&"echo".to_owned()),
        "a new key is subscribed by itself"
    );
    let bare = world.cli(&["key", "create", "ada", "--no-subscribe"]);
    assert_eq!(bare["subscribed"], json!([]));
    let none = world.client_of_key(bare["secret"].as_str().unwrap());
    assert_eq!(none.tools(), [] as [&str; 0]);
    assert_eq!(
        none.call("echo", json!({"text": "x"})).code(),
        "not_subscribed"
    );
    let id = bare["key"]["id"].as_str().unwrap();
    world.cli(&["subscription", "add", id, "demo"]);
    assert_eq!(none.ask("echo", json!({"text": "now"})), "now");
    world.cli(&["subscription", "remove", id, "demo"]);
    assert_eq!(none.tools(), [] as [&str; 0]);
    assert_eq!(ada.ask("echo", json!({"text": "still"})), "still");

    // Without a grant there is nothing to subscribe to; what to type instead is said, and works.
    world.cli(&["mcp", "add", "other", "--", LEGATION, "demo-mcp"]);
    world.cli(&["mcp", "publish", "other"]);
    let text = refuses(&world, 6, "conflict", &["subscription", "add", id, "other"]);
    let next = text
        .lines()
        .find_map(|line| line.strip_prefix("try: legation "))
        .unwrap();
    world.cli(&next.split(' ').collect::<Vec<_>>());
    world.cli(&["subscription", "add", id, "other"]);
    assert!(
        none.tools().contains(&"echo".to_owned()),
        "bare: it is free in this view"
    );

    // Leaving the group takes everything away at once, and coming back gives it back.
    world.cli(&["group", "member", "remove", "all", "ada"]);
    assert_eq!(ada.tools(), [] as [&str; 0]);
    assert_eq!(
        ada.call("echo", json!({"text": "x"})).code(),
        "tool_unknown"
    );
    world.cli(&["group", "member", "add", "all", "ada"]);
    assert_eq!(ada.ask("echo", json!({"text": "back"})), "back");
    world.cli(&["group", "revoke", "all", "demo"]);
    assert_eq!(ada.tools(), [] as [&str; 0]);
}

#[test]
fn only_the_newcomer_is_renamed() {
    let world = World::new();
    world.demo("demo", &[]);
    let made = world.cli(&["user", "add", "ada"]);
    assert_eq!(made["name"], "ada");
    world.cli(&["group", "member", "add", "all", "ada"]);
    let key = world.cli(&["key", "create", "ada"]);
    let ada = world.client_of_key(key["secret"].as_str().unwrap());
    let before = ada.tools();
    world.demo("aaa", &[]);
    assert_eq!(ada.tools(), before, "a published mcp changes nobody's view");
    let id = key["key"]["id"].as_str().unwrap();
    let added = world.cli(&["subscription", "add", id, "aaa"]);
    assert!(added["tools"].to_string().contains("aaa_echo"), "{added}");
    let after = ada.tools();
    assert!(before.iter().all(|name| after.contains(name)), "{after:?}");
    assert!(after.contains(&"aaa_echo".to_owned()));
    ada.ask("note_put", json!({"key": "k", "value": "of demo"}));
    ada.ask("aaa_note_put", json!({"key": "k", "value": "of aaa"}));
    assert_eq!(ada.ask("note_get", json!({"key": "k"})), "of demo");
    assert_eq!(ada.ask("aaa.note_get", json!({"key": "k"})), "of aaa");
    // The names stay when the first one goes.
    world.cli(&["subscription", "remove", id, "demo"]);
    assert!(
        ada.tools().contains(&"aaa_echo".to_owned()) && !ada.tools().contains(&"echo".to_owned())
    );
}

#[test]
fn a_new_keys_bare_names_are_those_of_the_oldest_mcp() {
    let world = World::new();
    for name in ["zeta", "beta", "alpha", "gamma"] {
        world.demo(name, &[]);
    }
    for user in ["ada", "bob"] {
        let listed = world.client(user).send("GET", "/v1/tools", None).json();
        let tools = listed["tools"].as_array().unwrap();
        let echo = tools.iter().find(|tool| tool["name"] == "echo").unwrap();
        assert_eq!(echo["metadata"]["mcp_server"], "zeta");
    }
}

/// Each wrote all columns as it had read them, so that of two at once one was undone.
#[test]
fn changes_of_one_definition_at_once_all_hold() {
    let world = World::new();
    world.demo("demo", &[]);
    for round in 1..=6 {
        let (memory, pids) = (format!("{}MiB", 100 + round), (50 + round).to_string());
        let (profile, text) = (["strict", "standard"][round % 2], format!("round {round}"));
        let changes = [
            ["--memory", &memory],
            ["--pids", &pids],
            ["--profile", profile],
            ["--description", &text],
        ];
        std::thread::scope(|scope| {
            for [option, value] in changes {
                let world = &world;
                scope.spawn(move || world.cli(&["mcp", "update", "demo", option, value]));
            }
        });
        let now = world.cli(&["mcp", "show", "demo"]);
        let bytes = (100 + round as u64) << 20;
        assert_eq!(now["limits"]["memory_bytes"], bytes, "{now}");
        assert_eq!(now["limits"]["pids"], 50 + round, "{now}");
        assert_eq!(now["confinement"]["profile"], profile, "{now}");
        assert_eq!(now["description"], text.as_str(), "{now}");
    }
}

#[test]
fn an_update_replaces_an_isolate_after_its_calls() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, bob) = (world.client("ada"), world.client("bob"));
    let before = run_of(&ada);
    let session = ada.clone();
    let inside = std::thread::spawn(move || session.ask("sleep", json!({"ms": 3000})));
    world.until("the call is in flight", |world| {
        world
            .isolates()
            .iter()
            .any(|one| one["in_flight"] == 1)
            .then_some(())
    });
    world.cli(&["mcp", "update", "demo", "--env", "COLOUR=green"]);
    let told = ada.ask("whoami", json!({}));
    assert!(told.contains("COLOUR") && !told.contains(&before), "{told}");
    assert_eq!(
        inside.join().unwrap(),
        "slept 3000 ms",
        "what was inside finished on the old one"
    );
    assert!(bob.ask("whoami", json!({})).contains("COLOUR"));
    world.until("the old one is gone", |world| {
        (world.isolates().len() == 2).then_some(())
    });
    // A description is no reason to restart anything.
    let running = run_of(&ada);
    world.cli(&["mcp", "update", "demo", "--description", "another"]);
    assert_eq!(run_of(&ada), running);
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = dir.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let ran = Command::new(LEGATION)
            .args(["config", "check"])
            .arg(&file)
            .output()
            .unwrap();
        (ran.status.code(), String::from_utf8(ran.stderr).unwrap())
    };
    assert_eq!(check("[calls]\nin_flight_max = 7\n").0, Some(0));
    for (wrong, word) in [
        ("[calls]\nin_flite_max = 7\n", "in_flight_max"),
        ("[calls]\nin_flight_max = 0\n", "in_flight_max"),
        ("[client]\ntls = \"maybe\"\n", "tls"),
        (
            "[client]\ntrusted_proxies = [\"10.0.0.0/99\"]\n",
            "10.0.0.0/99",
        ),
        ("[calls\n", "TOML"),
    ] {
        let (code, said) = check(wrong);
        assert_eq!(code, Some(2), "{wrong}: {said}");
        assert!(said.contains(word), "{wrong}: {said}");
    }
    // What a start would stumble over on this host, with the line that says it.
    let here = dir.path().display();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    std::fs::write(dir.path().join("other.pem"), other).unwrap();
    let files = |cert: &str, key: &str| {
        format!(
            "[client]\ntls = \"files\"\ncert_file = \"{here}/{cert}\"\nkey_file = \"{here}/{key}\"\n"
        )
    };
    assert_eq!(check(&files("cert.pem", "key.pem")).0, Some(0));
    for (wrong, words) in [
        (
            files("none.pem", "key.pem"),
            ["c.toml:3: client.cert_file", "none.pem"],
        ),
        (
            files("cert.pem", "none.pem"),
            ["c.toml:4: client.key_file", "none.pem"],
        ),
        (files("cert.pem", "cert.pem"), ["client.", "no private key"]),
        (
            files("cert.pem", "other.pem"),
            ["client.key_file", "cannot be used with the key"],
        ),
        (
            "[admin]\ngroup = \"no-such-group\"\n".to_owned(),
            ["c.toml:2: admin.group", "groupadd"],
        ),
    ] {
        let (code, said) = check(&wrong);
        assert_eq!(code, Some(2), "{wrong}: {said}");
        for word in words {
            assert!(said.contains(word), "{wrong}: {word}: {said}");
        }
    }
    let shown = Command::new(LEGATION)
        .args([
            "config",
            "show",
            "-o",
            "json",
            "--set",
            "calls.in_flight_max=9",
        ])
        .env("LEGATION__CALLS__DEADLINE_MS", "5000")
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let value = |key: &str| {
        shown["settings"]
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["key"] == key)
            .unwrap()
            .clone()
    };
    assert_eq!(value("calls.in_flight_max")["value"], 9);
    assert_eq!(value("calls.deadline_ms")["value"], 5000);
    assert_ne!(value("calls.deadline_ms")["origin"], "built-in");
    assert_eq!(value("client.listen")["origin"], "built-in");
}

/// `echo` was one mcp's, whose grant is gone; another mcp of the key has a tool of that name, under another.
#[test]
fn a_refusal_names_what_the_key_has_and_lists_say_what_has_an_effect() {
    let world = World::new();
    world.demo("every", &[]);
    world.demo("cred", &[]);
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "x"})), "x");
    let listed = |world: &World, mcp: &str| {
        let all = world.cli(&["subscription", "list"]);
        let mut all = all.as_array().unwrap().iter();
        let one = all.find(|one| one["mcp"] == mcp).unwrap();
        (one["state"].clone(), one["tools"].as_array().unwrap().len())
    };
    assert_eq!(listed(&world, "every").0, "active");
    world.cli(&["group", "revoke", "all", "every"]);

    let exposed = ada.tools().into_iter().find(|tool| tool.ends_with("echo"));
    let exposed = exposed.unwrap();
    assert_ne!(exposed, "echo");
    let refused = ada.call("echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "tool_unknown");
    let text = refused.text();
    assert!(
        text.contains(&format!("`{exposed}` (mcp `cred`)")),
        "{text}"
    );
    assert!(!text.contains("subscription add"), "{text}");
    assert_eq!(ada.ask(&exposed, json!({"text": "y"})), "y");

    assert_eq!(listed(&world, "every"), (json!("no_grant"), 0));
    assert_eq!(listed(&world, "cred").0, "active");
    let table = exits(&world, 0, &["subscription", "list"]).stdout;
    assert!(table.contains("no grant"), "{table}");
    world.cli(&["mcp", "suspend", "cred", "--reason", "r"]);
    assert_eq!(listed(&world, "cred"), (json!("switched_off"), 0));
    world.cli(&["mcp", "resume", "cred"]);
    world.cli(&["user", "suspend", "ada", "--reason", "leave"]);
    assert_eq!(listed(&world, "cred"), (json!("suspended"), 0));
    let shown = world.cli(&["user", "show", "ada"]);
    assert_eq!(shown["user"]["suspended"], "leave", "{shown}");
    assert_eq!(shown["user"]["groups"], json!(["all"]), "{shown}");
    assert_eq!(shown["subscriptions"][1]["state"], "suspended", "{shown}");
    world.cli(&["user", "resume", "ada"]);
    let key = shown["keys"][0]["id"].as_str().unwrap();
    world.cli(&["key", "revoke", key]);
    assert_eq!(listed(&world, "cred"), (json!("key_revoked"), 0));
    refuses(&world, 5, "not_found", &["user", "show", "absent"]);
    refuses(&world, 5, "not_found", &["group", "show", "absent"]);
}

#[test]
fn all_keys_of_a_group_or_a_user_are_subscribed_at_once() {
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    world.key("ada");
    let old = world.cli(&["key", "create", "ben"]);
    world.cli(&["key", "revoke", old["key"]["id"].as_str().unwrap()]);
    world.cli(&["mcp", "add", "late", "--", LEGATION, "demo-mcp"]);
    world.cli(&["mcp", "publish", "late"]);
    let add = ["subscription", "add", "--group", "all", "late"];
    let text = refuses(&world, 6, "conflict", &add);
    assert!(
        text.contains("try: legation group grant all late"),
        "{text}"
    );
    let granted = exits(&world, 0, &["group", "grant", "all", "late"]);
    let hint = granted
        .stderr
        .lines()
        .find_map(|line| line.split_once(": legation "));
    let hint: Vec<&str> = hint.unwrap().1.split(' ').collect();
    assert_eq!(hint, add, "the hint can be typed as it is");

    let sees = |session: &Session| session.tools().iter().any(|tool| tool.starts_with("late"));
    assert!(!sees(&ada) && !sees(&ben));
    let one = world.cli(&["subscription", "add", "--user", "ben", "late"]);
    assert_eq!(one["changed"].as_array().unwrap().len(), 1, "{one}");
    assert!(sees(&ben) && !sees(&ada));
    let all = world.cli(&hint);
    assert_eq!(all["changed"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!((&all["as_before"], &all["failed"]), (&json!(1), &json!([])));
    assert!(sees(&ada));
    let again = exits(&world, 0, &add).stdout;
    assert!(
        again.contains("0 keys of group all see late now"),
        "{again}"
    );
    let shown = world.cli(&["group", "show", "all"]);
    let grants = json!([
        {"mcp": "demo", "state": "published", "subscribed": 3},
        {"mcp": "late", "state": "published", "subscribed": 3},
    ]);
    assert_eq!((&shown["keys"], &shown["grants"]), (&json!(3), &grants));

    let remove = ["subscription", "remove", "--group", "all", "late"];
    refuses(&world, 2, "usage", &remove);
    let gone = world.cli(&remove);
    assert_eq!(gone["changed"].as_array().unwrap().len(), 3, "{gone}");
    assert!(!sees(&ada) && !sees(&ben));
    assert_eq!(ada.ask("demo.echo", json!({"text": "x"})), "x");
}

#[test]
fn a_definition_has_the_bounds_of_the_configuration() {
    let world = World::new();
    world.demo("demo", &[]);
    for (option, value, key) in [
        ("--memory", "99999TiB", "isolates.memory_bytes"),
        ("--memory", "4MiB", "isolates.memory_bytes"),
        ("--cpu", "99999", "isolates.cpu_millis"),
        ("--pids", "1", "isolates.pids"),
        ("--idle", "1ms", "isolates.idle_ms"),
    ] {
        let command = ["--", LEGATION, "demo-mcp"];
        let add = [&["mcp", "add", "x", option, value], &command[..]].concat();
        for words in [add, vec!["mcp", "update", "demo", option, value]] {
            let text = refuses(&world, 2, "invalid_request", &words);
            assert!(text.contains(key) && text.contains("from"), "{text}");
        }
    }
    assert_eq!(world.cli(&["mcp", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn what_a_start_would_use_is_told_from_what_the_server_uses() {
    let world = World::new();
    let other = exits(&world, 0, &["config", "show"]);
    assert!(other.stderr.contains("other values"), "{}", other.stderr);
    assert!(
        other.stderr.contains("client.tls = \"off\""),
        "{}",
        other.stderr
    );
    let file = world.dir.path().join("legation.toml");
    let same = exits(
        &world,
        0,
        &["config", "show", "--config", file.to_str().unwrap()],
    );
    assert!(same.stderr.contains("the same values"), "{}", same.stderr);
    assert!(same.stdout.contains("tls = \"off\""), "{}", same.stdout);
}

#[test]
fn what_needs_no_server_has_json_too() {
    let world = World::new();
    let file = world.dir.path().join("legation.toml");
    let file = file.to_str().unwrap();
    let told = |words: &[&str]| {
        let ran = exits(&world, 0, &[&["-o", "json"], words].concat());
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    assert_eq!(told(&["config", "check", file])["right"], true);
    let shown = told(&["config", "show", "--config", file]);
    let settings = shown["settings"].as_array().unwrap();
    let tls = settings.iter().find(|one| one["key"] == "client.tls");
    assert_eq!(tls.unwrap()["value"], "off", "{tls:?}");
    let bounds = shown["bounds"].as_array().unwrap();
    assert!(bounds.iter().any(|one| one["name"] == "LINE_BYTES_MAX"));
    for words in [&["isolat", "list"][..], &["mcp", "add", "x", "--pids", "0"]] {
        let wrong = exits(&world, 2, &[words, &["-o", "json"]].concat());
        let told: Value = serde_json::from_str(&wrong.stderr).unwrap();
        assert_eq!(
            (&told["code"], &told["number"]),
            (&json!("usage"), &json!("E0601"))
        );
        let wrong = exits(&world, 2, words).stderr;
        assert!(wrong.starts_with("error[E0601]: "), "{wrong}");
        assert!(
            wrong.contains("\ntry: legation ") && !wrong.contains("installer"),
            "{wrong}"
        );
    }
}

#[test]
fn a_reason_ends_before_the_time_begins() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let on = ["kill-switch", "on", "--scope", "mcp", "--target", "demo"];
    let how = ["--reason", "bad tool", "--expires", "2h"];
    world.cli(&[&on[..], &how].concat());
    let text = ada.call("demo.echo", json!({"text": "x"})).text();
    assert!(text.contains("bad tool. It ends at "), "{text}");
}
