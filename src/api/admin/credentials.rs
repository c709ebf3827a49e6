//! `/v1/credentials`: the secrets that users' servers are started with. They come in and never go
//! out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use axum::extract::{Path, State};
use axum::routing::{delete, get};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretSlice;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::audited::audited;
use super::error::{Asked, Body};
use super::{Admin, ApiError, Shared, mcps, users};
use crate::actors::control::{Control, Subject};
use crate::domain::account::Millis;
use crate::domain::code::Code;
use crate::domain::credential::{Holder, Need};
use crate::domain::ids::{McpId, UserId};
use crate::domain::kill::Scope;
use crate::domain::limits::USERS_NAMED_MAX;
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::name::{CredentialName, Name};

/// Whose value: a user's, or everybody's where no user is named.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Whose {
    /// The user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The mcp's name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp: Option<String>,
}

/// How a value is written in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As it is.
    #[default]
    Text,
    /// In base64 with padding: the value may hold any bytes.
    Base64,
}

/// A value to set.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetCredential {
    /// The user's name; everybody's value if absent: for `shared` mcps and for discovering.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The mcp's name or id.
    pub mcp: Name,
    /// Which of its credentials.
    pub name: CredentialName,
    /// The value.
    pub value: String,
    /// How it is written.
    #[serde(default)]
    pub encoding: Encoding,
}

impl SetCredential {
    fn take(&mut self) -> Result<SecretSlice<u8>, ApiError> {
        let value = Zeroizing::new(std::mem::take(&mut self.value).into_bytes());
        match self.encoding {
            Encoding::Text => Ok(SecretSlice::from(value.to_vec())),
            Encoding::Base64 => match STANDARD.decode(value.as_slice()) {
                Ok(bytes) => Ok(SecretSlice::from(bytes)),
                // Where it is wrong would tell what it is.
                Err(_) => Err(ApiError::invalid("the value is no base64".to_owned())),
            },
        }
    }
}

impl fmt::Debug for SetCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetCredential")
            .field("mcp", &self.mcp)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What is known of one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialView {
    /// The user's name; `None`: everybody's.
    pub user: Option<String>,
    /// The mcp's name.
    pub mcp: String,
    /// Which.
    pub name: CredentialName,
    /// `set`, `missing` (declared, needed and not set) or `undeclared` (set, and no longer wanted).
    pub state: String,
    /// Where it goes.
    pub to: Option<String>,
    /// How often it was set.
    pub version: Option<i64>,
    /// When it was last set, milliseconds since the epoch.
    pub set_at: Option<Millis>,
    /// By whom.
    pub set_by: Option<String>,
}

/// One credential of an mcp, and who has a value for it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NeededCredential {
    /// Which.
    pub name: String,
    /// Where it goes; `None`: it is set, and no longer wanted.
    pub to: Option<String>,
    /// Whether the server does not start without it.
    pub required: bool,
    /// Users with a value.
    pub users_set: usize,
    /// The first of them, by name.
    pub users: Vec<String>,
    /// Users who are granted the mcp, need a value and have none.
    pub users_missing: usize,
    /// Whether there is everybody's value: for `shared` mcps, and for discovering.
    pub shared: bool,
}

/// What setting or removing a value did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CredentialChanged {
    /// Whether anything changed.
    pub changed: bool,
    /// The value's version, if it is set now.
    pub version: Option<i64>,
    /// Isolates that are replaced, each after its calls in flight.
    pub isolates_replaced: u64,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/credentials", get(status).post(set))
        .route("/v1/credentials/{mcp}/{name}", delete(remove))
}

async fn holder(control: &Control, user: Option<&str>) -> Result<Holder, ApiError> {
    match user {
        Some(name) => Ok(Holder::User(users::by_name(control, name).await?.id)),
        None => Ok(Holder::Shared),
    }
}

// === operations ===

/// What is set, and what is missing for users who have an mcp in sight.
///
/// # Errors
/// The store, which knows the names, is away.
pub async fn list(control: &Control, whose: &Whose) -> Result<Vec<CredentialView>, ApiError> {
    let users: HashMap<UserId, String> = control
        .store()
        .users()
        .await?
        .into_iter()
        .map(|user| (user.id, user.name.to_string()))
        .collect();
    let mcps: HashMap<McpId, _> = control
        .store()
        .mcps()
        .await?
        .into_iter()
        .map(|mcp| (mcp.id.clone(), mcp))
        .collect();
    let stored = control.credentials();
    let mut views = Vec::new();
    for one in &stored {
        let mcp = mcps.get(&one.mcp);
        let slot = mcp.and_then(|mcp| mcp.credentials.get(&one.name));
        views.push(CredentialView {
            user: users.get(&one.holder).cloned(),
            mcp: mcp.map_or_else(|| one.mcp.to_string(), |mcp| mcp.name.to_string()),
            name: one.name.clone(),
            state: if slot.is_some() { "set" } else { "undeclared" }.to_owned(),
            to: slot.map(|slot| slot.delivery.to_string()),
            version: Some(one.version),
            set_at: Some(one.set_at),
            set_by: Some(one.set_by.clone()),
        });
    }
    let granted: BTreeSet<(UserId, McpId)> = control
        .store()
        .groups()
        .await?
        .iter()
        .flat_map(|view| {
            let pairs = move |user: &UserId| {
                let user = user.clone();
                view.grants
                    .iter()
                    .map(move |mcp| (user.clone(), mcp.clone()))
            };
            view.members.iter().flat_map(pairs)
        })
        .collect();
    for (id, mcp) in &granted {
        let wants = mcps.get(mcp).filter(|mcp| mcp.state != McpState::Archived);
        if let (Some(name), Some(mcp)) = (users.get(id), wants) {
            let missing = mcp.credentials.iter().filter(|(slot, wanted)| {
                wanted.need == Need::Required
                    && mcp.sharing != crate::domain::mcp::Sharing::Shared
                    && !stored
                        .iter()
                        .any(|one| one.holder == *id && one.mcp == mcp.id && one.name == **slot)
            });
            views.extend(missing.map(|(slot, wanted)| CredentialView {
                user: Some(name.clone()),
                mcp: mcp.name.to_string(),
                name: slot.clone(),
                state: "missing".to_owned(),
                to: Some(wanted.delivery.to_string()),
                version: None,
                set_at: None,
                set_by: None,
            }));
        }
    }
    if let Some(wanted) = &whose.user {
        views.retain(|view| view.user.as_ref() == Some(wanted));
    }
    if let Some(wanted) = &whose.mcp {
        let by_id = McpId::parse(wanted).ok();
        let by_id = by_id.and_then(|id| Some(mcps.get(&id)?.name.to_string()));
        let wanted = by_id.as_ref().unwrap_or(wanted);
        views.retain(|view| view.mcp == *wanted);
    }
    views.sort_by(|a, b| (&a.user, &a.mcp, &a.name).cmp(&(&b.user, &b.mcp, &b.name)));
    Ok(views)
}

/// What an mcp needs, and who has set it.
///
/// # Errors
/// As [`list`].
pub async fn needed(control: &Control, mcp: &Mcp) -> Result<Vec<NeededCredential>, ApiError> {
    let slots = mcp.credentials.iter().map(|(name, slot)| {
        let needed = NeededCredential {
            name: name.to_string(),
            to: Some(slot.delivery.to_string()),
            required: slot.need == Need::Required,
            ..NeededCredential::default()
        };
        (name.clone(), needed)
    });
    let mut all: BTreeMap<CredentialName, NeededCredential> = slots.collect();
    let whose = Whose {
        user: None,
        mcp: Some(mcp.name.to_string()),
    };
    for one in list(control, &whose).await? {
        let entry = all.entry(one.name.clone());
        let needed = entry.or_insert_with(|| NeededCredential {
            name: one.name.to_string(),
            ..NeededCredential::default()
        });
        match one.user {
            _ if one.state == "missing" => needed.users_missing += 1,
            None => needed.shared = true,
            Some(user) => {
                needed.users_set += 1;
                if needed.users.len() < USERS_NAMED_MAX {
                    needed.users.push(user);
                }
            }
        }
    }
    Ok(all.into_values().collect())
}

/// What a value is of. Who is named is a user; what all share is nobody's.
fn subject(user: &Option<String>, mcp: &str, name: &str) -> Subject {
    let whose = user.as_deref().unwrap_or("shared");
    let subject = Subject::from(format!("{whose}/{mcp}/{name}")).of(Scope::Mcp, mcp);
    match user {
        Some(user) => subject.of(Scope::User, user),
        None => subject,
    }
}

// === handlers ===

async fn status(
    _: Admin,
    State(control): State<Control>,
    Asked(whose): Asked<Whose>,
) -> Result<Json<Vec<CredentialView>>, ApiError> {
    Ok(Json(list(&control, &whose).await?))
}

async fn set(
    admin: Admin,
    State(control): State<Control>,
    Body(mut wanted): Body<SetCredential>,
) -> Result<Json<CredentialChanged>, ApiError> {
    let (tree, author) = (control.clone(), admin.actor().to_owned());
    let subject = subject(&wanted.user, wanted.mcp.as_str(), wanted.name.as_str());
    let change = async move {
        let holder = holder(&tree, wanted.user.as_deref()).await?;
        let mcp = mcps::by_id_or_name(&tree, wanted.mcp.as_str()).await?;
        let value = wanted.take()?;
        let (stored, replaced) = tree
            .set_credential(&holder, &mcp, &wanted.name, &value, &author)
            .await?;
        Ok(CredentialChanged {
            changed: true,
            version: Some(stored.version),
            isolates_replaced: replaced,
        })
    };
    audited(&control, &admin, "credential.set", subject, change).await
}

async fn remove(
    admin: Admin,
    State(control): State<Control>,
    Path((mcp, name)): Path<(String, String)>,
    Asked(whose): Asked<Whose>,
) -> Result<Json<CredentialChanged>, ApiError> {
    let (tree, author) = (control.clone(), admin.actor().to_owned());
    let subject = subject(&whose.user, &mcp, &name);
    let change = async move {
        let holder = holder(&tree, whose.user.as_deref()).await?;
        let whose = match &whose.user {
            Some(user) => format!("user `{user}`"),
            None => "everybody".to_owned(),
        };
        let mcp = mcps::by_id_or_name(&tree, &mcp).await?;
        let name =
            CredentialName::parse(&name).map_err(|wrong| ApiError::invalid(wrong.to_string()))?;
        let removed = tree
            .remove_credential(&holder, &mcp, &name, &author)
            .await?;
        let isolates_replaced = removed.ok_or_else(|| {
            let (id, of) = (&mcp.id, &mcp.name);
            let text = format!("credential `{name}` of mcp `{of}` ({id}) is not set for {whose}");
            ApiError::new(Code::NotFound, text).next("legation credential status")
        })?;
        Ok(CredentialChanged {
            changed: true,
            version: None,
            isolates_replaced,
        })
    };
    audited(&control, &admin, "credential.remove", subject, change).await
}
