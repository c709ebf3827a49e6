//! What holds an isolate: its cgroups and limits, its namespace, its clean start; and what happens
//! where the host cannot hold it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::hostile::Bystander;
use crate::processes::{inhabitants, no_zombies, pid_of, stat, status_of};
use crate::tools;
use crate::world::{Http, LEGATION, PATIENCE, World, am_root, pids};

/// Whether cgroups can be looked at here; says so where not.
fn has_cgroups(what: &str) -> bool {
    if !am_root() {
        tools::skip(what, "not root, so there are no cgroups to look at");
    }
    am_root()
}

fn read(path: &Path) -> Option<String> {
    std::fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The cgroups of one isolate, one in each hierarchy.
fn leaves_of(world: &World, isolate: &Value) -> Vec<PathBuf> {
    let id = isolate["id"].as_str().unwrap();
    let (_, short) = id.split_once('_').unwrap();
    let name = format!("i-{short}");
    let all = world.leaves().into_iter();
    all.filter(|leaf| {
        leaf.file_name()
            .is_some_and(|file| file.to_string_lossy() == name)
    })
    .collect()
}

/// A limit by its v1 or v2 file, wherever among these directories it is.
fn memory_limit(dirs: &[PathBuf]) -> String {
    let files = |dir: &PathBuf| {
        read(&dir.join("memory.limit_in_bytes")).or_else(|| read(&dir.join("memory.max")))
    };
    dirs.iter()
        .find_map(files)
        .unwrap_or_else(|| panic!("no memory limit in {dirs:?}"))
}

fn pids_limit(dirs: &[PathBuf]) -> String {
    let found = dirs.iter().find_map(|dir| read(&dir.join("pids.max")));
    found.unwrap_or_else(|| panic!("no pids limit in {dirs:?}"))
}

/// Microseconds of CPU in each 100 ms.
fn cpu_limit(dirs: &[PathBuf]) -> String {
    let v1 = |dir: &PathBuf| {
        let period = read(&dir.join("cpu.cfs_period_us"))?;
        assert_eq!(period, "100000");
        read(&dir.join("cpu.cfs_quota_us"))
    };
    let v2 = |dir: &PathBuf| {
        read(&dir.join("cpu.max")).map(|max| max.trim_end_matches(" 100000").to_owned())
    };
    let found = dirs.iter().find_map(|dir| v1(dir).or_else(|| v2(dir)));
    found.unwrap_or_else(|| panic!("no cpu limit in {dirs:?}"))
}

#[test]
fn every_isolate_has_a_cgroup_with_its_limits_below_its_users_sum() {
    if !has_cgroups("limits of cgroups") {
        return;
    }
    let world = World::with(
        "[isolates]\nuser_memory_bytes = 805306368\nuser_pids = 300\nuser_cpu_millis = 1500\n",
    );
    world.demo(
        "one",
        &["--memory", "96MiB", "--pids", "40", "--cpu", "0.5"],
    );
    world.demo("two", &["--memory", "200MiB", "--pids", "50", "--cpu", "1"]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    for session in [&ada, &ben] {
        session.ask("one.whoami", json!({}));
        session.ask("two.whoami", json!({}));
    }
    let mut seen = Vec::new();
    for (user, mcp, memory, pids, cpu) in [
        ("ada", "one", 96 << 20, "40", "50000"),
        ("ada", "two", 200 << 20, "50", "100000"),
        ("ben", "one", 96 << 20, "40", "50000"),
        ("ben", "two", 200 << 20, "50", "100000"),
    ] {
        let isolate = world.isolate(mcp, Some(user));
        let leaves = leaves_of(&world, &isolate);
        assert_eq!(memory_limit(&leaves), memory.to_string(), "{user} {mcp}");
        assert_eq!(pids_limit(&leaves), pids, "{user} {mcp}");
        assert_eq!(cpu_limit(&leaves), cpu, "{user} {mcp}");
        let sums: Vec<PathBuf> = leaves
            .iter()
            .map(|leaf| leaf.parent().unwrap().to_owned())
            .collect();
        assert_eq!(
            memory_limit(&sums),
            (768 << 20).to_string(),
            "sum of {user}"
        );
        assert_eq!(pids_limit(&sums), "300", "sum of {user}");
        assert_eq!(cpu_limit(&sums), "150000", "sum of {user}");
        // The whole tree of the isolate is in all of them, and nothing else is.
        let mut tree = inhabitants(&isolate);
        tree.push(pid_of(&isolate));
        tree.sort_unstable();
        for leaf in &leaves {
            let inside = read(&leaf.join("cgroup.procs")).unwrap();
            let mut inside: Vec<i32> = inside.lines().map(|pid| pid.parse().unwrap()).collect();
            inside.sort_unstable();
            assert_eq!(inside, tree, "{}", leaf.display());
        }
        seen.push((user, sums));
    }
    assert_eq!(seen[0].1, seen[1].1, "one sum for both isolates of a user");
    assert_ne!(seen[0].1, seen[2].1, "another sum for another user");
}

#[test]
fn limits_change_in_what_runs_and_nobody_starts_again() {
    if !has_cgroups("changes of limits") {
        return;
    }
    let world = World::new();
    world.demo(
        "demo",
        &["--memory", "200MiB", "--pids", "40", "--cpu", "1"],
    );
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask(
        "demo.note_put",
        json!({"key": "kept", "value": "in memory"}),
    );
    ben.ask("demo.allocate", json!({"mib": 100}));
    let before = ["ada", "ben"].map(|user| world.isolate("demo", Some(user)));
    let pids = before.clone().map(|isolate| pid_of(&isolate));
    let change = ["--memory", "256MiB", "--pids", "30", "--cpu", "0.5"];
    world.cli(&[&["mcp", "update", "demo"], change.as_slice()].concat());
    for (isolate, pid) in before.iter().zip(pids) {
        let now = world.isolate("demo", isolate["user"].as_str());
        assert_eq!((&now["id"], pid_of(&now)), (&isolate["id"], pid));
        assert_eq!(now["memory_limit_bytes"], 256 << 20);
        let leaves = leaves_of(&world, &now);
        assert_eq!(memory_limit(&leaves), (256 << 20).to_string());
        assert_eq!(
            (pids_limit(&leaves).as_str(), cpu_limit(&leaves).as_str()),
            ("30", "50000")
        );
    }
    let changed = crate::kill::audit(&world);
    let changed = changed
        .iter()
        .filter(|record| record["event"] == "isolate.limits_changed");
    assert_eq!(changed.count(), 2);
    // Who needs more than it may have now starts again; who does not goes on.
    world.cli(&["mcp", "update", "demo", "--memory", "64MiB"]);
    world.until("the large one is replaced", |world| {
        let same = world
            .isolates()
            .iter()
            .any(|one| one["id"] == before[1]["id"]);
        (!same).then_some(())
    });
    assert_eq!(pid_of(&world.isolate("demo", Some("ada"))), pids[0]);
    let kept = ada.ask("demo.note_get", json!({"key": "kept"}));
    assert!(kept.contains("in memory"), "{kept}");
    ben.ask("demo.whoami", json!({}));
    let fresh = world.isolate("demo", Some("ben"));
    assert_eq!(
        memory_limit(&leaves_of(&world, &fresh)),
        (64 << 20).to_string()
    );
}

#[test]
fn a_server_sees_itself_alone_and_starts_clean() {
    if !has_cgroups("walls of root") {
        return;
    }
    let world = World::new();
    world.demo("demo", &["--env", "OF_ITS_OWN={user.name}"]);
    let ada = world.client("ada");
    let me: Value = serde_json::from_str(&ada.ask("demo.whoami", json!({}))).unwrap();
    assert_eq!(me["pid"], 2, "{me}");
    // Nothing of the gateway's environment, whatever the tests were started with.
    assert_eq!(
        me["env"],
        json!(["HOME", "LANG", "OF_ITS_OWN", "PATH", "TMPDIR"])
    );
    let home = me["cwd"].as_str().unwrap();
    assert!(
        home.starts_with(&world.data_dir().display().to_string()),
        "{home}"
    );
    let mode = std::fs::metadata(home).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);

    let isolate = world.isolate("demo", Some("ada"));
    let init = pid_of(&isolate);
    let servers = inhabitants(&isolate);
    assert_eq!(servers.len(), 1, "init and server: {servers:?}");
    let server = servers[0];
    let environ = std::fs::read_to_string(format!("/proc/{server}/environ")).unwrap();
    assert!(environ.contains("OF_ITS_OWN=ada"), "{environ:?}");
    assert!(status_of(server, "NSpid").ends_with("\t2"));
    assert!(status_of(init, "NSpid").ends_with("\t1"));
    // A session and a process group of its own.
    let fields = stat(server).unwrap();
    assert_eq!(
        (&fields[2], &fields[3]),
        (&server.to_string(), &server.to_string())
    );
    assert_eq!(status_of(server, "NoNewPrivs"), "1");
    assert_eq!(status_of(init, "NoNewPrivs"), "1");
    // Its three pipes and nothing else.
    let mut open: Vec<String> = std::fs::read_dir(format!("/proc/{server}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    for fd in &open {
        let target = std::fs::read_link(format!("/proc/{server}/fd/{fd}")).unwrap();
        assert!(
            target.to_string_lossy().starts_with("pipe:"),
            "{fd} is {}",
            target.display()
        );
    }
    let limits = std::fs::read_to_string(format!("/proc/{server}/limits")).unwrap();
    for (name, value) in [
        ("Max core file size", "0"),
        ("Max open files", "1024"),
        ("Max file size", "1073741824"),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let values: Vec<&str> = line
            .split_at(name.len())
            .1
            .split_whitespace()
            .take(2)
            .collect();
        assert_eq!(values, [value, value], "{line}");
    }
    // Of the gateway's own files, init holds none: a socket or database would be a way in.
    for entry in std::fs::read_dir(format!("/proc/{init}/fd"))
        .unwrap()
        .flatten()
    {
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        let target = target.to_string_lossy().into_owned();
        assert!(
            !target.contains("legation.db") && !target.contains("audit"),
            "{target}"
        );
        assert!(!target.starts_with("socket:"), "init holds {target}");
    }
}

#[test]
fn forking_to_the_limit_harms_nobody_else() {
    if !has_cgroups("pids limit") {
        return;
    }
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("bad", &["--pids", "24"]);
    let ada = world.client("ada");
    let answer = ada.call("bad.fork", json!({"n": 500, "seconds": 600}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.text().contains("forked"),
        "it was not stopped: {}",
        answer.text()
    );
    let isolate = world.isolate("bad", Some("ada"));
    assert!(inhabitants(&isolate).len() <= 24, "{isolate}");
    assert!(
        inhabitants(&isolate).len() >= 15,
        "the limit was not reached: {isolate}"
    );
    // It answers still, and so does everybody else.
    assert_eq!(ada.ask("bad.echo", json!({"text": "full"})), "full");
    let ben = world.client("ben");
    assert_eq!(ben.ask("bad.echo", json!({"text": "other"})), "other");
    world.cli(&["isolate", "kill", isolate["id"].as_str().unwrap()]);
    assert_eq!(ada.ask("bad.echo", json!({"text": "anew"})), "anew");
    let isolate = world.isolate("bad", Some("ada"));
    assert_eq!(inhabitants(&isolate).len(), 1);
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn memory_past_the_isolates_limit_is_told_with_that_limit() {
    if !has_cgroups("memory limit") {
        return;
    }
    let world = World::new();
    let bystander = Bystander::begin(&world);
    world.demo("bad", &["--memory", "64MiB"]);
    let ada = world.client("ada");
    let answer = ada.call("bad.allocate", json!({"mib": 256}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.code(), "out_of_memory", "{}", answer.text());
    assert!(
        answer.text().contains("the isolate's limit of 64 MiB"),
        "{}",
        answer.text()
    );
    let run = world.until("it is judged", |world| {
        let runs = world.isolate_detail("bad", Some("ada"))["runs"].clone();
        runs.as_array()?
            .iter()
            .find(|run| run["verdict"] != Value::Null)
            .cloned()
    });
    assert_eq!(run["verdict_kind"], "out_of_memory", "{run}");
    assert_eq!(
        run["verdict"], "out of memory: the isolate's limit of 64 MiB",
        "{run}"
    );
    assert_eq!(ada.ask("bad.echo", json!({"text": "again"})), "again");
    no_zombies(&world);
    bystander.unharmed(&world);
}

#[test]
fn memory_past_the_users_sum_is_told_as_the_users() {
    if !has_cgroups("memory limit of a user") {
        return;
    }
    let world =
        World::with("[isolates]\nmemory_bytes = 104857600\nuser_memory_bytes = 157286400\n");
    let bystander = Bystander::begin(&world);
    world.demo("one", &["--memory", "120MiB"]);
    world.demo("two", &["--memory", "120MiB"]);
    let ada = world.client("ada");
    ada.ask("one.allocate", json!({"mib": 100}));
    let answer = ada.call("two.allocate", json!({"mib": 100}));
    // The kernel chooses which of the user's two goes; either way it was the sum that was over.
    if !answer.code().is_empty() {
        assert_eq!(answer.code(), "out_of_memory", "{}", answer.text());
        assert!(
            answer.text().contains("the user's limit of 150 MiB"),
            "{}",
            answer.text()
        );
    }
    world.until("one of them is judged", |world| {
        let verdicts =
            ["one", "two"].map(|mcp| world.isolate(mcp, Some("ada"))["last_verdict"].clone());
        let told = verdicts.iter().find(|verdict| !verdict.is_null())?;
        assert_eq!(told, "out of memory: the user's limit of 150 MiB");
        Some(())
    });
    bystander.unharmed(&world);
}

#[test]
fn a_user_has_so_many_isolates_and_another_has_their_own() {
    let world = World::with("[isolates]\nper_user_max = 1\n");
    world.demo("one", &["--idle", "1s"]);
    world.demo("two", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    assert_eq!(ada.ask("one.echo", json!({"text": "x"})), "x");
    let answer = ada.call("two.echo", json!({"text": "x"}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.code(), "isolates_max", "{}", answer.text());
    assert!(
        answer.text().contains("already run 1 servers"),
        "{}",
        answer.text()
    );
    assert_eq!(ben.ask("two.echo", json!({"text": "y"})), "y");
    // When the first one has stopped for idleness, there is room.
    world.until("there is room again", |_| {
        (ada.call("two.echo", json!({"text": "x"})).code().is_empty()).then_some(())
    });
}

#[test]
fn sessions_of_one_user_are_apart_where_the_mcp_says_so() {
    let world = World::new();
    world.demo("mine", &["--sharing", "per_session"]);
    world.demo("ours", &[]);
    let key = world.key("ada");
    let http = Http::new(&world.url);
    let (one, two) = (http.register(&key), http.register(&key));
    for mcp in ["mine", "ours"] {
        one.ask(
            &format!("{mcp}.note_put"),
            json!({"key": "k", "value": "of one"}),
        );
    }
    assert!(
        two.ask("ours.note_list", json!({})).contains('k'),
        "one process for both"
    );
    assert!(!two.ask("mine.note_list", json!({})).contains("\"k\""));
    assert!(two.call("mine.note_get", json!({"key": "k"})).json()["metadata"]["is_error"] == true);
    assert_eq!(one.ask("mine.note_get", json!({"key": "k"})), "of one");
    let of = |mcp: &str| {
        world
            .isolates()
            .iter()
            .filter(|isolate| isolate["mcp"] == mcp)
            .count()
    };
    assert_eq!((of("mine"), of("ours")), (2, 1));
}

// === a host that cannot hold isolates ===

const NOBODY: &str = "65534";

/// A gateway of an ordinary user, with its own directories and its own copy of the program.
struct Ordinary {
    dir: tempfile::TempDir,
    child: Option<Child>,
    /// Whether `/etc/subuid` and `/etc/subgid` give it ids, as far as it sees.
    ranged: bool,
}

/// The ids that it is given then: nobody else's on this host.
const GIVEN: std::ops::Range<u32> = 1_410_000_000..1_410_004_096;

impl Ordinary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::copy(LEGATION, dir.path().join("legation")).unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        if am_root() {
            let owner = NOBODY.parse().ok();
            std::os::unix::fs::chown(&home, owner, owner).unwrap();
        }
        Self {
            dir,
            child: None,
            ranged: false,
        }
    }

    /// One who is given ids.
    fn ranged() -> Self {
        let mut ordinary = Self::new();
        let line = format!("{NOBODY}:{}:{}\n", GIVEN.start, GIVEN.len());
        std::fs::write(ordinary.dir.path().join("given"), line).unwrap();
        ordinary.ranged = true;
        ordinary
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = self.dir.path().join("legation");
        let mut command = if self.ranged {
            let script = "mount --bind $1 /etc/subuid && mount --bind $1 /etc/subgid && who=$2 && \
                          shift 2 && exec setpriv --reuid $who --regid $who --clear-groups \"$@\"";
            let mut command = Command::new("unshare");
            command
                .args([
                    "--mount",
                    "--propagation",
                    "private",
                    "sh",
                    "-c",
                    script,
                    "sh",
                ])
                .arg(self.dir.path().join("given"))
                .arg(NOBODY)
                .arg(program);
            command
        } else if am_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .args(args)
            .current_dir(self.home())
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("TMPDIR", self.home());
        command.stdin(Stdio::null());
        command
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    /// Starts `serve --dev`; gives what it printed.
    fn serve_dev(&mut self) -> String {
        let out = std::fs::File::create(self.dir.path().join("out")).unwrap();
        let err = std::fs::File::create(self.dir.path().join("err")).unwrap();
        let args = [
            "serve",
            "--dev",
            "--listen",
            "127.0.0.1:0",
            "--set",
            "client.tls=off",
        ];
        let child = self.command(&args).stdout(out).stderr(err).spawn().unwrap();
        self.child = Some(child);
        let since = Instant::now();
        loop {
            let block = self.said("out");
            if block.contains("amb_pk_") && block.contains("note_put")
                || block.contains("The same in an AI tool")
            {
                return block;
            }
            assert!(
                since.elapsed() < PATIENCE,
                "no block: {block}\n{}",
                self.said("err")
            );
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// What the call answers that the block says to try, as it is written there.
    fn printed_call(&self) -> String {
        let block = self.said("out");
        let mut lines = Vec::new();
        for line in block
            .lines()
            .skip_while(|line| !line.starts_with("    curl"))
        {
            lines.push(line);
            if !line.ends_with('\\') {
                break;
            }
        }
        let script = lines.join("\n");
        let ran = Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        format!("{script}\n{}{}", said(&ran.stdout), said(&ran.stderr))
    }

    /// A session of the demo's user.
    fn session(block: &str) -> crate::world::Session {
        let word = |start: &str| {
            block
                .split_whitespace()
                .find(|word| word.starts_with(start))
                .unwrap()
                .to_owned()
        };
        let (key, url) = (word("amb_pk_"), word("http://"));
        Http::new(&url.replace("localhost", "127.0.0.1")).register(&key)
    }

    /// Stops it, which must go well.
    fn stop(&mut self) {
        let mut child = self.child.take().unwrap();
        Command::new("kill")
            .args(["-TERM", &child.id().to_string()])
            .status()
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(0), "{}", self.said("err"));
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }
}

impl Drop for Ordinary {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Whether an ordinary user lacks cgroups here, which is what these tests are about.
fn lacks_cgroups(what: &str) -> bool {
    let delegated = !am_root() && Path::new("/sys/fs/cgroup/cgroup.procs").exists();
    if delegated {
        tools::skip(what, "cgroups may be delegated to this user");
    }
    !delegated
}

#[test]
fn serve_refuses_what_it_cannot_enforce_and_names_it() {
    if !lacks_cgroups("serve without cgroups") {
        return;
    }
    let ordinary = Ordinary::new();
    let args = [
        "-o",
        "json",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--data-dir",
        "data",
    ];
    let empty = ordinary.home().join("empty.toml");
    std::fs::write(&empty, "").unwrap();
    let ran = ordinary.run(&[&args[..], &["--config", "empty.toml"]].concat());
    let stderr = String::from_utf8_lossy(&ran.stderr);
    // What a unit does not try again.
    assert_eq!(ran.status.code(), Some(2), "{stderr}");
    let problem = stderr
        .lines()
        .last()
        .and_then(|line| serde_json::from_str::<Value>(line).ok());
    let problem = problem.unwrap_or_else(|| panic!("no problem: {stderr}"));
    assert_eq!(problem["code"], "sandbox_refused", "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("cgroup_memory"), "{detail}");
    if std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|all| all.contains(" - cgroup ")) {
        let told = "which systemd delegates to root only";
        assert!(detail.contains(told), "{detail}");
    }
    assert!(
        detail.contains("run as root")
            || problem["next"].as_str().unwrap().contains("allow_degraded")
    );
}

#[test]
fn serve_dev_works_for_an_ordinary_user_and_says_what_is_not_enforced() {
    if !lacks_cgroups("serve --dev without cgroups") {
        return;
    }
    let mut ordinary = Ordinary::new();
    let block = ordinary.serve_dev();
    let pid = ordinary.child.as_ref().unwrap().id();
    assert!(block.contains("NOT ENFORCED"), "{block}");
    // Not its own user's to read any more, and no crash writes it to a disk.
    let environ = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&environ), 0);
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let core: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    for facility in ["cgroup_memory", "cgroup_pids", "cgroup_cpu"] {
        assert!(
            block.contains(facility),
            "{facility} is not named:\n{block}"
        );
    }
    let session = Ordinary::session(&block);
    assert_eq!(session.ask("echo", json!({"text": "degraded"})), "degraded");
    let crashed = session.call("crash", json!({"code": 5}));
    assert_eq!(crashed.code(), "run_ended", "{}", crashed.text());
    assert_eq!(session.ask("echo", json!({"text": "again"})), "again");
    if tools::on_path("curl").is_some() {
        let answer = ordinary.printed_call();
        assert!(answer.contains(r#"[{"text":"hello""#), "{answer}");
    } else {
        tools::skip("the call that is printed", "no curl on PATH");
    }
    let list = ordinary.run(&["-o", "json", "isolate", "list"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let degraded = list[0]["degraded"].to_string();
    assert!(degraded.contains("cgroup_memory"), "{list}");
    // So do the table, the tree and the pages for machines.
    for args in [&["isolate", "list"][..], &["tree"]] {
        let told = String::from_utf8(ordinary.run(args).stdout).unwrap();
        assert!(told.contains("cgroup_memory"), "{args:?}: {told}");
    }
    let status = ordinary.run(&["-o", "json", "status"]);
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    let ops = status["ops_url"].as_str().unwrap();
    let ops = Http::new(&ops.replace("localhost", "127.0.0.1"));
    let page = |path: &str| {
        let body = ops.send("GET", path, None, None).body;
        String::from_utf8(body).unwrap()
    };
    let (metrics, ready) = (page("/metrics"), page("/readyz?verbose"));
    for line in [
        r#"legation_facility_missing{facility="cgroup_memory"} 1"#,
        r#"legation_facility_missing{facility="seccomp"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let starts = r#"legation_isolate_starts_degraded_total{facility="cgroup_memory"} "#;
    let starts = metrics.lines().find_map(|line| line.strip_prefix(starts));
    assert!(starts.is_some_and(|starts| starts != "0"), "{metrics}");
    assert!(ready.contains("[!] not enforced: cgroup_memory"), "{ready}");
    // Root's doctor tries what root would have, and tells what this server says that it has not.
    let doctor = |format: &str| {
        let socket = ordinary.home().join("legation-data/admin.sock");
        let mut command = Command::new(LEGATION);
        command
            .args(["-o", format, "doctor", "--socket"])
            .arg(socket);
        command.output().unwrap()
    };
    let found: Value = serde_json::from_slice(&doctor("json").stdout).unwrap();
    let owner = format!(
        "the server that runs as uid {} (pid {pid})",
        match am_root() {
            true => NOBODY.to_owned(),
            false => uid_of(i32::try_from(pid).unwrap()).unwrap().to_string(),
        }
    );
    let told = found.as_array().unwrap().iter().any(|one| {
        let evidence = one["evidence"].as_str().unwrap();
        one["facility"] == "cgroup_memory"
            && one["verdict"] == "degraded"
            && evidence.starts_with(&owner)
    });
    assert!(told, "{found}");
    let people = doctor("table");
    assert_ne!(people.status.code(), Some(0));
    let said = String::from_utf8_lossy(&people.stderr);
    if am_root() {
        assert!(said.contains("a server that root starts"), "{said}");
    }
    assert!(said.contains(&owner), "{said}");
    ordinary.stop();
    let home = ordinary.home().display().to_string();
    let left: Vec<i32> = pids()
        .into_iter()
        .filter(|pid| {
            let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            String::from_utf8_lossy(&environ).contains(&home)
        })
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
}

/// Who a process is; `/proc` itself may say root.
fn uid_of(pid: i32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Its account has a range of ids: then isolates have ids of their own without root.
#[test]
fn an_ordinary_user_with_a_range_of_ids_gives_them_to_its_users() {
    let what = "ids of an ordinary user";
    if !am_root() {
        return tools::skip(what, "not root, so nobody's range can be set");
    }
    if !Path::new("/etc/subuid").exists() || !Path::new("/usr/bin/newuidmap").exists() {
        return tools::skip(what, "newuidmap is not installed");
    }
    let mut ordinary = Ordinary::ranged();
    let doctor = ordinary.run(&["-o", "json", "doctor", "--data-dir", "data"]);
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let range = |found: &Value| {
        let all = found.as_array().unwrap().iter();
        all.clone()
            .find(|one| one["facility"] == "user_range")
            .unwrap()["verdict"]
            .clone()
    };
    assert_eq!(range(&found), "ok", "{found}");
    let block = ordinary.serve_dev();
    let session = Ordinary::session(&block);
    assert_eq!(session.ask("echo", json!({"text": "ranged"})), "ranged");
    session.ask("note_put", json!({"key": "k", "value": "v"}));
    let list = ordinary.run(&["-o", "json", "isolate", "list"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    let degraded = list[0]["degraded"].to_string();
    assert!(!degraded.contains("user_range"), "{list}");
    let pid = list[0]["pid"].as_u64().unwrap();
    let uid = std::os::unix::fs::MetadataExt::uid;
    let runs_as = uid_of(i32::try_from(pid).unwrap()).unwrap();
    let homes = ordinary.home().join("legation-data/homes");
    let owners: Vec<u32> = std::fs::read_dir(&homes)
        .unwrap()
        .flatten()
        .flat_map(|owner| std::fs::read_dir(owner.path()).unwrap().flatten())
        .map(|home| uid(&home.metadata().unwrap()))
        .collect();
    assert!(
        !owners.is_empty() && owners.iter().all(|uid| GIVEN.contains(uid)),
        "{owners:?}"
    );
    assert!(GIVEN.contains(&runs_as), "{runs_as}");
    // Its server is ended and comes back like any other.
    assert_eq!(
        session.call("crash", json!({"code": 5})).code(),
        "run_ended"
    );
    assert_eq!(session.ask("echo", json!({"text": "again"})), "again");
    ordinary.stop();
    let left: Vec<i32> = pids()
        .into_iter()
        .filter(|pid| uid_of(*pid).is_some_and(|uid| GIVEN.contains(&uid)))
        .collect();
    assert!(left.is_empty(), "left: {left:?}");
    // One that another account has some of is none: that account could end its servers.
    let line = format!(
        "{NOBODY}:{}:{}\neve:{}:65536\n",
        GIVEN.start,
        GIVEN.len(),
        GIVEN.end - 1
    );
    std::fs::write(ordinary.dir.path().join("given"), line).unwrap();
    let doctor = ordinary.run(&["-o", "json", "doctor", "--data-dir", "data"]);
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(range(&found), "missing");
    assert!(found.to_string().contains("gives eve"), "{found}");
    // Without a range, or without the program, it says why.
    ordinary.ranged = false;
    let doctor = ordinary.run(&["-o", "json", "doctor", "--data-dir", "data"]);
    let found: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    assert_eq!(range(&found), "missing");
    assert!(found.to_string().contains("/etc/subuid"), "{found}");
}

/// Field 19 of a `stat`: how nice a process or thread is.
fn niceness(path: &Path) -> i32 {
    let text = std::fs::read_to_string(path.join("stat")).unwrap_or_default();
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').nth(16).unwrap().parse().unwrap()
}

/// Calls go through the gateway: where isolates want all there is, it is not the one that waits. Its clients' priority it
/// leaves as it is: one that went before them took their requests one by one, at twice the cost.
#[test]
fn the_gateway_goes_before_what_it_starts_and_not_before_its_clients() {
    if !am_root() {
        return tools::skip(
            "the gateway's slice",
            "not root, so nobody looks into isolates",
        );
    }
    let world = World::new();
    world.demo("demo", &[]);
    let (ada, ben) = (world.client("ada"), world.client("ben"));
    ada.ask("demo.echo", json!({"text": "x"}));
    let gateway = PathBuf::from(format!("/proc/{}", world.pid()));
    let usual_one = niceness(Path::new("/proc/self"));
    let threads = std::fs::read_dir(gateway.join("task")).unwrap().flatten();
    let threads: Vec<i32> = threads.map(|thread| niceness(&thread.path())).collect();
    assert!(threads.len() > 1, "its workers as well");
    assert!(threads.iter().all(|nice| *nice == usual_one), "{threads:?}");
    // In microseconds; a kernel before 6.12 does not say.
    let slice = |process: &Path| {
        let text = std::fs::read_to_string(process.join("sched")).ok()?;
        let line = text.lines().find(|line| line.starts_with("se.slice"))?;
        let nanos: u64 = line.rsplit(' ').next()?.parse().ok()?;
        Some(nanos / 1000)
    };
    let expected = |micros| slice(Path::new("/proc/self")).map(|_| micros);
    assert_eq!(slice(&gateway), expected(100));
    let usual = |user: &str| {
        let isolate = world.isolate("demo", Some(user));
        let mut all = inhabitants(&isolate);
        all.push(pid_of(&isolate));
        for pid in all {
            let process = PathBuf::from(format!("/proc/{pid}"));
            assert_eq!(niceness(&process), usual_one);
            assert_eq!(slice(&process), expected(300));
        }
    };
    usual("ada");
    // The next spawner is started by a thread that goes first.
    let parent = world.pid().to_string();
    let spawner = pids().into_iter().find(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        name.trim() == "legation-spawnd"
            && stat(*pid).is_some_and(|fields| fields.get(1) == Some(&parent))
    });
    crate::processes::kill_9(spawner.expect("there is a spawner"));
    ben.ask("demo.echo", json!({"text": "x"}));
    usual("ben");
}
