//! `legation credential …`: values come from standard input or a file, never from the command line.

use std::io::Read;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::client::{escape, path};
use super::error::{CliError, Done, Exit};
use super::key::time;
use super::table::{Cell, Table};
use super::{Desk, name};
use crate::api::admin::credentials::{CredentialChanged, CredentialView, SetCredential};
use crate::domain::limits::CREDENTIAL_BYTES_MAX;
use crate::domain::name::{CredentialName, Name};

/// Whose value.
#[derive(Debug, Args)]
pub(super) struct Holder {
    /// This user's
    #[arg(long, value_parser = name, required_unless_present = "shared", conflicts_with = "shared")]
    user: Option<Name>,
    /// Everybody's: for a shared mcp, and for discovering one
    #[arg(long)]
    shared: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Set a value, read from standard input; replaces the user's isolates after their calls
    Set {
        #[command(flatten)]
        holder: Holder,
        #[arg(long, value_parser = name)]
        mcp: Name,
        /// Which of the mcp's credentials
        #[arg(value_parser = CredentialName::parse)]
        name: CredentialName,
        /// Read the value from this file instead
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// Keep a line break at the end
        #[arg(long)]
        raw: bool,
    },
    /// Show which are set and which are missing; never a value
    Status {
        /// Only this user's
        #[arg(long, value_parser = name)]
        user: Option<Name>,
    },
    /// Forget a value; replaces the user's isolates after their calls
    Remove {
        #[command(flatten)]
        holder: Holder,
        #[arg(long, value_parser = name)]
        mcp: Name,
        /// Which of the mcp's credentials
        #[arg(value_parser = CredentialName::parse)]
        name: CredentialName,
    },
}

pub(super) async fn run(command: CredentialCommand, mut desk: Desk) -> Done {
    match command {
        CredentialCommand::Set {
            holder,
            mcp,
            name,
            file,
            raw,
        } => {
            let value = read(file, raw)?;
            let body = SetCredential {
                user: holder.user.map(|user| user.to_string()),
                mcp,
                name: name.clone(),
                value: value.to_string(),
            };
            let done: CredentialChanged = desk.client.post("/v1/credentials", Some(&body)).await?;
            let version = done.version.unwrap_or(0);
            desk.out.one(&done, name.as_str(), |out| {
                out.line(&format!("{name} is set, version {version}"))
            })?;
            replaced(&done, &desk);
            Ok(Exit::Ok)
        }
        CredentialCommand::Status { user } => {
            let path = match &user {
                Some(user) => format!("/v1/credentials?user={}", escape(user.as_str())),
                None => "/v1/credentials".to_owned(),
            };
            let all: Vec<CredentialView> = desk.client.get(&path).await?;
            desk.out.list(&all, table, |one| {
                let whose = one.user.as_deref().unwrap_or("shared");
                format!("{whose}/{}/{}", one.mcp, one.name)
            })?;
            Ok(Exit::Ok)
        }
        CredentialCommand::Remove { holder, mcp, name } => {
            desk.confirm(&format!("forget credential {name} of mcp {mcp}"))?;
            let mut path = path(&["credentials", mcp.as_str(), name.as_str()]);
            if let Some(user) = &holder.user {
                path = format!("{path}?user={}", escape(user.as_str()));
            }
            let done: CredentialChanged = desk.client.delete(&path).await?;
            desk.out.one(&done, name.as_str(), |out| {
                out.line(match done.changed {
                    true => "it is forgotten",
                    false => "it was not set",
                })
            })?;
            replaced(&done, &desk);
            Ok(Exit::Ok)
        }
    }
}

fn replaced(done: &CredentialChanged, desk: &Desk) {
    if done.isolates_replaced > 0 {
        desk.out.say(&format!(
            "{} isolates are replaced, each after its calls in flight",
            done.isolates_replaced
        ));
    }
}

/// Reads the value; one line break at its end is the shell's, unless it is to be kept.
fn read(file: Option<PathBuf>, raw: bool) -> Result<Zeroizing<String>, CliError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let most = u64::try_from(CREDENTIAL_BYTES_MAX).unwrap_or(u64::MAX) + 2;
    let from = match &file {
        Some(path) => format!("{}", path.display()),
        None => "standard input".to_owned(),
    };
    let read = match file {
        Some(path) => {
            std::fs::File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
        }
        None => std::io::stdin().lock().take(most).read_to_end(&mut bytes),
    };
    read.map_err(|error| CliError::Usage(format!("cannot read the value from {from}: {error}")))?;
    let mut text = std::str::from_utf8(&bytes)
        .map_err(|_| CliError::Usage(format!("the value from {from} is no UTF-8 text")))?;
    if !raw {
        text = text.strip_suffix('\n').unwrap_or(text);
        text = text.strip_suffix('\r').unwrap_or(text);
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn table(all: &[CredentialView], wide: bool) -> Table {
    let mut titles = vec!["USER", "MCP", "NAME", "STATE", "TO", "VERSION", "SET"];
    if wide {
        titles.push("BY");
    }
    let mut table = Table::new(&titles);
    for one in all {
        let mut row = vec![
            Cell::from(one.user.as_deref().unwrap_or("(shared)")),
            one.mcp.as_str().into(),
            one.name.as_str().into(),
            Cell::state(&one.state),
            Cell::maybe(one.to.as_deref()),
            Cell::maybe(one.version),
            Cell::maybe(one.set_at.map(time)),
        ];
        if wide {
            row.push(Cell::maybe(one.set_by.as_deref()));
        }
        table.row(row);
    }
    table
}
