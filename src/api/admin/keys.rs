//! `/v1/keys`: what clients present.

use std::collections::HashMap;
use std::fmt;

use axum::extract::{Path, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::{Asked, Body};
use super::isolates::Reason;
use super::kill::Suspended;
use super::{Admin, ApiError, Shared, users};
use crate::actors::control::{Control, Subject};
use crate::actors::views::{DenyReport, DenyView};
use crate::domain::account::{Key, Millis, TIME_MAX};
use crate::domain::code::Code;
use crate::domain::ids::{KeyId, UserId};
use crate::domain::kill::{Kind, Scope, Target};
use crate::domain::limits::DESCRIPTION_CHARS_MAX;
use crate::domain::mcp::McpState;
use crate::domain::name::Name;

/// A new key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Whose it is, by name.
    pub user: Name,
    /// What its owner calls it.
    #[serde(default)]
    pub label: String,
    /// For how long it works, in milliseconds; for ever if absent.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
    /// Whether it gets all that its user's groups grant.
    #[serde(default = "yes")]
    pub subscribe: bool,
}

const fn yes() -> bool {
    true
}

/// A secret on its one way out. Its `Debug` shows nothing.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ShownOnce(String);

impl ShownOnce {
    /// The secret, for showing it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ShownOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A key that was just made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreatedKey {
    /// The key's record.
    pub key: Key,
    /// The key itself.
    pub secret: ShownOnce,
    /// The names of the mcps it is subscribed to.
    pub subscribed: Vec<Name>,
    /// The mcps it could not be subscribed to, and why.
    pub not_subscribed: Vec<NotSubscribed>,
    /// Where clients connect.
    pub client_url: String,
}

/// A subscription that was not made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotSubscribed {
    /// The mcp's name.
    pub mcp: Name,
    /// Why not.
    pub why: String,
}

/// A key as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyView {
    /// The key's record.
    #[serde(flatten)]
    pub key: Key,
    /// The name of its user.
    pub user_name: String,
    /// `active`, `suspended`, `expired` or `revoked`.
    pub state: String,
    /// How many mcps it is subscribed to.
    pub subscriptions: usize,
}

/// What revoking did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedKey {
    /// The key.
    pub key: KeyId,
    /// Sessions that were ended.
    pub sessions_ended: u64,
    /// Calls under way that were cut off.
    #[serde(default)]
    pub calls_cancelled: u64,
}

/// Whose keys to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OfUser {
    /// A user's name; everybody's if absent.
    pub user: Option<String>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/keys", get(list).post(create))
        .route("/v1/keys/{id}", delete(revoke))
        .route("/v1/keys/{id}/suspend", post(suspend))
        .route("/v1/keys/{id}/resume", post(resume))
}

// === operations ===

/// The key an id means: the whole id, or a part of its beginning that only one key has.
///
/// # Errors
/// `not_found` if no key begins so, `conflict` if several do.
pub async fn by_id(control: &Control, text: &str) -> Result<Key, ApiError> {
    if let Ok(id) = KeyId::parse(text) {
        return Ok(control.store().key(&id).await?);
    }
    let start = text.strip_prefix(KeyId::PREFIX).unwrap_or(text);
    let mut found = control.store().keys(None).await?;
    found.retain(|key| !start.is_empty() && key.id.short().starts_with(start));
    let count = found.len();
    match found.pop() {
        Some(key) if count == 1 => Ok(key),
        Some(_) => {
            let text = format!("{count} keys have an id that begins with `{start}`");
            Err(ApiError::new(Code::Conflict, text).next("legation key list"))
        }
        None => {
            let text = format!("key `{text}` does not exist");
            Err(ApiError::new(Code::NotFound, text).next("legation key list"))
        }
    }
}

/// Makes a key and, if wanted, subscribes it to all that its user's groups grant.
///
/// A subscription that fails does not undo the key, which could never be shown again: it is named
/// in the answer.
///
/// # Errors
/// `not_found` if there is no such user, `invalid_request` if the label is too long.
pub async fn add(control: &Control, new: NewKey) -> Result<CreatedKey, ApiError> {
    if new.label.chars().count() > DESCRIPTION_CHARS_MAX {
        let text = format!("the label is longer than {DESCRIPTION_CHARS_MAX} characters");
        return Err(ApiError::invalid(text));
    }
    let user = users::by_name(control, new.user.as_str()).await?;
    let expires_at = new.expires_in_ms.map(|ms| {
        let ms = Millis::try_from(ms).unwrap_or(Millis::MAX);
        control.now_ms().saturating_add(ms)
    });
    if expires_at.is_some_and(|at| at > TIME_MAX) {
        let text =
            "the key's end is beyond the year 9999; without one it is good until it is revoked";
        return Err(ApiError::invalid(text));
    }
    let (key, secret) = control.create_key(&user.id, &new.label, expires_at).await?;
    let (subscribed, not_subscribed) = if new.subscribe {
        subscribe_to_grants(control, &key).await
    } else {
        (Vec::new(), Vec::new())
    };
    Ok(CreatedKey {
        key,
        secret: ShownOnce(secret.expose_secret().to_owned()),
        subscribed,
        not_subscribed,
        client_url: control.status().client_url,
    })
}

/// Subscribes a key to everything its user's groups grant that is not archived, and publishes it.
pub async fn subscribe_to_grants(control: &Control, key: &Key) -> (Vec<Name>, Vec<NotSubscribed>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    // The key exists by now: what cannot be read is a subscription not made, not an error.
    let grants = match control.store().grants_of_user(&key.user).await {
        Ok(grants) => grants,
        Err(error) => {
            tracing::error!(%error, "a new key's grants cannot be read");
            return (done, failed);
        }
    };
    for id in grants {
        let Ok(mcp) = control.store().mcp(&id).await else {
            continue;
        };
        if mcp.state == McpState::Archived {
            continue;
        }
        match control.subscribe(&key.id, &mcp.id).await {
            Ok(_) => done.push(mcp.name),
            Err(error) => failed.push(NotSubscribed {
                mcp: mcp.name,
                why: error.message,
            }),
        }
    }
    done.sort();
    if let Err(error) = control.refresh().await {
        // All stored and none visible yet; the key itself must still reach its owner.
        let unseen = done.drain(..).map(|mcp| NotSubscribed {
            mcp,
            why: error.message.clone(),
        });
        failed.extend(unseen);
    }
    (done, failed)
}

fn state_at(control: &Control, key: &Key, now: Millis) -> &'static str {
    let target = Target::Client(key.id.clone());
    if key.revoked_at.is_some() {
        "revoked"
    } else if key.expires_at.is_some_and(|at| at <= now) {
        "expired"
    } else if control.denied_reason(Kind::Suspension, &target).is_some() {
        "suspended"
    } else {
        "active"
    }
}

/// All keys, or one user's.
///
/// # Errors
/// What the store says.
pub async fn views(control: &Control, user: Option<&UserId>) -> Result<Vec<KeyView>, ApiError> {
    let store = control.store();
    let names = store
        .users()
        .await?
        .into_iter()
        .map(|u| (u.id, u.name.to_string()));
    let names: HashMap<_, _> = names.collect();
    let mut counts = HashMap::new();
    for subscription in store.subscriptions(None).await? {
        *counts.entry(subscription.key).or_insert(0) += 1;
    }
    let now = control.now_ms();
    let keys = store.keys(user).await?.into_iter();
    let views = keys.map(|key| KeyView {
        user_name: names.get(&key.user).cloned().unwrap_or_default(),
        state: state_at(control, &key, now).to_owned(),
        subscriptions: counts.get(&key.id).copied().unwrap_or(0),
        key,
    });
    Ok(views.collect())
}

// === handlers ===

async fn list(
    _: Admin,
    State(control): State<Control>,
    Asked(of): Asked<OfUser>,
) -> Result<Json<Vec<KeyView>>, ApiError> {
    let user = match of.user {
        Some(name) => Some(users::by_name(&control, &name).await?.id),
        None => None,
    };
    views(&control, user.as_ref()).await.map(Json)
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewKey>,
) -> Result<(StatusCode, Json<CreatedKey>), ApiError> {
    let (tree, subject) = (
        control.clone(),
        Subject::one(Scope::User, new.user.as_str()),
    );
    let found = subject.found();
    let change = async move {
        let made = add(&tree, new).await?;
        found.add(Target::Client(made.key.id.clone()));
        Ok(made)
    };
    let made = audited(&control, &admin, "key.create", subject, change).await?;
    Ok((StatusCode::CREATED, made))
}

async fn revoke(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<RevokedKey>, ApiError> {
    let key = by_id(&control, &id).await?.id;
    let (tree, subject) = (control.clone(), Subject::one(Scope::Client, key.as_str()));
    let change = async move {
        let (sessions_ended, calls_cancelled) = tree.revoke_key(&key).await?;
        Ok(RevokedKey {
            key,
            sessions_ended,
            calls_cancelled,
        })
    };
    audited(&control, &admin, "key.revoke", subject, change).await
}

/// The whole id of the key that is meant, for the record, also while the store is away; as it was typed, if that
/// means nothing.
pub(super) async fn whole(control: &Control, id: &str) -> String {
    let found = control.target(Scope::Client, id).await;
    found.map_or_else(|_| id.to_owned(), |named| named.target.text())
}

/// Suspending one and resuming it.
const SUSPENDED: Suspended = Suspended {
    kind: Kind::Suspension,
    scope: Scope::Client,
    suspend: "key.suspend",
    resume: "key.resume",
};

async fn suspend(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
    Body(why): Body<Reason>,
) -> Result<Json<DenyReport>, ApiError> {
    SUSPENDED.suspend(&control, &admin, id, &why).await
}

async fn resume(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<DenyView>, ApiError> {
    SUSPENDED.resume(&control, &admin, id).await
}
