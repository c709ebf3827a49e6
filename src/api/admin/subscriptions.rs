//! `/v1/subscriptions`: which of the granted mcps a key sees, and under which names.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::{Asked, Body};
use super::groups::Changed;
use super::{Admin, ApiError, Shared, keys, mcps};
use crate::actors::control::Control;
use crate::domain::account::{ExposedTool, Key, Millis};
use crate::domain::code::Code;
use crate::domain::ids::KeyId;
use crate::domain::mcp::Mcp;
use crate::domain::name::Name;

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

/// A subscription as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// The key.
    pub key: KeyId,
    /// What its owner calls it.
    pub key_label: String,
    /// The name of its user.
    pub user: String,
    /// The name of the mcp.
    pub mcp: String,
    /// When it was made, milliseconds since the epoch.
    pub created_at: Millis,
    /// The names of the tools as the key sees them.
    pub tools: Vec<String>,
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
        return Err(not_granted(control, &key, &mcp).await?);
    }
    let tools = control.subscribe(&key.id, &mcp.id).await?;
    control.refresh().await?;
    Ok(Subscribed {
        key: key.id,
        mcp: mcp.name,
        tools,
    })
}

async fn not_granted(control: &Control, key: &Key, mcp: &Mcp) -> Result<ApiError, ApiError> {
    let user = control.store().user(&key.user).await?.name;
    let groups = control.store().groups().await?;
    let theirs = groups.iter().find(|view| view.members.contains(&key.user));
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

// === handlers ===

async fn list(
    _: Admin,
    State(control): State<Control>,
    Asked(of): Asked<OfKey>,
) -> Result<Json<Vec<SubscriptionView>>, ApiError> {
    let store = control.store();
    let only = match of.key {
        Some(id) => Some(keys::by_id(&control, &id).await?.id),
        None => None,
    };
    let users: HashMap<_, _> = store
        .users()
        .await?
        .into_iter()
        .map(|u| (u.id, u.name))
        .collect();
    let mcps: HashMap<_, _> = store
        .mcps()
        .await?
        .into_iter()
        .map(|m| (m.id, m.name))
        .collect();
    let keys: HashMap<_, _> = store
        .keys(None)
        .await?
        .into_iter()
        .map(|k| (k.id.clone(), k))
        .collect();
    let views = store.views().await?;
    let mut tools: HashMap<_, Vec<String>> = HashMap::new();
    for seen in views.exposed {
        tools
            .entry((seen.key, seen.mcp))
            .or_default()
            .push(seen.exposed);
    }
    let wanted = views.subscriptions.into_iter();
    let wanted = wanted.filter(|s| only.as_ref().is_none_or(|key| *key == s.key));
    let shown = wanted.map(|s| {
        let key = keys.get(&s.key);
        let user = key.and_then(|key| users.get(&key.user));
        SubscriptionView {
            key_label: key.map(|key| key.label.clone()).unwrap_or_default(),
            user: user.map(ToString::to_string).unwrap_or_default(),
            mcp: mcps
                .get(&s.mcp)
                .map(ToString::to_string)
                .unwrap_or_default(),
            created_at: s.created_at,
            tools: tools.remove(&(s.key.clone(), s.mcp)).unwrap_or_default(),
            key: s.key,
        }
    });
    Ok(Json(shown.collect()))
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewSubscription>,
) -> Result<(StatusCode, Json<Subscribed>), ApiError> {
    let (tree, target) = (control.clone(), format!("{}/{}", new.key, new.mcp));
    let change = async move { add(&tree, &new).await };
    let made = audited(&control, &admin, "subscription.add", target, change).await?;
    Ok((StatusCode::CREATED, made))
}

async fn remove(
    admin: Admin,
    State(control): State<Control>,
    Path((key, mcp)): Path<(String, String)>,
) -> Result<Json<Changed>, ApiError> {
    let key = keys::by_id(&control, &key).await?.id;
    let mcp = mcps::by_name(&control, &mcp).await?.id;
    let (tree, target) = (control.clone(), format!("{key}/{mcp}"));
    let change = async move {
        let before = tree.store().subscriptions(Some(&key)).await?;
        let changed = before.iter().any(|one| one.mcp == mcp);
        if changed {
            tree.unsubscribe(&key, &mcp).await?;
            tree.refresh().await?;
        }
        Ok(Changed { changed })
    };
    audited(&control, &admin, "subscription.remove", target, change).await
}
