//! What the servers of mcps can do and say of themselves, as they said when they were started the last time: kept in the
//! store, so that nobody starts one only to find out.
//!
//! Of itself, it is told what one said when it was discovered, as with its tools: a user's data may have made a user's
//! own isolate say anything. Where nothing was discovered, a user is told what their own said, and nobody else is.

use std::sync::Arc;

use crate::domain::ids::{McpId, UserId};
use crate::domain::limits::CARDS_MAX;
use crate::protocol::card::Card;
use crate::protocol::handshake::Abilities;
use crate::storage::{Known, Store};

use super::catalog::Published;
use super::slot::{Principal, SlotKey};

/// What a server said of itself, with the hash of its definition.
type Said = (Arc<str>, Arc<Card>);

/// What is known, with the hash of the definition that it is of.
#[derive(Debug, Default)]
pub struct KnownAbilities {
    able: papaya::HashMap<McpId, (Arc<str>, Abilities)>,
    /// What was said to a user, or to nobody in particular.
    cards: papaya::HashMap<(McpId, Option<UserId>), Said>,
}

impl KnownAbilities {
    /// What the servers of an mcp can do, by its definition of now; `None` if none was started from it.
    #[must_use]
    pub fn of(&self, published: &Published) -> Option<Abilities> {
        self.known(&published.mcp.id, &published.config)
    }

    /// What they say of themselves to a user.
    #[must_use]
    pub fn card(&self, mcp: &McpId, config: &str, user: &UserId) -> Option<Arc<Card>> {
        let said = |to| self.said(mcp, to, config);
        said(None).or_else(|| said(Some(user.clone())))
    }

    pub(super) fn known(&self, mcp: &McpId, config: &str) -> Option<Abilities> {
        let known = self.able.pin();
        let (of, able) = known.get(mcp)?;
        (**of == *config).then_some(*able)
    }

    fn said(&self, mcp: &McpId, to: Option<UserId>, config: &str) -> Option<Arc<Card>> {
        let cards = self.cards.pin();
        let (of, card) = cards.get(&(mcp.clone(), to))?;
        (**of == *config).then(|| Arc::clone(card))
    }

    /// What the store has; what servers said since is newer.
    pub(super) fn remember(&self, stored: Vec<Known>) {
        let (known, cards) = (self.able.pin(), self.cards.pin());
        for (mcp, config, able, card) in stored {
            let config: Arc<str> = config.into();
            if let Some(card) = card {
                cards.get_or_insert((mcp.clone(), None), (Arc::clone(&config), card.into()));
            }
            known.get_or_insert(mcp, (config, able));
        }
    }

    /// A server said what it can do. What one user's says takes nothing away from another's.
    pub(super) fn learn(
        &self,
        store: &Store,
        key: &SlotKey,
        config: Arc<str>,
        (able, card): (Abilities, &Card),
    ) {
        let before = self.known(&key.mcp, &config);
        let of_all = key.principal == Principal::Shared;
        let able = match before {
            Some(before) if !of_all => before.and(able),
            _ => able,
        };
        let is_news = self.heard(key, &config, card);
        if before == Some(able) && !(is_news && of_all) {
            return;
        }
        self.able
            .pin()
            .insert(key.mcp.clone(), (Arc::clone(&config), able));
        let card = self.said(&key.mcp, None, &config);
        let (store, mcp) = (store.clone(), key.mcp.clone());
        tokio::spawn(async move {
            let said = (able, card.map(|card| Card::clone(&card)));
            if let Err(error) = store.set_abilities(&mcp, &config, said).await {
                tracing::debug!(mcp.id = %mcp, "what a server can do is not stored: {error}");
            }
        });
    }

    /// Keeps what a server said of itself; gives whether it is something else than before.
    fn heard(&self, key: &SlotKey, config: &Arc<str>, card: &Card) -> bool {
        let to = key.principal.user().cloned();
        let before = self.said(&key.mcp, to.clone(), config);
        let stands = |before: Arc<Card>| *before == *card || (to.is_none() && !key.is_probe());
        if before.is_some_and(stands) {
            return false;
        }
        let cards = self.cards.pin();
        if cards.len() >= CARDS_MAX {
            cards.retain(|(_, to), _| to.is_none());
        }
        let said = (Arc::clone(config), Arc::new(card.clone()));
        cards.insert((key.mcp.clone(), to), said);
        true
    }
}
