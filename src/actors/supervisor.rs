//! The supervisor's bookkeeping: which children there are, what their exits mean, when to restart.
//!
//! one_for_one throughout. It is no actor: each supervising actor owns a [`Children`], feeds it the
//! supervision events and does what it says, so there is one rule and no framework. It awaits
//! nothing and counts only failures of *our* code; a process that dies is never an exit here.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use ractor::{ActorCell, ActorId, SupervisionEvent};
use tokio::time::Instant;

use crate::domain::limits::{INTENSITY_MAX, INTENSITY_PERIOD, TRANSITIONS_MAX};

use super::slot::Transition;

/// When an exit is a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Always: it should never end.
    Permanent,
    /// Only if it panicked, erred or was killed.
    Transient,
    /// Never: it is not restarted.
    Temporary,
}

/// What to do after an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it ended as it should, or is not restarted.
    Ended,
    /// Start it again after this pause.
    Restart {
        /// The pause.
        after: Duration,
    },
    /// It failed too often in the period: it stays down, and the supervisor decides.
    GivenUp,
}

/// One child.
#[derive(Debug)]
pub struct Child {
    /// The running actor, if it runs.
    pub cell: Option<ActorCell>,
    /// Restarts ever.
    pub restarts: u32,
    /// Its last changes, with causes.
    pub transitions: VecDeque<Transition>,
    failures: VecDeque<Instant>,
}

/// The children of one supervisor, by our own keys.
#[derive(Debug)]
pub struct Children<K> {
    kind: Kind,
    by_key: HashMap<K, Child>,
    by_actor: HashMap<ActorId, K>,
}

impl<K: Clone + Eq + Hash> Children<K> {
    /// No children yet.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            by_key: HashMap::new(),
            by_actor: HashMap::new(),
        }
    }

    /// A child was started.
    pub fn started(&mut self, key: &K, cell: ActorCell) {
        self.by_actor.insert(cell.get_id(), key.clone());
        let child = self.by_key.entry(key.clone()).or_insert_with(Child::new);
        child.note("starting", "started");
        child.cell = Some(cell);
    }

    /// The child, dead or alive.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&Child> {
        self.by_key.get(key)
    }

    /// The child's actor, if it runs.
    #[must_use]
    pub fn cell(&self, key: &K) -> Option<&ActorCell> {
        self.by_key.get(key)?.cell.as_ref()
    }

    /// All children.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Child)> {
        self.by_key.iter()
    }

    /// How many run.
    #[must_use]
    pub fn running(&self) -> usize {
        self.by_actor.len()
    }

    /// Forgets a child that is down.
    pub fn forget(&mut self, key: &K) {
        if self
            .by_key
            .get(key)
            .is_some_and(|child| child.cell.is_none())
        {
            self.by_key.remove(key);
        }
    }

    /// Takes a supervision event; tells whose exit it was and what to do about it.
    pub fn exited(&mut self, event: &SupervisionEvent) -> Option<(K, Fate)> {
        let (actor, failure) = match event {
            SupervisionEvent::ActorStarted(cell) => {
                if let Some(key) = self.by_actor.get(&cell.get_id())
                    && let Some(child) = self.by_key.get_mut(key)
                {
                    child.note("up", "started");
                }
                return None;
            }
            SupervisionEvent::ActorFailed(cell, error) => (cell, Some(error.to_string())),
            SupervisionEvent::ActorTerminated(cell, _, reason) => {
                (cell, reason.clone().filter(|reason| reason == "killed"))
            }
            _ => return None,
        };
        let key = self.by_actor.remove(&actor.get_id())?;
        let kind = self.kind;
        let child = self.by_key.get_mut(&key)?;
        child.cell = None;
        let failure = match (kind, failure) {
            (Kind::Temporary, failure) => {
                child.note("down", failure.as_deref().unwrap_or("ended"));
                None
            }
            (Kind::Transient, None) => {
                child.note("down", "ended");
                None
            }
            (Kind::Permanent, None) => Some("ended, which it never should".to_owned()),
            (Kind::Permanent | Kind::Transient, Some(error)) => Some(error),
        };
        let Some(failure) = failure else {
            return Some((key, Fate::Ended));
        };
        Some((key, child.failed(&failure, Instant::now())))
    }

    /// A start that failed before the child was linked counts as an exit.
    pub fn start_failed(&mut self, key: &K, error: &str) -> Fate {
        let child = self.by_key.entry(key.clone()).or_insert_with(Child::new);
        child.failed(error, Instant::now())
    }

    /// The child is about to be started again.
    pub fn restarting(&mut self, key: &K) {
        if let Some(child) = self.by_key.get_mut(key) {
            child.restarts += 1;
        }
    }
}

impl Child {
    fn new() -> Self {
        Self {
            cell: None,
            restarts: 0,
            transitions: VecDeque::new(),
            failures: VecDeque::new(),
        }
    }

    fn note(&mut self, to: &'static str, cause: &str) {
        if self.transitions.len() == TRANSITIONS_MAX {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            at: Instant::now(),
            to,
            cause: cause.to_owned(),
        });
    }

    fn failed(&mut self, error: &str, now: Instant) -> Fate {
        while self
            .failures
            .front()
            .is_some_and(|at| now - *at > INTENSITY_PERIOD)
        {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        if self.failures.len() > INTENSITY_MAX {
            self.note("given up", error);
            return Fate::GivenUp;
        }
        self.note("waiting", error);
        let doublings = u32::try_from(self.failures.len() - 1).unwrap_or(0).min(8);
        Fate::Restart {
            after: Duration::from_millis(250) * 2u32.pow(doublings),
        }
    }
}

#[cfg(test)]
mod tests {
    use ractor::{Actor, ActorProcessingErr, ActorRef};
    use tokio::sync::mpsc;

    use super::super::fragile::Fragile;
    use super::*;

    struct Parent;

    impl Actor for Parent {
        type Msg = ();
        type State = mpsc::Sender<SupervisionEvent>;
        type Arguments = mpsc::Sender<SupervisionEvent>;

        async fn pre_start(
            &self,
            _: ActorRef<()>,
            events: mpsc::Sender<SupervisionEvent>,
        ) -> Result<Self::State, ActorProcessingErr> {
            Ok(events)
        }

        async fn handle_supervisor_evt(
            &self,
            _: ActorRef<()>,
            event: SupervisionEvent,
            events: &mut Self::State,
        ) -> Result<(), ActorProcessingErr> {
            let _ = events.send(event).await;
            Ok(())
        }
    }

    async fn fate_of(kind: Kind, messages: &[&'static str]) -> Vec<Fate> {
        let (tell, mut events) = mpsc::channel(64);
        let (parent, _) = Actor::spawn(None, Parent, tell).await.unwrap();
        let mut children = Children::new(kind);
        let mut fates = Vec::new();
        for message in messages {
            let (child, _) = Actor::spawn_linked(None, Fragile, (), parent.get_cell())
                .await
                .unwrap();
            children.started(&"child", child.get_cell());
            match *message {
                "kill" => child.kill(),
                message => child.cast(message).unwrap(),
            }
            loop {
                if let Some((key, fate)) = children.exited(&events.recv().await.unwrap()) {
                    assert_eq!(key, "child");
                    fates.push(fate);
                    break;
                }
            }
            assert_eq!(children.running(), 0);
        }
        parent.stop(None);
        fates
    }

    fn restart(ms: u64) -> Fate {
        Fate::Restart {
            after: Duration::from_millis(ms),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_exit_means_depends_on_the_kind() {
        for message in ["panic", "err", "kill"] {
            assert_eq!(
                fate_of(Kind::Permanent, &[message]).await,
                [restart(250)],
                "{message}"
            );
            assert_eq!(
                fate_of(Kind::Transient, &[message]).await,
                [restart(250)],
                "{message}"
            );
            assert_eq!(
                fate_of(Kind::Temporary, &[message]).await,
                [Fate::Ended],
                "{message}"
            );
        }
        assert_eq!(fate_of(Kind::Permanent, &["stop"]).await, [restart(250)]);
        assert_eq!(fate_of(Kind::Transient, &["stop"]).await, [Fate::Ended]);
    }

    #[tokio::test(start_paused = true)]
    async fn intensity_gives_up_on_the_fourth_failure_in_a_period() {
        let fates = fate_of(Kind::Permanent, &["panic", "kill", "err", "panic"]).await;
        assert_eq!(
            fates,
            [restart(250), restart(500), restart(1000), Fate::GivenUp]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn old_failures_are_forgotten() {
        let mut child = Child::new();
        let start = Instant::now();
        for n in 0..10 {
            let fate = child.failed("x", start + INTENSITY_PERIOD * 2 * n);
            assert_eq!(fate, restart(250));
        }
        assert!(child.transitions.len() <= TRANSITIONS_MAX);
    }
}
