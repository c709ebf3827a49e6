//! Users who leave, and what was kept for them.

use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::tools;
use crate::world::{Http, LEGATION, World, am_root};

fn user_id(world: &World, name: &str) -> String {
    let users = world.cli(&["user", "list"]);
    let mut users = users.as_array().unwrap().iter();
    let found = users.find(|one| one["name"] == name).unwrap();
    found["id"].as_str().unwrap().to_owned()
}

/// The homes of who may have left: the record of their uid is all that is there, if they had one.
fn is_cleared(homes: &Path) -> bool {
    match std::fs::read_dir(homes) {
        Ok(mut left) => am_root() && left.next().is_none(),
        Err(_) => !am_root(),
    }
}

/// The only home of a user.
fn home(world: &World, id: &str) -> PathBuf {
    let homes = std::fs::read_dir(world.data_dir().join("homes").join(id));
    homes.unwrap().next().unwrap().unwrap().path()
}

/// A user who called once and is suspended, and whose home takes a while to remove.
fn suspended_with_much(world: &World) -> String {
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("demo.echo", json!({"text": "x"}));
    let id = user_id(world, "ada");
    let home = home(world, &id);
    for dir in 0..40 {
        let dir = home.join(format!("dir{dir}"));
        std::fs::create_dir(&dir).unwrap();
        for file in 0..1000 {
            std::fs::File::create(dir.join(file.to_string())).unwrap();
        }
    }
    world.cli(&["user", "suspend", "ada", "--reason", "left"]);
    id
}

fn removing(world: &World) -> std::process::Child {
    let child = Command::new(LEGATION)
        .args(["--yes", "user", "remove", "ada"])
        .env("LEGATION_DATA_DIR", world.data_dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    world.until("ada is gone from the store", |world| {
        let users = world.cli(&["user", "list"]);
        users.as_array().unwrap().is_empty().then_some(())
    });
    child
}

fn acts(world: &World, id: &str) -> Vec<Value> {
    let page = world.cli(&["audit", "search", "--user", id, "--event", "admin"]);
    let items = page["items"].as_array().unwrap().iter();
    items.map(|item| item["record"].clone()).collect()
}

fn of<'a>(acts: &'a [Value], event: &str) -> Vec<&'a Value> {
    acts.iter().filter(|act| act["event"] == event).collect()
}

#[test]
fn a_removal_that_was_cut_off_is_finished_by_the_next_start() {
    let mut world = World::new();
    let id = suspended_with_much(&world);
    let homes = world.data_dir().join("homes").join(&id);
    let mut removing = removing(&world);
    world.kill_9();
    let was_cut = !is_cleared(&homes);
    removing.wait().unwrap();
    world.start();
    world.until("all of them is gone", |world| {
        let lifted = world.status()["suspensions"] == 0;
        (lifted && is_cleared(&homes)).then_some(())
    });
    let homes_left = world.cli(&["home", "list"]);
    let mut homes_left = homes_left.as_array().unwrap().iter();
    assert!(homes_left.all(|home| home["shared"] == true));
    // It is on record before the homes go, and so is the end.
    world.until("it is on record", |world| {
        let acts = acts(world, &id);
        let (removed, cleared) = (
            of(&acts, "admin.user_removed"),
            of(&acts, "admin.user_cleared"),
        );
        assert_eq!(removed.len(), 1, "{acts:?}");
        assert_eq!(removed[0]["name"], "ada", "{acts:?}");
        (!was_cut || (cleared.len() == 1 && cleared[0]["homes"] == "gone")).then_some(())
    });
    assert_eq!(world.run(&["--yes", "user", "remove", "ada"]).code, 5);
    world.stop();
    world.start();
    assert!(of(&acts(&world, &id), "admin.user_cleared").len() <= 1);
}

#[test]
fn the_record_of_a_removal_names_who_was_removed() {
    let world = World::new();
    let id = suspended_with_much(&world);
    let mut removing = removing(&world);
    world.cli(&["user", "add", "ada"]);
    let successor = user_id(&world, "ada");
    assert!(removing.wait().unwrap().success());
    let act = |acts: Vec<Value>| {
        let mut all = acts.into_iter();
        all.any(|act| act["action"] == "user.remove" && act["outcome"] == "ok")
    };
    assert!(act(acts(&world, &id)));
    assert!(!act(acts(&world, &successor)));
}

#[test]
fn homes_that_could_not_be_removed_are_so_by_the_same_command() {
    if !am_root() {
        return tools::skip("homes that stay", "not root, so nothing can be mounted");
    }
    let world = World::new();
    world.demo("demo", &[]);
    world.client("ada").ask("demo.echo", json!({"text": "x"}));
    let id = user_id(&world, "ada");
    let home = home(&world, &id);
    world.cli(&["user", "suspend", "ada"]);
    let mount = Command::new("mount")
        .args(["-t", "tmpfs", "none"])
        .arg(&home)
        .status();
    if !mount.is_ok_and(|mounted| mounted.success()) {
        return tools::skip("homes that stay", "mount is refused here");
    }
    let remove = ["--yes", "user", "remove", "ada"];
    let (first, again) = (world.run(&remove), world.run(&remove));
    let unmounted = Command::new("umount").arg(&home).status().unwrap();
    assert!(unmounted.success());
    for ran in [first, again] {
        assert_eq!(ran.code, 8, "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("not all removed"), "{}", ran.stderr);
    }
    let done = world.run(&remove);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let told = format!("what was left of them is gone; the audit log knows them as {id}");
    assert!(done.stdout.contains(&told), "{}", done.stdout);
    assert_eq!(world.run(&remove).code, 5);
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
    let uid_of = |id: &str| std::fs::metadata(homes.join(id)).unwrap().gid();
    let uid = uid_of(&id);
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
    assert!(is_cleared(&homes.join(&id)) && homes.join(&bens).exists());
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
    // What they left elsewhere is not the next one's to read.
    let cyd = world.client("cyd");
    cyd.ask("demo.echo", json!({"text": "x"}));
    if am_root() {
        assert_eq!(uid_of(&id), uid);
        assert_ne!(uid_of(&user_id(&world, "cyd")), uid);
    }
}
