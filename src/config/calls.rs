//! `[calls]`: bounds of one tool call.

use super::schema::{section, within};
use crate::domain::limits;

section! {
    /// Tool calls. An mcp's own times and limits go before these; what it does not set follows them.
    Calls = "calls" {
        /// From admission to answer.
        deadline_ms: u64 = limits::millis(limits::CALL_DEADLINE),
            within(100, limits::millis(limits::CALL_DEADLINE_MAX));
        /// Calls that one key's clients may make a minute, a sixth of them at once; 0: any number.
        per_key_minute_max: u32 = 0, within(0, 6_000_000);
        /// Calls in flight on one isolate.
        in_flight_max: usize = limits::IN_FLIGHT_MAX, within(1, 4096);
        /// Bytes of one line from a server.
        line_bytes_max: usize = limits::LINE_BYTES_MAX, within(64 << 10, 256 << 20);
        /// Bytes of one answer to a client; the standard client destroys more than 10 MiB.
        response_bytes_max: usize = limits::STANDARD_CLIENT_RESPONSE_BYTES_MAX,
            within(64 << 10, 256 << 20);
    }
}
