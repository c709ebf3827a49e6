//! Bounds of sessions and of the face for MCP clients.

use std::time::Duration;

/// Milliseconds that a client without a session may keep what can be asked here.
pub const MCP_DISCOVERED_MS: u32 = 60_000;
/// The same for the list of tools; who listens is told when it changes.
pub const MCP_TOOLS_KEPT_MS: u32 = 10_000;
/// Subscriptions that one key's clients without sessions have open.
pub const MCP_LISTENS_MAX: usize = 32;
/// A session that was not heard of for so long may make room for another one of its key.
pub const SESSION_STALE: Duration = Duration::from_secs(15 * 60);
/// Keys of MCP clients that are remembered as good.
pub const BEARERS_MAX: usize = 10_000;
/// How long a client that begins waits to hear what a server can do that has to start first.
pub const ABILITIES_WAIT: Duration = Duration::from_secs(20);
/// Calls of one MCP session under way.
pub const MCP_CALLS_MAX: usize = 256;
/// News of progress that wait for a client to read them.
pub const MCP_PROGRESS_MAX: usize = 64;
/// How often a stream without news says that it lives.
pub const MCP_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long a list's changes are gathered before they are told.
pub const LIST_SETTLE: Duration = Duration::from_millis(100);
/// How long a client may leave a stream unread before it is closed.
pub const MCP_UNREAD_MAX: Duration = Duration::from_secs(30);
/// Bytes of the message with which an MCP client begins.
pub const MCP_BEGIN_BYTES_MAX: usize = 64 << 10;
/// Members of `_meta` of one request.
pub const META_MEMBERS_MAX: usize = 256;
/// Bytes of a client's id of a request.
pub const RPC_ID_BYTES_MAX: usize = 1024;
/// Bytes of the name of a method.
pub const RPC_METHOD_BYTES_MAX: usize = 256;
