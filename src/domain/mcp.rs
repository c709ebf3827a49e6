//! What an mcp is: a published server definition, its lifecycle, its limits and its times.

mod usual;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::confinement::Confinement;
use super::credential::CredentialSlots;
use super::hex::hex;
use super::ids::McpId;
use super::limits;
use super::name::{Name, ToolName};
use super::package::{Install, Package, PackageError, Step};
use super::remote::Remote;
use super::talk::Talk;

pub use usual::{Defaults, Usual};

/// Where a definition is in its life. Only `Published` serves calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum McpState {
    /// Added, can be discovered, serves nobody.
    Draft,
    /// Serves its subscribers.
    Published,
    /// Kept for its history, serves nobody, never comes back.
    Archived,
}

impl McpState {
    /// Whether the lifecycle allows the step.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Draft, Self::Published | Self::Archived)
                | (Self::Published, Self::Draft | Self::Archived)
        )
    }
}

/// Who shares one process of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// One isolate for each user (the default).
    #[default]
    PerUser,
    /// One isolate for each session of a user.
    PerSession,
    /// One instance for everybody; the operator vouches that the server keeps principals apart.
    Shared,
}

/// What the audit log keeps of a call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Capture {
    /// Their size.
    None,
    /// Their size and SHA-256 (the default).
    #[default]
    Digest,
    /// Their text as well, without known secrets and up to a bound.
    Full,
}

/// The program of a stdio server. Arguments and environment may hold `{home}`, `{user.name}`
/// and `{user.id}`, substituted without a shell. Or, in its place, a server behind HTTP.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Absolute path, or a name looked up in the isolate's `PATH`; empty for a server behind HTTP.
    #[serde(default)]
    pub command: String,
    /// Arguments after the program's name.
    #[serde(default)]
    pub args: Vec<String>,
    /// Environment, added to the clean one (`PATH`, `HOME`, `LANG`, `TMPDIR`).
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The server that is spoken to in place of one that is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Box<Remote>>,
}

impl Program {
    /// A server behind HTTP.
    #[must_use]
    pub fn remote(remote: Remote) -> Self {
        Self {
            remote: Some(Box::new(remote)),
            ..Self::default()
        }
    }

    /// Whether nothing is started for it here.
    #[must_use]
    pub const fn is_remote(&self) -> bool {
        self.remote.is_some()
    }
}

/// The kernel limits of one isolate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Bytes of memory, page cache and tmpfs included.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Thousandths of a core.
    pub cpu_millis: u64,
    /// Open files of one process.
    pub open_files: u64,
    /// Bytes of the largest file a process may write.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: limits::ISOLATE_MEMORY_BYTES,
            pids: limits::ISOLATE_PIDS,
            cpu_millis: limits::ISOLATE_CPU_MILLIS,
            open_files: limits::ISOLATE_OPEN_FILES,
            file_bytes: limits::ISOLATE_FILE_BYTES,
        }
    }
}

/// The times of an mcp, in milliseconds on the wire and in storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Times {
    /// From admission to answer.
    pub call_ms: u64,
    /// From spawn to ready; `None`: 30 s, or 120 s for a launcher that installs as it runs.
    pub start_ms: Option<u64>,
    /// Without calls for this long, the isolate stops; `None`: never.
    pub idle_ms: Option<u64>,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Default for Times {
    fn default() -> Self {
        Self {
            call_ms: millis(limits::CALL_DEADLINE),
            start_ms: None,
            idle_ms: Some(millis(limits::IDLE_AFTER)),
        }
    }
}

/// A published server definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mcp {
    /// Its id.
    pub id: McpId,
    /// Its unique name.
    pub name: Name,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// Where it is in its life.
    pub state: McpState,
    /// Who shares a process.
    #[serde(default)]
    pub sharing: Sharing,
    /// What is started.
    pub program: Program,
    /// Kernel limits of one isolate.
    #[serde(default)]
    pub limits: Limits,
    /// Deadlines and idle time.
    #[serde(default)]
    pub times: Times,
    /// Which of those are the configuration's, because it sets none of its own.
    #[serde(default)]
    pub as_configured: BTreeSet<Usual>,
    /// Its walls.
    #[serde(default)]
    pub confinement: Confinement,
    /// How a package is installed.
    #[serde(default)]
    pub install: Install,
    /// What the audit log keeps of a call's arguments. A running isolate does not differ by it.
    #[serde(default)]
    pub audit_arguments: Capture,
    /// The credentials its server is given.
    #[serde(default)]
    pub credentials: CredentialSlots,
    /// What passes between server and clients beside answers.
    #[serde(default)]
    pub talk: Talk,
}

impl Mcp {
    /// A short hash of everything that makes a running isolate differ: program, sharing, files' limits,
    /// times, walls, install, credential slots (not their values).
    /// Part of the isolate's key, so a changed definition gets a new isolate.
    #[must_use]
    pub fn config_hash(&self) -> String {
        let mut hasher = Sha256::new();
        // Memory, processes and CPU change as it runs.
        let fixed = (self.limits.open_files, self.limits.file_bytes);
        let view = (
            &self.program,
            &self.sharing,
            fixed,
            &self.times,
            &self.confinement,
        );
        hasher.update(serde_json::to_vec(&view).unwrap_or_default());
        // Definitions without credentials keep the hash they had before there were any.
        if !self.credentials.is_empty() {
            hasher.update(serde_json::to_vec(&self.credentials).unwrap_or_default());
        }
        if self.install != Install::default() && Package::of(&self.program) != Ok(None) {
            hasher.update(serde_json::to_vec(&self.install).unwrap_or_default());
        }
        hex(hasher.finalize().get(..6).unwrap_or_default())
    }

    /// The package that is installed before anybody's isolate runs it; `None` if the program runs as
    /// it is written.
    ///
    /// # Errors
    /// It is a launcher of packages, and what it says is not understood.
    pub fn package(&self) -> Result<Option<Package>, PackageError> {
        match self.install.step {
            Step::Auto => Package::of(&self.program),
            Step::Off => Ok(None),
        }
    }

    /// Whether the program is a launcher that may download as it runs.
    fn installs_as_it_runs(&self) -> bool {
        let file = self.program.command.rsplit('/').next().unwrap_or_default();
        matches!(file, "npx" | "uvx" | "bunx" | "pnpm" | "pipx" | "uv")
            && !matches!(self.package(), Ok(Some(_)))
    }

    /// From spawn to ready.
    #[must_use]
    pub fn start_deadline(&self) -> Duration {
        match self.times.start_ms {
            Some(ms) => Duration::from_millis(ms),
            None if self.installs_as_it_runs() => limits::INSTALL_DEADLINE,
            None => limits::START_DEADLINE,
        }
    }

    /// How long the install of its package may take.
    #[must_use]
    pub fn install_deadline(&self) -> Duration {
        let within = self.install.within_ms.map(Duration::from_millis);
        within.unwrap_or(limits::INSTALL_DEADLINE)
    }

    /// From admission to answer.
    #[must_use]
    pub fn call_deadline(&self) -> Duration {
        Duration::from_millis(self.times.call_ms).min(limits::CALL_DEADLINE_MAX)
    }

    /// Without calls for this long, the isolate stops.
    #[must_use]
    pub fn idle_after(&self) -> Option<Duration> {
        self.times.idle_ms.map(Duration::from_millis)
    }
}

/// One tool of an mcp, as discovery found it. Everything but the name stays raw JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Its own name.
    pub name: ToolName,
    /// Its description, as declared.
    #[serde(default)]
    pub description: String,
    /// Its whole definition as the server sent it, as JSON text.
    pub definition: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn sample() -> Mcp {
        Mcp {
            id: McpId::from_random([1; ID_BYTES]),
            name: Name::parse("demo").unwrap(),
            description: String::new(),
            state: McpState::Draft,
            sharing: Sharing::PerUser,
            program: Program {
                command: "cat".into(),
                ..Program::default()
            },
            limits: Limits::default(),
            times: Times::default(),
            as_configured: BTreeSet::new(),
            confinement: Confinement::default(),
            install: Install::default(),
            audit_arguments: Capture::default(),
            credentials: CredentialSlots::new(),
            talk: Talk::default(),
        }
    }

    #[test]
    fn hash_follows_what_runs_and_nothing_else() {
        let one = sample();
        let mut two = sample();
        two.description = "other".into();
        two.audit_arguments = Capture::Full;
        assert_eq!(one.config_hash(), two.config_hash());
        two.times.idle_ms = None;
        assert_ne!(one.config_hash(), two.config_hash());
        two.times = one.times;
        assert_eq!(one.config_hash(), two.config_hash());
        two.confinement.read.push("/srv".into());
        assert_ne!(one.config_hash(), two.config_hash());
        two.confinement = one.confinement.clone();
        two.program.args.push("-u".into());
        assert_ne!(one.config_hash(), two.config_hash());
        let mut three = sample();
        three.credentials = serde_json::from_str(r#"{"TOKEN":{"to":{"env":"T"}}}"#).unwrap();
        assert_ne!(one.config_hash(), three.config_hash());
    }

    #[test]
    fn archived_is_the_end() {
        assert!(McpState::Draft.may_become(McpState::Published));
        assert!(!McpState::Archived.may_become(McpState::Published));
    }

    #[test]
    fn who_installs_as_it_runs_gets_longer_to_start() {
        let mut mcp = sample();
        assert_eq!(mcp.start_deadline(), limits::START_DEADLINE);
        mcp.program.command = "/usr/bin/npx".into();
        mcp.program.args = vec!["server".into()];
        assert!(mcp.package().unwrap().is_some());
        assert_eq!(mcp.start_deadline(), limits::START_DEADLINE);
        mcp.install.step = Step::Off;
        assert_eq!(mcp.package(), Ok(None));
        assert_eq!(mcp.start_deadline(), limits::INSTALL_DEADLINE);
    }
}
