//! The tools of each mcp, as the last discovery found them, in the server's order; and for which of those that are gone
//! the names are kept.

use std::collections::HashSet;

use serde::Serialize;

use super::error::{StoreError, adding, doing};
use super::{Store, again, rows};
use crate::domain::ids::McpId;
use crate::domain::limits::TOOLS_GONE_NAMED_MAX;
use crate::domain::mcp::Tool;

const CLEAR: &str = "DELETE FROM tools WHERE mcp_id = $1";
const INSERT: &str = "INSERT INTO tools (mcp_id, name, place, description, definition) \
    VALUES ($1, $2, $3, $4, $5)";
/// The same for many in one statement, of a server that each statement is a way to.
const INSERT_ALL: &str = "INSERT INTO tools (mcp_id, name, place, description, definition) \
    SELECT $1, name, place, description, definition FROM json_to_recordset($2::json) \
    AS listed (name text, place bigint, description text, definition text)";
const BACK: &str = "UPDATE exposed_tools SET gone = 0 WHERE mcp_id = $1 AND gone <> 0 \
    AND tool IN (SELECT name FROM tools WHERE mcp_id = $1)";
const GONE: &str = "UPDATE exposed_tools SET gone = \
    (SELECT 1 + MAX(gone) FROM exposed_tools WHERE mcp_id = $1) WHERE mcp_id = $1 AND gone = 0 \
    AND tool NOT IN (SELECT name FROM tools WHERE mcp_id = $1)";
const FORGET: &str = "DELETE FROM exposed_tools WHERE mcp_id = $1 AND (key_id, tool) IN \
    (SELECT key_id, tool FROM (SELECT key_id, tool, ROW_NUMBER() OVER \
    (PARTITION BY key_id ORDER BY gone DESC, tool) AS place FROM exposed_tools \
    WHERE mcp_id = $1 AND gone <> 0) AS vanished WHERE place > $2)";
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

/// A tool on its way to many at once.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    place: usize,
    description: &'a str,
    definition: &'a str,
}

/// All of them as one text, if each name is there once.
fn listed(tools: &[Tool]) -> Result<String, StoreError> {
    let mut names = HashSet::new();
    if let Some(twice) = tools.iter().find(|tool| !names.insert(&tool.name)) {
        return Err(StoreError::conflict("tool", &twice.name, "exists already"));
    }
    let all = tools.iter().enumerate().map(|(place, tool)| Listed {
        name: tool.name.as_str(),
        place,
        description: &tool.description,
        definition: &tool.definition,
    });
    rows::to_json("tools", &all.collect::<Vec<_>>())
}

impl Store {
    /// Replaces the whole set of an mcp's tools, in one transaction. The names that keys have for tools that are gone
    /// now are kept, up to a bound: those that went first lose theirs.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is no such mcp, [`StoreError::Conflict`] if a name comes
    /// twice; then the old set stays.
    pub async fn replace_tools(&self, mcp: &McpId, tools: &[Tool]) -> Result<(), StoreError> {
        let failed = doing("replace an mcp's tools");
        let listed = &listed(tools)?;
        let at_once = self.is_server();
        let most = i64::try_from(TOOLS_GONE_NAMED_MAX).unwrap_or(i64::MAX);
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
                if at_once {
                    sqlx::query(INSERT_ALL)
                        .bind(mcp.as_str())
                        .bind(listed.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                }
                let alone = tools.iter().filter(|_| !at_once);
                for (place, tool) in (0i64..).zip(alone) {
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
                for sql in [BACK, GONE] {
                    sqlx::query(sql)
                        .bind(mcp.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                }
                sqlx::query(FORGET)
                    .bind(mcp.as_str())
                    .bind(most)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
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
