//! The database's own disk fills up: it reads, and writes nothing that needs room.

use super::*;
use crate::lifecycle::Disk;
use crate::world::am_root;

/// Text that packs badly, as large as an mcp's variable may be.
fn large() -> String {
    let mut state = 1_u64;
    let words = (0..2_500).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{:016x}", state ^ (state >> 29))
    });
    words.collect()
}

fn add(world: &World, name: &str) -> crate::world::Ran {
    let variable = format!("LARGE={}", large());
    world.run(&[
        "-o", "json", "mcp", "add", name, "--env", &variable, "--", "sh",
    ])
}

#[test]
fn while_its_disk_is_full_calls_and_reads_go_on_and_changes_are_refused() {
    const WHAT: &str = "postgres: a full disk under it";
    if !am_root() {
        return tools::skip(WHAT, "not root, so nothing can be mounted");
    }
    let place = tempfile::tempdir().unwrap();
    let Some(disk) = Disk::mount_of(place.path(), "size=96m,mode=711") else {
        return tools::skip(WHAT, "mount is refused here");
    };
    crate::postgres::open(place.path());
    let Some(server) = Server::start_in(tempfile::tempdir().unwrap(), place.path().join("pg"))
    else {
        return;
    };
    let world = World::with(&server.config());
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let echo = |text: &str| assert_eq!(ada.ask("demo.echo", json!({ "text": text })), text);
    echo("before");
    disk.fill();

    let refused = add(&world, "large");
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    let problem = problem(&refused.stderr);
    assert_eq!(problem["code"], "store_unavailable", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(
        detail.contains("its disk is full; free some space"),
        "{detail}"
    );

    let said = world.until("readiness says so", |world| {
        let said = status(world);
        (said["ready"] == false).then_some(said)
    });
    assert_eq!(said["not_ready"], json!(["store"]), "{said}");
    let away = said["store"]["away"].as_str().unwrap();
    assert!(away.contains("disk is full"), "{away}");
    let ready = crate::metrics::get(&world, "/readyz?verbose");
    let body = text(&ready.body);
    assert_eq!(ready.status, 503, "{body}");
    assert!(
        body.contains("store") && body.contains("disk is full"),
        "{body}"
    );
    // It stays so for as long as it is: a look that needs no room would say that all is well.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        echo("meanwhile");
        assert_eq!(status(&world)["ready"], false);
    }
    let users = world.cli(&["user", "list"]).to_string();
    assert!(users.contains("ada"), "it is read: {users}");
    let switch = ["--scope", "mcp", "--target", "demo", "--reason", "leak"];
    world.cli(&[&["kill-switch", "on"], &switch[..]].concat());
    let denied = ada.call("demo.echo", json!({"text": "x"}));
    assert_eq!(denied.code(), "kill_switch_active", "{denied:?}");
    world.cli(&["kill-switch", "off", "--scope", "mcp", "--target", "demo"]);
    echo("and off again");

    disk.free();
    world.until("it is ready again by itself", |world| {
        (status(world)["ready"] == true).then_some(())
    });
    let added = add(&world, "large");
    assert_eq!(added.code, 0, "{}", added.stderr);
    echo("after");
    world.until("the switch of meanwhile is stored", |world| {
        let past = world.cli(&["kill-switch", "list", "--history"]);
        let all = past.as_array().unwrap();
        (all.len() == 1 && all[0]["stored"] == true).then_some(())
    });
    assert_eq!(
        server.ask("SELECT count(*) FROM settings WHERE name = 'room'"),
        0
    );
    for service in world.cli(&["tree"])["children"].as_array().unwrap() {
        assert_eq!(service["restarts"], 0, "{service}");
    }
}
