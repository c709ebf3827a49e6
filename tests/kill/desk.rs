//! What an administrator types and reads.

use super::*;

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
        ("mpc", "demo", 2, "invalid_request", "--scope mcp"),
        ("mcp", "", 2, "invalid_request", "--target"),
        (
            "tool",
            "ecko",
            5,
            "not_found",
            "mcp/tool; did you mean demo/echo?",
        ),
        (
            "tool",
            "demo.echo",
            5,
            "not_found",
            "did you mean demo/echo?",
        ),
        ("tool", "/echo", 5, "not_found", "did you mean demo/echo?"),
        (
            "client",
            "ada",
            5,
            "not_found",
            "legation key list --user ada",
        ),
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
    let never = switch("mcp", "demo", "r", &["--expires", "99999999999d"]);
    refused(2, "invalid_request", never);
    let id = keys_of(&world, "ada").remove(0);
    let next = refused(
        5,
        "not_found",
        switch("client", &format!("{id}x"), "r", &[]),
    );
    assert_eq!(next, format!("did you mean {id}?"));
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
fn calls_that_end_alone_are_named() {
    let world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "warm"}));
    let call = sleeping(&ada, "demo.sleep", 60_000);
    let list = under_way(&world, "in_flight", 1);
    let id = list[0]["id"].as_str().unwrap();
    let key = keys_of(&world, "ada").remove(0);
    for (scope, target) in [("tool", "demo/sleep"), ("client", key.as_str())] {
        let words = [
            "kill-switch",
            "on",
            "--scope",
            scope,
            "--target",
            target,
            "--reason",
            "r",
            "--dry-run",
        ];
        let told = world.run(&words).stdout;
        assert!(told.contains(id) && told.contains("ada"), "{told}");
    }
    let report = on(&world, "tool", "demo/sleep", "r");
    assert_eq!(
        (&report["isolates_stopped"], &report["calls_cancelled"]),
        (&json!(0), &json!(1))
    );
    let one = &report["calls"][0];
    assert_eq!(
        (&one["id"], &one["tool"], &one["user"]),
        (&json!(id), &json!("sleep"), &json!("ada"))
    );
    denied(&call.join().unwrap(), "kill_switch_active", "tool", "r");
    // What ends with its isolate is told with that.
    off(&world, "tool", "demo/sleep");
    let report = on(&world, "mcp", "demo", "r");
    assert_eq!(
        (&report["isolates_stopped"], &report["calls"]),
        (&json!(1), &json!([]))
    );
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
