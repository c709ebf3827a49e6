//! Preshared client keys: found by their public prefix, never deleted, only revoked.

use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::{Key, Millis};
use crate::domain::ids::{KeyId, UserId};
#[cfg(doc)]
use crate::domain::limits::STORE_BATCH_MAX;

const CREATE: &str = "INSERT INTO client_keys (id, user_id, label, prefix, pepper_id, digest, \
    created_at, expires_at, revoked_at, last_used_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const BY_PREFIX: &str = "SELECT id, user_id, label, prefix, pepper_id, digest, created_at, \
    expires_at, revoked_at, last_used_at FROM client_keys WHERE prefix = $1";
const BY_ID: &str = "SELECT id, user_id, label, prefix, pepper_id, digest, created_at, \
    expires_at, revoked_at, last_used_at FROM client_keys WHERE id = $1";
const LIST: &str = "SELECT id, user_id, label, prefix, pepper_id, digest, created_at, \
    expires_at, revoked_at, last_used_at FROM client_keys ORDER BY created_at, id";
const OF_USER: &str = "SELECT id, user_id, label, prefix, pepper_id, digest, created_at, \
    expires_at, revoked_at, last_used_at FROM client_keys WHERE user_id = $1 \
    ORDER BY created_at, id";
const REVOKE: &str = "UPDATE client_keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1 \
    RETURNING id, user_id, label, prefix, pepper_id, digest, created_at, expires_at, revoked_at, \
    last_used_at";
/// The batch is one text of ids and times.
const TOUCH: &str = "UPDATE client_keys SET last_used_at = used.at \
    FROM (SELECT value ->> 0 AS id, (value ->> 1)::bigint AS at FROM json_array_elements($1::json)) \
    AS used WHERE client_keys.id = used.id \
    AND (client_keys.last_used_at IS NULL OR client_keys.last_used_at < used.at)";
const TOUCH_SQLITE: &str = "UPDATE client_keys SET last_used_at = used.at \
    FROM (SELECT value ->> 0 AS id, value ->> 1 AS at FROM json_each($1)) \
    AS used WHERE client_keys.id = used.id \
    AND (client_keys.last_used_at IS NULL OR client_keys.last_used_at < used.at)";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    user_id: String,
    label: String,
    prefix: String,
    pepper_id: i64,
    digest: String,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    last_used_at: Option<i64>,
}

impl TryFrom<Row> for Key {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: rows::field("client_keys.id", row.id)?,
            user: rows::field("client_keys.user_id", row.user_id)?,
            label: row.label,
            prefix: row.prefix,
            pepper_id: row.pepper_id,
            digest: row.digest,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

impl Store {
    /// Adds a key.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the id or the prefix is taken (draw another key),
    /// [`StoreError::NotFound`] if the user does not exist.
    pub async fn create_key(&self, key: &Key) -> Result<(), StoreError> {
        on!(self, |db| sqlx::query(CREATE)
            .bind(key.id.as_str())
            .bind(key.user.as_str())
            .bind(key.label.as_str())
            .bind(key.prefix.as_str())
            .bind(key.pepper_id)
            .bind(key.digest.as_str())
            .bind(key.created_at)
            .bind(key.expires_at)
            .bind(key.revoked_at)
            .bind(key.last_used_at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(|error| {
            let id = match error.as_database_error() {
                Some(error) if error.is_foreign_key_violation() => key.user.as_str(),
                _ => key.prefix.as_str(),
            };
            adding("add a key", "key", "user", id)(error)
        })?;
        Ok(())
    }

    /// The key with that public prefix, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn key_by_prefix(&self, prefix: &str) -> Result<Key, StoreError> {
        let _place = self.place_for_many("read a key").await?;
        on!(self, |db| sqlx::query_as::<_, Row>(BY_PREFIX)
            .bind(prefix)
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a key"))?
        .ok_or_else(|| StoreError::not_found("key", prefix))?
        .try_into()
    }

    /// The key with that id, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn key(&self, id: &KeyId) -> Result<Key, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_ID)
            .bind(id.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a key"))?
        .ok_or_else(|| StoreError::not_found("key", id))?
        .try_into()
    }

    /// Every key, or one user's, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn keys(&self, user: Option<&UserId>) -> Result<Vec<Key>, StoreError> {
        let rows = match user {
            Some(user) => on!(self, |db| sqlx::query_as::<_, Row>(OF_USER)
                .bind(user.as_str())
                .fetch_all(&db.reader)
                .await),
            None => on!(self, |db| sqlx::query_as::<_, Row>(LIST)
                .fetch_all(&db.reader)
                .await),
        }
        .map_err(doing("list the keys"))?;
        rows::all(rows)
    }

    /// Revokes a key for ever and returns it; a second time keeps the first time's date. Its
    /// sessions are ended by [`Store::end_sessions_of_key`].
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such key.
    pub async fn revoke_key(&self, id: &KeyId, at: Millis) -> Result<Key, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(REVOKE)
            .bind(id.as_str())
            .bind(at)
            .fetch_optional(&db.writer)
            .await)
        .map_err(doing("revoke a key"))?
        .ok_or_else(|| StoreError::not_found("key", id))?
        .try_into()
    }

    /// Notes when keys were last used: one statement for [so many](STORE_BATCH_MAX) at a time; never
    /// goes back in time; unknown keys are passed over. To note it twice does no harm.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then the rest was not kept.
    pub async fn touch_keys(&self, used: &[(KeyId, Millis)]) -> Result<(), StoreError> {
        let sql = match self.is_server() {
            true => TOUCH,
            false => TOUCH_SQLITE,
        };
        self.in_batches("note the last use of keys", ("client_keys", sql), used)
            .await
    }
}
