//! Subscriptions, and the names under which each key sees its tools: fixed when the subscription
//! is made, added to for newcomers, never changed.

use super::error::{StoreError, adding, doing};
use super::{Store, again, rows};
use crate::domain::account::{ExposedTool, Millis, Subscription};
use crate::domain::ids::{KeyId, McpId};
#[cfg(doc)]
use crate::domain::limits::TOOLS_GONE_NAMED_MAX;
use crate::domain::name::ToolName;

const ADD: &str = "INSERT INTO subscriptions (key_id, mcp_id, created_at) VALUES ($1, $2, $3) \
    ON CONFLICT (key_id, mcp_id) DO NOTHING";
const REMOVE: &str = "DELETE FROM subscriptions WHERE key_id = $1 AND mcp_id = $2";
const LIST: &str = "SELECT key_id, mcp_id, created_at FROM subscriptions \
    ORDER BY key_id, created_at, mcp_id";
const OF_KEY: &str = "SELECT key_id, mcp_id, created_at FROM subscriptions WHERE key_id = $1 \
    ORDER BY created_at, mcp_id";
const EXPOSE: &str = "INSERT INTO exposed_tools (key_id, mcp_id, tool, exposed) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (key_id, mcp_id, tool) DO NOTHING";
const EXPOSED: &str = "SELECT e.key_id, e.mcp_id, e.tool, e.exposed FROM exposed_tools e \
    JOIN tools t ON t.mcp_id = e.mcp_id AND t.name = e.tool ORDER BY e.key_id, e.exposed";
const EXPOSED_TO: &str = "SELECT key_id, mcp_id, tool, exposed FROM exposed_tools \
    WHERE key_id = $1 ORDER BY exposed";

#[derive(sqlx::FromRow)]
struct Row {
    key_id: String,
    mcp_id: String,
    created_at: i64,
}

impl TryFrom<Row> for Subscription {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            key: rows::field("subscriptions.key_id", row.key_id)?,
            mcp: rows::field("subscriptions.mcp_id", row.mcp_id)?,
            created_at: row.created_at,
        })
    }
}

#[derive(sqlx::FromRow)]
struct ExposedRow {
    key_id: String,
    mcp_id: String,
    tool: String,
    exposed: String,
}

impl TryFrom<ExposedRow> for ExposedTool {
    type Error = StoreError;
    fn try_from(row: ExposedRow) -> Result<Self, StoreError> {
        Ok(Self {
            key: rows::field("exposed_tools.key_id", row.key_id)?,
            mcp: rows::field("exposed_tools.mcp_id", row.mcp_id)?,
            tool: rows::field("exposed_tools.tool", row.tool)?,
            exposed: row.exposed,
        })
    }
}

/// What every key sees, as of one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Views {
    /// All subscriptions: by key, oldest first.
    pub subscriptions: Vec<Subscription>,
    /// The exposed names of all tools that are there: by key, then by name.
    pub exposed: Vec<ExposedTool>,
}

impl Store {
    /// Subscribes a key to an mcp and fixes the names of its tools, in one transaction; `false`
    /// if it was subscribed. Names that are fixed already stay as they are.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the key or the mcp does not exist, [`StoreError::Conflict`] if
    /// another tool of the key has one of the names: read the view again and choose anew.
    pub async fn subscribe(
        &self,
        key: &KeyId,
        mcp: &McpId,
        at: Millis,
        names: &[(ToolName, String)],
    ) -> Result<bool, StoreError> {
        const DOING: &str = "subscribe a key";
        let failed = doing(DOING);
        let about = &format!("{mcp} for {key}");
        again(|| async move {
            on!(self, |db| {
                let mut tx = db.begin().await.map_err(failed)?;
                let rows = sqlx::query(ADD)
                    .bind(key.as_str())
                    .bind(mcp.as_str())
                    .bind(at)
                    .execute(&mut *tx)
                    .await
                    .map_err(adding(DOING, "subscription", "key or mcp", about))?
                    .rows_affected();
                for (tool, exposed) in names {
                    sqlx::query(EXPOSE)
                        .bind(key.as_str())
                        .bind(mcp.as_str())
                        .bind(tool.as_str())
                        .bind(exposed.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(adding(DOING, "exposed name", "subscription", exposed))?;
                }
                tx.commit().await.map_err(failed)?;
                Ok(rows > 0)
            })
        })
        .await
    }

    /// Ends a subscription and forgets its names; `false` if there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn unsubscribe(&self, key: &KeyId, mcp: &McpId) -> Result<bool, StoreError> {
        let rows = on!(self, |db| sqlx::query(REMOVE)
            .bind(key.as_str())
            .bind(mcp.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("unsubscribe a key"))?;
        Ok(rows > 0)
    }

    /// Every subscription, or one key's, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn subscriptions(
        &self,
        key: Option<&KeyId>,
    ) -> Result<Vec<Subscription>, StoreError> {
        let rows = match key {
            Some(key) => on!(self, |db| sqlx::query_as::<_, Row>(OF_KEY)
                .bind(key.as_str())
                .fetch_all(&db.reader)
                .await),
            None => on!(self, |db| sqlx::query_as::<_, Row>(LIST)
                .fetch_all(&db.reader)
                .await),
        }
        .map_err(doing("list the subscriptions"))?;
        rows::all(rows)
    }

    /// The names one key's tools have, those of vanished tools included: they stay taken, as far
    /// as they are [kept](TOOLS_GONE_NAMED_MAX).
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn exposed_to(&self, key: &KeyId) -> Result<Vec<ExposedTool>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, ExposedRow>(EXPOSED_TO)
            .bind(key.as_str())
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list a key's tool names"))?;
        rows::all(rows)
    }

    /// Fixes names for newly discovered tools of standing subscriptions, of any number of keys,
    /// in one transaction. A tool that has a name keeps it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if a key is not subscribed, [`StoreError::Conflict`] if a name is
    /// taken in its key's view; then none of the batch was kept.
    pub async fn expose(&self, tools: &[ExposedTool]) -> Result<(), StoreError> {
        const DOING: &str = "name newly discovered tools";
        if tools.is_empty() {
            return Ok(());
        }
        let failed = doing(DOING);
        again(|| async move {
            on!(self, |db| {
                let mut tx = db.begin().await.map_err(failed)?;
                for tool in tools {
                    sqlx::query(EXPOSE)
                        .bind(tool.key.as_str())
                        .bind(tool.mcp.as_str())
                        .bind(tool.tool.as_str())
                        .bind(tool.exposed.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(adding(DOING, "exposed name", "subscription", &tool.exposed))?;
                }
                tx.commit().await.map_err(failed)
            })
        })
        .await
    }

    /// Everything a route snapshot needs to know about views, as of one moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn views(&self) -> Result<Views, StoreError> {
        let failed = doing("read all views");
        let (subscriptions, exposed) = on!(self, |db| {
            let mut tx = db.reader.begin().await.map_err(failed)?;
            let subscriptions = sqlx::query_as::<_, Row>(LIST)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            let exposed = sqlx::query_as::<_, ExposedRow>(EXPOSED)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            (subscriptions, exposed)
        });
        Ok(Views {
            subscriptions: rows::all(subscriptions)?,
            exposed: rows::all(exposed)?,
        })
    }
}
