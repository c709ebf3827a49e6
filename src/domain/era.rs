//! Which of the two kinds of MCP a server speaks: the one that begins with `initialize`, or the one in which every
//! request says everything.

use serde::{Deserialize, Serialize};

use super::account::Millis;

/// An era of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// Up to 2025-11-25: a session begins with `initialize`.
    Legacy,
    /// From 2026-07-28 on: no sessions.
    Modern,
}

/// What was found out of the servers of one definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// The hash of the definition.
    pub config: String,
    /// The era.
    pub era: Era,
    /// The version, as it says itself.
    pub version: String,
    /// When that was found out.
    pub at: Millis,
}
