//! The names of all events: whoever looks for another one is told so instead of "nothing".

use std::collections::BTreeSet;

/// Every event that a record can have, by name. `docs/audit.md` says what each means.
pub const EVENTS: &[&str] = &[
    "admin.action",
    "admin.user_cleared",
    "admin.user_removed",
    "auth.admin_denied",
    "auth.refused",
    "auth.refused_more",
    "auth.register",
    "auth.session_ended",
    "auth.sessions_ended",
    "call.cancelled",
    "call.end",
    "call.refused",
    "call.refused_more",
    "call.start",
    "credential.removed",
    "credential.set",
    "isolate.egress_denied",
    "isolate.ended",
    "isolate.install_failed",
    "isolate.installed",
    "isolate.limits_changed",
    "isolate.quarantined",
    "isolate.ready",
    "isolate.started",
    "isolate.stuck",
    "isolate.tools_adopted",
    "isolate.tools_changed",
    "kill.expired",
    "kill.off",
    "kill.on",
    "kill.reconciled",
    "system.checkpoint",
    "system.damaged",
    "system.genesis",
    "system.lost",
    "system.recovered",
    "system.removed",
    "system.segment",
    "system.started",
    "system.stopped",
    "system.torn",
];

/// Whether a filter with this word finds what can be there: an event, or what some begin with before a dot.
#[must_use]
pub fn is_event(word: &str) -> bool {
    words().contains(word)
}

/// All words that [`is_event`].
#[must_use]
pub fn words() -> BTreeSet<&'static str> {
    let classes = EVENTS
        .iter()
        .filter_map(|event| Some(event.split_once('.')?.0));
    EVENTS.iter().copied().chain(classes).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_event_or_its_class_is_known_and_nothing_else() {
        assert!(EVENTS.is_sorted());
        for word in ["kill", "kill.on", "call", "isolate.tools_changed"] {
            assert!(is_event(word), "{word}");
        }
        for word in ["", "bogus", "kil", "kill.", "kill.on.x", "tools_changed"] {
            assert!(!is_event(word), "{word}");
        }
    }

    /// The documentation groups them: `` `system.started`, `.stopped` ``.
    #[test]
    fn every_event_is_documented() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/audit.md");
        let text = std::fs::read_to_string(file).unwrap();
        let mut rows = text.lines().filter(|line| line.starts_with("| `"));
        for event in EVENTS {
            let (class, name) = event.split_once('.').unwrap();
            let says = |row: &str| {
                let first = row.split('|').nth(1).unwrap_or_default();
                let whole = first.contains(&format!("`{event}`"));
                let of_class = first.contains(&format!("`{class}."));
                whole || (of_class && first.contains(&format!("`.{name}`")))
            };
            assert!(rows.clone().any(says), "{event}");
        }
        assert!(rows.next().is_some());
    }
}
