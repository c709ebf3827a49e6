//! The names under which each key sees prompts where all its servers are: fixed when they are listed for the first
//! time, never changed.

use super::error::{StoreError, adding, doing};
use super::{Store, again, rows};
use crate::domain::account::ExposedPrompt;
use crate::domain::ids::KeyId;

const EXPOSE: &str = "INSERT INTO exposed_prompts (key_id, mcp_id, prompt, exposed) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (key_id, mcp_id, prompt) DO NOTHING";
const EXPOSED_TO: &str = "SELECT mcp_id, prompt, exposed FROM exposed_prompts \
    WHERE key_id = $1 ORDER BY exposed";

#[derive(sqlx::FromRow)]
struct Row {
    mcp_id: String,
    prompt: String,
    exposed: String,
}

impl TryFrom<Row> for ExposedPrompt {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            mcp: rows::field("exposed_prompts.mcp_id", row.mcp_id)?,
            prompt: row.prompt,
            exposed: row.exposed,
        })
    }
}

impl Store {
    /// The names of a key's prompts, those of vanished ones included: they stay taken.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn prompts_exposed_to(&self, key: &KeyId) -> Result<Vec<ExposedPrompt>, StoreError> {
        let _place = self.place_for_many("list a key's prompt names").await?;
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(EXPOSED_TO)
            .bind(key.as_str())
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list a key's prompt names"))?;
        rows::all(rows)
    }

    /// Fixes names for prompts of standing subscriptions, in one transaction. One that has a name keeps it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if the key is not subscribed, [`StoreError::Conflict`] if a name is taken: read
    /// them again and choose anew.
    pub async fn expose_prompts(
        &self,
        key: &KeyId,
        prompts: &[ExposedPrompt],
    ) -> Result<(), StoreError> {
        const DOING: &str = "name prompts";
        if prompts.is_empty() {
            return Ok(());
        }
        let _place = self.place_for_many(DOING).await?;
        let failed = doing(DOING);
        again(|| async move {
            on!(self, |db| {
                let mut tx = db.begin().await.map_err(failed)?;
                for one in prompts {
                    sqlx::query(EXPOSE)
                        .bind(key.as_str())
                        .bind(one.mcp.as_str())
                        .bind(one.prompt.as_str())
                        .bind(one.exposed.as_str())
                        .execute(&mut *tx)
                        .await
                        .map_err(adding(DOING, "exposed name", "subscription", &one.exposed))?;
                }
                tx.commit().await.map_err(failed)
            })
        })
        .await
    }
}
