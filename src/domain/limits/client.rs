//! Bounds of the client port: connections, requests, answers, certificates.

use std::time::Duration;

limits! {
    /// Bytes of one request body on the client port; configurable as `client.body_bytes_max`.
    pub const BODY_BYTES_MAX: usize = 4 << 20;
    /// The most that `client.body_bytes_max` can be set to.
    pub const BODY_BYTES_CEILING: usize = 64 << 20;
    /// Bytes of one answer the standard client accepts (it destroys anything larger).
    pub const STANDARD_CLIENT_RESPONSE_BYTES_MAX: usize = 10 << 20;
    /// Bytes of request headers on any listener.
    pub const HEADER_BYTES_MAX: usize = 16 << 10;
    /// Connections a listener serves at once.
    pub const CONNECTIONS_MAX: usize = 4096;
    /// How long a TLS handshake may take.
    pub const TLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);
    /// How long a client may take to send its request's headers.
    pub const HEADER_READ_MAX: Duration = Duration::from_secs(15);
    /// Bytes of a request or an answer that count against nobody.
    pub const LARGE_BYTES_MIN: usize = 256 << 10;
    /// Bytes of larger requests and answers of one key under way.
    pub const LARGE_BYTES_KEY_MAX: usize = 64 << 20;
    /// The same of all keys.
    pub const LARGE_BYTES_ALL_MAX: usize = 512 << 20;
    /// How long a client may take to send a whole request body.
    pub const BODY_READ_MAX: Duration = Duration::from_secs(30);
    /// A connection that is kept alive without a request closes after this.
    pub const KEEP_ALIVE_IDLE_MAX: Duration = Duration::from_secs(75);
    /// The same when a listener has few connections left.
    pub const CROWDED_IDLE_MAX: Duration = Duration::from_secs(5);
    /// How long a connection may take to come through its TLS handshake then.
    pub const CROWDED_HANDSHAKE_MAX: Duration = Duration::from_secs(2);
    /// Bytes of an oversized body that are read and thrown away, so that the client gets to read the
    /// refusal instead of a connection reset.
    pub const BODY_DISCARD_BYTES_MAX: usize = 16 << 20;
    /// How long throwing away an oversized body may take.
    pub const BODY_DISCARD_MAX: Duration = Duration::from_secs(2);
    /// Bytes of the body of a registration or a heartbeat.
    pub const SMALL_BODY_BYTES_MAX: usize = 8 << 10;
    /// Hops of a forwarded address that are looked at.
    pub const FORWARDED_HOPS_MAX: usize = 32;
    /// Bytes of a certificate or key file.
    pub const PEM_BYTES_MAX: u64 = 1 << 20;
    /// Between two looks at the certificate files.
    pub const TLS_RELOAD_EVERY: Duration = Duration::from_secs(30);
    /// How long a self-made certificate is valid (825 days is the most that all clients accept).
    pub const SELF_CERT_DAYS: i64 = 824;
    /// A self-made certificate is renewed this long before it ends.
    pub const SELF_CERT_RENEW_DAYS: i64 = 30;
    /// How long an accept loop waits after the system refused it a descriptor.
    pub const ACCEPT_RETRY: Duration = Duration::from_millis(100);
    /// Token keys that were rotated out and are in their grace.
    pub const TOKEN_KEYS_ROTATED_MAX: usize = 8;
}
