//! Bounds of what isolates reach of the network.

use std::time::Duration;

limits! {
    /// Hosts an mcp names for its isolates to reach.
    pub const EGRESS_RULES_MAX: usize = 64;
    /// Different ports among them.
    pub const EGRESS_PORTS_MAX: usize = 8;
    /// The port of an isolate's own proxy, which no host can have.
    pub const EGRESS_PROXY_PORT: u16 = 3128;
    /// Bytes of a host's name.
    pub const EGRESS_HOST_BYTES_MAX: usize = 253;
    /// Connections out of one isolate at once; more wait in the kernel's line.
    pub const EGRESS_CONNECTIONS_MAX: usize = 64;
    /// Connections out of all isolates of one user at once; more wait in the same line.
    pub const EGRESS_CONNECTIONS_USER_MAX: usize = 256;
    /// Connections out of all isolates at once.
    pub const EGRESS_CONNECTIONS_ALL_MAX: usize = 4096;
    /// Bytes of the two buffers of one connection, each.
    pub const EGRESS_BUFFER_BYTES: usize = 8 << 10;
    /// Bytes of each of the kernel's two buffers of a connection to a host; it takes as many again to keep them.
    pub const EGRESS_SOCKET_BYTES: u32 = 256 << 10;
    /// How long the head of a request, or of a TLS connection, may take.
    pub const EGRESS_HEAD_WAIT: Duration = Duration::from_secs(10);
    /// How long looking up a host and connecting to it may take.
    pub const EGRESS_CONNECT_WAIT: Duration = Duration::from_secs(15);
    /// Hosts that are looked up at once for one isolate.
    pub const EGRESS_LOOKUPS_MAX: usize = 4;
    /// Hosts that are looked up at once for all isolates of one user.
    pub const EGRESS_LOOKUPS_USER_MAX: usize = 4;
    /// Hosts that are looked up at once for all isolates.
    pub const EGRESS_LOOKUPS_ALL_MAX: usize = 16;
    /// Addresses of one host that are tried.
    pub const EGRESS_ADDRESSES_MAX: usize = 4;
    /// A connection nothing goes over ends after this.
    pub const EGRESS_IDLE: Duration = Duration::from_secs(15 * 60);
    /// Different names one run may look up.
    pub const EGRESS_NAMES_MAX: usize = 1024;
    /// Denied attempts of one run that are told one by one; the rest is counted.
    pub const EGRESS_DENIALS_TOLD: u64 = 20;
    /// Name queries, and connections over one port, that the gateway takes from one run in a second.
    pub const EGRESS_PER_SECOND: u32 = 500;
    /// Of either, at once.
    pub const EGRESS_BURST: u32 = 500;
}
