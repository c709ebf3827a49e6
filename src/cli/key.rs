//! `legation key …`.

use std::time::Duration;

use clap::Subcommand;

use super::client::{NOTHING, escape, path};
use super::error::{CliError, Done, Exit};
use super::kill::{denied, lifted};
use super::table::{Cell, Table};
use super::units::parse_deadline;
use super::{Desk, name};
use crate::actors::views::{DenyReport, DenyView};
use crate::api::admin::isolates::Reason;
use crate::api::admin::keys::{CreatedKey, KeyView, NewKey, RevokedKey};
use crate::domain::code::Code;
use crate::domain::name::Name;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key for a user; it is printed once, alone on stdout
    Create {
        #[arg(value_parser = name)]
        user: Name,
        /// What its owner calls it
        #[arg(long, default_value = "", value_name = "TEXT")]
        label: String,
        /// How long it works: 30d, 12h; for ever if not given
        #[arg(long, value_parser = parse_deadline, value_name = "DURATION")]
        expires_in: Option<Duration>,
        /// Do not subscribe it to what its user's groups are granted
        #[arg(long)]
        no_subscribe: bool,
    },
    /// Revoke a key: its sessions end, calls under way are cut off
    Revoke {
        /// Its id, or a part of its beginning that no other has
        id: String,
    },
    /// End a key's sessions and refuse it until resumed
    Suspend {
        /// Its id, or a part of its beginning that no other has
        id: String,
        /// What its clients are told
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Let a suspended key in again
    Resume {
        /// Its id, or a part of its beginning that no other has
        id: String,
    },
    /// Show all keys, never the secrets
    List {
        /// Only this user's
        #[arg(long, value_parser = name, value_name = "NAME")]
        user: Option<Name>,
    },
}

pub(super) async fn run(command: KeyCommand, mut desk: Desk) -> Done {
    match command {
        KeyCommand::Create {
            user,
            label,
            expires_in,
            no_subscribe,
        } => {
            let new = NewKey {
                user,
                label,
                expires_in_ms: expires_in.map(millis),
                subscribe: !no_subscribe,
            };
            create(&new, desk).await
        }
        KeyCommand::Revoke { id } => {
            desk.confirm(&format!("revoke key {id}"))?;
            let done: RevokedKey = desk.client.delete(&path(&["keys", &id])).await?;
            desk.out.one(&done, done.key.as_str(), |out| {
                let (key, ended, cut) = (&done.key, done.sessions_ended, done.calls_cancelled);
                out.line(&format!(
                    "key {key} is revoked, {ended} sessions ended, {cut} calls cut off"
                ))
            })?;
            Ok(Exit::Ok)
        }
        KeyCommand::Suspend { id, reason } => {
            desk.confirm(&format!("suspend key {id}, ending its sessions"))?;
            let path = path(&["keys", &id, "suspend"]);
            let report: DenyReport = desk.client.post(&path, Some(&Reason { reason })).await?;
            denied(&report, &format!("legation key resume {id}"), &mut desk)
        }
        KeyCommand::Resume { id } => {
            let path = path(&["keys", &id, "resume"]);
            let view: DenyView = desk.client.post(&path, NOTHING).await?;
            lifted(&view, &mut desk)
        }
        KeyCommand::List { user } => {
            let path = match &user {
                Some(user) => format!("/v1/keys?user={}", escape(user.as_str())),
                None => "/v1/keys".to_owned(),
            };
            let keys: Vec<KeyView> = desk.client.get(&path).await?;
            desk.out
                .list(&keys, table, |view| view.key.id.to_string())?;
            Ok(Exit::Ok)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

async fn create(new: &NewKey, mut desk: Desk) -> Done {
    let made: CreatedKey = desk.client.post("/v1/keys", Some(new)).await?;
    desk.out.say(&format!(
        "key {} of user {}; it is shown only now:",
        made.key.id, new.user
    ));
    // Alone on stdout, so that KEY=$(legation key create ada) does what it says.
    let id = made.key.id.to_string();
    let shown = desk
        .out
        .one(&made, &id, |out| out.line(made.secret.reveal()));
    if let Err(error) = shown {
        return Err(unshown(&id, new, &error, &desk).await);
    }
    let subscribed: Vec<_> = made.subscribed.iter().map(Name::as_str).collect();
    if !subscribed.is_empty() {
        desk.out
            .say(&format!("subscribed to {}", subscribed.join(", ")));
    } else if new.subscribe {
        let user = &new.user;
        desk.out.say(&format!(
            "subscribed to nothing: no group of {user} is granted anything; \
             legation group grant GROUP MCP, then legation subscription add --user {user} MCP"
        ));
    }
    for failed in &made.not_subscribed {
        desk.out
            .say(&format!("not subscribed to {}: {}", failed.mcp, failed.why));
    }
    desk.out
        .say(&format!("clients connect to {}", made.client_url));
    Ok(if made.not_subscribed.is_empty() {
        Exit::Ok
    } else {
        Exit::Partly
    })
}

/// A key that its owner never saw, and perhaps somebody else a part of it, is revoked again.
async fn unshown(id: &str, new: &NewKey, error: &CliError, desk: &Desk) -> CliError {
    let gone: Result<RevokedKey, CliError> = desk.client.delete(&path(&["keys", id])).await;
    let (message, next) = match gone {
        Ok(_) => (
            format!("{error}; key {id} could not be shown, so it was revoked again"),
            format!(
                "legation key create {}, where its output can be written",
                new.user
            ),
        ),
        Err(why) => (
            format!("{error}; key {id} could not be shown and is in force ({why})"),
            format!("legation key revoke {id}"),
        ),
    };
    CliError::Told {
        code: Code::OutputFailed,
        message,
        next,
    }
}

/// Keys under titles.
pub(super) fn table(keys: &[KeyView], wide: bool) -> Table {
    let mut titles = vec!["ID", "USER", "LABEL", "STATE", "MCPS", "LAST USED"];
    if wide {
        titles.extend(["PREFIX", "CREATED", "EXPIRES"]);
    }
    let mut table = Table::new(&titles);
    for view in keys {
        let key = &view.key;
        let used = key.last_used_at.map(time);
        let mut row = vec![
            Cell::from(key.id.as_str()),
            view.user_name.as_str().into(),
            key.label.as_str().into(),
            Cell::state(&view.state),
            view.subscriptions.to_string().into(),
            Cell::maybe(used),
        ];
        if wide {
            row.push(key.prefix.as_str().into());
            row.push(time(key.created_at).into());
            row.push(Cell::maybe(key.expires_at.map(time)));
        }
        table.row(row);
    }
    table
}

/// A moment in UTC, to the second.
pub(super) fn time(ms: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(ms);
    at.map_or_else(
        |_| ms.to_string(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_utc() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(1_700_000_000_999), "2023-11-14T22:13:20Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }
}
