//! Versions of MCP.

/// Those that begin with `initialize` and that are spoken over Streamable HTTP, the newest first.
pub const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

/// The same over HTTP+SSE, the transport of the oldest.
pub const OVER_SSE: [&str; 4] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];

/// The one whose clients take an event without a message at the beginning of a stream (SEP-1699).
pub const PRIMES: &str = "2025-11-25";

/// What a client that asks for `wanted` is answered: the same if it is spoken, else the newest that is.
#[must_use]
pub fn negotiate(wanted: &str, spoken: &[&'static str]) -> &'static str {
    let same = spoken.iter().find(|version| **version == wanted);
    same.or(spoken.first()).copied().unwrap_or(LEGACY[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_or_our_newest() {
        assert_eq!(negotiate("2025-06-18", &LEGACY), "2025-06-18");
        for other in ["2024-11-05", "2026-07-28", "", "x"] {
            assert_eq!(negotiate(other, &LEGACY), "2025-11-25");
        }
        assert_eq!(negotiate("2024-11-05", &OVER_SSE), "2024-11-05");
        assert_eq!(negotiate("2026-07-28", &OVER_SSE), "2025-11-25");
    }
}
