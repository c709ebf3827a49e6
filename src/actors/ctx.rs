//! What the actors share: cells that outlive whoever publishes into them.
//!
//! Snapshots are replaced whole, watches are read, gates are flags. Nothing here waits and nothing
//! here is an actor; a service that fails leaves its last snapshot standing while it restarts.

mod gates;
mod settings;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use ractor::ActorRef;
use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::domain::account::{Millis, User};
use crate::domain::audit::Category;
use crate::domain::ids::{IsolateId, KeyId, McpId, SessionId, UserId};
use crate::domain::kill::{Caller, Deny};
use crate::domain::limits::AUDIT_STREAMS_MAX;
use crate::domain::mcp::{Mcp, Sharing};
use crate::domain::name::ToolName;
use crate::domain::redact::Redactor;
use crate::domain::talk::Questions;
use crate::storage::Store;
use crate::telemetry::metrics::Metrics;

pub use gates::{Flag, Gates, Heart};
pub use settings::Settings;

use super::abilities::KnownAbilities;
use super::access::AccessKeys;
use super::announced::Adopted;
use super::audit::{Audit, Entry, Index, Refusals};
use super::calls::Waiting;
use super::catalog::{CatalogMsg, Routes};
use super::changes::Changes;
use super::clock::{Clock, id_bits};
use super::control::Leaving;
use super::credentials::Credentials;
use super::ears::Ears;
use super::eras::Eras;
use super::front::{Bearers, Gathering, PromptNames};
use super::handle::RunEnd;
use super::household::HouseholdMsg;
use super::killswitch::Switchboard;
use super::launcher::Launcher;
use super::ops::OpsState;
use super::packages::Packages;
use super::room::Room;
use super::schemas::Schemas;
use super::session::SessionHandle;
use super::sessions::SessionsMsg;
use super::slot::{Occupant, Principal, Slot, SlotKey, SlotState};
use super::start_line::StartLine;
use super::sync::Mutex;
use super::system::settings;
use super::tasks::Tasks;
use super::throttle::{CallRates, Failures, Restarts};
use super::tree::Tree;
use super::users::UsersMsg;
use super::vault::VaultCell;

/// Totals since the start.
#[derive(Debug, Default)]
pub struct Totals {
    /// Tool calls.
    pub calls: AtomicU64,
    /// Tool calls without a server's answer.
    pub failed: AtomicU64,
}

/// Who knows the secret values of a user that go into an mcp, so that they are taken out of what
/// is recorded.
pub trait KnownSecrets: Send + Sync {
    /// Finds the values that this user's runs of this mcp are given, in a call's arguments; `None` if
    /// there are none.
    fn of(&self, user: &UserId, mcp: &McpId) -> Option<Redactor>;
}

/// What the actors share.
pub struct Ctx {
    /// The configuration as it was read.
    pub config: Config,
    /// The numbers.
    pub settings: Settings,
    /// When this life began.
    pub started_at: Millis,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// Storage.
    pub store: Store,
    /// Why the store does not answer, while it does not.
    pub store_away: ArcSwapOption<String>,
    /// The audit log.
    pub audit: Audit,
    /// How processes are started.
    pub launcher: Arc<dyn Launcher>,
    /// Routes, replaced whole.
    pub routes: ArcSwap<Routes>,
    /// Kill switches and suspensions.
    pub kill: Switchboard,
    /// Calls that wait for a server.
    pub waiting: Waiting,
    /// Changes with each snapshot of routes.
    pub rerouted: watch::Sender<u64>,
    /// Whether routes were ever published.
    pub published: AtomicBool,
    /// Token keys and the pepper, once the vault has loaded them.
    pub access: ArcSwapOption<AccessKeys>,
    /// Master keys, and who may seal with them.
    pub vault: VaultCell,
    /// Sealed credentials, replaced whole.
    pub credentials: Credentials,
    /// Whoever changes a definition reads and writes it while holding this.
    pub defining: tokio::sync::Mutex<()>,
    /// Users whose removal is under way.
    pub leaving: Leaving,
    /// What is installed for mcps, and what is being installed.
    pub packages: Packages,
    /// All slots.
    pub slots: papaya::HashMap<SlotKey, Arc<Slot>>,
    /// What servers can do, by their mcp and the definition they were started from.
    pub abilities: KnownAbilities,
    /// Which era of MCP they speak.
    pub eras: Eras,
    /// Lists that are being gathered from all servers of a key.
    pub gathering: Gathering,
    /// The names of keys' prompts.
    pub prompts: PromptNames,
    /// When tools that servers announced were taken over.
    pub adopted: Adopted,
    /// Who hears what servers tell of themselves.
    pub ears: Arc<Ears>,
    /// Calls whose client does not wait for them.
    pub tasks: Tasks,
    /// All sessions, by the bits of their id.
    pub sessions: papaya::HashMap<[u8; crate::domain::ids::ID_BYTES], Arc<SessionHandle>>,
    /// What the schemas of tools share.
    pub schemas: Arc<Schemas>,
    /// The gates.
    pub gates: Gates,
    /// The line of starts.
    pub starts: StartLine,
    /// Room for isolates on the host.
    pub room: Room,
    /// The host-wide restart budget.
    pub restart_budget: Restarts,
    /// Failed registrations.
    pub failures: Failures,
    /// Calls of each key.
    pub call_rates: CallRates,
    /// Keys that MCP clients show with every request.
    pub bearers: Bearers,
    /// Where in the audit log what is, while its index is there.
    pub audit_index: ArcSwapOption<Index>,
    /// Who may read the audit log at once.
    pub audit_readers: Arc<Semaphore>,
    /// Refused authentication, for the audit log.
    pub refusals: Refusals,
    /// Where the secret values are known that must not be recorded.
    pub secrets: OnceLock<Arc<dyn KnownSecrets>>,
    /// Totals.
    pub totals: Totals,
    /// Processes without a slot, as the reaper last saw them.
    pub unowned: AtomicU64,
    /// The metrics.
    pub metrics: Metrics,
    /// What is kept between scrapes.
    pub ops: OpsState,
    /// The tree, for those who look.
    pub tree: Tree,
    /// What changes in it, for those who follow.
    pub changes: Arc<Changes>,
    /// The root's signs of life.
    pub heart: Heart,
    /// Set once, when the server begins to stop.
    pub stopping: watch::Sender<bool>,
    refs: Mutex<Refs>,
}

#[derive(Default)]
struct Refs {
    users: Option<ActorRef<UsersMsg>>,
    shared: Option<ActorRef<HouseholdMsg>>,
    catalog: Option<ActorRef<CatalogMsg>>,
    sessions: Option<ActorRef<SessionsMsg>>,
    client_url: String,
    keys_used: HashMap<KeyId, Millis>,
}

impl std::fmt::Debug for Ctx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctx")
            .field("gates", &self.gates)
            .finish_non_exhaustive()
    }
}

impl Ctx {
    /// What the actors share, before any of them runs: every gate is shut.
    #[must_use]
    pub fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        store: Store,
        audit: Audit,
        launcher: Arc<dyn Launcher>,
    ) -> Self {
        let settings = settings(&config);
        let changes = Arc::new(Changes::default());
        Self {
            started_at: clock.wall_ms(),
            room: Room::of(&config),
            config,
            starts: StartLine::new(settings.start_parallel),
            restart_budget: Restarts::new(settings.restarts_per_second),
            failures: Failures::new(settings.failed_tries_max, settings.failed_window),
            call_rates: CallRates::new(settings.calls_per_minute),
            settings,
            audit_index: ArcSwapOption::empty(),
            audit_readers: Arc::new(Semaphore::new(AUDIT_STREAMS_MAX)),
            bearers: Bearers::default(),
            refusals: Refusals::default(),
            secrets: OnceLock::new(),
            clock,
            store,
            store_away: ArcSwapOption::empty(),
            audit,
            launcher,
            routes: ArcSwap::default(),
            kill: Switchboard::default(),
            waiting: Waiting::default(),
            rerouted: watch::Sender::new(0),
            published: AtomicBool::new(false),
            access: ArcSwapOption::empty(),
            vault: VaultCell::default(),
            credentials: Credentials::default(),
            defining: tokio::sync::Mutex::default(),
            leaving: Leaving::default(),
            packages: Packages::default(),
            slots: papaya::HashMap::new(),
            abilities: KnownAbilities::default(),
            eras: Eras::default(),
            gathering: Gathering::default(),
            prompts: PromptNames::default(),
            adopted: Adopted::default(),
            ears: Arc::default(),
            tasks: Tasks::default(),
            sessions: papaya::HashMap::new(),
            schemas: Arc::default(),
            gates: Gates::default(),
            totals: Totals::default(),
            tree: Tree::new(Arc::clone(&changes)),
            changes,
            unowned: AtomicU64::new(0),
            metrics: Metrics::new(),
            ops: OpsState::default(),
            heart: Heart::default(),
            stopping: watch::Sender::new(false),
            refs: Mutex::default(),
        }
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn wall_ms(&self) -> Millis {
        self.clock.wall_ms()
    }

    /// Whether work whose record is of this category may be done: the log can be written, or need
    /// not be.
    #[must_use]
    pub fn may(&self, category: Category) -> bool {
        self.gates.audit.is_open() || !self.audit.requires(category)
    }

    /// Whether the server has begun to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The slots of a user, or the shared ones.
    #[must_use]
    pub fn slots_of(&self, user: Option<&UserId>) -> Vec<Arc<Slot>> {
        let slots = self.slots.pin();
        slots
            .values()
            .filter(|slot| slot.key.principal.user() == user)
            .cloned()
            .collect()
    }

    /// The slot for these, made if there is none: it costs memory only until somebody wants a run.
    pub fn slot(
        &self,
        principal: Principal,
        mcp: &Arc<Mcp>,
        config: &Arc<str>,
        questions: Questions,
        owner: Option<&User>,
    ) -> Arc<Slot> {
        let key = SlotKey {
            principal,
            mcp: mcp.id.clone(),
            config: Arc::clone(config),
            questions,
        };
        let slots = self.slots.pin();
        if let Some(slot) = slots.get(&key) {
            return Arc::clone(slot);
        }
        let owner = owner.filter(|_| mcp.sharing != Sharing::Shared).cloned();
        let slot = Slot::new(
            IsolateId::from_random(id_bits()),
            key.clone(),
            Arc::clone(mcp),
            owner,
            self.settings.user_limits,
            self.settings.restart,
            Arc::clone(&self.changes),
        );
        Arc::clone(slots.get_or_insert(key, Arc::new(slot)))
    }

    /// What keeps a slot's process from running, if anything does.
    #[must_use]
    pub fn denies(&self, slot: &Slot) -> Option<Arc<Deny>> {
        let table = self.kill.table();
        let table = table.as_ref()?;
        let key = match &slot.key.principal {
            Principal::Session(_, session) if table.has_clients() => self.key_of(session),
            _ => None,
        };
        let (user, mcp) = (slot.key.principal.user(), &slot.key.mcp);
        table
            .process(user, key.as_ref(), mcp, || self.wall_ms())
            .cloned()
    }

    /// What denies a call, if anything does.
    #[must_use]
    pub fn denies_call(
        &self,
        session: &SessionHandle,
        mcp: &McpId,
        tool: &ToolName,
    ) -> Option<Arc<Deny>> {
        let table = self.kill.table();
        let table = table.as_ref()?;
        table
            .call(session.caller(), mcp, tool, || self.wall_ms())
            .cloned()
    }

    /// The suspension of a user or of a key, if there is one.
    #[must_use]
    pub fn suspension(&self, who: Caller<'_>) -> Option<Arc<Deny>> {
        let table = self.kill.table();
        table.as_ref()?.suspension(who, || self.wall_ms()).cloned()
    }

    /// The key that registered a session, if the session is there.
    pub(super) fn key_of(&self, session: &SessionId) -> Option<KeyId> {
        let sessions = self.sessions.pin();
        sessions.get(&session.bits()).map(|one| one.key.clone())
    }

    /// A slot will never run again: forgotten first, so that whoever waits finds its successor.
    pub(super) fn close_slot(&self, slot: &Arc<Slot>, cause: impl Into<String>) {
        // Another may have taken its place.
        let _ = self
            .slots
            .pin()
            .remove_if(&slot.key, |_, known| Arc::ptr_eq(known, slot));
        slot.enter(SlotState::Closed, cause);
    }

    /// Asks for a run in a slot; one message however many ask.
    pub fn demand(&self, slot: &Arc<Slot>) {
        if slot.want() {
            self.ensure(slot);
        }
    }

    /// Hands a slot to its supervisor.
    pub(super) fn ensure(&self, slot: &Arc<Slot>) {
        let refs = self.refs.lock();
        // A supervisor that is down finds the slot wanted when it is up again.
        if slot.key.principal == Principal::Shared {
            if let Some(shared) = &refs.shared {
                let _ = shared.cast(HouseholdMsg::Ensure(Arc::clone(slot)));
            }
        } else if let Some(users) = &refs.users {
            let _ = users.cast(UsersMsg::Ensure(Arc::clone(slot)));
        }
    }

    /// A run was reaped: the record of it.
    pub(super) fn run_ended(&self, slot: &Slot, run: &Occupant, end: &RunEnd) {
        let facts = run.record.facts();
        self.metrics
            .mcp(slot.mcp.name.as_str())
            .ended(&end.verdict, run.record.noise.seen());
        tracing::info!(
            isolate.id = %slot.id,
            mcp.name = %slot.mcp.name,
            run.epoch = run.epoch,
            run.verdict = %end.verdict,
            "a run ended"
        );
        self.audit.post(
            Entry::new("isolate.ended", self.wall_ms())
                .field("isolate", slot.id.as_str())
                .field("mcp", slot.mcp.id.as_str())
                .field("user", slot.key.principal.user().map_or("", UserId::as_str))
                .number("epoch", run.epoch)
                .number(
                    "pid",
                    facts
                        .pid
                        .and_then(|pid| u64::try_from(pid).ok())
                        .unwrap_or(0),
                )
                .field("verdict", end.verdict.kind())
                .field("detail", &end.verdict.to_string()),
        );
    }

    /// Where clients connect.
    #[must_use]
    pub fn client_url(&self) -> String {
        self.refs.lock().client_url.clone()
    }

    pub(super) fn set_client_url(&self, url: &str) {
        url.clone_into(&mut self.refs.lock().client_url);
    }

    /// A key registered a session; saved with the sessions' own times.
    pub(super) fn note_key_used(&self, key: &KeyId, at: Millis) {
        let mut refs = self.refs.lock();
        let known = refs.keys_used.entry(key.clone()).or_insert(at);
        *known = at.max(*known);
    }

    pub(super) fn take_keys_used(&self) -> Vec<(KeyId, Millis)> {
        self.refs.lock().keys_used.drain().collect()
    }

    pub(super) fn set_users(&self, users: &ActorRef<UsersMsg>) {
        self.refs.lock().users = Some(users.clone());
    }

    pub(super) fn set_shared(&self, shared: &ActorRef<HouseholdMsg>) {
        self.refs.lock().shared = Some(shared.clone());
    }

    pub(super) fn set_catalog(&self, catalog: &ActorRef<CatalogMsg>) {
        self.refs.lock().catalog = Some(catalog.clone());
    }

    pub(super) fn set_sessions(&self, sessions: &ActorRef<SessionsMsg>) {
        self.refs.lock().sessions = Some(sessions.clone());
    }

    pub(super) fn catalog(&self) -> Option<ActorRef<CatalogMsg>> {
        self.refs.lock().catalog.clone()
    }

    pub(super) fn sessions_actor(&self) -> Option<ActorRef<SessionsMsg>> {
        self.refs.lock().sessions.clone()
    }
}
