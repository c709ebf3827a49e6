//! How runs end, and that nothing survives them.

use std::time::{Duration, Instant};

use sandbox::host::{End, HostConfig};
use sandbox::status::Record;
use sandbox::{Facility, Profile};

use crate::walls::{Home, within};
use crate::world::{
    self, Run, eventually, groups_of, installation, is_alive, probe, shell, with_word,
};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "unknown_program_names_the_step",
        unknown_program_names_the_step,
    ),
    (
        "missing_workdir_names_the_step",
        missing_workdir_names_the_step,
    ),
    ("term_reaches_the_server", term_reaches_the_server),
    ("term_ignored_then_killed", term_ignored_then_killed),
    ("deaths_by_signal_are_told", deaths_by_signal_are_told),
    ("daemons_die_with_the_kill", daemons_die_with_the_kill),
    ("daemons_die_with_the_server", daemons_die_with_the_server),
    (
        "daemons_die_without_any_facility",
        daemons_die_without_any_facility,
    ),
    (
        "a_killed_isolates_mounts_outlive_it_until_let_go",
        a_killed_isolates_mounts_outlive_it_until_let_go,
    ),
    (
        "daemons_die_without_cgroup_kill",
        daemons_die_without_cgroup_kill,
    ),
    ("orphans_are_reaped", orphans_are_reaped),
    (
        "a_killed_gateway_leaves_no_process",
        a_killed_gateway_leaves_no_process,
    ),
    ("sweep_removes_what_was_left", sweep_removes_what_was_left),
    ("nothing_is_left_behind", nothing_is_left_behind),
];

fn failed_step(spec: &sandbox::SpawnSpec) -> (String, String) {
    let host = world::lenient();
    let mut run = Run::start(&host, spec);
    match run.records().as_slice() {
        [Record::Failed(failure)] => (failure.step.clone(), failure.advice()),
        other => panic!("expected one failure, got {other:?}"),
    }
}

fn unknown_program_names_the_step() -> Outcome {
    let (step, advice) = failed_step(&world::spec("/no/such/program", &[]));
    assert_eq!(step, "exec");
    assert!(advice.contains("/no/such/program"), "{advice}");
    assert!(advice.contains("check that the command exists"), "{advice}");
    let (step, _) = failed_step(&world::spec("/etc/passwd", &[]));
    assert_eq!(step, "exec");
    Ok(())
}

fn missing_workdir_names_the_step() -> Outcome {
    let mut spec = shell("true");
    spec.workdir = "/no/such/home".into();
    let (step, advice) = failed_step(&spec);
    assert_eq!(step, "workdir");
    assert!(advice.contains("/no/such/home"), "{advice}");
    Ok(())
}

fn term_reaches_the_server() -> Outcome {
    let host = world::lenient();
    let mut run = Run::start(
        &host,
        &shell("trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done"),
    );
    assert_eq!(run.line(), "up");
    run.process.terminate();
    assert_eq!(run.ending(), Record::Exited(3));
    assert_eq!(run.wait_gone(), End::Code(0));
    Ok(())
}

fn term_ignored_then_killed() -> Outcome {
    let host = world::lenient();
    let mut run = Run::start(
        &host,
        &shell("trap '' TERM HUP INT; echo up; while :; do sleep 0.01; done"),
    );
    assert_eq!(run.line(), "up");
    run.process.terminate();
    std::thread::sleep(Duration::from_millis(50));
    assert!(run.process.try_reap().unwrap().is_none(), "TERM is ignored");
    run.kill();
    Ok(())
}

fn deaths_by_signal_are_told() -> Outcome {
    let host = world::lenient();
    for signal in [libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN() + 3] {
        let mut run = Run::start(&host, &shell(&format!("kill -{signal} $$")));
        assert_eq!(run.ending(), Record::Signaled(signal));
    }
    Ok(())
}

/// Starts a server with a daemon of its own: new session, twice forked, deaf to signals.
fn daemon(host: &sandbox::Host, word: &str, after: &str) -> Run {
    let own = std::env::current_exe().unwrap();
    let own = own.to_str().unwrap();
    Run::start(
        host,
        &shell(&format!("{own} probe daemon {word}; echo up; {after}")),
    )
}

fn kills_daemons(host: &sandbox::Host) {
    let word = format!("daemon-{}", installation());
    let mut run = daemon(host, &word, "sleep 1000");
    assert_eq!(run.line(), "up");
    eventually("the daemon is up", || !with_word(&word).is_empty());
    let began = Instant::now();
    run.kill();
    assert_eq!(with_word(&word), [0; 0]);
    assert!(began.elapsed() < Duration::from_secs(5));
}

fn daemons_die_with_the_kill() -> Outcome {
    kills_daemons(&world::with(&[Facility::CgroupKill])?);
    Ok(())
}

/// Descriptors of this process that are somebody else's mounts.
fn mounts_held() -> usize {
    let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let ends = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok());
    let is_other =
        |end: &std::path::PathBuf| end.to_string_lossy().starts_with("mnt:") && *end != own;
    ends.filter(is_other).count()
}

fn a_killed_isolates_mounts_outlive_it_until_let_go() -> Outcome {
    let host = world::with(&[Facility::MountNamespace, Facility::PidNamespace])?;
    if world::identity().is_none() {
        return Err("only root may look at another's namespaces".to_owned());
    }
    let home = Home::new();
    let spec = within(
        shell("echo up; sleep 1000"),
        Profile::Standard,
        &home.path(),
    );
    let mut run = Run::start(&host, &spec);
    assert_eq!(run.line(), "up");
    assert_eq!(mounts_held(), 0);
    run.kill();
    assert_eq!(mounts_held(), 1, "taking them down is put off");
    run.process.hold();
    assert_eq!(mounts_held(), 1, "once");
    run.process.let_go();
    assert_eq!(mounts_held(), 0);
    Ok(())
}

fn daemons_die_without_cgroup_kill() -> Outcome {
    // The freezer, and no pid namespace to help.
    let host = world::without(&[Facility::CgroupKill, Facility::PidNamespace]);
    let missing = &host.capabilities().missing;
    if let Some(lack) = missing.iter().find(|m| m.facility == Facility::CgroupPids) {
        return Err(lack.to_string());
    }
    kills_daemons(&host);
    Ok(())
}

fn daemons_die_without_any_facility() -> Outcome {
    let host = world::without(&Facility::ALL);
    // Under root an own uid cannot be left out.
    let left: &[Facility] = match world::identity() {
        Some(_) => &[Facility::UserRange],
        None => &[],
    };
    assert_eq!(host.capabilities().enforced, left);
    kills_daemons(&host);
    Ok(())
}

fn daemons_die_with_the_server() -> Outcome {
    for host in [world::lenient(), world::without(&Facility::ALL)] {
        let word = format!("daemon-{}", installation());
        let mut run = daemon(&host, &word, "exit 4");
        assert_eq!(run.ending(), Record::Exited(4));
        run.wait_gone();
        assert_eq!(with_word(&word), [0; 0]);
    }
    Ok(())
}

fn orphans_are_reaped() -> Outcome {
    let host = world::with(&[Facility::PidNamespace, Facility::CgroupPids])?;
    // Far more orphans than the limit has room for: zombies count until they are reaped.
    let mut spec =
        shell("i=0; while [ $i -lt 400 ]; do (true &) ; i=$((i+1)); done; echo up; read x");
    spec.limits.pids = 200;
    spec.user_limits.pids = 400;
    let mut run = Run::start(&host, &spec);
    assert_eq!(run.line(), "up");
    eventually("init and the server are all there is", || {
        run.leaf.usage().pids == Some(2)
    });
    Ok(())
}

fn a_killed_gateway_leaves_no_process() -> Outcome {
    for facilities in ["all", "none"] {
        let id = installation();
        let word = format!("orphan-{id}");
        let mut gateway = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["probe", "gateway", &id, &word, facilities])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut up = [0; 3];
        std::io::Read::read_exact(gateway.stdout.as_mut().unwrap(), &mut up).unwrap();
        eventually("the server and its daemon are up", || {
            with_word(&word).len() >= 2
        });
        gateway.kill().unwrap();
        gateway.wait().unwrap();
        eventually("everything it had started is gone", || {
            with_word(&word).is_empty() && with_word(&id).is_empty()
        });
        // The cgroups outlive it; the next life sweeps them.
        let mut config = HostConfig::new(&id);
        config.allow_degraded = Facility::ALL.to_vec();
        config.probe_identity = world::identity();
        let host = sandbox::Host::start(config).unwrap();
        let left = usize::from(!groups_of(&id).is_empty() && facilities == "all");
        assert_eq!(host.sweep(world::PATIENCE).unwrap(), left);
        drop(host);
        assert_eq!(groups_of(&id), Vec::<std::path::PathBuf>::new());
    }
    Ok(())
}

fn sweep_removes_what_was_left() -> Outcome {
    world::with(&[Facility::CgroupKill])?;
    let id = installation();
    let host = || {
        let mut config = HostConfig::new(&id);
        config.allow_degraded = Facility::ALL.to_vec();
        config.probe_identity = world::identity();
        sandbox::Host::start(config).unwrap()
    };
    let first = host();
    let run = Run::start(&first, &shell("sleep 1000"));
    let second = host();
    assert_eq!(first.unowned(), 0);
    assert_eq!(
        first.sweep(world::PATIENCE).unwrap(),
        0,
        "a live run is not swept"
    );
    assert!(second.unowned() >= 1, "for another life it is a leftover");
    assert_eq!(second.sweep(world::PATIENCE).unwrap(), 1);
    assert_eq!(second.unowned(), 0);
    drop(run);
    Ok(())
}

fn nothing_is_left_behind() -> Outcome {
    let id = installation();
    let mut config = HostConfig::new(&id);
    config.allow_degraded = Facility::ALL.to_vec();
    config.probe_identity = world::identity();
    let host = sandbox::Host::start(config).unwrap();
    let spawner = host.spawner_pid().unwrap();
    let mut run = Run::start(&host, &probe(&["descriptors"]));
    run.output();
    run.wait_gone();
    drop(run);
    drop(host);
    assert!(!is_alive(spawner));
    assert_eq!(groups_of(&id), Vec::<std::path::PathBuf>::new());
    Ok(())
}
