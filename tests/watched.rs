//! What kill switches, the audit log and the store tell of themselves in the metrics.

use std::os::unix::fs::FileExt;
use std::thread;

use serde_json::json;

use crate::audit::{dir, segments};
use crate::metrics::{Page, scrape};
use crate::world::World;

fn house(world: &World) -> Page {
    scrape(world, "/metrics")
}

/// The value of one series is this one.
fn is(page: &Page, name: &str, labels: &[(&str, &str)], expected: f64) {
    let value = page.value(&format!("legation_{name}"), labels);
    assert!(
        (value - expected).abs() < f64::EPSILON,
        "{name} {labels:?}: {value}, not {expected}"
    );
}

fn switch(world: &World, way: &str, more: &[&str]) {
    let mut words = vec!["kill-switch", way, "--scope", "mcp", "--target", "notes"];
    words.extend(more);
    world.cli(&words);
}

#[test]
fn what_an_administrator_takes_away_is_counted() {
    let world = World::new();
    world.demo("notes", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("echo", json!({"text": "x"}));
    let under_way = ("mcp", "notes");
    thread::scope(|scope| {
        let slow = scope.spawn(|| ada.call("sleep", json!({"ms": 60_000})));
        world.until("the call is under way", |world| {
            (house(world).value("legation_calls_in_flight", &[under_way]) > 0.0).then_some(())
        });
        switch(&world, "on", &["--reason", "a test"]);
        assert_eq!(slow.join().unwrap().code(), "kill_switch_active");
    });
    let late = ada.call("echo", json!({"text": "x"}));
    assert_eq!(late.code(), "kill_switch_active");

    let of_mcp = ("scope", "mcp");
    let page = house(&world);
    let active = "kill_switches_active";
    is(&page, active, &[("kind", "kill_switch"), of_mcp], 1.0);
    is(&page, active, &[("kind", "suspension"), of_mcp], 0.0);
    let changes = "kill_switch_changes_total";
    is(&page, changes, &[of_mcp, ("action", "on")], 1.0);
    is(&page, changes, &[of_mcp, ("action", "off")], 0.0);
    is(&page, "kill_switch_cancelled_calls_total", &[of_mcp], 1.0);
    is(&page, "kill_switch_denied_total", &[of_mcp], 1.0);
    let outcome = |word| [under_way, ("outcome", word)];
    is(&page, "calls_total", &outcome("killed"), 1.0);
    is(&page, "calls_total", &outcome("denied"), 1.0);
    is(&page, "calls_total", &outcome("unavailable"), 0.0);
    is(&page, "kill_switch_propagation_seconds_count", &[], 1.0);
    is(&page, "kill_switch_unkillable_total", &[], 0.0);
    is(&page, "kill_switches_unsaved", &[], 0.0);
    is(&page, "kill_switch_journal_failing", &[], 0.0);

    switch(&world, "off", &[]);
    world.cli(&["user", "suspend", "ben", "--reason", "a test"]);
    let suspended = ben.call("echo", json!({"text": "x"}));
    assert_eq!(suspended.status, 401, "{suspended:?}");
    let page = house(&world);
    is(&page, active, &[("kind", "kill_switch"), of_mcp], 0.0);
    let of_user = ("scope", "user");
    is(&page, active, &[("kind", "suspension"), of_user], 1.0);
    is(&page, active, &[("kind", "kill_switch"), of_user], 0.0);
    is(&page, changes, &[of_mcp, ("action", "off")], 1.0);
    is(&page, changes, &[of_user, ("action", "on")], 1.0);
    // A kill is seen once, however often somebody looks.
    is(&page, "kill_switch_propagation_seconds_count", &[], 2.0);
    let revoked = [("method", "session"), ("outcome", "revoked")];
    is(&page, "auth_attempts_total", &revoked, 1.0);
}

#[test]
fn the_audit_log_and_the_store_tell_how_they_are() {
    let world = World::new();
    world.demo("notes", &[]);
    let client = world.client("ada");
    client.ask("echo", json!({"text": "x"}));
    let page = house(&world);
    let audit = |name: &str| page.value(&format!("legation_audit_{name}"), &[]);
    // A start and an end.
    is(&page, "audit_events_total", &[("category", "call")], 2.0);
    let admin = [("category", "admin")];
    assert!(page.value("legation_audit_events_total", &admin) >= 2.0);
    for category in ["auth", "call", "admin", "isolate", "kill", "system"] {
        is(&page, "audit_dropped_total", &[("category", category)], 0.0);
    }
    is(&page, "audit_write_errors_total", &[], 0.0);
    assert!(audit("sync_seconds_count") >= 1.0 && audit("sync_seconds_sum") > 0.0);
    assert!(audit("bytes") > 500.0 && audit("lag_seconds") < 60.0);
    is(&page, "audit_segments", &[], 1.0);
    assert!(audit("chain_ok").is_nan(), "nobody verified it yet");
    let read = [("op", "read")];
    assert!(page.value("legation_db_query_duration_seconds_count", &read) >= 1.0);
    is(&page, "store_up", &[], 1.0);
    let open: f64 = ["idle", "in_use"]
        .map(|state| page.value("legation_db_connections", &[("state", state)]))
        .iter()
        .sum();
    let most = page.value("legation_db_connections_max", &[]);
    assert!((1.0..=most).contains(&open), "{open} of {most}");
    assert!(page.value("legation_db_size_bytes", &[]) > 4096.0);

    assert_eq!(world.run(&["audit", "verify"]).code, 0);
    is(&house(&world), "audit_chain_ok", &[], 1.0);
    // One byte of a record that is long written.
    let segment = &segments(&dir(&world))[0];
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(segment)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 300).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 300).unwrap();
    assert_ne!(world.run(&["audit", "verify"]).code, 0);
    is(&house(&world), "audit_chain_ok", &[], 0.0);
}
