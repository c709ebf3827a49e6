//! The loom model of gate and pending table: every interleaving of a call with a drain, and of a
//! call with a death. Run with `RUSTFLAGS="--cfg loom" cargo test --release -p loom-models`; a plain `cargo test`
//! compiles nothing of it. A package of its own, since tokio's net and process do not compile
//! under that flag.
#![cfg(all(loom, test))]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a model says so by failing"
)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("loom mutexes are not poisoned")
        }
    }
}

#[path = "../../../src/actors/gate.rs"]
mod gate;
#[path = "../../../src/actors/pending.rs"]
#[expect(dead_code, reason = "the model uses a part of the file")]
mod pending;

use gate::{Gate, Position};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use loom::thread;
use pending::Pending;

struct Waiter(Arc<AtomicUsize>);

#[derive(Debug, PartialEq)]
enum Seen {
    Refused,
    Registered,
}

/// What `Handle::call` does up to the send.
fn call(gate: &Gate, pending: &Pending<Waiter, &'static str>, answered: &Arc<AtomicUsize>) -> Seen {
    if !gate.is_open() {
        return Seen::Refused;
    }
    if pending.insert(1, Waiter(Arc::clone(answered))).is_err() {
        return Seen::Refused;
    }
    if !gate.is_open() && pending.take(1).is_some() {
        return Seen::Refused;
    }
    Seen::Registered
}

#[test]
fn a_call_registered_while_its_run_dies_is_answered_or_refused() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Position::Open));
        let pending = Arc::new(Pending::new());
        let answered = Arc::new(AtomicUsize::new(0));
        let death = {
            let (gate, pending) = (Arc::clone(&gate), Arc::clone(&pending));
            thread::spawn(move || {
                gate.shut();
                for Waiter(answered) in pending.close("died") {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let seen = call(&gate, &pending, &answered);
        death.join().unwrap();
        let answers = answered.load(Ordering::SeqCst);
        match seen {
            Seen::Registered => assert_eq!(answers, 1, "registered and never answered"),
            Seen::Refused => assert_eq!(answers, 0, "refused and answered as well"),
        }
    });
}

#[test]
fn a_drain_sees_the_call_or_the_call_sees_the_drain() {
    loom::model(|| {
        let gate = Arc::new(Gate::new(Position::Open));
        let pending = Arc::new(Pending::new());
        let answered = Arc::new(AtomicUsize::new(0));
        let idle_stop = {
            let (gate, pending) = (Arc::clone(&gate), Arc::clone(&pending));
            thread::spawn(move || {
                gate.drain();
                if pending.is_empty() {
                    gate.shut();
                    true
                } else {
                    gate.reopen();
                    false
                }
            })
        };
        let seen = call(&gate, &pending, &answered);
        let stopped = idle_stop.join().unwrap();
        assert!(
            !(stopped && seen == Seen::Registered),
            "stopped as idle with a call registered"
        );
    });
}

#[test]
fn an_answer_and_a_death_reach_a_waiter_once() {
    loom::model(|| {
        let pending = Arc::new(Pending::new());
        let answered = Arc::new(AtomicUsize::new(0));
        pending.insert(1, Waiter(Arc::clone(&answered))).unwrap();
        let reader = {
            let pending = Arc::clone(&pending);
            thread::spawn(move || {
                if let Some(Waiter(answered)) = pending.take(1) {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        for Waiter(answered) in pending.close("died") {
            answered.fetch_add(1, Ordering::SeqCst);
        }
        reader.join().unwrap();
        assert_eq!(answered.load(Ordering::SeqCst), 1);
    });
}

/// A deny that hits some calls of a run that goes on: published first, then whoever is registered
/// is told. A call registers first, then looks whether it is denied.
#[test]
fn a_call_that_races_a_deny_is_told_or_sees_it() {
    loom::model(|| {
        let denied = Arc::new(AtomicBool::new(false));
        let pending: Arc<Pending<Waiter, &'static str>> = Arc::new(Pending::new());
        let told = Arc::new(AtomicUsize::new(0));
        let deny = {
            let (denied, pending) = (Arc::clone(&denied), Arc::clone(&pending));
            thread::spawn(move || {
                denied.store(true, Ordering::Release);
                for (_, Waiter(told)) in pending.take_where(|_| true) {
                    told.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let registered = pending.insert(1, Waiter(Arc::clone(&told))).is_ok();
        let sent = registered && !denied.load(Ordering::Acquire);
        deny.join().unwrap();
        assert!(
            !sent || told.load(Ordering::SeqCst) == 1,
            "sent to the server, and nobody told"
        );
    });
}

/// A deny of whole processes and a run that starts: one publishes and then looks into the slot,
/// the other moves in and then looks whether it is denied; a fence on both sides.
#[test]
fn a_run_that_races_a_deny_is_found_or_sees_it() {
    loom::model(|| {
        let denied = Arc::new(AtomicBool::new(false));
        let occupied = Arc::new(AtomicBool::new(false));
        let deny = {
            let (denied, occupied) = (Arc::clone(&denied), Arc::clone(&occupied));
            thread::spawn(move || {
                denied.store(true, Ordering::Release);
                fence(Ordering::SeqCst);
                occupied.load(Ordering::Acquire)
            })
        };
        occupied.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        let seen = denied.load(Ordering::Acquire);
        let found = deny.join().unwrap();
        assert!(seen || found, "it runs, and nobody knows that it may not");
    });
}

/// Whoever cancels a call puts a watcher in its place: the answer reaches one of the two, once.
#[test]
fn an_answer_that_races_a_cancel_reaches_one_of_the_two() {
    loom::model(|| {
        let pending: Arc<Pending<Waiter, &'static str>> = Arc::new(Pending::new());
        let (caller, watcher) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        pending.insert(1, Waiter(Arc::clone(&caller))).unwrap();
        let reader = {
            let pending = Arc::clone(&pending);
            thread::spawn(move || {
                if let Some(Waiter(answered)) = pending.take(1) {
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        let swapped = pending
            .swap(|_| true, Waiter(Arc::clone(&watcher)))
            .is_some();
        reader.join().unwrap();
        let seen = (
            caller.load(Ordering::SeqCst),
            watcher.load(Ordering::SeqCst),
        );
        assert_eq!(seen, if swapped { (0, 1) } else { (1, 0) });
    });
}
