//! `/v1/kill-switches`: switch on, off, look; and what suspending users and keys shares with it.

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::error::{Asked, Body};
use super::isolates::Reason;
use super::{Admin, ApiError, Shared, keys};
use crate::actors::control::{Control, Subject, Wanted};
use crate::actors::views::{DenyReport, DenyView};
use crate::domain::account::Millis;
use crate::domain::kill::{Kind, Scope};

/// A new kill switch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSwitch {
    /// `tool`, `mcp`, `user`, `client` or `all`.
    pub scope: String,
    /// What of it: a name or id, `mcp/tool`, nothing for `all`.
    #[serde(default)]
    pub target: String,
    /// Why: callers are told.
    pub reason: String,
    /// For how long, in milliseconds; until it is lifted if neither is given.
    #[serde(default)]
    pub expires_in_ms: Option<u64>,
    /// Until when, milliseconds since the epoch.
    #[serde(default)]
    pub expires_at: Option<Millis>,
    /// Only say what it would do.
    #[serde(default)]
    pub dry_run: bool,
}

/// What to lift.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldSwitch {
    /// Its scope.
    pub scope: String,
    /// Its target, as it was given or as the list shows it.
    #[serde(default)]
    pub target: String,
}

/// What to list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Looked {
    /// Also what is over.
    pub history: bool,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/kill-switches", get(list).post(on))
        .route("/v1/kill-switches/off", post(off))
        .route("/v1/kill-switches/{id}", get(show))
}

// === operations ===

/// What is suspended and resumed by its name, through routes of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Suspended {
    pub(super) kind: Kind,
    pub(super) scope: Scope,
    /// What that is called in the audit log.
    pub(super) suspend: &'static str,
    pub(super) resume: &'static str,
}

impl Suspended {
    /// Denies what `name` means.
    ///
    /// # Errors
    /// `not_found` with the nearest name, `conflict` if it is denied already, `invalid_request`,
    /// `kill_journal_unavailable`: nothing was done.
    pub(super) async fn suspend(
        self,
        control: &Control,
        admin: &Admin,
        name: String,
        why: &Reason,
    ) -> Result<Json<DenyReport>, ApiError> {
        let (tree, author, reason) = (control.clone(), admin.actor().to_owned(), why.text()?);
        let subject = self.subject(control, &name).await;
        let change = async move {
            let wanted = Wanted {
                kind: self.kind,
                of: tree.target(self.scope, &name).await?,
                reason,
                expires_at: None,
            };
            Ok(tree.switch_on(wanted, &author).await?)
        };
        audited(control, admin, self.suspend, subject, change).await
    }

    /// Lifts that again.
    ///
    /// # Errors
    /// `not_found` with the nearest name, `conflict` if it is not denied, `kill_journal_unavailable`.
    pub(super) async fn resume(
        self,
        control: &Control,
        admin: &Admin,
        name: String,
    ) -> Result<Json<DenyView>, ApiError> {
        let (tree, author) = (control.clone(), admin.actor().to_owned());
        let subject = self.subject(control, &name).await;
        let change = async move {
            let lifted = tree.switch_off(self.kind, self.scope, &name, &author);
            Ok(lifted.await?)
        };
        audited(control, admin, self.resume, subject, change).await
    }

    /// What was meant, for the record: of a key, its whole id.
    async fn subject(self, control: &Control, name: &str) -> Subject {
        let whole = match self.scope {
            Scope::Client => keys::whole(control, name).await,
            _ => name.to_owned(),
        };
        Subject::one(self.scope, whole)
    }
}

async fn wanted(control: &Control, new: &NewSwitch) -> Result<Wanted, ApiError> {
    let scope = control.scope(&new.scope)?;
    let expires_at = match (new.expires_in_ms, new.expires_at) {
        (Some(_), Some(_)) => {
            let text = "give `expires_in_ms` or `expires_at`, not both";
            return Err(ApiError::invalid(text));
        }
        (Some(ms), None) => {
            let ms = Millis::try_from(ms).unwrap_or(Millis::MAX);
            Some(control.now_ms().saturating_add(ms))
        }
        (None, at) => at,
    };
    Ok(Wanted {
        kind: Kind::KillSwitch,
        of: control.target(scope, &new.target).await?,
        reason: new.reason.clone(),
        expires_at,
    })
}

// === handlers ===

async fn list(
    _: Admin,
    State(control): State<Control>,
    Asked(looked): Asked<Looked>,
) -> Json<Vec<DenyView>> {
    Json(control.denies(looked.history).await)
}

async fn show(
    _: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<DenyView>, ApiError> {
    Ok(Json(control.deny(&id).await?))
}

async fn on(
    admin: Admin,
    State(control): State<Control>,
    Body(new): Body<NewSwitch>,
) -> Result<Json<DenyReport>, ApiError> {
    if new.dry_run {
        let wanted = wanted(&control, &new).await?;
        return Ok(Json(control.impact(wanted, admin.actor())?));
    }
    let (tree, author) = (control.clone(), admin.actor().to_owned());
    let subject = of(&control, &new.scope, &new.target).await;
    let change = async move {
        let wanted = wanted(&tree, &new).await?;
        Ok(tree.switch_on(wanted, &author).await?)
    };
    audited(&control, &admin, "kill_switch.on", subject, change).await
}

/// What was meant, for the record: of a key, its whole id.
async fn of(control: &Control, word: &str, target: &str) -> Subject {
    let Some(scope) = Scope::parse(word) else {
        return format!("{word}:{target}").into();
    };
    let whole = match scope {
        Scope::Client => keys::whole(control, target).await,
        _ => target.to_owned(),
    };
    Subject::from(format!("{word}:{whole}")).of(scope, whole)
}

async fn off(
    admin: Admin,
    State(control): State<Control>,
    Body(old): Body<OldSwitch>,
) -> Result<Json<DenyView>, ApiError> {
    let (tree, author) = (control.clone(), admin.actor().to_owned());
    let subject = of(&control, &old.scope, &old.target).await;
    let change = async move {
        let scope = tree.scope(&old.scope)?;
        let lifted = tree.switch_off(Kind::KillSwitch, scope, &old.target, &author);
        Ok(lifted.await?)
    };
    audited(&control, &admin, "kill_switch.off", subject, change).await
}
