//! The tools of each mcp, as the last discovery found them, in the server's order.

use super::error::{StoreError, adding, doing};
use super::{Store, again, rows};
use crate::domain::ids::McpId;
use crate::domain::mcp::Tool;

const CLEAR: &str = "DELETE FROM tools WHERE mcp_id = $1";
const INSERT: &str = "INSERT INTO tools (mcp_id, name, place, description, definition) \
    VALUES ($1, $2, $3, $4, $5)";
const OF: &str = "SELECT mcp_id, name, description, definition FROM tools \
    WHERE mcp_id = $1 ORDER BY place";
const ALL: &str = "SELECT mcp_id, name, description, definition FROM tools ORDER BY mcp_id, place";
const MCP_EXISTS: &str = "SELECT id FROM mcps WHERE id = $1";

#[derive(sqlx::FromRow)]
struct Row {
    mcp_id: String,
    name: String,
    description: String,
    definition: String,
}

impl TryFrom<Row> for (McpId, Tool) {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let tool = Tool {
            name: rows::field("tools.name", row.name)?,
            description: row.description,
            definition: row.definition,
        };
        Ok((rows::field("tools.mcp_id", row.mcp_id)?, tool))
    }
}

impl Store {
    /// Replaces the whole set of an mcp's tools, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such mcp, [`StoreError::Conflict`] if a name comes
    /// twice; then the old set stays.
    pub async fn replace_tools(&self, mcp: &McpId, tools: &[Tool]) -> Result<(), StoreError> {
        let failed = doing("replace an mcp's tools");
        again(|| async move {
            on!(self, |db| {
                let mut tx = db.begin().await.map_err(failed)?;
                // An empty set inserts nothing, so no reference would notice that the mcp is missing.
                sqlx::query(MCP_EXISTS)
                    .bind(mcp.as_str())
                    .fetch_optional(&mut *tx)
                    .await
                    .map_err(failed)?
                    .ok_or_else(|| StoreError::not_found("mcp", mcp))?;
                sqlx::query(CLEAR)
                    .bind(mcp.as_str())
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                for (place, tool) in (0i64..).zip(tools) {
                    sqlx::query(INSERT)
                        .bind(mcp.as_str())
                        .bind(tool.name.as_str())
                        .bind(place)
                        .bind(tool.description.as_str())
                        .bind(tool.definition.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(adding("replace an mcp's tools", "tool", "mcp", &tool.name))?;
                }
                tx.commit().await.map_err(failed)
            })
        })
        .await
    }

    /// The tools of one mcp, in the server's order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn tools_of(&self, mcp: &McpId) -> Result<Vec<Tool>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(OF)
            .bind(mcp.as_str())
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list an mcp's tools"))?;
        let pairs: Vec<(McpId, Tool)> = rows::all(rows)?;
        Ok(pairs.into_iter().map(|(_, tool)| tool).collect())
    }

    /// The tools of every mcp: by mcp id, then in the server's order.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn tools(&self) -> Result<Vec<(McpId, Tool)>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(ALL)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list all tools"))?;
        rows::all(rows)
    }
}
