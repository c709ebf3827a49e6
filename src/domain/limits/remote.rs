//! Bounds of servers that are spoken to over HTTP.

use std::time::Duration;

limits! {
    /// Bytes of the address of a server behind HTTP.
    pub const REMOTE_URL_BYTES_MAX: usize = 2048;
    /// Headers that a definition adds to every request.
    pub const REMOTE_HEADERS_MAX: usize = 32;
    /// Bytes of those headers.
    pub const REMOTE_HEADERS_BYTES_MAX: usize = 8 << 10;
    /// How long a connection to a server behind HTTP may take, name, TLS and all.
    pub const REMOTE_CONNECT_WAIT: Duration = Duration::from_secs(10);
    /// Requests to one server behind HTTP under way for one isolate.
    pub const REMOTE_POSTS_MAX: usize = 160;
    /// Connections to all servers behind HTTP.
    pub const REMOTE_CONNECTIONS_ALL_MAX: usize = 4096;
    /// Those of them on which the gateway only listens.
    pub const REMOTE_LISTENING_MAX: usize = REMOTE_CONNECTIONS_ALL_MAX / 2;
    /// Messages of one server behind HTTP in a second; it is read more slowly if it has more.
    pub const REMOTE_MESSAGES_PER_SECOND: u32 = 10_000;
    /// Connections that one isolate of a server behind HTTP keeps for the next request.
    pub const REMOTE_IDLE_CONNECTIONS_MAX: usize = 8;
    /// How long such a connection is kept.
    pub const REMOTE_IDLE_CONNECTION: Duration = Duration::from_secs(4);
    /// Bytes of answers that one isolate of a server behind HTTP has received in part.
    pub const REMOTE_PARTIAL_BYTES_MAX: usize = 64 << 20;
    /// Bytes of an answer that refuses, as far as they are read.
    pub const REMOTE_REFUSAL_BYTES_MAX: usize = 8 << 10;
    /// How long such an answer may take to be read, and the answer to a notification to come.
    pub const REMOTE_SHORT_WAIT: Duration = Duration::from_secs(10);
    /// Requests in a row that a server behind HTTP fails before its isolate ends and backs off.
    pub const REMOTE_FAILURES_MAX: u32 = 3;
    /// How often a stream that was cut is taken up again before its call fails.
    pub const REMOTE_RESUMES_MAX: u32 = 5;
    /// The shortest pause before a stream is asked for again.
    pub const REMOTE_STREAM_RETRY_MIN: Duration = Duration::from_secs(1);
    /// The longest pause before a stream is asked for again, whatever the server says.
    pub const REMOTE_STREAM_RETRY_MAX: Duration = Duration::from_secs(60);
    /// How long telling a server that its session is over may take.
    pub const REMOTE_FAREWELL_WAIT: Duration = Duration::from_secs(1);
    /// Bytes of the name of an event or its id.
    pub const REMOTE_EVENT_NAME_BYTES_MAX: usize = 1024;
}
