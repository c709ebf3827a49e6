//! The supervision tree, the slots, and the handles that carry calls past it.

pub mod gate;
pub mod handle;
pub mod launcher;
pub mod pending;
mod sync;
