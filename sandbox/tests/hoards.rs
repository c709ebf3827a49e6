//! What the kernel keeps for a process and counts nowhere that one would look: it is refused at a limit of the
//! isolate's own, or charged to its memory, and never the host's loss. And what must die when it is killed, in
//! whatever state it is.

mod act;

use std::time::Duration;

use sandbox::cgroup::OomScope;
use sandbox::{Facility, Profile};

use crate::walls::{Home, within};
use crate::world::{self, Run, eventually, probe, shell};
use crate::{Outcome, Test};

pub(crate) use act::{KINDS, run};

pub(crate) const TESTS: &[Test] = &[
    (
        "hoards_are_refused_or_charged_to_the_isolate",
        hoards_are_refused_or_charged_to_the_isolate,
    ),
    (
        "stopped_processes_die_with_the_kill",
        stopped_processes_die_with_the_kill,
    ),
    (
        "a_kill_at_any_moment_of_the_setup_leaves_nobody",
        a_kill_at_any_moment_of_the_setup_leaves_nobody,
    ),
    ("a_thousand_at_once", a_thousand_at_once),
];

fn hoards_are_refused_or_charged_to_the_isolate() -> Outcome {
    world::with(&[Facility::CgroupMemory, Facility::CgroupPids])?;
    let host = crate::walls::host()?;
    // In the emulator memory is filled too slowly for all of them.
    let few = is_emulated();
    let profiles = [Profile::Strict, Profile::Standard];
    for profile in profiles.into_iter().take(if few { 1 } else { 2 }) {
        for (kind, _) in act::KINDS
            .into_iter()
            .take(if few { 3 } else { usize::MAX })
        {
            let home = Home::new();
            let mut run = Run::start(
                &host,
                &within(probe(&["hoard", kind]), profile, &home.path()),
            );
            let word = run.output();
            let word = word.trim();
            run.wait_gone();
            let oom = run.leaf.oom();
            println!("    {kind} in {profile}: {word:?} {oom:?}");
            let refused = word.starts_with("refused ");
            let charged = word.is_empty() && oom == Some(OomScope::Isolate);
            assert!(refused || charged, "{kind} in {profile}: {word:?}, {oom:?}");
        }
    }
    Ok(())
}

fn stopped_processes_die_with_the_kill() -> Outcome {
    let all = [
        world::lenient(),
        world::without(&[Facility::CgroupKill]),
        world::without(&Facility::ALL),
    ];
    for host in all {
        // It may be told to end before it has stopped itself.
        let script = "trap '' TERM; sleep 1000 & kill -STOP $!; echo up; kill -STOP $$; echo never";
        let mut run = Run::start(&host, &shell(script));
        assert_eq!(run.line(), "up");
        // TERM waits in a stopped process for ever, and is nothing to this one before.
        run.process.terminate();
        std::thread::sleep(Duration::from_millis(20));
        assert!(run.process.try_reap().unwrap().is_none());
        run.kill();
        assert_eq!(run.output(), "");
    }
    Ok(())
}

fn a_kill_at_any_moment_of_the_setup_leaves_nobody() -> Outcome {
    let host = crate::walls::host()?;
    let home = Home::new();
    let rounds = if is_emulated() { 10 } else { 120 };
    for round in 0..rounds {
        let spec = within(
            shell("sleep 1000 & sleep 1000"),
            Profile::Strict,
            &home.path(),
        );
        let mut run = Run::start(&host, &spec);
        // From the first instruction of init to long after the exec of the server.
        std::thread::sleep(Duration::from_micros(100 * round));
        run.kill();
        drop(run);
        assert_eq!(world::children(), [host.spawner_pid().unwrap()], "{round}");
    }
    assert_eq!(host.unowned(), 0);
    assert_eq!(host.sweep(world::PATIENCE).unwrap(), 0);
    Ok(())
}

/// In the guest of scripts/v2.sh, where all is slow and memory scarce, there is no tree of sources.
pub(crate) fn is_emulated() -> bool {
    !std::path::Path::new(env!("CARGO_MANIFEST_DIR")).exists()
}

/// Eight threads that start as many as they can.
fn a_thousand_at_once() -> Outcome {
    let host = world::lenient();
    let each = if is_emulated() { 5 } else { 125 };
    let runs = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (host, runs) = (&host, &runs);
            scope.spawn(move || {
                for number in 0..each {
                    let mut spec = shell("exec sleep 1000");
                    spec.leaf.user = Some(format!("u{}", (thread * each + number) % 50));
                    let run = Run::from(host.spawn(&spec).unwrap());
                    runs.lock().unwrap().push(run);
                }
            });
        }
    });
    let mut runs = runs.into_inner().unwrap();
    assert_eq!(runs.len(), 8 * each);
    for run in &runs {
        run.leaf.kill();
        run.process.kill();
    }
    for run in &mut runs {
        run.wait_gone();
    }
    drop(runs);
    eventually("only the spawner is left", || {
        world::children() == [host.spawner_pid().unwrap()]
    });
    assert_eq!(host.unowned(), 0);
    Ok(())
}
