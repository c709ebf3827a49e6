//! The calls in flight on one run, by our id.
//!
//! Closing is final and atomic with registering: a waiter is either in the list that `close`
//! returns, or its registration is refused with the reason. No third way, so no call can be
//! registered in the moment its run dies and then wait for nobody.

use std::collections::HashMap;

use super::sync::Mutex;

/// Waiters `W` by id, until closed for a reason `R`.
#[derive(Debug)]
pub struct Pending<W, R>(Mutex<State<W, R>>);

#[derive(Debug)]
enum State<W, R> {
    Open(HashMap<u64, W>),
    Closed(R),
}

impl<W, R: Clone> Pending<W, R> {
    /// An open, empty table.
    #[must_use]
    pub fn new() -> Self {
        Self(Mutex::new(State::Open(HashMap::new())))
    }

    /// Registers a waiter.
    ///
    /// # Errors
    /// The reason, if the table is closed.
    pub fn insert(&self, id: u64, waiter: W) -> Result<(), R> {
        match &mut *self.0.lock() {
            State::Open(waiters) => {
                waiters.insert(id, waiter);
                Ok(())
            }
            State::Closed(reason) => Err(reason.clone()),
        }
    }

    /// Takes a waiter out; `None` if it is gone or never was.
    pub fn take(&self, id: u64) -> Option<W> {
        match &mut *self.0.lock() {
            State::Open(waiters) => waiters.remove(&id),
            State::Closed(_) => None,
        }
    }

    /// Whether somebody still waits for this id.
    #[must_use]
    pub fn contains(&self, id: u64) -> bool {
        match &*self.0.lock() {
            State::Open(waiters) => waiters.contains_key(&id),
            State::Closed(_) => false,
        }
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        match &*self.0.lock() {
            State::Open(waiters) => waiters.len(),
            State::Closed(_) => 0,
        }
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the table and gives all who waited; a second close gives nobody and keeps the first
    /// reason.
    pub fn close(&self, reason: R) -> Vec<W> {
        let mut state = self.0.lock();
        match &mut *state {
            State::Open(waiters) => {
                let all = std::mem::take(waiters).into_values().collect();
                *state = State::Closed(reason);
                all
            }
            State::Closed(_) => Vec::new(),
        }
    }

    /// Why the table is closed, if it is.
    #[must_use]
    pub fn closed(&self) -> Option<R> {
        match &*self.0.lock() {
            State::Open(_) => None,
            State::Closed(reason) => Some(reason.clone()),
        }
    }
}

impl<W, R: Clone> Default for Pending<W, R> {
    fn default() -> Self {
        Self::new()
    }
}
