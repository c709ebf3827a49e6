//! The tree under a paused clock, with scripts in place of processes: backoff, quarantine,
//! half-open, the barrier, idle, the stop ladder, and that no failure reaches a sibling.

mod taken_away;
mod world;

use world::{Caller, World};

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ractor::{Actor, ActorCell, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::time::Instant;

use super::announced::announced;
use super::audit::{Audit, Durability};
use super::catalog::{Published, Route};
use super::clock::{SetClock, id_bits};
use super::ctx::Ctx;
use super::failure::Reason;
use super::handle::Reply;
use super::health::Health;
use super::isolate::IsolateMsg;
use super::launcher::Exit;
use super::router::{self, Aside, Ask, Errand};
use super::scripted::{Script, Scripted};
use super::session::SessionHandle;
use super::slot::{Slot, SlotState};
use super::users::Users;
use crate::config::Config;
use crate::domain::account::{Session, User};
use crate::domain::code::Code;
use crate::domain::ids::{CallId, ConnectionId, KeyId, McpId, SessionId, UserId};
use crate::domain::mcp::{Limits, Mcp, McpState, Program, Sharing, Times, Tool};
use crate::domain::name::{Name, ToolName};
use crate::domain::verdict::{OomScope, Verdict};
use crate::storage::Store;

#[tokio::test]
async fn concurrent_first_calls_start_one_process() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    let calls = (0..50).map(|_| world.call(&ada));
    for answer in futures_all(calls).await {
        assert!(answer.is_ok());
    }
    assert_eq!(world.scripted.launches(), 1);
    assert_eq!(world.scripted.calls.lock().len(), 50);
}

#[tokio::test]
async fn a_hanging_start_of_one_user_never_delays_another() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let hanging: Vec<_> = (0..200)
        .map(|n| world.caller(&format!("u{n}"), "hangs"))
        .collect();
    let tasks: Vec<_> = hanging
        .into_iter()
        .map(|caller| {
            let ctx = Arc::clone(&world.ctx);
            tokio::spawn(async move {
                let errand = Errand {
                    call: &CallId::from_random(id_bits()),
                    session: &caller.session,
                    route: &caller.route,
                    ask: Ask::Tool { arguments: b"{}" },
                    aside: &Aside::default(),
                    admitted: Instant::now(),
                };
                router::carry(&ctx, errand).await.err()
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    let since = Instant::now();
    let ada = world.caller("ada", "server");
    assert!(world.call(&ada).await.is_ok());
    let permits = world.ctx.settings.start_parallel;
    let turns = u32::try_from(200 / permits + 2).unwrap();
    let bound = crate::domain::limits::START_PERMIT_HOLD * turns;
    assert!(
        since.elapsed() <= bound,
        "{:?} > {bound:?}",
        since.elapsed()
    );
    for task in tasks {
        task.abort();
    }
}

#[tokio::test]
async fn a_crash_answers_at_once_backs_off_and_leaves_siblings_alone() {
    let world = World::new().await;
    let (ada, bob) = (
        world.caller("ada", "crashes"),
        world.caller("bob", "server"),
    );
    world.call(&bob).await.unwrap();
    world
        .scripted
        .on("crashes", [Script::DieOnCall(Exit::Code(3)), Script::Serve]);
    let since = Instant::now();
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(
        (error.code, error.verdict),
        (Code::RunEnded, Some("exited"))
    );
    assert!(error.text.contains("exited with code 3"), "{}", error.text);
    assert!(
        since.elapsed() <= Duration::from_millis(10),
        "{:?}",
        since.elapsed()
    );
    // The restart comes by itself, between half the floor and the floor.
    let slot = world.slot(&ada);
    world.until(&slot, "backoff").await;
    let SlotState::Backoff { until, end, .. } = slot.state() else {
        panic!()
    };
    let delay = until - Instant::now();
    assert!(
        delay >= Duration::from_millis(120) && delay <= Duration::from_millis(250),
        "{delay:?}"
    );
    assert_eq!(end.last_stderr.as_deref(), Some("the last words"));
    world.call(&ada).await.unwrap();
    assert_eq!(slot.restarts(), 1);
    assert_eq!(
        world.slot(&bob).history().len(),
        1,
        "the sibling was never restarted"
    );
    world.never_two();
}

#[tokio::test]
async fn five_failures_quarantine_with_the_last_words_and_one_try_after_it() {
    let world = World::new().await;
    world
        .scripted
        .on("broken", [Script::ExitAtOnce(Exit::Code(1))]);
    let ada = world.caller("ada", "broken");
    let first = world.call(&ada).await.unwrap_err();
    assert_eq!(first.code, Code::BackingOff);
    let slot = world.slot(&ada);
    world.until(&slot, "quarantined").await;
    assert_eq!(world.scripted.launches(), 5);
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(error.code, Code::Quarantined);
    assert!(error.text.contains("the last words"), "{}", error.text);
    assert!(error.retry_after.unwrap() <= Duration::from_secs(300));
    // Nobody needs it: no try is made.
    tokio::time::sleep(Duration::from_secs(301)).await;
    world.until(&slot, "resting").await;
    assert_eq!(world.scripted.launches(), 5);
    // Somebody does: one try, and it is still broken.
    world.call(&ada).await.unwrap_err();
    world.until(&slot, "quarantined").await;
    assert_eq!(world.scripted.launches(), 6);
    // An administrator forgives, and it is repaired.
    world.scripted.on("broken", [Script::Serve]);
    slot.actor().unwrap().cast(IsolateMsg::Restart).unwrap();
    world.until(&slot, "ready").await;
    world.call(&ada).await.unwrap();
    world.never_two();
}

#[tokio::test]
async fn who_finds_no_room_is_not_tried_again_until_somebody_asks() {
    let world = World::new().await;
    let full = Verdict::OutOfProcesses {
        scope: OomScope::User,
        limit: Some(40),
    };
    world
        .scripted
        .on("crowded", [Script::ExitAtOnce(Exit::Over(full))]);
    let ada = world.caller("ada", "crowded");
    let eve = world.caller("eve", "crashes");
    // A caller waits and tries again, until the wait is longer than one waits.
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(
        (error.code, error.verdict),
        (Code::BackingOff, Some("out_of_processes"))
    );
    let slot = world.slot(&ada);
    world.until(&slot, "resting").await;
    let tried = world.scripted.launches();
    assert_eq!(slot.restarts(), 0, "it took nothing of the restart budget");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.scripted.launches(), tried, "nobody asked");
    // Nor does it keep anybody else from being restarted.
    world
        .scripted
        .on("crashes", [Script::DieOnCall(Exit::Code(3)), Script::Serve]);
    world.call(&eve).await.unwrap_err();
    world.until(&world.slot(&eve), "ready").await;
    // There is room again: the next call finds it.
    world.scripted.on("crowded", [Script::Serve]);
    world.call(&ada).await.unwrap();
    world.never_two();
}

#[tokio::test]
async fn a_change_of_tools_is_recorded_once_however_often_it_is_read() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    world.call(&ada).await.unwrap();
    let slot = world.slot(&ada);
    let tool = |name: &str| Tool {
        name: ToolName::parse(name).unwrap(),
        description: String::new(),
        definition: "{}".into(),
    };
    for tools in [
        vec![tool("a"), tool("b")],
        vec![tool("b"), tool("a")],
        vec![tool("a"), tool("b")],
        vec![tool("a")],
        // As it is known: what it says after that is news again.
        vec![],
        vec![tool("a")],
    ] {
        announced(&world.ctx, &slot, tools).await;
    }
    let mut told: Vec<String> = Vec::new();
    let since = std::time::Instant::now();
    while told.len() < 3 && since.elapsed() < Duration::from_secs(10) {
        std::thread::sleep(Duration::from_millis(20));
        let files = std::fs::read_dir(world.dir.path().join("audit")).unwrap();
        let text: String = files
            .filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok())
            .collect();
        told = text
            .lines()
            .filter(|line| line.contains("isolate.tools_changed"))
            .map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).unwrap();
                record["tools"].as_str().unwrap().to_owned()
            })
            .collect();
    }
    assert_eq!(told, ["+a +b", "+a", "+a"]);
}

#[tokio::test]
async fn what_cannot_heal_is_quarantined_at_once() {
    let world = World::new().await;
    world.scripted.on("gone", [Script::Refuse]);
    let ada = world.caller("ada", "gone");
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(error.code, Code::Quarantined);
    assert!(error.text.contains("no such file"), "{}", error.text);
    assert_eq!(world.scripted.launches(), 1);
}

#[tokio::test]
async fn a_handshake_that_hangs_ends_at_its_deadline() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let ada = world.caller_with("ada", "hangs", |mcp| mcp.times.start_ms = Some(3000));
    let since = Instant::now();
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(
        (error.code, error.verdict),
        (Code::BackingOff, Some("handshake"))
    );
    assert!(
        since.elapsed() < Duration::from_secs(60),
        "{:?}",
        since.elapsed()
    );
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_call_that_outlasts_a_start_hears_starting() {
    let world = World::new().await;
    world.scripted.on("hangs", [Script::Hang]);
    let ada = world.caller_with("ada", "hangs", |mcp| mcp.times.call_ms = 1000);
    let error = world.call(&ada).await.unwrap_err();
    assert_eq!(error.code, Code::Starting);
}

#[tokio::test]
async fn an_idle_isolate_stops_and_its_user_with_it_and_the_next_call_starts_it() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    world.call(&ada).await.unwrap();
    let slot = world.slot(&ada);
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(slot.state().word(), "ready");
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(slot.state().word(), "resting");
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
    assert_eq!(slot.history()[0].facts().verdict.unwrap().kind(), "idle");
    world.call(&ada).await.unwrap();
    assert_eq!(world.scripted.launches(), 2);
    world.never_two();
}

#[tokio::test]
async fn a_server_deaf_to_pings_is_ended_and_restarted() {
    let world = World::new().await;
    world.scripted.on("deaf", [Script::Deaf, Script::Serve]);
    let ada = world.caller_with("ada", "deaf", |mcp| mcp.times.idle_ms = None);
    world.call(&ada).await.unwrap();
    let slot = world.slot(&ada);
    world.until(&slot, "backoff").await;
    assert_eq!(slot.history()[0].facts().verdict.unwrap().kind(), "ping");
    world.until(&slot, "ready").await;
}

/// A server that does one thing at a time answers no ping meanwhile, and was killed for dead after a minute, whatever its
/// calls may take.
#[tokio::test]
async fn a_server_at_work_on_a_long_call_is_not_taken_for_dead() {
    let world = World::new().await;
    let long = Duration::from_secs(240);
    world.scripted.on("busy", [Script::Busy(long)]);
    let ada = world.caller_with("ada", "busy", |mcp| mcp.times.idle_ms = None);
    let since = Instant::now();
    world.call(&ada).await.unwrap();
    assert!(since.elapsed() >= long);
    assert_eq!(world.slot(&ada).state().word(), "ready");
    assert_eq!(world.scripted.launches(), 1);
}

#[tokio::test]
async fn a_server_that_hangs_in_a_call_is_ended_though_it_is_called_again_and_again() {
    let world = World::new().await;
    let ever = Duration::from_secs(24 * 3600);
    world
        .scripted
        .on("busy", [Script::Busy(ever), Script::Serve]);
    let ada = world.caller_with("ada", "busy", |mcp| {
        mcp.times.idle_ms = None;
        mcp.times.call_ms = 60_000;
    });
    let since = Instant::now();
    // Each waits as long as a call may.
    while world.call(&ada).await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(600), "it hangs still");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let runs = world.slot(&ada).history();
    let mut ended = runs.iter().filter_map(|run| run.facts().verdict);
    assert_eq!(ended.next().unwrap().kind(), "ping");
}

#[tokio::test]
async fn a_stubborn_server_is_killed_at_the_end_of_the_ladder() {
    let world = World::new().await;
    world.scripted.on("stubborn", [Script::Stubborn]);
    let ada = world.caller("ada", "stubborn");
    world.call(&ada).await.unwrap();
    let since = Instant::now();
    world
        .users
        .stop_and_wait(None, Some(Duration::from_secs(60)))
        .await
        .unwrap();
    let took = since.elapsed();
    assert!(
        took >= Duration::from_secs(5) && took < Duration::from_secs(8),
        "{took:?}"
    );
    assert_eq!(world.scripted.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn processes_that_do_not_die_leave_the_slot_stuck_until_they_do() {
    let world = World::new().await;
    world.scripted.on(
        "undying",
        [Script::Undying(Duration::from_secs(30)), Script::Serve],
    );
    let ada = world.caller_with("ada", "undying", |mcp| mcp.times.call_ms = 1000);
    assert_eq!(world.call(&ada).await.unwrap_err().code, Code::CallTimeout);
    let slot = world.slot(&ada);
    slot.actor().unwrap().cast(IsolateMsg::Restart).unwrap();
    world.until(&slot, "stuck").await;
    assert_eq!(world.call(&ada).await.unwrap_err().code, Code::Stuck);
    assert_eq!(
        world.scripted.launches(),
        1,
        "no run beside one that is not gone"
    );
    world.until(&slot, "ready").await;
    assert_eq!(world.scripted.launches(), 2);
    world.never_two();
}

#[tokio::test]
async fn a_failed_isolate_actor_takes_its_processes_along_and_nobody_elses() {
    let world = World::new().await;
    let (ada, bob) = (world.caller("ada", "server"), world.caller("bob", "server"));
    world.call(&ada).await.unwrap();
    world.call(&bob).await.unwrap();
    let slot = world.slot(&ada);
    slot.actor().unwrap().kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.call(&ada).await.unwrap();
    assert_eq!(world.slot(&bob).history().len(), 1);
    assert_eq!(
        slot.history()[1].facts().verdict.unwrap().kind(),
        "internal"
    );
    world.never_two();
}

#[tokio::test]
async fn a_user_has_no_more_isolates_than_allowed() {
    let world = World::new().await;
    let ada = world.caller("ada", "server");
    let most = world.ctx.settings.per_user_max;
    for n in 0..=most {
        let mut other = world.caller("x", &format!("server{n}"));
        other.session = Arc::clone(&ada.session);
        let answer = world.call(&other).await;
        assert_eq!(answer.is_ok(), n < most, "{n}");
        if let Err(error) = answer {
            assert_eq!(error.code, Code::IsolatesMax);
        }
    }
}

async fn futures_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pinned: Vec<_> = futures.map(Box::pin).collect();
    let mut out: Vec<Option<T>> = pinned.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, slot) in pinned.iter_mut().zip(&mut out) {
            if slot.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *slot = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    out.into_iter().flatten().collect()
}
