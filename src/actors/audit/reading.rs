//! For tests: what is in a log.

use std::path::Path;

use super::files::{Lines, segments};

/// All records in the directory, as JSON, but those the log makes of itself.
pub(crate) fn records(dir: &Path) -> Vec<serde_json::Value> {
    let own = |record: &serde_json::Value| {
        record["event"]
            .as_str()
            .is_some_and(|event| event.starts_with("system."))
    };
    all(dir).into_iter().filter(|record| !own(record)).collect()
}

/// All records in the directory, as JSON.
pub(crate) fn all(dir: &Path) -> Vec<serde_json::Value> {
    let mut found = Vec::new();
    for segment in segments(dir).unwrap() {
        let mut lines = Lines::open(&segment.path, 0).unwrap();
        while let Some(line) = lines.next().unwrap() {
            found.push(serde_json::from_slice(line).unwrap());
        }
    }
    found
}
