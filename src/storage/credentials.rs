//! Credentials: values that are sealed before they come here and opened after they left.

use super::again::again;
use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::credential::Stored;
use crate::domain::ids::{McpId, UserId};
use crate::domain::name::CredentialName;

const SET: &str = "INSERT INTO credentials (holder, mcp_id, name, sealed, version, set_at, set_by) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (holder, mcp_id, name) DO UPDATE \
    SET sealed = excluded.sealed, version = credentials.version + 1, \
    set_at = excluded.set_at, set_by = excluded.set_by RETURNING version";
const RESEAL: &str = "UPDATE credentials SET sealed = $5 \
    WHERE holder = $1 AND mcp_id = $2 AND name = $3 AND sealed = $4";
// What is forgotten leaves its version behind, so that no two values ever have the same.
const REMOVE: &str = "UPDATE credentials SET sealed = '', set_by = '' \
    WHERE holder = $1 AND mcp_id = $2 AND name = $3 AND sealed <> ''";
const LIST: &str = "SELECT holder, mcp_id, name, sealed, version, set_at, set_by \
    FROM credentials WHERE sealed <> '' ORDER BY holder, mcp_id, name";

#[derive(sqlx::FromRow)]
struct Row {
    holder: String,
    mcp_id: String,
    name: String,
    sealed: String,
    version: i64,
    set_at: i64,
    set_by: String,
}

impl TryFrom<Row> for Stored {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            holder: rows::field("credentials.holder", row.holder)?,
            mcp: rows::field("credentials.mcp_id", row.mcp_id)?,
            name: rows::field("credentials.name", row.name)?,
            sealed: row.sealed,
            version: row.version,
            set_at: row.set_at,
            set_by: row.set_by,
        })
    }
}

impl Store {
    /// Sets a value, whatever it was; gives its version: 1 for the first, one more for each after
    /// it, also if that one was forgotten. The version in `stored` does not count.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the mcp does not exist.
    pub async fn set_credential(&self, stored: &Stored) -> Result<i64, StoreError> {
        on!(self, |db| sqlx::query_scalar::<_, i64>(SET)
            .bind(stored.holder.as_str())
            .bind(stored.mcp.as_str())
            .bind(stored.name.as_str())
            .bind(stored.sealed.as_str())
            .bind(1_i64)
            .bind(stored.set_at)
            .bind(stored.set_by.as_str())
            .fetch_one(&db.writer)
            .await)
        .map_err(adding("set a credential", "credential", "mcp", &stored.mcp))
    }

    /// Forgets a value, but for how often it was set; `false` if there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn remove_credential(
        &self,
        holder: &UserId,
        mcp: &McpId,
        name: &CredentialName,
    ) -> Result<bool, StoreError> {
        let removed = on!(self, |db| sqlx::query(REMOVE)
            .bind(holder.as_str())
            .bind(mcp.as_str())
            .bind(name.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("remove a credential"))?;
        Ok(removed > 0)
    }

    /// Puts values under another seal, all or none; what was changed since it was read stays as it
    /// is. Neither version nor date changes: the values are the same. Gives how many were put.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn reseal_credentials(&self, anew: &[(Stored, String)]) -> Result<u64, StoreError> {
        again(|| self.reseal_once(anew)).await
    }

    async fn reseal_once(&self, anew: &[(Stored, String)]) -> Result<u64, StoreError> {
        const DOING: &str = "seal credentials anew";
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            let mut put = 0;
            for (old, sealed) in anew {
                put += sqlx::query(RESEAL)
                    .bind(old.holder.as_str())
                    .bind(old.mcp.as_str())
                    .bind(old.name.as_str())
                    .bind(old.sealed.as_str())
                    .bind(sealed.as_str())
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(DOING))?
                    .rows_affected();
            }
            tx.commit().await.map_err(doing(DOING))?;
            Ok(put)
        })
    }

    /// All values, sealed: by holder, mcp and name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn credentials(&self) -> Result<Vec<Stored>, StoreError> {
        let found = on!(self, |db| sqlx::query_as::<_, Row>(LIST)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the credentials"))?;
        rows::all(found)
    }
}
