//! What is taken away while somebody waits for it: suspensions, restarts, replaced definitions.

use crate::domain::account::{Suspension, SuspensionScope};

use super::*;

#[tokio::test]
async fn what_is_suspended_is_not_started_again_by_who_waited_for_it() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let ada = world.caller("ada", "hangs");
    let waiting = {
        let (ctx, session) = (Arc::clone(&world.ctx), Arc::clone(&ada.session));
        let route = Route {
            exposed: "echo".into(),
            tool: ada.route.tool.clone(),
            published: ada.route.published.clone(),
            definition: Arc::clone(&ada.route.definition),
        };
        tokio::spawn(
            async move { router::carry(&ctx, &session, &route, b"{}", Instant::now()).await },
        )
    };
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(world.scripted.launches(), 1);
    let control = crate::actors::control::Control::new(Arc::clone(&world.ctx));
    let scope = SuspensionScope::Mcp(ada.route.published.mcp.id.clone());
    // The store runs on threads of its own, which a paused clock does not wait for.
    tokio::time::resume();
    world
        .ctx
        .store
        .create_mcp(&ada.route.published.mcp, 1)
        .await
        .unwrap();
    control.suspend(scope, "leaks", "root").await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code, Code::McpDisabled, "{}", error.text);
    assert_eq!(world.scripted.launches(), 1, "nobody started it again");
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_backs_off_stays_down_when_it_is_suspended() {
    let world = World::new().await;
    world
        .scripted
        .on("broken", [Script::ExitAtOnce(Exit::Code(1))]);
    let ada = world.caller("ada", "broken");
    world.call(&ada).await.unwrap_err();
    let slot = world.slot(&ada);
    world.until(&slot, "backoff").await;
    let before = world.scripted.launches();
    let suspension = Suspension {
        id: crate::domain::ids::SuspensionId::from_random(id_bits()),
        scope: SuspensionScope::User(ada.session.user.id.clone()),
        reason: "left".into(),
        author: "root".into(),
        created_at: 0,
        lifted_at: None,
    };
    world.ctx.denied.rcu(|denied| denied.with(&suspension));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.scripted.launches(), before);
    assert_eq!(world.call(&ada).await.unwrap_err().code, Code::UserDisabled);
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
