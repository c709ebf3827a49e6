//! Credentials: given to the right isolate and to nobody else, never shown, replaced in peace.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use crate::world::{LEGATION, Ran, Session, World};

mod keys;

/// A server that keeps what it was given where the test finds it, and is careless with stderr.
fn careless(world: &World, name: &str) {
    let script = format!(
        "printf %s \"$TOKEN\" > \"$HOME/seen\"; echo \"using $TOKEN now\" >&2; exec {LEGATION} demo-mcp"
    );
    set(world, &["--shared"], name, "for discovery only", true);
    let added = world.run(&[
        "mcp",
        "add",
        name,
        "--credential",
        "TOKEN=env:TOKEN",
        "--read",
        LEGATION,
        "--",
        "/bin/sh",
        "-c",
        &script,
    ]);
    assert_eq!(added.code, 0, "{}", added.stderr);
    set(world, &["--shared"], name, "for discovery only", false);
    world.cli(&["mcp", "publish", name]);
    world.run(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", name]);
}

/// `credential set` with the value on standard input.
pub(crate) fn try_set(world: &World, whose: &[&str], mcp: &str, name: &str, value: &[u8]) -> Ran {
    let mut child = Command::new(LEGATION)
        .args(["credential", "set", "-o", "json", "--mcp", mcp, name])
        .args(whose)
        .env("LEGATION_DATA_DIR", world.data_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that refuses early reads nothing.
    let _ = child.stdin.take().unwrap().write_all(value);
    let done = child.wait_with_output().unwrap();
    Ran {
        code: done.status.code().unwrap(),
        stdout: String::from_utf8(done.stdout).unwrap(),
        stderr: String::from_utf8(done.stderr).unwrap(),
    }
}

fn set(world: &World, whose: &[&str], mcp: &str, value: &str, may_fail: bool) -> Value {
    let ran = try_set(world, whose, mcp, "TOKEN", value.as_bytes());
    assert!(may_fail || ran.code == 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap_or(Value::Null)
}

/// What the user's server was given last.
fn seen(world: &World, user: &str, mcp: &str) -> String {
    let users = world.cli(&["user", "list"]);
    let find = |list: &Value, name: &str| {
        let items = list.as_array().unwrap().iter();
        let item = items.map(|one| {
            if one["user"].is_object() {
                &one["user"]
            } else {
                one
            }
        });
        let mut hits = item.filter(|one| one["name"] == name);
        hits.next().unwrap()["id"].as_str().unwrap().to_owned()
    };
    let user = find(&users, user);
    let shown = world.cli(&["mcp", "show", mcp]);
    let mcp = shown["mcp"]["id"]
        .as_str()
        .or(shown["id"].as_str())
        .unwrap();
    let file = world
        .data_dir()
        .join("homes")
        .join(user)
        .join(mcp)
        .join("seen");
    std::fs::read_to_string(file).unwrap_or_default()
}

fn logs(world: &World, mcp: &str, user: &str) -> String {
    let id = world.isolate(mcp, Some(user))["id"]
        .as_str()
        .unwrap()
        .to_owned();
    world.cli(&["isolate", "logs", &id])["lines"].to_string()
}

fn pid(world: &World, mcp: &str, user: &str) -> i64 {
    world.isolate(mcp, Some(user))["pid"].as_i64().unwrap()
}

fn warm(session: &Session) {
    assert_eq!(session.ask("echo", json!({"text": "x"})), "x");
}

#[test]
fn a_missing_credential_is_named_and_setting_it_ends_the_wait() {
    let world = World::new();
    careless(&world, "github");
    let ada = world.client("ada");
    let refused = ada.call("echo", json!({"text": "x"}));
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (200, "credential_missing")
    );
    let command = "legation credential set --user ada --mcp github TOKEN";
    assert!(refused.text().contains(command), "{}", refused.text());
    assert_eq!(world.isolate("github", Some("ada"))["state"], "quarantined");
    let status = world.cli(&["credential", "status", "--user", "ada"]);
    assert_eq!(status[0]["state"], "missing", "{status}");
    set(
        &world,
        &["--user", "ada"],
        "github",
        "ghp_ada_0001\n",
        false,
    );
    warm(&ada);
    // The shell's line break is not the value's.
    assert_eq!(seen(&world, "ada", "github"), "ghp_ada_0001");
    let status = world.cli(&["credential", "status", "--user", "ada"]);
    assert_eq!(
        (&status[0]["state"], &status[0]["version"]),
        (&json!("set"), &json!(1)),
        "{status}"
    );
    assert!(!status.to_string().contains("ghp_ada"), "{status}");
}

/// What was set for an archived one could not be removed any more once another had its name, and was said not to be set.
#[test]
fn what_was_set_for_an_mcp_goes_when_it_is_archived() {
    let world = World::new();
    careless(&world, "github");
    let ada = world.client("ada");
    let whose = ["--user", "ada"];
    set(&world, &whose, "github", "ghp_ada_0001", false);
    warm(&ada);
    let old = world.cli(&["mcp", "show", "github"])["id"].clone();
    let archived = world.run(&["--yes", "mcp", "archive", "github"]);
    assert_eq!(archived.code, 0, "{}", archived.stderr);
    // Everybody's value, which discovering needed, is one of them.
    let told = "and 2 credentials that were set for it are forgotten";
    assert!(archived.stdout.contains(told), "{}", archived.stdout);
    careless(&world, "github");
    let new = world.cli(&["mcp", "show", "github"])["id"].clone();
    assert_ne!(old, new);
    let all = world.cli(&["credential", "status", "--user", "ada"]);
    let states: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["state"])
        .collect();
    assert_eq!(states, ["missing"], "{all}");

    // By id as well; what is archived takes none, and what is not set is not found.
    let refused = try_set(&world, &whose, old.as_str().unwrap(), "TOKEN", b"x");
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    assert!(refused.stderr.contains("is archived"), "{}", refused.stderr);
    set(&world, &whose, new.as_str().unwrap(), "ghp_ada_0002", false);
    let by_id = ["credential", "status", "--mcp", new.as_str().unwrap()];
    assert_eq!(world.cli(&by_id).as_array().unwrap().len(), 2);
    for (mcp, code) in [(&new, 0), (&new, 5), (&old, 5)] {
        let mcp = mcp.as_str().unwrap();
        let remove = [
            "--yes",
            "credential",
            "remove",
            "--user",
            "ada",
            "--mcp",
            mcp,
            "TOKEN",
        ];
        let ran = world.run(&remove);
        assert_eq!(ran.code, code, "{}{}", ran.stdout, ran.stderr);
    }
}

#[test]
fn who_has_set_what_is_counted_and_a_version_is_of_one_value_only() {
    let world = World::new();
    careless(&world, "lazy");
    for user in ["ada", "ben", "cid"] {
        world.key(user);
    }
    let of = |user| ["--user", user];
    assert_eq!(
        set(&world, &of("ben"), "lazy", "s3cret-b", false)["version"],
        1
    );
    assert_eq!(
        set(&world, &of("ada"), "lazy", "s3cret-a", false)["version"],
        1
    );
    let shown = world.cli(&["mcp", "show", "lazy"]);
    let needs = json!([{"name": "TOKEN", "to": "env:TOKEN", "required": true, "users_set": 2,
        "users": ["ada", "ben"], "users_missing": 1, "shared": true}]);
    assert_eq!(shown["needs"], needs, "{shown}");
    let text = world.run(&["mcp", "show", "lazy"]).stdout;
    let line = "TOKEN as env:TOKEN; set for 2 users (ada, ben) and shared; missing for 1 user";
    assert!(text.contains(line), "{text}");
    assert!(!text.contains("s3cret") && !shown.to_string().contains("s3cret"));

    world.cli(&[
        "credential",
        "remove",
        "--user",
        "ada",
        "--mcp",
        "lazy",
        "TOKEN",
    ]);
    let shown = world.cli(&["mcp", "show", "lazy"]);
    assert_eq!(shown["needs"][0]["users"], json!(["ben"]), "{shown}");
    let again = [
        "credential",
        "remove",
        "--user",
        "ada",
        "--mcp",
        "lazy",
        "TOKEN",
    ];
    let again = world.run(&[&["--yes"][..], &again].concat());
    assert_eq!(again.code, 5, "{}", again.stdout);
    assert!(
        again.stderr.contains("not set for user `ada`"),
        "{}",
        again.stderr
    );
    assert_eq!(
        set(&world, &of("ada"), "lazy", "s3cret-c", false)["version"],
        2
    );
    let records = crate::kill::audit(&world);
    let versions: Vec<_> = records
        .iter()
        .filter(|one| one["event"].as_str().unwrap().starts_with("credential."))
        .filter_map(|one| Some((one["event"].as_str()?, one["version"].as_u64()?)))
        .collect();
    let removed = versions
        .iter()
        .filter(|(event, _)| *event == "credential.removed");
    assert_eq!(removed.count(), 1, "{versions:?}");
    assert_eq!(
        versions.last(),
        Some(&("credential.set", 2)),
        "{versions:?}"
    );
}

#[test]
fn each_user_is_given_their_own_and_nobody_sees_any() {
    let world = World::new();
    careless(&world, "github");
    let (ada, eve) = (world.client("ada"), world.client("eve"));
    set(&world, &["--user", "ada"], "github", "ghp_ada_0001", false);
    set(&world, &["--user", "eve"], "github", "ghp_eve_0002", false);
    warm(&ada);
    warm(&eve);
    assert_eq!(seen(&world, "ada", "github"), "ghp_ada_0001");
    assert_eq!(seen(&world, "eve", "github"), "ghp_eve_0002");
    // Not in its log, nor anywhere an administrator looks.
    let log = world.until("it wrote its log", |world| {
        Some(logs(world, "github", "ada")).filter(|log| log.contains("using"))
    });
    assert!(log.contains("using [redacted:TOKEN] now"), "{log}");
    for words in [
        &["isolate", "list"][..],
        &["mcp", "show", "github"],
        &["tree"],
        &["credential", "status"],
        &["audit", "search", "--limit", "200"],
    ] {
        let shown = world.cli(words).to_string();
        assert!(!shown.contains("ghp_"), "{words:?}: {shown}");
    }
    assert!(!world.log().contains("ghp_"), "{}", world.log());
    // Nor on the disk, but where the server itself put it.
    for file in ["legation.db", "legation.db-wal"] {
        let bytes = std::fs::read(world.data_dir().join(file)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(
            !text.contains("ghp_ada") && !text.contains("ghp_eve"),
            "{file}"
        );
    }
    let events = world.cli(&[
        "audit",
        "search",
        "--event",
        "credential.set",
        "--limit",
        "9",
    ]);
    assert!(events.to_string().contains("\"version\""), "{events}");
}

#[test]
fn a_replaced_value_waits_for_the_calls_in_flight_and_spares_everybody_else() {
    let world = World::new();
    careless(&world, "github");
    let (ada, eve) = (world.client("ada"), world.client("eve"));
    set(&world, &["--user", "ada"], "github", "old-value-1", false);
    set(&world, &["--user", "eve"], "github", "eves-value", false);
    warm(&ada);
    warm(&eve);
    let (old, eves) = (pid(&world, "github", "ada"), pid(&world, "github", "eve"));
    thread::scope(|scope| {
        let call = scope.spawn(|| ada.ask("sleep", json!({"ms": 1500})));
        world.until("the call is in flight", |world| {
            (world.isolate("github", Some("ada"))["in_flight"] == 1).then_some(())
        });
        let done = set(&world, &["--user", "ada"], "github", "new-value-2", false);
        assert_eq!(
            (&done["isolates_replaced"], &done["version"]),
            (&json!(1), &json!(2))
        );
        // A call that comes now waits for the successor.
        warm(&ada);
        assert_eq!(call.join().unwrap(), "slept 1500 ms");
    });
    assert_eq!(seen(&world, "ada", "github"), "new-value-2");
    assert_ne!(pid(&world, "github", "ada"), old);
    assert_eq!(pid(&world, "github", "eve"), eves);
    // A value that was taken away is missed at once.
    world.cli(&[
        "credential",
        "remove",
        "--user",
        "ada",
        "--mcp",
        "github",
        "TOKEN",
    ]);
    assert_eq!(
        ada.call("echo", json!({"text": "x"})).code(),
        "credential_missing"
    );
    warm(&eve);
}

#[test]
fn values_outlive_a_restart_and_start_isolates_while_the_store_is_away() {
    let mut world = World::new();
    careless(&world, "github");
    let key = world.key("ada");
    set(&world, &["--user", "ada"], "github", "kept-value", false);
    world.kill_9();
    world.start();
    let ada = world.client_of_key(&key);
    let database = world.data_dir().join("legation.db");
    let aside = world.data_dir().join("aside.db");
    std::fs::rename(&database, &aside).unwrap();
    warm(&ada);
    assert_eq!(seen_in(&world, "kept-value"), 1);
    let refused = try_set(&world, &["--user", "ada"], "github", "TOKEN", b"another");
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    std::fs::rename(&aside, &database).unwrap();
}

/// A server that says its credential where nobody expects one: in its own name and version.
#[test]
fn what_a_server_calls_itself_is_shown_without_its_credential() {
    let world = World::new();
    let script = crate::standard::CANNED
        .replace(
            r#""name":"canned","version":"1""#,
            r#""name":"as %s","version":"v-%s""#,
        )
        .replacen(r#"\n' "$id" ;;"#, r#"\n' "$id" "$TOKEN" "$TOKEN" ;;"#, 1);
    let slot = ["--credential", "TOKEN=env:TOKEN"];
    let command = ["--", "/bin/sh", "-c", &script];
    world.cli(&[&["mcp", "add", "vain"], &slot[..], &command].concat());
    set(
        &world,
        &["--shared"],
        "vain",
        "a-secret-of-some-length",
        false,
    );
    let shown = world.run(&["mcp", "discover", "vain"]);
    let said = format!("{}{}", shown.stdout, shown.stderr);
    assert_eq!(shown.code, 0, "{said}");
    assert!(
        said.contains("as [redacted:TOKEN] v-[redacted:TOKEN]"),
        "{said}"
    );
    assert!(!said.contains("a-secret-of-some-length"), "{said}");
}

/// How many homes hold a file `seen` with this text.
fn seen_in(world: &World, text: &str) -> usize {
    let homes = world.data_dir().join("homes");
    let dirs = |dir: &std::path::Path| -> Vec<_> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let all = dirs(&homes).into_iter().flat_map(|user| dirs(&user));
    all.filter(|home| std::fs::read_to_string(home.join("seen")).is_ok_and(|seen| seen == text))
        .count()
}

#[test]
fn what_cannot_be_a_value_or_a_slot_is_refused_by_name() {
    let world = World::new();
    careless(&world, "github");
    world.key("ada");
    let user = ["--user", "ada"];
    for (name, value, code, words) in [
        ("TOKEM", &b"x"[..], 5, "did you mean TOKEN?"),
        ("TOKEN", b"", 2, "empty"),
        ("TOKEN", b"a\0b", 2, "zero byte"),
        (
            "TOKEN",
            &[b'x'; (64 << 10) + 1],
            2,
            "larger than 65536 bytes",
        ),
        ("TOKEN", b"\xff\xfe", 2, "no UTF-8"),
    ] {
        let ran = try_set(&world, &user, "github", name, value);
        assert_eq!(ran.code, code, "{name}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    let largest = [b'y'; 64 << 10];
    assert_eq!(try_set(&world, &user, "github", "TOKEN", &largest).code, 0);
    for (slot, words) in [
        ("TOKEN=env:LD_PRELOAD", "dynamic linker"),
        ("TOKEN=env:PATH", "the gateway sets it"),
        ("TOKEN=file:../x", "file name"),
        (
            "TOKEN=pipe:3",
            "env:VARIABLE, file:FILENAME, fd:NUMBER or header:NAME",
        ),
    ] {
        let ran = world.run(&["mcp", "add", "bad", "--credential", slot, "--", "/bin/true"]);
        assert_eq!(ran.code, 2, "{slot}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{slot}: {}", ran.stderr);
    }
    let nobody = try_set(&world, &["--user", "nobody"], "github", "TOKEN", b"x");
    assert_eq!(nobody.code, 5, "{}", nobody.stderr);
}
