//! `/v1/subscriptions`: which of the granted mcps a key sees, and under which names.

mod listing;

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::{Asked, Body};
use super::groups::Changed;
use super::{Admin, ApiError, Shared, keys, mcps};
use crate::actors::control::{Control, Subject};
use crate::domain::account::{ExposedTool, Key};
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::kill::Scope;
use crate::domain::mcp::Mcp;
use crate::domain::name::Name;

pub use listing::{Effect, SubscriptionView, views};

/// A new subscription.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSubscription {
    /// The key's id, or a part of its beginning.
    pub key: String,
    /// The mcp's name.
    pub mcp: Name,
}

/// A subscription that was just made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Subscribed {
    /// The key.
    pub key: KeyId,
    /// The mcp's name.
    pub mcp: Name,
    /// Its tools under the names that the key sees.
    pub tools: Vec<ExposedTool>,
}

/// Whose subscriptions to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfKey {
    /// A key's id, or a part of its beginning; all if absent.
    pub key: Option<String>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/subscriptions", get(list).post(create))
        .route("/v1/subscriptions/{key}/{mcp}", delete(remove))
}

// === operations ===

/// Subscribes a key to an mcp that one of its user's groups is granted.
///
/// # Errors
/// `conflict` if no group grants it, with the command that would; `not_found`.
pub async fn add(control: &Control, new: &NewSubscription) -> Result<Subscribed, ApiError> {
    let key = keys::by_id(control, &new.key).await?;
    let mcp = mcps::by_name(control, new.mcp.as_str()).await?;
    if !control
        .store()
        .grants_of_user(&key.user)
        .await?
        .contains(&mcp.id)
    {
        return Err(not_granted(control, &key.user, &mcp).await?);
    }
    let tools = control.subscribe(&key.id, &mcp.id).await?;
    control.refresh().await?;
    Ok(Subscribed {
        key: key.id,
        mcp: mcp.name,
        tools,
    })
}

/// Why a user's keys would see nothing of an mcp, and the command that changes that.
pub(super) async fn not_granted(
    control: &Control,
    user: &UserId,
    mcp: &Mcp,
) -> Result<ApiError, ApiError> {
    let groups = control.store().groups().await?;
    let theirs = groups.iter().find(|view| view.members.contains(user));
    let user = control.store().user(user).await?.name;
    let (text, next) = match theirs {
        Some(view) => (
            format!("no group of user `{user}` is granted mcp `{}`", mcp.name),
            format!("legation group grant {} {}", view.group.name, mcp.name),
        ),
        None => (
            format!("user `{user}` is in no group, so nothing is granted to them"),
            match groups.first() {
                Some(view) => format!("legation group member add {} {user}", view.group.name),
                None => "legation group add NAME".to_owned(),
            },
        ),
    };
    Ok(ApiError::new(Code::Conflict, text).next(next))
}

/// What a subscription is about.
fn both(key: &str, mcp: &str) -> Subject {
    Subject::from(format!("{key}/{mcp}"))
        .of(Scope::Client, key)
        .of(Scope::Mcp, mcp)
}

// === handlers ===

async fn list(
    _: Admin,
    State(control): State<Control>,
    Asked(of): Asked<OfKey>,
) -> Result<Json<Vec<SubscriptionView>>, ApiError> {
    let only = match of.key {
        Some(id) => Some(keys::by_id(&control, &id).await?.id),
        None => None,
    };
    let fits = |key: &Key| only.as_ref().is_none_or(|only| *only == key.id);
    views(&control, fits).await.map(Json)
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewSubscription>,
) -> Result<(StatusCode, Json<Subscribed>), ApiError> {
    let key = keys::whole(&control, &new.key).await;
    let (tree, subject) = (control.clone(), both(&key, new.mcp.as_str()));
    let change = async move { add(&tree, &new).await };
    let made = audited(&control, &admin, "subscription.add", subject, change).await?;
    Ok((StatusCode::CREATED, made))
}

async fn remove(
    admin: Admin,
    State(control): State<Control>,
    Path((key, mcp)): Path<(String, String)>,
) -> Result<Json<Changed>, ApiError> {
    let key = keys::by_id(&control, &key).await?.id;
    let mcp = mcps::by_name(&control, &mcp).await?.id;
    let (tree, subject) = (control.clone(), both(key.as_str(), mcp.as_str()));
    let change = async move {
        let before = tree.store().subscriptions(Some(&key)).await?;
        let changed = before.iter().any(|one| one.mcp == mcp);
        if changed {
            tree.unsubscribe(&key, &mcp).await?;
            tree.refresh().await?;
        }
        Ok(Changed { changed })
    };
    audited(&control, &admin, "subscription.remove", subject, change).await
}
