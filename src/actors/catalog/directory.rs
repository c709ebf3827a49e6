//! What names mean: for administrators who must be understood also while the store is away.

use std::collections::BTreeMap;

use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::mcp::McpState;
use crate::domain::name::{Name, ToolName};
use crate::storage::{Store, StoreError};

/// The names of everything that can be denied.
#[derive(Debug, Default)]
pub struct Directory {
    /// Users.
    pub users: BTreeMap<Name, UserId>,
    /// Mcps that are not archived.
    pub mcps: BTreeMap<Name, McpId>,
    /// The tools they declared.
    pub tools: BTreeMap<McpId, Vec<ToolName>>,
    /// Keys and whose they are.
    pub keys: BTreeMap<KeyId, UserId>,
}

impl Directory {
    /// Reads all names.
    ///
    /// # Errors
    /// What the store says.
    pub async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut names = Self::default();
        for user in store.users().await? {
            names.users.insert(user.name, user.id);
        }
        for mcp in store.mcps().await? {
            if mcp.state != McpState::Archived {
                names.mcps.insert(mcp.name, mcp.id);
            }
        }
        for (mcp, tool) in store.tools().await? {
            names.tools.entry(mcp).or_default().push(tool.name);
        }
        for key in store.keys(None).await? {
            names.keys.insert(key.id, key.user);
        }
        Ok(names)
    }

    /// What a user is called.
    #[must_use]
    pub fn user_name(&self, id: &UserId) -> Option<&Name> {
        let found = self.users.iter().find(|(_, known)| *known == id);
        found.map(|(name, _)| name)
    }

    /// What an mcp is called.
    #[must_use]
    pub fn mcp_name(&self, id: &McpId) -> Option<&Name> {
        let found = self.mcps.iter().find(|(_, known)| *known == id);
        found.map(|(name, _)| name)
    }
}
