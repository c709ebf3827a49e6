//! A gate: open, draining or shut; checked first by every call, at the cost of one load.
//!
//! The gate and the pending table together keep one promise, modelled in `tests/loom.rs`: a call
//! that passes the gate and registers is either seen by whoever drains or shuts, or itself sees
//! that the gate is no longer open. So callers check the gate again after registering.

use super::sync::{AtomicU8, Ordering};

/// What a gate lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Calls pass.
    Open,
    /// New calls wait for the next run; calls in flight finish.
    Draining,
    /// Nothing passes, ever again.
    Shut,
}

/// One gate.
#[derive(Debug)]
pub struct Gate(AtomicU8);

impl Gate {
    /// A gate in the given position.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self(AtomicU8::new(position as u8))
    }

    /// Where it is now.
    #[must_use]
    pub fn position(&self) -> Position {
        match self.0.load(Ordering::Acquire) {
            0 => Position::Open,
            1 => Position::Draining,
            _ => Position::Shut,
        }
    }

    /// Whether calls pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.position() == Position::Open
    }

    /// Open to draining; tells whether it was open.
    pub fn drain(&self) -> bool {
        self.step(Position::Open, Position::Draining)
    }

    /// Draining back to open, if nobody shut it meanwhile.
    pub fn reopen(&self) -> bool {
        self.step(Position::Draining, Position::Open)
    }

    /// Shuts for good.
    pub fn shut(&self) {
        self.0.store(Position::Shut as u8, Ordering::Release);
    }

    fn step(&self, from: Position, to: Position) -> bool {
        self.0
            .compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}
