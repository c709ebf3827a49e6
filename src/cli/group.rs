//! `legation group …`.

use clap::Subcommand;

use super::client::path;
use super::error::{Done, Exit};
use super::table::{Cell, Table};
use super::{Desk, name};
use crate::api::admin::groups::{Changed, GroupView, NewGrant, NewMember};
use crate::api::admin::users::NewName;
use crate::domain::account::Group;
use crate::domain::name::Name;

#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// Add a group
    Add {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Put users into groups and take them out
    #[command(subcommand)]
    Member(MemberCommand),
    /// Grant a group an mcp
    ///
    /// New keys of its members are subscribed to it by themselves. Keys that exist are not: a
    /// client's tools must not change behind its owner's back. For them:
    /// legation subscription add KEY MCP
    Grant {
        #[arg(value_parser = name)]
        group: Name,
        #[arg(value_parser = name)]
        mcp: Name,
    },
    /// Take a granted mcp away from a group
    Revoke {
        #[arg(value_parser = name)]
        group: Name,
        #[arg(value_parser = name)]
        mcp: Name,
    },
    /// Show all groups
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// Put a user into a group
    Add {
        #[arg(value_parser = name)]
        group: Name,
        #[arg(value_parser = name)]
        user: Name,
    },
    /// Take a user out of a group
    Remove {
        #[arg(value_parser = name)]
        group: Name,
        #[arg(value_parser = name)]
        user: Name,
    },
}

pub(super) async fn run(command: GroupCommand, mut desk: Desk) -> Done {
    match command {
        GroupCommand::Add { name } => {
            let group: Group = desk
                .client
                .post("/v1/groups", Some(&NewName { name }))
                .await?;
            let name = group.name.as_str();
            desk.out.one(&group, name, |out| {
                out.line(&format!("group {name} is there"))
            })?;
            Ok(Exit::Ok)
        }
        GroupCommand::Member(command) => member(command, desk).await,
        GroupCommand::Grant { group, mcp } => {
            let path = path(&["groups", group.as_str(), "grants"]);
            let body = NewGrant { mcp: mcp.clone() };
            let done: Changed = desk.client.post(&path, Some(&body)).await?;
            told(
                done,
                &format!("group {group} is granted {mcp}"),
                group.as_str(),
                &mut desk,
            )?;
            desk.out
                .say("keys that exist: legation subscription add KEY MCP");
            Ok(Exit::Ok)
        }
        GroupCommand::Revoke { group, mcp } => {
            desk.confirm(&format!("take mcp {mcp} away from group {group}"))?;
            let path = path(&["groups", group.as_str(), "grants", mcp.as_str()]);
            let done: Changed = desk.client.delete(&path).await?;
            told(
                done,
                &format!("group {group} is not granted {mcp}"),
                group.as_str(),
                &mut desk,
            )
        }
        GroupCommand::List => {
            let groups: Vec<GroupView> = desk.client.get("/v1/groups").await?;
            desk.out
                .list(&groups, table, |view| view.group.name.to_string())?;
            Ok(Exit::Ok)
        }
    }
}

async fn member(command: MemberCommand, mut desk: Desk) -> Done {
    match command {
        MemberCommand::Add { group, user } => {
            let path = path(&["groups", group.as_str(), "members"]);
            let body = NewMember { user: user.clone() };
            let done: Changed = desk.client.post(&path, Some(&body)).await?;
            told(
                done,
                &format!("user {user} is in group {group}"),
                user.as_str(),
                &mut desk,
            )
        }
        MemberCommand::Remove { group, user } => {
            desk.confirm(&format!("take user {user} out of group {group}"))?;
            let path = path(&["groups", group.as_str(), "members", user.as_str()]);
            let done: Changed = desk.client.delete(&path).await?;
            told(
                done,
                &format!("user {user} is not in group {group}"),
                user.as_str(),
                &mut desk,
            )
        }
    }
}

/// Says how it is now, and whether that is new.
pub(super) fn told(done: Changed, how: &str, name: &str, desk: &mut Desk) -> Done {
    let suffix = if done.changed { "" } else { ", as before" };
    desk.out
        .one(&done, name, |out| out.line(&format!("{how}{suffix}")))?;
    Ok(Exit::Ok)
}

fn table(groups: &[GroupView], wide: bool) -> Table {
    let mut titles = vec!["NAME", "MEMBERS", "GRANTS"];
    if wide {
        titles.push("ID");
    }
    let mut table = Table::new(&titles);
    let joined = |names: &[Name]| {
        let names: Vec<_> = names.iter().map(Name::as_str).collect();
        Cell::from(names.join(", "))
    };
    for view in groups {
        let name = Cell::from(view.group.name.as_str());
        let mut row = vec![name, joined(&view.members), joined(&view.grants)];
        if wide {
            row.push(view.group.id.as_str().into());
        }
        table.row(row);
    }
    table
}
