//! The deny table: which users and mcps are suspended, loaded before anything serves.
//!
//! Thin for now: suspensions live in storage and are published here. The journal, the other
//! scopes and expiry come with the kill-switch issue, in this room.

use std::collections::HashMap;
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::domain::account::{Suspension, SuspensionScope};
use crate::domain::ids::{McpId, UserId};
use crate::storage::StoreError;

use super::ctx::Ctx;

/// What is denied, for what reason. Replaced whole; read once per call.
#[derive(Debug, Default)]
pub struct Denied {
    users: HashMap<UserId, Suspension>,
    mcps: HashMap<McpId, Suspension>,
}

impl Denied {
    /// The table of these suspensions.
    #[must_use]
    pub fn new(suspensions: Vec<Suspension>) -> Self {
        let mut table = Self::default();
        for suspension in suspensions {
            match &suspension.scope {
                SuspensionScope::User(user) => {
                    table.users.insert(user.clone(), suspension);
                }
                SuspensionScope::Mcp(mcp) => {
                    table.mcps.insert(mcp.clone(), suspension);
                }
            }
        }
        table
    }

    /// This table with one more entry.
    #[must_use]
    pub fn with(&self, suspension: &Suspension) -> Self {
        let all = self
            .users
            .values()
            .chain(self.mcps.values())
            .chain([suspension]);
        Self::new(all.cloned().collect())
    }

    /// The suspension of a user.
    #[must_use]
    pub fn user(&self, user: &UserId) -> Option<&Suspension> {
        self.users.get(user)
    }

    /// The suspension of an mcp.
    #[must_use]
    pub fn mcp(&self, mcp: &McpId) -> Option<&Suspension> {
        self.mcps.get(mcp)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.users.len() + self.mcps.len()
    }

    /// How many users.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// How many mcps.
    #[must_use]
    pub fn mcps(&self) -> usize {
        self.mcps.len()
    }

    /// Whether nothing is denied.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads the active suspensions and publishes them.
///
/// # Errors
/// What the store says; the last table stays.
pub(super) async fn publish(ctx: &Ctx) -> Result<(), StoreError> {
    let table = Denied::new(ctx.store.active_suspensions().await?);
    ctx.denied.store(Arc::new(table));
    Ok(())
}

/// The service.
pub(super) struct KillSwitch;

impl Actor for KillSwitch {
    type Msg = ();
    type State = Arc<Ctx>;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        ctx: Arc<Ctx>,
    ) -> Result<Arc<Ctx>, ActorProcessingErr> {
        Ok(ctx)
    }

    async fn post_start(
        &self,
        _myself: ActorRef<()>,
        ctx: &mut Arc<Ctx>,
    ) -> Result<(), ActorProcessingErr> {
        publish(ctx).await?;
        ctx.gates.kill.set(true);
        Ok(())
    }
}
