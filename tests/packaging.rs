//! What is installed beside the binary: the unit is one that systemd reads, says what the gateway needs, and its rights are enough;
//! and a backup as `docs/install.md` takes it can be lived on.

use std::path::Path;
use std::process::Command;

use legation::domain::limits::{AUDIT_ROOM_MAX, ROOT_SILENCE_MAX, RUNTIME_STOP_MAX, SHUTDOWN_MAX};
use serde_json::json;

use crate::tools;
use crate::world::{LEGATION, World, am_root};

const UNIT: &str = include_str!("../packaging/systemd/legation.service");
const ORDINARY: &str = include_str!("../packaging/systemd/ordinary-user.conf");

/// The value of a key that a unit has once.
fn value(key: &str) -> &'static str {
    let mut found = UNIT
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let one = found.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(found.next(), None, "{key}");
    one
}

#[test]
fn systemd_reads_the_units_as_they_are_meant() {
    let Some(analyze) = tools::on_path("systemd-analyze") else {
        return tools::skip("the systemd unit", "no systemd-analyze on PATH");
    };
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("legation.service");
    // A program that is there.
    std::fs::write(&unit, UNIT.replace("/usr/local/bin/legation", LEGATION)).unwrap();
    let verify = || {
        let ran = Command::new(&analyze)
            .arg("verify")
            .arg(&unit)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&ran.stderr).into_owned();
        // It looks at what the unit needs as well; the host's units are none of ours.
        let ours: Vec<&str> = told
            .lines()
            .filter(|line| line.contains("legation"))
            .collect();
        ours.join("\n")
    };
    assert_eq!(verify(), "");
    let more = dir.path().join("legation.service.d");
    std::fs::create_dir(&more).unwrap();
    std::fs::write(more.join("ordinary-user.conf"), ORDINARY).unwrap();
    assert_eq!(verify(), "");
    // The control: a word that it does not know is told.
    std::fs::write(more.join("wrong.conf"), "[Service]\nKillMode=gently\n").unwrap();
    assert!(verify().contains("kill mode"), "{}", verify());
}

#[test]
fn the_unit_gives_the_gateway_the_time_and_the_cgroups_that_it_needs() {
    let stop: u64 = value("TimeoutStopSec").parse().unwrap();
    // The tree, the last records and what still blocks.
    let longest = SHUTDOWN_MAX + 4 * AUDIT_ROOM_MAX + RUNTIME_STOP_MAX;
    assert!(stop > longest.as_secs() + 5, "{longest:?}");
    // Half of it, at which it says that it lives, is longer than a root may be silent.
    let watchdog: u64 = value("WatchdogSec").parse().unwrap();
    assert!(watchdog / 2 > ROOT_SILENCE_MAX.as_secs());
    assert_eq!(value("KillMode"), "mixed");
    for controller in ["cpu", "io", "memory", "pids"] {
        assert!(value("Delegate").split(' ').any(|word| word == controller));
    }
    assert!(!UNIT.lines().any(|line| line.starts_with("ExecReload")));
}

/// Runs the gateway with the unit's capabilities and no others.
#[test]
fn the_rights_of_the_unit_are_enough_for_all_walls() {
    let (true, Some(setpriv)) = (am_root(), tools::on_path("setpriv")) else {
        return tools::skip("the unit's capabilities", "needs root and setpriv");
    };
    let dropped: Vec<String> = value("CapabilityBoundingSet")
        .strip_prefix('~')
        .unwrap()
        .split(' ')
        .map(|cap| cap.replace("CAP_", "-").to_lowercase())
        .collect();
    let mut world = World::new();
    world.demo("demo", &[]);
    let before = world.status()["enforcement"].clone();
    world.stop();
    let dropped = dropped.join(",");
    let given = ["--bounding-set", &dropped, "--"];
    world.start_through(setpriv.to_str().unwrap(), &given);
    let status = std::fs::read_to_string(format!("/proc/{}/status", world.pid())).unwrap();
    let bounding = status
        .lines()
        .find(|line| line.starts_with("CapBnd:"))
        .unwrap();
    // CAP_SYS_MODULE is number 16 (capability.h).
    let bits = u64::from_str_radix(bounding.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!((bits >> 16) & 1, 0, "{bounding}");
    assert_eq!(world.status()["enforcement"], before);
    assert_eq!(
        world.client("ada").ask("echo", json!({"text": "well"})),
        "well"
    );
}

fn copied(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success(), "{}", from.display());
}

/// The steps of `docs/install.md`, "Backup": the database by `sqlite3 .backup` while it runs, the files by `cp -a`.
#[test]
fn a_backup_that_was_taken_while_it_ran_can_be_lived_on() {
    let Some(sqlite) = tools::on_path("sqlite3") else {
        return tools::skip("a backup of SQLite", "no sqlite3 on PATH");
    };
    let mut world = World::new();
    world.demo("demo", &[]);
    let ada = world.client("ada");
    ada.ask("echo", json!({"text": "before"}));
    // As an install leaves it.
    std::fs::create_dir(world.data_dir().join("package-locks")).unwrap();
    std::fs::write(world.data_dir().join("package-locks/mcp_x.json"), "{}").unwrap();
    let backup = world.dir.path().join("backup");
    std::fs::create_dir(&backup).unwrap();
    let data = world.data_dir();
    let busy = std::thread::spawn(move || {
        for n in 0..50 {
            ada.ask("echo", json!({"text": format!("{n}")}));
        }
    });
    let copy = format!(".backup {}", backup.join("legation.db").display());
    let ran = Command::new(sqlite)
        .arg(data.join("legation.db"))
        .arg(copy)
        .output();
    assert!(ran.unwrap().status.success());
    // Without `tls`: this one speaks plain HTTP.
    let install = include_str!("../docs/install.md");
    let lines = install
        .lines()
        .filter(|line| line.contains("cp -a ") && line.ends_with("/backup/"));
    let lines: Vec<&str> = lines
        .chain(
            install
                .lines()
                .filter(|line| line.starts_with("# cp -a package-locks")),
        )
        .collect();
    for name in [
        "installation",
        "keys",
        "kill.journal",
        "audit",
        "homes",
        "package-locks",
    ] {
        assert!(
            lines.iter().any(|line| line.contains(name)),
            "{name}: {lines:?}"
        );
        copied(&data.join(name), &backup);
    }
    // Whatever else is there is said to be made anew, or to be the database.
    let (_, told) = install.split_once("## Backup").unwrap();
    let (told, _) = told.split_once("\n## ").unwrap();
    for entry in std::fs::read_dir(&data).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches("-wal").trim_end_matches("-shm");
        assert!(told.contains(&format!("`{name}")), "{name} is not told of");
    }
    busy.join().unwrap();
    world.cli(&["user", "add", "later"]);
    world.stop();

    // The host is lost; the backup takes its place.
    std::fs::rename(&data, world.dir.path().join("lost")).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    world.start();
    let users = world.run(&["user", "list"]).stdout;
    assert!(users.contains("ada") && !users.contains("later"), "{users}");
    let ada = world.client("ada");
    assert_eq!(ada.ask("echo", json!({"text": "after"})), "after");
    let verified = world.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}
