//! Bounds of what is said to servers of 2026-07-28.

use std::time::Duration;

limits! {
    /// How long a server may be silent to `server/discover` before it is asked as one of the older era.
    pub const ERA_PROBE_WAIT: Duration = Duration::from_secs(3);
    /// How long one that refuses `initialize` has to answer `server/discover`.
    pub const ERA_FALLBACK_WAIT: Duration = Duration::from_secs(5);
    /// Bytes of a server's own `requestState`.
    pub const REQUEST_STATE_BYTES_MAX: usize = 64 << 10;
    /// Bytes that a client answers in one round of a call.
    pub const ROUND_ANSWERS_BYTES_MAX: usize = 8 << 20;
    /// How long a `requestState` of a server that holds no call is good for.
    pub const REQUEST_STATE_LIFE: Duration = Duration::from_secs(600);
    /// How long a server's acknowledgement of a subscription is waited for: so long the one before stays open.
    pub const LISTEN_OPEN_WAIT: Duration = Duration::from_secs(2);
    /// How long a subscription over HTTP is still read when the next is acknowledged: what its server told before may be on its way.
    pub const LISTEN_LINGER: Duration = Duration::from_millis(250);
    /// How long to wait before a server that ended a subscription is asked for it again.
    pub const LISTEN_AGAIN_WAIT: Duration = Duration::from_secs(2);
    /// The same of one that ends it each time.
    pub const LISTEN_AGAIN_MAX: Duration = Duration::from_secs(300);
}
