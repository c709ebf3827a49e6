//! The tree as it stands, for those who look: each service's state and its last changes.
//!
//! Supervisors write here what they do; nobody decides anything by it. Users and isolates are not
//! kept here: the view is drawn from the slots themselves.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

use crate::domain::limits::TRANSITIONS_MAX;

use super::slot::Transition;
use super::sync::Mutex;

/// What is known of one service.
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

/// The services by name.
#[derive(Debug, Default)]
pub struct Tree(Mutex<HashMap<&'static str, Branch>>);

impl Tree {
    /// A service changed.
    pub fn note(&self, name: &'static str, state: &'static str, cause: &str) {
        let now = Instant::now();
        let mut branches = self.0.lock();
        let branch = branches.entry(name).or_insert_with(|| Branch {
            state,
            since: now,
            restarts: 0,
            transitions: VecDeque::new(),
        });
        if state == "waiting" {
            branch.restarts += 1;
        }
        (branch.state, branch.since) = (state, now);
        if branch.transitions.len() == TRANSITIONS_MAX {
            branch.transitions.pop_front();
        }
        branch.transitions.push_back(Transition {
            at: now,
            to: state,
            cause: cause.to_owned(),
        });
    }

    /// What is known of a service.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Branch> {
        self.0.lock().get(name).cloned()
    }
}
