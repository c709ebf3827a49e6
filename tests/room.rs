//! Room on the host: what is refused before the host hurts, and what the kernel holds.

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
