//! Isolates that are started, called, crashed, killed and idled at random, and then: nothing is left.
//!
//! Short as a test. `LEGATION_SOAK=SECONDS,ISOLATES` makes it the long one (`120,500`);
//! `LEGATION_SOAK_SEED` repeats one that failed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::processes::no_zombies;
use crate::world::{Session, World};

/// What a worker does to one isolate.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Call,
    Sleep,
    Crash,
    KillServer,
    Fork,
    TooMuchMemory,
    KillIsolate,
    RestartIsolate,
    Idle,
}

const DEEDS: [Deed; 12] = [
    Deed::Call,
    Deed::Call,
    Deed::Call,
    Deed::Sleep,
    Deed::Crash,
    Deed::KillServer,
    Deed::Fork,
    Deed::TooMuchMemory,
    Deed::KillIsolate,
    Deed::RestartIsolate,
    Deed::Idle,
    Deed::Call,
];

/// A small generator: a seed gives the same deeds again, if not the same races.
struct Luck(u64);

impl Luck {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below as u64).unwrap()
    }
}

fn size() -> (u64, usize) {
    let text = std::env::var("LEGATION_SOAK").unwrap_or_else(|_| "10,40".to_owned());
    let (seconds, isolates) = text
        .split_once(',')
        .expect("LEGATION_SOAK=SECONDS,ISOLATES");
    (seconds.parse().unwrap(), isolates.parse().unwrap())
}

#[test]
fn nothing_is_left_after_a_soak() {
    let (seconds, isolates) = size();
    let seed = std::env::var("LEGATION_SOAK_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) * 0x9e37_79b9 + 1);
    eprintln!("LEGATION_SOAK_SEED={seed}");
    let users = isolates.div_ceil(10);
    // Failures are forgiven at once: this is about what is left, not about patience.
    let config = "[isolates]\nper_user_max = 1000\n\n[sessions]\nper_key_max = 1000\n\n\
        [restart]\nfloor_ms = 10\ncap_ms = 50\nfailures_max = 100\nper_second = 1000\n";
    let world = World::with(config);
    let options = [
        "--sharing",
        "per_session",
        "--memory",
        "64MiB",
        "--idle",
        "2s",
    ];
    world.demo("demo", &options);
    let mut sessions = Vec::new();
    for user in 0..users {
        let key = world.key(&format!("user{user}"));
        let http = crate::world::Http::new(&world.url);
        for _ in 0..10.min(isolates - user * 10) {
            sessions.push(http.register(&key));
        }
    }
    sessions[0].ask("demo.echo", json!({"text": "warm"}));
    nobody_runs(&world);
    let before = descriptors(&world);
    let mounts = mounts_of(world.pid());

    let until = Instant::now() + Duration::from_secs(seconds);
    let stop = AtomicBool::new(false);
    let told = Mutex::new(BTreeMap::<String, u64>::new());
    let starts = AtomicU64::new(0);
    let workers = 8.min(sessions.len());
    thread::scope(|scope| {
        for worker in 0..workers {
            let own: Vec<&Session> = sessions.iter().skip(worker).step_by(workers).collect();
            let (world, stop, told, starts) = (&world, &stop, &told, &starts);
            let mut luck = Luck(seed.wrapping_add(worker as u64 * 7919) | 1);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) && Instant::now() < until {
                    let session = own[luck.next(own.len())];
                    let deed = DEEDS[luck.next(DEEDS.len())];
                    let code = act(world, session, deed, &mut luck, starts);
                    *told.lock().unwrap().entry(code).or_default() += 1;
                }
            });
        }
    });
    let told = told.into_inner().unwrap();
    eprintln!("{told:?}");
    let good = told.get("ok").copied().unwrap_or(0);
    assert!(good > seconds, "hardly anything worked: {told:?}");
    for code in told.keys() {
        let expected = [
            "ok",
            "run_ended",
            "out_of_memory",
            "backing_off",
            "quarantined",
            "cancelled",
            "starting",
            "kill_switch_active",
        ];
        assert!(expected.contains(&code.as_str()), "{code}: {told:?}");
    }

    nobody_runs(&world);
    no_zombies(&world);
    world.nothing_is_left();
    assert_eq!(world.status()["unowned_processes"], 0);
    assert_eq!(mounts_of(world.pid()), mounts, "mounts are left");
    // Idle connections and the database's may come and go; a leak would be by the hundred.
    let after = descriptors(&world);
    assert!(
        after <= before + 8,
        "{before} descriptors before, {after} after"
    );
}

fn act(
    world: &World,
    session: &Session,
    deed: Deed,
    luck: &mut Luck,
    starts: &AtomicU64,
) -> String {
    let call = |tool: &str, arguments: Value| {
        let code = session.call(&format!("demo.{tool}"), arguments).code();
        if code.is_empty() {
            "ok".to_owned()
        } else {
            code
        }
    };
    match deed {
        Deed::Call => call("echo", json!({"text": "x"})),
        Deed::Sleep => call("sleep", json!({"ms": luck.next(200)})),
        Deed::Crash => call("crash", json!({"signal": "SEGV"})),
        Deed::KillServer => {
            let answer = session.call("demo.whoami", json!({}));
            if answer.code().is_empty() {
                kill_one_of(world, luck);
            }
            "ok".to_owned()
        }
        Deed::Fork => call("fork", json!({"n": 2, "seconds": 60})),
        Deed::TooMuchMemory => call("allocate", json!({"mib": 200})),
        Deed::KillIsolate | Deed::RestartIsolate => {
            let verb = if matches!(deed, Deed::KillIsolate) {
                "kill"
            } else {
                "restart"
            };
            let list = world.cli(&["isolate", "list"]);
            let all = list.as_array().cloned().unwrap_or_default();
            if !all.is_empty() {
                let id = all[luck.next(all.len())]["id"].as_str().unwrap().to_owned();
                // It may be gone by now.
                world.run(&["--yes", "isolate", verb, &id, "--reason", "soak"]);
                starts.fetch_add(1, Ordering::Relaxed);
            }
            "ok".to_owned()
        }
        Deed::Idle => {
            thread::sleep(Duration::from_millis(luck.next(300) as u64));
            "ok".to_owned()
        }
    }
}

/// kill -9 of anybody inside any isolate, its init included.
fn kill_one_of(world: &World, luck: &mut Luck) {
    let all: Vec<i32> = world
        .leaves()
        .iter()
        .filter_map(|leaf| std::fs::read_to_string(leaf.join("cgroup.procs")).ok())
        .flat_map(|text| {
            let pids: Vec<i32> = text.lines().filter_map(|pid| pid.parse().ok()).collect();
            pids
        })
        .collect();
    if !all.is_empty() {
        crate::processes::kill_9(all[luck.next(all.len())]);
    }
}

fn nobody_runs(world: &World) {
    // Twice the idle time and the last burials.
    world.until("every isolate has stopped", |world| {
        let list = world.cli(&["isolate", "list"]);
        let all = list.as_array()?;
        all.iter()
            .all(|one| one["pid"].is_null() || one["state"] == "resting")
            .then_some(())
    });
    world.nothing_is_left();
}

fn descriptors(world: &World) -> usize {
    // The requests of a moment ago are over in a moment.
    let count = || {
        std::fs::read_dir(format!("/proc/{}/fd", world.pid()))
            .unwrap()
            .count()
    };
    let mut last = count();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        let now = count();
        if now == last {
            return now;
        }
        last = now;
    }
    last
}

fn mounts_of(pid: i32) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    text.lines().count()
}
