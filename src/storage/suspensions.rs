//! Suspensions: durable denies, at most one active for each target, all of them remembered.

use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::{Millis, Suspension, SuspensionScope};

const SET: &str = "INSERT INTO suspensions (id, scope, target, reason, author, created_at, \
    lifted_at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const LIFT: &str = "UPDATE suspensions SET lifted_at = $3 \
    WHERE scope = $1 AND target = $2 AND lifted_at IS NULL \
    RETURNING id, scope, target, reason, author, created_at, lifted_at";
const ACTIVE: &str = "SELECT id, scope, target, reason, author, created_at, lifted_at \
    FROM suspensions WHERE lifted_at IS NULL ORDER BY created_at, id";
const HISTORY: &str = "SELECT id, scope, target, reason, author, created_at, lifted_at \
    FROM suspensions ORDER BY created_at DESC, id LIMIT $1";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    scope: String,
    target: String,
    reason: String,
    author: String,
    created_at: i64,
    lifted_at: Option<i64>,
}

impl TryFrom<Row> for Suspension {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let scope = match row.scope.as_str() {
            "user" => SuspensionScope::User(rows::field("suspensions.target", row.target)?),
            "mcp" => SuspensionScope::Mcp(rows::field("suspensions.target", row.target)?),
            other => {
                return Err(StoreError::Corrupt {
                    place: "suspensions.scope".into(),
                    detail: format!("`{other}` is no scope"),
                });
            }
        };
        Ok(Self {
            id: rows::field("suspensions.id", row.id)?,
            scope,
            reason: row.reason,
            author: row.author,
            created_at: row.created_at,
            lifted_at: row.lifted_at,
        })
    }
}

fn columns(scope: &SuspensionScope) -> (&'static str, &str) {
    match scope {
        SuspensionScope::User(id) => ("user", id.as_str()),
        SuspensionScope::Mcp(id) => ("mcp", id.as_str()),
    }
}

impl Store {
    /// Suspends. The target need not exist here: a deny may come before what it denies.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if an active suspension of the target exists.
    pub async fn suspend(&self, suspension: &Suspension) -> Result<(), StoreError> {
        let (scope, target) = columns(&suspension.scope);
        on!(self, |db| sqlx::query(SET)
            .bind(suspension.id.as_str())
            .bind(scope)
            .bind(target)
            .bind(suspension.reason.as_str())
            .bind(suspension.author.as_str())
            .bind(suspension.created_at)
            .bind(suspension.lifted_at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding("suspend", "suspension of", "target", target))?;
        Ok(())
    }

    /// Lifts the active suspension of a target and returns it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if none is active.
    pub async fn lift_suspension(
        &self,
        scope: &SuspensionScope,
        at: Millis,
    ) -> Result<Suspension, StoreError> {
        let (kind, target) = columns(scope);
        on!(self, |db| sqlx::query_as::<_, Row>(LIFT)
            .bind(kind)
            .bind(target)
            .bind(at)
            .fetch_optional(&db.writer)
            .await)
        .map_err(doing("lift a suspension"))?
        .ok_or_else(|| StoreError::not_found("active suspension of", target))?
        .try_into()
    }

    /// The suspensions in force, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn active_suspensions(&self) -> Result<Vec<Suspension>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(ACTIVE)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the active suspensions"))?;
        rows::all(rows)
    }

    /// The newest `limit` suspensions, lifted ones too, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn suspension_history(&self, limit: u32) -> Result<Vec<Suspension>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(HISTORY)
            .bind(i64::from(limit))
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the suspensions"))?;
        rows::all(rows)
    }
}
