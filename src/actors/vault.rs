//! The vault: the master keys, and what is sealed under them.
//!
//! Invariant: a master key is taken away only while nobody seals, after nothing was found that
//! needs it.

mod house;
mod keyfile;
mod reseal;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::{MutexGuard, Notify};
use tokio_util::task::AbortOnDropHandle;

use crate::domain::code::Code;
use crate::domain::seal::{MasterKeys, Sealed};
use crate::storage::StoreError;

use super::credentials;
use super::ctx::Ctx;

pub(super) use house::{RotateTokensError, is_sealed, rotate_tokens, token_keys};
pub(super) use reseal::{RotateError, rotate};

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The file cannot be read or written.
    #[error("cannot use the master key {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// There is no file, and the store holds what is sealed under its keys.
    #[error(
        "the master key {} is missing, and the database holds what is sealed under it: restore the one \
         that belongs to this database; nothing was written",
        path.display()
    )]
    FileGone {
        /// Which.
        path: PathBuf,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored key cannot be opened with these master keys.
    #[error(
        "the stored key `{name}` cannot be opened with this master key: was {file} replaced? \
         restore the one that belongs to this database"
    )]
    Sealed {
        /// Which.
        name: String,
        /// The master key's file.
        file: String,
    },
    /// Credentials are sealed under a master key that the file does not hold.
    #[error(
        "credentials are sealed under master key {key}, which {file} does not hold: restore the \
         one that belongs to this database"
    )]
    KeyGone {
        /// Which.
        key: u32,
        /// The master key's file.
        file: String,
    },
    /// What is stored about token keys makes no sense.
    #[error("the stored setting `token_keys` is damaged; restore a backup of the database")]
    TokenKeys,
}

impl VaultError {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::TokenKeys => Code::StoreDamaged,
            Self::File { .. }
            | Self::FileGone { .. }
            | Self::Sealed { .. }
            | Self::KeyGone { .. } => Code::VaultUnavailable,
        }
    }

    /// Whether trying again is of no use.
    #[must_use]
    pub const fn is_lasting(&self) -> bool {
        !matches!(self, Self::Store(_))
    }
}

/// What the vault counts.
#[derive(Debug, Default)]
pub struct VaultStats {
    rotations: AtomicU64,
    resealed: AtomicU64,
    remaining: AtomicU64,
    damaged: AtomicU64,
}

impl VaultStats {
    /// Master keys made since the start.
    #[must_use]
    pub fn rotations(&self) -> u64 {
        self.rotations.load(Ordering::Relaxed)
    }

    /// Values sealed anew since the start.
    #[must_use]
    pub fn resealed(&self) -> u64 {
        self.resealed.load(Ordering::Relaxed)
    }

    /// Credentials that are still to be sealed anew.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        self.remaining.load(Ordering::Relaxed)
    }

    /// Of these, those that do not open, and so keep an older key.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }
}

/// What outlives the service: the keys, and who may seal.
#[derive(Debug, Default)]
pub struct VaultCell {
    keys: ArcSwapOption<MasterKeys>,
    /// Held by whoever seals and stores, and by whoever takes a key away.
    sealing: tokio::sync::Mutex<()>,
    /// There may be something to seal anew.
    work: Notify,
    stats: VaultStats,
}

impl VaultCell {
    /// What is counted.
    #[must_use]
    pub fn stats(&self) -> &VaultStats {
        &self.stats
    }

    /// The master keys, once they are loaded.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<MasterKeys>> {
        self.keys.load_full()
    }

    /// Waits until nobody else seals. Whoever seals takes the keys while holding this, and stores
    /// what it sealed before it lets go.
    pub(super) async fn sealing(&self) -> MutexGuard<'_, ()> {
        self.sealing.lock().await
    }

    /// A value that kept an old key may be gone.
    pub(super) fn look_again(&self) {
        self.work.notify_one();
    }
}

/// The master key that a stored value needs; `None` if it is no sealed value at all.
pub(super) fn key_of(sealed: &str) -> Option<u32> {
    Sealed::parse(sealed).ok().map(|sealed| sealed.key_id())
}

/// Loads the master keys and what is sealed under them; makes them at the first start.
async fn load(ctx: &Ctx) -> Result<(), VaultError> {
    let file = keyfile::file(&ctx.settings.data_dir);
    let keys = match keyfile::load(&file).await? {
        Some(keys) => keys,
        // A fresh key in the place of a lost one would open nothing, and would look like the right one.
        None if house::is_sealed(&ctx.store).await? => {
            return Err(VaultError::FileGone { path: file });
        }
        None => keyfile::make(&file).await?,
    };
    let access = house::load(&keys, &ctx.store, &file, house::Moment::of(ctx)).await?;
    credentials::load(ctx).await?;
    let ids = keys.ids();
    let needed = ctx.credentials.all();
    let mut needed = needed.iter().filter_map(|one| key_of(&one.sealed));
    if let Some(key) = needed.find(|key| !ids.contains(key)) {
        let file = file.display().to_string();
        return Err(VaultError::KeyGone { key, file });
    }
    ctx.vault.keys.store(Some(Arc::new(keys)));
    ctx.access.store(Some(Arc::new(access)));
    Ok(())
}

/// The service.
pub(super) struct Vault;

/// What it hears.
#[derive(Debug)]
pub(super) enum VaultMsg {
    /// Its own task broke off.
    Broken,
}

/// What it knows.
pub(super) struct VaultState {
    ctx: Arc<Ctx>,
    resealer: Option<AbortOnDropHandle<()>>,
}

impl Actor for Vault {
    type Msg = VaultMsg;
    type State = VaultState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<VaultMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<VaultState, ActorProcessingErr> {
        Ok(VaultState {
            ctx,
            resealer: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<VaultMsg>,
        state: &mut VaultState,
    ) -> Result<(), ActorProcessingErr> {
        let ctx = &state.ctx;
        if ctx.access.load().is_none() {
            load(ctx).await?;
        } else {
            credentials::load(ctx).await?;
        }
        let own = Arc::clone(ctx);
        state.resealer = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            let task = tokio::spawn(async move { reseal::run(&own).await });
            if AbortOnDropHandle::new(task)
                .await
                .is_err_and(|error| error.is_panic())
            {
                // An actor that is gone needs no message.
                let _ = myself.cast(VaultMsg::Broken);
            }
        })));
        ctx.gates.vault.set(true);
        Ok(())
    }

    async fn handle(
        &self,
        _myself: ActorRef<VaultMsg>,
        VaultMsg::Broken: VaultMsg,
        _state: &mut VaultState,
    ) -> Result<(), ActorProcessingErr> {
        Err("sealing anew broke off, which is a bug".into())
    }
}
