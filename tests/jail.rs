//! The real launcher against a real kernel. Its executable is this very binary, so it has no
//! harness: `main` must be the sandbox's role hook first.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print for a harness that is not there"
)]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use legation::actors::jail::{Degrade, Facility, Jail, JailConfig, Walls};
use legation::actors::launcher::{
    Exit, Extra, Launch, LaunchError, Launched, Launcher, Secrets, Usage,
};
use legation::domain::confinement::{Confinement, Profile};
use legation::domain::ids::{IsolateId, UserId};
use legation::domain::mcp::Limits;
use legation::domain::verdict::OomScope;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[path = "world/uids.rs"]
mod uids;

use uids::Slice;

const PATIENCE: Duration = Duration::from_secs(20);

/// A test says why it cannot run here, or runs.
type Outcome = Result<(), String>;
type Test = (&'static str, fn() -> Outcome);

const TESTS: &[Test] = &[
    ("a_run_from_launch_to_remains", || on(talk)),
    ("what_cannot_start_is_refused_with_its_step", || {
        on(refusals)
    }),
    ("term_then_exit", || on(term)),
    ("a_dropped_run_is_killed_reaped_and_removed", || on(dropped)),
    ("a_dropped_launch_leaves_nothing", || on(dropped_launch)),
    ("a_scope_outlives_its_run", || on(late_drop)),
    ("memory_of_a_child_ends_the_isolate", || on(child_oom)),
    ("the_user_s_memory_is_told_apart", || on(user_oom)),
    ("one_leaf_one_run", || on(occupied)),
    ("a_lost_spawner_is_told_and_healed", || on(healed)),
    ("an_idle_isolate_costs_little", || on(frugal)),
    ("all_at_once_and_all_dead", || on(massacre)),
    ("an_ordinary_user_can_run", ordinary_user),
];

fn main() -> ExitCode {
    sandbox::role();
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["eat", mebibytes] => return eat(mebibytes.parse().unwrap()),
        ["ordinary"] => return ordinary(),
        _ => {}
    }
    let has = |flag: &str| args.iter().any(|arg| arg == flag);
    if has("--list") {
        for (name, _) in TESTS.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&str> = args
        .iter()
        .map(String::as_str)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let wanted = |name: &str| {
        filters.is_empty()
            || filters.iter().any(|filter| match has("--exact") {
                true => name == *filter,
                false => name.contains(filter),
            })
    };
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| wanted(name)) {
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(Ok(())) => {
                passed += 1;
                println!("test {name} ... ok");
            }
            Ok(Err(reason)) => {
                skipped += 1;
                eprintln!("test {name} ... skipped: {reason}");
            }
            Err(_) => {
                failed += 1;
                println!("test {name} ... FAILED");
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    ExitCode::from(u8::from(failed > 0))
}

// === what tests stand on ===

static NEXT: AtomicU32 = AtomicU32::new(0);

struct Bench {
    jail: Jail,
    user: UserId,
    /// Holds the homes, and the claim on uids.
    dir: tempfile::TempDir,
    _uids: Option<Slice>,
}

/// Runs a test on a runtime and a jail of its own; afterwards no child may be left, not even dead.
fn on<F: Future<Output = Outcome>>(test: impl FnOnce(Arc<Bench>) -> F) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let bench = Arc::new(bench());
    let outcome = runtime.block_on(async {
        let outcome = test(Arc::clone(&bench)).await;
        if outcome.is_ok() {
            let spawner: Vec<i32> = bench.jail.spawner_pid().into_iter().collect();
            eventually("no start is under way", || {
                bench.jail.starts_in_flight() == 0
            })
            .await;
            eventually("no child but the spawner is left", || children() == spawner).await;
            assert_eq!(bench.jail.unowned(), 0);
            bench.jail.release_user(&bench.user);
            assert_eq!(
                bench.jail.sweep().await.unwrap(),
                0,
                "nothing was left to sweep"
            );
        }
        outcome
    });
    drop(runtime);
    drop(bench);
    assert_eq!(children(), [0; 0]);
    outcome
}

fn walls(base: Option<u32>) -> Walls {
    Walls {
        profile: Profile::Strict,
        allow_network_host: false,
        allow_network_private: false,
        io: None,
        path_roots: vec!["/".into()],
        uid_base: base.unwrap_or(1_000_000_000),
        uid_count: uids::COUNT,
        any_range: false,
    }
}

fn bench() -> Bench {
    let installation_id = format!(
        "{:08x}{:04x}",
        std::process::id(),
        0x8000 + NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let dir = tempfile::tempdir().unwrap();
    let uids = rustix::process::geteuid().is_root().then(Slice::take);
    let jail = Jail::start(JailConfig {
        executable: None,
        installation_id,
        degrade: Degrade::Anything,
        cgroup_root: None,
        homes: dir.path().join("homes"),
        walls: walls(uids.as_ref().map(|slice| slice.base)),
        memory_budget: None,
    })
    .unwrap();
    Bench {
        jail,
        user: UserId::from_random([7; 10]),
        dir,
        _uids: uids,
    }
}

impl Bench {
    fn needs(&self, facility: Facility) -> Outcome {
        let enforcement = self.jail.enforcement();
        match enforcement
            .missing
            .iter()
            .find(|lack| lack.starts_with(facility.name()))
        {
            Some(lack) => Err(lack.clone()),
            None => Ok(()),
        }
    }

    fn home(&self) -> std::path::PathBuf {
        self.dir.path().join("homes/ada/mcp")
    }

    fn program(&self, program: &str, args: &[&str]) -> Launch {
        let mut bits = [0; 10];
        let [.., a, b, c, d] = &mut bits;
        [*a, *b, *c, *d] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        Launch {
            isolate: IsolateId::from_random(bits),
            user: Some(self.user.clone()),
            program: program.into(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned().into())]),
            home: self.home(),
            secrets: Secrets::default(),
            confinement: Confinement::default(),
            on_denied: None,
            limits: Limits {
                memory_bytes: 64 << 20,
                ..Limits::default()
            },
            user_limits: Limits {
                memory_bytes: 1 << 30,
                pids: 4096,
                ..Limits::default()
            },
            opening: Bytes::new(),
            extra: Extra::default(),
        }
    }

    fn shell(&self, script: &str) -> Launch {
        self.program("/bin/sh", &["-c", script])
    }

    async fn run(&self, launch: Launch) -> Launched {
        self.jail.launch(launch).await.unwrap()
    }
}

async fn line(run: &mut Launched) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while bytes.last() != Some(&b'\n') {
            bytes.push(run.stdout.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a line");
    String::from_utf8(bytes).unwrap().trim_end().to_owned()
}

async fn exit(run: &mut Launched) -> Exit {
    tokio::time::timeout(PATIENCE, &mut run.exit)
        .await
        .expect("an end")
}

async fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !check() {
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Our children, dead or alive.
fn children() -> Vec<i32> {
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

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

fn eat(mebibytes: usize) -> ExitCode {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&held);
    }
    ExitCode::SUCCESS
}

fn own() -> String {
    std::env::current_exe()
        .unwrap()
        .into_os_string()
        .into_string()
        .unwrap()
}

// === tests ===

async fn talk(bench: Arc<Bench>) -> Outcome {
    let mut launch = bench.shell("read first; read x; echo $first $x; echo oops >&2; exit 7");
    launch.opening = Bytes::from_static(b"got\n");
    let mut run = bench.run(launch).await;
    assert!(run.took < Duration::from_secs(5));
    run.stdin.write_all(b"this\n").await.unwrap();
    assert_eq!(line(&mut run).await, "got this");
    let mut err = String::new();
    run.stderr.read_to_string(&mut err).await.unwrap();
    assert_eq!(err, "oops\n");
    assert_eq!(exit(&mut run).await, Exit::Code(7));
    let remains = run.scope.reap(PATIENCE).await;
    assert_eq!((remains.oom, remains.survivors.as_slice()), (None, &[][..]));
    if bench.needs(Facility::CgroupMemory).is_ok() {
        assert!(remains.usage.memory_peak_bytes.unwrap() > 0);
    }
    assert_eq!(
        run.scope.reap(PATIENCE).await,
        remains,
        "told twice the same"
    );
    Ok(())
}

async fn refusals(bench: Arc<Bench>) -> Outcome {
    let mut launch = bench.program("/no/such/program", &[]);
    // A question that waits for a server that never comes changes nothing of the refusal.
    launch.opening = Bytes::from_static(b"hello\n");
    let isolate = launch.isolate.clone();
    match bench.jail.launch(launch).await {
        Err(LaunchError::Refused { step, detail }) => {
            assert_eq!(step, "exec");
            assert!(detail.contains("/no/such/program"), "{detail}");
        }
        other => panic!("{other:?}"),
    }
    // The slot may try again at once: nothing of the first try is left.
    let mut again = bench.shell("exit 0");
    again.isolate = isolate;
    let mut run = bench.run(again).await;
    assert_eq!(exit(&mut run).await, Exit::Code(0));
    let mut homeless = bench.shell("exit 0");
    homeless.home = "/no/such/home".into();
    match bench.jail.launch(homeless).await {
        Err(LaunchError::Refused { step, .. }) => assert_eq!(step, "home"),
        other => panic!("{other:?}"),
    }
    let relative = bench.program("sh", &[]);
    match bench.jail.launch(relative).await {
        Err(LaunchError::Refused { step, .. }) => assert_eq!(step, "plan"),
        other => panic!("{other:?}"),
    }
    Ok(())
}

async fn term(bench: Arc<Bench>) -> Outcome {
    let mut run = bench
        .run(bench.shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done"))
        .await;
    assert_eq!(line(&mut run).await, "up");
    run.scope.terminate();
    assert_eq!(exit(&mut run).await, Exit::Code(3));
    let mut deaf = bench
        .run(bench.shell("trap '' TERM; echo up; sleep 1000"))
        .await;
    assert_eq!(line(&mut deaf).await, "up");
    deaf.scope.kill();
    assert_eq!(exit(&mut deaf).await, Exit::Signal(9));
    Ok(())
}

async fn dropped(bench: Arc<Bench>) -> Outcome {
    let mut run = bench
        .run(bench.shell("setsid sleep 1000 & echo up; wait"))
        .await;
    let init = run.pid.unwrap();
    assert_eq!(line(&mut run).await, "up");
    drop(run);
    eventually("init is reaped", || !children().contains(&init)).await;
    Ok(())
}

async fn dropped_launch(bench: Arc<Bench>) -> Outcome {
    for micros in [0, 100, 300, 600, 1000, 2000, 5000] {
        let launch = bench.jail.launch(bench.shell("sleep 1000"));
        // Cut off somewhere between the first file and the last record.
        let _ = tokio::time::timeout(Duration::from_micros(micros), launch).await;
    }
    Ok(())
}

async fn late_drop(bench: Arc<Bench>) -> Outcome {
    let mut run = bench.run(bench.shell("exit 1")).await;
    let init = run.pid.unwrap();
    assert_eq!(exit(&mut run).await, Exit::Code(1));
    eventually("init is reaped though nobody asked", || {
        !children().contains(&init)
    })
    .await;
    // The warden has gone by now; the scope itself sees to the cgroup.
    drop(run);
    Ok(())
}

async fn child_oom(bench: Arc<Bench>) -> Outcome {
    bench.needs(Facility::CgroupMemory)?;
    let script = format!("{} eat 256; echo limping on; sleep 1000", own());
    let mut launch = bench.shell(&script);
    launch.confinement.read = vec![own().into()];
    let mut run = bench.run(launch).await;
    assert_eq!(exit(&mut run).await, Exit::Signal(9));
    let remains = run.scope.reap(PATIENCE).await;
    assert_eq!(remains.oom, Some(OomScope::Isolate));
    Ok(())
}

async fn user_oom(bench: Arc<Bench>) -> Outcome {
    bench.needs(Facility::CgroupMemory)?;
    let mut bystander = bench.run(bench.shell("echo up; read x; echo $x")).await;
    assert_eq!(line(&mut bystander).await, "up");
    let mut glutton = bench.program(&own(), &["eat", "256"]);
    glutton.limits.memory_bytes = 512 << 20;
    glutton.user_limits.memory_bytes = 64 << 20;
    let mut run = bench.run(glutton).await;
    assert_eq!(exit(&mut run).await, Exit::Signal(9));
    assert_eq!(run.scope.reap(PATIENCE).await.oom, Some(OomScope::User));
    // Its own limit was not hit and no process of it was killed: it goes on.
    tokio::time::sleep(Duration::from_millis(700)).await;
    bystander.stdin.write_all(b"well\n").await.unwrap();
    assert_eq!(line(&mut bystander).await, "well");
    Ok(())
}

async fn occupied(bench: Arc<Bench>) -> Outcome {
    let launch = bench.shell("sleep 1000");
    let run = bench.run(launch.clone()).await;
    assert!(matches!(
        bench.jail.launch(launch.clone()).await,
        Err(LaunchError::Busy(_))
    ));
    assert_eq!(run.scope.reap(PATIENCE).await.survivors, [0; 0]);
    let next = bench.run(launch).await;
    assert_eq!(next.scope.reap(PATIENCE).await.survivors, [0; 0]);
    Ok(())
}

async fn healed(bench: Arc<Bench>) -> Outcome {
    let lost = bench.jail.lost();
    let mut run = bench.run(bench.shell("read x; echo $x")).await;
    let spawner = bench.jail.spawner_pid().unwrap();
    kill_by_command(spawner);
    tokio::time::timeout(PATIENCE, lost)
        .await
        .expect("the loss is told");
    assert!(matches!(
        bench.jail.launch(bench.shell("true")).await,
        Err(LaunchError::Busy(_))
    ));
    bench.jail.heal().await.unwrap();
    assert_ne!(bench.jail.spawner_pid(), Some(spawner));
    let mut next = bench.run(bench.shell("exit 8")).await;
    assert_eq!(exit(&mut next).await, Exit::Code(8));
    run.stdin.write_all(b"still here\n").await.unwrap();
    assert_eq!(line(&mut run).await, "still here");
    Ok(())
}

fn kill_by_command(pid: i32) {
    let killed = std::process::Command::new("/bin/sh")
        .args(["-c", &format!("kill -9 {pid}")])
        .status()
        .unwrap();
    assert!(killed.success());
}

async fn frugal(bench: Arc<Bench>) -> Outcome {
    const ISOLATES: usize = 50;
    // The first ones pay for thread stacks and the like.
    for _ in 0..4 {
        bench.run(bench.shell("exit 0")).await;
    }
    let (threads, fds, bytes) = (
        entries("/proc/self/task"),
        entries("/proc/self/fd"),
        anonymous_bytes(),
    );
    let mut runs = Vec::new();
    for _ in 0..ISOLATES {
        let mut run = bench.run(bench.shell("echo up; exec sleep 1000")).await;
        assert_eq!(line(&mut run).await, "up");
        runs.push(run);
    }
    let fds_each = (entries("/proc/self/fd") - fds).div_ceil(ISOLATES);
    let bytes_each = anonymous_bytes().saturating_sub(bytes) / ISOLATES;
    let more_threads = entries("/proc/self/task").saturating_sub(threads);
    let mut took: Vec<Duration> = runs.iter().map(|run| run.took).collect();
    took.sort();
    println!(
        "    an idle isolate costs {fds_each} descriptors, {bytes_each} bytes; launch p50 {:?}",
        took.get(ISOLATES / 2)
    );
    assert!(fds_each <= 7, "{fds_each} descriptors each");
    assert!(bytes_each <= 48 << 10, "{bytes_each} bytes each");
    assert!(more_threads < 8, "{more_threads} threads for {ISOLATES}");
    let used = runs.iter().map(|run| run.scope.usage());
    if bench.needs(Facility::CgroupPids).is_ok() {
        assert!(
            used.map(|Usage { pids, .. }| pids)
                .all(|pids| pids == Some(2))
        );
    }
    Ok(())
}

/// Private memory of this process.
fn anonymous_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = status
        .lines()
        .find_map(|l| l.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    kib.unwrap().trim().parse::<usize>().unwrap() << 10
}

async fn massacre(bench: Arc<Bench>) -> Outcome {
    let mut tasks = Vec::new();
    for _ in 0..40 {
        let bench = Arc::clone(&bench);
        tasks.push(tokio::spawn(async move {
            let mut run = bench
                .run(bench.shell("sleep 1000 & setsid sleep 1000 & echo up; wait"))
                .await;
            assert_eq!(line(&mut run).await, "up");
            run
        }));
    }
    let mut runs = Vec::new();
    for task in tasks {
        runs.push(task.await.unwrap());
    }
    let began = Instant::now();
    for run in &runs {
        run.scope.kill();
    }
    for run in &runs {
        assert_eq!(run.scope.reap(PATIENCE).await.survivors, [0; 0]);
    }
    println!(
        "    {} isolates dead after {:?}",
        runs.len(),
        began.elapsed()
    );
    Ok(())
}

/// `serve --dev` of somebody without root and without cgroups.
fn ordinary_user() -> Outcome {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let dir = tempfile::tempdir().unwrap();
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open.clone()).unwrap();
    let copy = dir.path().join("copy");
    std::fs::copy(own(), &copy).unwrap();
    std::fs::set_permissions(&copy, open).unwrap();
    let status = std::process::Command::new(&copy)
        .arg("ordinary")
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .status();
    match status {
        Err(error) => Err(format!("cannot become another user: {error}")),
        Ok(status) => {
            assert!(status.success(), "{status}");
            Ok(())
        }
    }
}

/// The other half of [`ordinary_user`]: named degradation, a run, a refusal.
fn ordinary() -> ExitCode {
    let refused = Jail::start(JailConfig {
        executable: None,
        installation_id: "0123456789ab".to_owned(),
        degrade: Degrade::Named(Vec::new()),
        cgroup_root: None,
        homes: "/tmp/never-made".into(),
        walls: walls(None),
        memory_budget: None,
    });
    match refused {
        Err(LaunchError::Refused { step, detail }) => {
            assert!(step.starts_with("cgroup_"), "{step}");
            assert!(detail.contains("allow_degraded"), "{detail}");
        }
        other => panic!("cgroups without root: {other:?}"),
    }
    let outcome = on(async |bench| {
        let launch = bench.shell("setsid sleep 1000 & echo up; read x; exit 4");
        let mut run = bench.run(launch).await;
        assert_eq!(line(&mut run).await, "up");
        assert!(run.degraded.contains(&"cgroup_memory".to_owned()));
        assert_eq!(run.scope.usage(), Usage::default());
        run.stdin.write_all(b"\n").await.unwrap();
        assert_eq!(exit(&mut run).await, Exit::Code(4));
        assert_eq!(run.scope.reap(PATIENCE).await.survivors, [0; 0]);
        Ok(())
    });
    ExitCode::from(u8::from(outcome.is_err()))
}
