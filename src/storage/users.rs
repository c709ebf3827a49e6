//! Users.

use super::again::again;
use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::{Removal, User};
use crate::domain::ids::UserId;
use crate::domain::name::Name;

const CREATE: &str = "INSERT INTO users (id, name, created_at) VALUES ($1, $2, $3)";
const BY_NAME: &str = "SELECT id, name, created_at FROM users WHERE name = $1";
const BY_ID: &str = "SELECT id, name, created_at FROM users WHERE id = $1";
const REMOVE: &str = "DELETE FROM users WHERE id = $1 RETURNING id";
const REMOVE_CREDENTIALS: &str = "DELETE FROM credentials WHERE holder = $1";
const MARK: &str = "INSERT INTO settings (name, value) VALUES ($1, $2) \
    ON CONFLICT (name) DO UPDATE SET value = excluded.value";
const MARKS: &str = "SELECT value FROM settings WHERE name LIKE 'user-removal:%' ORDER BY name";
const LIST: &str = "SELECT id, name, created_at FROM users ORDER BY name";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    created_at: i64,
}

impl TryFrom<Row> for User {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: rows::field("users.id", row.id)?,
            name: rows::field("users.name", row.name)?,
            created_at: row.created_at,
        })
    }
}

impl Store {
    /// Adds a user.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the name is taken.
    pub async fn create_user(&self, user: &User) -> Result<(), StoreError> {
        on!(self, |db| sqlx::query(CREATE)
            .bind(user.id.as_str())
            .bind(user.name.as_str())
            .bind(user.created_at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding("add a user", "user", "user", &user.name))?;
        Ok(())
    }

    /// The user of that name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn user_by_name(&self, name: &Name) -> Result<User, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_NAME)
            .bind(name.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a user"))?
        .ok_or_else(|| StoreError::not_found("user", name))?
        .try_into()
    }

    /// The user with that id.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn user(&self, id: &UserId) -> Result<User, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_ID)
            .bind(id.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a user"))?
        .ok_or_else(|| StoreError::not_found("user", id))?
        .try_into()
    }

    /// Takes away a user with keys, sessions, subscriptions, memberships and credentials, and keeps in mind that the rest
    /// of what was theirs is to go as well.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn remove_user(&self, removal: &Removal) -> Result<(), StoreError> {
        match again(|| self.remove_user_once(removal)).await? {
            true => Ok(()),
            false => Err(StoreError::not_found("user", &removal.id)),
        }
    }

    async fn remove_user_once(&self, removal: &Removal) -> Result<bool, StoreError> {
        const DOING: &str = "remove a user";
        let (id, mark) = (&removal.id, rows::to_json("settings.value", removal)?);
        on!(self, |db| {
            let mut tx = db.begin().await.map_err(doing(DOING))?;
            // A holder has no reference: everybody's values are of no user.
            sqlx::query(REMOVE_CREDENTIALS)
                .bind(id.as_str())
                .execute(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            let removed = sqlx::query_scalar::<_, String>(REMOVE)
                .bind(id.as_str())
                .fetch_optional(&mut *tx)
                .await
                .map_err(doing(DOING))?;
            if removed.is_some() {
                sqlx::query(MARK)
                    .bind(mark_of(id))
                    .bind(mark)
                    .execute(&mut *tx)
                    .await
                    .map_err(doing(DOING))?;
            }
            tx.commit().await.map_err(doing(DOING))?;
            Ok(removed.is_some())
        })
    }

    /// Users who were removed, and of whom something may be left.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn removals(&self) -> Result<Vec<Removal>, StoreError> {
        let marks = on!(self, |db| sqlx::query_scalar::<_, String>(MARKS)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("read what is left of users"))?;
        let marks = marks.iter();
        marks
            .map(|mark| rows::json("settings.value", mark))
            .collect()
    }

    /// Nothing is left of a user who was removed.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn end_removal(&self, id: &UserId) -> Result<(), StoreError> {
        self.remove_setting(&mark_of(id)).await.map(drop)
    }

    /// Every user, by name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        let rows = on!(self, |db| sqlx::query_as::<_, Row>(LIST)
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the users"))?;
        rows::all(rows)
    }
}

/// Under which name it is kept that a user was removed.
fn mark_of(id: &UserId) -> String {
    format!("user-removal:{id}")
}
