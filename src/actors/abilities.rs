//! What the servers of mcps can do, as they said when they were started the last time: kept in the store, so that
//! nobody starts one only to find out.

use std::sync::Arc;

use crate::domain::ids::McpId;
use crate::protocol::handshake::Abilities;
use crate::storage::{Known, Store};

use super::catalog::Published;
use super::slot::{Principal, SlotKey};

/// What is known, with the hash of the definition that it is of.
#[derive(Debug, Default)]
pub struct KnownAbilities(papaya::HashMap<McpId, (Arc<str>, Abilities)>);

impl KnownAbilities {
    /// What the servers of an mcp can do, by its definition of now; `None` if none was started from it.
    #[must_use]
    pub fn of(&self, published: &Published) -> Option<Abilities> {
        self.known(&published.mcp.id, &published.config)
    }

    pub(super) fn known(&self, mcp: &McpId, config: &str) -> Option<Abilities> {
        let known = self.0.pin();
        let (of, able) = known.get(mcp)?;
        (**of == *config).then_some(*able)
    }

    /// What the store has; what servers said since is newer.
    pub(super) fn remember(&self, stored: Vec<Known>) {
        let known = self.0.pin();
        for (mcp, config, able) in stored {
            known.get_or_insert(mcp, (config.into(), able));
        }
    }

    /// A server said what it can do. What one user's says takes nothing away from another's.
    pub(super) fn learn(&self, store: &Store, key: &SlotKey, config: Arc<str>, able: Abilities) {
        let before = self.known(&key.mcp, &config);
        let of_all = key.principal == Principal::Shared;
        let able = match before {
            Some(before) if !of_all => before.and(able),
            _ => able,
        };
        if before == Some(able) {
            return;
        }
        self.0
            .pin()
            .insert(key.mcp.clone(), (Arc::clone(&config), able));
        let (store, mcp) = (store.clone(), key.mcp.clone());
        tokio::spawn(async move {
            if let Err(error) = store.set_abilities(&mcp, &config, able).await {
                tracing::debug!(mcp.id = %mcp, "what a server can do is not stored: {error}");
            }
        });
    }
}
