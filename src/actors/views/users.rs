//! What is left of users, as administrators see it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What removing a user did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserRemoved {
    /// Who they were; the audit log is searched by it.
    pub id: String,
    /// Keys that are gone.
    pub keys: usize,
    /// Credentials that are forgotten.
    pub credentials: usize,
    /// Why something of their homes is still there, if it is.
    pub homes_left: Option<String>,
    /// Whether they were gone before, and only what was left of them was removed.
    pub finished: bool,
}

/// What an mcp keeps for a user, on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HomeView {
    /// Where.
    pub path: PathBuf,
    /// Whose; `None`: nobody's any more, or everybody's.
    pub user: Option<String>,
    /// Whether it is of an instance that all share.
    pub shared: bool,
    /// The mcp's name; `None`: there is none any more.
    pub mcp: Option<String>,
    /// How large it is, an entry as 4 KiB at least; `None`: there was no time to look.
    pub bytes: Option<u64>,
}
