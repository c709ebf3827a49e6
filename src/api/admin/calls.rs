//! `/v1/calls`: what is under way, and ending one of it.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::Body;
use super::isolates::Reason;
use super::{Admin, ApiError, Shared};
use crate::actors::control::{Control, Recycle, Subject};
use crate::actors::views::{CallList, CancelReport};

/// How to cancel a call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cancel {
    /// Why: the caller is told.
    pub reason: String,
    /// Whether a server that does not end the call starts afresh: yes also if it is shared, or no
    /// in no case. If absent, only one that serves one user alone.
    pub recycle: Option<bool>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/calls", get(list))
        .route("/v1/calls/{id}/cancel", post(cancel))
}

async fn list(_: Admin, State(control): State<Control>) -> Json<CallList> {
    Json(control.calls())
}

async fn cancel(
    admin: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
    Body(how): Body<Cancel>,
) -> Result<Json<CancelReport>, ApiError> {
    let reason = Reason { reason: how.reason }.text()?;
    let recycle = match how.recycle {
        None => Recycle::OwnOnly,
        Some(true) => Recycle::Always,
        Some(false) => Recycle::Never,
    };
    let (tree, author) = (control.clone(), admin.actor().to_owned());
    // On record is what was meant, not how much of it was typed.
    let whole = control.call_id(&id);
    let whole = whole.map_or_else(|_| id.clone(), |call| call.to_string());
    let change = async move { Ok(tree.cancel_call(&id, &reason, recycle, &author).await?) };
    let subject = Subject::call(whole);
    audited(&control, &admin, "call.cancel", subject, change).await
}
