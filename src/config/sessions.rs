//! `[sessions]`: how long clients stay registered and how often they may try.

use super::schema::{section, within};
use crate::domain::limits;

section! {
    /// Registered clients.
    Sessions = "sessions" {
        /// A session without activity ends after this.
        ttl_ms: u64 = limits::millis(limits::SESSION_TTL), within(60_000, 90 * 86_400_000);
        /// A token past its age, or signed by a rotated key, works this much longer.
        token_grace_ms: u64 = limits::millis(limits::TOKEN_GRACE), within(0, 3_600_000);
        /// Live sessions of one key.
        per_key_max: usize = limits::SESSIONS_PER_KEY_MAX, within(1, 10_000);
        /// Failed registrations of one key prefix in `failed_window_ms`.
        failed_tries_max: u32 = limits::FAILED_KEY_TRIES_MAX, within(1, 1_000);
        /// The window of `failed_tries_max`.
        failed_window_ms: u64 = limits::millis(limits::FAILED_KEY_WINDOW), within(1_000, 3_600_000);
    }
}
