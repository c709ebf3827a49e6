//! The supervision tree, the slots, and the handles that carry calls past it.

pub mod jail;
pub mod launcher;
