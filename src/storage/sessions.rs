//! Sessions: what lets a registered client survive a restart of the server. An ended session is
//! deleted; the audit log keeps its history.

use serde::Serialize;

use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::{Millis, Session};
use crate::domain::ids::{KeyId, SessionId, UserId};
use crate::domain::limits::STORE_BATCH_MAX;

const CREATE: &str = "INSERT INTO sessions (id, key_id, user_id, connection_id, friendly_name, \
    host_tool, questions, created_at, seen_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
/// The batch is one text, so that it is one statement, whatever the way to the database costs.
const EXTEND: &str = "UPDATE sessions SET seen_at = new.seen_at, expires_at = new.expires_at \
    FROM json_to_recordset($1::json) AS new (id text, seen_at bigint, expires_at bigint) \
    WHERE sessions.id = new.id AND sessions.seen_at <= new.seen_at";
const EXTEND_SQLITE: &str = "UPDATE sessions SET seen_at = new.seen_at, \
    expires_at = new.expires_at FROM (SELECT value ->> 'id' AS id, \
    value ->> 'seen_at' AS seen_at, value ->> 'expires_at' AS expires_at FROM json_each($1)) \
    AS new WHERE sessions.id = new.id AND sessions.seen_at <= new.seen_at";
const END: &str = "DELETE FROM sessions WHERE id = $1";
const END_OF_KEY: &str = "DELETE FROM sessions WHERE key_id = $1 RETURNING id";
const END_OF_USER: &str = "DELETE FROM sessions WHERE user_id = $1 RETURNING id";
const LIVE: &str = "SELECT id, key_id, user_id, connection_id, friendly_name, host_tool, \
    questions, created_at, seen_at, expires_at FROM sessions WHERE expires_at > $1 ORDER BY created_at, id";
const PURGE: &str = "DELETE FROM sessions WHERE expires_at <= $1";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    key_id: String,
    user_id: String,
    connection_id: String,
    friendly_name: String,
    host_tool: String,
    questions: String,
    created_at: i64,
    seen_at: i64,
    expires_at: i64,
}

impl TryFrom<Row> for Session {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: rows::field("sessions.id", row.id)?,
            key: rows::field("sessions.key_id", row.key_id)?,
            user: rows::field("sessions.user_id", row.user_id)?,
            connection: rows::field("sessions.connection_id", row.connection_id)?,
            friendly_name: row.friendly_name,
            host_tool: row.host_tool,
            questions: rows::json("sessions.questions", &row.questions)?,
            created_at: row.created_at,
            seen_at: row.seen_at,
            expires_at: row.expires_at,
        })
    }
}

/// One session's activity, collected between two writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionSeen {
    /// Which session.
    pub id: SessionId,
    /// When it was last active.
    pub seen_at: Millis,
    /// When it ends without more activity.
    pub expires_at: Millis,
}

impl Store {
    /// Adds a session.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if its key or user does not exist.
    pub async fn create_session(&self, session: &Session) -> Result<(), StoreError> {
        let _place = self.place_for_many("add a session").await?;
        let questions = rows::to_json("sessions.questions", &session.questions)?;
        on!(self, |db| sqlx::query(CREATE)
            .bind(session.id.as_str())
            .bind(session.key.as_str())
            .bind(session.user.as_str())
            .bind(session.connection.as_str())
            .bind(session.friendly_name.as_str())
            .bind(session.host_tool.as_str())
            .bind(questions)
            .bind(session.created_at)
            .bind(session.seen_at)
            .bind(session.expires_at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding(
            "add a session",
            "session",
            "key or user of session",
            &session.id,
        ))?;
        Ok(())
    }

    /// Notes activity: one statement for [so many](STORE_BATCH_MAX) at a time; never goes back in
    /// time; ended sessions are passed over. To note it twice does no harm.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then the rest was not kept.
    pub async fn extend_sessions(&self, seen: &[SessionSeen]) -> Result<(), StoreError> {
        let sql = match self.is_server() {
            true => EXTEND,
            false => EXTEND_SQLITE,
        };
        self.in_batches("extend sessions", ("sessions", sql), seen)
            .await
    }

    /// Runs a statement on [so many](STORE_BATCH_MAX) rows of a table at a time, which travel as one JSON text.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then the rest was not done.
    pub(super) async fn in_batches<T: Serialize>(
        &self,
        what: &'static str,
        (table, sql): (&'static str, &'static str),
        all: &[T],
    ) -> Result<(), StoreError> {
        let _place = self.place_for_many(what).await?;
        for batch in all.chunks(STORE_BATCH_MAX) {
            let batch = rows::to_json(table, &batch)?;
            on!(self, |db| sqlx::query(sql)
                .bind(batch)
                .execute(&db.writer)
                .await
                .map(drop))
            .map_err(doing(what))?;
        }
        Ok(())
    }

    /// Ends a session; `false` if there was none.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn end_session(&self, id: &SessionId) -> Result<bool, StoreError> {
        let _place = self.place_for_many("end a session").await?;
        let rows = on!(self, |db| sqlx::query(END)
            .bind(id.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("end a session"))?;
        Ok(rows > 0)
    }

    /// Ends every session of a key and says which.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn end_sessions_of_key(&self, key: &KeyId) -> Result<Vec<SessionId>, StoreError> {
        let ids = on!(self, |db| sqlx::query_scalar::<_, String>(END_OF_KEY)
            .bind(key.as_str())
            .fetch_all(&db.writer)
            .await)
        .map_err(doing("end a key's sessions"))?;
        ids_of(ids)
    }

    /// Ends every session of a user and says which.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn end_sessions_of_user(&self, user: &UserId) -> Result<Vec<SessionId>, StoreError> {
        let ids = on!(self, |db| sqlx::query_scalar::<_, String>(END_OF_USER)
            .bind(user.as_str())
            .fetch_all(&db.writer)
            .await)
        .map_err(doing("end a user's sessions"))?;
        ids_of(ids)
    }

    /// The sessions that are not expired at `now`, oldest first: what a starting server takes up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn live_sessions(&self, now: Millis) -> Result<Vec<Session>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(LIVE)
            .bind(now)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the live sessions"))?;
        rows::all(rows)
    }

    /// Deletes the sessions that expired at or before `before` and says how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn purge_sessions(&self, before: Millis) -> Result<u64, StoreError> {
        on!(self, |db| sqlx::query(PURGE)
            .bind(before)
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("purge expired sessions"))
    }
}

/// `RETURNING` promises no order; lists here are deterministic.
fn ids_of(texts: Vec<String>) -> Result<Vec<SessionId>, StoreError> {
    let parse = |id| rows::field("sessions.id", id);
    let mut ids = texts
        .into_iter()
        .map(parse)
        .collect::<Result<Vec<SessionId>, _>>()?;
    ids.sort();
    Ok(ids)
}
