//! A tree without a root, on a paused clock: its users, its callers, and what they call.

use super::*;
use crate::actors::launcher::Launcher;
use crate::actors::users::UsersMsg;
use crate::domain::talk::Questions;

/// Stands where the root would.
struct Ground;

impl Actor for Ground {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

pub(super) struct World {
    pub(super) ctx: Arc<Ctx>,
    pub(super) scripted: Arc<Scripted>,
    pub(super) users: ActorRef<UsersMsg>,
    pub(super) dir: tempfile::TempDir,
}

pub(super) struct Caller {
    pub(super) session: Arc<SessionHandle>,
    pub(super) route: Route,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = dir.path().to_owned();
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let audit = Audit::open(&dir.path().join("audit"), Durability::Buffered).unwrap();
        let scripted = Arc::new(Scripted::default());
        let launcher: Arc<dyn Launcher> = Arc::clone(&scripted) as _;
        let clock = Arc::new(SetClock::at(1));
        let ctx = Arc::new(Ctx::new(config, clock, store, audit, launcher));
        tokio::time::pause();
        let (ground, _) = Actor::spawn(None, Ground, ()).await.unwrap();
        let cell: ActorCell = ground.get_cell();
        let (users, _) = Actor::spawn_linked(None, Users, Arc::clone(&ctx), cell.clone())
            .await
            .unwrap();
        Actor::spawn_linked(None, Health, Arc::clone(&ctx), cell)
            .await
            .unwrap();
        Self {
            ctx,
            scripted,
            users,
            dir,
        }
    }

    /// A user who calls the program of that name.
    pub(super) fn caller(&self, user: &str, program: &str) -> Caller {
        self.caller_with(user, program, |_| {})
    }

    pub(super) fn caller_with(
        &self,
        user: &str,
        program: &str,
        change: impl FnOnce(&mut Mcp),
    ) -> Caller {
        let user = User {
            id: UserId::from_random(id_bits()),
            name: Name::parse(user).unwrap(),
            created_at: 0,
        };
        let row = Session {
            id: SessionId::from_random(id_bits()),
            key: KeyId::from_random(id_bits()),
            user: user.id.clone(),
            connection: ConnectionId::from_random(id_bits()),
            friendly_name: String::new(),
            host_tool: String::new(),
            questions: Questions::NONE,
            created_at: 0,
            seen_at: 0,
            expires_at: i64::MAX,
        };
        let mut mcp = Mcp {
            id: McpId::from_random(id_bits()),
            name: Name::parse(program).unwrap(),
            description: String::new(),
            state: McpState::Published,
            sharing: Sharing::PerUser,
            program: Program {
                command: "sh".into(),
                args: vec![program.into()],
                ..Program::default()
            },
            limits: Limits::default(),
            times: Times::default(),
            as_configured: Default::default(),
            confinement: Default::default(),
            install: Default::default(),
            audit_arguments: Default::default(),
            talk: Default::default(),
            credentials: Default::default(),
        };
        change(&mut mcp);
        let tool = Tool {
            name: ToolName::parse("echo").unwrap(),
            description: String::new(),
            definition: "{}".into(),
        };
        let config = mcp.config_hash().into();
        let published = Published {
            meter: self.ctx.metrics.mcp(mcp.name.as_str()),
            mcp: Arc::new(mcp),
            config,
            era: None,
        };
        let routes = self.ctx.routes.load().with(published.clone());
        self.ctx.routes.store(Arc::new(routes));
        Caller {
            session: Arc::new(SessionHandle::new(row, user, None)),
            route: Route {
                exposed: "echo".into(),
                tool: tool.name,
                published,
                schema: None,
                definition: serde_json::value::RawValue::from_string("{}".into())
                    .unwrap()
                    .into(),
            },
        }
    }

    pub(super) async fn call(&self, caller: &Caller) -> Result<Reply, Reason> {
        let errand = Errand {
            call: &CallId::from_random(id_bits()),
            session: &caller.session,
            route: &caller.route,
            ask: Ask::Tool { arguments: b"{}" },
            aside: &Aside::default(),
            admitted: Instant::now(),
        };
        router::carry(&self.ctx, errand).await
    }

    pub(super) fn slot(&self, caller: &Caller) -> Arc<Slot> {
        let slots = self.ctx.slots_of(Some(&caller.session.user.id));
        Arc::clone(&slots[0])
    }

    /// Waits on the paused clock for a state.
    pub(super) async fn until(&self, slot: &Slot, word: &str) {
        let mut watch = slot.watch();
        let reached = watch.wait_for(|state| state.word() == word);
        let within = Duration::from_secs(3600);
        let Ok(reached) = tokio::time::timeout(within, reached).await else {
            panic!("never {word}: {:?}", slot.transitions())
        };
        reached.unwrap();
    }

    /// The invariant behind everything: never two runs of one isolate at a time.
    pub(super) fn never_two(&self) {
        for (isolate, (_, most)) in self.scripted.most_alive_per_isolate.lock().iter() {
            assert!(*most <= 1, "{isolate} had {most} runs at once");
        }
    }
}
