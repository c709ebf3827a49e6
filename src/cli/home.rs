//! `legation home …`: what isolates keep on the disk.

use clap::Subcommand;

use super::Desk;
use super::error::{Done, Exit};
use super::table::{Cell, Table};
use super::units::size;
use crate::actors::views::HomeView;

#[derive(Debug, Subcommand)]
pub(super) enum HomeCommand {
    /// Show all homes with their sizes, the largest first
    List,
}

pub(super) async fn run(command: HomeCommand, mut desk: Desk) -> Done {
    let HomeCommand::List = command;
    let homes: Vec<HomeView> = desk.client.get("/v1/homes").await?;
    desk.out
        .list(&homes, table, |home| home.path.display().to_string())?;
    Ok(Exit::Ok)
}

fn table(homes: &[HomeView], _: bool) -> Table {
    let mut table = Table::new(&["SIZE", "USER", "MCP", "PATH"]);
    for home in homes {
        let user = match (&home.user, home.shared) {
            (Some(user), _) => user.as_str(),
            (None, true) => "(shared)",
            (None, false) => "(nobody)",
        };
        table.row(vec![
            Cell::maybe(home.bytes.map(size)),
            user.into(),
            Cell::maybe(home.mcp.as_deref()),
            home.path.display().to_string().into(),
        ]);
    }
    table
}
