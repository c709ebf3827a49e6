//! What is ended and removed: installers nobody wants any more, and what they left.

use std::io;
use std::path::{Path, PathBuf};

use super::{root, shelf};
use crate::actors::ctx::Ctx;
use crate::actors::isolate::IsolateMsg;
use crate::actors::launcher::Launcher;
use crate::domain::ids::McpId;
use crate::domain::verdict::Verdict;

/// Whose home an installer has: nobody's else.
pub(in crate::actors) fn home_owner(mcp: &McpId) -> String {
    format!("{HOME}{}", mcp.short())
}

/// What the owner of an installer's home begins with.
const HOME: &str = "install-";

/// The trees that runs use now.
pub(super) fn used(ctx: &Ctx) -> Vec<PathBuf> {
    let slots = ctx.slots.pin();
    let running = slots.values().filter(|slot| slot.is_running());
    running.filter_map(|slot| slot.tree()).collect()
}

/// Ends the installers of an mcp.
pub(super) fn stop(ctx: &Ctx, mcp: &McpId, why: &str) {
    let slots = ctx.slots.pin();
    let of_it = slots
        .values()
        .filter(|slot| slot.key.is_install() && slot.key.mcp == *mcp);
    for slot in of_it {
        let verdict = Verdict::Killed {
            reason: why.to_owned(),
        };
        if let Some(run) = slot.occupant() {
            run.kill(verdict.clone());
        }
        if let Some(actor) = slot.actor() {
            // One that is gone has nothing to stop.
            let _ = actor.cast(IsolateMsg::Leave(verdict));
        }
    }
}

/// Removes what is an installer's, when its processes are gone. Blocks.
pub(in crate::actors) fn remove_home(launcher: &dyn Launcher, owner: &Path) -> io::Result<()> {
    for home in std::fs::read_dir(owner).into_iter().flatten().flatten() {
        launcher.reclaim(&home.path())?;
    }
    shelf::remove(owner)
}

/// Removes the homes of a user who is gone; the record of their uid stays. Blocks.
pub(in crate::actors) fn remove_homes(launcher: &dyn Launcher, owner: &Path) -> io::Result<()> {
    for home in std::fs::read_dir(owner).into_iter().flatten().flatten() {
        launcher.reclaim(&home.path())?;
        shelf::remove(&home.path())?;
    }
    sandbox::homes::retire(owner)
}

/// Clears away what a life of the gateway that was cut off has left of installs. Blocks; only before anything is
/// started.
pub(in crate::actors) fn sweep(ctx: &Ctx) {
    for entry in std::fs::read_dir(&ctx.settings.homes)
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(HOME))
            && let Err(error) = remove_home(&*ctx.launcher, &entry.path())
        {
            tracing::warn!("{} stays: {error}", entry.path().display());
        }
    }
    shelf::sweep(&root(ctx));
}
