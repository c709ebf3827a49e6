//! What administrators may do: change the truth in storage, have it published, and tell the
//! supervisors. It sits beside [`super::front::Front`] and never carries a call.

pub(super) mod about;
pub mod audit;
mod calls;
mod credentials;
mod discover;
mod follow;
mod homes;
mod install;
pub(super) mod isolates;
mod kill;
pub(super) mod removal;
mod target;
mod tree;
mod vault;
mod view;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::config::Config;
use crate::domain::account::{ExposedTool, Key, Millis};
use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::confinement::Confinement;
use crate::domain::expose::{Prefix, newcomers};
use crate::domain::ids::{GroupId, KeyId, McpId, UserId};
use crate::domain::kill::Target;
use crate::domain::mcp::Program;
use crate::domain::name::ToolName;
use crate::domain::remote::Reach;
use crate::domain::token::PresharedKey;
use crate::storage::{Store, StoreError};

pub use follow::{Follower, News};

use super::audit::{ADMIN_DENIED, Entry};
use super::catalog::CatalogMsg;
use super::clock::{id_bits, random};
use super::ctx::Ctx;
use super::cut_off::{cut_off, revoke_sessions};
use super::launcher::Forbidden;
use super::ops::Ops;
use super::plan::{ProgramError, find_program};
use super::relimit;

pub use about::{Found, Subject};
pub use calls::Recycle;
pub use kill::Wanted;
pub use removal::Leaving;
pub use target::Named;

/// How long a snapshot may take to be published.
const REFRESH_MAX: Duration = Duration::from_secs(10);
/// How often a name that somebody else took in the same moment is chosen anew.
const NAME_TRIES: usize = 3;

/// Why an administrator's request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// The stable code.
    pub code: Code,
    /// What failed, with what, and why.
    pub message: String,
    /// What to do, if there is something better than the code's own advice.
    pub next: Option<String>,
}

impl ControlError {
    /// An error without advice of its own.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            next: None,
        }
    }

    /// With advice.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The tree, as administrators see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Control {
    ctx: Arc<Ctx>,
}

impl Control {
    /// For whoever opens the admin socket, and for the bootstrap of a demo.
    #[must_use]
    pub fn new(ctx: Arc<Ctx>) -> Self {
        Self { ctx }
    }

    /// For whoever opens the ops listener.
    #[must_use]
    pub fn ops(&self) -> Ops {
        Ops::new(Arc::clone(&self.ctx))
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.ctx.store
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.ctx.config
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_ms(&self) -> Millis {
        self.ctx.wall_ms()
    }

    /// Waits until nobody else changes a definition. Whoever does reads it while holding this, and writes it before it
    /// lets go.
    pub async fn defining(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.ctx.defining.lock().await
    }

    /// A fresh id.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        UserId::from_random(id_bits())
    }

    /// A fresh id.
    #[must_use]
    pub fn group_id(&self) -> GroupId {
        GroupId::from_random(id_bits())
    }

    /// A fresh id.
    #[must_use]
    pub fn mcp_id(&self) -> McpId {
        McpId::from_random(id_bits())
    }

    /// Publishes what storage holds; call it after any change of users, groups, keys, mcps or
    /// subscriptions. Returns when calls see it.
    ///
    /// # Errors
    /// The change is stored and not yet seen.
    pub async fn refresh(&self) -> Result<(), ControlError> {
        let late = || {
            ControlError::new(
                Code::StoreUnavailable,
                "the change is stored, but could not be published yet",
            )
            .next("look at legation status; it is published when the catalog is up again")
        };
        let catalog = self.ctx.catalog().ok_or_else(late)?;
        let answer = ractor::call_t!(
            catalog,
            CatalogMsg::Refresh,
            u64::try_from(REFRESH_MAX.as_millis()).unwrap_or(u64::MAX)
        );
        match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => {
                let message = format!("the change is stored, but could not be published: {why}");
                Err(ControlError::new(Code::StoreUnavailable, message))
            }
            Err(_) => Err(late()),
        }
    }

    /// Returns when what runs has the limits that its definition has now: live, or it is being replaced.
    pub async fn settle_limits(&self) {
        relimit::settle(&self.ctx).await;
    }

    /// Records an administrator's action.
    pub fn audit(&self, actor: &str, action: &str, subject: &Subject, outcome: &str) {
        let about = self.about(subject);
        let entry = self.action(actor, action, subject, outcome, &about);
        self.ctx.audit.post(entry);
    }

    /// Records an administrator's action and waits until the record may be relied on. `before` is
    /// what it was about before it was done, for what has no name any more.
    ///
    /// # Errors
    /// The action is done, and its record is not on the disk.
    pub async fn audited(
        &self,
        actor: &str,
        action: &str,
        subject: &Subject,
        outcome: &str,
        before: &[Target],
    ) -> Result<(), ControlError> {
        // First what it was before: the name of who was removed may be somebody else's by now.
        let mut about = before.to_vec();
        about.extend(self.about(subject));
        let entry = self.action(actor, action, subject, outcome, &about);
        self.ctx.audit.commit(entry).await.map_err(|error| {
            let message = format!("{action} was done, but {error}: its record waits in memory");
            ControlError::new(Code::AuditUnavailable, message)
        })
    }

    /// Whether an administrator may change something now: the record could be written, or need
    /// not be.
    ///
    /// # Errors
    /// `audit_unavailable`: nothing was done.
    pub fn may_change(&self) -> Result<(), ControlError> {
        if self.ctx.may(Category::Admin) {
            return Ok(());
        }
        let message = "not done: the audit log cannot be written, and what administrators do must \
                       be recorded";
        Err(ControlError::new(Code::AuditUnavailable, message))
    }

    fn action(
        &self,
        actor: &str,
        action: &str,
        subject: &Subject,
        outcome: &str,
        about: &[Target],
    ) -> Entry {
        let entry = Entry::new("admin.action", self.ctx.wall_ms())
            .field("actor", actor)
            .field("action", action)
            .field("target", subject.text())
            .field("outcome", outcome);
        let routes = self.ctx.routes.load();
        about::with_keys(about::with_ids(entry, about, &routes.directory), subject)
    }

    /// Records that somebody was kept off the admin socket: of many tries the first, then how many.
    pub fn denied(&self, peer: &str) {
        if self
            .ctx
            .refusals
            .is_first("admin", peer, Code::Denied.as_str())
        {
            let entry = Entry::new(ADMIN_DENIED, self.ctx.wall_ms());
            self.ctx.audit.post(entry.field("peer", peer));
        }
    }

    /// Makes a client key. The key itself is in the answer and nowhere else.
    ///
    /// # Errors
    /// The user does not exist, or the store is away.
    pub async fn create_key(
        &self,
        user: &UserId,
        label: &str,
        expires_at: Option<Millis>,
    ) -> Result<(Key, SecretString), ControlError> {
        let access = self.ctx.access.load_full().ok_or_else(|| {
            ControlError::new(
                Code::Starting,
                "the keys are not loaded yet; try again in a moment",
            )
        })?;
        let secret = PresharedKey::from_random(&random());
        let key = Key {
            id: KeyId::from_random(id_bits()),
            user: user.clone(),
            label: label.to_owned(),
            prefix: secret.public_prefix().to_owned(),
            pepper_id: access.pepper.id(),
            digest: secret.digest(&access.pepper),
            created_at: self.now_ms(),
            expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        self.ctx.store.create_key(&key).await?;
        Ok((key, secret.secret().clone()))
    }

    /// Revokes a key and all its sessions: calls under way are cut off, and the next one is refused.
    /// Gives how many sessions ended, and how many calls.
    ///
    /// # Errors
    /// The key does not exist, or the store is away: then nothing was revoked, unless it [may be](StoreError::may_be_done):
    /// then the sessions are, too.
    pub async fn revoke_key(&self, key: &KeyId) -> Result<(u64, u64), ControlError> {
        let done = self.ctx.store.revoke_key(key, self.now_ms()).await;
        if let Err(error) = &done
            && !error.may_be_done()
        {
            return self.taken(done).map(|_| (0, 0));
        }
        let ended = revoke_sessions(&self.ctx, |session| session.key == *key);
        let cut = cut_off(&self.ctx, |session| session.key == *key);
        self.taken(done)?;
        self.refresh().await?;
        Ok((ended, cut))
    }

    /// What the store says of a change that takes something away. If that may be done though the store says no, what is
    /// published is compared with the store until it is known.
    ///
    /// # Errors
    /// What the store says.
    pub fn taken<T>(&self, done: Result<T, StoreError>) -> Result<T, ControlError> {
        if let Err(error) = &done
            && error.may_be_done()
            && let Some(catalog) = self.ctx.catalog()
        {
            // A catalog that is down builds anew when it is up.
            let _ = catalog.cast(CatalogMsg::Again);
        }
        Ok(done?)
    }

    /// Subscribes a key to an mcp and fixes the names of its tools. Call [`Control::refresh`]
    /// afterwards.
    ///
    /// # Errors
    /// The user's groups do not grant the mcp, or the store says no.
    pub async fn subscribe(
        &self,
        key: &KeyId,
        mcp: &McpId,
    ) -> Result<Vec<ExposedTool>, ControlError> {
        let row = self.ctx.store.key(key).await?;
        let definition = self.ctx.store.mcp(mcp).await?;
        if !self
            .ctx
            .store
            .grants_of_user(&row.user)
            .await?
            .contains(mcp)
        {
            let message = format!(
                "no group of the key's user is granted mcp `{}`, so the key would see nothing",
                definition.name
            );
            let next = format!("legation group grant GROUP {}", definition.name);
            return Err(ControlError::new(Code::Conflict, message).next(next));
        }
        let tools = self.tool_names(mcp).await?;
        let mut last = None;
        for _ in 0..NAME_TRIES {
            let view = self.ctx.store.exposed_to(key).await?;
            let names = newcomers(&view, mcp, &definition.name, &tools, Prefix::IfTaken);
            match self
                .ctx
                .store
                .subscribe(key, mcp, self.now_ms(), &names)
                .await
            {
                Ok(_) => {
                    let view = self.ctx.store.exposed_to(key).await?;
                    return Ok(view.into_iter().filter(|one| one.mcp == *mcp).collect());
                }
                // Another subscription took one of the names in the same moment.
                Err(error @ StoreError::Conflict { .. }) => last = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(last.map_or_else(
            || ControlError::new(Code::Internal, "no name was tried"),
            ControlError::from,
        ))
    }

    /// Ends a subscription. Call [`Control::refresh`] afterwards.
    ///
    /// # Errors
    /// It does not exist, or the store is away.
    pub async fn unsubscribe(&self, key: &KeyId, mcp: &McpId) -> Result<(), ControlError> {
        let done = self.ctx.store.unsubscribe(key, mcp).await;
        if self.taken(done)? {
            return Ok(());
        }
        let message = format!("key `{key}` is not subscribed to `{mcp}`");
        Err(ControlError::new(Code::NotFound, message))
    }

    /// Gives the tools an mcp has now their names in every view that subscribes to it; names that
    /// are fixed stay.
    async fn expose_newcomers(&self, mcp: &McpId) -> Result<(), ControlError> {
        let definition = self.ctx.store.mcp(mcp).await?;
        let tools = self.tool_names(mcp).await?;
        for one in self.ctx.store.subscriptions(None).await? {
            if one.mcp != *mcp {
                continue;
            }
            let view = self.ctx.store.exposed_to(&one.key).await?;
            let rows: Vec<ExposedTool> =
                newcomers(&view, mcp, &definition.name, &tools, Prefix::IfTaken)
                    .into_iter()
                    .map(|(tool, exposed)| ExposedTool {
                        key: one.key.clone(),
                        mcp: mcp.clone(),
                        tool,
                        exposed,
                    })
                    .collect();
            self.ctx.store.expose(&rows).await?;
        }
        Ok(())
    }

    async fn tool_names(&self, mcp: &McpId) -> Result<Vec<ToolName>, ControlError> {
        Ok(self
            .ctx
            .store
            .tools_of(mcp)
            .await?
            .into_iter()
            .map(|tool| tool.name)
            .collect())
    }

    /// Finds the program of a definition where isolates would find it.
    ///
    /// # Errors
    /// It is not there, or cannot be executed.
    pub async fn check_program(&self, program: &Program) -> Result<PathBuf, ControlError> {
        if let Some(remote) = &program.remote {
            if remote.reach == Reach::Private && !self.ctx.launcher.allows_private() {
                let why =
                    "it says --allow-private, and this server lets nobody reach private addresses";
                let next = "set sandbox.allow_network_private = true in the configuration and start it \
                            again, or leave --allow-private away";
                return Err(ControlError::new(Code::InvalidRequest, why).next(next));
            }
            // Whether it answers is found out when it is discovered.
            let Some(ca) = remote.ca.clone() else {
                return Ok(PathBuf::new());
            };
            let read = super::start_work::start_work(move || super::roots::of_file(&ca)).await;
            return match read.and_then(|roots| roots) {
                Ok(_) => Ok(PathBuf::new()),
                Err(why) => Err(ControlError::new(Code::InvalidRequest, why)
                    .next("name a PEM file with the server's CA (--ca)")),
            };
        }
        find_program(&program.command, &self.ctx.settings.path).map_err(|error| {
            let next = match &error {
                ProgramError::NotFound { .. } => {
                    "install it, give its absolute path, or set isolates.path"
                }
                ProgramError::Absent { .. } => "install it, or name the file that is there",
                ProgramError::NotExecutable { .. } => "make it executable, or name another file",
            };
            ControlError::new(Code::CommandNotFound, error.to_string()).next(next)
        })
    }

    /// Looks whether an isolate would be given the network and shown the paths of a definition.
    ///
    /// # Errors
    /// The configuration does not give that network, or a path is beneath none of `sandbox.path_roots`.
    pub async fn check_walls(&self, walls: &Confinement) -> Result<(), ControlError> {
        let (launcher, walls) = (Arc::clone(&self.ctx.launcher), walls.clone());
        let refused = super::start_work::start_work(move || launcher.refuses(&walls)).await;
        match refused {
            Ok(None) => Ok(()),
            Ok(Some(Forbidden { why, next })) => {
                Err(ControlError::new(Code::InvalidRequest, why).next(next))
            }
            Err(broken) => Err(ControlError::new(Code::Internal, broken)),
        }
    }
}
