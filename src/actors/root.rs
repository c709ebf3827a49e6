//! The root supervisor: ordered start, reverse stop, one_for_one, and the last resort.
//!
//! A service is started when the one before it is up, and stopped when the one after it is gone.
//! Nothing is awaited in a handler: the order is driven by supervision events. A service that
//! fails too often in a period ends the process with exit code 70, and whoever started us starts
//! us again; a process that dies is no failure here.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SpawnErr, SupervisionEvent};
use tokio::sync::watch;

use crate::domain::code::Code;
use crate::domain::limits::ROOT_BEAT;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::labels::ActorKind;

use super::audit::AuditKeeper;
use super::catalog::Catalog;
use super::ctx::Ctx;
use super::health::Health;
use super::household::{Household, Whose};
use super::killswitch::{JournalError, KillSwitch};
use super::listeners::{DoorError, Doors, Listeners};
use super::measured::measured;
use super::services::{Reaper, Spawner, StoreKeeper, Superseded};
use super::sessions::Sessions;
use super::supervisor::{Children, Fate, Kind};
use super::users::Users;
use super::vault::{Vault, VaultError};

/// The services, in the order they start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// The link to spawnd.
    Spawner,
    /// The pool owner.
    Store,
    /// The audit log's keeper.
    Audit,
    /// The deny table.
    KillSwitch,
    /// The keys.
    Vault,
    /// The routes.
    Catalog,
    /// The boot sweep.
    Reaper,
    /// Shared instances.
    Shared,
    /// Users and their isolates.
    Users,
    /// Registered clients.
    Sessions,
    /// Pings and the idle sweep.
    Health,
    /// The doors, last.
    Listeners,
}

impl Service {
    /// All of them, in the order they start.
    pub const ORDER: [Self; 12] = [
        Self::Spawner,
        Self::Store,
        Self::Audit,
        Self::KillSwitch,
        Self::Vault,
        Self::Catalog,
        Self::Reaper,
        Self::Shared,
        Self::Users,
        Self::Sessions,
        Self::Health,
        Self::Listeners,
    ];

    /// Its name in the tree.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spawner => "spawner",
            Self::Store => "store",
            Self::Audit => "audit",
            Self::KillSwitch => "killswitch",
            Self::Vault => "vault",
            Self::Catalog => "catalog",
            Self::Reaper => "reaper",
            Self::Shared => "shared",
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::Health => "health",
            Self::Listeners => "listeners",
        }
    }

    const fn kind(self) -> ActorKind {
        match self {
            Self::Spawner => ActorKind::Spawner,
            Self::Store => ActorKind::Store,
            Self::Audit => ActorKind::Audit,
            Self::KillSwitch => ActorKind::KillSwitch,
            Self::Vault => ActorKind::Vault,
            Self::Catalog => ActorKind::Catalog,
            Self::Reaper => ActorKind::Reaper,
            Self::Shared => ActorKind::Shared,
            Self::Users => ActorKind::Users,
            Self::Sessions => ActorKind::Sessions,
            Self::Health => ActorKind::Health,
            Self::Listeners => ActorKind::Listeners,
        }
    }

    /// How long it may take to stop.
    const fn stop_within(self) -> Duration {
        match self {
            Self::Listeners => Duration::from_secs(13),
            Self::Users | Self::Shared => Duration::from_secs(19),
            _ => Duration::from_secs(3),
        }
    }

    /// Whether its gate shuts while it is down.
    fn shut_gate(self, ctx: &Ctx) {
        let gates = &ctx.gates;
        match self {
            Self::Spawner => gates.spawn.set(false),
            Self::Store => gates.store.set(false),
            Self::Audit => gates.audit.set(false),
            Self::KillSwitch => gates.kill.set(false),
            Self::Vault => gates.vault.set(false),
            Self::Catalog => gates.catalog.set(false),
            Self::Listeners => gates.listeners.set(false),
            Self::Reaper | Self::Shared | Self::Users | Self::Sessions | Self::Health => {}
        }
    }
}

/// Where the whole tree is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Services are being started.
    Starting,
    /// All are up.
    Up,
    /// It could not start, or gave up.
    Failed {
        /// The stable code, where the cause has one.
        code: Code,
        /// The reason.
        why: String,
    },
    /// All are down, as ordered.
    Stopped,
}

/// What the root hears.
#[derive(Debug)]
pub enum RootMsg {
    /// A service is due again.
    Due(Service),
    /// Stop everything, in reverse order.
    Stop,
    /// A service did not stop in time.
    Overdue(Service),
    /// A sign of life, for readiness.
    Beat,
}

/// The root.
pub(super) struct Root;

/// What it is made from.
pub(super) struct RootArgs {
    pub(super) ctx: Arc<Ctx>,
    pub(super) doors: Arc<dyn Doors>,
    pub(super) phase: watch::Sender<Phase>,
}

/// What it knows.
pub(super) struct RootState {
    args: RootArgs,
    children: Children<Service>,
    begun: usize,
    stopping: bool,
}

impl Actor for Root {
    type Msg = RootMsg;
    type State = RootState;
    type Arguments = RootArgs;

    async fn pre_start(
        &self,
        _myself: ActorRef<RootMsg>,
        args: RootArgs,
    ) -> Result<RootState, ActorProcessingErr> {
        let children = Children::new(Kind::Permanent);
        Ok(RootState {
            args,
            children,
            begun: 0,
            stopping: false,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<RootMsg>,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        state.args.ctx.heart.beat();
        myself.send_interval(ROOT_BEAT, || RootMsg::Beat);
        state.next(&myself).await;
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<RootMsg>,
        message: RootMsg,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMsg::Due(service) if !state.stopping => {
                state.children.restarting(&service);
                state.start(&myself, service).await;
            }
            RootMsg::Due(_) => {}
            RootMsg::Beat => state.args.ctx.heart.beat(),
            RootMsg::Stop => {
                state.stopping = true;
                state.args.ctx.stopping.send_replace(true);
                state.stop_last(&myself);
            }
            RootMsg::Overdue(service) => {
                if let Some(cell) = state.children.cell(&service) {
                    tracing::error!(service = service.name(), "did not stop in time; killed");
                    cell.kill();
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMsg>,
        event: SupervisionEvent,
        state: &mut RootState,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorStarted(cell) = &event {
            state.up(&myself, cell).await;
        }
        let Some((service, fate)) = state.children.exited(&event) else {
            return Ok(());
        };
        let tree = &state.args.ctx.tree;
        if state.stopping {
            tree.note(service.name(), "down", "stopped");
            state.stop_last(&myself);
            return Ok(());
        }
        let booting = *state.args.phase.borrow() == Phase::Starting;
        let cause = match &event {
            SupervisionEvent::ActorFailed(_, error) => {
                // At boot somebody waits at a terminal: a port that is taken stays taken.
                if let (true, Some(door)) = (booting, error.downcast_ref::<DoorError>()) {
                    state.give_up(service, door.code, &door.message);
                    return Ok(());
                }
                // Nor does a master key that does not fit.
                if let (true, Some(vault)) = (booting, error.downcast_ref::<VaultError>())
                    && vault.is_lasting()
                {
                    state.give_up(service, vault.code(), &vault.to_string());
                    return Ok(());
                }
                // What this process knows is old, and only a start reads everything.
                if let Some(superseded) = error.downcast_ref::<Superseded>() {
                    service.shut_gate(&state.args.ctx);
                    state.give_up(service, Code::StoreHeld, &superseded.to_string());
                    return Ok(());
                }
                // A damaged journal does not heal by trying again.
                if let (true, Some(journal)) = (booting, error.downcast_ref::<JournalError>()) {
                    state.give_up(service, journal.code(), &journal.to_string());
                    return Ok(());
                }
                error.to_string()
            }
            _ => "ended, which it never should".to_owned(),
        };
        state.failed(&myself, service, &fate, &cause);
        Ok(())
    }
}

impl RootState {
    /// Starts the first service that was never started.
    async fn next(&mut self, myself: &ActorRef<RootMsg>) {
        match Service::ORDER.get(self.begun) {
            Some(service) => {
                self.begun += 1;
                self.start(myself, *service).await;
            }
            None => {
                self.args.phase.send_replace(Phase::Up);
            }
        }
    }

    async fn start(&mut self, myself: &ActorRef<RootMsg>, service: Service) {
        self.args
            .ctx
            .tree
            .note(service.name(), "starting", "started by the root");
        match self.spawn(myself.get_cell(), service).await {
            Ok(cell) => self.children.started(&service, cell),
            Err(error) => {
                let cause = error.to_string();
                let fate = self.children.start_failed(&service, &cause);
                self.failed(myself, service, &fate, &cause);
            }
        }
    }

    async fn spawn(&self, me: ActorCell, service: Service) -> Result<ActorCell, SpawnErr> {
        let ctx = Arc::clone(&self.args.ctx);
        let of = (&self.args.ctx.metrics, service.kind());
        match service {
            Service::Spawner => begin(Spawner, ctx, of, me).await,
            Service::Store => begin(StoreKeeper, ctx, of, me).await,
            Service::Audit => begin(AuditKeeper, ctx, of, me).await,
            Service::KillSwitch => begin(KillSwitch, ctx, of, me).await,
            Service::Vault => begin(Vault, ctx, of, me).await,
            Service::Catalog => begin(Catalog, ctx, of, me).await,
            Service::Reaper => begin(Reaper, ctx, of, me).await,
            Service::Shared => begin(Household, (ctx, Whose::Shared), of, me).await,
            Service::Users => begin(Users, ctx, of, me).await,
            Service::Sessions => begin(Sessions, ctx, of, me).await,
            Service::Health => begin(Health, ctx, of, me).await,
            Service::Listeners => {
                begin(Listeners, (ctx, Arc::clone(&self.args.doors)), of, me).await
            }
        }
    }

    /// A service is up: at boot, the next one is started.
    async fn up(&mut self, myself: &ActorRef<RootMsg>, cell: &ActorCell) {
        let service = Service::ORDER.into_iter().find(|service| {
            self.children
                .cell(service)
                .is_some_and(|c| c.get_id() == cell.get_id())
        });
        let Some(service) = service else { return };
        self.args.ctx.tree.note(service.name(), "up", "started");
        let newest = self
            .begun
            .checked_sub(1)
            .and_then(|at| Service::ORDER.get(at));
        let booting = *self.args.phase.borrow() == Phase::Starting;
        if booting && newest == Some(&service) && !self.stopping {
            self.next(myself).await;
        }
    }

    fn failed(&self, myself: &ActorRef<RootMsg>, service: Service, fate: &Fate, cause: &str) {
        let ctx = &self.args.ctx;
        service.shut_gate(ctx);
        match fate {
            Fate::Restart { after } => {
                tracing::error!(service = service.name(), "failed, restarting: {cause}");
                ctx.tree.note(service.name(), "waiting", cause);
                myself.send_after(*after, move || RootMsg::Due(service));
            }
            Fate::Ended | Fate::GivenUp => {
                tracing::error!(
                    service = service.name(),
                    "failed too often, giving up: {cause}"
                );
                ctx.metrics.given_up(service.kind());
                ctx.tree.note(service.name(), "given up", cause);
                self.give_up(service, Code::StartFailed, cause);
            }
        }
    }

    fn give_up(&self, service: Service, code: Code, cause: &str) {
        let why = format!("{}: {cause}", service.name());
        self.args.phase.send_replace(Phase::Failed { code, why });
    }

    /// Stops the last service that runs; with none left, the tree is down.
    fn stop_last(&self, myself: &ActorRef<RootMsg>) {
        let last = Service::ORDER
            .into_iter()
            .rev()
            .find_map(|service| Some((service, self.children.cell(&service)?)));
        let Some((service, cell)) = last else {
            self.args.phase.send_replace(Phase::Stopped);
            myself.stop(None);
            return;
        };
        self.args
            .ctx
            .tree
            .note(service.name(), "stopping", "ordered");
        service.shut_gate(&self.args.ctx);
        cell.stop(None);
        myself.send_after(service.stop_within(), move || RootMsg::Overdue(service));
    }
}

async fn begin<A: Actor>(
    actor: A,
    args: A::Arguments,
    (metrics, kind): (&Metrics, ActorKind),
    me: ActorCell,
) -> Result<ActorCell, SpawnErr> {
    let actor = measured(metrics, kind, actor);
    let (begun, _) = Actor::spawn_linked(None, actor, args, me).await?;
    Ok(begun.get_cell())
}
