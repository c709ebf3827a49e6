//! What a server says of itself, and extensions of the protocol that it and its client have: told to whom they concern,
//! and passed on only where both declare them.

use serde_json::{Value, json};

use super::{OURS, SERVERS};
use crate::face::{Client, initialized};
use crate::stateless::Client as Stateless;
use crate::world::World;

/// Adds the fixture, of either era.
fn ext(world: &World, era: &str, options: &[&str]) {
    let script = format!("{SERVERS}/ext.py");
    let options = [&["--read", SERVERS], options].concat();
    world.mcp(era, &options, &["python3", &script, era]);
}

#[test]
fn what_a_server_says_of_itself_is_told_at_its_address() {
    let mut world = World::new();
    for era in ["legacy", "modern"] {
        ext(&world, era, &[]);
    }
    let key = world.key("ada");
    // Also when nothing was started since.
    for _ in 0..2 {
        for era in ["legacy", "modern"] {
            let path = format!("/mcp/{era}");
            let client = Stateless::new(&world, &path, &key);
            let found = &client.ask("server/discover", json!({}))["result"];
            let begun = initialized(&world, &path, &key);
            for said in [found, &begun] {
                assert_eq!(said["instructions"], "Call told first.", "{said}");
            }
            let info = found["_meta"][format!("{OURS}serverInfo")].clone();
            for info in [&info, &begun["serverInfo"]] {
                let named = json!({"name": "ext", "title": "T", "version": "9.9"});
                assert_eq!(*info, named, "{era}");
            }
            let called = client.call("told", json!({}));
            let info = called["result"]["_meta"][format!("{OURS}serverInfo")].clone();
            let more = info["more"].clone();
            let wanted = if era == "modern" {
                json!(1)
            } else {
                Value::Null
            };
            assert_eq!((&info["name"], more), (&json!("ext"), wanted), "{called}");
        }
        let all = initialized(&world, "/mcp", &key);
        assert_eq!(
            (&all["serverInfo"]["name"], all.get("instructions")),
            (&json!("legation"), None)
        );
        world.stop();
        world.start();
    }
}
