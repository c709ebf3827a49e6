//! The primitives the gate and the pending table are built on. The loom model in `tests/loom.rs`
//! includes those two files beside a `sync` module of its own.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};

/// A mutex whose data stays usable after a panic elsewhere: what it guards is never left half
/// changed.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> std::sync::MutexGuard<'_, T> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
