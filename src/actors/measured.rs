//! An actor whose handlers are timed and whose end is counted; otherwise the actor it wraps.
//!
//! Handlers are boxed: an actor's task is as large as its largest handler for as long as it lives,
//! and thousands of actors wait for their next message at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::actor::ActorMeter;
use crate::telemetry::metrics::labels::{ActorEnd, ActorKind};

const KILLED: u8 = 0;
const NORMAL: u8 = 1;
const ERROR: u8 = 2;
const PANIC: u8 = 3;

/// The wrapper. It goes when its actor's task goes, however that ends, and counts it then.
#[derive(Debug)]
pub(super) struct Measured<A> {
    actor: A,
    meter: Option<Arc<ActorMeter>>,
    /// Until something else is known, it was killed: then nothing of it runs any more.
    fate: AtomicU8,
}

/// Wraps an actor before it is spawned.
pub(super) fn measured<A: Actor>(metrics: &Metrics, kind: ActorKind, actor: A) -> Measured<A> {
    let meter = metrics.actor(kind);
    if let Some(meter) = &meter {
        meter.born();
    }
    Measured {
        actor,
        meter,
        fate: AtomicU8::new(KILLED),
    }
}

impl<A> Measured<A> {
    /// What a callback returned.
    fn done<T>(&self, result: Result<T, ActorProcessingErr>) -> Result<T, ActorProcessingErr> {
        if result.is_err() {
            self.fate.store(ERROR, Ordering::Relaxed);
        }
        result
    }

    fn watch(&self) -> Watch<'_, A> {
        Watch {
            of: self,
            began: Instant::now(),
        }
    }
}

/// A handler under way.
struct Watch<'a, A> {
    of: &'a Measured<A>,
    began: Instant,
}

impl<A> Drop for Watch<'_, A> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.of.fate.store(PANIC, Ordering::Relaxed);
        }
        if let Some(meter) = &self.of.meter {
            meter.handled(self.began.elapsed());
        }
    }
}

impl<A: Actor> Actor for Measured<A> {
    type Msg = A::Msg;
    type State = A::State;
    type Arguments = A::Arguments;

    async fn pre_start(
        &self,
        myself: ActorRef<A::Msg>,
        args: A::Arguments,
    ) -> Result<A::State, ActorProcessingErr> {
        self.done(Box::pin(self.actor.pre_start(myself, args)).await)
    }

    // Not timed: here a run shakes hands, in its own task, and nobody waits for it.
    async fn post_start(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.done(Box::pin(self.actor.post_start(myself, state)).await)
    }

    async fn post_stop(
        &self,
        myself: ActorRef<A::Msg>,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        self.fate.store(NORMAL, Ordering::Relaxed);
        self.done(Box::pin(self.actor.post_stop(myself, state)).await)
    }

    async fn handle(
        &self,
        myself: ActorRef<A::Msg>,
        message: A::Msg,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        let _watch = self.watch();
        self.done(Box::pin(self.actor.handle(myself, message, state)).await)
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<A::Msg>,
        event: SupervisionEvent,
        state: &mut A::State,
    ) -> Result<(), ActorProcessingErr> {
        let _watch = self.watch();
        self.done(Box::pin(self.actor.handle_supervisor_evt(myself, event, state)).await)
    }
}

impl<A> Drop for Measured<A> {
    fn drop(&mut self) {
        let Some(meter) = &self.meter else { return };
        meter.ended(match self.fate.load(Ordering::Relaxed) {
            NORMAL => ActorEnd::Normal,
            ERROR => ActorEnd::Error,
            PANIC => ActorEnd::Panic,
            _ => ActorEnd::Killed,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::fragile::Fragile;
    use super::*;

    #[tokio::test]
    async fn every_end_is_counted_by_its_reason() {
        let metrics = Metrics::new();
        for message in ["stop", "err", "panic", "kill"] {
            let actor = measured(&metrics, ActorKind::Session, Fragile);
            let (actor, join) = Actor::spawn(None, actor, ()).await.unwrap();
            let one = "legation_actors{kind=\"session\"} 1";
            assert!(metrics.render(|_| {}).contains(one), "it lives");
            match message {
                "kill" => actor.kill(),
                message => actor.cast(message).unwrap(),
            }
            join.await.unwrap();
        }
        let text = metrics.render(|_| {});
        for reason in ["normal", "error", "panic", "killed"] {
            let line =
                format!("legation_actor_exits_total{{kind=\"session\",reason=\"{reason}\"}} 1");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(text.contains("legation_actors{kind=\"session\"} 0"));
        let handled = "legation_actor_handler_seconds_count{kind=\"session\"} 3";
        assert!(text.contains(handled), "{text}");
    }
}
