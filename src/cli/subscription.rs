//! `legation subscription …`.

use clap::Subcommand;

use super::client::{escape, path};
use super::error::{Done, Exit};
use super::group::told;
use super::key::time;
use super::table::{Cell, Table};
use super::{Desk, name};
use crate::api::admin::groups::Changed;
use crate::api::admin::subscriptions::{NewSubscription, Subscribed, SubscriptionView};
use crate::domain::name::Name;

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionCommand {
    /// Let a key see an mcp that its user's groups are granted
    Add {
        /// The key's id, or a part of its beginning that no other has
        key: String,
        #[arg(value_parser = name)]
        mcp: Name,
    },
    /// Hide an mcp from a key
    Remove {
        /// The key's id, or a part of its beginning that no other has
        key: String,
        #[arg(value_parser = name)]
        mcp: Name,
    },
    /// Show who sees what, under which names
    List {
        /// Only this key's
        #[arg(long, value_name = "ID")]
        key: Option<String>,
    },
}

pub(super) async fn run(command: SubscriptionCommand, mut desk: Desk) -> Done {
    match command {
        SubscriptionCommand::Add { key, mcp } => {
            let body = NewSubscription { key, mcp };
            let made: Subscribed = desk.client.post("/v1/subscriptions", Some(&body)).await?;
            let id = made.key.as_str();
            desk.out.one(&made, id, |out| {
                let names: Vec<_> = made
                    .tools
                    .iter()
                    .map(|tool| tool.exposed.as_str())
                    .collect();
                let (mcp, count) = (&made.mcp, names.len());
                out.line(&format!(
                    "key {id} sees {count} tools of {mcp}: {}",
                    names.join(", ")
                ))
            })?;
            desk.out
                .say("a client shows them when it lists its tools again (five minutes at most)");
            Ok(Exit::Ok)
        }
        SubscriptionCommand::Remove { key, mcp } => {
            desk.confirm(&format!("hide mcp {mcp} from key {key}"))?;
            let path = path(&["subscriptions", &key, mcp.as_str()]);
            let done: Changed = desk.client.delete(&path).await?;
            told(
                done,
                &format!("key {key} does not see {mcp}"),
                &key,
                &mut desk,
            )
        }
        SubscriptionCommand::List { key } => {
            let path = match &key {
                Some(key) => format!("/v1/subscriptions?key={}", escape(key)),
                None => "/v1/subscriptions".to_owned(),
            };
            let all: Vec<SubscriptionView> = desk.client.get(&path).await?;
            desk.out
                .list(&all, table, |one| format!("{}/{}", one.key, one.mcp))?;
            Ok(Exit::Ok)
        }
    }
}

fn table(all: &[SubscriptionView], wide: bool) -> Table {
    let mut titles = vec!["KEY", "USER", "LABEL", "MCP"];
    if wide {
        titles.push("SINCE");
    }
    titles.push("TOOLS");
    let mut table = Table::new(&titles);
    for one in all {
        let mut row = vec![
            Cell::from(one.key.as_str()),
            one.user.as_str().into(),
            one.key_label.as_str().into(),
            one.mcp.as_str().into(),
        ];
        if wide {
            row.push(time(one.created_at).into());
        }
        row.push(one.tools.join(", ").into());
        table.row(row);
    }
    table
}
