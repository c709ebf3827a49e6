//! Who: users, groups, keys; and what ties them to mcps: grants, subscriptions, sessions. Plain
//! records; times are milliseconds since the epoch.

use serde::{Deserialize, Serialize};

use super::ids::{ConnectionId, GroupId, KeyId, McpId, SessionId, UserId};
use super::name::{Name, ToolName};
use super::talk::Questions;

/// Milliseconds since the Unix epoch.
pub type Millis = i64;

/// A person or service account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its unique name.
    pub name: Name,
    /// When it was made.
    pub created_at: Millis,
}

/// A user who was removed, until all that was theirs is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Who they were.
    pub id: UserId,
    /// What they were called.
    pub name: Name,
    /// Who removed them.
    pub by: String,
    /// Their keys that are denied.
    #[serde(default)]
    pub keys: Vec<KeyId>,
}

/// A named set of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its id.
    pub id: GroupId,
    /// Its unique name.
    pub name: Name,
    /// When it was made.
    pub created_at: Millis,
}

/// A preshared client key. The key itself is never stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user: UserId,
    /// What its owner calls it.
    pub label: String,
    /// The public part it is found by.
    pub prefix: String,
    /// Which pepper the digest was made with.
    pub pepper_id: i64,
    /// HMAC-SHA256 of the whole key under that pepper, lower-case hex.
    #[serde(skip_serializing, default)]
    pub digest: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it stops working by itself.
    pub expires_at: Option<Millis>,
    /// When it was revoked.
    pub revoked_at: Option<Millis>,
    /// When it last registered a session (coalesced).
    pub last_used_at: Option<Millis>,
}

/// A key sees these tools of an mcp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The subscribing key.
    pub key: KeyId,
    /// What it subscribes to.
    pub mcp: McpId,
    /// When it was made; the order of tool lists.
    pub created_at: Millis,
}

/// The name under which a key sees one tool, fixed when the subscription is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedTool {
    /// The key whose view this is.
    pub key: KeyId,
    /// The tool's mcp.
    pub mcp: McpId,
    /// The tool's own name.
    pub tool: ToolName,
    /// The name the client sees.
    pub exposed: String,
}

/// The name under which a key sees one prompt where all its servers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExposedPrompt {
    /// The prompt's mcp.
    pub mcp: McpId,
    /// The prompt's own name.
    pub prompt: String,
    /// The name the client sees.
    pub exposed: String,
}

/// One registered client, as storage keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The key that registered it.
    pub key: KeyId,
    /// Whose it is.
    pub user: UserId,
    /// The connection id given at registration.
    pub connection: ConnectionId,
    /// What the client calls itself.
    pub friendly_name: String,
    /// The AI tool it runs in.
    pub host_tool: String,
    /// What its client can answer when a server asks.
    pub questions: Questions,
    /// When it registered.
    pub created_at: Millis,
    /// When it was last active (coalesced).
    pub seen_at: Millis,
    /// When it ends without activity.
    pub expires_at: Millis,
}
