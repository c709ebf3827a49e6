//! `/v1/homes`: what isolates keep on the disk.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::{Admin, ApiError, Shared};
use crate::actors::control::Control;
use crate::actors::views::HomeView;

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/homes", get(list))
}

async fn list(_: Admin, State(control): State<Control>) -> Result<Json<Vec<HomeView>>, ApiError> {
    Ok(Json(control.homes().await?))
}
