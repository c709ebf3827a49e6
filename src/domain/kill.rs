//! Denies: kill switches and suspensions, as facts. What they take away, why, by whom, until when.
//!
//! A kill switch refuses calls and leaves sessions alive; a suspension is of a user or a key, and
//! besides ends its sessions and refuses to register new ones. At most one of each kind is in force
//! for a target. What they do to what runs is the actors' business.

mod table;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::account::Millis;
use super::ids::{DenyId, KeyId, McpId, UserId};
use super::limits::DESCRIPTION_CHARS_MAX;
use super::name::ToolName;

pub use table::{Caller, Table};

/// How far a deny reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// One tool of one mcp.
    Tool,
    /// One mcp.
    Mcp,
    /// One user.
    User,
    /// One key and all its sessions.
    Client,
    /// Everything.
    All,
}

impl Scope {
    /// Every scope, the narrowest first.
    pub const ALL: [Self; 5] = [Self::Tool, Self::Mcp, Self::User, Self::Client, Self::All];

    /// Its word, in the command line, the API, metrics and the audit log.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Mcp => "mcp",
            Self::User => "user",
            Self::Client => "client",
            Self::All => "all",
        }
    }

    /// The scope of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.word() == word)
    }

    /// Its place in arrays of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What a deny takes away.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Words", into = "Words")]
pub enum Target {
    /// One tool of one mcp, by its own name: what clients call it does not matter.
    Tool(McpId, ToolName),
    /// One mcp.
    Mcp(McpId),
    /// One user.
    User(UserId),
    /// One key and all its sessions.
    Client(KeyId),
    /// Everything.
    All,
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no target of scope {scope}")]
pub struct TargetError {
    /// The scope it was to be a target of.
    pub scope: Scope,
    /// What was given.
    pub text: String,
}

/// A target in two words, as it is stored and sent.
#[derive(Serialize, Deserialize)]
struct Words {
    scope: Scope,
    target: String,
}

impl TryFrom<Words> for Target {
    type Error = TargetError;
    fn try_from(words: Words) -> Result<Self, TargetError> {
        Self::parse(words.scope, &words.target)
    }
}

impl From<Target> for Words {
    fn from(target: Target) -> Self {
        Self {
            scope: target.scope(),
            target: target.text(),
        }
    }
}

impl Target {
    /// The target of these words: ids, never names.
    ///
    /// # Errors
    /// [`TargetError`] if the text is not of the scope's form.
    pub fn parse(scope: Scope, text: &str) -> Result<Self, TargetError> {
        let target = match scope {
            Scope::Tool => text.split_once('/').and_then(|(mcp, tool)| {
                Some(Self::Tool(
                    McpId::parse(mcp).ok()?,
                    ToolName::parse(tool).ok()?,
                ))
            }),
            Scope::Mcp => McpId::parse(text).ok().map(Self::Mcp),
            Scope::User => UserId::parse(text).ok().map(Self::User),
            Scope::Client => KeyId::parse(text).ok().map(Self::Client),
            Scope::All => (text == Scope::All.word()).then_some(Self::All),
        };
        target.ok_or_else(|| TargetError {
            scope,
            text: text.chars().take(64).collect(),
        })
    }

    /// Its scope.
    #[must_use]
    pub const fn scope(&self) -> Scope {
        match self {
            Self::Tool(..) => Scope::Tool,
            Self::Mcp(_) => Scope::Mcp,
            Self::User(_) => Scope::User,
            Self::Client(_) => Scope::Client,
            Self::All => Scope::All,
        }
    }

    /// What it names within its scope, in ids.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Tool(mcp, tool) => format!("{mcp}/{tool}"),
            Self::Mcp(id) => id.to_string(),
            Self::User(id) => id.to_string(),
            Self::Client(id) => id.to_string(),
            Self::All => Scope::All.word().to_owned(),
        }
    }
}

/// How a deny treats sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Calls are refused with the reason; sessions live on.
    KillSwitch,
    /// Of a user or a key: sessions end and registering is refused as well.
    Suspension,
}

impl Kind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::KillSwitch, Self::Suspension];

    /// Its word in storage, audit, metrics and views.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::KillSwitch => "kill_switch",
            Self::Suspension => "suspension",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// How a deny ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// An administrator lifted it.
    Lifted,
    /// Its time was over.
    Expired,
    /// The store held a second one for the same target, which cannot be.
    Superseded,
}

impl Ending {
    /// Its word in storage, audit and views.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Lifted => "lifted",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
        }
    }

    /// The ending of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Lifted, Self::Expired, Self::Superseded]
            .into_iter()
            .find(|ending| ending.word() == word)
    }
}

/// That a deny is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// When.
    pub at: Millis,
    /// By whom.
    pub by: String,
    /// How.
    pub how: Ending,
}

/// One deny, in force or past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deny {
    /// Its id.
    pub id: DenyId,
    /// Kill switch or suspension.
    pub kind: Kind,
    /// What it takes away.
    #[serde(flatten)]
    pub target: Target,
    /// What people called the target when it was set: names, for those who read.
    pub label: String,
    /// Why: callers are told.
    pub reason: String,
    /// Who set it.
    pub author: String,
    /// When it was set.
    pub created_at: Millis,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Millis>,
    /// That it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifted: Option<Lifted>,
}

/// Why a deny cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DenyError {
    /// Callers must be told something.
    #[error("a reason is required: it is what callers are told")]
    NoReason,
    /// It goes into every refused call's answer.
    #[error("the reason is longer than {DESCRIPTION_CHARS_MAX} characters")]
    LongReason,
    /// It would never be in force.
    #[error("the expiry is in the past")]
    Past,
    /// Only people and keys have sessions to end.
    #[error("a suspension is of a user or a key, not of scope {0}")]
    NotSuspendable(Scope),
}

impl Deny {
    /// Checks what a type cannot say.
    ///
    /// # Errors
    /// [`DenyError`].
    pub fn check(&self) -> Result<(), DenyError> {
        if self.reason.trim().is_empty() {
            return Err(DenyError::NoReason);
        }
        if self.reason.chars().count() > DESCRIPTION_CHARS_MAX {
            return Err(DenyError::LongReason);
        }
        if self.expires_at.is_some_and(|at| at <= self.created_at) {
            return Err(DenyError::Past);
        }
        match (self.kind, self.target.scope()) {
            (Kind::Suspension, scope @ (Scope::Tool | Scope::Mcp | Scope::All)) => {
                Err(DenyError::NotSuspendable(scope))
            }
            _ => Ok(()),
        }
    }

    /// Whether its time is over. A clock that jumps back makes it count again, until it is swept.
    #[must_use]
    pub fn is_expired(&self, now: Millis) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }

    /// Kind and target for people: `kill switch on mcp demo`.
    #[must_use]
    pub fn title(&self) -> String {
        let kind = match self.kind {
            Kind::KillSwitch => "kill switch on",
            Kind::Suspension => "suspension of",
        };
        match self.target {
            Target::All => format!("{kind} everything"),
            _ => format!("{kind} {} {}", self.target.scope(), self.label),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    pub(crate) fn deny(n: u8, kind: Kind, target: Target) -> Deny {
        Deny {
            id: DenyId::from_random([n; ID_BYTES]),
            kind,
            target,
            label: format!("label {n}"),
            reason: format!("reason {n}"),
            author: "uid:0(root)".into(),
            created_at: 1000 + i64::from(n),
            expires_at: None,
            lifted: None,
        }
    }

    pub(crate) fn targets() -> Vec<Target> {
        let mcp = McpId::from_random([2; ID_BYTES]);
        vec![
            Target::Tool(mcp.clone(), ToolName::parse("a_b.c").unwrap()),
            Target::Mcp(mcp),
            Target::User(UserId::from_random([3; ID_BYTES])),
            Target::Client(KeyId::from_random([4; ID_BYTES])),
            Target::All,
        ]
    }

    #[test]
    fn denies_survive_the_wire() {
        for (n, target) in (0..).zip(targets()) {
            let mut one = deny(n, Kind::KillSwitch, target);
            for lifted in [None, Some(Ending::Expired)] {
                one.lifted = lifted.map(|how| Lifted {
                    at: 7,
                    by: "clock".into(),
                    how,
                });
                one.expires_at = lifted.map(|_| 5);
                // As text: a value would hide that two fields have one name.
                let text = serde_json::to_string(&one).unwrap();
                assert_eq!(serde_json::from_str::<Deny>(&text).unwrap(), one, "{text}");
            }
        }
    }

    #[test]
    fn words_mean_one_thing() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.word()), Some(scope));
        }
        for target in targets() {
            assert_eq!(Target::parse(target.scope(), &target.text()), Ok(target));
        }
        let text = format!("{}/admin/list", McpId::from_random([2; ID_BYTES]));
        let tool = Target::parse(Scope::Tool, &text).unwrap();
        assert!(matches!(&tool, Target::Tool(_, tool) if tool.as_str() == "admin/list"));
        assert_eq!(tool.text(), text);
        for (scope, text) in [
            (Scope::Tool, "mcp_x/echo"),
            (Scope::Tool, "echo"),
            (Scope::Mcp, "usr_0000000000000000"),
            (Scope::All, ""),
        ] {
            assert!(Target::parse(scope, text).is_err(), "{scope} {text}");
        }
        assert_eq!(Scope::parse("global"), None);
        for kind in [Kind::KillSwitch, Kind::Suspension] {
            assert_eq!(Kind::parse(kind.word()), Some(kind));
        }
        for how in [Ending::Lifted, Ending::Expired, Ending::Superseded] {
            assert_eq!(Ending::parse(how.word()), Some(how));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let good = deny(1, Kind::KillSwitch, Target::All);
        assert_eq!(good.check(), Ok(()));
        let with = |change: fn(&mut Deny)| {
            let mut one = good.clone();
            change(&mut one);
            one.check()
        };
        assert_eq!(with(|d| d.reason = " ".into()), Err(DenyError::NoReason));
        let long = with(|d| d.reason = "ä".repeat(DESCRIPTION_CHARS_MAX + 1));
        assert_eq!(long, Err(DenyError::LongReason));
        assert_eq!(
            with(|d| d.expires_at = Some(d.created_at)),
            Err(DenyError::Past)
        );
        assert_eq!(
            with(|d| d.kind = Kind::Suspension),
            Err(DenyError::NotSuspendable(Scope::All))
        );
    }
}
