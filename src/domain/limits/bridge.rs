//! Bounds of `legation bridge`, which speaks stdio to an AI tool and HTTP to the server, and of
//! `legation connect`.

use std::time::Duration;

limits! {
    /// Requests of an AI tool that the bridge has under way.
    pub const BRIDGE_REQUESTS_MAX: usize = 64;
    /// Notifications and answers of an AI tool that wait to be sent on.
    pub const BRIDGE_NOTICES_MAX: usize = 64;
    /// Lines that wait for an AI tool to read them.
    pub const BRIDGE_LINES_MAX: usize = 64;
    /// Bytes of one line from an AI tool.
    pub const BRIDGE_LINE_BYTES_MAX: usize = 16 << 20;
    /// Bytes of one answer, or of one event of a stream, from the server.
    pub const BRIDGE_ANSWER_BYTES_MAX: usize = 32 << 20;
    /// Bytes of an answer that refuses.
    pub const BRIDGE_REFUSAL_BYTES_MAX: usize = 64 << 10;
    /// How long a connection to the server may take, TLS and all.
    pub const BRIDGE_CONNECT_MAX: Duration = Duration::from_secs(5);
    /// How long `initialize`, a list, a notification and the beginning of a stream may take to be answered.
    pub const BRIDGE_BEGIN_WAIT: Duration = Duration::from_secs(30);
    /// How long any other request may take to be answered: a little longer than the longest call.
    pub const BRIDGE_ANSWER_WAIT: Duration = Duration::from_secs(3660);
    /// How long the server may say nothing about a request that it has, or on a stream, before that counts as lost; it
    /// says more often that it lives.
    pub const BRIDGE_SILENCE_MAX: Duration = Duration::from_secs(45);
    /// Bytes of a message that a connection takes in a second at least: so much longer a large one may take.
    pub const BRIDGE_SENT_BYTES_MIN: usize = 32 << 10;
    /// How long after the server went away requests wait for it; later they are tried once and answered.
    pub const BRIDGE_AWAY_WAIT: Duration = Duration::from_secs(10);
    /// The first pause before the bridge tries again; doubled each time, half of it random.
    pub const BRIDGE_RETRY_FLOOR: Duration = Duration::from_millis(250);
    /// The longest pause before the bridge tries again.
    pub const BRIDGE_RETRY_CAP: Duration = Duration::from_secs(30);
    /// How long requests under way may take to end once the AI tool has left.
    pub const BRIDGE_GRACE: Duration = Duration::from_secs(3);
    /// How long the bridge takes to end its session and to write what is left.
    pub const BRIDGE_LEAVE_MAX: Duration = Duration::from_secs(2);
    /// How long a cancelled request may take to end before it is let go.
    pub const BRIDGE_CANCEL_WAIT: Duration = Duration::from_secs(2);
    /// Resources that the bridge subscribes to again.
    pub const BRIDGE_WATCHED_MAX: usize = 1024;
    /// How often the bridge asks again for what a session held, with the pauses above between: about five minutes.
    pub const BRIDGE_WISH_TRIES_MAX: u32 = 20;
    /// Bytes of the bridge's cache of the last good answers.
    pub const BRIDGE_CACHE_BYTES_MAX: usize = 8 << 20;
    /// Bytes of the bridge's log before a new file is begun.
    pub const BRIDGE_LOG_BYTES_MAX: u64 = 5 << 20;
    /// Files of the bridge's log, the current one included.
    pub const BRIDGE_LOG_FILES_MAX: usize = 5;
    /// Bytes of a file of certificate authorities.
    pub const BRIDGE_ROOTS_BYTES_MAX: u64 = 4 << 20;
    /// Bytes of the bridge's configuration file, and of a file with a key.
    pub const BRIDGE_FILE_BYTES_MAX: u64 = 64 << 10;
    /// Bytes of an AI tool's configuration file that `connect` edits.
    pub const CONNECT_FILE_BYTES_MAX: u64 = 4 << 20;
}
