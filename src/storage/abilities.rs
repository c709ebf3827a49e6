//! What servers said that they can do, so that nobody starts one to find out.

use serde::{Deserialize, Serialize};

use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::ids::McpId;
use crate::protocol::card::Card;
use crate::protocol::handshake::Abilities;

const SET: &str = "INSERT INTO abilities (mcp_id, config, abilities) VALUES ($1, $2, $3) \
    ON CONFLICT (mcp_id) DO UPDATE SET config = excluded.config, abilities = excluded.abilities";
const ALL: &str = "SELECT mcp_id, config, abilities FROM abilities ORDER BY mcp_id";

/// What the server of an mcp can do, and the hash of the definition it was started from; what it says of itself, if it
/// said that to nobody in particular.
pub type Known = (McpId, String, Abilities, Option<Card>);

/// Both, in one text.
#[derive(Serialize, Deserialize)]
struct Said {
    #[serde(flatten)]
    abilities: Abilities,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<Card>,
}

#[derive(sqlx::FromRow)]
struct Row {
    mcp_id: String,
    config: String,
    abilities: String,
}

impl TryFrom<Row> for Known {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let said: Said = rows::json("abilities.abilities", &row.abilities)?;
        Ok((
            rows::field("abilities.mcp_id", row.mcp_id)?,
            row.config,
            said.abilities,
            said.card,
        ))
    }
}

impl Store {
    /// Keeps what a server can do, in place of what was known of its mcp.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the mcp does not exist.
    pub async fn set_abilities(
        &self,
        mcp: &McpId,
        config: &str,
        (abilities, card): (Abilities, Option<Card>),
    ) -> Result<(), StoreError> {
        let text = rows::to_json("abilities.abilities", &Said { abilities, card })?;
        on!(self, |db| sqlx::query(SET)
            .bind(mcp.as_str())
            .bind(config)
            .bind(text.as_str())
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding("keep what a server can do", "abilities", "mcp", mcp))
    }

    /// What is known of all mcps.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn abilities(&self) -> Result<Vec<Known>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(ALL)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("read what servers can do"))?;
        rows::all(rows)
    }
}
