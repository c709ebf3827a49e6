//! Subscriptions as they are: under which names a key sees what, or why it sees nothing of it.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::actors::control::Control;
use crate::api::admin::ApiError;
use crate::domain::account::{Key, Millis};
use crate::domain::ids::{KeyId, McpId, UserId};
use crate::domain::kill::{Kind, Target};
use crate::domain::mcp::{Mcp, McpState};
use crate::domain::name::{Name, ToolName};

/// Whether a subscription has an effect. Of several reasons why not, the one that is hardest to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The key sees the mcp.
    Active,
    /// The key was revoked.
    KeyRevoked,
    /// The key's time is over.
    KeyExpired,
    /// The mcp is a draft, or archived.
    McpNotPublished,
    /// No group of the key's user is granted the mcp.
    NoGrant,
    /// The key or its user is suspended.
    Suspended,
    /// A kill switch is on for the mcp, the user, the key or everything.
    SwitchedOff,
}

impl Effect {
    /// It in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::KeyRevoked => "key revoked",
            Self::KeyExpired => "key expired",
            Self::McpNotPublished => "mcp not published",
            Self::NoGrant => "no grant",
            Self::Suspended => "suspended",
            Self::SwitchedOff => "switched off",
        }
    }
}

/// A subscription as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// The key.
    pub key: KeyId,
    /// What its owner calls it.
    pub key_label: String,
    /// The name of its user.
    pub user: String,
    /// The name of the mcp.
    pub mcp: String,
    /// When it was made, milliseconds since the epoch.
    pub created_at: Millis,
    /// Whether it has an effect, or why not.
    pub state: Effect,
    /// The names of the tools under which the key sees them; none while it sees none.
    pub tools: Vec<String>,
}

/// What decides whether a subscription has an effect.
struct Rules {
    granted: HashSet<(UserId, McpId)>,
    suspended: HashSet<Target>,
    switched_off: HashSet<Target>,
    now: Millis,
}

impl Rules {
    async fn read(control: &Control) -> Result<Self, ApiError> {
        let mut granted = HashSet::new();
        for group in control.store().groups().await? {
            for member in &group.members {
                granted.extend(group.grants.iter().map(|mcp| (member.clone(), mcp.clone())));
            }
        }
        Ok(Self {
            granted,
            suspended: control.denied_targets(Kind::Suspension),
            switched_off: control.denied_targets(Kind::KillSwitch),
            now: control.now_ms(),
        })
    }

    fn effect(&self, key: &Key, mcp: &Mcp) -> Effect {
        let whose = [
            Target::User(key.user.clone()),
            Target::Client(key.id.clone()),
        ];
        let what = [Target::Mcp(mcp.id.clone()), Target::All];
        let of = |denied: &HashSet<Target>, targets: &[Target]| {
            targets.iter().any(|target| denied.contains(target))
        };
        if key.revoked_at.is_some() {
            Effect::KeyRevoked
        } else if key.expires_at.is_some_and(|at| at <= self.now) {
            Effect::KeyExpired
        } else if mcp.state != McpState::Published {
            Effect::McpNotPublished
        } else if !self.granted.contains(&(key.user.clone(), mcp.id.clone())) {
            Effect::NoGrant
        } else if of(&self.suspended, &whose) {
            Effect::Suspended
        } else if of(&self.switched_off, &whose) || of(&self.switched_off, &what) {
            Effect::SwitchedOff
        } else {
            Effect::Active
        }
    }
}

/// The subscriptions of the keys that fit.
///
/// # Errors
/// What the store says.
pub async fn views(
    control: &Control,
    fits: impl Fn(&Key) -> bool,
) -> Result<Vec<SubscriptionView>, ApiError> {
    let store = control.store();
    let keys = store.keys(None).await?.into_iter();
    let keys: HashMap<KeyId, Key> = keys
        .filter(|key| fits(key))
        .map(|key| (key.id.clone(), key))
        .collect();
    let users = store.users().await?.into_iter();
    let users: HashMap<UserId, Name> = users.map(|user| (user.id, user.name)).collect();
    let mcps = store.mcps().await?.into_iter();
    let mcps: HashMap<McpId, Mcp> = mcps.map(|mcp| (mcp.id.clone(), mcp)).collect();
    let tools = store.tools().await?.into_iter();
    let tools: HashSet<(McpId, ToolName)> = tools.map(|(mcp, tool)| (mcp, tool.name)).collect();
    let rules = Rules::read(control).await?;
    let views = store.views().await?;
    let mut names: HashMap<(KeyId, McpId), Vec<String>> = HashMap::new();
    for seen in views.exposed {
        // Of a tool that is gone the name stays taken, and nobody sees it.
        if keys.contains_key(&seen.key) && tools.contains(&(seen.mcp.clone(), seen.tool)) {
            let place = names.entry((seen.key, seen.mcp)).or_default();
            place.push(seen.exposed);
        }
    }
    let shown = views.subscriptions.into_iter().filter_map(|one| {
        let (key, mcp) = (keys.get(&one.key)?, mcps.get(&one.mcp)?);
        let state = rules.effect(key, mcp);
        let tools = names.remove(&(one.key.clone(), one.mcp));
        Some(SubscriptionView {
            key_label: key.label.clone(),
            user: users.get(&key.user).map(Name::to_string)?,
            mcp: mcp.name.to_string(),
            created_at: one.created_at,
            state,
            tools: tools
                .filter(|_| state == Effect::Active)
                .unwrap_or_default(),
            key: one.key,
        })
    });
    Ok(shown.collect())
}
