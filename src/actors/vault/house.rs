//! The house's own secrets, sealed like everybody's: the keys that sign session tokens, and the
//! pepper of client keys.
//!
//! Which token keys there are is one setting, `token_keys`, changed in one write: a rotation that is
//! cut short leaves a key that was never used.

use std::path::Path;

use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};

use super::super::access::AccessKeys;
use super::super::clock::random;
use super::super::ctx::Ctx;
use super::{VaultError, keyfile};
use crate::domain::account::Millis;
use crate::domain::ids::{ID_BYTES, McpId, UserId};
use crate::domain::limits::TOKEN_KEYS_ROTATED_MAX;
use crate::domain::seal::{MasterKeys, Place, Sealed};
use crate::domain::token::{Pepper, TOKEN_KEY_BYTES, TokenKey, TokenKeys};
use crate::storage::{Store, StoreError};

const TOKEN_KEYS: &str = "token_keys";
const PEPPER: &str = "pepper.1";

/// Which token keys there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// Signs.
    current: u8,
    /// Verify, with when they were rotated out.
    rotated: Vec<(u8, Millis)>,
}

impl Default for Known {
    /// Before anything was rotated.
    fn default() -> Self {
        Self {
            current: 1,
            rotated: Vec::new(),
        }
    }
}

/// What time it is, and how long a rotated key is good for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    now: Millis,
    grace: Millis,
}

impl Moment {
    pub(super) fn of(ctx: &Ctx) -> Self {
        Self {
            now: ctx.wall_ms(),
            grace: Millis::try_from(ctx.settings.token_grace.as_millis()).unwrap_or(Millis::MAX),
        }
    }

    fn is_good(&self, rotated_at: Millis) -> bool {
        rotated_at.saturating_add(self.grace) >= self.now
    }
}

/// The place of a secret of the house: a user and an mcp that no random id is.
fn home() -> (UserId, McpId) {
    (
        UserId::from_random([0; ID_BYTES]),
        McpId::from_random([0; ID_BYTES]),
    )
}

fn token_key(id: u8) -> String {
    format!("token_key.{id}")
}

async fn known(store: &Store) -> Result<(Known, Option<String>), VaultError> {
    let Some(text) = store.setting(TOKEN_KEYS).await? else {
        return Ok((Known::default(), None));
    };
    let known = serde_json::from_str(&text).map_err(|_| VaultError::TokenKeys)?;
    Ok((known, Some(text)))
}

/// Whether anything was ever sealed for this house.
pub(in crate::actors) async fn is_sealed(store: &Store) -> Result<bool, StoreError> {
    for name in [&token_key(1), TOKEN_KEYS, PEPPER] {
        if store.setting(name).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(!store.credentials().await?.is_empty())
}

/// Opens the keys a request path needs; makes those of a new house.
pub(super) async fn load(
    keys: &MasterKeys,
    store: &Store,
    file: &Path,
    moment: Moment,
) -> Result<AccessKeys, VaultError> {
    let (known, _) = known(store).await?;
    let current = kept(store, keys, &token_key(known.current), file).await?;
    let mut rotated = Vec::new();
    for (id, at) in &known.rotated {
        if moment.is_good(*at) {
            let secret = kept(store, keys, &token_key(*id), file).await?;
            rotated.push((TokenKey { id: *id, secret }, *at));
        }
    }
    let current = TokenKey {
        id: known.current,
        secret: current,
    };
    let tokens = TokenKeys::new(&current, &rotated).map_err(|_| VaultError::TokenKeys)?;
    let pepper = kept::<32>(store, keys, PEPPER, file).await?;
    Ok(AccessKeys {
        tokens,
        pepper: Pepper::new(1, &pepper),
    })
}

/// A sealed secret of the house: opened, or made and stored if there is none.
async fn kept<const N: usize>(
    store: &Store,
    keys: &MasterKeys,
    name: &str,
    file: &Path,
) -> Result<SecretBox<[u8; N]>, VaultError> {
    let failed = || VaultError::Sealed {
        name: name.to_owned(),
        file: file.display().to_string(),
    };
    let (user, mcp) = home();
    let place = Place {
        user: &user,
        mcp: &mcp,
        field: name,
    };
    let fresh: SecretBox<[u8; N]> = SecretBox::new(Box::new(random()));
    let sealed = keys
        .seal(place, random(), fresh.expose_secret())
        .map_err(|_| failed())?;
    // Whoever stored it first, at whatever start, wins.
    let text = store.init_setting(name, &sealed.to_text()).await?;
    let opened = Sealed::parse(&text)
        .and_then(|sealed| keys.open(place, &sealed))
        .map_err(|_| failed())?;
    let bytes: &[u8; N] = opened.expose_secret().try_into().map_err(|_| failed())?;
    Ok(SecretBox::new(Box::new(*bytes)))
}

/// Whether a secret of the house that must be there is, and opens.
async fn opens(
    store: &Store,
    keys: &MasterKeys,
    name: &str,
    file: &Path,
) -> Result<(), VaultError> {
    let (user, mcp) = home();
    let place = Place {
        user: &user,
        mcp: &mcp,
        field: name,
    };
    let text = store.setting(name).await?.ok_or(VaultError::TokenKeys)?;
    let opened = Sealed::parse(&text).and_then(|sealed| keys.open(place, &sealed));
    opened.map(drop).map_err(|_| VaultError::Sealed {
        name: name.to_owned(),
        file: file.display().to_string(),
    })
}

/// Why token keys were not rotated.
#[derive(Debug, thiserror::Error)]
pub(in crate::actors) enum RotateTokensError {
    /// The vault is not open yet.
    #[error("the keys are not loaded yet; try again in a moment")]
    Starting,
    /// Too many in their grace.
    #[error(
        "{TOKEN_KEYS_ROTATED_MAX} token keys were rotated out within sessions.token_grace_ms; wait \
         until it is over"
    )]
    TooMany,
    /// Somebody else did at the same time.
    #[error("the token keys were changed by somebody else meanwhile; look again")]
    Changed,
    /// The vault could not.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Makes a new key that signs tokens; the old one verifies for the grace. Gives the new one's id.
pub(in crate::actors) async fn rotate_tokens(ctx: &Ctx) -> Result<u8, RotateTokensError> {
    let _alone = ctx.vault.sealing().await;
    let keys = ctx.vault.keys().ok_or(RotateTokensError::Starting)?;
    let (store, file) = (&ctx.store, keyfile::file(&ctx.settings.data_dir));
    let moment = Moment::of(ctx);
    let (known, stored) = known(store).await?;
    // Nothing is written into a house whose keys are not ours.
    opens(store, &keys, &token_key(known.current), &file).await?;
    let (live, over): (Vec<_>, Vec<_>) = known
        .rotated
        .iter()
        .copied()
        .partition(|(_, at)| moment.is_good(*at));
    if live.len() >= TOKEN_KEYS_ROTATED_MAX {
        return Err(RotateTokensError::TooMany);
    }
    let taken = |id: u8| known.current == id || live.iter().any(|(live, _)| *live == id);
    let next = (known.current..=u8::MAX)
        .chain(1..known.current)
        .find(|id| !taken(*id))
        .ok_or(RotateTokensError::TooMany)?;
    // Of a rotation that was cut short, or of a key long over: never used again.
    store
        .remove_setting(&token_key(next))
        .await
        .map_err(VaultError::from)?;
    kept::<TOKEN_KEY_BYTES>(store, &keys, &token_key(next), &file).await?;
    let new = Known {
        current: next,
        rotated: live
            .into_iter()
            .chain([(known.current, moment.now)])
            .collect(),
    };
    let text = serde_json::to_string(&new).map_err(|_| VaultError::TokenKeys)?;
    let put = match stored {
        Some(old) => store.swap_setting(TOKEN_KEYS, &old, &text).await,
        None => store
            .init_setting(TOKEN_KEYS, &text)
            .await
            .map(|held| held == text),
    };
    if !put.map_err(VaultError::from)? {
        return Err(RotateTokensError::Changed);
    }
    let access = load(&keys, store, &file, moment).await?;
    ctx.access.store(Some(std::sync::Arc::new(access)));
    for (id, _) in over.into_iter().filter(|(id, _)| *id != next) {
        if let Err(error) = store.remove_setting(&token_key(id)).await {
            tracing::warn!(
                key.id = id,
                "a token key that is over stays stored: {error}"
            );
        }
    }
    Ok(next)
}

/// The ids of the token keys: the one that signs, and those in their grace.
pub(in crate::actors) async fn token_keys(ctx: &Ctx) -> Result<(u8, Vec<u8>), VaultError> {
    let moment = Moment::of(ctx);
    let (known, _) = known(&ctx.store).await?;
    let live = known.rotated.iter().filter(|(_, at)| moment.is_good(*at));
    Ok((known.current, live.map(|(id, _)| *id).collect()))
}

/// Seals the house's secrets anew where they are under another key than the newest. Gives how many
/// were; fails if one does not open.
pub(super) async fn reseal(
    keys: &MasterKeys,
    store: &Store,
    file: &Path,
) -> Result<u64, VaultError> {
    let (known, _) = known(store).await?;
    let ids = known.rotated.iter().map(|(id, _)| *id);
    let names = ids.chain([known.current]).map(token_key);
    let mut done = 0;
    for name in names.chain([PEPPER.to_owned()]) {
        let failed = || VaultError::Sealed {
            name: name.clone(),
            file: file.display().to_string(),
        };
        // Of a rotated token key that is over, nothing may be left.
        let Some(old) = store.setting(&name).await? else {
            continue;
        };
        let sealed = Sealed::parse(&old).map_err(|_| failed())?;
        if sealed.key_id() == keys.current_id() {
            continue;
        }
        let (user, mcp) = home();
        let place = Place {
            user: &user,
            mcp: &mcp,
            field: &name,
        };
        let opened = keys.open(place, &sealed).map_err(|_| failed())?;
        let new = keys
            .seal(place, random(), opened.expose_secret())
            .map_err(|_| failed())?;
        // Whoever changed it meanwhile sealed it with the newest key.
        done += u64::from(store.swap_setting(&name, &old, &new.to_text()).await?);
    }
    Ok(done)
}

/// A store's error as one of ours, for `?` where both kinds come.
impl From<StoreError> for RotateTokensError {
    fn from(error: StoreError) -> Self {
        Self::Vault(error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::SessionId;

    const NOW: Moment = Moment {
        now: 1_000,
        grace: 500,
    };

    #[tokio::test]
    async fn keys_outlive_a_restart_and_another_master_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let file = keyfile::file(dir.path());
        assert!(!is_sealed(&store).await.unwrap());
        let keys = keyfile::make(&file).await.unwrap();
        let access = load(&keys, &store, &file, NOW).await.unwrap();
        let session = SessionId::from_random([5; ID_BYTES]);
        let token = access.tokens.sign(&session, 1, &random());
        assert!(is_sealed(&store).await.unwrap());
        let again = load(&keys, &store, &file, NOW).await.unwrap();
        assert!(again.tokens.verify(token.expose_secret()).is_ok());
        let other = MasterKeys::first(keyfile::fresh());
        let error = load(&other, &store, &file, NOW).await.unwrap_err();
        assert!(
            error.to_string().contains("master.key") && error.is_lasting(),
            "{error}"
        );
    }

    #[tokio::test]
    async fn another_houses_key_is_known_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let file = keyfile::file(dir.path());
        let keys = keyfile::make(&file).await.unwrap();
        let name = token_key(1);
        let none = opens(&store, &keys, &name, &file).await.unwrap_err();
        assert!(matches!(none, VaultError::TokenKeys), "{none}");
        assert!(store.setting(&name).await.unwrap().is_none());
        load(&keys, &store, &file, NOW).await.unwrap();
        opens(&store, &keys, &name, &file).await.unwrap();
        let other = MasterKeys::first(keyfile::fresh());
        let error = opens(&store, &other, &name, &file).await.unwrap_err();
        assert!(matches!(error, VaultError::Sealed { .. }), "{error}");
    }

    #[tokio::test]
    async fn sealing_anew_leaves_nothing_under_the_old_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).await.unwrap();
        let file = keyfile::file(dir.path());
        let one = keyfile::make(&file).await.unwrap();
        let access = load(&one, &store, &file, NOW).await.unwrap();
        let session = SessionId::from_random([5; ID_BYTES]);
        let token = access.tokens.sign(&session, 1, &random());
        let two = one.rotated(keyfile::fresh()).unwrap();
        assert_eq!(reseal(&two, &store, &file).await.unwrap(), 2);
        assert_eq!(reseal(&two, &store, &file).await.unwrap(), 0);
        let after = load(&two.newest(), &store, &file, NOW).await.unwrap();
        assert!(after.tokens.verify(token.expose_secret()).is_ok());
        assert!(load(&one, &store, &file, NOW).await.is_err());
    }
}
