//! `legation subscription …`.

use clap::{Args, Subcommand};

use super::client::{escape, path};
use super::error::{Done, Exit};
use super::group::told;
use super::key::time;
use super::table::{Cell, Style, Table};
use super::{Desk, name};
use crate::api::admin::groups::Changed;
use crate::api::admin::subscribers::{NewSubscriptions, SubscribersReport, Whose};
use crate::api::admin::subscriptions::{Effect, NewSubscription, Subscribed, SubscriptionView};
use crate::domain::name::Name;

const SHOWN: &str = "a client shows them when it lists its tools again (five minutes at most)";

#[derive(Debug, Subcommand)]
pub(super) enum SubscriptionCommand {
    /// Let a key, or all keys of a user or a group, see an mcp that groups are granted
    Add(Which),
    /// Hide an mcp from a key, or from all keys of a user or a group
    Remove(Which),
    /// Show who sees what, under which names, and why somebody does not
    List {
        /// Only this key's
        #[arg(long, value_name = "ID")]
        key: Option<String>,
    },
}

/// Whose keys, and which mcp.
#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub(super) struct Which {
    /// The key's id, or a part of its beginning that no other has
    #[arg(required_unless_present_any = ["group", "user"])]
    key: Option<String>,
    #[arg(value_parser = name)]
    mcp: Name,
    /// All keys of this group's members that are neither revoked nor expired
    #[arg(long, value_parser = name, value_name = "NAME", conflicts_with_all = ["key", "user"])]
    group: Option<Name>,
    /// All keys of this user that are neither revoked nor expired
    #[arg(long, value_parser = name, value_name = "NAME", conflicts_with = "key")]
    user: Option<Name>,
}

impl Which {
    fn whose(&self) -> Option<Whose> {
        let group = self.group.clone().map(Whose::Group);
        group.or_else(|| self.user.clone().map(Whose::User))
    }
}

pub(super) async fn run(command: SubscriptionCommand, mut desk: Desk) -> Done {
    match command {
        SubscriptionCommand::Add(which) => match which.whose() {
            Some(of) => add_all(of, which.mcp, desk).await,
            None => add(which.key.unwrap_or_default(), which.mcp, desk).await,
        },
        SubscriptionCommand::Remove(which) => match which.whose() {
            Some(of) => remove_all(&of, &which.mcp, desk).await,
            None => remove(&which.key.unwrap_or_default(), &which.mcp, desk).await,
        },
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

async fn add(key: String, mcp: Name, mut desk: Desk) -> Done {
    let body = NewSubscription { key, mcp };
    let made: Subscribed = desk.client.post("/v1/subscriptions", Some(&body)).await?;
    let id = made.key.as_str();
    desk.out.one(&made, id, |out| {
        let tools = made.tools.iter();
        let names: Vec<_> = tools.map(|tool| tool.exposed.as_str()).collect();
        let (mcp, count) = (&made.mcp, names.len());
        out.line(&format!(
            "key {id} sees {count} tools of {mcp}: {}",
            names.join(", ")
        ))
    })?;
    desk.out.say(SHOWN);
    Ok(Exit::Ok)
}

async fn add_all(of: Whose, mcp: Name, mut desk: Desk) -> Done {
    let body = NewSubscriptions { of, mcp };
    let report: SubscribersReport = desk
        .client
        .patient()
        .post("/v1/subscribers", Some(&body))
        .await?;
    let exit = reported(&report, &of_whom(&body.of), ["see", "saw"], &mut desk)?;
    desk.out.say(SHOWN);
    Ok(exit)
}

async fn remove(key: &str, mcp: &Name, mut desk: Desk) -> Done {
    desk.confirm(&format!("hide mcp {mcp} from key {key}"))?;
    let path = path(&["subscriptions", key, mcp.as_str()]);
    let done: Changed = desk.client.delete(&path).await?;
    told(
        done,
        &format!("key {key} does not see {mcp}"),
        key,
        &mut desk,
    )
}

async fn remove_all(of: &Whose, mcp: &Name, mut desk: Desk) -> Done {
    let whom = of_whom(of);
    desk.confirm(&format!("hide mcp {mcp} from all keys of {whom}"))?;
    let (kind, name) = match of {
        Whose::Group(name) => ("group", name),
        Whose::User(name) => ("user", name),
    };
    let path = path(&["subscribers", kind, name.as_str(), mcp.as_str()]);
    let report: SubscribersReport = desk.client.patient().delete(&path).await?;
    let words = ["do not see", "did not see"];
    reported(&report, &whom, words, &mut desk)
}

fn of_whom(of: &Whose) -> String {
    match of {
        Whose::Group(name) => format!("group {name}"),
        Whose::User(name) => format!("user {name}"),
    }
}

/// How many keys it was done for; `now` and `before` are what they do and did.
fn reported(
    report: &SubscribersReport,
    whom: &str,
    [now, before]: [&str; 2],
    desk: &mut Desk,
) -> Done {
    let keys: Vec<_> = report.changed.iter().map(|key| key.as_str()).collect();
    desk.out.one(report, &keys.join("\n"), |out| {
        let (mcp, count) = (&report.mcp, keys.len());
        let before = match report.as_before {
            0 => String::new(),
            some => format!(", {some} {before} it before"),
        };
        out.line(&format!("{count} keys of {whom} {now} {mcp} now{before}"))
    })?;
    for failed in &report.failed {
        desk.out
            .say(&format!("not key {}: {}", failed.key, failed.why));
    }
    Ok(if report.failed.is_empty() {
        Exit::Ok
    } else {
        Exit::Partly
    })
}

/// Subscriptions under titles; those that have no effect say why, instead of names of tools.
pub(super) fn table(all: &[SubscriptionView], wide: bool) -> Table {
    let mut titles = vec!["KEY", "USER", "LABEL", "MCP", "STATE"];
    if wide {
        titles.push("SINCE");
    }
    titles.push("TOOLS");
    let mut table = Table::new(&titles);
    for one in all {
        let state = match one.state {
            Effect::Active => Cell::state("active"),
            other => Cell::styled(other.words(), Style::Warn),
        };
        let mut row = vec![
            Cell::from(one.key.as_str()),
            one.user.as_str().into(),
            one.key_label.as_str().into(),
            one.mcp.as_str().into(),
            state,
        ];
        if wide {
            row.push(time(one.created_at).into());
        }
        row.push(one.tools.join(", ").into());
        table.row(row);
    }
    table
}
