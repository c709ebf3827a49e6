//! `legation kill-switch …`, and how everything that denies prints what it did.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Desk;
use super::client::path;
use super::error::{CliError, Done, Exit};
use super::isolate::left_over;
use super::key::time;
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::units::{UnitError, no_moment, parse_deadline};
use crate::actors::views::{DenyReport, DenyView};
use crate::api::admin::kill::{NewSwitch, OldSwitch};
use crate::domain::account::Millis;
use crate::domain::kill::Kind;

/// Stopped isolates, and calls, that are named; JSON has them all.
const STOPPED_SHOWN: usize = 20;

#[derive(Debug, Subcommand)]
pub(super) enum KillCommand {
    /// Refuse calls from now on, and end what runs of them
    On(OnArgs),
    /// Let calls through again
    Off {
        #[command(flatten)]
        what: What,
    },
    /// Show what is switched off and who is suspended
    List {
        /// Also what is over, newest first
        #[arg(long)]
        history: bool,
    },
    /// Show one
    Show {
        /// Its id, or a part of its beginning that no other has
        id: String,
    },
}

/// What a kill switch is for.
#[derive(Debug, Args)]
pub(super) struct What {
    /// tool, mcp, user, client or all
    #[arg(long, value_name = "SCOPE")]
    scope: String,
    /// A name or id; mcp/tool for a tool, a key's id for a client; not for all
    #[arg(long, default_value = "", value_name = "TARGET")]
    target: String,
}

#[derive(Debug, Args)]
pub(super) struct OnArgs {
    #[command(flatten)]
    what: What,
    /// What callers are told
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// When it ends by itself: 2h, or a moment such as 2026-01-31T08:00:00Z
    #[arg(long, value_parser = expiry, value_name = "WHEN")]
    expires: Option<Expiry>,
    /// Show what it would do and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// When something ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    In(Duration),
    At(Millis),
}

/// For clap: a duration, or a moment as RFC 3339 writes it.
fn expiry(text: &str) -> Result<Expiry, UnitError> {
    match text.parse::<jiff::Timestamp>() {
        Ok(at) => Ok(Expiry::At(at.as_millisecond())),
        Err(_) => parse_deadline(text)
            .map(Expiry::In)
            .map_err(|error| no_moment(text, error)),
    }
}

pub(super) async fn run(command: KillCommand, mut desk: Desk) -> Done {
    match command {
        KillCommand::On(args) => on(args, desk).await,
        KillCommand::Off { what } => {
            desk.confirm(&format!(
                "let calls of {} through again",
                phrase(&what.scope, &what.target)
            ))?;
            let old = OldSwitch {
                scope: what.scope,
                target: what.target,
            };
            let view = desk
                .client
                .post("/v1/kill-switches/off", Some(&old))
                .await?;
            lifted(&view, &mut desk)
        }
        KillCommand::List { history } => {
            let path = format!("/v1/kill-switches?history={history}");
            let views: Vec<DenyView> = desk.client.get(&path).await?;
            desk.out
                .list(&views, table, |view| view.deny.id.to_string())?;
            Ok(Exit::Ok)
        }
        KillCommand::Show { id } => {
            let view: DenyView = desk.client.get(&path(&["kill-switches", &id])).await?;
            let name = view.deny.id.to_string();
            desk.out.one(&view, &name, |out| out.table(&facts(&view)))?;
            Ok(Exit::Ok)
        }
    }
}

fn phrase(scope: &str, target: &str) -> String {
    match scope {
        "all" => "everybody and everything".to_owned(),
        _ => format!("{scope} {target}"),
    }
}

async fn on(args: OnArgs, mut desk: Desk) -> Done {
    let (expires_in_ms, expires_at) = match args.expires {
        Some(Expiry::In(time)) => {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            (Some(ms), None)
        }
        Some(Expiry::At(at)) => (None, Some(at)),
        None => (None, None),
    };
    let mut new = NewSwitch {
        scope: args.what.scope,
        target: args.what.target,
        reason: args.reason,
        expires_in_ms,
        expires_at,
        dry_run: true,
    };
    if args.dry_run {
        let report: DenyReport = desk.client.post("/v1/kill-switches", Some(&new)).await?;
        let name = report.deny.deny.title();
        desk.out.one(&report, &name, |out| {
            out.line(&format!("{name} would {}; nothing was done", did(&report)))?;
            stopped(&report, out)
        })?;
        return Ok(Exit::Ok);
    }
    if !desk.yes && Out::can_ask() {
        // Whoever is asked sees first what it will do.
        let report: DenyReport = desk.client.post("/v1/kill-switches", Some(&new)).await?;
        desk.out.say(&format!("it will {}", did(&report)));
    }
    desk.confirm(&format!("switch off {}", phrase(&new.scope, &new.target)))?;
    new.dry_run = false;
    let report: DenyReport = desk.client.post("/v1/kill-switches", Some(&new)).await?;
    let undo = match new.scope.as_str() {
        "all" => "legation kill-switch off --scope all".to_owned(),
        scope => format!(
            "legation kill-switch off --scope {scope} --target {}",
            new.target
        ),
    };
    denied(&report, &undo, &mut desk)
}

/// In words: `stop 2 isolates, cancel 1 call`.
fn did(report: &DenyReport) -> String {
    let mut text = format!(
        "stop {}, cancel {}",
        count(report.isolates_stopped, "isolate"),
        count(report.calls_cancelled, "call")
    );
    if report.deny.deny.kind == Kind::Suspension {
        text.push_str(&format!(
            ", end {}",
            count(report.sessions_ended, "session")
        ));
    }
    text
}

fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        number => format!("{number} {what}s"),
    }
}

/// Prints what a kill switch or suspension did, and what is left of it.
pub(super) fn denied(report: &DenyReport, undo: &str, desk: &mut Desk) -> Done {
    let deny = &report.deny.deny;
    let name = deny.id.to_string();
    desk.out.one(report, &name, |out| {
        let what = did(report)
            .replace("stop ", "stopped ")
            .replace("cancel ", "cancelled ")
            .replace("end ", "ended ");
        let text = format!("{} after {} ms: {what}", deny.title(), report.took_ms);
        out.line(&text)?;
        stopped(report, out)
    })?;
    for one in &report.left {
        let user = one.user.as_deref().unwrap_or("everybody");
        desk.out.say(&format!(
            "isolate {} of {} for {user} does not die; its slot stays shut until it does",
            one.isolate, one.mcp
        ));
    }
    if let Some(why) = &report.not_stored {
        desk.out.say(&format!(
            "it is in force and in the journal; not in the database yet: {why}"
        ));
    }
    if let Some(why) = &report.not_recorded {
        desk.out.say(&format!("it is not in the audit log: {why}"));
    }
    desk.out.say(&format!("undo: {undo}"));
    // A start that hangs has no pid yet, and is left all the same.
    match left_over(&report.survivors, &desk.out) {
        Exit::Ok if !report.left.is_empty() => Ok(Exit::Partly),
        exit => Ok(exit),
    }
}

/// The isolates it stopped, and the calls that end without one, a line each.
fn stopped(report: &DenyReport, out: &mut Out) -> Result<(), CliError> {
    let shown = report.stopped.iter().take(STOPPED_SHOWN);
    let mut rows = Table::new(&["ISOLATE", "MCP", "USER", "CALLS"]);
    for hit in shown {
        rows.row(vec![
            hit.isolate.as_str().into(),
            hit.mcp.as_str().into(),
            Cell::maybe(hit.user.as_deref()),
            hit.calls.to_string().into(),
        ]);
    }
    if !report.stopped.is_empty() {
        out.table(&rows)?;
    }
    let more = report.isolates_stopped.saturating_sub(STOPPED_SHOWN as u64);
    if more > 0 {
        out.say(&format!("and {more} more"));
    }
    let mut rows = Table::new(&["CALL", "MCP", "TOOL", "USER", "CLIENT", "STATE"]);
    for call in report.calls.iter().take(STOPPED_SHOWN) {
        rows.row(vec![
            call.id.as_str().into(),
            call.mcp.as_str().into(),
            call.tool.as_str().into(),
            call.user.as_str().into(),
            call.client.as_str().into(),
            call.state.as_str().into(),
        ]);
    }
    if !report.calls.is_empty() {
        out.table(&rows)?;
    }
    let more = report.calls.len().saturating_sub(STOPPED_SHOWN);
    if more > 0 {
        out.say(&format!("and {more} more"));
    }
    Ok(())
}

/// Prints that a kill switch or suspension is over.
pub(super) fn lifted(view: &DenyView, desk: &mut Desk) -> Done {
    let deny = &view.deny;
    desk.out.one(view, deny.id.as_str(), |out| {
        out.line(&format!("{} is lifted", deny.title()))
    })?;
    if let Some(why) = &view.not_stored {
        desk.out
            .say(&format!("the database does not know it yet: {why}"));
    }
    Ok(Exit::Ok)
}

fn table(views: &[DenyView], wide: bool) -> Table {
    let mut titles = vec!["ID", "KIND", "SCOPE", "TARGET", "STATE", "SINCE", "ENDS"];
    if wide {
        titles.extend(["AUTHOR", "STORED"]);
    }
    titles.push("REASON");
    let mut table = Table::new(&titles);
    for view in views {
        let deny = &view.deny;
        let mut row = vec![
            Cell::from(deny.id.as_str()),
            deny.kind.word().into(),
            deny.target.scope().word().into(),
            deny.label.as_str().into(),
            state(view),
            time(deny.created_at).into(),
            Cell::maybe(ends(view)),
        ];
        if wide {
            row.push(deny.author.as_str().into());
            row.push(if view.stored { "yes" } else { "not yet" }.into());
        }
        row.push(deny.reason.as_str().into());
        table.row(row);
    }
    table
}

fn state(view: &DenyView) -> Cell {
    match view.state.as_str() {
        "on" => Cell::styled("on", Style::Bad),
        over => Cell::styled(over, Style::Dim),
    }
}

/// When it ended, or will by itself.
fn ends(view: &DenyView) -> Option<String> {
    let lifted = view.deny.lifted.as_ref().map(|lifted| lifted.at);
    lifted.or(view.deny.expires_at).map(time)
}

fn facts(view: &DenyView) -> Table {
    let deny = &view.deny;
    let mut facts = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        facts.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact("id", Cell::styled(deny.id.as_str(), Style::Bold));
    fact("kind", deny.kind.word().into());
    fact("scope", deny.target.scope().word().into());
    fact("target", deny.label.as_str().into());
    fact("target id", deny.target.text().into());
    fact("state", state(view));
    fact("reason", deny.reason.as_str().into());
    fact("author", deny.author.as_str().into());
    fact("since", time(deny.created_at).into());
    if let Some(at) = deny.expires_at {
        fact("expires", time(at).into());
    }
    if let Some(lifted) = &deny.lifted {
        fact(
            "ended",
            format!("{} by {}", time(lifted.at), lifted.by).into(),
        );
    }
    let stored = match view.stored {
        true => "yes",
        false => "not yet; the journal has it",
    };
    fact("in database", stored.into());
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_a_moment() {
        assert_eq!(expiry("2h"), Ok(Expiry::In(Duration::from_secs(7200))));
        assert_eq!(expiry("1970-01-01T00:00:07Z"), Ok(Expiry::At(7000)));
        assert_eq!(expiry("1970-01-01T01:00:07+01:00"), Ok(Expiry::At(7000)));
        for wrong in ["", "soon", "0s", "2026-13-01T00:00:00Z", "-2h"] {
            assert!(expiry(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_spoken() {
        assert_eq!(count(1, "call"), "1 call");
        assert_eq!(count(0, "isolate"), "0 isolates");
    }
}
