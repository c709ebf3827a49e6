//! What is kept of everybody's homes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::limits::{HOME_ENTRIES_MAX, HOMES_LISTED_MAX, HOMES_WEIGHED_MAX};

use super::super::launcher::Launcher;
use super::super::views::HomeView;
use super::{Control, ControlError};

impl Control {
    /// All homes, the largest first, each with its size if there was time to look.
    ///
    /// # Errors
    /// The store, which knows the names, is away, or the directory cannot be read.
    pub async fn homes(&self) -> Result<Vec<HomeView>, ControlError> {
        let users = self.ctx.store.users().await?.into_iter();
        let users = users.map(|user| (user.id.to_string(), user.name.to_string()));
        let mcps = self.ctx.store.mcps().await?.into_iter();
        let mcps = mcps.map(|mcp| (mcp.id.to_string(), mcp.name.to_string()));
        let (users, mcps): (HashMap<_, _>, HashMap<_, _>) = (users.collect(), mcps.collect());
        let (launcher, root) = (
            Arc::clone(&self.ctx.launcher),
            self.ctx.settings.homes.clone(),
        );
        let found = spawn_blocking(move || weighed(&*launcher, &root)).await;
        let found = found
            .map_err(|error| ControlError::new(Code::Internal, error.to_string()))?
            .map_err(|error| ControlError::new(Code::Internal, error.to_string()))?;
        let views = found.into_iter().map(|(owner, mcp, bytes)| HomeView {
            path: self.ctx.settings.homes.join(&owner).join(&mcp),
            user: users.get(&owner).cloned(),
            // A shared instance's home is its mcp's own.
            shared: owner == mcp,
            mcp: mcps.get(&mcp).cloned(),
            bytes,
        });
        Ok(views.collect())
    }
}

/// Owner, mcp and bytes of each home.
type Weighed = (String, String, Option<u64>);

fn weighed(launcher: &dyn Launcher, root: &Path) -> std::io::Result<Vec<Weighed>> {
    let until = Instant::now() + HOMES_WEIGHED_MAX;
    let mut found = Vec::new();
    for owner in directories(root)? {
        for home in directories(&owner).unwrap_or_default() {
            if found.len() >= HOMES_LISTED_MAX {
                break;
            }
            let bytes = (Instant::now() < until).then(|| launcher.weigh(&home, HOME_ENTRIES_MAX));
            found.push((last(&owner), last(&home), bytes));
        }
    }
    found.sort_by(|a, b| (b.2, &a.0, &a.1).cmp(&(a.2, &b.0, &b.1)));
    Ok(found)
}

fn directories(of: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(of)?.flatten();
    let dirs = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(dirs.map(|entry| entry.path()).collect())
}

fn last(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
