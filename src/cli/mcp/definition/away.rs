//! The options that describe a server behind HTTP.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::api::admin::mcps::RemoteChange;
use crate::domain::remote::{Endpoint, Field, Reach, Remote, Transport};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TransportArg {
    /// Streamable HTTP, which nearly all speak
    Streamable,
    /// HTTP with SSE, the transport of 2024
    Sse,
}

impl From<TransportArg> for Transport {
    fn from(arg: TransportArg) -> Self {
        match arg {
            TransportArg::Streamable => Self::Streamable,
            TransportArg::Sse => Self::Sse,
        }
    }
}

/// What only a process that is started here has.
const OF_COMMANDS: [&str; 13] = [
    "command",
    "env",
    "memory",
    "pids",
    "cpu",
    "profile",
    "network",
    "hosts",
    "read",
    "write",
    "install",
    "install_scripts",
    "install_timeout",
];

/// What may be said of a server behind HTTP.
#[derive(Debug, Args)]
pub(super) struct Away {
    /// The address of a server that runs elsewhere and speaks MCP over HTTP, in place of a command
    #[arg(long, value_name = "URL", conflicts_with_all = OF_COMMANDS)]
    pub(super) url: Option<Endpoint>,
    /// How it speaks [default: streamable]
    #[arg(long, value_enum, value_name = "HOW")]
    transport: Option<TransportArg>,
    /// A header of every request to it, which is no secret; `{user.name}` and `{user.id}` are filled in; may
    /// be repeated
    #[arg(long = "header", value_parser = header, value_name = "NAME=VALUE")]
    headers: Vec<(Field, String)>,
    /// Whether it may be on this host or on a private network, and be spoken to without TLS [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    allow_private: Option<bool>,
    /// A PEM file of the authorities its certificate may be of, in place of the system's; `-` for those
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

fn header(text: &str) -> Result<(Field, String), String> {
    let Some((name, value)) = text.split_once('=') else {
        return Err("expected NAME=VALUE".to_owned());
    };
    let name = Field::parse(name).map_err(|wrong| wrong.to_string())?;
    Ok((name, value.trim().to_owned()))
}

/// A path as the gateway will find it, wherever the command is typed.
fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

impl Away {
    pub(super) fn is_nothing(&self) -> bool {
        self.url.is_none()
            && self.transport.is_none()
            && self.headers.is_empty()
            && self.allow_private.is_none()
            && self.ca.is_none()
    }

    fn reach(&self) -> Option<Reach> {
        self.allow_private.map(|allowed| match allowed {
            true => Reach::Private,
            false => Reach::Public,
        })
    }

    fn ca(&self) -> Option<Option<PathBuf>> {
        let ca = self.ca.as_deref()?;
        Some((ca != Path::new("-")).then(|| whole(ca)))
    }

    pub(super) fn remote(&self, url: &Endpoint) -> Remote {
        Remote {
            url: url.clone(),
            transport: self.transport.map(Transport::from).unwrap_or_default(),
            headers: self.headers.iter().cloned().collect(),
            reach: self.reach().unwrap_or_default(),
            ca: self.ca().flatten(),
        }
    }

    pub(super) fn change(&self, removed: &[Field]) -> RemoteChange {
        let removed = removed.iter().map(|name| (name.clone(), None));
        let set = self.headers.iter().cloned();
        RemoteChange {
            url: self.url.clone(),
            transport: self.transport.map(Transport::from),
            headers: removed
                .chain(set.map(|(name, value)| (name, Some(value))))
                .collect(),
            reach: self.reach(),
            ca: self.ca(),
        }
    }
}
