//! `/v1/mcps`: definitions and their lifecycle.

mod change;

use std::collections::HashMap;

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::credentials::{self, NeededCredential};
use super::error::Body;
use super::isolates::Reason;
use super::kill::Suspended;
use super::{Admin, ApiError, Shared};
use crate::actors::control::{Control, Subject};
use crate::actors::packages::PackageView;
use crate::actors::views::{DenyReport, DenyView, Discovery, UnfitSchema};
use crate::domain::code::Code;
use crate::domain::era::Spoken;
use crate::domain::ids::McpId;
use crate::domain::kill::{Kind, Scope, Target};
use crate::domain::mcp::{Mcp, McpState, Tool};
use crate::domain::name::Name;
use crate::storage::StoreError;

pub use change::{
    AddMcp, ConfinementChange, InstallChange, LimitsChange, ProgramChange, RemoteChange,
    TalkChange, TimesChange, UpdateMcp,
};

/// A definition as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct McpView {
    /// The definition.
    #[serde(flatten)]
    pub mcp: Mcp,
    /// The short hash that an isolate's key holds.
    pub config_hash: String,
    /// How many tools are known.
    pub tool_count: usize,
    /// Why nobody may use it, while a kill switch of its scope is on.
    pub suspended: Option<String>,
}

/// A definition with its tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct McpDetail {
    /// The definition.
    #[serde(flatten)]
    pub view: McpView,
    /// Its tools, as the last discovery found them.
    pub tools: Vec<Tool>,
    /// Which era of MCP its servers speak, if one of this definition was there.
    #[serde(default)]
    pub spoken: Option<Spoken>,
    /// What is installed for it, if its program is a package.
    #[serde(default)]
    pub package: Option<PackageView>,
    /// Tools whose schemas cannot be used, if arguments are to be held against them.
    #[serde(default)]
    pub unfit: Vec<UnfitSchema>,
    /// The credentials that it needs, and who has set them.
    #[serde(default)]
    pub needs: Vec<NeededCredential>,
}

/// How to install.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstallMcp {
    /// Also if it is there: with the newest versions that the definition allows.
    pub again: bool,
}

/// What publishing did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PublishReport {
    /// The published definition.
    pub mcp: McpView,
    /// The discovery, if no tools were known and one had to be made.
    pub discovery: Option<Discovery>,
}

/// What archiving did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchiveReport {
    /// The archived definition.
    #[serde(flatten)]
    pub mcp: McpView,
    /// Credentials that were set for it and are forgotten.
    #[serde(default)]
    pub credentials_forgotten: usize,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/mcps", get(list).post(create))
        .route("/v1/mcps/{name}", get(show).patch(change))
        .route("/v1/mcps/{name}/discover", post(discover))
        .route("/v1/mcps/{name}/install", post(install))
        .route("/v1/mcps/{name}/publish", post(put_up))
        .route("/v1/mcps/{name}/archive", post(put_away))
        .route("/v1/mcps/{name}/suspend", post(suspend))
        .route("/v1/mcps/{name}/resume", post(resume))
}

// === operations ===

/// The definition a name in a path means.
///
/// # Errors
/// `not_found`, also for what cannot be a name.
pub async fn by_name(control: &Control, name: &str) -> Result<Mcp, ApiError> {
    let missing = |text: String| ApiError::new(Code::NotFound, text).next("legation mcp list");
    let name = Name::parse(name).map_err(|wrong| missing(wrong.to_string()))?;
    Ok(control.store().mcp_by_name(&name).await?)
}

/// The definition a name or an id means: two that were archived may have the same name.
///
/// # Errors
/// As [`by_name`].
pub async fn by_id_or_name(control: &Control, text: &str) -> Result<Mcp, ApiError> {
    match McpId::parse(text) {
        Ok(id) => match control.store().mcp(&id).await {
            Err(StoreError::NotFound { .. }) => by_name(control, text).await,
            found => Ok(found?),
        },
        Err(_) => by_name(control, text).await,
    }
}

/// Adds a definition as a draft, after looking whether its program is there.
///
/// # Errors
/// `invalid_request` if a value is out of its bounds or the program cannot be run, `conflict` if
/// the name is taken.
pub async fn add(control: &Control, wanted: AddMcp) -> Result<McpView, ApiError> {
    let mcp = wanted.into_mcp(control.mcp_id(), control.store().defaults())?;
    control.check_program(&mcp.program).await?;
    control.check_walls(&mcp.confinement).await?;
    control.store().create_mcp(&mcp, control.now_ms()).await?;
    control.refresh().await?;
    view(control, mcp).await
}

/// Changes a definition. Memory, processes and CPU change in what runs; for anything else isolates of the
/// old one are replaced as their calls end.
///
/// # Errors
/// As [`add`]; `conflict` if it is archived.
pub async fn update(control: &Control, name: &str, wanted: UpdateMcp) -> Result<McpView, ApiError> {
    // What another change wrote meanwhile would be undone: all columns are written.
    let alone = control.defining().await;
    let old = by_name(control, name).await?;
    let mcp = wanted.apply(old.clone(), control.store().defaults())?;
    if mcp.program != old.program {
        control.check_program(&mcp.program).await?;
    }
    if mcp.confinement != old.confinement {
        control.check_walls(&mcp.confinement).await?;
    }
    control.store().update_mcp(&mcp, control.now_ms()).await?;
    drop(alone);
    control.refresh().await?;
    control.settle_limits().await;
    control.package_changed(&mcp);
    view(control, mcp).await
}

/// Publishes a definition; discovers its tools first if none are known.
///
/// # Errors
/// `conflict` if it is archived or has no tools, and whatever a failed discovery says.
pub async fn publish(control: &Control, name: &str) -> Result<PublishReport, ApiError> {
    let mcp = by_name(control, name).await?;
    // Publishing again is no mistake; it must not start anything.
    if mcp.state == McpState::Published {
        let mcp = view(control, mcp).await?;
        return Ok(PublishReport {
            mcp,
            discovery: None,
        });
    }
    if !mcp.state.may_become(McpState::Published) {
        let text = format!("mcp `{name}` is archived and cannot be published again");
        return Err(ApiError::new(Code::Conflict, text)
            .next(format!("legation mcp add {name} -- COMMAND ARGS…")));
    }
    let discovery = if control.store().tools_of(&mcp.id).await?.is_empty() {
        Some(discovered(control, &mcp).await?)
    } else {
        None
    };
    let now = control.now_ms();
    let mcp = control
        .store()
        .set_mcp_state(&mcp.id, McpState::Published, now)
        .await?;
    control.refresh().await?;
    let mcp = view(control, mcp).await?;
    Ok(PublishReport { mcp, discovery })
}

async fn discovered(control: &Control, mcp: &Mcp) -> Result<Discovery, ApiError> {
    let name = &mcp.name;
    let found = control.discover(&mcp.id).await.map_err(|failed| {
        let text = format!(
            "mcp `{name}` was not published: it has no known tools, and discovering them failed: {}",
            failed.message
        );
        let next = failed.next.unwrap_or_else(|| {
            format!("legation mcp update {name} …, then legation mcp discover {name}")
        });
        ApiError::new(failed.code, text).next(next)
    })?;
    if found.tools.is_empty() && !control.offers_other(mcp) {
        let text = format!(
            "mcp `{name}` was not published: its server declares no tools, resources or prompts"
        );
        return Err(ApiError::new(Code::Conflict, text).next(format!(
            "check its arguments and environment: legation mcp show {name}"
        )));
    }
    Ok(found)
}

async fn archive(control: &Control, name: &str, author: &str) -> Result<ArchiveReport, ApiError> {
    let mcp = by_name(control, name).await?;
    let (mcp, credentials_forgotten) = control.archive(&mcp.id, author).await?;
    control.refresh().await?;
    control.forget_package(&mcp.id).await;
    Ok(ArchiveReport {
        mcp: view(control, mcp).await?,
        credentials_forgotten,
    })
}

async fn view(control: &Control, mcp: Mcp) -> Result<McpView, ApiError> {
    let tool_count = control.store().tools_of(&mcp.id).await?.len();
    Ok(dressed(control, mcp, tool_count))
}

fn dressed(control: &Control, mcp: Mcp, tool_count: usize) -> McpView {
    let target = Target::Mcp(mcp.id.clone());
    McpView {
        config_hash: mcp.config_hash(),
        tool_count,
        suspended: control.denied_reason(Kind::KillSwitch, &target),
        mcp,
    }
}

// === handlers ===

async fn list(_: Admin, State(control): State<Control>) -> Result<Json<Vec<McpView>>, ApiError> {
    let mut counts = HashMap::new();
    for (mcp, _) in control.store().tools().await? {
        *counts.entry(mcp).or_insert(0) += 1;
    }
    let mcps = control.store().mcps().await?.into_iter();
    let views = mcps.map(|mcp| {
        let tools = counts.get(&mcp.id).copied().unwrap_or(0);
        dressed(&control, mcp, tools)
    });
    Ok(Json(views.collect()))
}

async fn show(
    _: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<McpDetail>, ApiError> {
    let mcp = by_name(&control, &name).await?;
    let tools = control.store().tools_of(&mcp.id).await?;
    let view = view(&control, mcp).await?;
    let package = control.package(&view.mcp).await;
    let needs = credentials::needed(&control, &view.mcp).await?;
    let unfit = control.unfit(&view.mcp, &tools).await;
    let spoken = control.spoken(&view.mcp);
    Ok(Json(McpDetail {
        view,
        tools,
        spoken,
        package,
        unfit,
        needs,
    }))
}

async fn create(
    admin: Admin,
    State(control): State<Control>,
    Body(wanted): Body<AddMcp>,
) -> Result<(http::StatusCode, Json<McpView>), ApiError> {
    let (tree, subject) = (
        control.clone(),
        Subject::one(Scope::Mcp, wanted.name.as_str()),
    );
    let change = async move { add(&tree, wanted).await };
    let made = audited(&control, &admin, "mcp.add", subject, change).await?;
    Ok((http::StatusCode::CREATED, made))
}

async fn change(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
    Body(wanted): Body<UpdateMcp>,
) -> Result<Json<McpView>, ApiError> {
    let (tree, subject) = (control.clone(), Subject::one(Scope::Mcp, name.as_str()));
    let change = async move { update(&tree, &name, wanted).await };
    audited(&control, &admin, "mcp.update", subject, change).await
}

async fn discover(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<Discovery>, ApiError> {
    let mcp = by_name(&control, &name).await?;
    let tree = control.clone();
    let change = async move { Ok(tree.discover(&mcp.id).await?) };
    let subject = Subject::one(Scope::Mcp, name);
    audited(&control, &admin, "mcp.discover", subject, change).await
}

async fn install(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
    Body(wanted): Body<InstallMcp>,
) -> Result<Json<PackageView>, ApiError> {
    let mcp = by_name(&control, &name).await?;
    let tree = control.clone();
    let change = async move { Ok(tree.install(&mcp.id, wanted.again).await?) };
    let subject = Subject::one(Scope::Mcp, name);
    audited(&control, &admin, "mcp.install", subject, change).await
}

async fn put_up(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<PublishReport>, ApiError> {
    let (tree, subject) = (control.clone(), Subject::one(Scope::Mcp, name.as_str()));
    let change = async move { publish(&tree, &name).await };
    audited(&control, &admin, "mcp.publish", subject, change).await
}

async fn put_away(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<ArchiveReport>, ApiError> {
    let (tree, subject) = (control.clone(), Subject::one(Scope::Mcp, name.as_str()));
    let author = admin.actor().to_owned();
    let change = async move { archive(&tree, &name, &author).await };
    audited(&control, &admin, "mcp.archive", subject, change).await
}

/// Suspending one and resuming it.
const SUSPENDED: Suspended = Suspended {
    kind: Kind::KillSwitch,
    scope: Scope::Mcp,
    suspend: "mcp.suspend",
    resume: "mcp.resume",
};

async fn suspend(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
    Body(why): Body<Reason>,
) -> Result<Json<DenyReport>, ApiError> {
    SUSPENDED.suspend(&control, &admin, name, &why).await
}

async fn resume(
    admin: Admin,
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<DenyView>, ApiError> {
    SUSPENDED.resume(&control, &admin, name).await
}
