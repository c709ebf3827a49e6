//! Room on the host: what is refused before the host hurts, and what the kernel holds.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::world::{World, am_root};

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

/// A server that filled its home had every user's calls refused, for want of an audit log.
#[test]
fn a_server_that_fills_the_disk_is_ended_and_nobody_else_is() {
    if !am_root() {
        return crate::tools::skip(
            "a full disk under homes",
            "not root, so nothing can be mounted",
        );
    }
    let mut world = World::with("[isolates]\ndisk_free_bytes = 33554432\n");
    world.stop();
    let homes = world.data_dir().join("homes");
    let Some(_disk) = crate::lifecycle::Disk::mount_of(&homes, "size=64m,mode=711") else {
        return crate::tools::skip("a full disk under homes", "mount is refused here");
    };
    world.start();
    let script = format!(
        "(while [ -e $HOME/go ] || sleep 0.1; do [ -e $HOME/go ] && head -c 1048576 /dev/zero >> $HOME/fill; \
         sleep 0.1; done) &\n{}",
        crate::standard::CANNED.replace("tools/call\"'*)", "tools/call\"'*) : > $HOME/go; ")
    );
    world.mcp(
        "filler",
        &[],
        &["sh", "-c", &script, "sh", r#"{"content":[]}"#],
    );
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    assert_eq!(ben.ask("demo.echo", json!({"text": "x"})), "x");
    ada.call("filler.canned", json!({}));
    world.until("the filler is ended", |world| {
        (world.status()["room"]["disk_ended"] == 1).then_some(())
    });
    // Whoever ran before goes on; nobody starts.
    assert_eq!(ben.ask("demo.echo", json!({"text": "y"})), "y");
    let refused = ada.call("demo.echo", json!({"text": "x"}));
    assert_eq!(refused.code(), "host_full", "{}", refused.text());
    assert!(
        refused.text().contains("isolates.disk_free_bytes"),
        "{}",
        refused.text()
    );
    let ended = crate::kill::audit(&world);
    let told = |one: &serde_json::Value| {
        one["detail"]
            .as_str()
            .is_some_and(|text| text.contains("filled the disk"))
    };
    assert!(
        ended
            .iter()
            .any(|one| one["event"] == "isolate.ended" && told(one)),
        "{ended:?}"
    );
    // Room that is made is used.
    let owner = world.isolate("demo", Some("ben"));
    assert_eq!(owner["state"], "ready");
    for user in std::fs::read_dir(&homes).unwrap().flatten() {
        for home in std::fs::read_dir(user.path()).unwrap().flatten() {
            let _ = std::fs::remove_file(home.path().join("fill"));
            let _ = std::fs::remove_file(home.path().join("go"));
        }
    }
    world.until("there is room again", |_| {
        let answer = ada.call("demo.echo", json!({"text": "x"}));
        answer.code().is_empty().then_some(())
    });
    world.stop();
}
