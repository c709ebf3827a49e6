//! What a hostile server tries, from inside, in each profile. The table below is the expectation
//! and, rendered, `docs/security-model.md`. Profile `none` is the control: where it says that an
//! attack succeeds, the attack works, and a wall is what stops it elsewhere.

mod act;

use std::fmt::Write as _;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use sandbox::{Facility, Network, Profile};

use crate::walls::Home;
use crate::world::{self, Run, probe};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    ("no_attack_succeeds", no_attack_succeeds),
    (
        "the_security_model_is_current",
        the_security_model_is_current,
    ),
];

/// What is expected in `none`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// The attack works there, under root on any host.
    Succeeds,
    /// It fails there too, or it depends on the host.
    Open,
}

use Bare::{Open, Succeeds};

/// Name, what is tried, what strict and standard answer (any of), and what `none` lets through.
type Row = (&'static str, &'static str, &'static [&'static str], Bare);

const KINDS: &[(&str, &[Row])] = &[
    (
        "Files",
        &[
            (
                "shadow",
                "read the host's password hashes",
                &["ENOENT"],
                Open,
            ),
            (
                "file_of_another",
                "read a world-readable file of the host",
                &["ENOENT"],
                Succeeds,
            ),
            (
                "gateway_environment",
                "read the gateway's environment",
                &["ENOENT"],
                Open,
            ),
            (
                "gateway_memory",
                "read the gateway's memory map",
                &["ENOENT"],
                Open,
            ),
            (
                "init_root",
                "reach a root through /proc/1",
                &["ENOENT", "EACCES"],
                Open,
            ),
            (
                "init_memory",
                "read init's memory map",
                &["ENOENT", "EACCES", "EPERM"],
                Open,
            ),
            ("kernel_memory", "open /dev/mem", &["ENOENT"], Open),
            ("kernel_log", "open /dev/kmsg", &["ENOENT"], Open),
            (
                "cgroup_files",
                "leave the cgroup by its files",
                &["ENOENT"],
                Open,
            ),
            ("write_root", "write into /", &["EROFS", "EACCES"], Open),
            ("write_etc", "write into /etc", &["EROFS", "EACCES"], Open),
            (
                "write_programs",
                "write into /usr/bin",
                &["EROFS", "EACCES"],
                Open,
            ),
            (
                "core_pattern",
                "have the kernel start a program",
                &["EROFS", "EACCES"],
                Open,
            ),
            (
                "sysrq",
                "use the magic key",
                &["EROFS", "EACCES", "ENOENT"],
                Open,
            ),
            ("oom_score", "have others killed first", &["EACCES"], Open),
            (
                "setuid_link",
                "keep a link to su",
                &["EXDEV", "EPERM", "ENOENT"],
                Open,
            ),
        ],
    ),
    (
        "Rights",
        &[
            ("device_node", "make a device", &["EPERM"], Open),
            ("become_root", "setuid(0)", &["EPERM"], Open),
            ("other_groups", "change its groups", &["EPERM"], Open),
            (
                "all_capabilities",
                "take all capabilities",
                &["EPERM"],
                Open,
            ),
            ("raise_limit", "raise a limit", &["EPERM"], Open),
            (
                "raise_priority",
                "raise its priority",
                &["EACCES", "EPERM"],
                Open,
            ),
            ("realtime", "run in real time", &["EPERM"], Open),
            ("change_root", "chroot", &["EPERM"], Open),
            ("host_name", "rename the host", &["EPERM"], Open),
        ],
    ),
    (
        "Other processes",
        &[
            ("kill_init", "kill its init", &["no effect"], Open),
            (
                "kill_host",
                "signal a process of the host",
                &["ESRCH"],
                Open,
            ),
            ("trace_init", "trace its init", &["EPERM"], Open),
            ("read_init", "read its init's memory", &["EPERM"], Open),
            (
                "take_descriptor",
                "take another's descriptor",
                &["EPERM"],
                Open,
            ),
        ],
    ),
    (
        "Namespaces and mounts",
        &[
            (
                "user_namespace",
                "become root in a user namespace",
                &["EPERM"],
                Open,
            ),
            (
                "mount_namespace",
                "get an own mount namespace",
                &["EPERM"],
                Open,
            ),
            ("clone_namespace", "the same, by clone", &["EPERM"], Open),
            ("clone3", "the same, by clone3", &["ENOSYS"], Open),
            ("join_namespace", "enter a namespace", &["EPERM"], Open),
            ("mount", "mount", &["EPERM"], Open),
            ("unmount", "take a cover off /proc", &["EPERM"], Open),
            ("new_mount", "mount, the new way", &["EPERM"], Open),
            ("copy_mount", "copy a mount", &["EPERM"], Open),
            ("change_mount", "make a mount writable", &["EPERM"], Open),
            ("file_handle", "open a file by its handle", &["EPERM"], Open),
        ],
    ),
    (
        "The kernel",
        &[
            ("bpf", "load a BPF program", &["EPERM"], Open),
            ("perf", "watch performance counters", &["EPERM"], Open),
            ("userfault", "handle page faults", &["EPERM"], Open),
            ("io_uring", "set up io_uring", &["EPERM"], Open),
            ("keyring", "use the kernel's keyrings", &["EPERM"], Open),
            ("module", "load a module", &["EPERM"], Open),
            ("kexec", "load a kernel", &["EPERM"], Open),
            ("reboot", "reboot", &["EPERM"], Open),
            ("clock", "set the clock", &["EPERM"], Open),
            ("kernel_log_call", "read the kernel's log", &["EPERM"], Open),
            (
                "layout",
                "switch off address randomisation",
                &["EPERM"],
                Succeeds,
            ),
            ("terminal_input", "type into a terminal", &["EPERM"], Open),
            ("x32", "call by x32 numbers", &["SIGSYS"], Open),
            // A kernel without 32-bit programs has no such gate.
            (
                "int80",
                "call by the gate of 32-bit programs",
                &["SIGSYS", "SIGSEGV"],
                Open,
            ),
        ],
    ),
    (
        "Network",
        &[
            ("packet_socket", "open a packet socket", &["EPERM"], Open),
            ("raw_socket", "open a raw socket", &["EPERM"], Open),
            ("vsock", "talk to the hypervisor", &["EPERM"], Open),
            (
                "crypto_socket",
                "use the kernel's ciphers",
                &["EPERM"],
                Open,
            ),
            (
                "audit_netlink",
                "talk to the kernel's audit",
                &["EPERM"],
                Open,
            ),
            (
                "metadata",
                "reach the cloud's metadata",
                &["ENETUNREACH", "EPERM"],
                Open,
            ),
            ("internet", "reach the internet", &["ENETUNREACH"], Open),
            (
                "host_loopback",
                "reach a service of the host",
                &["ENETUNREACH"],
                Succeeds,
            ),
            (
                "host_socket",
                "reach a socket in the host's files",
                &["ENOENT"],
                Succeeds,
            ),
            (
                "host_abstract_socket",
                "reach an abstract socket of the host",
                &["ECONNREFUSED", "EPERM"],
                Succeeds,
            ),
        ],
    ),
    (
        FLOODS,
        &[
            ("fill_tmp", "fill /tmp", &["ENOSPC", "EFBIG"], Open),
            ("fill_shm", "fill /dev/shm", &["ENOSPC", "EFBIG"], Open),
            (
                "files_in_tmp",
                "use up the inodes of /tmp",
                &["ENOSPC"],
                Open,
            ),
            ("huge_file", "write a huge file", &["EFBIG"], Open),
            (
                "descriptors",
                "open descriptors without end",
                &["EMFILE"],
                Open,
            ),
            ("lock_memory", "lock memory", &["ENOMEM", "EPERM"], Open),
        ],
    ),
];

/// What fills the isolate comes last.
const FLOODS: &str = "Floods";

fn rows() -> impl Iterator<Item = (&'static str, &'static Row)> {
    let rows = |(kind, rows): &'static (&'static str, &'static [Row])| {
        rows.iter().map(move |row| (*kind, row))
    };
    KINDS.iter().flat_map(rows)
}

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

/// What is no attack and has no table.
const BESIDES: &str = "
## Whose ids

Under root each user's isolates run as a uid of the range that is set (`sandbox.uid_base`). A server that is not root gives ids of the
range that `/etc/subuid` and `/etc/subgid` give its account, by `newuidmap` and `newgidmap` (package `uidmap`), once for its
spawner (`sandbox/tests/subordinate.rs`, decision 0123):

```console
# usermod --add-subuids 700000000-700065535 --add-subgids 700000000-700065535 legation
```

The range must be this account's alone: who has some of it in `/etc/subuid` as well may become those ids and end their servers, so such a range
is refused. Above 600100000 (`SUB_UID_MAX` of `/etc/login.defs`) `useradd` gives none of it to the next account.

A systemd unit needs `Delegate=cpu io memory pids` on a host with cgroup v2 (systemd gives v1 controllers to root only) and must not set
`NoNewPrivileges=`. Without such a range `user_range` is missing, and
`legation doctor` says why. Homes belong to those ids then: take the range away, and root has to give the files back.

## What is shown of the host

Read-only, the same in every isolate of `strict` and `standard`: its programs and libraries (`/usr`, `/bin`, `/sbin`, `/lib*`, and `/nix/store` where there is one), and of
`/etc` what programs need and what tells nothing of users and keys (certificates, fonts, time zones, the linker's cache, `services`, `mime.types` and the like: `sandbox/src/plan/view/common.rs`,
which is the whole list). Who is on the host is not shown: `passwd`, `group`, `hosts` and `nsswitch.conf` are the isolate's own, `resolv.conf` as well unless the network is `host`. So no secret belongs beneath
`/usr`, `/etc/ssl` or `/etc/pki`: a private key there that all may read is read by servers too.

## What is shown of a project

A script brings the project it lies in (the nearest `package.json`, `pyproject.toml`, …), read-only. Its history and what its developers
and their tools are let in with are covered: `.git`, `.hg`, `.svn`, `.env`, `.env.*`, `.envrc`, `.npmrc`, `.pypirc`, `.netrc` and `.ssh`, in the directories from
the script up to the project's top. A server that reads its `.env` has it declared (`--read PATH`): what is declared is shown as it is, and nothing beside it. Credentials belong
into the vault. A cover lies on the file that was there at the start: one that is replaced on the host, or made, while a server runs is seen by it until its next start.

Links on the way to a declared path are followed only if root or the server's own account made them: an isolate that may write somewhere
cannot lead another one's view elsewhere.

## Processes

What an isolate may have of processes is its cgroup's to say, and its user's sum their group's. `RLIMIT_NPROC` stays as the gateway was given it: it counts for a
uid, so a bound there is one for all isolates of a user together.

## The disk

A home has no quota of the kernel's (decision 0124). What holds it: a bound on each file, the guard that ends who fills the disk, a rate where
`isolates.disk_bytes_per_second` is set (decision 0125), and quotas of your own on the range of uids (`setquota -u`), whose refusal is the server's alone to see.
";

fn rendered() -> String {
    let mut out = String::from(
        "# What an isolate cannot do\n\n\
         Rendered from the table in `sandbox/tests/attacks.rs`, which is also the test: every attack \
         is tried by a\nserver in each profile, and the answers below are what the kernel must say. \
         **Nothing succeeds in `strict`\nor `standard`.** Profile `none` is the control: what succeeds \
         there shows that the attack works. The floods are\nnot tried there: without an own `/tmp` they would \
         flood the host.\n\n## Profiles\n\n\
         | facility | none | standard | strict |\n|---|---|---|---|\n",
    );
    for facility in Facility::ALL {
        let word = |profile: Profile| {
            let ground = Facility::GROUND.contains(&facility);
            if ground || profile.required().contains(&facility) {
                "required"
            } else if profile.wanted().contains(&facility) {
                "if there"
            } else if facility == Facility::UserRange {
                "required under root"
            } else if facility == Facility::CgroupIo {
                "required where isolates have a limit on the disk"
            } else if facility == Facility::NetworkGuard && profile != Profile::None {
                "required for network `host`"
            } else if facility == Facility::NetworkGuard {
                "if there"
            } else {
                "–"
            }
        };
        let [none, standard, strict] = Profile::ALL.map(word);
        writeln!(out, "| `{facility}` | {none} | {standard} | {strict} |").unwrap();
    }
    out.push_str(
        "\nA required facility that is missing refuses the start, unless `sandbox.allow_degraded` names \
         it; under root\nan own uid cannot be given up. `legation doctor` tries each of them.\n\n\
         With `seccomp`, init (pid 1 of the isolate, which no server reaches) has a filter of its own from the \
         server's\nexec on: it waits, reads a signal, reaps, passes TERM on, tells how the server ended and \
         goes; any other system\ncall ends the isolate (`sandbox/src/seccomp.rs`).\n",
    );
    out.push_str(BESIDES);
    for (kind, rows) in KINDS {
        writeln!(
            out,
            "\n## {kind}\n\n| attack | strict and standard answer | none |\n|---|---|---|"
        )
        .unwrap();
        for (_, what, expected, bare) in *rows {
            let answer = match expected {
                ["no effect"] => "no effect".to_owned(),
                ["SIGSYS"] => "killed by `SIGSYS`".to_owned(),
                ["SIGSYS", other] => format!("killed by `SIGSYS` or `{other}`"),
                several => several
                    .iter()
                    .map(|e| format!("`{e}`"))
                    .collect::<Vec<_>>()
                    .join(" or "),
            };
            let bare = if *bare == Succeeds { "succeeds" } else { "" };
            writeln!(out, "| {what} | {answer} | {bare} |").unwrap();
        }
    }
    out.push_str(
        "\n## Hoards\n\nTaken until the kernel says no, and held (`sandbox/tests/hoards.rs`): each is refused \
         at a limit of the isolate's own,\nor charged to its memory, and then the isolate is ended and its \
         limit named.\n\n",
    );
    for (_, what) in crate::hoards::KINDS {
        writeln!(out, "* {what}").unwrap();
    }
    out
}
