//! The sections about the server itself: `[server]`, `[admin]`, `[audit]`, `[sandbox]`, `[log]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::schema::{any, section, within};
use crate::domain::audit::Category;
use crate::domain::confinement::Profile;
use crate::domain::limits::{self, millis};

/// When an audit record of a call counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// When the disk has it.
    Durable,
    /// When it is queued; a power cut may lose the last ones.
    Buffered,
}

/// The least important line that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// A person must look.
    Error,
    /// A person may want to look.
    Warn,
    /// What happened.
    Info,
    /// How it happened.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word a log filter takes.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

section! {
    /// The server as a whole.
    Server = "server" {
        /// Where everything lives that must survive a restart.
        data_dir: PathBuf = "/var/lib/legation".into(), any();
        /// A demo on loopback: what `serve --dev` sets. Allows what the sandbox cannot enforce here.
        dev: bool = false, any();
    }
}

section! {
    /// The socket the command line talks to.
    Admin = "admin" {
        /// The Unix socket. Unset: `admin.sock` in the data directory.
        socket: Option<PathBuf> = None, any();
        /// Members of this Unix group are administrators beside root and the server's own user. The socket is given to
        /// it. It must be in `/etc/group`, and its members must get as far as the socket: set `admin.socket`, since the
        /// data directory is shut to them.
        group: Option<String> = None, any();
    }
}

section! {
    /// The audit log.
    Audit = "audit" {
        /// `durable`: a call's record is on the disk before the call goes on; `buffered`: soon after.
        durability: Durability = Durability::Durable, any();
        /// Where its files are: one server's alone. Unset: `audit` in the data directory.
        dir: Option<PathBuf> = None, any();
        /// What is refused while its record cannot be written: `auth`, `call`, `admin`, `isolate`, `kill`, `credential`, `system`. The rest goes on, and what is lost is counted.
        required: Vec<String> = Category::ALL.iter().map(|one| one.as_str().to_owned()).collect(), any();
        /// Bytes of a segment file before the next begins.
        segment_bytes_max: u64 = limits::AUDIT_SEGMENT_BYTES_MAX, within(4 << 10, 1 << 40);
        /// Age of a segment file before the next begins, in milliseconds.
        segment_age_ms: u64 = millis(limits::AUDIT_SEGMENT_AGE), within(1_000, 10 * 365 * 86_400_000);
        /// Segments that are older than this are removed, in milliseconds; 0: never.
        retention_ms: u64 = millis(limits::AUDIT_RETENTION), within(0, 100 * 365 * 86_400_000);
        /// The oldest segments are removed beyond this many bytes of all; 0: never.
        retention_bytes_max: u64 = 0, within(0, 1 << 50);
        /// Milliseconds between two signed checkpoints of a log that grows.
        checkpoint_ms: u64 = millis(limits::AUDIT_CHECKPOINT_EVERY), within(100, 86_400_000);
        /// Records between two signed checkpoints.
        checkpoint_records: u64 = limits::AUDIT_CHECKPOINT_RECORDS, within(1, 1 << 32);
    }
}

section! {
    /// The walls around isolates.
    Sandbox = "sandbox" {
        /// Facilities without which isolates start nevertheless, each named; status and audit say so.
        allow_degraded: Vec<String> = Vec::new(), any();
        /// `none`, `standard` or `strict`: the walls of mcps that do not say otherwise.
        profile: Profile = Profile::Strict, any();
        /// Lets mcps ask for the host's network. They reach all it does, services on loopback included,
        /// but for link-local and metadata addresses.
        allow_network_host: bool = false, any();
        /// Lets mcps name hosts with private addresses (`HOST/private`): services on loopback included,
        /// link-local and metadata addresses never.
        allow_network_private: bool = false, any();
        /// Mcps may declare paths beneath these for their isolates to see.
        path_roots: Vec<String> = vec!["/srv".into(), "/opt".into()], any();
        /// The first of the uids (and gids) isolates run as; each user has one of them. Where the server is not root:
        /// a part of what `/etc/subuid` and `/etc/subgid` give its account; else all of that is taken.
        uid_base: u32 = limits::UID_BASE, within(10_000, 4_000_000_000);
        /// How many there are.
        uid_count: u32 = limits::UID_COUNT, within(2, 1 << 24);
    }
}

section! {
    /// Log lines, on standard error.
    Log = "log" {
        /// `error`, `warn`, `info`, `debug` or `trace`.
        level: Level = Level::Info, any();
        /// `auto` (text on a terminal, else JSON), `text` or `json`.
        format: Format = Format::Auto, any();
    }
}
