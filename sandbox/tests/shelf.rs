//! Namespaces made in advance: they are used, each once, and nobody can tell them from their own.

use std::fs::File;
use std::path::Path;

use nix::mount::{MsFlags, mount, umount};
use sandbox::{Host, Profile};

use crate::walls::{Home, host, within};
use crate::world::{self, Run, eventually, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "what_was_made_in_advance_is_used_once_and_shows_the_same",
        what_was_made_in_advance_is_used_once_and_shows_the_same,
    ),
    (
        "what_the_host_changed_since_is_not_shown_as_it_was",
        what_the_host_changed_since_is_not_shown_as_it_was,
    ),
];

/// What waits in the spawner. Held by us as well: the kernel gives the numbers of what is gone to what comes next.
struct Waiting {
    names: Vec<String>,
    _held: Vec<File>,
}

impl Waiting {
    fn has(&self, name: &String) -> bool {
        self.names.contains(name)
    }
}

/// What is open in the spawner of this kind: `net`, `mnt` …
fn shelved(host: &Host, kind: &str) -> Vec<(String, File)> {
    let dir = format!("/proc/{}/fd", host.spawner_pid().unwrap());
    let open = std::fs::read_dir(dir).unwrap().flatten();
    open.filter_map(|fd| {
        let path = fd.path();
        let name = std::fs::read_link(&path)
            .ok()?
            .into_os_string()
            .into_string()
            .ok()?;
        let file = name
            .starts_with(&format!("{kind}:["))
            .then(|| File::open(&path));
        Some((name, file?.ok()?))
    })
    .collect()
}

/// What waits in the spawner, once it does.
fn waiting(host: &Host) -> Waiting {
    eventually("a set is made", || shelved(host, "mnt").len() == 1);
    let (names, held) = ["mnt", "net", "ipc", "uts"]
        .iter()
        .flat_map(|kind| shelved(host, kind))
        .unzip();
    Waiting { names, _held: held }
}

/// The namespaces of a run, and all that it sees of files.
fn seen(host: &Host, home: &Path) -> (Vec<String>, String) {
    let script = "for n in mnt net ipc uts; do readlink /proc/self/ns/$n; done; \
        cut -d' ' -f4-6,8- /proc/self/mountinfo | sed 's/^[0-9:]* //' | sort; ls -lan /etc /dev /run; ls / /proc/sys; \
        cat /etc/passwd /etc/hosts; cat /proc/net/dev; hostname; (: > /x) 2>&1; (: > /etc/x) 2>&1; true";
    let mut run = Run::start(host, &within(shell(script), Profile::Strict, home));
    let out = run.output();
    let mut lines = out.lines();
    let namespaces = lines.by_ref().take(4).map(str::to_owned).collect();
    // Times are of the making.
    let is_time = |word: &&str| !word.contains(':') || word.contains('/');
    let plain = |line: &str| {
        line.split_whitespace()
            .filter(is_time)
            .collect::<Vec<_>>()
            .join(" ")
    };
    (namespaces, lines.map(plain).collect::<Vec<_>>().join("\n"))
}

/// Has the kernel note a change of the directory; nothing in it is another afterwards.
fn touch(dir: &str) {
    let permissions = std::fs::metadata(dir).unwrap().permissions();
    std::fs::set_permissions(dir, permissions).unwrap();
}

fn what_was_made_in_advance_is_used_once_and_shows_the_same() -> Outcome {
    if world::identity().is_none() {
        return Err("sets are made in advance for root alone".to_owned());
    }
    let (host, home) = (host()?, Home::new());
    drop(seen(&host, &home.path()));
    let first = waiting(&host);
    let (used, view) = seen(&host, &home.path());
    assert_eq!(used, first.names);
    let second = waiting(&host);
    assert!(!second.names.iter().any(|one| first.has(one)));
    touch("/etc");
    let (own, own_view) = seen(&host, &home.path());
    assert!(!own.iter().any(|one| second.has(one)), "{own:?}");
    assert_eq!(view, own_view);
    assert!(view.contains("Read-only file system"), "{view}");
    Ok(())
}

fn what_the_host_changed_since_is_not_shown_as_it_was() -> Outcome {
    if world::identity().is_none() {
        return Err("sets are made in advance for root alone".to_owned());
    }
    let (host, home) = (host()?, Home::new());
    let place = tempfile::tempdir().unwrap();
    for change in ["/", "/etc", "/dev", "a mount"] {
        std::thread::sleep(std::time::Duration::from_millis(60));
        drop(seen(&host, &home.path()));
        let made = waiting(&host);
        if change == "a mount" {
            let none = None::<&str>;
            mount(
                Some("tmpfs"),
                place.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                none,
            )
            .unwrap();
        } else {
            touch(change);
        }
        let (used, _) = seen(&host, &home.path());
        if change == "a mount" {
            umount(place.path()).unwrap();
        }
        assert!(!used.iter().any(|one| made.has(one)), "{change}: {used:?}");
    }
    Ok(())
}
