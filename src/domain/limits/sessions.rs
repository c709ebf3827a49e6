//! Bounds of sessions and of those who register.

use std::time::Duration;

limits! {
    /// Live sessions one key may have.
    pub const SESSIONS_PER_KEY_MAX: usize = 256;
    /// Live sessions of the whole server.
    pub const SESSIONS_MAX: usize = 100_000;
    /// Failed registrations remembered (by key prefix).
    pub const FAILED_KEYS_MAX: usize = 4096;
    /// Failed registrations one key prefix may make in [`FAILED_KEY_WINDOW`].
    pub const FAILED_KEY_TRIES_MAX: u32 = 10;
    /// The window of [`FAILED_KEY_TRIES_MAX`].
    pub const FAILED_KEY_WINDOW: Duration = Duration::from_secs(60);
    /// A session without activity expires after this.
    pub const SESSION_TTL: Duration = Duration::from_secs(24 * 3600);
    /// A token past its age, or signed by a rotated key, still works this long.
    pub const TOKEN_GRACE: Duration = Duration::from_secs(60);
    /// Characters in what a client calls itself and in the name of its AI tool.
    pub const LABEL_CHARS_MAX: usize = 128;
    /// Bytes of a preshared key as a client presents it.
    pub const PRESENTED_KEY_BYTES_MAX: usize = 256;
}
