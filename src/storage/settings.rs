//! Settings the server keeps for itself: its installation id, which token keys it has. Never
//! what an operator configures, and never a secret that is not sealed.

use super::Store;
use super::error::{StoreError, doing};

const GET: &str = "SELECT value FROM settings WHERE name = $1";
const SET: &str = "INSERT INTO settings (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const INIT: &str = "INSERT INTO settings (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = settings.value RETURNING value";
const SWAP: &str = "UPDATE settings SET value = $3 WHERE name = $1 AND value = $2";
const REMOVE: &str = "DELETE FROM settings WHERE name = $1";

impl Store {
    /// A setting's value, if it has one.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        on!(self, |db| sqlx::query_scalar::<_, String>(GET)
            .bind(name)
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a setting"))
    }

    /// Sets a value, whatever it was.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_setting(&self, name: &str, value: &str) -> Result<(), StoreError> {
        on!(self, |db| sqlx::query(SET)
            .bind(name)
            .bind(value)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(doing("write a setting"))?;
        Ok(())
    }

    /// Sets a value if there is none; returns the value that holds now. Of two callers at once
    /// both get the same.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn init_setting(&self, name: &str, value: &str) -> Result<String, StoreError> {
        on!(self, |db| sqlx::query_scalar::<_, String>(INIT)
            .bind(name)
            .bind(value)
            .fetch_one(&db.writer)
            .await)
        .map_err(doing("write a setting"))
    }

    /// Sets a value if it still is what was read; `false` if it is another by now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn swap_setting(&self, name: &str, old: &str, new: &str) -> Result<bool, StoreError> {
        let rows = on!(self, |db| sqlx::query(SWAP)
            .bind(name)
            .bind(old)
            .bind(new)
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("write a setting"))?;
        Ok(rows > 0)
    }

    /// Forgets a setting; `false` if it had no value.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn remove_setting(&self, name: &str) -> Result<bool, StoreError> {
        let rows = on!(self, |db| sqlx::query(REMOVE)
            .bind(name)
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("remove a setting"))?;
        Ok(rows > 0)
    }
}
