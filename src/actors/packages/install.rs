//! One install, from the start of the installer to what is on the shelf.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::job::Job;
use super::shelf::{self, Delivery, Record};
use super::{Failed, Kind};
use crate::actors::clock::id_bits;
use crate::actors::control::isolates::wait_gone;
use crate::actors::ctx::Ctx;
use crate::actors::handle::{CallError, Handle, Reply, RunEnd};
use crate::actors::isolate::IsolateMsg;
use crate::actors::plan;
use crate::actors::slot::{Slot, SlotKey, SlotState};
use crate::actors::start_work::start_work;
use crate::domain::ids::IsolateId;
use crate::domain::limits::START_DEADLINE;
use crate::domain::mcp::Mcp;
use crate::domain::package::{Done, INSTALL, Package, TREE};
use crate::domain::verdict::Verdict;
use crate::protocol::envelope::ReplyKind;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// What helps where a registry is not reached.
const REGISTRIES: &str = "A registry of yours is set with install.npm_registry or install.python_index, \
    whatever its address is; other hosts with install.hosts";
/// Characters of each text in it, and of what is told of a failure.
const TEXT_CHARS_MAX: usize = 512;
const WHY_CHARS_MAX: usize = 2048;

/// Installs a package. The slot it runs in is told first, for whoever looks.
pub(super) async fn install(
    ctx: &Arc<Ctx>,
    mcp: &Arc<Mcp>,
    package: &Package,
    told: impl Fn(&Arc<Slot>),
) -> Result<Record, Failed> {
    let since = Instant::now();
    let failed = |why: String| Failed::new(Kind::Failed, why);
    let (looking, of, what) = (Arc::clone(ctx), Arc::clone(mcp), package.clone());
    let job = start_work(move || Job::new(&looking, &of, &what)).await;
    let job = job.and_then(|job| job).map_err(failed)?;
    let python = job.order.python.clone();
    let order = serde_json::to_vec(&job.order).map_err(|error| failed(error.to_string()))?;
    let slot = slot(ctx, mcp, &job);
    let home = plan::home_of(&ctx.settings.homes, &slot);
    // What an earlier try left.
    clear(&home).await.map_err(failed)?;
    ctx.packages.begin(&slot.key, job);
    ctx.slots.pin().insert(slot.key.clone(), Arc::clone(&slot));
    told(&slot);
    let worked = work(ctx, &slot, &order, mcp.install_deadline()).await;
    let verdict = match &worked {
        Ok(_) => Verdict::Idle,
        Err(failed) => Verdict::Killed {
            reason: format!("the install failed: {}", failed.why),
        },
    };
    if let Some(actor) = slot.actor() {
        let _ = actor.cast(IsolateMsg::Leave(verdict));
    }
    let left = wait_gone(&[Arc::clone(&slot)], 2 * ctx.settings.kill_wait).await;
    ctx.slots.pin().remove(&slot.key);
    let denied = ctx.packages.end(&slot.key);
    let done = worked.map_err(|mut failed| {
        if let Some(denied) = denied {
            let _ = write!(failed.why, ". {denied}. {REGISTRIES}");
        }
        failed
    })?;
    if !left.is_empty() {
        let why = format!("processes of the installer do not die: {left:?}");
        return Err(failed(why));
    }
    // Nobody writes to the tree any more.
    let delivery = Delivery {
        key: package.key(&mcp.install),
        manager: package.manager,
        done,
        python,
        scripts: mcp.install.scripts,
        installed_at: ctx.wall_ms(),
        took_ms: millis(since.elapsed()),
    };
    let record = keep(ctx, mcp, &home, delivery).await.map_err(failed)?;
    if let Err(error) = clear(&home).await {
        tracing::warn!(mcp.name = %mcp.name, "what the installer left stays: {error}");
    }
    Ok(record)
}

fn slot(ctx: &Ctx, mcp: &Mcp, job: &Job) -> Arc<Slot> {
    let id = IsolateId::from_random(id_bits());
    let key = SlotKey::install(&mcp.id, &id);
    Arc::new(Slot::new(
        id,
        key,
        Arc::new(job.mcp.clone()),
        None,
        ctx.settings.user_limits,
        ctx.settings.restart,
        Arc::clone(&ctx.changes),
    ))
}

/// Removes the installer's home.
async fn clear(home: &Path) -> Result<(), String> {
    let owner = home.parent().unwrap_or(home).to_owned();
    let removed = spawn_blocking(move || shelf::remove(&owner)).await;
    let removed = removed.map_err(|error| error.to_string())?;
    removed.map_err(|error| format!("what an earlier install left cannot be removed: {error}"))
}

async fn keep(ctx: &Ctx, mcp: &Mcp, home: &Path, delivery: Delivery) -> Result<Record, String> {
    let (root, id, tree) = (super::root(ctx), mcp.id.clone(), home.join(TREE));
    let kept = spawn_blocking(move || shelf::put(&root, &id, &tree, delivery));
    let kept = kept.await.map_err(|error| error.to_string())?;
    kept.map_err(|error| format!("what was downloaded is not taken: {error}"))
}

/// Starts the installer and has it work.
async fn work(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
    order: &[u8],
    within: Duration,
) -> Result<Done, Failed> {
    let mut watch = slot.watch();
    ctx.demand(slot);
    let settled = watch.wait_for(|state| {
        !matches!(
            state,
            SlotState::Resting | SlotState::Starting { .. } | SlotState::Stopping
        )
    });
    let state = match tokio::time::timeout(2 * START_DEADLINE, settled).await {
        Ok(Ok(state)) => state.clone(),
        _ => return Err(ended(ctx, slot, "the installer did not start in time")),
    };
    let handle = match state {
        SlotState::Ready(handle) => handle,
        SlotState::Backoff { end, .. } | SlotState::Quarantined { end, .. } => {
            let why = format!("the installer {}", end.verdict);
            return Err(Failed::new(Kind::Failed, why));
        }
        _ => return Err(ended(ctx, slot, "the installer was stopped")),
    };
    let deadline = Instant::now() + within;
    match handle.ask(INSTALL, order, deadline).await {
        Ok(reply) => read(&reply),
        Err(CallError::TimedOut) => Err(slow(slot, within)),
        Err(CallError::Ended(end)) => Err(broken(&end)),
        Err(_) => Err(match gone(&handle) {
            Some(end) => broken(&end),
            None => ended(ctx, slot, "the installer could not be asked"),
        }),
    }
}

fn gone(handle: &Handle) -> Option<Arc<RunEnd>> {
    handle.ended()
}

/// The installer ended while it worked.
fn broken(end: &RunEnd) -> Failed {
    let last = end.last_stderr.as_deref();
    let last = last.map_or_else(String::new, |line| format!("; its last line: {line}"));
    let kind = match &end.verdict {
        Verdict::Killed { .. } | Verdict::Shutdown => Kind::Stopped,
        _ => Kind::Failed,
    };
    Failed::new(kind, format!("the installer {}{last}", end.verdict))
}

/// It is not there any more, or never was: who switched it off says so.
fn ended(ctx: &Ctx, slot: &Slot, why: &str) -> Failed {
    match ctx.denies(slot) {
        Some(deny) => Failed::new(Kind::Stopped, format!("{} ({})", deny.title(), deny.reason)),
        None if ctx.is_stopping() => {
            Failed::new(Kind::Stopped, "the gateway is stopping".to_owned())
        }
        None => Failed::new(Kind::Failed, why.to_owned()),
    }
}

fn slow(slot: &Slot, within: Duration) -> Failed {
    let last = slot.occupant().and_then(|run| run.record.stderr.last());
    let last = last.map_or_else(String::new, |line| format!(", and said last: {line}"));
    let why = format!("it was not done within {} s{last}", within.as_secs());
    Failed::new(Kind::Slow, why)
}

fn read(reply: &Reply) -> Result<Done, Failed> {
    let failed = |why: String| Err(Failed::new(Kind::Failed, why));
    let bytes = reply.line.get(reply.body.clone()).unwrap_or_default();
    if bytes.len() > ANSWER_BYTES_MAX {
        return failed("the installer's answer is too long".to_owned());
    }
    if reply.kind == ReplyKind::Error {
        let error: Result<serde_json::Value, _> = serde_json::from_slice(bytes);
        let message = error
            .ok()
            .and_then(|error| Some(error.get("message")?.as_str()?.to_owned()));
        let message = message.unwrap_or_else(|| "the installer refused".to_owned());
        return failed(message.chars().take(WHY_CHARS_MAX).collect());
    }
    let done: Done = match serde_json::from_slice(bytes) {
        Ok(done) => done,
        Err(error) => return failed(format!("the installer's answer is none: {error}")),
    };
    let texts = [
        &done.entry,
        &done.lock,
        &done.name,
        &done.version,
        &done.integrity,
    ];
    let plain = |text: &&String| {
        text.chars().count() <= TEXT_CHARS_MAX && !text.chars().any(char::is_control)
    };
    match texts.iter().all(plain) {
        true => Ok(done),
        false => failed("the installer's answer has texts that are none".to_owned()),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
