//! The catalog: builds the route snapshots that calls read.
//!
//! A build reads storage in a task of its own, never in a handler; while one runs, further
//! requests share the next. If the store is away the last snapshot stands.

mod directory;
mod routes;
mod view;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};

use crate::domain::limits::ROUTES_RETRY;
use crate::domain::verdict::Verdict;
use crate::storage::StoreError;

use super::caught_up::catch_up;
use super::control::removal;
use super::ctx::Ctx;
use super::eras::Eras;
use super::isolate::IsolateMsg;
use super::relimit;
use super::slot::Slot;

pub use directory::Directory;
pub use routes::{Published, Routes};
pub use view::{Route, View};

/// What the catalog hears.
#[derive(Debug)]
pub(super) enum CatalogMsg {
    /// Build and publish; the answer comes when it is published, or says why not.
    Refresh(RpcReplyPort<Result<(), String>>),
    /// Build and publish, though nobody waits for it: what this process knows may be old, routes and all else.
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
        let again = state.ctx.published.load(Ordering::Acquire);
        match build(&state.ctx).await {
            Ok(routes) => {
                state.publish(routes);
                match again {
                    // What was told to the one before may not have been done.
                    true => myself.cast(CatalogMsg::Again)?,
                    false => removal::finish_all(&state.ctx),
                }
            }
            // Restarted while the store is away: the last snapshot stands.
            Err(error) if again => {
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
            let unknown = std::mem::take(&mut state.stale);
            state.building = std::mem::take(&mut state.waiting);
            let ctx = Arc::clone(&state.ctx);
            tokio::spawn(async move {
                let caught_up = match unknown {
                    true => catch_up(&ctx).await,
                    false => Ok(()),
                };
                let built = match caught_up {
                    Ok(()) => build(&ctx).await.map(Box::new),
                    Err(error) => Err(error),
                };
                if unknown && built.is_ok() {
                    removal::finish_all(&ctx);
                }
                let built = built.map_err(|error| error.to_string());
                let _ = myself.cast(CatalogMsg::Built(built));
            });
        }
        Ok(())
    }
}

/// The routes as the store has them now.
async fn build(ctx: &Ctx) -> Result<Routes, StoreError> {
    let last = ctx.routes.load_full();
    Routes::build(&ctx.store, &ctx.metrics, &ctx.eras, &last).await
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
