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
mod permit;
#[cfg(test)]
mod suite;

pub mod config;
pub mod groups;
pub mod isolates;
pub mod keys;
pub mod mcps;
pub mod overview;
pub mod subscriptions;
pub mod users;

use axum::Router;
use axum::extract::DefaultBodyLimit;

use crate::actors::control::Control;
use crate::domain::limits::ADMIN_BODY_BYTES_MAX;

pub use error::{ApiError, Problem};
pub use permit::Admin;

/// The whole admin API over one control handle.
///
/// Every request must carry the peer's credentials as an extension; without them it is refused.
#[must_use]
pub fn router(control: Control) -> Router {
    Router::new()
        .merge(overview::routes())
        .merge(config::routes())
        .merge(isolates::routes())
        .merge(mcps::routes())
        .merge(users::routes())
        .merge(groups::routes())
        .merge(keys::routes())
        .merge(subscriptions::routes())
        .fallback(error::no_such_endpoint)
        .method_not_allowed_fallback(error::no_such_method)
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        .with_state(control)
}
