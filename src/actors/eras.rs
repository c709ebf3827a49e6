//! Which era of MCP the servers of each definition speak: found out once, kept in storage, and forgotten when a
//! server turns out to speak another, or its definition changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::domain::era::{Era, Spoken};
use crate::domain::ids::McpId;
use crate::domain::mcp::Mcp;

use super::ctx::Ctx;

/// What is known.
#[derive(Debug, Default)]
pub struct Eras(papaya::HashMap<McpId, Spoken>);

impl Eras {
    /// What the servers of a definition speak, if that is known.
    #[must_use]
    pub fn of(&self, mcp: &McpId, config: &str) -> Option<Era> {
        let known = self.0.pin();
        let spoken = known.get(mcp)?;
        (spoken.config == config).then_some(spoken.era)
    }

    /// The same, whole.
    #[must_use]
    pub fn spoken(&self, mcp: &McpId, config: &str) -> Option<Spoken> {
        let known = self.0.pin();
        let spoken = known.get(mcp)?;
        (spoken.config == config).then(|| spoken.clone())
    }

    /// A server did not begin as it was known to: the next one is asked anew.
    pub(super) fn forget(&self, mcp: &McpId) {
        self.0.pin().remove(mcp);
    }

    /// Reads what is kept.
    pub(super) async fn load(ctx: &Ctx) -> Result<(), crate::storage::StoreError> {
        let known = ctx.eras.0.pin_owned();
        for (mcp, spoken) in ctx.store.spoken().await? {
            known.insert(mcp, spoken);
        }
        Ok(())
    }

    /// A server has begun: what it speaks is kept, if that was not known.
    pub(super) fn learn(ctx: &Arc<Ctx>, mcp: &Mcp, era: Era, version: &str) {
        let spoken = Spoken {
            config: mcp.config_hash(),
            era,
            version: version.to_owned(),
            at: ctx.wall_ms(),
        };
        let same = |known: &Spoken| {
            (&known.config, known.era, &known.version)
                == (&spoken.config, spoken.era, &spoken.version)
        };
        let known = ctx.eras.0.pin();
        if known.get(&mcp.id).is_some_and(same) {
            return;
        }
        known.insert(mcp.id.clone(), spoken.clone());
        let (ctx, mcp) = (Arc::clone(ctx), mcp.id.clone());
        tokio::spawn(async move {
            // It is found out again if it could not be kept.
            if let Err(error) = ctx.store.set_spoken(&mcp, &spoken).await {
                tracing::debug!(mcp.id = %mcp, "what it speaks was not kept: {error}");
            }
        });
    }
}

/// What a slot's runs have shown of their server's manners, before its era is known.
#[derive(Debug, Default)]
pub struct Manners {
    shied: AtomicBool,
}

impl Manners {
    /// It ended on being asked what it knows nothing of.
    pub(super) fn shies(&self) {
        self.shied.store(true, Ordering::Relaxed);
    }

    /// Whether it did.
    pub(super) fn shied(&self) -> bool {
        self.shied.load(Ordering::Relaxed)
    }
}
