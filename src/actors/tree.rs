//! The tree as it stands, for those who look: the state and the last changes of each service and
//! of each user's supervisor.
//!
//! Supervisors write here what they do; nobody decides anything by it. Isolates and sessions are
//! not kept here: what is known of them is drawn from their own cells.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use crate::domain::ids::UserId;
use crate::domain::limits::{TRANSITIONS_MAX, TREE_USERS_MAX};

use super::changes::{Changes, Who};
use super::slot::Transition;
use super::sync::Mutex;

/// What is known of one supervised actor.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Its state in one word.
    pub state: &'static str,
    /// Since when.
    pub since: Instant,
    /// How often it was restarted.
    pub restarts: u32,
    /// Its last changes, oldest first.
    pub transitions: VecDeque<Transition>,
}

/// The services by name, and the users.
#[derive(Debug)]
pub struct Tree {
    changes: Arc<Changes>,
    services: Mutex<HashMap<&'static str, Branch>>,
    users: Mutex<HashMap<UserId, Branch>>,
}

impl Tree {
    /// An empty tree whose changes are told there.
    #[must_use]
    pub fn new(changes: Arc<Changes>) -> Self {
        Self {
            changes,
            services: Mutex::default(),
            users: Mutex::default(),
        }
    }

    /// A service changed.
    pub fn note(&self, name: &'static str, state: &'static str, cause: &str) {
        self.services
            .lock()
            .entry(name)
            .or_insert_with(Branch::new)
            .enter(state, cause);
        self.changes.note(state, cause, || Who::Service(name));
    }

    /// A user's supervisor changed. The users that have been down for longest are forgotten first.
    pub fn note_user(&self, user: &UserId, state: &'static str, cause: &str) {
        {
            let mut users = self.users.lock();
            if users.len() >= TREE_USERS_MAX && !users.contains_key(user) {
                let oldest = users
                    .iter()
                    .min_by_key(|(_, branch)| (branch.state != "down", branch.since))
                    .map(|(user, _)| user.clone());
                oldest.map(|user| users.remove(&user));
            }
            users
                .entry(user.clone())
                .or_insert_with(Branch::new)
                .enter(state, cause);
        }
        self.changes.note(state, cause, || Who::User(user.clone()));
    }

    /// What is known of a service.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Branch> {
        self.services.lock().get(name).cloned()
    }

    /// What is known of a user's supervisor.
    #[must_use]
    pub fn user(&self, user: &UserId) -> Option<Branch> {
        self.users.lock().get(user).cloned()
    }
}

impl Branch {
    fn new() -> Self {
        Self {
            state: "new",
            since: Instant::now(),
            restarts: 0,
            transitions: VecDeque::new(),
        }
    }

    fn enter(&mut self, state: &'static str, cause: &str) {
        let now = Instant::now();
        if state == "waiting" {
            self.restarts += 1;
        }
        (self.state, self.since) = (state, now);
        if self.transitions.len() == TRANSITIONS_MAX {
            self.transitions.pop_front();
        }
        self.transitions.push_back(Transition {
            at: now,
            to: state,
            cause: cause.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn user(n: usize) -> UserId {
        let mut bytes = [0; ID_BYTES];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        UserId::from_random(bytes)
    }

    #[test]
    fn the_last_changes_are_kept_and_no_more() {
        let tree = Tree::new(Arc::default());
        for n in 0..TRANSITIONS_MAX + 3 {
            tree.note("audit", "waiting", &n.to_string());
        }
        let branch = tree.get("audit").unwrap();
        assert_eq!(branch.restarts as usize, TRANSITIONS_MAX + 3);
        assert_eq!(branch.transitions.len(), TRANSITIONS_MAX);
        assert_eq!(branch.transitions.front().unwrap().cause, "3");
    }

    #[test]
    fn users_that_are_down_make_room() {
        let tree = Tree::new(Arc::default());
        tree.note_user(&user(0), "up", "a call");
        tree.note_user(&user(1), "down", "idle");
        for n in 2..=TREE_USERS_MAX {
            tree.note_user(&user(n), "up", "a call");
        }
        assert!(tree.user(&user(1)).is_none());
        assert!(tree.user(&user(0)).is_some() && tree.user(&user(TREE_USERS_MAX)).is_some());
    }
}
