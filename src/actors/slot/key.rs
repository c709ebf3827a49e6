//! What makes two calls meet in the same process.

use std::sync::Arc;

use crate::domain::ids::{IsolateId, McpId, SessionId, UserId};
use crate::domain::talk::Questions;

/// For whom a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Principal {
    /// All sessions of a user.
    User(UserId),
    /// One session of a user.
    Session(UserId, SessionId),
    /// Everybody.
    Shared,
}

impl Principal {
    /// The user whose sum it counts against.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User(user) | Self::Session(user, _) => Some(user),
            Self::Shared => None,
        }
    }
}

/// What makes two calls meet in the same process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// For whom.
    pub principal: Principal,
    /// Of what.
    pub mcp: McpId,
    /// With which definition.
    pub config: Arc<str>,
    /// What the server was told that its client can answer.
    pub questions: Questions,
}

/// What the config part of a probe's key starts with.
const PROBE: &str = "probe-";
/// The same of an installer's, which is a probe too: nobody's calls go to it.
const INSTALL: &str = "probe-install-";

impl SlotKey {
    /// The key of a run that only looks what a server offers.
    #[must_use]
    pub fn probe(mcp: &McpId, id: &IsolateId) -> Self {
        let config = format!("{PROBE}{}", id.short()).into();
        Self {
            principal: Principal::Shared,
            mcp: mcp.clone(),
            config,
            questions: Questions::NONE,
        }
    }

    /// The key of a run of the installer.
    #[must_use]
    pub fn install(mcp: &McpId, id: &IsolateId) -> Self {
        let config = format!("{INSTALL}{}", id.short()).into();
        Self {
            config,
            ..Self::probe(mcp, id)
        }
    }

    /// Whether it is an installer's.
    #[must_use]
    pub fn is_install(&self) -> bool {
        self.config.starts_with(INSTALL)
    }

    /// Whether it is nobody's: a probe's or an installer's.
    #[must_use]
    pub fn is_probe(&self) -> bool {
        self.config.starts_with(PROBE)
    }

    /// As `isolate list` shows it.
    #[must_use]
    pub fn text(&self) -> String {
        let whose = match &self.principal {
            Principal::User(user) => user.to_string(),
            Principal::Session(user, session) => format!("{user}/{session}"),
            Principal::Shared => "shared".to_owned(),
        };
        let key = format!("{whose}/{}/{}", self.mcp, self.config);
        match self.questions.is_empty() {
            true => key,
            false => format!("{key}/{}", self.questions),
        }
    }
}
