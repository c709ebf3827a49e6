//! What is taken away while somebody waits for it: suspensions, restarts, replaced definitions.

use crate::actors::control::{Control, Named, Recycle, Wanted};
use crate::actors::router::{Aside, Ask};
use crate::actors::views::DenyReport;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Kind, Target};

use super::*;

fn deny(target: Target) -> Arc<Deny> {
    Arc::new(Deny {
        id: DenyId::from_random(id_bits()),
        kind: Kind::KillSwitch,
        target,
        label: "it".into(),
        reason: "leaks".into(),
        author: "root".into(),
        created_at: 0,
        expires_at: None,
        lifted: None,
    })
}

impl World {
    /// A call in a task of its own.
    fn calling(&self, caller: &Caller) -> tokio::task::JoinHandle<Result<Reply, Reason>> {
        let (ctx, session) = (Arc::clone(&self.ctx), Arc::clone(&caller.session));
        let route = Route {
            exposed: "echo".into(),
            tool: caller.route.tool.clone(),
            published: caller.route.published.clone(),
            definition: Arc::clone(&caller.route.definition),
            schema: None,
        };
        tokio::spawn(async move {
            let errand = Errand {
                call: &CallId::from_random(id_bits()),
                session: &session,
                route: &route,
                ask: Ask::Tool { arguments: b"{}" },
                aside: &Aside::default(),
                admitted: Instant::now(),
            };
            router::carry(&ctx, errand).await
        })
    }

    fn control(&self) -> Control {
        Control::new(Arc::clone(&self.ctx))
    }

    /// Switches off for real: journal, kills and all.
    async fn switch_off(&self, target: Target) -> DenyReport {
        let dir = self.ctx.settings.data_dir.clone();
        let ctx = Arc::clone(&self.ctx);
        let opened = tokio::task::spawn_blocking(move || ctx.kill.open_for_tests(&dir));
        opened.await.unwrap();
        let wanted = Wanted {
            kind: Kind::KillSwitch,
            of: Named {
                target,
                label: "it".into(),
            },
            reason: "leaks".into(),
            expires_at: None,
        };
        self.control().switch_on(wanted, "root").await.unwrap()
    }
}

#[tokio::test]
async fn who_waits_for_a_start_is_told_at_once_and_nobody_starts_it_again() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let ada = world.caller("ada", "hangs");
    let waiting = world.calling(&ada);
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.scripted.launches(), 1);
    assert_eq!(world.control().calls().calls[0].state, "waiting");
    let report = world
        .switch_off(Target::Mcp(ada.route.published.mcp.id.clone()))
        .await;
    assert_eq!((report.isolates_stopped, report.calls_cancelled), (1, 1));
    assert!(report.left.is_empty(), "{report:?}");
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::KillSwitchActive, "{}", error.text);
    assert!(error.text.contains("leaks"), "{}", error.text);
    assert_eq!(world.scripted.launches(), 1, "nobody started it again");
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
    assert!(world.control().calls().calls.is_empty());
}

#[tokio::test]
async fn who_waits_is_told_before_the_start_is_done() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let ada = world.caller("ada", "hangs");
    for target in [
        Target::Tool(ada.route.published.mcp.id.clone(), ada.route.tool.clone()),
        Target::Client(ada.session.key.clone()),
    ] {
        let waiting = world.calling(&ada);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let since = Instant::now();
        world.ctx.kill.deny_for_tests(&[deny(target)]);
        let error = waiting.await.unwrap().unwrap_err();
        assert_eq!(error.code, Code::KillSwitchActive, "{}", error.text);
        assert_eq!(since.elapsed(), Duration::ZERO, "no start was waited for");
        world.ctx.kill.deny_for_tests(&[]);
    }
    // The start itself goes on: others of its user may use it.
    assert_eq!(world.slot(&ada).state().word(), "starting");
}

#[tokio::test]
async fn a_run_that_comes_after_the_switch_never_serves() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    // Admitted before, and on its way to a start when the switch comes.
    let waiting = world.calling(&ada);
    world
        .ctx
        .kill
        .deny_for_tests(&[deny(Target::User(ada.session.user.id.clone()))]);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::KillSwitchActive, "{}", error.text);
    // Somebody wants it all the same.
    for slot in world.ctx.slots_of(Some(&ada.session.user.id)) {
        world.ctx.demand(&slot);
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
    assert!(world.scripted.calls.lock().is_empty());
}

#[tokio::test]
async fn what_backs_off_stays_down_when_it_is_switched_off() {
    let world = World::new().await;
    world
        .scripted
        .on("broken", [Script::ExitAtOnce(Exit::Code(1))]);
    let ada = world.caller("ada", "broken");
    world.call(&ada).await.unwrap_err();
    let slot = world.slot(&ada);
    world.until(&slot, "backoff").await;
    let before = world.scripted.launches();
    let mut suspension = (*deny(Target::User(ada.session.user.id.clone()))).clone();
    suspension.kind = Kind::Suspension;
    world.ctx.kill.deny_for_tests(&[Arc::new(suspension)]);
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.scripted.launches(), before);
    assert_eq!(world.call(&ada).await.unwrap_err().code, Code::UserDisabled);
}

#[tokio::test]
async fn a_process_that_does_not_die_is_named_and_its_slot_stays_shut_until_it_does() {
    let world = World::new().await;
    world
        .scripted
        .on("undying", [Script::Undying(Duration::from_secs(8))]);
    let ada = world.caller("ada", "undying");
    let waiting = world.calling(&ada);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let slot = world.slot(&ada);
    assert_eq!(slot.state().word(), "ready");
    assert_eq!(world.control().calls().calls[0].state, "in_flight");
    let report = world
        .switch_off(Target::Mcp(ada.route.published.mcp.id.clone()))
        .await;
    assert_eq!(report.survivors, [4711], "{report:?}");
    assert_eq!(report.left[0].isolate, slot.id.as_str());
    assert!(report.took_ms >= 5000, "it waited: {report:?}");
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(
        error.code,
        Code::KillSwitchActive,
        "told at once, not after the wait"
    );
    world.until(&slot, "stuck").await;
    assert_eq!(world.ctx.kill.stats.unkillable(), 1);
    // It heals by itself.
    world.until(&slot, "resting").await;
}

#[tokio::test]
async fn a_cancelled_call_whose_server_is_silent_recycles_its_isolate_alone() {
    let world = World::new().await;
    // Never answers a call, dies when it is killed.
    world
        .scripted
        .on("silent", [Script::Undying(Duration::ZERO)]);
    let (ada, bob) = (world.caller("ada", "silent"), world.caller("bob", "server"));
    world.call(&bob).await.unwrap();
    let first = world.calling(&ada);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = world.calling(&ada);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let slot = world.slot(&ada);
    let calls = world.control().calls();
    assert_eq!((calls.total, calls.calls.len()), (2, 2));
    let id = &calls.calls[0].id;
    let since = Instant::now();
    let cancel = |recycle| {
        let control = world.control();
        let id = id.clone();
        async move { control.cancel_call(&id, "too long", recycle, "root").await }
    };
    let report = cancel(Recycle::OwnOnly).await.unwrap();
    assert_eq!(since.elapsed().as_secs(), 5, "the grace");
    assert_eq!(
        (report.server.as_str(), report.recycled, report.others_told),
        ("silent", true, 1),
        "{report:?}"
    );
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::Cancelled, "{}", error.text);
    assert!(error.text.contains("too long"), "{}", error.text);
    let other = second.await.unwrap().unwrap_err();
    assert_eq!(
        (other.code, other.verdict),
        (Code::RunEnded, Some("recycled"))
    );
    assert!(other.text.contains("too long"), "{}", other.text);
    world.until(&slot, "resting").await;
    assert_eq!(slot.restarts(), 0, "it is no failure");
    assert_eq!(
        world.scripted.alive.load(Ordering::SeqCst),
        1,
        "bob's goes on"
    );
    let gone = cancel(Recycle::OwnOnly).await.unwrap_err();
    assert_eq!(gone.code, Code::NotFound);
}

#[tokio::test]
async fn a_silent_server_goes_on_if_that_is_asked_for() {
    let world = World::new().await;
    world
        .scripted
        .on("silent", [Script::Undying(Duration::ZERO)]);
    let ada = world.caller("ada", "silent");
    let call = world.calling(&ada);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let id = world.control().calls().calls[0].id.clone();
    let control = world.control();
    let report = control
        .cancel_call(&id, "too long", Recycle::Never, "root")
        .await
        .unwrap();
    assert_eq!((report.server.as_str(), report.recycled), ("silent", false));
    assert_eq!(call.await.unwrap().unwrap_err().code, Code::Cancelled);
    assert_eq!(world.slot(&ada).state().word(), "ready", "it goes on");
    assert_eq!(world.slot(&ada).occupant().unwrap().handle.in_flight(), 0);
}

#[tokio::test]
async fn a_restart_during_an_idle_stop_ends_in_a_run_that_serves() {
    let world = World::new().await;
    world
        .scripted
        .on("stubborn", [Script::Stubborn, Script::Serve]);
    let ada = world.caller("ada", "stubborn");
    world.call(&ada).await.unwrap();
    let slot = world.slot(&ada);
    let isolate = slot.actor().unwrap();
    isolate
        .cast(IsolateMsg::Leave(crate::domain::verdict::Verdict::Idle))
        .unwrap();
    isolate.cast(IsolateMsg::Restart).unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    world.until(&slot, "ready").await;
    world.call(&ada).await.unwrap();
    world.never_two();
}

#[tokio::test]
async fn a_definition_that_comes_back_while_its_old_run_drains_is_served() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    world.call(&ada).await.unwrap();
    let slot = world.slot(&ada);
    // Replaced, and in the same breath published as it was.
    slot.actor()
        .unwrap()
        .cast(IsolateMsg::Leave(crate::domain::verdict::Verdict::Replaced))
        .unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let since = Instant::now();
    world.call(&ada).await.unwrap();
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "{:?}",
        since.elapsed()
    );
    assert!(
        !Arc::ptr_eq(&slot, &world.slot(&ada)),
        "its successor serves"
    );
    assert_eq!(slot.state().word(), "closed");
    world.never_two();
}
