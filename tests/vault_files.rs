//! Credentials that are files: in memory that only their isolate sees.

use std::path::Path;

use crate::vault::try_set;
use crate::world::{LEGATION, Session, World};

use serde_json::json;

/// Hostile in every way a file may be.
const ADAS: &[u8] = b"\0\x01\xffadas-binary-part\n\xfe";
const EVES: &[u8] = b"eves-binary-part\xff";

/// A server that leaves in its home what it was given, in hexadecimal, and is careless with stderr.
fn publish(world: &World, name: &str, slot: &str, options: &[&str]) {
    let script = format!(
        "echo \"$LEGATION_SECRETS $1\" > \"$HOME/told\"; \
         od -An -v -tx1 \"$1\" | tr -d ' \\n' > \"$HOME/seen\"; \
         (echo x > \"$1\") 2>/dev/null && echo written > \"$HOME/seen\"; \
         cat \"$1\" >&2; exec {LEGATION} demo-mcp"
    );
    let program = [
        "--",
        "/bin/sh",
        "-c",
        &script,
        "server",
        "{secrets}/key.bin",
    ];
    let add = ["mcp", "add", name, "--credential", slot, "--read", LEGATION];
    let added = world.run(&[&add[..], options, &program].concat());
    assert_eq!(added.code, 0, "{}", added.stderr);
    set(world, &["--shared"], name, b"for discovery only");
    world.cli(&["mcp", "publish", name]);
    world.run(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", name]);
}

fn set(world: &World, whose: &[&str], mcp: &str, value: &[u8]) {
    let ran = try_set(world, whose, mcp, "KEY", value);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
}

fn warm(session: &Session) {
    assert_eq!(session.ask("echo", json!({"text": "x"})), "x");
}

/// The texts of files of this name in all homes.
fn in_homes(world: &World, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    walk(&world.data_dir().join("homes"), &mut |path, bytes| {
        if path.ends_with(name) {
            found.push(String::from_utf8(bytes.to_vec()).unwrap());
        }
    });
    found
}

fn walk(dir: &Path, each: &mut impl FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            walk(&path, each);
        } else if kind.is_file() {
            each(&path, &std::fs::read(&path).unwrap_or_default());
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn files_of(profile: &str, at: impl Fn(&World) -> String) {
    let world = World::new();
    publish(&world, "keys", "KEY=file:key.bin", &["--profile", profile]);
    let (ada, eve) = (world.client("ada"), world.client("eve"));
    set(&world, &["--user", "ada"], "keys", ADAS);
    set(&world, &["--user", "eve"], "keys", EVES);
    warm(&ada);
    warm(&eve);
    // Each was given their own, where the variable and the argument say, and could not change it.
    let seen = in_homes(&world, "seen");
    for value in [ADAS, EVES] {
        assert!(seen.contains(&hex(value)), "{profile}: {seen:?}");
    }
    let dir = at(&world);
    for told in in_homes(&world, "told") {
        assert_eq!(told, format!("{dir} {dir}/key.bin\n"), "{profile}");
    }
    // Nothing of it is the host's to see, while both run: no mount, no file, no byte on the disk.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&format!(" {dir} ")), "{profile}: {mounts}");
    assert!(!Path::new(&dir).join("key.bin").exists(), "{profile}");
    walk(&world.data_dir(), &mut |path, bytes| {
        let found = bytes.windows(11).any(|part| part == b"binary-part");
        assert!(!found, "{profile}: {}", path.display());
    });
    let log = world.until("it wrote its log", |world| {
        let id = world.isolate("keys", Some("ada"))["id"].to_string();
        let log = world.cli(&["isolate", "logs", id.trim_matches('"')])["lines"].to_string();
        log.contains("redacted").then_some(log)
    });
    assert!(log.contains("[redacted:KEY]"), "{log}");
    assert!(!log.contains("binary-part"), "{log}");
    // A new value replaces her isolate alone, as with a variable.
    set(&world, &["--user", "ada"], "keys", b"the next value");
    warm(&ada);
    let seen = in_homes(&world, "seen");
    for value in [&b"the next value"[..], EVES] {
        assert!(seen.contains(&hex(value)), "{profile}: {seen:?}");
    }
}

#[test]
fn a_file_is_its_isolates_alone_behind_strict_walls() {
    files_of("strict", |_| "/run/secrets".to_owned());
}

#[test]
fn a_file_is_its_isolates_alone_without_walls() {
    files_of("none", |world| {
        let data = world.data_dir().canonicalize().unwrap();
        data.join("secrets").display().to_string()
    });
}

/// A credential that is neither in the environment nor in a file: an open descriptor.
#[test]
fn a_descriptor_holds_its_users_value_and_no_variable_says_it() {
    let world = World::new();
    let script = format!(
        "cat <&3 | od -An -v -tx1 | tr -d ' \\n' > \"$HOME/seen\"; env > \"$HOME/told\"; \
         exec {LEGATION} demo-mcp"
    );
    let add = [
        "mcp",
        "add",
        "keys",
        "--credential",
        "KEY=fd:3",
        "--read",
        LEGATION,
        "--",
    ];
    let added = world.run(&[&add[..], &["/bin/sh", "-c", &script]].concat());
    assert_eq!(added.code, 0, "{}", added.stderr);
    set(&world, &["--shared"], "keys", b"for discovery only");
    world.cli(&["mcp", "publish", "keys"]);
    world.run(&["group", "add", "all"]);
    world.cli(&["group", "grant", "all", "keys"]);
    let (ada, eve) = (world.client("ada"), world.client("eve"));
    set(&world, &["--user", "ada"], "keys", ADAS);
    set(&world, &["--user", "eve"], "keys", EVES);
    warm(&ada);
    warm(&eve);
    let seen = in_homes(&world, "seen");
    assert!(
        seen.contains(&hex(ADAS)) && seen.contains(&hex(EVES)),
        "{seen:?}"
    );
    for told in in_homes(&world, "told") {
        assert!(
            !told.contains("KEY") && !told.contains("binary-part"),
            "{told}"
        );
    }
    let wrong = world.run(&["mcp", "add", "x", "--credential", "KEY=fd:2", "--", "true"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.stderr.contains("3 to 9"), "{}", wrong.stderr);
}

#[test]
fn an_optional_file_that_is_not_set_costs_nothing() {
    let world = World::new();
    publish(&world, "keys", "KEY=file:key.bin:optional", &[]);
    warm(&world.client("ada"));
    let told = in_homes(&world, "told");
    assert!(
        told.iter().any(|told| told == " /run/secrets/key.bin\n"),
        "{told:?}"
    );
}
