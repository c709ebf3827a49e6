//! `/v1/subscribers`: the keys of a user, or of all members of a group, subscribed to an mcp at once.
//!
//! Keys that are revoked or expired are none of them; one that is suspended is, since it may be resumed.

use std::collections::HashSet;

use axum::extract::{Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::Body;
use super::{Admin, ApiError, Shared, groups, mcps, subscriptions, users};
use crate::actors::control::{Control, Subject};
use crate::domain::account::Key;
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::kill::Scope;
use crate::domain::mcp::Mcp;
use crate::domain::name::Name;

/// Whose keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// Those of a group's members, by the group's name.
    Group(Name),
    /// A user's, by name.
    User(Name),
}

/// What they are to see.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSubscriptions {
    /// Whose keys.
    pub of: Whose,
    /// The mcp's name.
    pub mcp: Name,
}

/// What became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscribersReport {
    /// The mcp's name.
    pub mcp: Name,
    /// The keys that were changed.
    pub changed: Vec<KeyId>,
    /// How many were so already.
    pub as_before: usize,
    /// The keys that could not be, and why.
    pub failed: Vec<NotChanged>,
}

/// A key that was not changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotChanged {
    /// The key.
    pub key: KeyId,
    /// Why not.
    pub why: String,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/subscribers", post(create))
        .route("/v1/subscribers/group/{name}/{mcp}", delete(of_group))
        .route("/v1/subscribers/user/{name}/{mcp}", delete(of_user))
}

impl std::fmt::Display for Whose {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Group(name) => write!(f, "group/{name}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

// === operations ===

/// Subscribes all of them to an mcp that they are granted.
///
/// # Errors
/// `conflict` if it is not granted, with the command that would; `not_found`. A key for which it failed is in the
/// report, and stops no other.
pub async fn add(control: &Control, new: &NewSubscriptions) -> Result<SubscribersReport, ApiError> {
    let mcp = mcps::by_name(control, new.mcp.as_str()).await?;
    granted(control, &new.of, &mcp).await?;
    let (keys, seeing) = (
        keys_of(control, &new.of).await?,
        seeing(control, &mcp).await?,
    );
    let mut report = SubscribersReport::of(&mcp);
    for key in keys {
        if seeing.contains(&key.id) {
            report.as_before += 1;
            continue;
        }
        let done = control.subscribe(&key.id, &mcp.id).await.map(|_| ());
        report.note(key.id, done.map_err(|error| error.message));
    }
    control.refresh().await?;
    Ok(report)
}

/// Hides an mcp from all of them.
///
/// # Errors
/// `not_found`, and as [`add`].
pub async fn remove(
    control: &Control,
    of: &Whose,
    mcp: &str,
) -> Result<SubscribersReport, ApiError> {
    let mcp = mcps::by_name(control, mcp).await?;
    let (keys, seeing) = (keys_of(control, of).await?, seeing(control, &mcp).await?);
    let mut report = SubscribersReport::of(&mcp);
    for key in keys {
        if !seeing.contains(&key.id) {
            report.as_before += 1;
            continue;
        }
        let done = control.unsubscribe(&key.id, &mcp.id).await;
        report.note(key.id, done.map_err(|error| error.message));
    }
    control.refresh().await?;
    Ok(report)
}

impl SubscribersReport {
    fn of(mcp: &Mcp) -> Self {
        Self {
            mcp: mcp.name.clone(),
            changed: Vec::new(),
            as_before: 0,
            failed: Vec::new(),
        }
    }

    fn note(&mut self, key: KeyId, done: Result<(), String>) {
        match done {
            Ok(()) => self.changed.push(key),
            Err(why) => self.failed.push(NotChanged { key, why }),
        }
    }
}

/// Nobody is subscribed to what they would see nothing of.
async fn granted(control: &Control, of: &Whose, mcp: &Mcp) -> Result<(), ApiError> {
    match of {
        Whose::User(name) => {
            let user = users::by_name(control, name.as_str()).await?;
            let grants = control.store().grants_of_user(&user.id).await?;
            match grants.contains(&mcp.id) {
                true => Ok(()),
                false => Err(subscriptions::not_granted(control, &user.id, mcp).await?),
            }
        }
        Whose::Group(name) => {
            let group = groups::by_name(control, name.as_str()).await?;
            let all = control.store().groups().await?;
            let view = all.iter().find(|view| view.group.id == group.id);
            if view.is_some_and(|view| view.grants.contains(&mcp.id)) {
                return Ok(());
            }
            let text = format!("group `{name}` is not granted mcp `{}`", mcp.name);
            let next = format!("legation group grant {name} {}", mcp.name);
            Err(ApiError::new(Code::Conflict, text).next(next))
        }
    }
}

/// Their keys that are neither revoked nor expired.
pub(super) async fn keys_of(control: &Control, of: &Whose) -> Result<Vec<Key>, ApiError> {
    let users: HashSet<UserId> = match of {
        Whose::User(name) => {
            let user = users::by_name(control, name.as_str()).await?;
            HashSet::from([user.id])
        }
        Whose::Group(name) => {
            let group = groups::by_name(control, name.as_str()).await?;
            let all = control.store().groups().await?.into_iter();
            let of_it = all.filter(|view| view.group.id == group.id);
            of_it.flat_map(|view| view.members).collect()
        }
    };
    let now = control.now_ms();
    let mut keys = control.store().keys(None).await?;
    keys.retain(|key| {
        let live = key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now);
        live && users.contains(&key.user)
    });
    Ok(keys)
}

/// The keys that are subscribed to it.
pub(super) async fn seeing(control: &Control, mcp: &Mcp) -> Result<HashSet<KeyId>, ApiError> {
    let all = control.store().subscriptions(None).await?.into_iter();
    let of_it = all.filter(|one| one.mcp == mcp.id);
    Ok(of_it.map(|one| one.key).collect())
}

/// What it is about: the mcp, and the user, if it is one's keys.
fn all(of: &Whose, mcp: &str) -> Subject {
    let subject = Subject::from(format!("{of}/{mcp}")).of(Scope::Mcp, mcp);
    match of {
        Whose::User(name) => subject.of(Scope::User, name.as_str()),
        Whose::Group(_) => subject,
    }
}

// === handlers ===

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewSubscriptions>,
) -> Result<Json<SubscribersReport>, ApiError> {
    let (tree, subject) = (control.clone(), all(&new.of, new.mcp.as_str()));
    let found = subject.found();
    let change = async move {
        let report = add(&tree, &new).await?;
        found.keys(&report.changed);
        Ok(report)
    };
    audited(&control, &admin, "subscription.add", subject, change).await
}

async fn of_group(
    admin: Admin,
    State(control): State<Control>,
    Path((name, mcp)): Path<(String, String)>,
) -> Result<Json<SubscribersReport>, ApiError> {
    let of = Whose::Group(groups::by_name(&control, &name).await?.name);
    let (tree, subject) = (control.clone(), all(&of, &mcp));
    let found = subject.found();
    let change = async move {
        let report = remove(&tree, &of, &mcp).await?;
        found.keys(&report.changed);
        Ok(report)
    };
    audited(&control, &admin, "subscription.remove", subject, change).await
}

async fn of_user(
    admin: Admin,
    State(control): State<Control>,
    Path((name, mcp)): Path<(String, String)>,
) -> Result<Json<SubscribersReport>, ApiError> {
    let of = Whose::User(users::by_name(&control, &name).await?.name);
    let (tree, subject) = (control.clone(), all(&of, &mcp));
    let found = subject.found();
    let change = async move {
        let report = remove(&tree, &of, &mcp).await?;
        found.keys(&report.changed);
        Ok(report)
    };
    audited(&control, &admin, "subscription.remove", subject, change).await
}
