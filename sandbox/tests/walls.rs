//! What the profiles keep from a server, and what they leave it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::unistd::{Gid, Uid, chown};
use sandbox::host::HostError;
use sandbox::status::Record;
use sandbox::{Facility, Host, Network, Profile, SpawnSpec};

use crate::world::{self, Run, probe, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "strict_shows_nothing_of_the_host",
        strict_shows_nothing_of_the_host,
    ),
    (
        "a_home_is_written_and_nothing_else",
        a_home_is_written_and_nothing_else,
    ),
    (
        "nobody_is_root_in_any_profile",
        nobody_is_root_in_any_profile,
    ),
    ("rights_cannot_be_had_back", rights_cannot_be_had_back),
    (
        "the_network_is_the_one_asked_for",
        the_network_is_the_one_asked_for,
    ),
    (
        "the_network_of_the_host_is_guarded",
        the_network_of_the_host_is_guarded,
    ),
    ("declared_paths_are_shown", declared_paths_are_shown),
    (
        "a_project_comes_without_its_secrets",
        a_project_comes_without_its_secrets,
    ),
    (
        "what_leads_elsewhere_than_it_did_is_not_shown",
        what_leads_elsewhere_than_it_did_is_not_shown,
    ),
    ("a_link_is_no_writable_path", a_link_is_no_writable_path),
    (
        "a_closed_directory_hides_no_home",
        a_closed_directory_hides_no_home,
    ),
    (
        "a_lacking_wall_is_told_by_the_run",
        a_lacking_wall_is_told_by_the_run,
    ),
    ("setup_cost_of_each_profile", setup_cost_of_each_profile),
];

/// A host with all walls, or the reason to skip.
pub(crate) fn host() -> Result<Host, String> {
    let mut needed = Profile::Strict.required().to_vec();
    needed.push(Facility::PidNamespace);
    if world::identity().is_none() {
        needed.retain(|facility| *facility != Facility::UserRange);
    }
    world::with(&needed)
}

/// A home for the run, as the gateway prepares it.
pub(crate) struct Home(pub(crate) tempfile::TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        if let Some(identity) = world::identity() {
            let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
            chown(&home, Some(uid), Some(gid)).unwrap();
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("home")
    }
}

pub(crate) fn within(mut spec: SpawnSpec, profile: Profile, home: &Path) -> SpawnSpec {
    spec.profile = profile;
    home.clone_into(&mut spec.workdir);
    spec
}

fn told(host: &Host, spec: &SpawnSpec) -> String {
    let mut run = Run::start(host, spec);
    let out = run.output();
    let ending = run.ending();
    assert_eq!(ending, Record::Exited(0), "{out}");
    out
}

fn strict_shows_nothing_of_the_host() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let script = "ls / /etc /run /dev /proc/1/fd /root /home /var 2>&1; \
        cat /proc/mounts; ps_count=$(ls -d /proc/[0-9]* | wc -l); echo processes $ps_count; \
        hostname 2>/dev/null || cat /proc/sys/kernel/hostname; cat /proc/self/cgroup; \
        ls /sys 2>&1; cat /etc/shadow 2>&1; true";
    let out = told(&host, &within(shell(script), Profile::Strict, &home.path()));
    let own = home.path();
    for hidden in ["shadow-", "ssh", "\nroot\n", "legation", "init.scope"] {
        assert!(!out.contains(hidden), "`{hidden}` is to be seen: {out}");
    }
    let absent = |path: &str| {
        let told = |line: &str| line.contains(path) && line.contains("No such file");
        out.lines().any(told)
    };
    assert!(absent("/etc/shadow"), "{out}");
    assert!(absent("/sys"), "{out}");
    assert!(out.contains("\nisolate\n"), "{out}");
    assert!(out.contains(&own.display().to_string()), "{out}");
    let processes: u32 = out
        .lines()
        .find_map(|line| line.strip_prefix("processes "))
        .unwrap()
        .parse()
        .unwrap();
    // The shell, ls and its pipe; init is another user's to look at, and hidden.
    assert!(processes <= 4, "{out}");
    for line in out.lines().filter(|line| line.contains(":/")) {
        assert!(
            line.ends_with(":/") || !line.starts_with(|c: char| c.is_ascii_digit()),
            "{line}"
        );
    }
    Ok(())
}

fn a_home_is_written_and_nothing_else() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let script = "for d in . /tmp /dev/shm / /usr /etc /bin /run /run/secrets /proc /dev /var/tmp; do \
        if (: > $d/probe) 2>/dev/null; then echo wrote $d; fi; done; \
        echo 1 > /proc/sys/kernel/core_pattern; mkdir x && cd x && echo deep > y; \
        printf '#!/bin/sh\necho executed\n' > /tmp/t; chmod 700 /tmp/t; /tmp/t; true";
    let out = told(&host, &within(shell(script), Profile::Strict, &home.path()));
    assert_eq!(out, "wrote .\nwrote /tmp\nwrote /dev/shm\nexecuted\n");
    assert_eq!(
        std::fs::read_to_string(home.path().join("x/y")).unwrap(),
        "deep\n"
    );
    assert!(!Path::new("/tmp/t").exists(), "its /tmp is its own");
    Ok(())
}

fn nobody_is_root_in_any_profile() -> Outcome {
    let host = host()?;
    let home = Home::new();
    for profile in Profile::ALL {
        let spec = within(shell("id -u; id -g; id -G; pwd"), profile, &home.path());
        let out = told(&host, &spec);
        let expected = match world::identity() {
            Some(id) => format!("{0}\n{0}\n{0}\n{1}\n", id.uid, home.path().display()),
            None => out.clone(),
        };
        assert_eq!(out, expected, "{profile}");
        assert!(!out.starts_with("0\n"), "{profile}");
    }
    let mut root = within(shell("true"), Profile::Strict, &home.path());
    if let Some(identity) = &mut root.identity {
        identity.uid = 0;
        assert!(matches!(host.spawn(&root), Err(HostError::Plan(_))));
        root.identity = None;
        assert!(matches!(host.spawn(&root), Err(HostError::Unavailable(_))));
    }
    Ok(())
}

fn rights_cannot_be_had_back() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -d '\\t '";
    let out = told(&host, &within(shell(script), Profile::Strict, &home.path()));
    let none = "0000000000000000";
    let caps = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:{none}\n"));
    assert_eq!(out, format!("{}NoNewPrivs:1\nSeccomp:2\n", caps.concat()));
    Ok(())
}

fn the_network_is_the_one_asked_for() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for (network, profile, expected) in [
        (
            Network::None,
            Profile::Strict,
            "interfaces lo\nself refused\nhost refused\n",
        ),
        (
            Network::Loopback,
            Profile::Strict,
            "interfaces lo\nself reached\nhost refused\n",
        ),
        (
            Network::Loopback,
            Profile::Standard,
            "interfaces lo\nself reached\nhost refused\n",
        ),
        (
            Network::Host,
            Profile::Strict,
            "self reached\nhost reached\n",
        ),
        (Network::None, Profile::None, "self reached\nhost reached\n"),
    ] {
        let mut spec = within(probe(&["network", &port]), profile, &home.path());
        spec.network = network;
        let out = told(&host, &spec);
        assert!(out.ends_with(expected), "{network} in {profile}: {out}");
    }
    Ok(())
}

fn the_network_of_the_host_is_guarded() -> Outcome {
    let host = world::with(&[
        Facility::NetworkGuard,
        Facility::PidNamespace,
        Facility::Seccomp,
    ])?;
    let home = Home::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    for profile in Profile::ALL {
        let mut spec = within(probe(&["guard", &port]), profile, &home.path());
        spec.network = Network::Host;
        let out = told(&host, &spec);
        let mut lines = out.lines();
        assert_eq!(lines.next(), Some("the host's service reached"), "{out}");
        for line in lines {
            let (way, told) = line.rsplit_once(' ').unwrap();
            // A host without the protocol has no way around by it.
            let none = ["EPROTONOSUPPORT", "EAFNOSUPPORT", "ENOPROTOOPT"].contains(&told);
            assert!(told == "EPERM" || none, "{way} in {profile}: {out}");
        }
    }
    Ok(())
}

fn declared_paths_are_shown() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let data = Home::new();
    std::fs::write(data.path().join("a"), "there\n").unwrap();
    let dir = data.path().display().to_string();
    let script = format!("cat {dir}/a; (echo new > {dir}/b) 2>/dev/null; ls {dir}");
    let mut spec = within(shell(&script), Profile::Strict, &home.path());
    spec.declared.read = [(data.path(), data.path())].into();
    assert_eq!(told(&host, &spec), "there\na\n");
    spec.declared.read.clear();
    spec.declared.write = vec![data.path()];
    assert_eq!(told(&host, &spec), "there\na\nb\n");
    spec.declared.write = vec![data.path().join("missing")];
    let mut run = Run::start(&host, &spec);
    let Record::Failed(failure) = run.ending() else {
        panic!("it started without its path");
    };
    assert_eq!(
        (failure.step.as_str(), failure.errno),
        ("mounts", libc::ENOENT)
    );
    assert!(failure.text.contains("missing"), "{}", failure.text);
    Ok(())
}

/// A script brings its project, and neither its history nor what its developers are let in with.
fn a_project_comes_without_its_secrets() -> Outcome {
    let host = host()?;
    let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let app = folder.path().join("app");
    std::fs::create_dir_all(app.join(".git/objects")).unwrap();
    for file in ["package.json", ".env", ".git/config", "code"] {
        std::fs::write(app.join(file), "text\n").unwrap();
    }
    let script = app.join("main.sh");
    let text = "cd $(dirname $0); cat code .env; ls -A .git; \
                (echo x >.git/x) 2>/dev/null || echo no";
    std::fs::write(&script, text).unwrap();
    let spec = world::spec("/bin/sh", &[script.to_str().unwrap()]);
    let mut spec = within(spec, Profile::Strict, &home.path());
    assert_eq!(told(&host, &spec), "text\nno\n");
    // One file of a directory tells nothing of its neighbours.
    let config = app.join(".git/config");
    spec.declared
        .read
        .insert(config.clone(), config.canonicalize().unwrap());
    assert_eq!(told(&host, &spec), "text\nconfig\nno\n");
    // Also where nobody but its owner may pass it.
    let git = app.join(".git");
    std::fs::set_permissions(&git, PermissionsExt::from_mode(0o700)).unwrap();
    assert_eq!(told(&host, &spec), "text\nconfig\nno\n");
    // Without an own uid, `none` sees what its account sees.
    if world::identity().is_some() {
        let mut open = spec.clone();
        open.profile = Profile::None;
        assert_eq!(told(&host, &open), "text\ntext\nconfig\nno\n");
    }
    std::fs::set_permissions(&git, PermissionsExt::from_mode(0o755)).unwrap();
    // What is declared is shown as it is.
    spec.declared
        .read
        .insert(app.clone(), app.canonicalize().unwrap());
    assert_eq!(told(&host, &spec), "text\ntext\nconfig\nobjects\nno\n");
    Ok(())
}

/// Another mcp that may write there put a link in its place, between the check and the mount.
fn what_leads_elsewhere_than_it_did_is_not_shown() -> Outcome {
    let host = host()?;
    let (home, data) = (Home::new(), Home::new());
    let place = data.path().join("place");
    std::os::unix::fs::symlink("/root", &place).unwrap();
    let mut spec = within(shell("ls -A /root"), Profile::Strict, &home.path());
    spec.declared.read = [(place.clone(), place)].into();
    let mut run = Run::start(&host, &spec);
    let Record::Failed(failure) = run.ending() else {
        panic!("it was led elsewhere");
    };
    assert_eq!(
        (failure.step.as_str(), failure.errno),
        ("mounts", libc::ESTALE)
    );
    Ok(())
}

fn a_link_is_no_writable_path() -> Outcome {
    let host = host()?;
    let home = Home::new();
    let link = home.0.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let mut spec = within(shell("cat /etc/shadow"), Profile::Strict, &home.path());
    spec.workdir = link;
    let mut run = Run::start(&host, &spec);
    let Record::Failed(failure) = run.ending() else {
        panic!("it was led elsewhere");
    };
    assert_eq!(
        (failure.step.as_str(), failure.errno),
        ("mounts", libc::ELOOP)
    );
    Ok(())
}

fn a_closed_directory_hides_no_home() -> Outcome {
    let host = host()?;
    if world::identity().is_none() {
        // Everything runs as us, and we pass our own directories.
        return Ok(());
    }
    let home = Home::new();
    let above = home.0.path();
    std::fs::set_permissions(above, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(above.join("secret"), "x").unwrap();
    let script = format!("echo kept > kept; pwd; ls {}", above.display());
    let out = told(&host, &within(shell(&script), Profile::None, &home.path()));
    assert_eq!(out, format!("{}\nhome\n", home.path().display()));
    assert!(home.path().join("kept").exists());
    Ok(())
}

fn a_lacking_wall_is_told_by_the_run() -> Outcome {
    host()?;
    let host = world::without(&[Facility::Landlock]);
    let home = Home::new();
    for (profile, expected) in [
        (Profile::None, &[][..]),
        (Profile::Standard, &[Facility::Landlock][..]),
        (Profile::Strict, &[Facility::Landlock][..]),
    ] {
        let spawned = host
            .spawn(&within(shell("true"), profile, &home.path()))
            .unwrap();
        let mut degraded = spawned.degraded.clone();
        if world::identity().is_none() {
            // Without root it is missing as well, and told.
            degraded.retain(|facility| *facility != Facility::UserRange);
        }
        assert_eq!(degraded, expected, "{profile}");
        drop(Run::from(spawned));
    }
    Ok(())
}

fn setup_cost_of_each_profile() -> Outcome {
    const RUNS: u32 = 60;
    let host = host()?;
    let home = Home::new();
    for profile in Profile::ALL {
        let mut sleeper = Run::start(&host, &within(shell("sleep 100"), profile, &home.path()));
        sleeper.until_started();
        let rollup = format!("/proc/{}/smaps_rollup", sleeper.process.pid());
        let rollup = std::fs::read_to_string(rollup).unwrap_or_default();
        let dirty = rollup
            .lines()
            .find(|line| line.starts_with("Private_Dirty"));
        println!("    {profile}: init {}", dirty.unwrap_or("cannot be read"));
        drop(sleeper);
        let spec = within(shell("exit 0"), profile, &home.path());
        let mut took = Vec::new();
        for _ in 0..RUNS {
            let began = Instant::now();
            let mut run = Run::start(&host, &spec);
            run.until_started();
            took.push(began.elapsed());
            run.kill();
        }
        took.sort();
        let mean = took.iter().sum::<std::time::Duration>() / RUNS;
        let (half, most) = (took[took.len() / 2], took[took.len() * 95 / 100]);
        println!("    {profile}: spawn to exec mean {mean:?}, p50 {half:?}, p95 {most:?}");
    }
    Ok(())
}
