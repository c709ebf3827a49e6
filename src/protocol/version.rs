//! Versions of MCP.

/// Those that begin with `initialize` and that are spoken over Streamable HTTP, the newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// What a client that asks for `wanted` is answered: the same if we speak it, else our newest.
#[must_use]
pub fn negotiate(wanted: &str) -> &'static str {
    let [newest, ..] = LEGACY;
    LEGACY
        .into_iter()
        .find(|version| *version == wanted)
        .unwrap_or(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_or_our_newest() {
        assert_eq!(negotiate("2025-06-18"), "2025-06-18");
        for other in ["2024-11-05", "2026-07-28", "", "x"] {
            assert_eq!(negotiate(other), "2025-11-25");
        }
    }
}
