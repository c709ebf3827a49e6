//! The configuration: built in, then `legation.toml`, `conf.d/*.toml` in the order of their
//! names, the environment (`LEGATION__SECTION__KEY`), and flags; each layer overrides those before
//! it, key by key. Every value knows where it came from; an unknown key is an error that names it,
//! its line and what was probably meant; all problems are reported at once.

mod check;
mod cidr;
mod layers;
pub(crate) mod nearest;
mod schema;
mod show;

pub mod calls;
pub mod client;
pub mod install;
pub mod isolates;
pub mod ops;
pub mod regular;
pub mod server;
pub mod sessions;
pub mod storage;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub use cidr::{Cidr, CidrError};
pub use layers::Sources;
pub use schema::{Key, Kind};
pub use show::{Entry, Shown, entries, render, render_reference};

use calls::Calls;
use client::Client;
use install::Install;
use isolates::{Isolates, Restart};
use ops::Ops;
use server::{Admin, Audit, Log, Sandbox, Server};
use sessions::Sessions;
use storage::Storage;

use crate::domain::mcp::{Defaults, Limits, Times};

/// Where the configuration is looked for if nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/legation/legation.toml";

/// Environment variables of ours start with this.
pub const ENV_PREFIX: &str = "LEGATION__";

macro_rules! config {
    ($($(#[$doc:meta])* $field:ident: $section:ident,)+) => {
        /// The whole configuration.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $field: $section,)+
        }

        impl Config {
    /// What an mcp has that does not say otherwise.
    #[must_use]
    pub fn mcp_defaults(&self) -> Defaults {
        let isolates = &self.isolates;
        Defaults {
            limits: Limits {
                memory_bytes: isolates.memory_bytes,
                pids: isolates.pids,
                cpu_millis: isolates.cpu_millis,
                ..Limits::default()
            },
            times: Times {
                call_ms: self.calls.deadline_ms,
                start_ms: None,
                idle_ms: Some(isolates.idle_ms),
            },
        }
    }

            /// The sections: name and what they are about.
            pub const SECTIONS: &'static [(&'static str, &'static str)] =
                &[$((stringify!($field), $section::ABOUT),)+];

            /// Every key there is, section by section.
            #[must_use]
            pub fn keys() -> Vec<&'static Key> {
                [$($section::KEYS,)+].into_iter().flatten().collect()
            }

            fn set(&mut self, key: &Key, value: toml::Value) -> Result<(), toml::de::Error> {
                match key.section {
                    $(stringify!($field) => self.$field.set(key.name, value),)+
                    _ => Ok(()),
                }
            }

            /// The value of a key as TOML; `None` if it is not set.
            #[must_use]
            pub fn get(&self, key: &Key) -> Option<toml::Value> {
                match key.section {
                    $(stringify!($field) => self.$field.get(key.name),)+
                    _ => None,
                }
            }
        }
    };
}

config! {
    /// The server as a whole.
    server: Server,
    /// The port clients talk to.
    client: Client,
    /// The socket the command line talks to.
    admin: Admin,
    /// Health and metrics.
    ops: Ops,
    /// Registered clients.
    sessions: Sessions,
    /// Tool calls.
    calls: Calls,
    /// Users' running copies of mcps.
    isolates: Isolates,
    /// How packages are installed.
    install: Install,
    /// When a server that failed starts again.
    restart: Restart,
    /// The database.
    storage: Storage,
    /// The audit log.
    audit: Audit,
    /// The walls around isolates.
    sandbox: Sandbox,
    /// Log lines.
    log: Log,
}

/// Where a value came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    BuiltIn,
    /// A file.
    File {
        /// Which.
        path: PathBuf,
        /// On which line.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// Where each value came from, by `section.key`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Where the value of `section.key` came from.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or_default()
    }
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`, or the section alone.
    pub key: String,
    /// Where it was set.
    pub origin: Origin,
    /// What is wrong and what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.key, self.what)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file or folder cannot be read.
    #[error("could not read the configuration `{}`: check the path and its permissions", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// More than we read.
    #[error("the configuration `{}` is too large: {what}", path.display())]
    TooLarge {
        /// Which file or folder.
        path: PathBuf,
        /// What the bound is.
        what: String,
    },
    /// A file is not TOML.
    #[error("{}:{line}: not valid TOML: {message}", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// On which line.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// Keys or values are wrong: all of them, not just the first.
    #[error("the configuration is wrong:{}", lines(.0))]
    Invalid(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|one| format!("\n  {one}")).collect()
}

// === impl Config ===

impl Config {
    /// Reads all layers and checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`]; nothing is half applied.
    pub fn load(sources: &Sources) -> Result<(Self, Origins), ConfigError> {
        let mut problems = Vec::new();
        let (config, origins) = layers::merge(sources, &mut problems)?;
        // A wrong value was not taken over, so that its neighbours are checked as well.
        problems.extend(config.check(&origins));
        if problems.is_empty() {
            Ok((config, origins))
        } else {
            Err(ConfigError::Invalid(problems))
        }
    }

    /// What is wrong with the configuration as a whole; empty if nothing is. Offline: looks at no
    /// file, port or user.
    #[must_use]
    pub fn check(&self, origins: &Origins) -> Vec<Problem> {
        check::check(self, origins)
    }

    /// The admin socket's path.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        let in_data = || self.server.data_dir.join("admin.sock");
        self.admin.socket.clone().unwrap_or_else(in_data)
    }

    /// The audit log's directory.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        let in_data = || self.server.data_dir.join("audit");
        self.audit.dir.clone().unwrap_or_else(in_data)
    }
}

#[cfg(test)]
mod tests;
