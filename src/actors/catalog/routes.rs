//! The snapshot that calls are routed by, and how it is read from the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::domain::era::Era;
use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::name::{Name, ToolName};
use crate::domain::talk::Check;
use crate::storage::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::mcp::McpMeter;

use super::super::eras::Eras;
use super::super::schemas::ToolSchema;
use super::super::slot::Slot;
use super::directory::Directory;
use super::view::{Route, View};

/// The definitions of tools, as their servers declared them.
type Tools = HashMap<(McpId, ToolName), Arc<RawValue>>;

/// Everything a call is routed by. Replaced whole.
#[derive(Debug, Default)]
pub struct Routes {
    mcps: HashMap<McpId, Published>,
    views: HashMap<KeyId, View>,
    owners: HashMap<Box<str>, Vec<McpId>>,
    granted: HashSet<(UserId, McpId)>,
    schemas: HashMap<(McpId, ToolName), Arc<ToolSchema>>,
    /// What names mean, for administrators.
    pub directory: Arc<Directory>,
}

/// A published mcp.
#[derive(Debug, Clone)]
pub struct Published {
    /// Its definition.
    pub mcp: Arc<Mcp>,
    /// The hash of what makes a running process differ.
    pub config: Arc<str>,
    /// What its servers speak, as far as that was found out when this was published: calls go by this, so that they
    /// find the same isolates until somebody discovers otherwise.
    pub era: Option<Era>,
    /// Where its calls are counted.
    pub meter: Arc<McpMeter>,
}

impl Routes {
    /// Reads what is granted, subscribed and published, with what is known of their `eras`. What `last` has of schemas
    /// is taken over.
    ///
    /// # Errors
    /// What the store says.
    pub async fn build(
        store: &Store,
        metrics: &Metrics,
        eras: &Eras,
        last: &Self,
    ) -> Result<Self, StoreError> {
        let mcps = published(store, metrics, eras).await?;
        let tools = tools(store, &mcps).await?;
        let schemas = schemas(&mcps, &tools, last);
        let granted = granted(store).await?;
        let keys = store.keys(None).await?;
        let users: HashMap<&KeyId, &UserId> = keys
            .iter()
            .filter(|key| key.revoked_at.is_none())
            .map(|key| (&key.id, &key.user))
            .collect();
        // A subscription without a grant shows nothing: leaving a group takes effect at once.
        let may_see = |key: &KeyId, mcp: &McpId| {
            let user = users.get(key);
            user.is_some_and(|user| granted.contains(&((*user).clone(), mcp.clone())))
        };
        let stored = store.views().await?;
        let mut order: HashMap<(&KeyId, &McpId), usize> = HashMap::new();
        let mut seen: HashMap<KeyId, Vec<Published>> = HashMap::new();
        for (place, one) in stored.subscriptions.iter().enumerate() {
            if let Some(published) = mcps.get(&one.mcp)
                && may_see(&one.key, &one.mcp)
            {
                order.insert((&one.key, &one.mcp), place);
                let own = seen.entry(one.key.clone()).or_default();
                own.push(published.clone());
            }
        }
        let mut routed: HashMap<KeyId, Vec<(usize, Route)>> = HashMap::new();
        for one in &stored.exposed {
            let tool = (one.mcp.clone(), one.tool.clone());
            let (Some(place), Some(published), Some(definition)) = (
                order.get(&(&one.key, &one.mcp)),
                mcps.get(&one.mcp),
                tools.get(&tool),
            ) else {
                continue;
            };
            let route = Route {
                exposed: one.exposed.as_str().into(),
                tool: one.tool.clone(),
                published: published.clone(),
                definition: Arc::clone(definition),
                schema: schemas.get(&tool).cloned(),
            };
            let own = routed.entry(one.key.clone()).or_default();
            own.push((*place, route));
        }
        let views = seen.into_iter().map(|(key, mcps)| {
            let routes = routed.remove(&key).unwrap_or_default();
            (key, View::new(mcps, routes))
        });
        let views = views.collect();
        let mut owners: HashMap<Box<str>, Vec<McpId>> = HashMap::new();
        for (mcp, tool) in tools.keys() {
            let own = owners.entry(tool.as_str().into()).or_default();
            own.push(mcp.clone());
        }
        // The same hint each time.
        owners.values_mut().for_each(|mcps| mcps.sort_unstable());
        Ok(Self {
            mcps,
            views,
            owners,
            granted,
            schemas,
            directory: Arc::new(Directory::read(store).await?),
        })
    }

    /// These routes with one more published mcp.
    #[cfg(test)]
    pub(in crate::actors) fn with(&self, published: Published) -> Self {
        let mut mcps = self.mcps.clone();
        mcps.insert(published.mcp.id.clone(), published);
        Self {
            mcps,
            ..Self::default()
        }
    }

    /// What a key sees.
    #[must_use]
    pub fn view(&self, key: &KeyId) -> Option<&View> {
        self.views.get(key)
    }

    /// A published mcp.
    #[must_use]
    pub fn published(&self, mcp: &McpId) -> Option<&Published> {
        self.mcps.get(mcp)
    }

    /// A published mcp that has a tool of this name, that the user's groups are granted and that the key is not
    /// subscribed to, for hints. Of what is not for the user, nobody tells that it is there.
    #[must_use]
    pub fn not_subscribed(&self, user: &UserId, key: &KeyId, tool: &str) -> Option<&Name> {
        let offered = |mcp: &&McpId| {
            let seen = |view: &View| view.mcps().iter().any(|seen| seen.mcp.id == **mcp);
            self.granted.contains(&(user.clone(), (*mcp).clone()))
                && !self.view(key).is_some_and(seen)
        };
        let owner = self.owners.get(tool)?.iter().find(offered)?;
        self.mcps.get(owner).map(|published| &published.mcp.name)
    }

    /// Whether a slot still stands for what is published.
    #[must_use]
    pub fn keeps(&self, slot: &Slot) -> bool {
        slot.key.is_probe()
            || self
                .mcps
                .get(&slot.key.mcp)
                .is_some_and(|published| published.config == slot.key.config)
    }
}

/// What is published, with what is known of its era.
async fn published(
    store: &Store,
    metrics: &Metrics,
    eras: &Eras,
) -> Result<HashMap<McpId, Published>, StoreError> {
    let mcps = store.mcps().await?.into_iter();
    let published = mcps.filter(|mcp| mcp.state == McpState::Published);
    let published = published.map(|mcp| {
        let config: Arc<str> = mcp.config_hash().into();
        let era = eras.of(&mcp.id, &config);
        let meter = metrics.mcp(mcp.name.as_str());
        let id = mcp.id.clone();
        let mcp = Arc::new(mcp);
        (
            id,
            Published {
                mcp,
                config,
                era,
                meter,
            },
        )
    });
    Ok(published.collect())
}

/// The tools of what is published.
async fn tools(store: &Store, mcps: &HashMap<McpId, Published>) -> Result<Tools, StoreError> {
    let tools = store.tools().await?.into_iter();
    let offered = tools.filter(|(mcp, _)| mcps.contains_key(mcp));
    let offered = offered.filter_map(|(mcp, tool)| {
        let definition = RawValue::from_string(tool.definition).ok()?;
        Some(((mcp, tool.name), definition.into()))
    });
    Ok(offered.collect())
}

/// Which user's groups are granted what.
async fn granted(store: &Store) -> Result<HashSet<(UserId, McpId)>, StoreError> {
    let mut granted = HashSet::new();
    for group in store.groups().await? {
        for member in &group.members {
            granted.extend(group.grants.iter().map(|mcp| (member.clone(), mcp.clone())));
        }
    }
    Ok(granted)
}

/// The schemas that arguments are held against: those of mcps that say so.
fn schemas(
    mcps: &HashMap<McpId, Published>,
    tools: &Tools,
    last: &Routes,
) -> HashMap<(McpId, ToolName), Arc<ToolSchema>> {
    let checked = |mcp: &McpId| {
        mcps.get(mcp)
            .is_some_and(|published| published.mcp.talk.arguments != Check::Off)
    };
    let wanted = tools.iter().filter(|((mcp, _), _)| checked(mcp));
    let schemas = wanted.map(|(tool, definition)| {
        let known = last.schemas.get(tool);
        let schema = match known.filter(|known| known.is_of(definition)) {
            Some(known) => Arc::clone(known),
            None => Arc::new(ToolSchema::new(Arc::clone(definition))),
        };
        (tool.clone(), schema)
    });
    schemas.collect()
}
