//! The vault, thin: the master key file, and the keys that sign tokens and digest client keys,
//! sealed under it. Credentials come with the vault issue, in this room.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use secrecy::{ExposeSecret, ExposeSecretMut, SecretBox};

use crate::domain::ids::{ID_BYTES, McpId, UserId};
use crate::domain::seal::{MasterKey, Place, Sealed};
use crate::domain::token::{Pepper, TOKEN_KEY_BYTES, TokenKey, TokenKeys};
use crate::storage::{Store, StoreError};

use super::clock::random;
use super::ctx::Ctx;

/// Bytes of the master key.
const MASTER_BYTES: usize = 32;

/// The keys a request path needs.
#[derive(Debug)]
pub struct AccessKeys {
    /// Sign and verify session tokens.
    pub tokens: TokenKeys,
    /// Digests client keys.
    pub pepper: Pepper,
    /// Seals and opens credentials.
    pub(super) master: MasterKey,
}

/// Why keys cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// A file cannot be read or made.
    #[error("cannot use the master key {}: {why}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The store does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A stored key cannot be opened with this master key.
    #[error("the stored key `{name}` cannot be opened with this master key: was {file} replaced?")]
    Sealed {
        /// Which.
        name: &'static str,
        /// The master key's file.
        file: String,
    },
}

/// The house's own secrets are sealed under a user and an mcp that no random id is.
fn house(field: &'static str) -> (UserId, McpId, &'static str) {
    (
        UserId::from_random([0; ID_BYTES]),
        McpId::from_random([0; ID_BYTES]),
        field,
    )
}

/// Loads the keys; makes them at the first start.
///
/// # Errors
/// [`VaultError`].
pub async fn load(data_dir: &Path, store: &Store) -> Result<AccessKeys, VaultError> {
    let file = data_dir.join("keys").join("master.key");
    let master = {
        let file = file.clone();
        let read = tokio::task::spawn_blocking(move || master_key(&file)).await;
        read.map_err(|error| VaultError::File {
            path: data_dir.to_owned(),
            why: error.to_string(),
        })??
    };
    let token = kept::<TOKEN_KEY_BYTES>(store, &master, "token_key.1", &file).await?;
    let pepper = kept::<32>(store, &master, "pepper.1", &file).await?;
    let token = TokenKey {
        id: 1,
        secret: token,
    };
    let tokens = TokenKeys::new(&token, &[]).map_err(|_| VaultError::Sealed {
        name: "token_key",
        file: file.display().to_string(),
    })?;
    Ok(AccessKeys {
        tokens,
        pepper: Pepper::new(1, &pepper),
        master,
    })
}

/// A sealed secret of the house: opened, or made and stored if there is none.
async fn kept<const N: usize>(
    store: &Store,
    master: &MasterKey,
    name: &'static str,
    file: &Path,
) -> Result<SecretBox<[u8; N]>, VaultError> {
    let failed = || VaultError::Sealed {
        name,
        file: file.display().to_string(),
    };
    let (user, mcp, field) = house(name);
    let place = Place {
        user: &user,
        mcp: &mcp,
        field,
    };
    let fresh: SecretBox<[u8; N]> = SecretBox::new(Box::new(random()));
    let sealed = master
        .seal(place, random(), fresh.expose_secret())
        .map_err(|_| failed())?;
    // Whoever stored it first, at whatever start, wins.
    let text = store.init_setting(name, &sealed.to_text()).await?;
    let opened = Sealed::parse(&text)
        .and_then(|sealed| master.open(place, &sealed))
        .map_err(|_| failed())?;
    let bytes: [u8; N] = opened.expose_secret().try_into().map_err(|_| failed())?;
    Ok(SecretBox::new(Box::new(bytes)))
}

/// Reads the master key file, or makes it, mode 0600.
fn master_key(path: &Path) -> Result<MasterKey, VaultError> {
    let failed = |why: String| VaultError::File {
        path: path.to_owned(),
        why,
    };
    let io = |error: std::io::Error| failed(error.to_string());
    if let Some(dir) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io)?;
    }
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Ok(mut file) => {
            file.write_all(&random::<MASTER_BYTES>()).map_err(io)?;
            file.sync_all().map_err(io)?;
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(io(error)),
    }
    let mut file = OpenOptions::new().read(true).open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(failed(format!(
            "its mode is {:o}; run: chmod 600",
            mode & 0o777
        )));
    }
    let mut bytes = SecretBox::new(Box::new([0u8; MASTER_BYTES]));
    file.read_exact(bytes.expose_secret_mut())
        .map_err(|error| failed(format!("it is not {MASTER_BYTES} bytes long: {error}")))?;
    Ok(MasterKey::new(1, bytes))
}

/// The service.
pub(super) struct Vault;

impl Actor for Vault {
    type Msg = ();
    type State = Arc<Ctx>;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        _myself: ActorRef<()>,
        ctx: Arc<Ctx>,
    ) -> Result<Arc<Ctx>, ActorProcessingErr> {
        Ok(ctx)
    }

    async fn post_start(
        &self,
        _myself: ActorRef<()>,
        ctx: &mut Arc<Ctx>,
    ) -> Result<(), ActorProcessingErr> {
        if ctx.access.load().is_none() {
            let keys = load(&ctx.settings.data_dir, &ctx.store).await?;
            ctx.access.store(Some(Arc::new(keys)));
        }
        super::credentials::load(ctx).await?;
        ctx.gates.vault.set(true);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_outlive_a_restart_and_another_master_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let keys = load(dir.path(), &store).await.unwrap();
        let session = crate::domain::ids::SessionId::from_random([5; ID_BYTES]);
        let token = keys.tokens.sign(&session, 1, &random());
        let again = load(dir.path(), &store).await.unwrap();
        assert!(again.tokens.verify(token.expose_secret()).is_ok());
        let master = dir.path().join("keys/master.key");
        std::fs::write(&master, [9; MASTER_BYTES]).unwrap();
        assert!(matches!(
            load(dir.path(), &store).await,
            Err(VaultError::Sealed { .. })
        ));
        std::fs::write(&master, [9; 3]).unwrap();
        assert!(matches!(
            load(dir.path(), &store).await,
            Err(VaultError::File { .. })
        ));
    }
}
