//! `GET /v1/config`: what the running server was told, and by whom.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::{About, Admin, Shared};
use crate::config::{self, Config, Origins};

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Its value as TOML, `<set>` for a secret; `None` if it is not set.
    pub value: Option<String>,
    /// Where the value comes from: built in, a file, a variable, a flag.
    pub origin: String,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/config", get(show))
}

/// Every setting of a configuration, section by section.
#[must_use]
pub fn settings(config: &Config, origins: &Origins) -> Vec<Setting> {
    let entries = config::entries(config, origins).into_iter();
    let settings = entries.map(|entry| Setting {
        key: entry.key,
        value: entry.value,
        origin: entry.origin,
    });
    settings.collect()
}

async fn show(_: Admin, State(about): State<Arc<About>>) -> Json<Vec<Setting>> {
    Json(about.settings.clone())
}
