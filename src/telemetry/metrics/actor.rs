//! The meter of a kind of actor.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};

use super::families as f;
use super::labels::{ActorEnd, ActorKind, Labelled};
use super::recorder::{CounterBy, Recorder};

/// How many there are, how they end, and how long their handlers take.
#[derive(Debug)]
pub struct ActorMeter {
    kind: ActorKind,
    live: AtomicI64,
    ends: CounterBy<ActorEnd>,
    handled: Histogram,
    given_up: Counter,
}

impl ActorMeter {
    pub(super) fn new(recorder: &Recorder, kind: ActorKind) -> Self {
        let labels = [(ActorKind::NAME, kind.as_str())];
        Self {
            kind,
            live: AtomicI64::new(0),
            ends: recorder.counters(&f::ACTOR_EXITS, &labels),
            handled: recorder.histogram(&f::ACTOR_HANDLER, &labels),
            given_up: recorder.counter(&f::GIVEN_UP, &labels),
        }
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> ActorKind {
        self.kind
    }

    /// One was made.
    pub fn born(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended.
    pub fn ended(&self, how: ActorEnd) {
        self.live.fetch_sub(1, Ordering::Relaxed);
        self.ends.increment(how, 1);
    }

    /// A handler returned.
    pub fn handled(&self, took: Duration) {
        self.handled.record(took);
    }

    /// A supervisor gave up on one.
    pub fn given_up(&self) {
        self.given_up.increment(1);
    }

    pub(super) fn live(&self) -> f64 {
        float(self.live.load(Ordering::Relaxed))
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of what is in memory are far below 2^53"
)]
pub(super) fn float(count: i64) -> f64 {
    count as f64
}
