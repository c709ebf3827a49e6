//! `legation vault …`.

use clap::Subcommand;

use super::Desk;
use super::client::NOTHING;
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use crate::actors::views::VaultView;

#[derive(Debug, Subcommand)]
pub(super) enum VaultCommand {
    /// Show which keys there are and how far a rotation is
    Status,
    /// Make a new master key and seal everything anew under it; restarts nothing. Earlier backups of
    /// the database open only with the key file of their time
    Rotate,
    /// Make a new key that signs session tokens; tokens of the old one work for the grace
    RotateTokens,
}

pub(super) async fn run(command: VaultCommand, mut desk: Desk) -> Done {
    match command {
        VaultCommand::Status => {
            let view: VaultView = desk.client.get("/v1/vault").await?;
            let key = view.master_key.to_string();
            desk.out.one(&view, &key, |out| show(&view, out))?;
        }
        VaultCommand::Rotate => {
            desk.confirm(
                "make a new master key: backups of the database that were made before open only with keys/master.key \
                 as it is now, which is not kept here; copy it to them first",
            )?;
            let view: VaultView = desk.client.post("/v1/vault/rotate", NOTHING).await?;
            let key = view.master_key.to_string();
            desk.out.one(&view, &key, |out| {
                out.line(&format!(
                    "master key {key} seals from now on; {} credentials are sealed anew",
                    view.credentials
                ))
            })?;
            desk.out.say(
                "back up keys/master.key together with the database once this is done: earlier backups of the \
                 database do not open with the new key; progress: legation vault status",
            );
        }
        VaultCommand::RotateTokens => {
            desk.confirm("have every client register again once the grace is over")?;
            let view: VaultView = desk.client.post("/v1/vault/rotate-tokens", NOTHING).await?;
            let key = view.token_key.to_string();
            desk.out.one(&view, &key, |out| {
                out.line(&format!("token key {key} signs from now on"))
            })?;
        }
    }
    Ok(Exit::Ok)
}

fn show(view: &VaultView, out: &mut Out) -> Result<(), CliError> {
    let list = |ids: Vec<String>| ids.join(", ");
    let mut table = Table::default();
    let mut line = |title: &str, cell: Cell| {
        table.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    line("master key", view.master_key.to_string().into());
    let kept = view.master_keys.iter().map(u32::to_string).collect();
    line("kept", list(kept).into());
    line("credentials", view.credentials.to_string().into());
    let progress = match (view.rotating, view.damaged) {
        (false, _) => Cell::from("none under way"),
        (true, 0) => format!("{} left to seal anew", view.remaining).into(),
        (true, damaged) => Cell::styled(
            format!("{damaged} do not open and keep an old key; set or remove them"),
            Style::Bad,
        ),
    };
    line("rotation", progress);
    line("token key", view.token_key.to_string().into());
    let grace: Vec<String> = view.token_keys_in_grace.iter().map(u8::to_string).collect();
    if !grace.is_empty() {
        line("in grace", list(grace).into());
    }
    out.table(&table)
}
