//! Kill switches and suspensions: at most one of a kind active for each target, the newest past
//! ones remembered.
//!
//! The journal in the data directory is the truth about what is in force; what is saved here may
//! come late, twice and after a restart. So saving replaces, and never conflicts.

use super::error::{StoreError, doing};
use super::{Store, rows};
use crate::domain::account::Millis;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Ending, Kind, Lifted, Scope, Target};

const SUPERSEDE: &str = "UPDATE denies SET lifted_at = $5, lifted_by = 'journal', \
    lifted_how = 'superseded' WHERE kind = $1 AND scope = $2 AND target = $3 AND id <> $4 \
    AND lifted_at IS NULL";
const SAVE: &str = "INSERT INTO denies (id, kind, scope, target, label, reason, author, \
    created_at, expires_at, lifted_at, lifted_by, lifted_how) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
    ON CONFLICT (id) DO UPDATE SET lifted_at = excluded.lifted_at, \
    lifted_by = excluded.lifted_by, lifted_how = excluded.lifted_how";
const END_OF_USER: &str = "DELETE FROM sessions WHERE user_id = $1 AND created_at <= $2";
const END_OF_KEY: &str = "DELETE FROM sessions WHERE key_id = $1 AND created_at <= $2";
const ACTIVE: &str = "SELECT id, kind, scope, target, label, reason, author, created_at, \
    expires_at, lifted_at, lifted_by, lifted_how \
    FROM denies WHERE lifted_at IS NULL ORDER BY created_at, id";
const HISTORY: &str = "SELECT id, kind, scope, target, label, reason, author, created_at, \
    expires_at, lifted_at, lifted_by, lifted_how \
    FROM denies ORDER BY created_at DESC, id LIMIT $1";
const ONE: &str = "SELECT id, kind, scope, target, label, reason, author, created_at, \
    expires_at, lifted_at, lifted_by, lifted_how FROM denies WHERE id = $1";
const FORGET: &str = "DELETE FROM denies WHERE lifted_at IS NOT NULL AND lifted_at < \
    (SELECT lifted_at FROM denies WHERE lifted_at IS NOT NULL \
    ORDER BY lifted_at DESC LIMIT 1 OFFSET $1)";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    kind: String,
    scope: String,
    target: String,
    label: String,
    reason: String,
    author: String,
    created_at: i64,
    expires_at: Option<i64>,
    lifted_at: Option<i64>,
    lifted_by: Option<String>,
    lifted_how: Option<String>,
}

fn corrupt(place: &str, word: &str) -> StoreError {
    StoreError::Corrupt {
        place: place.to_owned(),
        detail: format!("`{word}` is not what we write there"),
    }
}

impl TryFrom<Row> for Deny {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let scope = Scope::parse(&row.scope).ok_or_else(|| corrupt("denies.scope", &row.scope))?;
        let target =
            Target::parse(scope, &row.target).map_err(|_| corrupt("denies.target", &row.target))?;
        let lifted = match row.lifted_at {
            Some(at) => {
                let how = row.lifted_how.unwrap_or_default();
                Some(Lifted {
                    at,
                    by: row.lifted_by.unwrap_or_default(),
                    how: Ending::parse(&how).ok_or_else(|| corrupt("denies.lifted_how", &how))?,
                })
            }
            None => None,
        };
        Ok(Self {
            id: rows::field("denies.id", row.id)?,
            kind: Kind::parse(&row.kind).ok_or_else(|| corrupt("denies.kind", &row.kind))?,
            target,
            label: row.label,
            reason: row.reason,
            author: row.author,
            created_at: row.created_at,
            expires_at: row.expires_at,
            lifted,
        })
    }
}

impl Store {
    /// Makes the store say of these denies what they say themselves, all or none of them. The
    /// sessions that a suspension ended are removed with it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn save_denies(&self, denies: &[Deny], now: Millis) -> Result<(), StoreError> {
        let failed = doing("save kill switches");
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(failed)?;
            for deny in denies {
                let (scope, target) = (deny.target.scope().word(), deny.target.text());
                if deny.lifted.is_none() {
                    sqlx::query(SUPERSEDE)
                        .bind(deny.kind.word())
                        .bind(scope)
                        .bind(target.as_str())
                        .bind(deny.id.as_str())
                        .bind(now)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                }
                let lifted = deny.lifted.as_ref();
                sqlx::query(SAVE)
                    .bind(deny.id.as_str())
                    .bind(deny.kind.word())
                    .bind(scope)
                    .bind(target.as_str())
                    .bind(deny.label.as_str())
                    .bind(deny.reason.as_str())
                    .bind(deny.author.as_str())
                    .bind(deny.created_at)
                    .bind(deny.expires_at)
                    .bind(lifted.map(|lifted| lifted.at))
                    .bind(lifted.map(|lifted| lifted.by.as_str()))
                    .bind(lifted.map(|lifted| lifted.how.word()))
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
                let (end, whose) = match (deny.kind, &deny.target) {
                    (Kind::Suspension, Target::User(user)) => (END_OF_USER, user.as_str()),
                    (Kind::Suspension, Target::Client(key)) => (END_OF_KEY, key.as_str()),
                    _ => continue,
                };
                sqlx::query(end)
                    .bind(whose)
                    .bind(deny.created_at)
                    .execute(&mut *tx)
                    .await
                    .map_err(failed)?;
            }
            tx.commit().await.map_err(failed)
        })
    }

    /// The denies in force, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn active_denies(&self) -> Result<Vec<Deny>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(ACTIVE)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the kill switches in force"))?;
        rows::all(rows)
    }

    /// The newest `limit` denies, past ones too, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn deny_history(&self, limit: u32) -> Result<Vec<Deny>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(HISTORY)
            .bind(i64::from(limit))
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the kill switches"))?;
        rows::all(rows)
    }

    /// One deny.
    ///
    /// # Errors
    /// [`StoreError::NotFound`].
    pub async fn deny(&self, id: &DenyId) -> Result<Deny, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(ONE)
            .bind(id.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a kill switch"))?
        .ok_or_else(|| StoreError::not_found("kill switch", id))?
        .try_into()
    }

    /// Forgets past denies but the newest `keep` (and those that ended in the same moment as the
    /// last of them). Those in force are never forgotten.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn forget_denies(&self, keep: u32) -> Result<u64, StoreError> {
        on!(self, |db| sqlx::query(FORGET)
            .bind(i64::from(keep.saturating_sub(1)))
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("forget old kill switches"))
    }
}
