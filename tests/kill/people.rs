//! Suspended users and keys.

use super::*;
use crate::face::{Client, listen};
use crate::stateless::Client as Stateless;

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
fn a_revoked_key_gets_no_answer_of_a_call_that_is_under_way() {
    let world = World::new();
    world.demo("demo", &[]);
    world.misbehaving("late", &[], &["slow_start=5000"]);
    let (first, second) = (world.key("ada"), world.key("ada"));
    let http = Http::new(&world.url);
    let (one, two) = (http.register(&first), http.register(&second));
    one.ask("demo.echo", json!({"text": "warm"}));
    let mine = sleeping(&one, "demo.sleep", 600_000);
    let id = under_way(&world, "in_flight", 1)[0]["key"].clone();
    let waits = sleeping(&one, "late.sleep", 1);
    let theirs = sleeping(&two, "demo.sleep", 2_000);
    under_way(&world, "in_flight", 2);
    under_way(&world, "waiting", 1);
    let report = world.cli(&["key", "revoke", id.as_str().unwrap()]);
    assert_eq!(
        (&report["sessions_ended"], &report["calls_cancelled"]),
        (&json!(1), &json!(2)),
        "{report}"
    );
    for cut in [mine, waits] {
        let answer = cut.join().unwrap();
        assert_eq!(answer.code(), "session_suspended", "{answer:?}");
        assert!(answer.text().contains("revoked"), "{}", answer.text());
    }
    assert_eq!(theirs.join().unwrap().code(), "", "another key of hers");
    assert_eq!(one.call("demo.echo", json!({"text": "x"})).status, 401);
    let ends: Vec<Value> = audit(&world);
    let cut = ends
        .iter()
        .filter(|one| one["event"] == "call.end" && one["outcome"] == "session_suspended");
    assert_eq!(cut.count(), 2);
}

#[test]
fn a_key_that_expires_gets_no_answer_of_a_call_that_is_under_way() {
    let world = World::new();
    world.demo("demo", &[]);
    world.client("ada").ask("echo", json!({"text": "warm"}));
    let made = world.cli(&["key", "create", "ada", "--expires-in", "3s"]);
    let brief = world.client_of_key(made["secret"].as_str().unwrap());
    let since = Instant::now();
    let answer = sleeping(&brief, "sleep", 600_000).join().unwrap();
    assert_eq!(answer.code(), "session_suspended", "{answer:?}");
    assert!(since.elapsed() < Duration::from_secs(60), "{answer:?}");
}

#[test]
fn a_stream_of_a_key_that_expires_ends_with_it() {
    let world = World::new();
    world.demo("demo", &[]);
    world.key("ada");
    let made = world.cli(&["key", "create", "ada", "--expires-in", "4s"]);
    let key = made["secret"].as_str().unwrap();
    let client = Client::new(&world, "/mcp/demo", key);
    let stream = listen(&client);
    let modern = Stateless::new(&world, "/mcp/demo", key);
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let listening = modern.stream("subscriptions/listen", wanted);
    let since = Instant::now();
    thread::scope(|scope| {
        let other = scope.spawn(move || {
            listening.last();
            since.elapsed()
        });
        stream.last();
        for took in [since.elapsed(), other.join().unwrap()] {
            assert!(took < Duration::from_secs(12), "{took:?}");
        }
    });
}

#[test]
fn a_key_that_cannot_be_shown_is_revoked_again() {
    let world = World::new();
    world.cli(&["user", "add", "ada"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    let output = Command::new(LEGATION)
        .args(["key", "create", "ada"])
        .env("LEGATION_DATA_DIR", world.data_dir())
        .stdin(Stdio::null())
        .stdout(full.unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let keys = world.cli(&["key", "list", "--user", "ada"]);
    assert_eq!(keys[0]["state"], "revoked", "{keys}");
    assert!(
        said.contains(keys[0]["id"].as_str().unwrap()) && said.contains("revoked again"),
        "{said}"
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
