//! What every test stands on: a host of its own, runs of it, and eyes on both.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sandbox::cgroup::{Leaf, LeafName, Limits};
use sandbox::host::{End, HostConfig, Process};
use sandbox::plan::{Identity, Program};
use sandbox::reach::Declared;
use sandbox::status::{Decoder, Record};
use sandbox::{Facility, Host, Network, Profile, SpawnSpec, Spawned};

/// How long anything here may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An installation id nobody else has: tests never touch each other's cgroups.
pub(crate) fn installation() -> String {
    format!(
        "{:08x}{:04x}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// A host that may lack everything, for tests that do not need it all.
pub(crate) fn lenient() -> Host {
    Host::start(config()).unwrap()
}

/// The configuration of a host that may lack everything.
pub(crate) fn config() -> HostConfig {
    let mut config = HostConfig::new(&installation());
    config.allow_degraded = Facility::ALL.to_vec();
    config.probe_identity = identity();
    config
}

/// Whom isolates run as: somebody nobody else is, if we may choose.
pub(crate) fn identity() -> Option<Identity> {
    let id = 1_500_000_000 + std::process::id();
    nix::unistd::geteuid()
        .is_root()
        .then_some(Identity { uid: id, gid: id })
}

/// A host with these facilities, or the reason to skip.
pub(crate) fn with(needed: &[Facility]) -> Result<Host, String> {
    let host = lenient();
    match host
        .capabilities()
        .missing
        .iter()
        .find(|m| needed.contains(&m.facility))
    {
        Some(missing) => Err(missing.to_string()),
        None => Ok(host),
    }
}

/// A host without these facilities.
pub(crate) fn without(facilities: &[Facility]) -> Host {
    let mut config = config();
    config.without = facilities.to_vec();
    Host::start(config).unwrap()
}

pub(crate) const LIMITS: Limits = Limits {
    memory_bytes: 64 << 20,
    pids: 32,
    cpu_millis: 1000,
};

pub(crate) fn spec(path: &str, args: &[&str]) -> SpawnSpec {
    SpawnSpec {
        leaf: LeafName {
            user: Some("ada".to_owned()),
            isolate: format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)),
        },
        program: Program {
            path: path.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned().into())]),
        },
        workdir: "/".into(),
        profile: Profile::None,
        network: Network::None,
        ports: Vec::new(),
        identity: identity(),
        declared: Declared::default(),
        limits: LIMITS,
        user_limits: Limits {
            memory_bytes: 256 << 20,
            pids: 128,
            cpu_millis: 2000,
        },
        open_files: 256,
        file_bytes: 1 << 20,
        secrets: None,
        descriptors: BTreeMap::new(),
        opening: Vec::new(),
    }
}

/// A shell script as a server.
pub(crate) fn shell(script: &str) -> SpawnSpec {
    spec("/bin/sh", &["-c", script])
}

/// One of our own probes as a server.
pub(crate) fn probe(args: &[&str]) -> SpawnSpec {
    let own = std::env::current_exe().unwrap();
    let args: Vec<&str> = std::iter::once("probe")
        .chain(args.iter().copied())
        .collect();
    spec(own.to_str().unwrap(), &args)
}

/// A run under test; cleaned up whatever happens.
pub(crate) struct Run {
    pub(crate) process: Process,
    pub(crate) leaf: Leaf,
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: File,
    pub(crate) stderr: File,
    status: File,
    reaped: Option<End>,
}

impl Run {
    pub(crate) fn start(host: &Host, spec: &SpawnSpec) -> Self {
        host.spawn(spec).unwrap().into()
    }

    /// Everything init tells until it is gone.
    pub(crate) fn records(&mut self) -> Vec<Record> {
        let mut bytes = Vec::new();
        read_to_end(&mut self.status, &mut bytes);
        Decoder::default().feed(&bytes)
    }

    /// Waits for the first thing init tells.
    pub(crate) fn until_started(&mut self) {
        wait_readable(&self.status);
    }

    /// The last thing init tells: how the server ended.
    pub(crate) fn ending(&mut self) -> Record {
        self.records().pop().expect("init ended without a record")
    }

    /// Reads stdout to its end.
    pub(crate) fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        read_to_end(&mut self.stdout, &mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    /// Reads one line of stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = Vec::new();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            wait_readable(&self.stdout);
            if self.stdout.read(&mut byte).unwrap() == 0 {
                break;
            }
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    pub(crate) fn write(&mut self, text: &str) {
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Kills everything and waits until nothing is left; gives how init ended.
    pub(crate) fn kill(&mut self) -> End {
        self.process.hold();
        self.leaf.kill();
        self.process.kill();
        self.wait_gone()
    }

    /// Waits until init is reaped and the cgroup is empty.
    pub(crate) fn wait_gone(&mut self) -> End {
        if let Some(end) = self.reaped {
            return end;
        }
        eventually("init ends", || {
            self.reaped = self.process.try_reap().unwrap();
            self.reaped.is_some()
        });
        eventually("the cgroup is empty", || self.leaf.is_empty());
        self.reaped.unwrap()
    }
}

impl From<Spawned> for Run {
    fn from(spawned: Spawned) -> Self {
        Self {
            process: spawned.process,
            leaf: spawned.leaf,
            stdin: Some(spawned.stdin.into()),
            stdout: spawned.stdout.into(),
            stderr: spawned.stderr.into(),
            status: spawned.status.into(),
            reaped: None,
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.reaped.is_none() {
            self.kill();
        }
        self.leaf.remove().unwrap();
    }
}

fn wait_readable(file: &File) {
    use std::os::fd::AsFd;
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    let wait = PollTimeout::try_from(PATIENCE).unwrap();
    assert!(poll(&mut fds, wait).unwrap() > 0, "nothing came in time");
}

fn read_to_end(file: &mut File, bytes: &mut Vec<u8>) {
    let mut chunk = [0; 4096];
    loop {
        wait_readable(file);
        match file.read(&mut chunk).unwrap() {
            0 => return,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

/// Waits for something that must become true.
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process, seen from here, is there and no zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        stat.rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
    })
}

/// Our children, dead or alive.
pub(crate) fn children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            && let Ok(stat) = std::fs::read_to_string(entry.path().join("stat"))
            && let Some((_, rest)) = stat.rsplit_once(')')
            && rest.split_ascii_whitespace().nth(1) == Some(own.as_str())
        {
            found.push(pid);
        }
    }
    found
}

/// Every process whose command line holds this word.
pub(crate) fn with_word(word: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok())
            && std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
                String::from_utf8_lossy(&line)
                    .split('\0')
                    .any(|arg| arg == word)
            })
        {
            found.push(pid);
        }
    }
    found
}

/// The groups of an installation in all mounted hierarchies.
pub(crate) fn groups_of(installation: &str) -> Vec<std::path::PathBuf> {
    fn walk(dir: &Path, name: &str, depth: u32, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            if entry.file_name().to_str() == Some(name) {
                found.push(entry.path());
            } else if depth > 0 {
                walk(&entry.path(), name, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    let name = format!("legation-{installation}");
    walk(Path::new("/sys/fs/cgroup"), &name, 6, &mut found);
    found
}

/// A descriptor as a file; for ends handed out by the library.
pub(crate) fn file(fd: OwnedFd) -> File {
    fd.into()
}
