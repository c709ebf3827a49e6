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

    /// Takes out all waiters that are meant.
    pub fn take_where(&self, meant: impl Fn(&W) -> bool) -> Vec<(u64, W)> {
        match &mut *self.0.lock() {
            State::Open(waiters) => waiters.extract_if(|_, waiter| meant(waiter)).collect(),
            State::Closed(_) => Vec::new(),
        }
    }

    /// Puts another in the place of the first waiter that is meant, in one step: an answer reaches
    /// the one or the other.
    pub fn swap(&self, meant: impl Fn(&W) -> bool, other: W) -> Option<(u64, W)> {
        match &mut *self.0.lock() {
            State::Open(waiters) => {
                let (id, waiter) = waiters.iter_mut().find(|(_, waiter)| meant(waiter))?;
                Some((*id, std::mem::replace(waiter, other)))
            }
            State::Closed(_) => None,
        }
    }

    /// Looks at the waiter of this id.
    pub fn look<T>(&self, id: u64, with: impl FnOnce(&W) -> T) -> Option<T> {
        match &*self.0.lock() {
            State::Open(waiters) => waiters.get(&id).map(with),
            State::Closed(_) => None,
        }
    }

    /// What is seen of every waiter.
    pub fn see<T>(&self, with: impl FnMut(&W) -> Option<T>) -> Vec<T> {
        match &*self.0.lock() {
            State::Open(waiters) => waiters.values().filter_map(with).collect(),
            State::Closed(_) => Vec::new(),
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
