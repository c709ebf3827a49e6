//! Removing a user for good.
//!
//! Only who is suspended is removed: then nobody comes in, and what ran is ended. First what says who they are and may
//! do, in one transaction, and with it a mark; that is put on record. Then their homes; the suspension last, when nothing is
//! left that it could keep out, and the mark. What finds a mark later finishes it: a life of the gateway that was cut off, or
//! an answer of the store that did not come, leaves nothing behind. What has no mark is left alone, whatever the store does not
//! know. What is in the audit log stays.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::domain::account::{Key, Removal, User};
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::kill::{Kind, Target};
use crate::domain::verdict::Verdict;
use crate::storage::StoreError;

use super::super::audit::Entry;
use super::super::ctx::Ctx;
use super::super::isolate::IsolateMsg;
use super::super::packages::remove_homes;
use super::super::slot::Slot;
use super::super::sync::Mutex;
use super::super::views::UserRemoved;
use super::{Control, ControlError};

/// Users whose removal is under way.
#[derive(Debug, Default)]
pub struct Leaving(Mutex<HashSet<UserId>>);

/// Who has this removes that user, and nobody else.
struct Turn<'a> {
    of: &'a Leaving,
    id: UserId,
}

// === impl Leaving ===

impl Leaving {
    fn begin(&self, id: &UserId) -> Option<Turn<'_>> {
        let is_first = self.0.lock().insert(id.clone());
        is_first.then(|| Turn {
            of: self,
            id: id.clone(),
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.of.0.lock().remove(&self.id);
    }
}

/// Finishes what removals have left, in a task.
pub(in crate::actors) fn finish_all(ctx: &Arc<Ctx>) {
    let control = Control::new(Arc::clone(ctx));
    tokio::spawn(async move {
        let removals = match control.ctx.store.removals().await {
            Ok(removals) => removals,
            Err(error) => {
                tracing::warn!("what is left of removed users is not known yet: {error}");
                return;
            }
        };
        for removal in removals {
            // One that is under way finishes by itself.
            let Some(_turn) = control.ctx.leaving.begin(&removal.id) else {
                continue;
            };
            if let Err(error) = control.finish_now(&removal).await {
                tracing::warn!(
                    user.id = %removal.id,
                    "what is left of a removed user stays until the next look: {error}"
                );
            }
        }
    });
}

impl Control {
    /// Removes a suspended user with keys, sessions, subscriptions, memberships, credentials and homes.
    ///
    /// # Errors
    /// They are not suspended, something of theirs still runs, or the store is away: then nothing was removed, unless it
    /// [may be](StoreError::may_be_done); then the rest follows when the store is back.
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
        let slots = self.idle_slots(id, name.as_str())?;
        let _turn = self.turn(id, name.as_str())?;
        let keys = self.ctx.store.keys(Some(id)).await?;
        let removal = Removal {
            id: id.clone(),
            name: name.clone(),
            by: author.to_owned(),
            keys: self.denied_keys(&keys),
        };
        let credentials = self.forget_user(&removal).await?;
        self.put_on_record(&removal, keys.len(), credentials).await;
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
        let left = self.clear_homes(id).await;
        published?;
        self.end(&removal, left.is_none()).await;
        Ok(UserRemoved {
            id: id.to_string(),
            keys: keys.len(),
            credentials,
            homes_left: left,
            finished: false,
        })
    }

    /// Finishes the removal of who had this name or id, if one was begun and nobody of this name is there.
    ///
    /// # Errors
    /// It is under way, something of theirs still runs, or the store is away.
    pub async fn finish_removal(&self, text: &str) -> Result<Option<UserRemoved>, ControlError> {
        let removals = self.ctx.store.removals().await?;
        let is_meant = |one: &&Removal| one.name.as_str() == text || one.id.as_str() == text;
        let Some(removal) = removals.iter().find(is_meant) else {
            return Ok(None);
        };
        let _turn = self.turn(&removal.id, text)?;
        let left = self.finish_now(removal).await?;
        Ok(Some(UserRemoved {
            id: removal.id.to_string(),
            homes_left: left,
            finished: true,
            ..UserRemoved::default()
        }))
    }

    /// The rest of a removal that was cut off; why homes stay, if they do.
    async fn finish_now(&self, removal: &Removal) -> Result<Option<String>, ControlError> {
        let id = &removal.id;
        match self.ctx.store.user(id).await {
            Err(StoreError::NotFound { .. }) => {}
            // One transaction took them and left the mark, so this is no database of ours.
            Ok(_) => {
                let message = format!("user `{id}` is there, though they were removed");
                return Err(ControlError::new(Code::Internal, message));
            }
            Err(error) => return Err(error.into()),
        }
        self.idle_slots(id, removal.name.as_str())?;
        let left = self.clear_homes(id).await;
        self.end(removal, left.is_none()).await;
        let entry = Entry::new("admin.user_cleared", self.ctx.wall_ms())
            .field("user", id.as_str())
            .field("name", removal.name.as_str())
            .field("actor", &removal.by)
            .field("homes", left.as_deref().unwrap_or("gone"));
        // It is done, on record or not; the log's keeper tells of its own trouble.
        let _ = self.ctx.audit.commit(entry).await;
        Ok(left)
    }

    fn turn(&self, id: &UserId, name: &str) -> Result<Turn<'_>, ControlError> {
        self.ctx.leaving.begin(id).ok_or_else(|| {
            let message = format!("user `{name}` is being removed already");
            ControlError::new(Code::Conflict, message).next("wait until that is done")
        })
    }

    /// Their slots, in which nothing runs any more.
    fn idle_slots(&self, id: &UserId, name: &str) -> Result<Vec<Arc<Slot>>, ControlError> {
        let slots = self.ctx.slots_of(Some(id));
        let running = slots.iter().filter(|slot| slot.occupant().is_some());
        match running.count() {
            0 => Ok(slots),
            running => {
                let message = format!("{running} isolates of user `{name}` are not gone yet");
                Err(ControlError::new(Code::Conflict, message).next("legation isolate list"))
            }
        }
    }

    fn denied_keys(&self, keys: &[Key]) -> Vec<KeyId> {
        let denied = [Kind::Suspension, Kind::KillSwitch].map(|kind| self.denied_targets(kind));
        let is_denied = |key: &&Key| {
            let target = Target::Client(key.id.clone());
            denied.iter().any(|some| some.contains(&target))
        };
        let denied = keys.iter().filter(is_denied);
        denied.map(|key| key.id.clone()).collect()
    }

    /// Takes a user out of the store; gives how many credentials went with them.
    async fn forget_user(&self, removal: &Removal) -> Result<usize, ControlError> {
        let alone = self.ctx.vault.sealing().await;
        let done = self.ctx.store.remove_user(removal).await;
        self.taken(done)?;
        let mut gone = self.ctx.credentials.all();
        gone.retain(|one| one.holder == removal.id);
        for one in &gone {
            self.ctx
                .credentials
                .changed(&one.holder, &one.mcp, &one.name, None);
        }
        drop(alone);
        self.ctx.vault.look_again();
        for one in &gone {
            self.note("credential.removed", one, &removal.by);
        }
        Ok(gone.len())
    }

    /// At once: what follows may take long, and the gateway may not live to see its end.
    async fn put_on_record(&self, removal: &Removal, keys: usize, credentials: usize) {
        let entry = Entry::new("admin.user_removed", self.ctx.wall_ms())
            .field("user", removal.id.as_str())
            .field("name", removal.name.as_str())
            .field("actor", &removal.by)
            .number("keys", keys as u64)
            .number("credentials", credentials as u64);
        // It is done, on record or not; the log's keeper tells of its own trouble.
        let _ = self.ctx.audit.commit(entry).await;
    }

    /// Removes their homes; why some stay, if they do.
    async fn clear_homes(&self, id: &UserId) -> Option<String> {
        let (launcher, home) = (
            Arc::clone(&self.ctx.launcher),
            self.ctx.settings.homes.join(id.as_str()),
        );
        let shown = home.display().to_string();
        match spawn_blocking(move || remove_homes(&*launcher, &home)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{shown}: {error}")),
            Err(error) => Some(format!("{shown}: {error}")),
        }
    }

    /// The last of a removal: denies, and the mark when nothing is left.
    async fn end(&self, removal: &Removal, is_cleared: bool) {
        if !self.lift_of(removal).await || !is_cleared {
            return;
        }
        if let Err(error) = self.ctx.store.end_removal(&removal.id).await {
            tracing::warn!("that a user's removal is done is not stored yet: {error}");
        }
    }

    /// Nobody is left whom a deny of this user or of their keys could keep out. Whether none is on any more.
    async fn lift_of(&self, removal: &Removal) -> bool {
        let mut all = true;
        for kind in [Kind::Suspension, Kind::KillSwitch] {
            for target in self.denied_targets(kind) {
                let is_theirs = match &target {
                    Target::Client(key) => removal.keys.contains(key),
                    Target::User(user) => *user == removal.id,
                    _ => false,
                };
                if !is_theirs {
                    continue;
                }
                let text = target.text();
                let lifted = self.switch_off(kind, target.scope(), &text, &removal.by);
                if let Err(error) = lifted.await {
                    tracing::warn!("what denied a removed user stays on: {}", error.message);
                    all = false;
                }
            }
        }
        all
    }
}
