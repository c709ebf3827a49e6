//! Whose memory limit the kernel enforced.

/// Whose limit it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OomScope {
    /// The isolate's own.
    Isolate,
    /// The sum of the user's isolates.
    User,
    /// The host's memory, or a budget above the user.
    Host,
}

/// What the kernel counted in one group, not in those below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Processes killed for memory (`oom_kill`).
    pub kills: u64,
    /// How often its own limit was what ran out: v2 `oom` of `memory.events.local`; v1 `failcnt` of
    /// memory and of memory+swap together.
    pub hits: u64,
}

/// Attributes an OOM kill, after the run: a leaf starts from zero, the user's group has a past.
/// No kill in the leaf means that memory was not the cause, whatever signal ended it.
#[must_use]
pub fn attribute(leaf: Counters, user_before: Counters, user_after: Counters) -> Option<OomScope> {
    if leaf.kills == 0 {
        None
    } else if leaf.hits > 0 {
        Some(OomScope::Isolate)
    } else if user_after.hits > user_before.hits {
        Some(OomScope::User)
    } else {
        Some(OomScope::Host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(kills: u64, hits: u64) -> Counters {
        Counters { kills, hits }
    }

    #[test]
    fn attribution_table() {
        let zero = Counters::default();
        let cases = [
            (zero, zero, zero, None),
            // Reclaim at the limit without a kill is no OOM.
            (counters(0, 9), zero, counters(0, 9), None),
            (counters(1, 36), zero, zero, Some(OomScope::Isolate)),
            // Both limits were hit: the nearer one is what the operator can raise first.
            (
                counters(1, 1),
                zero,
                counters(0, 5),
                Some(OomScope::Isolate),
            ),
            (counters(2, 0), zero, counters(0, 1), Some(OomScope::User)),
            // The user's group was hit before this run, not during it.
            (
                counters(1, 0),
                counters(0, 4),
                counters(0, 4),
                Some(OomScope::Host),
            ),
            (counters(1, 0), zero, zero, Some(OomScope::Host)),
        ];
        for (leaf, before, after, expected) in cases {
            assert_eq!(
                attribute(leaf, before, after),
                expected,
                "{leaf:?} {before:?} {after:?}"
            );
        }
    }
}
