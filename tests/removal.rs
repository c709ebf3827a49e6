//! Users who leave, and what was kept for them.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::world::{Http, World};

fn user_id(world: &World, name: &str) -> String {
    let users = world.cli(&["user", "list"]);
    let mut users = users.as_array().unwrap().iter();
    let found = users.find(|one| one["name"] == name).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_suspended_user_is_removed_with_all_that_is_theirs() {
    let mut world = World::new();
    world.demo("demo", &["--credential", "TOKEN=env:TOKEN:optional"]);
    let (key, other) = (world.key("ada"), world.client("ben"));
    let ada = world.client_of_key(&key);
    ada.ask("demo.note_put", json!({"key": "k", "value": "v"}));
    other.ask("demo.note_put", json!({"key": "k", "value": "v"}));
    let set = crate::vault::try_set(&world, &["--user", "ada"], "demo", "TOKEN", b"s3cret");
    assert_eq!(set.code, 0, "{}", set.stderr);
    let (id, bens) = (user_id(&world, "ada"), user_id(&world, "ben"));
    let homes = world.data_dir().join("homes");
    assert!(homes.join(&id).exists());
    // No link in a home leads out of it.
    let kept = world.dir.path().join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("file"), "x").unwrap();
    let mcp = std::fs::read_dir(homes.join(&id)).unwrap().next().unwrap();
    symlink(&kept, mcp.unwrap().path().join("link")).unwrap();
    let listed = world.cli(&["home", "list"]);
    let of = |list: &Value, name: &str| {
        let mut all = list.as_array().unwrap().clone();
        all.retain(|one| one["user"] == name);
        all
    };
    assert_eq!(of(&listed, "ada").len(), 1, "{listed}");
    assert!(
        of(&listed, "ada")[0]["bytes"].as_u64() > Some(0),
        "{listed}"
    );
    assert_eq!(of(&listed, "ada")[0]["mcp"], "demo", "{listed}");

    let remove = ["--yes", "user", "remove", "ada"];
    let refused = world.run(&remove);
    assert_eq!(refused.code, 6, "{}{}", refused.stdout, refused.stderr);
    assert!(
        refused.stderr.contains("legation user suspend ada"),
        "{}",
        refused.stderr
    );
    world.cli(&["user", "suspend", "ada", "--reason", "left"]);
    let removed = world.run(&remove);
    assert_eq!(removed.code, 0, "{}", removed.stderr);
    let told = format!("with 1 keys and 1 credentials; the audit log knows them as {id}");
    assert!(removed.stdout.contains(&told), "{}", removed.stdout);
    assert!(!homes.join(&id).exists() && homes.join(&bens).exists());
    assert!(kept.join("file").exists());
    assert_eq!(world.run(&remove).code, 5);

    // Nothing of them is left in force, and their name is another's.
    assert_eq!(world.status()["suspensions"], 0);
    let register = Http::new(&world.url).register_with(&key);
    assert_eq!(register.status, 401, "{register:?}");
    let refused = ada.call("demo.echo", json!({"text": "x"}));
    assert_ne!(refused.code(), "", "{}", refused.text());
    let again = world.client("ada");
    assert_eq!(again.ask("demo.echo", json!({"text": "y"})), "y");
    assert_ne!(user_id(&world, "ada"), id);
    let status = world.cli(&["credential", "status"]);
    assert_eq!(status, json!([]), "a new one has none of the old one's");
    assert_eq!(other.ask("demo.note_get", json!({"key": "k"})), "v");
    let acts = world.cli(&["audit", "search", "--user", &id, "--event", "admin"]);
    assert!(acts.to_string().contains("user.remove"), "{acts}");
    world.stop();
    world.start();
    assert_eq!(world.cli(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(world.run(&["audit", "verify"]).code, 0);
}
