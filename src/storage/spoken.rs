//! Which era of MCP the servers of each mcp speak, as it was found out.

use super::error::{StoreError, doing};
use super::{Store, rows};
use crate::domain::era::Spoken;
use crate::domain::ids::McpId;

const SET: &str = "UPDATE mcps SET spoken = $2 WHERE id = $1";
const ALL: &str = "SELECT id, spoken FROM mcps WHERE spoken <> '' ORDER BY id";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    spoken: String,
}

impl TryFrom<Row> for (McpId, Spoken) {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let spoken = rows::json("mcps.spoken", &row.spoken)?;
        Ok((rows::field("mcps.id", row.id)?, spoken))
    }
}

impl Store {
    /// Keeps what was found out, or that nothing is known any more; of an mcp that is not there, nothing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn set_spoken(&self, mcp: &McpId, spoken: Option<&Spoken>) -> Result<(), StoreError> {
        let spoken = match spoken {
            Some(spoken) => rows::to_json("mcps.spoken", spoken)?,
            None => String::new(),
        };
        on!(self, |db| sqlx::query(SET)
            .bind(mcp.as_str())
            .bind(spoken)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(doing("keep what an mcp speaks"))?;
        Ok(())
    }

    /// All that is known.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn spoken(&self) -> Result<Vec<(McpId, Spoken)>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(ALL)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("read what mcps speak"))?;
        rows::all(rows)
    }
}
