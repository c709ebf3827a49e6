//! Limits that hold, and whose they were.

use std::time::Duration;

use sandbox::cgroup::{Disk, IoLimit, OomScope};
use sandbox::host::End;
use sandbox::status::Record;
use sandbox::{Facility, Profile};

use crate::walls::{Home, within};
use crate::world::{self, Run, eventually, probe, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    ("fork_bomb_stops_at_the_limit", fork_bomb_stops_at_the_limit),
    ("memory_of_the_isolate", memory_of_the_isolate),
    ("memory_of_the_user", memory_of_the_user),
    ("memory_of_a_child_is_told", memory_of_a_child_is_told),
    (
        "what_waits_in_tcp_s_buffers_is_bounded",
        what_waits_in_tcp_s_buffers_is_bounded,
    ),
    ("a_kill_is_no_oom", a_kill_is_no_oom),
    ("cpu_is_bounded_and_counted", cpu_is_bounded_and_counted),
    ("user_limits_can_change", user_limits_can_change),
    ("the_rate_on_the_disk_is_held", the_rate_on_the_disk_is_held),
    (
        "the_gateway_s_leaf_goes_first",
        the_gateway_s_leaf_goes_first,
    ),
];

/// Where the gateway has a leaf of its own (v2), that weighs ten times what the tree of isolates beside it does; the
/// tree itself weighs what everything else does.
fn the_gateway_s_leaf_goes_first() -> Outcome {
    let config = world::config();
    let installation = config.installation_id.clone();
    let host = sandbox::Host::start(config).unwrap();
    let missing = &host.capabilities().missing;
    if let Some(lack) = missing.iter().find(|m| m.facility == Facility::CgroupCpu) {
        return Err(lack.to_string());
    }
    let mut run = Run::start(&host, &shell("echo up; sleep 1000"));
    assert_eq!(run.line(), "up");
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let aside = own
        .lines()
        .any(|line| line.starts_with("0::") && line.ends_with("/supervisor"));
    let read = |dir: &std::path::Path, file: &str| {
        let text = std::fs::read_to_string(dir.join(file)).ok()?;
        Some(text.trim().to_owned())
    };
    let mut weighed = 0;
    for base in world::groups_of(&installation) {
        for (file, usual) in [("cpu.weight", "100"), ("cpu.shares", "1024")] {
            let Some(weight) = read(&base, file) else {
                continue;
            };
            assert_eq!(weight, usual, "{}", base.display());
            weighed += 1;
            if aside && file == "cpu.weight" {
                let beside = base.parent().unwrap().join("supervisor");
                assert_eq!(read(&beside, file).as_deref(), Some("1000"));
            }
        }
    }
    assert_eq!(weighed, 1);
    Ok(())
}

fn fork_bomb_stops_at_the_limit() -> Outcome {
    let host = world::with(&[Facility::CgroupPids])?;
    let mut run = Run::start(&host, &probe(&["forks", "200"]));
    let made: u64 = run.line().parse().unwrap();
    // 32, less init and the server itself.
    assert_eq!(made, 30);
    let refused = run.leaf.sample(1).pids_refused.unwrap();
    assert!(refused > 0, "the kernel counts what it refused");
    run.kill();
    Ok(())
}

/// Waits for the end of a server that was killed: init tells, or was killed with it (v2).
fn killed(run: &mut Run) {
    let ending = run.ending();
    let end = run.wait_gone();
    let signal = libc::SIGKILL;
    assert!(
        ending == Record::Signaled(signal) || end == End::Signal(signal),
        "{ending:?}, {end:?}"
    );
}

fn memory_of_the_isolate() -> Outcome {
    let host = world::with(&[Facility::CgroupMemory])?;
    let mut run = Run::start(&host, &probe(&["memory", "256"]));
    killed(&mut run);
    assert_eq!(run.leaf.oom(), Some(OomScope::Isolate));
    let usage = run.leaf.usage();
    assert!(usage.memory_peak_bytes.unwrap() <= world::LIMITS.memory_bytes);
    let events = usage.memory_events.unwrap();
    assert!(events.max > 0 && events.oom_kill > 0, "{events:?}");
    Ok(())
}

fn memory_of_the_user() -> Outcome {
    let host = world::with(&[Facility::CgroupMemory])?;
    let mut spec = probe(&["memory", "256"]);
    spec.limits.memory_bytes = 512 << 20;
    spec.user_limits.memory_bytes = 48 << 20;
    let mut run = Run::start(&host, &spec);
    killed(&mut run);
    assert_eq!(run.leaf.oom(), Some(OomScope::User));
    Ok(())
}

fn memory_of_a_child_is_told() -> Outcome {
    let host = world::with(&[Facility::CgroupMemory])?;
    let own = std::env::current_exe().unwrap();
    let mut run = Run::start(
        &host,
        &shell(&format!(
            "{} probe memory 256; echo $?; sleep 1000",
            own.display()
        )),
    );
    let events = run.leaf.oom_events().unwrap();
    let Some(events) = events else {
        // v2: the whole isolate ends together.
        assert_eq!(run.wait_gone(), End::Signal(libc::SIGKILL));
        assert_eq!(run.leaf.oom(), Some(OomScope::Isolate));
        return Ok(());
    };
    assert_eq!(run.line(), "137");
    let mut told = [0; 8];
    std::io::Read::read_exact(&mut world::file(events), &mut told).unwrap();
    eventually("the kill is counted", || {
        run.leaf.oom() == Some(OomScope::Isolate)
    });
    Ok(())
}

/// v2 counts it as memory, v1 by a limit of its own.
fn what_waits_in_tcp_s_buffers_is_bounded() -> Outcome {
    let host = world::with(&[Facility::CgroupMemory])?;
    let mut run = Run::start(&host, &probe(&["tcp", "100"]));
    let told = run.output();
    run.wait_gone();
    if told.is_empty() {
        assert_eq!(run.leaf.oom(), Some(OomScope::Isolate));
        return Ok(());
    }
    let bytes: u64 = told.trim().parse().unwrap();
    println!("    {bytes} bytes");
    assert!(bytes <= world::LIMITS.memory_bytes, "{bytes}");
    Ok(())
}

fn a_kill_is_no_oom() -> Outcome {
    let host = world::with(&[Facility::CgroupMemory])?;
    let mut run = Run::start(&host, &shell("kill -9 $$"));
    run.wait_gone();
    assert_eq!(run.leaf.oom(), None);
    Ok(())
}

fn cpu_is_bounded_and_counted() -> Outcome {
    let host = world::with(&[Facility::CgroupCpu])?;
    let mut spec = shell("echo up; while :; do :; done");
    spec.limits.cpu_millis = 100;
    let mut run = Run::start(&host, &spec);
    assert_eq!(run.line(), "up");
    let before = run.leaf.usage().cpu_micros.unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let usage = run.leaf.sample(0);
    let used = usage.cpu_micros.unwrap() - before;
    // Which turn of a sweep reads it is another matter.
    let throttling = run.leaf.usage().throttling.unwrap();
    assert!(throttling.throttled_periods > 0 && throttling.throttled_micros > 0);
    let memory = usage.memory;
    assert!(memory.is_none_or(|m| m.cache_bytes <= Some(m.bytes) && m.bytes > 0));
    // A tenth of a second in a second; generous for a machine that sleeps longer than asked.
    assert!((1..400_000).contains(&used), "{used} µs");
    Ok(())
}

/// Direct writes, which v1 counts as well.
fn the_rate_on_the_disk_is_held() -> Outcome {
    const RATE: u64 = 4 << 20;
    let home = Home::new();
    let mut config = world::config();
    config.io = Some(IoLimit {
        disk: Disk::of(&home.path()),
        bytes_per_second: RATE,
    });
    let host = sandbox::Host::start(config).unwrap();
    let missing = &host.capabilities().missing;
    if let Some(lack) = missing.iter().find(|m| m.facility == Facility::CgroupIo) {
        return Err(lack.to_string());
    }
    let writes = "dd if=/dev/zero of=f bs=1M count=8 oflag=direct 2>/dev/null; echo $?";
    let mut spec = within(shell(writes), Profile::Strict, &home.path());
    spec.file_bytes = 1 << 30;
    let since = std::time::Instant::now();
    let mut run = Run::start(&host, &spec);
    assert_eq!(run.line(), "0");
    let took = since.elapsed();
    // Two seconds; the kernel lets some go ahead.
    assert!(took > Duration::from_millis(1200), "{took:?}");
    Ok(())
}

fn user_limits_can_change() -> Outcome {
    let host = world::with(&[
        Facility::CgroupMemory,
        Facility::CgroupPids,
        Facility::CgroupCpu,
    ])?;
    let mut runs = Vec::new();
    for (memory, pids, cpu) in [(256, 128, 2000), (512, 64, 500), (128, 256, 4000)] {
        let mut spec = shell("echo up; sleep 1000");
        spec.user_limits.memory_bytes = memory << 20;
        spec.user_limits.pids = pids;
        spec.user_limits.cpu_millis = cpu;
        let mut run = Run::start(&host, &spec);
        assert_eq!(run.line(), "up");
        runs.push(run);
    }
    Ok(())
}
