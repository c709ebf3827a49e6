//! How many connections go out at once: of one isolate, of one user, of all.
//!
//! Who has none left waits in the isolate's own line, in the kernel; only where all have none left is anybody
//! turned away.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::actors::sync::Mutex;
use crate::domain::ids::UserId;
use crate::domain::limits::{
    EGRESS_CONNECTIONS_ALL_MAX, EGRESS_CONNECTIONS_MAX, EGRESS_CONNECTIONS_USER_MAX,
};

/// Connections out of all isolates.
static ALL: Semaphore = Semaphore::const_new(EGRESS_CONNECTIONS_ALL_MAX);

/// The users that have a run with a way out.
#[derive(Debug, Default)]
pub(in crate::actors::jail) struct Users(Mutex<HashMap<UserId, Weak<Semaphore>>>);

/// The places of one run.
#[derive(Debug)]
pub(super) struct Places {
    own: Arc<Semaphore>,
    /// `None` for a shared instance, which is nobody's.
    user: Option<Arc<Semaphore>>,
}

/// Leave for one connection, given back on drop.
#[derive(Debug)]
pub(super) struct Place {
    _own: OwnedSemaphorePermit,
    _user: Option<OwnedSemaphorePermit>,
    _all: SemaphorePermit<'static>,
}

/// All places of the host are taken.
#[derive(Debug)]
pub(super) struct Full;

// === impl Users ===

impl Users {
    /// The places of a run of this user.
    pub(super) fn places(&self, user: Option<&UserId>) -> Places {
        Places {
            own: Arc::new(Semaphore::new(EGRESS_CONNECTIONS_MAX)),
            user: user.map(|user| self.of(user)),
        }
    }

    fn of(&self, user: &UserId) -> Arc<Semaphore> {
        let mut users = self.0.lock();
        if let Some(places) = users.get(user).and_then(Weak::upgrade) {
            return places;
        }
        // Those whose runs are over.
        users.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(EGRESS_CONNECTIONS_USER_MAX));
        users.insert(user.clone(), Arc::downgrade(&places));
        places
    }
}

// === impl Places ===

impl Places {
    /// Waits for a place of the isolate and one of its user. None of these is ever closed.
    pub(super) async fn take(&self) -> Result<Place, Full> {
        let own = Arc::clone(&self.own).acquire_owned().await;
        let user = match &self.user {
            Some(user) => Arc::clone(user).acquire_owned().await.ok(),
            None => None,
        };
        Ok(Place {
            _own: own.map_err(|_| Full)?,
            _user: user,
            _all: ALL.try_acquire().map_err(|_| Full)?,
        })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> u64 {
        EGRESS_CONNECTIONS_MAX.saturating_sub(self.own.available_permits()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn user(n: u8) -> UserId {
        UserId::from_random([n; ID_BYTES])
    }

    async fn is_full(places: &Places) -> bool {
        let wait = Duration::from_millis(1);
        tokio::time::timeout(wait, places.take()).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn one_isolate_has_its_own_and_all_of_a_user_have_theirs() {
        let users = Users::default();
        let (ada, ben) = (user(1), user(2));
        let mut held = Vec::new();
        let runs: Vec<Places> = (0..=EGRESS_CONNECTIONS_USER_MAX / EGRESS_CONNECTIONS_MAX)
            .map(|_| users.places(Some(&ada)))
            .collect();
        let (last, others) = runs.split_last().unwrap();
        for run in others {
            for _ in 0..EGRESS_CONNECTIONS_MAX {
                held.push(run.take().await.unwrap());
            }
            assert!(is_full(run).await);
            assert_eq!(run.taken(), EGRESS_CONNECTIONS_MAX as u64);
        }
        assert_eq!(held.len(), EGRESS_CONNECTIONS_USER_MAX);
        assert!(is_full(last).await, "her other isolates took all of hers");
        assert!(!is_full(&users.places(Some(&ben))).await);
        assert!(!is_full(&users.places(None)).await);
        held.pop();
        assert!(!is_full(last).await, "what is given back is taken");
    }

    #[test]
    fn who_has_no_run_is_not_kept() {
        let users = Users::default();
        drop(users.places(Some(&user(1))));
        let kept = users.places(Some(&user(2)));
        assert_eq!(users.0.lock().len(), 1);
        drop(kept);
    }
}
