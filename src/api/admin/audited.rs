//! Doing a change so that it is finished and recorded, whatever becomes of the caller.

use std::future::Future;

use axum::Json;
use serde::Serialize;

use super::{Admin, ApiError};
use crate::actors::control::{Control, Subject};
use crate::domain::code::Code;

/// Changes that are made with or without a record on the disk.
const TAKES_AWAY: &[&str] = &[
    "user.suspend",
    "mcp.suspend",
    "mcp.archive",
    "isolate.kill",
    "key.revoke",
    "group.revoke",
    "group.member.remove",
    "subscription.remove",
    "credential.remove",
    "kill_switch.on",
    "key.suspend",
    "call.cancel",
];

/// Runs a change and records who did it and how it ended.
///
/// The change is a task of its own, not part of the request's future: a caller who hangs up
/// between the write and the refresh must not leave a stored change that nobody serves. It ends
/// by itself, since every operation it is made of has a deadline.
///
/// While the log cannot be written nothing is changed, except what takes something away: stopping
/// somebody must not wait for a disk. Those records wait in the queue.
///
/// # Errors
/// What the change says, `audit_unavailable`, or `internal` if it panicked.
pub(super) async fn audited<T, F>(
    control: &Control,
    admin: &Admin,
    action: &'static str,
    subject: impl Into<Subject>,
    change: F,
) -> Result<Json<T>, ApiError>
where
    T: Serialize + Send + 'static,
    F: Future<Output = Result<T, ApiError>> + Send + 'static,
{
    if !TAKES_AWAY.contains(&action) {
        control.may_change()?;
    }
    let (control, actor, subject) = (control.clone(), admin.actor().to_owned(), subject.into());
    let before = control.about(&subject);
    let record = (control.clone(), actor.clone(), subject.clone());
    let task = tokio::spawn(async move {
        let result = change.await;
        let outcome = result.as_ref().map_or_else(|e| e.code().as_str(), |_| "ok");
        let recorded = control
            .audited(&actor, action, &subject, outcome, &before)
            .await;
        match recorded {
            Err(error) if result.is_ok() && !TAKES_AWAY.contains(&action) => Err(error.into()),
            _ => result,
        }
    });
    match task.await {
        Ok(result) => result.map(Json),
        Err(broken) => {
            let (control, actor, subject) = record;
            control.audit(&actor, action, &subject, Code::Internal.as_str());
            tracing::error!(error = %broken, action, "an admin's change broke off");
            let text = format!("{action} broke off; the server's log says why");
            Err(ApiError::new(Code::Internal, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every route that changes something goes through [`super::audited`]: one call for each.
    #[test]
    fn every_changing_endpoint_is_recorded() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api/admin");
        let mut routes_seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else {
                continue;
            };
            if path.ends_with("audited.rs") {
                continue;
            }
            let count = |words: &[&str]| -> usize {
                words.iter().map(|word| text.matches(word).count()).sum()
            };
            let routes = match text.split_once("fn routes()") {
                Some((_, rest)) => {
                    let body = rest.split("\n}").next().unwrap_or_default();
                    ["post(", "patch(", "put(", "delete("]
                        .iter()
                        .map(|verb| body.matches(verb).count())
                        .sum()
                }
                None => 0,
            };
            // Suspending and resuming go through one of its own, in `kill.rs`.
            let recorded = count(&[
                "audited(&control, &admin,",
                "SUSPENDED.suspend(&control, &admin,",
                "SUSPENDED.resume(&control, &admin,",
            ]);
            assert_eq!(routes, recorded, "{}", path.display());
            routes_seen += routes;
        }
        assert!(routes_seen > 15, "the test reads nothing");
    }
}
