//! Bounds of the admin socket.

use std::time::Duration;

limits! {
    /// Bytes of one request body on the admin socket.
    pub const ADMIN_BODY_BYTES_MAX: usize = 1 << 20;
    /// Bytes of one answer the command line reads from the admin socket.
    pub const ADMIN_ANSWER_BYTES_MAX: usize = 64 << 20;
    /// How long the command line waits for the admin socket to accept.
    pub const ADMIN_CONNECT_MAX: Duration = Duration::from_secs(5);
    /// How long the command line waits for an answer.
    pub const ADMIN_ANSWER_MAX: Duration = Duration::from_secs(30);
    /// How long it waits where a server is started first, beyond that server's own deadline.
    pub const ADMIN_START_ANSWER_MAX: Duration = Duration::from_secs(600);
    /// How often the admin socket's place is looked at: one that was removed is made again.
    pub const SOCKET_LOOK: Duration = Duration::from_secs(1);
}
