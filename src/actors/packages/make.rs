//! An install from the outside: within the bounds, for whoever waits, and recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::install;
use super::lock::{self, Kept};
use super::shelf::{self, Record};
use super::{CHANGED, Cell, Failed, Kind, State, root};
use crate::actors::audit::Entry;
use crate::actors::ctx::Ctx;
use crate::domain::limits::{INSTALL_RETRY, INSTALL_RETRY_MAX};
use crate::domain::mcp::Mcp;
use crate::domain::package::Package;
use crate::telemetry::metrics::labels::InstallResult;

/// Looks on the shelf, and installs what is not there. Whatever happens, the state is settled at the end.
pub(super) async fn settle(
    ctx: &Arc<Ctx>,
    mcp: &Arc<Mcp>,
    package: &Package,
    cell: &Arc<Cell>,
    failures: u32,
) {
    let unsettled = Unsettled(cell);
    let _flight = cell.flight.lock().await;
    let (dir, id, key) = (root(ctx), mcp.id.clone(), cell.key.clone());
    let found = tokio::task::spawn_blocking(move || {
        let found = shelf::load(&dir, &id)?.filter(|record| record.key == key);
        Ok::<_, std::io::Error>(match found {
            Some(record) => {
                // Of before lock files were kept.
                install::keep_lock(&dir, &id, &record);
                (Some(record), None)
            }
            None => (None, lock::find(&dir, &id, &key)?),
        })
    });
    let (found, kept) = match found.await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => {
            tracing::warn!(mcp.name = %mcp.name, "what is installed is not known, so it is installed anew: {error}");
            (None, None)
        }
        Err(_) => (None, None),
    };
    let state = match found {
        Some(record) => State::Installed(Arc::new(record)),
        None => match make(ctx, mcp, package, cell, kept).await {
            Ok(record) => State::Installed(record),
            Err(mut failed) => {
                if failed.kind != Kind::Stopped {
                    failed.failures = failures.saturating_add(1);
                    let wait = INSTALL_RETRY * 2u32.saturating_pow(failures.min(16));
                    failed.until = Instant::now() + wait.min(INSTALL_RETRY_MAX);
                }
                State::Failed(failed)
            }
        },
    };
    cell.state.send_replace(state);
    drop(unsettled);
}

/// An install that broke off must not be waited for.
pub(super) struct Unsettled<'a>(pub(super) &'a Cell);

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        self.0.state.send_if_modified(|state| {
            let unsettled = matches!(state, State::Installing(_));
            if unsettled {
                let why = "the install broke off".to_owned();
                *state = State::Failed(Failed::new(Kind::Failed, why));
            }
            unsettled
        });
    }
}

/// Installs, within the bounds, and records how that went.
pub(super) async fn make(
    ctx: &Arc<Ctx>,
    mcp: &Arc<Mcp>,
    package: &Package,
    cell: &Cell,
    kept: Option<Kept>,
) -> Result<Arc<Record>, Failed> {
    let since = Instant::now();
    // Never closed.
    let _place = ctx.packages.places.acquire().await;
    let made = match refused(ctx, mcp, &cell.key) {
        Some((kind, why)) => Err(Failed::new(kind, why)),
        None => {
            install::install(ctx, mcp, package, kept, |slot| {
                cell.state.send_if_modified(|state| match state {
                    State::Installing(progress) => {
                        progress.slot = Some(Arc::clone(slot));
                        true
                    }
                    _ => false,
                });
            })
            .await
        }
    };
    told(ctx, mcp, package, &made, since.elapsed());
    made.map(Arc::new)
}

/// Why no install is begun now.
fn refused(ctx: &Ctx, mcp: &Mcp, key: &str) -> Option<(Kind, String)> {
    if ctx.is_stopping() {
        return Some((Kind::Stopped, "the gateway is stopping".to_owned()));
    }
    if !ctx.packages.is_wanted(&mcp.id, key) {
        return Some((Kind::Stopped, CHANGED.to_owned()));
    }
    if !ctx.may_start() {
        let why = "no server is started while the audit log cannot be written";
        return Some((Kind::Failed, why.to_owned()));
    }
    let slots = ctx.slots.pin();
    let running = slots.values().filter(|one| one.is_running()).count();
    let why = ctx.room.refuses(running)?.why;
    ctx.room.refused(mcp.name.as_str(), &why);
    Some((Kind::Failed, why))
}

fn told(ctx: &Ctx, mcp: &Mcp, package: &Package, made: &Result<Record, Failed>, took: Duration) {
    let entry = |event| {
        Entry::new(event, ctx.wall_ms())
            .field("mcp", mcp.id.as_str())
            .field("package", &package.to_string())
            .number(
                "took_ms",
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            )
    };
    let result = match made {
        Ok(record) => {
            let done = &record.done;
            tracing::info!(mcp.name = %mcp.name, "installed {} {}", done.name, done.version);
            ctx.audit.post(
                entry("isolate.installed")
                    .field("version", &done.version)
                    .field("integrity", &done.integrity)
                    .field("lock_sha256", &record.lock_sha256)
                    .field("tree_sha256", &record.tree_sha256),
            );
            InstallResult::Installed
        }
        Err(failed) => {
            tracing::warn!(mcp.name = %mcp.name, "`{package}` was not installed: {}", failed.why);
            ctx.audit
                .post(entry("isolate.install_failed").field("detail", &failed.why));
            match failed.kind {
                Kind::Failed => InstallResult::Failed,
                Kind::Slow => InstallResult::Slow,
                Kind::Stopped => InstallResult::Stopped,
            }
        }
    };
    ctx.metrics.installed(result, took);
}
