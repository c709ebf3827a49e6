//! `/v1/users`: who may have isolates.

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::Body;
use super::isolates::Reason;
use super::keys::KeyView;
use super::kill::Suspended;
use super::subscriptions::SubscriptionView;
use super::{Admin, ApiError, Shared, keys, subscriptions};
use crate::actors::control::{Control, Subject};
use crate::actors::views::{DenyReport, DenyView, IsolateView, UserRemoved};
use crate::domain::account::User;
use crate::domain::code::Code;
use crate::domain::ids::UserId;
use crate::domain::kill::{Kind, Scope, Target};
use crate::domain::name::Name;

/// A new user or group.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewName {
    /// Its unique name.
    pub name: Name,
}

/// A user as lists show them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserView {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// The names of their groups.
    pub groups: Vec<Name>,
    /// How many keys of theirs are not revoked.
    pub keys: usize,
    /// Why they may do nothing, while they are suspended.
    pub suspended: Option<String>,
}

/// A user with all that is theirs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UserDetail {
    /// The user.
    pub user: UserView,
    /// Why a kill switch keeps them from everything, if one of their own is on.
    pub switched_off: Option<String>,
    /// Their keys.
    pub keys: Vec<KeyView>,
    /// What these are subscribed to.
    pub subscriptions: Vec<SubscriptionView>,
    /// Their isolates; what they share with others is not among them.
    pub isolates: Vec<IsolateView>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/users", get(list).post(create))
        .route("/v1/users/{name}", get(show).delete(remove))
        .route("/v1/users/{name}/suspend", post(suspend))
        .route("/v1/users/{name}/resume", post(resume))
}

// === operations ===

/// The user a name in a path means.
///
/// # Errors
/// `not_found`, also for what cannot be a name.
pub async fn by_name(control: &Control, name: &str) -> Result<User, ApiError> {
    let missing = |text: String| ApiError::new(Code::NotFound, text).next("legation user list");
    let name = Name::parse(name).map_err(|wrong| missing(wrong.to_string()))?;
    Ok(control.store().user_by_name(&name).await?)
}

/// Adds a user, who has no group and no key yet.
///
/// # Errors
/// `conflict` if the name is taken.
pub async fn add(control: &Control, name: Name) -> Result<User, ApiError> {
    let user = User {
        id: control.user_id(),
        name,
        created_at: control.now_ms(),
    };
    control.store().create_user(&user).await?;
    control.refresh().await?;
    Ok(user)
}

/// All users.
///
/// # Errors
/// What the store says.
pub async fn views(control: &Control) -> Result<Vec<UserView>, ApiError> {
    let store = control.store();
    let mut keys = HashMap::new();
    for key in store.keys(None).await? {
        if key.revoked_at.is_none() {
            *keys.entry(key.user).or_insert(0) += 1;
        }
    }
    let mut groups: HashMap<_, Vec<Name>> = HashMap::new();
    for view in store.groups().await? {
        for member in view.members {
            groups
                .entry(member)
                .or_default()
                .push(view.group.name.clone());
        }
    }
    let users = store.users().await?.into_iter();
    let views = users.map(|user| UserView {
        groups: groups.remove(&user.id).unwrap_or_default(),
        keys: keys.get(&user.id).copied().unwrap_or(0),
        suspended: control.denied_reason(Kind::Suspension, &Target::User(user.id.clone())),
        user,
    });
    Ok(views.collect())
}

async fn detail(control: &Control, name: &str) -> Result<UserDetail, ApiError> {
    let User { id, name, .. } = by_name(control, name).await?;
    let all = views(control).await?;
    let Some(user) = all.into_iter().find(|view| view.user.id == id) else {
        // It went away between two looks.
        let text = format!("user `{name}` does not exist");
        return Err(ApiError::new(Code::NotFound, text).next("legation user list"));
    };
    let mut isolates = control.isolates();
    isolates.retain(|one| one.user.as_deref() == Some(name.as_str()));
    Ok(UserDetail {
        user,
        switched_off: control.denied_reason(Kind::KillSwitch, &Target::User(id.clone())),
        keys: keys::views(control, Some(&id)).await?,
        subscriptions: subscriptions::views(control, |key| key.user == id).await?,
        isolates,
    })
}

/// Removes a user, or what a removal that was cut off has left of them.
async fn removed(control: &Control, name: &str, author: &str) -> Result<UserRemoved, ApiError> {
    let missing = match by_name(control, name).await {
        Ok(user) => return Ok(control.remove_user(&user, author).await?),
        Err(error) if error.code() == Code::NotFound => error,
        Err(error) => return Err(error),
    };
    control.finish_removal(name).await?.ok_or(missing)
}

// === handlers ===

async fn list(_: Admin, State(control): State<Control>) -> Result<Json<Vec<UserView>>, ApiError> {
    views(&control).await.map(Json)
}

async fn show(
    _: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<UserDetail>, ApiError> {
    detail(&control, &name).await.map(Json)
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewName>,
) -> Result<(StatusCode, Json<User>), ApiError> {
    let (tree, subject) = (
        control.clone(),
        Subject::one(Scope::User, new.name.as_str()),
    );
    let change = async move { add(&tree, new.name).await };
    let made = audited(&control, &admin, "user.add", subject, change).await?;
    Ok((StatusCode::CREATED, made))
}

async fn remove(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<UserRemoved>, ApiError> {
    let (tree, subject) = (control.clone(), Subject::one(Scope::User, name.as_str()));
    let (author, found) = (admin.actor().to_owned(), subject.found());
    let change = async move {
        let done = removed(&tree, &name, &author).await?;
        if let Ok(id) = UserId::parse(&done.id) {
            found.add(Target::User(id));
        }
        Ok(done)
    };
    audited(&control, &admin, "user.remove", subject, change).await
}

/// Suspending one and resuming it.
const SUSPENDED: Suspended = Suspended {
    kind: Kind::Suspension,
    scope: Scope::User,
    suspend: "user.suspend",
    resume: "user.resume",
};

async fn suspend(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
    Body(why): Body<Reason>,
) -> Result<Json<DenyReport>, ApiError> {
    SUSPENDED.suspend(&control, &admin, name, &why).await
}

async fn resume(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<DenyView>, ApiError> {
    SUSPENDED.resume(&control, &admin, name).await
}
