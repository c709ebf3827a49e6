//! The host: what it refuses, and what the death of its spawner does.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::host::HostConfig;
use sandbox::status::Record;
use sandbox::{Facility, Host, HostError, Profile};

use crate::world::{self, Run, eventually, is_alive, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    (
        "a_lack_refuses_unless_allowed",
        a_lack_refuses_unless_allowed,
    ),
    ("runs_outlive_the_spawner", runs_outlive_the_spawner),
    ("many_at_once", many_at_once),
    (
        "a_spawner_killed_in_the_act_leaves_nobody",
        a_spawner_killed_in_the_act_leaves_nobody,
    ),
    (
        "ends_are_told_though_sigchld_was_ignored",
        ends_are_told_though_sigchld_was_ignored,
    ),
    (
        "out_of_descriptors_leaves_nobody",
        out_of_descriptors_leaves_nobody,
    ),
    ("spawn_times", spawn_times),
];

fn a_lack_refuses_unless_allowed() -> Outcome {
    // The guard is needed by a start with the host's network alone; see `walls.rs`.
    let needed = Facility::ALL.into_iter();
    for facility in needed.filter(|facility| !Facility::ASKED_FOR.contains(facility)) {
        let mut config = world::config();
        if facility == Facility::UserRange {
            // Cannot be left out under root, and is missing elsewhere.
            config.probe_identity = None;
        }
        config.profile = Profile::Strict;
        config.without = vec![facility];
        config.allow_degraded = Facility::ALL
            .into_iter()
            .filter(|other| *other != facility)
            .collect();
        match Host::start(config.clone()) {
            Err(HostError::Unavailable(refused)) => {
                assert_eq!(refused.facility(), facility);
                assert!(refused.to_string().contains(facility.fix()));
            }
            other => panic!("{facility}: {other:?}"),
        }
        if facility == Facility::UserRange && world::identity().is_some() {
            continue;
        }
        config.allow_degraded.push(facility);
        let host = Host::start(config).unwrap();
        let told = &host.capabilities().missing;
        assert!(told.iter().any(|m| m.facility == facility));
        let mut run = Run::start(&host, &shell("exit 5"));
        assert_eq!(run.ending(), Record::Exited(5));
    }
    let mut config = HostConfig::new("not hex");
    config.allow_degraded = Facility::ALL.to_vec();
    assert!(matches!(
        Host::start(config),
        Err(HostError::Installation(_))
    ));
    Ok(())
}

fn runs_outlive_the_spawner() -> Outcome {
    let host = world::lenient();
    let mut run = Run::start(&host, &shell("echo up; read x; echo $x; exit 6"));
    assert_eq!(run.line(), "up");
    let old = host.spawner_pid().unwrap();
    kill(Pid::from_raw(old), Signal::SIGKILL).unwrap();
    eventually("the spawner is gone", || !is_alive(old));
    assert!(matches!(
        host.spawn(&shell("true")),
        Err(HostError::SpawnerLost(_))
    ));
    assert!(host.spawner().is_none());
    host.heal().unwrap();
    assert_ne!(host.spawner_pid().unwrap(), old);
    let mut next = Run::start(&host, &shell("exit 8"));
    assert_eq!(next.ending(), Record::Exited(8));
    run.write("still here\n");
    assert_eq!(run.output(), "still here\n");
    assert_eq!(run.ending(), Record::Exited(6));
    Ok(())
}

fn many_at_once() -> Outcome {
    let host = world::lenient();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for code in 0..10 {
                    let mut run = Run::start(&host, &shell(&format!("exit {code}")));
                    assert_eq!(run.ending(), Record::Exited(code));
                }
            });
        }
    });
    assert_eq!(host.unowned(), 0);
    Ok(())
}

fn a_spawner_killed_in_the_act_leaves_nobody() -> Outcome {
    let host = world::lenient();
    let mut survivor = Run::start(&host, &shell("echo up; read x; echo $x"));
    assert_eq!(survivor.line(), "up");
    for round in 0..30 {
        std::thread::scope(|scope| {
            let spawner = host.spawner_pid().unwrap();
            scope.spawn(move || {
                std::thread::sleep(std::time::Duration::from_micros(200 + 20 * round));
                kill(Pid::from_raw(spawner), Signal::SIGKILL).unwrap();
            });
            // Whatever became of them, the runs themselves are cleaned up by their guard.
            while let Ok(spawned) = host.spawn(&shell("sleep 1000")) {
                drop(Run::from(spawned));
            }
        });
        host.heal().unwrap();
    }
    survivor.write("well\n");
    assert_eq!(survivor.output(), "well\n");
    drop(survivor);
    let spawner = host.spawner_pid().unwrap();
    assert_eq!(world::children(), [spawner]);
    // An init that was never answered for may have left its leaf.
    host.sweep(world::PATIENCE).unwrap();
    assert_eq!(host.unowned(), 0);
    Ok(())
}

fn ends_are_told_though_sigchld_was_ignored() -> Outcome {
    #[expect(unsafe_code, reason = "what a careless parent leaves us with")]
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
    }
    let host = world::lenient();
    let mut run = Run::start(&host, &shell("exit 5"));
    assert_eq!(run.ending(), Record::Exited(5));
    assert_eq!(run.wait_gone(), sandbox::host::End::Code(0));
    Ok(())
}

fn out_of_descriptors_leaves_nobody() -> Outcome {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};

    let host = world::lenient();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    let mut refused = 0;
    // Every shortage, from none at all to one too few for the answer.
    for room in 0..26 {
        setrlimit(Resource::RLIMIT_NOFILE, used + room, hard).unwrap();
        let spawned = host.spawn(&shell("sleep 1000"));
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
        match spawned {
            Ok(spawned) => drop(Run::from(spawned)),
            Err(_) => refused += 1,
        }
        host.heal().unwrap();
    }
    assert!(refused > 0, "there was always room");
    assert_eq!(world::children(), [host.spawner_pid().unwrap()]);
    assert_eq!(host.sweep(world::PATIENCE).unwrap(), 0);
    Ok(())
}

/// Not a judgement but a reading: printed for people.
fn spawn_times() -> Outcome {
    let host = world::lenient();
    let (mut groups, mut clones) = (Vec::new(), Vec::new());
    for _ in 0..50 {
        let spawned = host.spawn(&shell("exit 0")).unwrap();
        groups.push(spawned.cgroup_took);
        clones.push(spawned.clone_took);
        let (process, leaf) = (spawned.process, spawned.leaf);
        eventually("it ends", || process.try_reap().unwrap().is_some());
        leaf.remove().unwrap();
    }
    groups.sort();
    clones.sort();
    println!(
        "    cgroup p50 {:?} p95 {:?}, clone p50 {:?} p95 {:?}",
        groups[25], groups[47], clones[25], clones[47]
    );
    Ok(())
}
