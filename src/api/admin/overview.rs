//! `GET /v1/status`, `/v1/tree`, `/v1/sessions`: the whole house at a glance.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::{Admin, ApiError, Shared};
use crate::actors::control::Control;
use crate::actors::views::{SessionView, Status, TreeNode};

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/tree", get(tree))
        .route("/v1/sessions", get(sessions))
}

async fn status(_: Admin, State(control): State<Control>) -> Json<Status> {
    Json(control.status())
}

async fn tree(_: Admin, State(control): State<Control>) -> Json<TreeNode> {
    Json(control.tree())
}

async fn sessions(
    _: Admin,
    State(control): State<Control>,
) -> Result<Json<Vec<SessionView>>, ApiError> {
    Ok(Json(control.sessions().await?))
}
