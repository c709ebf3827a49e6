//! `/v1/vault`: the keys of the house, and rotating them.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};

use super::audited::audited;
use super::{Admin, ApiError, Shared};
use crate::actors::control::Control;
use crate::actors::views::VaultView;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/vault", get(show))
        .route("/v1/vault/rotate", post(rotate))
        .route("/v1/vault/rotate-tokens", post(rotate_tokens))
}

// === handlers ===

async fn show(_: Admin, State(control): State<Control>) -> Result<Json<VaultView>, ApiError> {
    Ok(Json(control.vault().await?))
}

async fn rotate(admin: Admin, State(control): State<Control>) -> Result<Json<VaultView>, ApiError> {
    let tree = control.clone();
    let change = async move { Ok(tree.rotate_master_key().await?) };
    audited(&control, &admin, "vault.rotate", "master key", change).await
}

async fn rotate_tokens(
    admin: Admin,
    State(control): State<Control>,
) -> Result<Json<VaultView>, ApiError> {
    let tree = control.clone();
    let change = async move { Ok(tree.rotate_token_key().await?) };
    audited(&control, &admin, "vault.rotate_tokens", "token key", change).await
}
