//! `GET /v1/config`: what the running server was told, and by whom.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::Admin;
use crate::actors::control::Control;
use crate::config::Config;

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Its value as text; secrets are `<set>`.
    pub value: String,
    /// Where the value comes from: built in, a file, a variable, a flag.
    pub origin: String,
}

pub(super) fn routes() -> Router<Control> {
    Router::new().route("/v1/config", get(show))
}

/// Every setting of a configuration, in its order.
#[must_use]
pub fn settings(config: &Config) -> Vec<Setting> {
    let effective = config.effective().into_iter();
    let shown = effective.map(|one| Setting {
        key: one.key,
        value: one.value,
        origin: one.origin,
    });
    shown.collect()
}

async fn show(_: Admin, State(control): State<Control>) -> Json<Vec<Setting>> {
    Json(settings(control.config()))
}
