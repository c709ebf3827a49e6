//! Removing a user for good, and what is kept of everybody's homes.
//!
//! Only who is suspended is removed: then nobody comes in, and what ran is ended. First what says who they are and may
//! do, in one transaction; then their homes; the suspension last, when nothing is left that it could keep out. What is in the
//! audit log stays.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::domain::account::User;
use crate::domain::code::Code;
use crate::domain::ids::KeyId;
use crate::domain::kill::{Kind, Target};
use crate::domain::limits::{HOME_ENTRIES_MAX, HOMES_LISTED_MAX, HOMES_WEIGHED_MAX};
use crate::domain::verdict::Verdict;

use super::super::isolate::IsolateMsg;
use super::super::launcher::Launcher;
use super::super::packages::remove_home;
use super::super::slot::Slot;
use super::super::views::{HomeView, UserRemoved};
use super::{Control, ControlError};

impl Control {
    /// Removes a suspended user with keys, sessions, subscriptions, memberships, credentials and homes.
    ///
    /// # Errors
    /// They are not suspended, something of theirs still runs, or the store is away: then nothing was removed.
    pub async fn remove_user(
        &self,
        user: &User,
        author: &str,
    ) -> Result<UserRemoved, ControlError> {
        let (id, name) = (&user.id, &user.name);
        let itself = Target::User(id.clone());
        if self.denied_reason(Kind::Suspension, &itself).is_none() {
            let message = format!("user `{name}` is not suspended, and only who is can be removed");
            return Err(ControlError::new(Code::Conflict, message)
                .next(format!("legation user suspend {name}")));
        }
        let slots = self.slots_of(user);
        let running = slots.iter().filter(|slot| slot.occupant().is_some());
        let running = running.count();
        if running > 0 {
            let message = format!("{running} isolates of user `{name}` are not gone yet");
            return Err(ControlError::new(Code::Conflict, message).next("legation isolate list"));
        }
        let keys = self.ctx.store.keys(Some(id)).await?;
        let credentials = self.forget_user(user, author).await?;
        // What is late is published when the catalog is up again; they are gone from the store.
        let published = self.refresh().await;
        for slot in slots {
            match slot.actor() {
                Some(isolate) => {
                    // One that ends by itself leaves its slot to the next look.
                    let _ = isolate.cast(IsolateMsg::Leave(Verdict::Replaced));
                }
                None => self.ctx.close_slot(&slot, "its user was removed"),
            }
        }
        let (launcher, home) = (
            Arc::clone(&self.ctx.launcher),
            self.ctx.settings.homes.join(id.as_str()),
        );
        let shown = home.display().to_string();
        let removed = spawn_blocking(move || remove_home(&*launcher, &home)).await;
        let left = match removed {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{shown}: {error}")),
            Err(error) => Some(format!("{shown}: {error}")),
        };
        published?;
        let known: Vec<KeyId> = keys.iter().map(|key| key.id.clone()).collect();
        self.lift_of(&itself, &known, author).await;
        Ok(UserRemoved {
            id: id.to_string(),
            keys: known.len(),
            credentials,
            homes_left: left,
        })
    }

    fn slots_of(&self, user: &User) -> Vec<Arc<Slot>> {
        let slots = self.ctx.slots.pin();
        let theirs = slots
            .values()
            .filter(|slot| slot.key.principal.user() == Some(&user.id));
        theirs.cloned().collect()
    }

    /// Takes a user out of the store; gives how many credentials went with them.
    async fn forget_user(&self, user: &User, author: &str) -> Result<usize, ControlError> {
        let alone = self.ctx.vault.sealing().await;
        self.ctx.store.remove_user(&user.id).await?;
        let mut gone = self.ctx.credentials.all();
        gone.retain(|one| one.holder == user.id);
        for one in &gone {
            self.ctx
                .credentials
                .changed(&one.holder, &one.mcp, &one.name, None);
        }
        drop(alone);
        self.ctx.vault.look_again();
        for one in &gone {
            self.note("credential.removed", one, author);
        }
        Ok(gone.len())
    }

    /// Nobody is left whom a deny of this user or of their keys could keep out.
    async fn lift_of(&self, user: &Target, keys: &[KeyId], author: &str) {
        for kind in [Kind::Suspension, Kind::KillSwitch] {
            for target in self.denied_targets(kind) {
                let is_theirs = match &target {
                    Target::Client(key) => keys.contains(key),
                    other => other == user,
                };
                if !is_theirs {
                    continue;
                }
                let text = target.text();
                let lifted = self.switch_off(kind, target.scope(), &text, author);
                if let Err(error) = lifted.await {
                    tracing::warn!("what denied a removed user stays on: {}", error.message);
                }
            }
        }
    }

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
