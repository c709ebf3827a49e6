//! What a hostile server tries, from inside, in each profile. The table is the expectation
//! and, rendered, `docs/security-model.md`. Profile `none` is the control: where it says that an
//! attack succeeds, the attack works, and a wall is what stops it elsewhere.

mod act;
mod page;
mod table;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use sandbox::{Network, Profile};

use crate::walls::Home;
use crate::world::{self, Run, probe};
use crate::{Outcome, Test};

use page::rendered;
use table::{FLOODS, Open, rows};

pub(crate) const TESTS: &[Test] = &[
    ("no_attack_succeeds", no_attack_succeeds),
    (
        "the_security_model_is_current",
        the_security_model_is_current,
    ),
];
/// As a probe: tries every attack and prints `name result`, a line each.
pub(crate) fn run(pid: &str, port: &str, folder: &str, name: &str, profile: &str) {
    let host = act::Host {
        pid: pid.parse().unwrap(),
        port: port.parse().unwrap(),
        folder: Path::new(folder),
        name,
    };
    for (kind, (attack, ..)) in rows() {
        // Without an own /tmp it is the host that would be flooded.
        if kind == FLOODS && profile == Profile::None.name() {
            continue;
        }
        println!("{attack} {}", act::told(attack, &host));
        std::fs::remove_file("/tmp/full").ok();
        std::fs::remove_file("/dev/shm/full").ok();
    }
}

fn no_attack_succeeds() -> Outcome {
    let host = crate::walls::host()?;
    let root = world::identity().is_some();
    let folder = tempfile::tempdir().unwrap();
    open_to_all(folder.path());
    std::fs::write(folder.path().join("secret"), "x").unwrap();
    let socket = folder.path().join("socket");
    let _files = UnixListener::bind(&socket).unwrap();
    open_to_all(&socket);
    let name = format!("legation-attack-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port().to_string();
    let pid = std::process::id().to_string();
    let folder_text = folder.path().display().to_string();
    let mut wrong = Vec::new();
    for profile in Profile::ALL {
        let home = Home::new();
        let mut spec = probe(&["attacks", &pid, &port, &folder_text, &name, profile.name()]);
        spec.profile = profile;
        spec.network = Network::None;
        spec.workdir = home.path();
        let mut run = Run::start(&host, &spec);
        let out = run.output();
        let told = |attack: &str| {
            let line = out
                .lines()
                .find_map(|line| line.split_once(' ').filter(|l| l.0 == attack));
            line.unwrap_or_else(|| panic!("{attack} in {profile} told nothing: {out}"))
                .1
        };
        for (kind, (attack, _, expected, bare)) in rows() {
            if kind == FLOODS && profile == Profile::None {
                continue;
            }
            let result = told(attack);
            let is_right = match profile {
                Profile::None => *bare == Open || result == "SUCCEEDED",
                // Without root some answers differ, but never that one.
                _ => result != "SUCCEEDED" && (!root || expected.contains(&result)),
            };
            if !is_right {
                wrong.push(format!("{attack} in {profile}: {result}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

fn the_security_model_is_current() -> Outcome {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/security-model.md");
    let rendered = rendered();
    if std::env::var_os("LEGATION_BLESS").is_some() {
        std::fs::write(&path, &rendered).unwrap();
    }
    match std::fs::read_to_string(&path) {
        // In the guest there is no tree of sources.
        Err(_) if !path.parent().is_some_and(Path::exists) => Ok(()),
        Err(error) => panic!("{}: {error}", path.display()),
        Ok(committed) => {
            let hint = "docs/security-model.md is not current: run once with LEGATION_BLESS=1";
            assert!(committed == rendered, "{hint}");
            Ok(())
        }
    }
}
