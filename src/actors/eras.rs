//! Which era of MCP the servers of each definition speak: found out by discoveries and by processes that all share,
//! kept in storage, and published with the definition. What a user's own server turns out to speak concerns its slot
//! alone: it runs with the user's credentials, and must not decide for others.

use std::sync::Arc;

use crate::domain::era::{Era, Spoken};
use crate::domain::ids::McpId;

use super::ctx::Ctx;
use super::slot::{Principal, Slot};
use super::sync::Mutex;

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

    /// Reads what is kept.
    pub(super) async fn load(ctx: &Ctx) -> Result<(), crate::storage::StoreError> {
        let known = ctx.eras.0.pin_owned();
        for (mcp, spoken) in ctx.store.spoken().await? {
            known.insert(mcp, spoken);
        }
        Ok(())
    }

    /// A server of nobody in particular has begun: what it speaks is kept, if that was not known. `said`: it says so
    /// itself. That it knows only the older era, because it said nothing of the newer one, is not kept: it may have
    /// been broken or slow.
    pub(super) fn learn(ctx: &Arc<Ctx>, slot: &Slot, (era, said): (Era, bool), version: &str) {
        // A user's own server, with the user's credentials, says nothing of those of others.
        if slot.key.principal != Principal::Shared {
            return;
        }
        let mcp = &slot.mcp;
        let config = mcp.config_hash();
        let known = ctx.eras.0.pin();
        let before = known.get(&mcp.id).filter(|before| before.config == config);
        let spoken = Spoken {
            config: config.clone(),
            era,
            version: version.to_owned(),
            at: ctx.wall_ms(),
        };
        let now = match (said, before) {
            (true, Some(before)) if before.era == era && before.version == version => return,
            (true, _) => Some(spoken),
            // Asked on purpose, it was not what it was known as: it may have become an old one.
            (false, Some(before)) if before.era != era && slot.key.is_probe() => None,
            (false, _) => return,
        };
        match &now {
            Some(spoken) => known.insert(mcp.id.clone(), spoken.clone()),
            None => known.remove(&mcp.id),
        };
        let (ctx, mcp) = (Arc::clone(ctx), mcp.id.clone());
        tokio::spawn(async move {
            // It is found out again if it could not be kept.
            if let Err(error) = ctx.store.set_spoken(&mcp, now.as_ref()).await {
                tracing::debug!(mcp.id = %mcp, "what it speaks was not kept: {error}");
            }
        });
    }
}

/// What a slot's runs have shown of their own server, whatever is known of its definition.
#[derive(Debug, Default)]
pub struct Manners(Mutex<Option<Shown>>);

#[derive(Debug, Clone, Copy)]
struct Shown {
    bearing: Bearing,
    /// What was known of the definition then. A newer finding counts more.
    beside: Option<Era>,
}

/// What one was found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearing {
    /// It did not begin as it was expected to.
    Doubtful,
    /// It ended on being asked what it knows nothing of.
    Shy,
    /// It said so itself.
    Speaks(Era),
}

impl Manners {
    /// It showed this, when so much was known of its definition.
    pub(super) fn show(&self, bearing: Bearing, beside: Option<Era>) {
        let mut shown = self.0.lock();
        let is_shy = shown.is_some_and(|shown| shown.bearing == Bearing::Shy);
        // That it ended is the better reason to doubt.
        if !(is_shy && bearing == Bearing::Doubtful) {
            *shown = Some(Shown { bearing, beside });
        }
    }

    /// What it showed, if no more is known of its definition since.
    pub(super) fn of(&self, known: Option<Era>) -> Option<Bearing> {
        let shown = (*self.0.lock())?;
        (shown.beside == known).then_some(shown.bearing)
    }

    /// Whether its last start ended on the question.
    pub(super) fn shied(&self) -> bool {
        let shown = *self.0.lock();
        shown.is_some_and(|shown| shown.bearing == Bearing::Shy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_slot_found_out_itself_counts_until_more_is_known_of_the_definition() {
        let manners = Manners::default();
        assert_eq!(manners.of(None), None);
        manners.show(Bearing::Shy, Some(Era::Modern));
        manners.show(Bearing::Doubtful, Some(Era::Modern));
        assert_eq!(manners.of(Some(Era::Modern)), Some(Bearing::Shy));
        assert!(manners.shied());
        let found = Bearing::Speaks(Era::Legacy);
        manners.show(found, Some(Era::Modern));
        assert!(!manners.shied());
        assert_eq!(manners.of(Some(Era::Modern)), Some(found));
        assert_eq!(manners.of(Some(Era::Legacy)), None);
    }
}
