//! `legation call …`.

use clap::Subcommand;

use super::client::path;
use super::error::{Done, Exit};
use super::isolate::left_over;
use super::table::{Cell, Table};
use super::units::age;
use super::{Desk, id};
use crate::actors::views::{CallList, CallView, CancelReport};
use crate::api::admin::calls::Cancel;

#[derive(Debug, Subcommand)]
pub(super) enum CallCommand {
    /// Show the calls under way, newest last
    List,
    /// End one call: its caller is told why, its server is told to stop
    Cancel {
        /// Its id, or a part of its beginning that no other has
        #[arg(value_parser = id)]
        id: String,
        /// What the caller is told
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
        /// Start the server afresh if it does not end the call, also if others share it
        #[arg(long, conflicts_with = "no_recycle")]
        recycle: bool,
        /// Let the server go on, also if it does not end the call
        #[arg(long)]
        no_recycle: bool,
    },
}

pub(super) async fn run(command: CallCommand, mut desk: Desk) -> Done {
    match command {
        CallCommand::List => {
            let list: CallList = desk.client.get("/v1/calls").await?;
            desk.out.list(&list.calls, table, |call| call.id.clone())?;
            let hidden = list.total.saturating_sub(list.calls.len() as u64);
            if hidden > 0 {
                desk.out.say(&format!("and {hidden} newer ones"));
            }
            Ok(Exit::Ok)
        }
        CallCommand::Cancel {
            id,
            reason,
            recycle,
            no_recycle,
        } => {
            if may_be_there(&desk.client.get("/v1/calls").await?, &id) {
                desk.confirm(&format!("cancel call {id}"))?;
            }
            let how = Cancel {
                reason,
                recycle: (recycle || no_recycle).then_some(recycle),
            };
            let path = path(&["calls", &id, "cancel"]);
            let done: CancelReport = desk.client.post(&path, Some(&how)).await?;
            desk.out
                .one(&done, &done.call, |out| out.line(&outcome(&done)))?;
            let left: Vec<i32> = done.left.iter().flat_map(|one| one.pids.clone()).collect();
            Ok(left_over(&left, &desk.out))
        }
    }
}

/// Whether a call of this id, or one that begins so, may be there: of one that is not, nothing is asked, and the server
/// says so.
fn may_be_there(list: &CallList, id: &str) -> bool {
    fn short(id: &str) -> &str {
        id.strip_prefix("call_").unwrap_or(id)
    }
    let is_whole = list.total <= list.calls.len() as u64;
    let mut calls = list.calls.iter();
    !is_whole || calls.any(|call| short(&call.id).starts_with(short(id)))
}

/// What happened, in one line.
fn outcome(done: &CancelReport) -> String {
    let call = &done.call;
    let isolate = done.isolate.as_deref().unwrap_or_default();
    let server = match done.server.as_str() {
        _ if done.recycled => format!(
            "its server did not end it within {} and isolate {isolate} was recycled, {} other \
             calls were told why",
            age(done.waited_ms),
            done.others_told
        ),
        "silent" => format!(
            "its server did not end it within {}; isolate {isolate} goes on, --recycle starts it \
             afresh",
            age(done.waited_ms)
        ),
        "answered" => format!("its server ended it after {}", age(done.waited_ms)),
        "ended" => format!("isolate {isolate} ended meanwhile"),
        _ => "no server had seen it yet".to_owned(),
    };
    format!("call {call} is cancelled: {server}")
}

fn table(calls: &[CallView], wide: bool) -> Table {
    let mut titles = vec!["ID", "USER", "MCP", "TOOL", "CLIENT", "AGE", "STATE"];
    if wide {
        titles.extend(["ISOLATE", "KEY", "SESSION"]);
    }
    let mut table = Table::new(&titles);
    for call in calls {
        let mut row = vec![
            Cell::from(call.id.as_str()),
            call.user.as_str().into(),
            call.mcp.as_str().into(),
            call.tool.as_str().into(),
            call.client.as_str().into(),
            age(call.age_ms).into(),
            Cell::state(&call.state),
        ];
        if wide {
            row.push(Cell::maybe(call.isolate.as_deref()));
            row.push(call.key.as_str().into());
            row.push(call.session.as_str().into());
        }
        table.row(row);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_of_a_call_that_may_be_there_is_asked() {
        let call = CallView {
            id: "call_abc".to_owned(),
            ..CallView::default()
        };
        let mut list = CallList {
            calls: vec![call],
            total: 1,
        };
        for (id, asked) in [
            ("call_abc", true),
            ("call_a", true),
            ("ab", true),
            ("call_abcd", false),
            ("NOPE", false),
        ] {
            assert_eq!(may_be_there(&list, id), asked, "{id}");
        }
        list.total = 2;
        assert!(may_be_there(&list, "NOPE"), "the list is not whole");
    }

    #[test]
    fn every_outcome_is_said() {
        let mut done = CancelReport {
            call: "call_x".into(),
            isolate: Some("iso_y".into()),
            server: "silent".into(),
            waited_ms: 5000,
            ..CancelReport::default()
        };
        assert!(outcome(&done).contains("iso_y goes on, --recycle"));
        (done.recycled, done.others_told) = (true, 2);
        assert!(outcome(&done).contains("recycled, 2 other calls"));
        done.recycled = false;
        for (server, words) in [
            ("answered", "ended it after"),
            ("ended", "ended meanwhile"),
            ("", "no server"),
            ("never_sent", "no server"),
        ] {
            done.server = server.into();
            assert!(outcome(&done).contains(words), "{}", outcome(&done));
        }
    }
}
