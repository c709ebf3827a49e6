//! One install, from the start of the installer to what is on the shelf.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::job::Job;
use super::lock::{self, Kept};
use super::shelf::{self, Delivery, Record};
use super::{CHANGED, Failed, Kind};
use crate::actors::clock::id_bits;
use crate::actors::control::isolates::wait_gone;
use crate::actors::ctx::Ctx;
use crate::actors::handle::{CallError, Handle, Reply, RunEnd};
use crate::actors::isolate::IsolateMsg;
use crate::actors::plan;
use crate::actors::slot::{Slot, SlotKey, SlotState};
use crate::actors::start_work::start_work;
use crate::domain::ids::{IsolateId, McpId};
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

/// Installs a package: the newest that it allows, or what was resolved before. The slot it runs in is told first, for whoever looks.
pub(super) async fn install(
    ctx: &Arc<Ctx>,
    mcp: &Arc<Mcp>,
    package: &Package,
    kept: Option<Kept>,
    told: impl Fn(&Arc<Slot>),
) -> Result<Record, Failed> {
    let since = std::time::Instant::now();
    let failed = |why: String| Failed::new(Kind::Failed, why);
    let (looking, of, what) = (Arc::clone(ctx), Arc::clone(mcp), package.clone());
    let job = start_work(move || Job::new(&looking, &of, &what)).await;
    let mut job = job.and_then(|job| job).map_err(failed)?;
    let redactor = job.redactor.clone();
    let lock_sha256 = kept.as_ref().map(|kept| kept.lock_sha256.clone());
    job.order.locked = kept.map(|kept| kept.files).unwrap_or_default();
    let python = job.order.python.clone();
    let order = serde_json::to_vec(&job.order).map_err(|error| failed(error.to_string()))?;
    let slot = slot(ctx, mcp, &job);
    let home = plan::home_of(&ctx.settings.homes, &slot);
    // What an earlier try left.
    clear(ctx, &home).await.map_err(failed)?;
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
    let denied = ctx.packages.end(&slot.key);
    if !left.is_empty() {
        // In sight until they are gone.
        let why = format!("processes of the installer do not die: {left:?}");
        return Err(failed(why));
    }
    ctx.slots.pin().remove(&slot.key);
    // Nobody writes to the tree any more.
    let mut record = match worked {
        Ok(done) => {
            let delivery = Delivery {
                key: package.key(&mcp.install),
                manager: package.manager,
                done,
                python,
                scripts: mcp.install.scripts,
                lock_sha256: lock_sha256.clone(),
                installed_at: ctx.wall_ms(),
                since,
            };
            keep(ctx, mcp, &slot, delivery).await
        }
        Err(mut failed) => {
            if let Some(denied) = denied {
                let _ = write!(failed.why, ". {denied}. {REGISTRIES}");
            }
            Err(failed)
        }
    };
    // Package managers may say what they were let in with.
    if let (Err(failed), Some(redactor)) = (&mut record, redactor) {
        failed.why = redactor.redact_text(&failed.why);
    }
    if let (Err(failed), Some(_)) = (&mut record, &lock_sha256)
        && failed.kind == Kind::Failed
    {
        let _ = write!(
            failed.why,
            ". It was to be what was installed before, by its lock file; `legation mcp install {} \
             --again` takes the newest",
            mcp.name
        );
    }
    if let Err(error) = clear(ctx, &home).await {
        tracing::warn!(mcp.name = %mcp.name, "what the installer left stays: {error}");
    }
    record
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
async fn clear(ctx: &Ctx, home: &Path) -> Result<(), String> {
    let owner = home.parent().unwrap_or(home).to_owned();
    let launcher = Arc::clone(&ctx.launcher);
    let removed = spawn_blocking(move || super::clear::remove_home(&*launcher, &owner)).await;
    let removed = removed.map_err(|error| error.to_string())?;
    removed.map_err(|error| format!("what an earlier install left cannot be removed: {error}"))
}

/// Takes over what was made, unless nobody wants it any more.
async fn keep(
    ctx: &Arc<Ctx>,
    mcp: &Mcp,
    slot: &Arc<Slot>,
    delivery: Delivery,
) -> Result<Record, Failed> {
    let home = plan::home_of(&ctx.settings.homes, slot);
    let (root, id, tree) = (super::root(ctx), mcp.id.clone(), home.join(TREE));
    let within = mcp.install_deadline();
    let (asked, slot) = (Arc::clone(ctx), Arc::clone(slot));
    let kept = spawn_blocking(move || {
        let until = std::time::Instant::now() + within;
        let key = delivery.key.clone();
        let stop = || unwanted(&asked, &slot, &key, until);
        let used = || super::clear::used(&asked);
        // Where we are not root it is its own until then.
        let put = asked.launcher.reclaim(&home);
        let put = put.and_then(|()| shelf::put(&root, &id, &tree, delivery, &stop, &used));
        if let Ok(record) = &put {
            keep_lock(&root, &id, record);
        }
        put.map_err(|error| {
            let kind = match unwanted(&asked, &slot, &key, until) {
                Some(_) if asked.is_stopping() || asked.denies(&slot).is_some() => Kind::Stopped,
                _ => Kind::Failed,
            };
            Failed::new(kind, format!("what was downloaded is not taken: {error}"))
        })
    });
    let broken = |error: tokio::task::JoinError| Failed::new(Kind::Failed, error.to_string());
    kept.await.map_err(broken)?
}

/// Keeps what was resolved. Without it a tree that is lost is installed again with the newest versions. Blocks.
pub(super) fn keep_lock(root: &Path, mcp: &McpId, record: &Record) {
    if let Err(error) = lock::keep(root, mcp, record) {
        tracing::warn!(mcp.id = %mcp, "the lock file of what is installed is not kept: {error}");
    }
}

/// Why a tree is not to be taken over, if it is not.
fn unwanted(ctx: &Ctx, slot: &Slot, key: &str, until: std::time::Instant) -> Option<String> {
    if ctx.is_stopping() {
        return Some("the gateway is stopping".to_owned());
    }
    if !ctx.packages.is_wanted(&slot.key.mcp, key) {
        return Some(CHANGED.to_owned());
    }
    if let Some(deny) = ctx.denies(slot) {
        return Some(format!("{} ({})", deny.title(), deny.reason));
    }
    if ctx.room.disk.is_nearly_full() {
        return Some("the disk of the homes is nearly full (isolates.disk_free_bytes)".to_owned());
    }
    (std::time::Instant::now() > until).then(|| "copying it took too long".to_owned())
}

/// Starts the installer and has it work.
async fn work(
    ctx: &Arc<Ctx>,
    slot: &Arc<Slot>,
    order: &[u8],
    within: Duration,
) -> Result<Done, Failed> {
    let mut watch = slot.watch();
    let mut denies = ctx.kill.changes();
    ctx.demand(slot);
    let settled = watch.wait_for(|state| {
        !matches!(
            state,
            SlotState::Resting | SlotState::Starting { .. } | SlotState::Stopping
        )
    });
    // Who is switched off before the installer is there starts none.
    let denied = async { while ctx.denies(slot).is_none() && denies.changed().await.is_ok() {} };
    let state = tokio::select! {
        settled = tokio::time::timeout(2 * START_DEADLINE, settled) => match settled {
            Ok(Ok(state)) => state.clone(),
            _ => return Err(ended(ctx, slot, "the installer did not start in time")),
        },
        () = denied => return Err(ended(ctx, slot, "the installer was switched off")),
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
        Err(CallError::Ended(end)) => Err(broken(ctx, slot, &end)),
        Err(_) => Err(match gone(&handle) {
            Some(end) => broken(ctx, slot, &end),
            None => ended(ctx, slot, "the installer could not be asked"),
        }),
    }
}

fn gone(handle: &Handle) -> Option<Arc<RunEnd>> {
    handle.ended()
}

/// The installer ended while it worked.
fn broken(ctx: &Ctx, slot: &Slot, end: &RunEnd) -> Failed {
    let last = end.last_stderr.as_deref();
    let last = last.map_or_else(String::new, |line| format!("; its last line: {line}"));
    let why = format!("the installer {}{last}", end.verdict);
    match end.verdict {
        Verdict::Killed { .. } | Verdict::Shutdown => ended(ctx, slot, &why),
        _ => Failed::new(Kind::Failed, why),
    }
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
        let shown = message.chars().filter(|c| !c.is_control());
        return failed(shown.take(WHY_CHARS_MAX).collect());
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
