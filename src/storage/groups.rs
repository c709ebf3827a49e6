//! Groups, who is in them, and which mcps they are granted.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::{StoreError, adding, doing};
use super::{Store, rows};
use crate::domain::account::Group;
use crate::domain::ids::{GroupId, McpId, UserId};
use crate::domain::name::Name;

const CREATE: &str = "INSERT INTO user_groups (id, name, created_at) VALUES ($1, $2, $3)";
const BY_NAME: &str = "SELECT id, name, created_at FROM user_groups WHERE name = $1";
const LIST: &str = "SELECT id, name, created_at FROM user_groups ORDER BY name";
const ADD_MEMBER: &str =
    "INSERT INTO members (group_id, user_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const REMOVE_MEMBER: &str = "DELETE FROM members WHERE group_id = $1 AND user_id = $2";
const MEMBERS: &str = "SELECT user_id FROM members WHERE group_id = $1 ORDER BY user_id";
const ALL_MEMBERS: &str = "SELECT group_id, user_id FROM members ORDER BY group_id, user_id";
const GRANT: &str = "INSERT INTO grants (group_id, mcp_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
const REVOKE: &str = "DELETE FROM grants WHERE group_id = $1 AND mcp_id = $2";
const ALL_GRANTS: &str = "SELECT group_id, mcp_id FROM grants ORDER BY group_id, mcp_id";
/// Oldest first, not by their random ids: a new key's bare tool names go to who was there first,
/// as in the views of older keys.
const GRANTS_OF_USER: &str = "SELECT id FROM mcps WHERE id IN (SELECT g.mcp_id FROM grants g \
    JOIN members m ON m.group_id = g.group_id WHERE m.user_id = $1) ORDER BY created_at, name";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    created_at: i64,
}

impl TryFrom<Row> for Group {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: rows::field("user_groups.id", row.id)?,
            name: rows::field("user_groups.name", row.name)?,
            created_at: row.created_at,
        })
    }
}

/// A group with its members and grants, as tables show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupView {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// Who is in it, by id.
    pub members: Vec<UserId>,
    /// What it is granted, by id.
    pub grants: Vec<McpId>,
}

impl Store {
    /// Adds a group.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if the name is taken.
    pub async fn create_group(&self, group: &Group) -> Result<(), StoreError> {
        on!(self, |db| sqlx::query(CREATE)
            .bind(group.id.as_str())
            .bind(group.name.as_str())
            .bind(group.created_at)
            .execute(&db.writer)
            .await
            .map(drop))
        .map_err(adding("add a group", "group", "group", &group.name))?;
        Ok(())
    }

    /// The group of that name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is none.
    pub async fn group_by_name(&self, name: &Name) -> Result<Group, StoreError> {
        on!(self, |db| sqlx::query_as::<_, Row>(BY_NAME)
            .bind(name.as_str())
            .fetch_optional(&db.reader)
            .await)
        .map_err(doing("read a group"))?
        .ok_or_else(|| StoreError::not_found("group", name))?
        .try_into()
    }

    /// Every group with its members and grants, by name, as of one moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn groups(&self) -> Result<Vec<GroupView>, StoreError> {
        let failed = doing("list the groups");
        let (groups, members, grants) = on!(self, |db| {
            let mut tx = db.reader.begin().await.map_err(failed)?;
            let groups = sqlx::query_as::<_, Row>(LIST)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            let members = sqlx::query_as::<_, (String, String)>(ALL_MEMBERS)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            let grants = sqlx::query_as::<_, (String, String)>(ALL_GRANTS)
                .fetch_all(&mut *tx)
                .await
                .map_err(failed)?;
            (groups, members, grants)
        });
        let mut members = by_group::<UserId>("members.user_id", members)?;
        let mut grants = by_group::<McpId>("grants.mcp_id", grants)?;
        let view = |row: Row| {
            let group = Group::try_from(row)?;
            Ok(GroupView {
                members: members.remove(group.id.as_str()).unwrap_or_default(),
                grants: grants.remove(group.id.as_str()).unwrap_or_default(),
                group,
            })
        };
        groups.into_iter().map(view).collect()
    }

    /// Puts a user into a group; `false` if they were in it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if either does not exist.
    pub async fn add_member(&self, group: &GroupId, user: &UserId) -> Result<bool, StoreError> {
        let about = format_args!("{user} in {group}").to_string();
        let rows = on!(self, |db| sqlx::query(ADD_MEMBER)
            .bind(group.as_str())
            .bind(user.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(adding("add a member", "member", "user or group", about))?;
        Ok(rows > 0)
    }

    /// Takes a user out of a group; `false` if they were not in it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn remove_member(&self, group: &GroupId, user: &UserId) -> Result<bool, StoreError> {
        let rows = on!(self, |db| sqlx::query(REMOVE_MEMBER)
            .bind(group.as_str())
            .bind(user.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("remove a member"))?;
        Ok(rows > 0)
    }

    /// Who is in a group, by id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn members(&self, group: &GroupId) -> Result<Vec<UserId>, StoreError> {
        let ids = on!(self, |db| sqlx::query_scalar::<_, String>(MEMBERS)
            .bind(group.as_str())
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list the members"))?;
        let parse = |id| rows::field("members.user_id", id);
        ids.into_iter().map(parse).collect()
    }

    /// Grants an mcp to a group; `false` if it had it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if either does not exist.
    pub async fn grant(&self, group: &GroupId, mcp: &McpId) -> Result<bool, StoreError> {
        let about = format_args!("{mcp} to {group}").to_string();
        let rows = on!(self, |db| sqlx::query(GRANT)
            .bind(group.as_str())
            .bind(mcp.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(adding("grant an mcp", "grant", "mcp or group", about))?;
        Ok(rows > 0)
    }

    /// Takes a grant back; `false` if there was none. Subscriptions stay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn revoke_grant(&self, group: &GroupId, mcp: &McpId) -> Result<bool, StoreError> {
        let rows = on!(self, |db| sqlx::query(REVOKE)
            .bind(group.as_str())
            .bind(mcp.as_str())
            .execute(&db.writer)
            .await
            .map(|done| done.rows_affected()))
        .map_err(doing("revoke a grant"))?;
        Ok(rows > 0)
    }

    /// What a user's groups are granted, without doubles, by id.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Corrupt`].
    pub async fn grants_of_user(&self, user: &UserId) -> Result<Vec<McpId>, StoreError> {
        let ids = on!(self, |db| sqlx::query_scalar::<_, String>(GRANTS_OF_USER)
            .bind(user.as_str())
            .fetch_all(&db.reader)
            .await)
        .map_err(doing("list a user's grants"))?;
        let parse = |id| rows::field("grants.mcp_id", id);
        ids.into_iter().map(parse).collect()
    }
}

fn by_group<T>(
    place: &'static str,
    pairs: Vec<(String, String)>,
) -> Result<BTreeMap<String, Vec<T>>, StoreError>
where
    T: TryFrom<String>,
    T::Error: std::fmt::Display,
{
    let mut map: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for (group, id) in pairs {
        map.entry(group).or_default().push(rows::field(place, id)?);
    }
    Ok(map)
}
