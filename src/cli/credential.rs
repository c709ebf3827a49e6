//! `legation credential …`: values come from standard input or a file, never from the command line.

use std::io::Read;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::client::{escape, path};
use super::error::{CliError, Done, Exit};
use super::key::time;
use super::table::{Cell, Table};
use super::{Desk, name};
use crate::api::admin::credentials::{CredentialChanged, CredentialView, Encoding, SetCredential};
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
        /// Its name or id
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
        /// Only this mcp's
        #[arg(long, value_parser = name)]
        mcp: Option<Name>,
    },
    /// Forget a value; replaces the user's isolates after their calls
    Remove {
        #[command(flatten)]
        holder: Holder,
        /// Its name or id
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
            let bytes = read(file, raw)?;
            let (value, encoding) = written(&bytes);
            let body = SetCredential {
                user: holder.user.map(|user| user.to_string()),
                mcp,
                name: name.clone(),
                value,
                encoding,
            };
            let done: CredentialChanged = desk.client.post("/v1/credentials", Some(&body)).await?;
            let version = done.version.unwrap_or(0);
            desk.out.one(&done, name.as_str(), |out| {
                out.line(&format!("{name} is set, version {version}"))
            })?;
            replaced(&done, &desk);
            Ok(Exit::Ok)
        }
        CredentialCommand::Status { user, mcp } => {
            let asked: Vec<String> = [("user", user), ("mcp", mcp)]
                .into_iter()
                .filter_map(|(word, name)| Some(format!("{word}={}", escape(name?.as_str()))))
                .collect();
            let path = format!("/v1/credentials?{}", asked.join("&"));
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
            desk.out
                .one(&done, name.as_str(), |out| out.line("it is forgotten"))?;
            replaced(&done, &desk);
            Ok(Exit::Ok)
        }
    }
}

fn replaced(done: &CredentialChanged, desk: &Desk) {
    if done.isolates_replaced > 0 {
        desk.out.say(&format!(
            "{} isolates are replaced, each after its calls in flight, and new calls of it wait for those: \
             legation call list shows them, legation isolate restart ID ends them",
            done.isolates_replaced
        ));
    }
}

/// Reads the value; one line break at its end is the shell's, unless it is to be kept.
fn read(file: Option<PathBuf>, raw: bool) -> Result<Zeroizing<Vec<u8>>, CliError> {
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
    if !raw && bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    Ok(bytes)
}

/// A value as a request carries it: text as it is, other bytes in base64.
fn written(bytes: &[u8]) -> (String, Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), Encoding::Text),
        Err(_) => (STANDARD.encode(bytes), Encoding::Base64),
    }
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
