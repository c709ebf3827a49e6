//! Options that a definition may leave to the configuration, with the word `default`.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::time::Duration;

use super::super::super::units::{Idle, parse_cpu, parse_deadline, parse_idle, parse_size};
use crate::domain::mcp::Usual;

/// A value of the definition's own, or the configuration's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own<T> {
    /// What the configuration says at each start.
    Configured,
    /// This.
    Value(T),
}

impl<T: Copy> Own<T> {
    /// The value, if it is the definition's own.
    pub(super) const fn value(self) -> Option<T> {
        match self {
            Self::Configured => None,
            Self::Value(value) => Some(value),
        }
    }
}

fn own<T, E: Display>(text: &str, parse: fn(&str) -> Result<T, E>) -> Result<Own<T>, String> {
    if text == "default" {
        return Ok(Own::Configured);
    }
    let wrong = |error: E| format!("{error}; or `default`, for what the configuration says");
    parse(text).map(Own::Value).map_err(wrong)
}

pub(super) fn memory(text: &str) -> Result<Own<u64>, String> {
    own(text, parse_size)
}

pub(super) fn pids(text: &str) -> Result<Own<u64>, String> {
    own(text, |text| match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a number of processes from 1 on")),
        Ok(count) => Ok(count),
    })
}

pub(super) fn cpu(text: &str) -> Result<Own<u64>, String> {
    own(text, parse_cpu)
}

pub(super) fn idle(text: &str) -> Result<Own<Idle>, String> {
    own(text, parse_idle)
}

pub(super) fn deadline(text: &str) -> Result<Own<Duration>, String> {
    own(text, parse_deadline)
}

/// Those that were given the word.
pub(super) fn left<const N: usize>(given: [(Usual, bool); N]) -> BTreeSet<Usual> {
    let left = given.into_iter().filter(|(_, configured)| *configured);
    left.map(|(value, _)| value).collect()
}
