//! Who: users, groups, keys; and what ties them to mcps: grants, subscriptions, sessions,
//! suspensions. Plain records; times are milliseconds since the epoch.

use serde::{Deserialize, Serialize};

use super::ids::{ConnectionId, GroupId, KeyId, McpId, SessionId, SuspensionId, UserId};
use super::name::{Name, ToolName};

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
    /// When it registered.
    pub created_at: Millis,
    /// When it was last active (coalesced).
    pub seen_at: Millis,
    /// When it ends without activity.
    pub expires_at: Millis,
}

/// What a suspension takes away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "scope", content = "target", rename_all = "snake_case")]
pub enum SuspensionScope {
    /// A user: sessions end, registering is refused.
    User(UserId),
    /// An mcp: nobody's calls reach it.
    Mcp(McpId),
}

/// A durable deny.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Its id.
    pub id: SuspensionId,
    /// Of what.
    #[serde(flatten)]
    pub scope: SuspensionScope,
    /// Why, as its author put it.
    pub reason: String,
    /// Who set it.
    pub author: String,
    /// When it was set.
    pub created_at: Millis,
    /// When it was lifted.
    pub lifted_at: Option<Millis>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    #[test]
    fn a_suspension_survives_the_wire() {
        let suspension = Suspension {
            id: SuspensionId::from_random([1; ID_BYTES]),
            scope: SuspensionScope::Mcp(McpId::from_random([2; ID_BYTES])),
            reason: "leak".into(),
            author: "uid:0(root)".into(),
            created_at: 1,
            lifted_at: None,
        };
        // As text: a value would hide that two fields have one name.
        let text = serde_json::to_string(&suspension).unwrap();
        let read: Suspension = serde_json::from_str(&text).unwrap();
        assert_eq!(read, suspension, "{text}");
    }
}
