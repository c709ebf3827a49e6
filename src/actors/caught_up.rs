//! What was changed in the store without our knowing is made to hold here: by another server or an administrator's hand
//! while it was away, or by a change of our own whose answer did not come.
//!
//! Routes are built anew by who calls this; kill switches are not the store's.

use std::collections::HashMap;

use crate::domain::account::Millis;
use crate::domain::ids::{KeyId, SessionId};
use crate::storage::StoreError;

use super::credentials;
use super::ctx::Ctx;
use super::cut_off::{cut_off, revoke_sessions};

/// Reads credentials and keys again. Sessions of keys that are revoked are revoked, isolates with credentials of before
/// are replaced.
pub(super) async fn catch_up(ctx: &Ctx) -> Result<(), StoreError> {
    let changed = credentials::reload(ctx).await?;
    for (holder, mcp) in &changed {
        credentials::replace(ctx, holder, mcp);
    }
    // Before the keys are read: of a session that comes later the key may be younger.
    let known: HashMap<SessionId, KeyId> = {
        let sessions = ctx.sessions.pin();
        let ids = sessions.values();
        ids.map(|one| (one.id().clone(), one.key.clone())).collect()
    };
    let keys = ctx.store.keys(None).await?.into_iter();
    let keys: HashMap<KeyId, Option<Millis>> = keys.map(|key| (key.id, key.revoked_at)).collect();
    let is_over = |session: &super::session::SessionHandle| {
        known.contains_key(session.id()) && !matches!(keys.get(&session.key), Some(None))
    };
    let ended = revoke_sessions(ctx, is_over);
    if ended > 0 {
        cut_off(ctx, is_over);
    }
    if ended > 0 || !changed.is_empty() {
        tracing::warn!(
            sessions.ended = ended,
            credentials.changed = changed.len(),
            "the store was changed without our knowing; it holds here now"
        );
    }
    Ok(())
}
