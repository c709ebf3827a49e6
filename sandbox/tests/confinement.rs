//! What a server sees and inherits.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbox::host::{End, OPENING_BYTES_MAX};
use sandbox::status::Record;
use sandbox::{Facility, Profile};

use crate::world::{self, Run, probe, shell};
use crate::{Outcome, Test};

pub(crate) const TESTS: &[Test] = &[
    ("exit_code_and_pipes", exit_code_and_pipes),
    (
        "environment_is_what_was_given",
        environment_is_what_was_given,
    ),
    (
        "the_opening_is_there_before_the_server",
        the_opening_is_there_before_the_server,
    ),
    ("no_descriptor_is_inherited", no_descriptor_is_inherited),
    ("server_is_pid_two", server_is_pid_two),
    ("init_is_out_of_reach", init_is_out_of_reach),
    ("init_has_a_filter_of_its_own", init_has_a_filter_of_its_own),
    ("walls_of_a_process", walls_of_a_process),
    (
        "workdir_and_signals_are_fresh",
        workdir_and_signals_are_fresh,
    ),
];

fn exit_code_and_pipes() -> Outcome {
    let host = world::lenient();
    let mut run = Run::start(&host, &shell("read x; echo out $x; echo err >&2; exit 7"));
    run.write("hello\n");
    assert_eq!(run.output(), "out hello\n");
    let mut err = String::new();
    std::io::Read::read_to_string(&mut run.stderr, &mut err).unwrap();
    assert_eq!(err, "err\n");
    assert_eq!(run.records(), [Record::Started, Record::Exited(7)]);
    Ok(())
}

fn the_opening_is_there_before_the_server() -> Outcome {
    let host = world::lenient();
    let mut spec = shell("read x; read y; echo $x $y");
    spec.opening = b"first\n".to_vec();
    let mut run = Run::start(&host, &spec);
    run.write("second\n");
    assert_eq!(run.output(), "first second\n");
    // A whole page fits without a reader; one byte more is refused and nothing is started.
    let mut longest = shell("wc -c");
    longest.opening = vec![b'x'; OPENING_BYTES_MAX];
    let mut run = Run::start(&host, &longest);
    run.stdin = None;
    assert_eq!(run.output().trim(), OPENING_BYTES_MAX.to_string());
    longest.leaf.isolate.push('b');
    longest.opening.push(b'x');
    let before = world::children();
    let refused = host.spawn(&longest).unwrap_err();
    assert!(refused.to_string().contains("first input"), "{refused}");
    assert_eq!(world::children(), before);
    Ok(())
}

fn environment_is_what_was_given() -> Outcome {
    let host = world::lenient();
    let mut spec = world::spec("/usr/bin/env", &[]);
    spec.program
        .env
        .insert("B".to_owned(), "x=ä y".to_owned().into());
    let mut run = Run::start(&host, &spec);
    assert_eq!(run.output(), "B=x=ä y\nPATH=/usr/bin:/bin\n");
    Ok(())
}

fn no_descriptor_is_inherited() -> Outcome {
    // A descriptor without close-on-exec, as careless code in a gateway would leave one: the
    // spawner inherits it, and every init from the spawner.
    let (leak, _other) = nix::unistd::pipe().unwrap();
    let host = world::lenient();
    let mut run = Run::start(&host, &probe(&["descriptors"]));
    assert_eq!(run.output(), "0 1 2\n");
    drop(leak);
    Ok(())
}

fn server_is_pid_two() -> Outcome {
    let host = world::with(&[Facility::PidNamespace])?;
    let mut run = Run::start(&host, &shell("echo $$ $PPID"));
    assert_eq!(run.line(), "2 1");
    Ok(())
}

fn init_is_out_of_reach() -> Outcome {
    let host = world::with(&[Facility::PidNamespace])?;
    let mut run = Run::start(
        &host,
        &shell(
            "kill -9 1; kill -STOP 1; kill -TERM 1; kill -SEGV 1; trap 'exit 3' TERM; echo up; sleep 0.2; exit 5",
        ),
    );
    // TERM is what init passes on, and it comes back to the server that sent it.
    let ending = run.ending();
    assert!(
        matches!(ending, Record::Signaled(libc::SIGTERM) | Record::Exited(3)),
        "{ending:?}"
    );
    Ok(())
}

/// What the kernel says of a process of ours: mode and number of its system call filters.
fn filters_of(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let said = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    format!("{} {}", said("Seccomp:"), said("Seccomp_filters:"))
}

fn init_has_a_filter_of_its_own() -> Outcome {
    let host = crate::walls::host()?;
    let home = crate::walls::Home::new();
    for profile in [Profile::Standard, Profile::Strict] {
        // With it, init reaps whom nobody waits for, is frozen and goes on, and passes TERM on.
        let script = "i=0; while [ $i -lt 20 ]; do (sleep 0.01 &); i=$((i+1)); done; sleep 0.5; \
                      trap 'exit 3' TERM; ls -d /proc/[0-9]* | wc -l; read x; while :; do sleep 0.01; done";
        let mut run = Run::start(
            &host,
            &crate::walls::within(shell(script), profile, &home.path()),
        );
        let pid = run.process.pid();
        world::eventually("init has its filter", || filters_of(pid) == "2 1");
        // The shell, ls and wc; and init where it is to be seen.
        let processes: u32 = run.line().parse().unwrap();
        assert!(processes <= 4, "{processes} in {profile}");
        let init = Pid::from_raw(pid);
        kill(init, Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        kill(init, Signal::SIGCONT).unwrap();
        run.write("go\n");
        run.process.terminate();
        assert_eq!(run.records(), [Record::Started, Record::Exited(3)]);
        // How it ended is told by itself, not by the kernel that killed it.
        assert_eq!(run.wait_gone(), End::Code(0), "{profile}");
    }
    let mut run = Run::start(&host, &shell("echo up; read x; exit 0"));
    assert_eq!(run.line(), "up");
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(
        filters_of(run.process.pid()),
        "0 0",
        "profile none has none"
    );
    run.stdin = None;
    assert_eq!(run.records().last(), Some(&Record::Exited(0)));
    Ok(())
}

fn walls_of_a_process() -> Outcome {
    let host = world::lenient();
    let mut run = Run::start(&host, &probe(&["walls"]));
    let told = run.output();
    assert!(told.contains("no_new_privs 1"), "{told}");
    assert!(told.contains("core 0 0"), "{told}");
    assert!(told.contains("nofile 256 256"), "{told}");
    assert!(told.contains("fsize 1048576 1048576"), "{told}");
    assert!(told.contains("oom_score_adj 500"), "{told}");
    assert!(told.contains("session_leader true"), "{told}");
    Ok(())
}

fn workdir_and_signals_are_fresh() -> Outcome {
    let host = world::lenient();
    let mut spec = shell("pwd; grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t'");
    spec.workdir = "/usr/bin".into();
    let mut run = Run::start(&host, &spec);
    assert_eq!(
        run.output(),
        "/usr/bin\nSigBlk:0000000000000000\nSigIgn:0000000000000000\n"
    );
    Ok(())
}
