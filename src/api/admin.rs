//! The admin API: what `legation` the command, and whatever else an operator writes, talks to.
//!
//! It is served on a Unix socket, under `/v1/`. Who may use it is decided by the kernel's word on
//! the peer ([`Admin`]), not by a secret. Bodies and answers are JSON, errors are problem
//! documents ([`Problem`]); the structs of both are public, so that the command line reads what
//! the server writes. Everything that changes something is recorded in the audit log with who did
//! it, and finishes even when the caller goes away.
//!
//! One file per group of endpoints. Each has its operations as plain functions over a
//! [`Control`], and handlers that only extract, authorise and call them.

mod audited;
mod error;
#[cfg(test)]
pub(crate) mod house;
#[cfg(test)]
mod outage;
mod permit;
#[cfg(test)]
mod suite;

pub mod audit;
pub mod calls;
pub mod config;
pub mod credentials;
pub mod groups;
pub mod homes;
pub mod isolates;
pub mod keys;
pub mod kill;
pub mod mcps;
pub mod overview;
pub mod subscribers;
pub mod subscriptions;
pub mod users;
pub mod vault;
pub mod watch;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRef};

use crate::actors::control::Control;
use crate::config::{Config, Origins};
use crate::domain::limits::ADMIN_BODY_BYTES_MAX;

pub use error::{ApiError, Problem};
pub use permit::{Admin, group_id};

/// What the admin API needs to know of the configuration.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// Members of this Unix group are administrators.
    pub group: Option<String>,
    /// Every setting in force.
    pub settings: Vec<config::Setting>,
}

impl About {
    /// Of a loaded configuration.
    #[must_use]
    pub fn of(config: &Config, origins: &Origins) -> Self {
        Self {
            group: config.admin.group.clone().filter(|name| !name.is_empty()),
            settings: config::settings(config, origins),
        }
    }
}

/// What handlers draw on.
#[derive(Debug, Clone)]
struct Shared {
    control: Control,
    about: Arc<About>,
}

impl FromRef<Shared> for Control {
    fn from_ref(shared: &Shared) -> Self {
        shared.control.clone()
    }
}

impl FromRef<Shared> for Arc<About> {
    fn from_ref(shared: &Shared) -> Self {
        Arc::clone(&shared.about)
    }
}

/// The whole admin API over one control handle.
///
/// Every request must carry the peer's credentials as an extension; without them it is refused.
pub fn router(control: Control, about: About) -> Router {
    let about = Arc::new(about);
    Router::new()
        .merge(overview::routes())
        .merge(watch::routes())
        .merge(audit::routes())
        .merge(config::routes())
        .merge(credentials::routes())
        .merge(vault::routes())
        .merge(isolates::routes())
        .merge(mcps::routes())
        .merge(users::routes())
        .merge(groups::routes())
        .merge(homes::routes())
        .merge(keys::routes())
        .merge(subscriptions::routes())
        .merge(subscribers::routes())
        .merge(kill::routes())
        .merge(calls::routes())
        .fallback(error::no_such_endpoint)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .with_state(Shared { control, about })
}
