//! Single calls: listed, cancelled, their servers recycled.

use super::*;

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
