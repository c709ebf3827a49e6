//! Rotating the master key: a new one first, then everything sealed anew, then the old ones away.
//!
//! Each step is on the disk before the next begins, and a start that finds more than one key goes
//! on where the last life stopped: each value says which key it needs. While it goes on, every
//! value opens, and new ones are sealed with the newest key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use secrecy::ExposeSecret;

use super::super::clock::random;
use super::super::ctx::Ctx;
use super::{VaultError, house, key_of, keyfile};
use crate::domain::credential::Stored;
use crate::domain::limits::{RESEAL_BATCH_MAX, RESEAL_RETRY};
use crate::domain::seal::{KeysError, MasterKeys, Place, Sealed};

/// Why the master key was not rotated.
#[derive(Debug, thiserror::Error)]
pub(in crate::actors) enum RotateError {
    /// The vault is not open yet.
    #[error("the keys are not loaded yet; try again in a moment")]
    Starting,
    /// Too many at once.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The file could not be written: the old key goes on.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Makes a new master key, which seals from now on, and has the rest sealed anew in the background.
pub(in crate::actors) async fn rotate(ctx: &Ctx) -> Result<(), RotateError> {
    let _alone = ctx.vault.sealing().await;
    let keys = ctx.vault.keys().ok_or(RotateError::Starting)?;
    let new = keys.rotated(keyfile::fresh())?;
    // On the disk before anything is sealed with it.
    keyfile::write(&keyfile::file(&ctx.settings.data_dir), &new).await?;
    ctx.vault.keys.store(Some(Arc::new(new)));
    ctx.vault.stats.rotations.fetch_add(1, Ordering::Relaxed);
    ctx.vault.look_again();
    Ok(())
}

/// How a pass over everything ended.
enum Pass {
    /// Nothing is under an old key, and the old keys are gone.
    Settled,
    /// Something was sealed meanwhile, or another key was made.
    Again,
    /// Values that do not open keep an old key.
    Blocked,
}

/// Seals anew whenever there is more than one key. Never ends by itself.
pub(super) async fn run(ctx: &Ctx) {
    loop {
        let keys = ctx.vault.keys().filter(|keys| !keys.is_settled());
        let Some(keys) = keys else {
            ctx.vault.work.notified().await;
            continue;
        };
        match pass(ctx, &keys).await {
            Ok(Pass::Settled) => {
                let id = keys.current_id();
                tracing::info!(key.id = id, "everything is sealed under the new master key");
            }
            Ok(Pass::Again) => {}
            Ok(Pass::Blocked) => {
                tracing::error!(
                    values.damaged = ctx.vault.stats.damaged(),
                    "credentials do not open, so the old master key is kept for them; set them \
                     again or remove them (legation vault status)"
                );
                ctx.vault.work.notified().await;
            }
            Err(error) => {
                tracing::warn!("sealing anew waits: {error}");
                tokio::time::sleep(RESEAL_RETRY).await;
            }
        }
    }
}

async fn pass(ctx: &Ctx, keys: &Arc<MasterKeys>) -> Result<Pass, VaultError> {
    let stats = &ctx.vault.stats;
    let file = keyfile::file(&ctx.settings.data_dir);
    let current = keys.current_id();
    let old = older(ctx, current).await?;
    stats.remaining.store(old.len() as u64, Ordering::Relaxed);
    let own = {
        let _alone = ctx.vault.sealing().await;
        house::reseal(keys, &ctx.store, &file).await?
    };
    stats.resealed.fetch_add(own, Ordering::Relaxed);
    let mut damaged = 0;
    for batch in old.chunks(RESEAL_BATCH_MAX) {
        let (keys, own) = (Arc::clone(keys), batch.to_vec());
        // Whole batches of large values: off the runtime's workers.
        let sealed = tokio::task::spawn_blocking(move || seal_anew(&keys, own)).await;
        let anew = sealed.unwrap_or_default();
        damaged += (batch.len() - anew.len()) as u64;
        // What is set in this moment stays as it is set: here and in the snapshot alike.
        let _alone = ctx.vault.sealing().await;
        let put = ctx.store.reseal_credentials(&anew).await?;
        ctx.credentials.resealed(&anew);
        stats.resealed.fetch_add(put, Ordering::Relaxed);
        let left = stats.remaining().saturating_sub(anew.len() as u64);
        stats.remaining.store(left, Ordering::Relaxed);
    }
    stats.damaged.store(damaged, Ordering::Relaxed);
    retire(ctx, current).await
}

/// The old keys go, if nothing needs them: nobody seals while we look.
async fn retire(ctx: &Ctx, current: u32) -> Result<Pass, VaultError> {
    let _alone = ctx.vault.sealing().await;
    let file = keyfile::file(&ctx.settings.data_dir);
    let keys = ctx.vault.keys();
    let Some(keys) = keys.filter(|keys| keys.current_id() == current) else {
        return Ok(Pass::Again);
    };
    let left = older(ctx, current).await?.len() as u64;
    ctx.vault.stats.remaining.store(left, Ordering::Relaxed);
    if left > 0 {
        return Ok(if left <= ctx.vault.stats.damaged() {
            Pass::Blocked
        } else {
            Pass::Again
        });
    }
    if house::reseal(&keys, &ctx.store, &file).await? > 0 {
        return Ok(Pass::Again);
    }
    let newest = keys.newest();
    keyfile::write(&file, &newest).await?;
    ctx.vault.keys.store(Some(Arc::new(newest)));
    Ok(Pass::Settled)
}

/// What is stored under another key than this, or under none that can be told.
async fn older(ctx: &Ctx, current: u32) -> Result<Vec<Stored>, VaultError> {
    let mut all = ctx.store.credentials().await?;
    all.retain(|one| key_of(&one.sealed) != Some(current));
    Ok(all)
}

/// Those that open, with their seal under the newest key.
fn seal_anew(keys: &MasterKeys, batch: Vec<Stored>) -> Vec<(Stored, String)> {
    let anew = batch.into_iter().filter_map(|one| {
        let place = Place {
            user: &one.holder,
            mcp: &one.mcp,
            field: one.name.as_str(),
        };
        let opened = keys.open(place, &Sealed::parse(&one.sealed).ok()?).ok()?;
        let sealed = keys.seal(place, random(), opened.expose_secret()).ok()?;
        Some((one, sealed.to_text()))
    });
    anew.collect()
}
