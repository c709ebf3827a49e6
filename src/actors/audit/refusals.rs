//! A brake on the records of refused authentication, and of calls beyond their rate: the first of its kind in a window is recorded
//! in full, the others are counted, and the count is a record. So a flood is on record and does
//! not fill the disk.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::domain::account::Millis;
use crate::domain::limits::{AUDIT_REFUSALS_MAX, AUDIT_REFUSALS_WINDOW};

use super::super::sync::Mutex;
use super::Entry;

/// What was refused, if it is a call.
pub(in crate::actors) const CALL: &str = "call";

/// What is alike: who was refused, where, and with which code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    what: &'static str,
    who: Box<str>,
    code: &'static str,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    /// Not on record yet.
    counted: u64,
    /// Since when that is.
    untold: Instant,
}

impl Window {
    fn new() -> Self {
        let since = Instant::now();
        Self {
            since,
            counted: 0,
            untold: since,
        }
    }
}

/// The refusals of the last window.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<HashMap<Kind, Window>>);

impl Refusals {
    /// Takes note of a refusal; `true` if it is to be recorded in full.
    pub(in crate::actors) fn is_first(
        &self,
        what: &'static str,
        who: &str,
        code: &'static str,
    ) -> bool {
        let mut windows = self.0.lock();
        let kind = |who: &str| Kind {
            what,
            who: who.into(),
            code,
        };
        let mut known = kind(who);
        if !windows.contains_key(&known) && windows.len() >= AUDIT_REFUSALS_MAX {
            // Whoever tries many names is one flood.
            known = kind("");
            windows.entry(known.clone()).or_insert_with(Window::new);
        }
        match windows.get_mut(&known) {
            Some(window) => {
                window.counted += 1;
                false
            }
            None => {
                windows.insert(known, Window::new());
                true
            }
        }
    }

    /// Gives what was counted since the last time as records, and ends the windows that are over, or all of them:
    /// what a crash takes with it is the counts of the moments between.
    pub(in crate::actors) fn sweep(&self, at: Millis, all: bool) -> Vec<Entry> {
        let mut entries = Vec::new();
        self.0.lock().retain(|kind, window| {
            let counted = std::mem::take(&mut window.counted);
            if counted > 0 {
                let within = std::mem::replace(&mut window.untold, Instant::now()).elapsed();
                let who = if kind.who.is_empty() {
                    "others"
                } else {
                    &kind.who
                };
                let event = match kind.what {
                    CALL => "call.refused_more",
                    _ => "auth.refused_more",
                };
                entries.push(
                    Entry::new(event, at)
                        .field("what", kind.what)
                        .field("who", who)
                        .field("code", kind.code)
                        .number("count", counted)
                        .number(
                            "within_ms",
                            u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
                        ),
                );
            }
            !all && window.since.elapsed() < AUDIT_REFUSALS_WINDOW
        });
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_the_rest_is_counted() {
        let refusals = Refusals::default();
        assert!(refusals.is_first("token", "a", "x"));
        assert!(!refusals.is_first("token", "a", "x"));
        assert!(refusals.is_first("token", "a", "y"));
        assert!(refusals.is_first("key", "a", "x"));
        let told = |count: u64| {
            let told = refusals.sweep(1, false);
            assert_eq!(told.len(), 1);
            let text = String::from_utf8_lossy(told[0].fields()).into_owned();
            assert!(text.contains(&format!("\"count\":{count}")), "{text}");
        };
        // At once, not with the window's end: a crash takes little of it.
        told(1);
        assert!(refusals.sweep(1, false).is_empty(), "each is told once");
        assert!(!refusals.is_first("token", "a", "x"), "the same window");
        assert!(!refusals.is_first("token", "a", "x"));
        tokio::time::advance(AUDIT_REFUSALS_WINDOW).await;
        told(2);
        assert!(refusals.is_first("token", "a", "x"), "a new window");
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_names_is_bounded() {
        let refusals = Refusals::default();
        let full = (0..10_000)
            .filter(|n| refusals.is_first("key", &n.to_string(), "x"))
            .count();
        assert_eq!(full, AUDIT_REFUSALS_MAX);
        let told = refusals.sweep(1, true);
        assert_eq!(told.len(), 1);
        let text = String::from_utf8_lossy(told[0].fields()).into_owned();
        let rest = 10_000 - AUDIT_REFUSALS_MAX;
        assert!(
            text.contains("others") && text.contains(&format!("\"count\":{rest}")),
            "{text}"
        );
    }
}
