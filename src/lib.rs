//! Legation gives each user an *isolate* of each MCP server they use: one supervised,
//! cgroup-limited process tree, started on demand, restarted with backoff, killed for certain,
//! behind one endpoint.
//!
//! The house has six floors, and a module imports only from the floors before it (a test reads
//! the `use crate::` lines and fails on a breach):
//!
//! `domain ← protocol ← storage ← actors ← api ← cli`
//!
//! * [`domain`]: pure types and decisions, no I/O: ids, definitions, limits, the restart policy,
//!   verdicts, tokens, error codes.
//! * [`protocol`]: MCP on the wire: the JSON-RPC envelope, stdio framing, the downstream handshake.
//! * [`storage`]: one store on two databases: SQLite embedded, or a PostgreSQL server.
//! * [`actors`]: the supervision tree, the slots, and the handles that carry calls past it.
//! * [`api`]: the listeners: the standard client's five calls, and the admin socket.
//! * [`cli`]: the commands of the one binary.
//!
//! [`config`] and [`telemetry`] are read by all but `domain` and `protocol`. Processes are started and confined by
//! the `sandbox` crate, the only place with `unsafe`.

pub mod actors;
pub mod api;
pub mod cli;
pub mod config;
pub mod demo;
#[cfg(test)]
mod direction;
pub mod domain;
pub mod installer;
pub mod protocol;
pub mod storage;
pub mod telemetry;
