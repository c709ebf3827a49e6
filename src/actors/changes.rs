//! What changes in the tree, told to those who follow it.
//!
//! Every change of state of an actor is one numbered announcement in a bounded broadcast. It says
//! who changed, to what and why; what the actor looks like now is read from the actor's own cells,
//! so an announcement that was missed costs a fresh snapshot and never a wrong picture. Nothing is
//! built while nobody follows.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::domain::ids::{IsolateId, SessionId, UserId};
use crate::domain::limits::CHANGES_KEPT_MAX;

use super::slot::SlotKey;
use super::sync::Mutex;

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// One of the root's services.
    Service(&'static str),
    /// A user's supervisor.
    User(UserId),
    /// An isolate or instance.
    Isolate(SlotKey, IsolateId),
    /// A registered client.
    Session(SessionId),
}

/// One announcement.
#[derive(Debug, Clone)]
pub struct Change {
    /// Counts all changes since the start; the first is 1.
    pub seq: u64,
    /// Whose.
    pub who: Who,
    /// The state it entered.
    pub to: &'static str,
    /// Why.
    pub cause: String,
}

/// The hub.
#[derive(Debug)]
pub struct Changes {
    sender: broadcast::Sender<Arc<Change>>,
    seq: Mutex<u64>,
}

impl Default for Changes {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(CHANGES_KEPT_MAX),
            seq: Mutex::new(0),
        }
    }
}

impl Changes {
    /// Somebody entered a state. Call it when the state can be seen.
    pub fn note(&self, to: &'static str, cause: &str, who: impl FnOnce() -> Who) {
        // Numbered and sent under one lock, so that nobody sees them out of order.
        let mut seq = self.seq.lock();
        *seq += 1;
        if self.sender.receiver_count() == 0 {
            return;
        }
        let change = Change {
            seq: *seq,
            who: who(),
            to,
            cause: cause.to_owned(),
        };
        // The last follower may have left in this moment.
        let _ = self.sender.send(Arc::new(change));
    }

    /// What changes from here on, and the number of the last change before it. A picture taken
    /// after this call holds every change up to that number, and perhaps some that are still to
    /// be received.
    #[must_use]
    pub fn follow(&self) -> (u64, broadcast::Receiver<Arc<Change>>) {
        let seq = self.seq.lock();
        (*seq, self.sender.subscribe())
    }

    /// How many follow.
    #[must_use]
    pub fn followers(&self) -> usize {
        self.sender.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn followers_get_every_change_from_their_number_on_and_in_order() {
        let changes = Arc::new(Changes::default());
        changes.note("up", "before anybody looked", || Who::Service("audit"));
        let (seq, mut follower) = changes.follow();
        assert_eq!(seq, 1);
        let noting: Vec<_> = (0..4)
            .map(|_| {
                let changes = Arc::clone(&changes);
                std::thread::spawn(move || {
                    for _ in 0..CHANGES_KEPT_MAX / 4 {
                        changes.note("up", "", || Who::Service("audit"));
                    }
                })
            })
            .collect();
        for thread in noting {
            thread.join().unwrap();
        }
        for expected in 2.. {
            let Ok(change) = follower.try_recv() else {
                assert_eq!(expected, 2 + CHANGES_KEPT_MAX as u64);
                break;
            };
            assert_eq!(change.seq, expected);
        }
    }

    #[tokio::test]
    async fn who_is_too_slow_is_told_so() {
        let changes = Changes::default();
        let (_, mut follower) = changes.follow();
        for _ in 0..=CHANGES_KEPT_MAX {
            changes.note("up", "", || Who::Service("audit"));
        }
        let lagged = follower.recv().await.unwrap_err();
        assert!(matches!(lagged, broadcast::error::RecvError::Lagged(_)));
    }
}
