//! `legation group …`.

use clap::Subcommand;

use super::client::path;
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::{Desk, mcp, name, user};
use crate::api::admin::groups::{Changed, GroupDetail, GroupView, NewGrant, NewMember};
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
    /// legation subscription add --group GROUP MCP
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
    /// Show one: its members, its grants and how many of their keys see them
    Show {
        #[arg(value_parser = name)]
        name: Name,
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
            // It is granted, whatever comes of asking.
            let path = super::client::path(&["groups", group.as_str()]);
            if let Ok(detail) = desk.client.get(&path).await
                && let Some(blind) = blind(&detail, &mcp)
            {
                desk.out.say(&format!(
                    "{blind} not see it yet: legation subscription add --group {group} {mcp}"
                ));
            }
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
        GroupCommand::Show { name } => {
            let path = path(&["groups", name.as_str()]);
            let detail: GroupDetail = desk.client.get(&path).await?;
            desk.out
                .one(&detail, name.as_str(), |out| show(&detail, out))?;
            Ok(Exit::Ok)
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

/// Which of a group's keys do not see what it is granted, if any: the beginning of a sentence.
fn blind(detail: &GroupDetail, mcp: &Name) -> Option<String> {
    let grant = detail.grants.iter().find(|grant| grant.mcp == *mcp)?;
    match detail.keys.saturating_sub(grant.subscribed) {
        0 => None,
        1 => Some("1 key that exists does".to_owned()),
        keys => Some(format!("{keys} keys that exist do")),
    }
}

fn show(detail: &GroupDetail, out: &mut Out) -> Result<(), CliError> {
    let view = &detail.group;
    let mut facts = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        facts.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact("group", Cell::styled(view.group.name.as_str(), Style::Bold));
    fact("id", view.group.id.as_str().into());
    fact("members", detail.members.len().to_string().into());
    fact("keys", detail.keys.to_string().into());
    fact("grants", detail.grants.len().to_string().into());
    out.table(&facts)?;
    if !detail.members.is_empty() {
        out.raw("\n")?;
        let wide = out.wide();
        out.table(&user::table(&detail.members, wide))?;
    }
    if !detail.grants.is_empty() {
        out.raw("\n")?;
        let mut grants = Table::new(&["MCP", "STATE", "KEYS THAT SEE IT"]);
        for one in &detail.grants {
            grants.row(vec![
                Cell::from(one.mcp.as_str()),
                Cell::state(mcp::state_word(one.state)),
                format!("{} of {}", one.subscribed, detail.keys).into(),
            ]);
        }
        out.table(&grants)?;
    }
    Ok(())
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
