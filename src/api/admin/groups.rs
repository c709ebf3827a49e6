//! `/v1/groups`: who is together in what, and which mcps that grants them.
//!
//! A grant does not subscribe the keys there are (a client's tool list must not change behind its
//! owner's back); only new keys are subscribed to what is granted.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::Body;
use super::subscribers::{self, Whose};
use super::users::{NewName, UserView};
use super::{Admin, ApiError, Shared, mcps, users};
use crate::actors::control::{Control, Subject};
use crate::domain::account::Group;
use crate::domain::code::Code;
use crate::domain::kill::Scope;
use crate::domain::mcp::McpState;
use crate::domain::name::Name;

/// A group as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupView {
    /// The group.
    #[serde(flatten)]
    pub group: Group,
    /// The names of its members.
    pub members: Vec<Name>,
    /// The names of the mcps it is granted.
    pub grants: Vec<Name>,
}

/// A group with its members and what they have of its grants.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupDetail {
    /// The group.
    pub group: GroupView,
    /// Its members.
    pub members: Vec<UserView>,
    /// How many keys they have that are neither revoked nor expired.
    pub keys: usize,
    /// What it is granted.
    pub grants: Vec<GrantView>,
}

/// What a group is granted, and how many of its members' keys see it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GrantView {
    /// The mcp's name.
    pub mcp: Name,
    /// Whether it is published.
    pub state: McpState,
    /// How many of the members' keys that are neither revoked nor expired are subscribed to it.
    pub subscribed: usize,
}

/// Who joins.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMember {
    /// The user's name.
    pub user: Name,
}

/// What is granted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewGrant {
    /// The mcp's name.
    pub mcp: Name,
}

/// Whether a change was one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// `false` if all was so already.
    pub changed: bool,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/groups", get(list).post(create))
        .route("/v1/groups/{name}", get(show))
        .route("/v1/groups/{name}/members", post(join))
        .route("/v1/groups/{name}/members/{user}", delete(leave))
        .route("/v1/groups/{name}/grants", post(give))
        .route("/v1/groups/{name}/grants/{mcp}", delete(take))
}

// === operations ===

/// The group a name in a path means.
///
/// # Errors
/// `not_found`, also for what cannot be a name.
pub async fn by_name(control: &Control, name: &str) -> Result<Group, ApiError> {
    let missing = |text: String| ApiError::new(Code::NotFound, text).next("legation group list");
    let name = Name::parse(name).map_err(|wrong| missing(wrong.to_string()))?;
    Ok(control.store().group_by_name(&name).await?)
}

/// Adds a group without members and grants.
///
/// # Errors
/// `conflict` if the name is taken.
pub async fn add(control: &Control, name: Name) -> Result<Group, ApiError> {
    let group = Group {
        id: control.group_id(),
        name,
        created_at: control.now_ms(),
    };
    control.store().create_group(&group).await?;
    control.refresh().await?;
    Ok(group)
}

/// Puts a user into a group.
///
/// # Errors
/// `not_found` if one of them does not exist.
pub async fn add_member(control: &Control, group: &str, user: &str) -> Result<Changed, ApiError> {
    let group = by_name(control, group).await?;
    let user = users::by_name(control, user).await?;
    let changed = control.store().add_member(&group.id, &user.id).await?;
    control.refresh().await?;
    Ok(Changed { changed })
}

/// Grants a group an mcp.
///
/// # Errors
/// `not_found` if one of them does not exist, `conflict` if the mcp is archived.
pub async fn grant(control: &Control, group: &str, mcp: &str) -> Result<Changed, ApiError> {
    let group = by_name(control, group).await?;
    let mcp = mcps::by_name(control, mcp).await?;
    if mcp.state == McpState::Archived {
        let text = format!("mcp `{}` is archived and cannot be granted", mcp.name);
        return Err(ApiError::new(Code::Conflict, text).next("legation mcp list"));
    }
    let changed = control.store().grant(&group.id, &mcp.id).await?;
    control.refresh().await?;
    Ok(Changed { changed })
}

async fn remove_member(control: &Control, group: &str, user: &str) -> Result<Changed, ApiError> {
    let group = by_name(control, group).await?;
    let user = users::by_name(control, user).await?;
    let done = control.store().remove_member(&group.id, &user.id).await;
    let changed = control.taken(done)?;
    control.refresh().await?;
    Ok(Changed { changed })
}

async fn revoke(control: &Control, group: &str, mcp: &str) -> Result<Changed, ApiError> {
    let group = by_name(control, group).await?;
    let mcp = mcps::by_name(control, mcp).await?;
    let done = control.store().revoke_grant(&group.id, &mcp.id).await;
    let changed = control.taken(done)?;
    control.refresh().await?;
    Ok(Changed { changed })
}

/// All groups.
///
/// # Errors
/// What the store says.
pub async fn views(control: &Control) -> Result<Vec<GroupView>, ApiError> {
    let store = control.store();
    let users = store.users().await?.into_iter().map(|u| (u.id, u.name));
    let users: HashMap<_, _> = users.collect();
    let mcps = store.mcps().await?.into_iter().map(|m| (m.id, m.name));
    let mcps: HashMap<_, _> = mcps.collect();
    let groups = store.groups().await?.into_iter();
    let views = groups.map(|view| {
        let mut members: Vec<_> = view
            .members
            .iter()
            .filter_map(|id| users.get(id).cloned())
            .collect();
        let mut grants: Vec<_> = view
            .grants
            .iter()
            .filter_map(|id| mcps.get(id).cloned())
            .collect();
        members.sort();
        grants.sort();
        GroupView {
            group: view.group,
            members,
            grants,
        }
    });
    Ok(views.collect())
}

async fn detail(control: &Control, name: &str) -> Result<GroupDetail, ApiError> {
    let group = by_name(control, name).await?;
    let all = views(control).await?;
    let Some(view) = all.into_iter().find(|view| view.group.id == group.id) else {
        // It went away between two looks.
        let text = format!("group `{name}` does not exist");
        return Err(ApiError::new(Code::NotFound, text).next("legation group list"));
    };
    let mut members = users::views(control).await?;
    members.retain(|one| view.members.contains(&one.user.name));
    let keys = subscribers::keys_of(control, &Whose::Group(group.name)).await?;
    let mut grants = Vec::new();
    for mcp in control.store().mcps().await? {
        if view.grants.contains(&mcp.name) {
            let seeing = subscribers::seeing(control, &mcp).await?;
            grants.push(GrantView {
                subscribed: keys.iter().filter(|key| seeing.contains(&key.id)).count(),
                mcp: mcp.name,
                state: mcp.state,
            });
        }
    }
    grants.sort_by(|one, other| one.mcp.cmp(&other.mcp));
    Ok(GroupDetail {
        group: view,
        members,
        keys: keys.len(),
        grants,
    })
}

// === handlers ===

async fn list(_: Admin, State(control): State<Control>) -> Result<Json<Vec<GroupView>>, ApiError> {
    views(&control).await.map(Json)
}

async fn show(
    _: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<GroupDetail>, ApiError> {
    detail(&control, &name).await.map(Json)
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewName>,
) -> Result<(StatusCode, Json<Group>), ApiError> {
    let (tree, target) = (control.clone(), new.name.to_string());
    let change = async move { add(&tree, new.name).await };
    let made = audited(&control, &admin, "group.add", target, change).await?;
    Ok((StatusCode::CREATED, made))
}

async fn join(
    admin: Admin,
    State(control): State<Control>,
    Path(group): Path<String>,
    Body(new): Body<NewMember>,
) -> Result<Json<Changed>, ApiError> {
    let subject = Subject::from(format!("{group}/{}", new.user)).of(Scope::User, new.user.as_str());
    let tree = control.clone();
    let change = async move { add_member(&tree, &group, new.user.as_str()).await };
    audited(&control, &admin, "group.member.add", subject, change).await
}

async fn leave(
    admin: Admin,
    State(control): State<Control>,
    Path((group, user)): Path<(String, String)>,
) -> Result<Json<Changed>, ApiError> {
    let subject = Subject::from(format!("{group}/{user}")).of(Scope::User, user.as_str());
    let tree = control.clone();
    let change = async move { remove_member(&tree, &group, &user).await };
    audited(&control, &admin, "group.member.remove", subject, change).await
}

async fn give(
    admin: Admin,
    State(control): State<Control>,
    Path(group): Path<String>,
    Body(new): Body<NewGrant>,
) -> Result<Json<Changed>, ApiError> {
    let subject = Subject::from(format!("{group}/{}", new.mcp)).of(Scope::Mcp, new.mcp.as_str());
    let tree = control.clone();
    let change = async move { grant(&tree, &group, new.mcp.as_str()).await };
    audited(&control, &admin, "group.grant", subject, change).await
}

async fn take(
    admin: Admin,
    State(control): State<Control>,
    Path((group, mcp)): Path<(String, String)>,
) -> Result<Json<Changed>, ApiError> {
    let subject = Subject::from(format!("{group}/{mcp}")).of(Scope::Mcp, mcp.as_str());
    let tree = control.clone();
    let change = async move { revoke(&tree, &group, &mcp).await };
    audited(&control, &admin, "group.revoke", subject, change).await
}
