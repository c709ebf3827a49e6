//! Room on the host: what is refused before the host hurts, and what the kernel holds.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::world::{Http, World, am_root};

#[test]
fn no_more_isolates_run_than_the_host_is_given() {
    let world = World::with("[isolates]\nmax = 1\n");
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("demo.echo", json!({"text": "x"}));
    let refused = ben.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    assert!(
        refused.text().contains("isolates.max"),
        "{}",
        refused.text()
    );
    // Who runs is not touched, and room that is given back is used.
    ada.ask("demo.echo", json!({"text": "x"}));
    let id = world.isolate("demo", Some("ada"))["id"].clone();
    world.cli(&["isolate", "kill", id.as_str().unwrap(), "--reason", "room"]);
    world.until("there is room again", |_| {
        ben.call("demo.echo", json!({"text": "x"}))
            .code()
            .is_empty()
            .then_some(())
    });
    let room = &world.status()["room"];
    assert_eq!(room["isolates_max"], 1, "{room}");
    assert!(room["refused"].as_u64() >= Some(1), "{room}");
}

/// One user's idle isolate kept everybody else out for a quarter of an hour.
#[test]
fn an_isolate_that_nobody_uses_makes_room() {
    let world = World::with("[isolates]\nmax = 1\n");
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("demo.echo", json!({"text": "x"}));
    let refused = ben.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "it was used a moment ago");
    world.until("the idle one has made room", |_| {
        let answer = ben.call("demo.echo", json!({"text": "x"}));
        answer.code().is_empty().then_some(())
    });
    // One at work does not.
    std::thread::scope(|scope| {
        let long = scope.spawn(|| ben.call("demo.sleep", json!({"ms": 8000})));
        world.until("it is under way", |world| {
            (world.cli(&["call", "list"]) != json!([])).then_some(())
        });
        while !long.is_finished() {
            let refused = ada.call("demo.echo", json!({"text": "x"})).code();
            assert!(refused == "host_full" || long.is_finished(), "{refused}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        assert_eq!(long.join().unwrap().code(), "");
    });
}

#[test]
fn nothing_is_started_on_a_host_without_memory() {
    let world = World::with("[isolates]\nhost_free_bytes = 1125899906842624\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let refused = ada.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    assert!(
        refused.text().contains("isolates.host_free_bytes"),
        "{}",
        refused.text()
    );
    assert!(world.processes().is_empty());
}

/// The real figure of the real kernel: the memory's is tried in `actors::pressure` by a text, since a host that waits
/// for memory is nobody's to make.
#[test]
fn a_host_under_pressure_starts_nothing() {
    if std::fs::read_to_string("/proc/pressure/cpu").is_err() {
        return crate::tools::skip("the host's pressure", "this kernel does not tell it");
    }
    let world = World::with("[isolates]\ncpu_pressure_percent = 1\n");
    world.demo("demo", &[]);
    let ada = world.client("ada");
    let done = AtomicBool::new(false);
    let cores = std::thread::available_parallelism().unwrap().get();
    std::thread::scope(|scope| {
        for _ in 0..cores * 2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let stop = Stop(&done);
        world.until("the host is under pressure", |world| {
            (world.status()["room"]["pressure"]["shut"] == true).then_some(())
        });
        let refused = ada.call("demo.echo", json!({"text": "x"}));
        assert_eq!(refused.code(), "host_full", "{}", refused.text());
        let text = refused.text();
        assert!(text.contains("waited for a core for"), "{text}");
        assert!(text.contains("from 1 % on"), "{text}");
        assert!(text.contains("isolates.cpu_pressure_percent"), "{text}");
        drop(stop);
    });
    assert!(world.processes().is_empty());
    assert!(world.status()["room"]["refused"].as_u64() >= Some(1));
}

/// Ends what spins, also where a test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_kernel_holds_the_sum_of_all_isolates() {
    if !am_root() {
        return crate::tools::skip("a budget of memory", "not root, so no cgroup is ours");
    }
    let world = World::with("[isolates]\nmemory_budget_bytes = 67108864\n");
    world.demo("demo", &["--memory", "1GiB"]);
    let ada = world.client("ada");
    let died = ada.call("demo.allocate", json!({"mib": 200}));
    assert_eq!(died.code(), "out_of_memory", "{}", died.text());
    assert!(died.text().contains("host"), "{}", died.text());
    ada.call("demo.echo", json!({"text": "x"}));
}

/// A gateway whose homes are on a small disk of their own, and servers that each do something in their home when
/// they are called. `None`: it cannot be had here, and why is told.
fn on_a_small_disk(
    disk: &str,
    disk_free_bytes: u64,
    servers: &[(&str, &str)],
) -> Option<(World, crate::lifecycle::Disk)> {
    const WHAT: &str = "a full disk under homes";
    if !am_root() {
        crate::tools::skip(WHAT, "not root, so nothing can be mounted");
        return None;
    }
    let config = format!("[isolates]\ndisk_free_bytes = {disk_free_bytes}\n");
    let mut world = World::with(&config);
    world.stop();
    let homes = world.data_dir().join("homes");
    let Some(mounted) = crate::lifecycle::Disk::mount_of(&homes, &format!("{disk},mode=711"))
    else {
        crate::tools::skip(WHAT, "mount is refused here");
        return None;
    };
    world.start();
    for (name, act) in servers {
        let answering = format!("tools/call\"'*) {act}; ");
        let script = crate::standard::CANNED.replace("tools/call\"'*)", &answering);
        world.mcp(name, &[], &["sh", "-c", &script, "sh", r#"{"content":[]}"#]);
    }
    Some((world, mounted))
}

fn disk_ended(world: &World) -> u64 {
    world.status()["room"]["disk_ended"].as_u64().unwrap()
}

/// What the audit log tells of isolates that were ended for the disk: mcp and why.
fn ended_for_the_disk(world: &World) -> Vec<(String, String)> {
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap_or("").to_owned();
    let all = crate::kill::audit(world);
    let ended = all.iter().filter(|one| one["event"] == "isolate.ended");
    let told = ended.map(|one| (text(one, "mcp_name"), text(one, "detail")));
    told.filter(|(_, why)| why.contains("filled the disk"))
        .collect()
}

/// A server that filled its home had every user's calls refused, for want of an audit log.
#[test]
fn a_server_that_fills_the_disk_is_ended_and_nobody_else_is() {
    // Filling begins with the first call and goes on by itself.
    let fills = "(while head -c 1048576 /dev/zero >> $HOME/fill; do sleep 0.1; done) & true";
    let servers = [("filler", fills)];
    let Some((mut world, _disk)) = on_a_small_disk("size=64m", 32 << 20, &servers) else {
        return;
    };
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    ada.call("filler.canned", json!({}));
    world.until("the filler is ended", |world| {
        (disk_ended(world) == 1).then_some(())
    });
    // Whoever ran before goes on; nobody starts.
    assert_eq!(ben.ask("demo.echo", json!({"text": "y"})), "y");
    let refused = ada.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    for told in ["isolates.disk_free_bytes", "Your operator has to clear it"] {
        assert!(refused.text().contains(told), "{}", refused.text());
    }
    let log = world.log();
    for told in ["filled the disk", "this host has no room for a server"] {
        assert!(log.contains(told), "{log}");
    }
    let blamed = log.lines().find(|line| line.contains("filled the disk"));
    assert!(blamed.unwrap().contains("ada"), "{blamed:?}");
    let status = world.run(&["status"]);
    assert_eq!(status.code, 2, "{}", status.stdout);
    let text = "degraded: servers are not started: the disk of the homes";
    assert!(status.stdout.contains(text), "{}", status.stdout);
    let page = Http::new(&world.ops_url).send("GET", "/metrics", None, None);
    let page = String::from_utf8(page.body).unwrap();
    let sample = r#"legation_calls_total{mcp="demo",outcome="unavailable"} 1"#;
    assert!(page.contains(sample), "{page}");
    assert!(page.contains("legation_isolate_starts_refused_total 1"));
    assert_eq!(ended_for_the_disk(&world).len(), 1);
    // Room that is made is used.
    let owner = world.isolate("demo", Some("ben"));
    assert_eq!(owner["state"], "ready");
    for user in std::fs::read_dir(world.data_dir().join("homes"))
        .unwrap()
        .flatten()
    {
        for home in std::fs::read_dir(user.path()).unwrap().flatten() {
            let _ = std::fs::remove_file(home.path().join("fill"));
        }
    }
    world.until("there is room again", |_| {
        let answer = ada.call("demo.echo", json!({"text": "x"}));
        answer.code().is_empty().then_some(())
    });
    assert!(!world.run(&["status"]).stdout.contains("nearly full"));
    world.stop();
}

/// Between two looks: nothing has grown when it is looked at, and somebody else has much as well.
#[test]
fn a_disk_that_is_filled_at_one_blow_costs_one_isolate_its_life() {
    let servers = [
        ("keeper", "head -c 20000000 /dev/zero > $HOME/kept"),
        ("filler", "head -c 45000000 /dev/zero > $HOME/fill"),
    ];
    let Some((mut world, _disk)) = on_a_small_disk("size=64m", 8 << 20, &servers) else {
        return;
    };
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ben.call("keeper.canned", json!({}));
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    assert_eq!(disk_ended(&world), 0, "much is not too much");
    ada.call("filler.canned", json!({}));
    world.until("the filler is ended", |world| {
        (disk_ended(world) > 0).then_some(())
    });
    // The disk stays as full as it was, and four looks later nobody else has paid for that.
    let since = std::time::Instant::now();
    while since.elapsed() < std::time::Duration::from_secs(4) {
        assert_eq!(ben.ask("demo.echo", json!({"text": "y"})), "y");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(disk_ended(&world), 1);
    assert_eq!(world.isolate("keeper", Some("ben"))["state"], "ready");
    let told = ended_for_the_disk(&world);
    assert!(
        told.iter()
            .all(|(_, why)| why.contains("MiB left of the 8")),
        "{told:?}"
    );
    let refused = ada.call("filler.canned", json!({}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    world.stop();
}

/// Bytes are left, and nothing can be written nevertheless: many files that are empty.
#[test]
fn a_server_that_takes_all_inodes_is_ended() {
    let many = "i=0; while [ $i -lt 4000 ] && true > $HOME/f$i; do i=$((i+1)); done 2>/dev/null";
    let servers = [("filler", many)];
    let Some((mut world, _disk)) = on_a_small_disk("size=64m,nr_inodes=4000", 1 << 20, &servers)
    else {
        return;
    };
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    ada.call("filler.canned", json!({}));
    world.until("the filler is ended", |world| {
        (disk_ended(world) == 1).then_some(())
    });
    assert_eq!(ben.ask("demo.echo", json!({"text": "y"})), "y");
    let told = ended_for_the_disk(&world);
    assert!(
        told.len() == 1 && told[0].1.contains("inodes left of the 200"),
        "{told:?}"
    );
    let refused = ada.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    assert!(refused.text().contains("inodes left"), "{}", refused.text());
    world.stop();
}

/// A file that was unlinked while open is in no home; it is free when who holds it is gone.
#[test]
fn a_server_that_hides_what_fills_the_disk_is_found() {
    let hides = "exec 9> $HOME/x; rm $HOME/x; head -c 64000000 /dev/zero >&9";
    let servers = [("filler", hides)];
    let Some((mut world, _disk)) = on_a_small_disk("size=64m", 8 << 20, &servers) else {
        return;
    };
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    ada.call("filler.canned", json!({}));
    world.until("the filler is ended", |world| {
        (disk_ended(world) == 1).then_some(())
    });
    // Nobody has to clear anything.
    world.until("there is room again", |_| {
        let answer = ada.call("demo.echo", json!({"text": "x"}));
        answer.code().is_empty().then_some(())
    });
    assert_eq!(ben.ask("demo.echo", json!({"text": "y"})), "y");
    world.stop();
}
