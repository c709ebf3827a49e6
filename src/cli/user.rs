//! `legation user …` and `legation session …`.

use clap::Subcommand;

use super::client::{NOTHING, path};
use super::error::{CliError, Done, Exit};
use super::kill::{denied, lifted};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::units::age;
use super::{Desk, isolate, key, name, subscription};
use crate::actors::views::{DenyReport, DenyView, SessionView, UserRemoved};
use crate::api::admin::isolates::Reason;
use crate::api::admin::users::{NewName, UserDetail, UserView};
use crate::domain::account::User;
use crate::domain::name::Name;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user
    Add {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// End a user's sessions, kill their isolates, refuse them until resumed
    Suspend {
        #[arg(value_parser = name)]
        name: Name,
        /// What their clients are told
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Let a suspended user in again
    Resume {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Remove a suspended user for good: keys, memberships, credentials, homes; their name is free again
    Remove {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Show one: their groups, keys, subscriptions and isolates
    Show {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Show all users
    List,
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Show all registered sessions
    List,
}

pub(super) async fn run(command: UserCommand, mut desk: Desk) -> Done {
    match command {
        UserCommand::Add { name } => {
            let user: User = desk
                .client
                .post("/v1/users", Some(&NewName { name }))
                .await?;
            let name = user.name.as_str();
            desk.out.one(&user, name, |out| {
                out.line(&format!("user {name} is there"))
            })?;
            desk.out
                .say(&format!("next: legation group member add GROUP {name}"));
            Ok(Exit::Ok)
        }
        UserCommand::Suspend { name, reason } => {
            desk.confirm(&format!(
                "suspend user {name}, ending all they have running"
            ))?;
            let path = path(&["users", name.as_str(), "suspend"]);
            let report: DenyReport = desk.client.post(&path, Some(&Reason { reason })).await?;
            denied(&report, &format!("legation user resume {name}"), &mut desk)
        }
        UserCommand::Resume { name } => {
            let path = path(&["users", name.as_str(), "resume"]);
            let view: DenyView = desk.client.post(&path, NOTHING).await?;
            lifted(&view, &mut desk)?;
            desk.out.say(&format!(
                "the clients of {name} register anew by themselves"
            ));
            Ok(Exit::Ok)
        }
        UserCommand::Remove { name } => {
            desk.confirm(&format!(
                "remove user {name} for good, with all keys, credentials and files of theirs"
            ))?;
            let path = path(&["users", name.as_str()]);
            // Homes may be large.
            let done: UserRemoved = desk.client.patient().delete(&path).await?;
            desk.out.one(&done, name.as_str(), |out| {
                let what = match done.finished {
                    true => {
                        format!("user {name} was removed before, and what was left of them is gone")
                    }
                    false => format!(
                        "user {name} is removed, with {} keys and {} credentials",
                        done.keys, done.credentials
                    ),
                };
                out.line(&format!("{what}; the audit log knows them as {}", done.id))
            })?;
            Ok(match &done.homes_left {
                None => Exit::Ok,
                Some(why) => {
                    desk.out
                        .say(&format!("their homes were not all removed: {why}"));
                    Exit::Partly
                }
            })
        }
        UserCommand::Show { name } => {
            let path = path(&["users", name.as_str()]);
            let detail: UserDetail = desk.client.get(&path).await?;
            desk.out
                .one(&detail, name.as_str(), |out| show(&detail, out))?;
            Ok(Exit::Ok)
        }
        UserCommand::List => {
            let users: Vec<UserView> = desk.client.get("/v1/users").await?;
            desk.out
                .list(&users, table, |view| view.user.name.to_string())?;
            Ok(Exit::Ok)
        }
    }
}

fn show(detail: &UserDetail, out: &mut Out) -> Result<(), CliError> {
    let (view, wide) = (&detail.user, out.wide());
    let mut facts = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        facts.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact("user", Cell::styled(view.user.name.as_str(), Style::Bold));
    fact("id", view.user.id.as_str().into());
    fact("state", state(view));
    if let Some(reason) = &view.suspended {
        fact("reason", reason.as_str().into());
    }
    if let Some(reason) = &detail.switched_off {
        fact("kill switch", Cell::styled(reason.as_str(), Style::Bad));
    }
    let groups: Vec<_> = view.groups.iter().map(Name::as_str).collect();
    let groups = Some(groups.join(", ")).filter(|text| !text.is_empty());
    fact("groups", Cell::maybe(groups));
    out.table(&facts)?;
    let tables = [
        (!detail.keys.is_empty()).then(|| key::table(&detail.keys, wide)),
        (!detail.subscriptions.is_empty())
            .then(|| subscription::table(&detail.subscriptions, wide)),
        (!detail.isolates.is_empty()).then(|| isolate::table(&detail.isolates, wide)),
    ];
    for table in tables.into_iter().flatten() {
        out.raw("\n")?;
        out.table(&table)?;
    }
    Ok(())
}

fn state(view: &UserView) -> Cell {
    Cell::state(match view.suspended {
        Some(_) => "suspended",
        None => "active",
    })
}

/// Users under titles.
pub(super) fn table(users: &[UserView], wide: bool) -> Table {
    let mut titles = vec!["NAME", "STATE", "GROUPS", "KEYS"];
    if wide {
        titles.push("ID");
    }
    titles.push("REASON");
    let mut table = Table::new(&titles);
    for view in users {
        let groups: Vec<_> = view.groups.iter().map(Name::as_str).collect();
        let mut row = vec![
            Cell::from(view.user.name.as_str()),
            state(view),
            groups.join(", ").into(),
            view.keys.to_string().into(),
        ];
        if wide {
            row.push(view.user.id.as_str().into());
        }
        row.push(view.suspended.clone().unwrap_or_default().into());
        table.row(row);
    }
    table
}

pub(super) async fn sessions(command: SessionCommand, mut desk: Desk) -> Done {
    let SessionCommand::List = command;
    let sessions: Vec<SessionView> = desk.client.get("/v1/sessions").await?;
    desk.out
        .list(&sessions, session_table, |session| session.id.clone())?;
    Ok(Exit::Ok)
}

fn session_table(sessions: &[SessionView], wide: bool) -> Table {
    let mut titles = vec!["ID", "USER", "KEY", "CLIENT", "TOOL", "SINCE", "SEEN"];
    if wide {
        titles.extend(["EXPIRES IN", "KEY ID"]);
    }
    let mut table = Table::new(&titles);
    for session in sessions {
        let mut row = vec![
            Cell::from(session.id.as_str()),
            session.user.as_str().into(),
            session.key_label.as_str().into(),
            session.friendly_name.as_str().into(),
            session.host_tool.as_str().into(),
            age(session.created_ms_ago).into(),
            format!("{} ago", age(session.seen_ms_ago)).into(),
        ];
        if wide {
            row.push(age(session.expires_in_ms).into());
            row.push(session.key.as_str().into());
        }
        table.row(row);
    }
    table
}
