//! The catalog: builds the route snapshots that calls read.
//!
//! A build reads storage in a task of its own, never in a handler; while one runs, further
//! requests share the next. If the store is away the last snapshot stands.

mod directory;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use serde_json::value::RawValue;

use crate::domain::era::Era;
use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::limits::ROUTES_RETRY;
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::name::{Name, ToolName};
use crate::domain::talk::Check;
use crate::domain::verdict::Verdict;
use crate::protocol::tasks::{self, Support};
use crate::storage::{Store, StoreError};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::mcp::McpMeter;

use super::ctx::Ctx;
use super::eras::Eras;
use super::isolate::IsolateMsg;
use super::relimit;
use super::schemas::ToolSchema;
use super::slot::Slot;

pub use directory::Directory;

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

/// What one key sees.
#[derive(Debug, Default)]
pub struct View {
    mcps: Vec<Published>,
    routes: Vec<Route>,
    by_name: HashMap<Box<str>, usize>,
}

/// One tool of a view.
#[derive(Debug)]
pub struct Route {
    /// The name the client sees.
    pub exposed: Box<str>,
    /// The tool's own name.
    pub tool: ToolName,
    /// Its mcp.
    pub published: Published,
    /// Its definition, as its server declared it.
    pub definition: Arc<RawValue>,
    /// What its arguments are held against, if its mcp says so.
    pub schema: Option<Arc<ToolSchema>>,
}

impl Route {
    /// Whether it works as a task.
    #[must_use]
    pub fn tasks(&self) -> Support {
        tasks::support(self.definition.get())
    }
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
        let mut mcps = HashMap::new();
        for mcp in store.mcps().await? {
            if mcp.state == McpState::Published {
                let config: Arc<str> = mcp.config_hash().into();
                let era = eras.of(&mcp.id, &config);
                let meter = metrics.mcp(mcp.name.as_str());
                mcps.insert(
                    mcp.id.clone(),
                    Published {
                        mcp: Arc::new(mcp),
                        config,
                        era,
                        meter,
                    },
                );
            }
        }
        let mut tools: HashMap<(McpId, ToolName), Arc<RawValue>> = HashMap::new();
        let mut owners: HashMap<Box<str>, Vec<McpId>> = HashMap::new();
        for (mcp, tool) in store.tools().await? {
            if !mcps.contains_key(&mcp) {
                continue;
            }
            let Ok(definition) = RawValue::from_string(tool.definition) else {
                continue;
            };
            owners
                .entry(tool.name.as_str().into())
                .or_default()
                .push(mcp.clone());
            tools.insert((mcp, tool.name), definition.into());
        }
        let schemas = schemas(&mcps, &tools, last);
        let mut granted: HashSet<(UserId, McpId)> = HashSet::new();
        for group in store.groups().await? {
            for member in &group.members {
                granted.extend(group.grants.iter().map(|mcp| (member.clone(), mcp.clone())));
            }
        }
        let keys = store.keys(None).await?;
        let users: HashMap<&KeyId, &UserId> = keys
            .iter()
            .filter(|key| key.revoked_at.is_none())
            .map(|key| (&key.id, &key.user))
            .collect();
        let views = store.views().await?;
        let subscribed: HashMap<(&KeyId, &McpId), usize> = views
            .subscriptions
            .iter()
            .enumerate()
            .map(|(order, one)| ((&one.key, &one.mcp), order))
            .collect();
        // What a key sees is granted and subscribed, oldest subscription first.
        let mut seen: HashMap<KeyId, Vec<Published>> = HashMap::new();
        for one in &views.subscriptions {
            let user = users.get(&one.key).map(|user| (*user).clone());
            if let (Some(user), Some(published)) = (user, mcps.get(&one.mcp))
                && granted.contains(&(user, one.mcp.clone()))
            {
                seen.entry(one.key.clone())
                    .or_default()
                    .push(published.clone());
            }
        }
        let mut built: HashMap<KeyId, Vec<(usize, Route)>> = HashMap::new();
        for one in &views.exposed {
            let Some(user) = users.get(&one.key) else {
                continue;
            };
            // A subscription without a grant shows nothing: leaving a group takes effect at once.
            let Some(order) = subscribed.get(&(&one.key, &one.mcp)) else {
                continue;
            };
            if !granted.contains(&((*user).clone(), one.mcp.clone())) {
                continue;
            }
            let tool = (one.mcp.clone(), one.tool.clone());
            let (Some(published), Some(definition)) = (mcps.get(&one.mcp), tools.get(&tool)) else {
                continue;
            };
            let route = Route {
                exposed: one.exposed.as_str().into(),
                tool: one.tool.clone(),
                published: published.clone(),
                definition: Arc::clone(definition),
                schema: schemas.get(&tool).cloned(),
            };
            built
                .entry(one.key.clone())
                .or_default()
                .push((*order, route));
        }
        let views = seen
            .into_iter()
            .map(|(key, mcps)| {
                let routes = built.remove(&key).unwrap_or_default();
                (key, View::new(mcps, routes))
            })
            .collect();
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
    pub(super) fn with(&self, published: Published) -> Self {
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
            let seen = |view: &View| view.mcps.iter().any(|seen| seen.mcp.id == **mcp);
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

/// The schemas that arguments are held against: those of mcps that say so.
fn schemas(
    mcps: &HashMap<McpId, Published>,
    tools: &HashMap<(McpId, ToolName), Arc<RawValue>>,
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

impl View {
    fn new(mcps: Vec<Published>, mut routes: Vec<(usize, Route)>) -> Self {
        // Oldest subscription first, then by name: deterministic, and stable for clients.
        routes.sort_by(|(a, one), (b, two)| a.cmp(b).then_with(|| one.exposed.cmp(&two.exposed)));
        let routes: Vec<Route> = routes.into_iter().map(|(_, route)| route).collect();
        let by_name = routes
            .iter()
            .enumerate()
            .map(|(at, route)| (route.exposed.clone(), at))
            .collect();
        Self {
            mcps,
            routes,
            by_name,
        }
    }

    /// Its mcps, oldest subscription first.
    #[must_use]
    pub fn mcps(&self) -> &[Published] {
        &self.mcps
    }

    /// One of them by its name.
    #[must_use]
    pub fn mcp(&self, name: &str) -> Option<&Published> {
        let mut own = self.mcps.iter();
        own.find(|published| published.mcp.name.as_str() == name)
    }

    /// Its tools, in the order to show.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }

    /// A tool by its exposed name, or in the dotted form `mcp.tool`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Route> {
        if let Some(route) = self.by_name.get(name).and_then(|at| self.routes.get(*at)) {
            return Some(route);
        }
        // Names of mcps and of tools may have dots: what can be read in two ways is nobody's.
        let mut dotted = self.routes.iter().filter(|route| {
            name.strip_prefix(route.published.mcp.name.as_str())
                .and_then(|rest| rest.strip_prefix('.'))
                .is_some_and(|tool| tool == route.tool.as_str())
        });
        match (dotted.next(), dotted.next()) {
            (Some(route), None) => Some(route),
            _ => None,
        }
    }

    /// The tools of that own name, in the order to show: one of each mcp that has it.
    pub fn called<'a>(&'a self, tool: &'a str) -> impl Iterator<Item = &'a Route> {
        self.routes
            .iter()
            .filter(move |route| route.tool.as_str() == tool)
    }

    /// A tool of one mcp by its own name.
    #[must_use]
    pub fn find_of(&self, mcp: &str, tool: &str) -> Option<&Route> {
        self.routes
            .iter()
            .find(|route| route.published.mcp.name.as_str() == mcp && route.tool.as_str() == tool)
    }
}

/// What the catalog hears.
#[derive(Debug)]
pub(super) enum CatalogMsg {
    /// Build and publish; the answer comes when it is published, or says why not.
    Refresh(RpcReplyPort<Result<(), String>>),
    /// Build and publish, though nobody waits for it: what is published may be old.
    Again,
    /// A build is done.
    Built(Result<Box<Routes>, String>),
}

/// The service.
pub(super) struct Catalog;

/// What it knows.
pub(super) struct CatalogState {
    ctx: Arc<Ctx>,
    building: Vec<RpcReplyPort<Result<(), String>>>,
    waiting: Vec<RpcReplyPort<Result<(), String>>>,
    busy: bool,
    /// What is published may be old.
    stale: bool,
}

impl Actor for Catalog {
    type Msg = CatalogMsg;
    type State = CatalogState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<CatalogMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<CatalogState, ActorProcessingErr> {
        ctx.set_catalog(&myself);
        // It is only so that nobody starts a server to see what it can do.
        match ctx.store.abilities().await {
            Ok(known) => ctx.abilities.remember(known),
            Err(error) => tracing::warn!("what servers can do is found out anew: {error}"),
        }
        Ok(CatalogState {
            ctx,
            building: Vec::new(),
            waiting: Vec::new(),
            busy: false,
            stale: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<CatalogMsg>,
        state: &mut CatalogState,
    ) -> Result<(), ActorProcessingErr> {
        if let Err(error) = Eras::load(&state.ctx).await {
            tracing::warn!("what servers speak is found out again: {error}");
        }
        match Routes::build(
            &state.ctx.store,
            &state.ctx.metrics,
            &state.ctx.eras,
            &state.ctx.routes.load(),
        )
        .await
        {
            Ok(routes) => state.publish(routes),
            // Restarted while the store is away: the last snapshot stands.
            Err(error) if state.ctx.published.load(Ordering::Acquire) => {
                tracing::warn!("the routes are as old as the last build: {error}");
                myself.send_after(ROUTES_RETRY, || CatalogMsg::Again);
            }
            Err(error) => return Err(error.into()),
        }
        state.ctx.gates.catalog.set(true);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<CatalogMsg>,
        message: CatalogMsg,
        state: &mut CatalogState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            CatalogMsg::Refresh(reply) => state.waiting.push(reply),
            CatalogMsg::Again => state.stale = true,
            CatalogMsg::Built(built) => {
                state.busy = false;
                if let Err(why) = &built {
                    // What changed is stored: it must be seen sooner or later.
                    tracing::warn!("the routes could not be built, and will be again: {why}");
                    myself.send_after(ROUTES_RETRY, || CatalogMsg::Again);
                }
                let answer = built.map(|routes| state.publish(*routes));
                for reply in state.building.drain(..) {
                    // Whoever asked may have left.
                    let _ = reply.send(answer.clone());
                }
            }
        }
        if !state.busy && (state.stale || !state.waiting.is_empty()) {
            state.busy = true;
            state.stale = false;
            state.building = std::mem::take(&mut state.waiting);
            let ctx = Arc::clone(&state.ctx);
            tokio::spawn(async move {
                let last = ctx.routes.load_full();
                let built = Routes::build(&ctx.store, &ctx.metrics, &ctx.eras, &last)
                    .await
                    .map(Box::new)
                    .map_err(|error| error.to_string());
                let _ = myself.cast(CatalogMsg::Built(built));
            });
        }
        Ok(())
    }
}

impl CatalogState {
    /// Publishes a snapshot, and lets go of slots it has no place for.
    fn publish(&mut self, routes: Routes) {
        let routes = Arc::new(routes);
        self.ctx.routes.store(Arc::clone(&routes));
        self.ctx.published.store(true, Ordering::Release);
        self.ctx
            .rerouted
            .send_modify(|number| *number = number.wrapping_add(1));
        let slots = self.ctx.slots.pin();
        let gone: Vec<Arc<Slot>> = slots
            .values()
            .filter(|slot| !routes.keeps(slot))
            .cloned()
            .collect();
        for slot in gone {
            // Calls inside finish on it; later ones wait for its end and find its successor. Until
            // then it stays in sight of kills, suspensions and lists.
            let told = slot
                .actor()
                .is_some_and(|isolate| isolate.cast(IsolateMsg::Leave(Verdict::Replaced)).is_ok());
            if !told {
                self.ctx.close_slot(&slot, "the definition changed");
            }
        }
        let ctx = Arc::clone(&self.ctx);
        tokio::spawn(async move { relimit::settle(&ctx).await });
    }
}
