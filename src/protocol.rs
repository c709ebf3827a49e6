//! MCP on the wire: the JSON-RPC envelope, stdio framing, event streams and the downstream handshake.
//!
//! Bytes pass through: only the envelope and the keys that are routed on are looked at.

pub mod card;
pub mod depth;
pub mod egress;
pub mod envelope;
pub mod extensions;
pub mod frame;
pub mod handshake;
pub mod jsonrpc;
pub mod meta;
pub mod modern;
pub mod needed;
pub mod outbound;
pub mod questions;
pub mod repeated;
pub mod splice;
pub mod sse;
pub mod state;
pub mod tasks;
pub mod version;
