//! `legation isolate …` and `legation ps`.

use std::time::Duration;

use clap::Subcommand;

use super::client::{NOTHING, path};
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::units::{age, cpu_time, percent, size};
use super::{Desk, id};
use crate::actors::views::{CallList, CallView, IsolateDetail, IsolateView, KillReport, RunView};
use crate::api::admin::isolates::{LogLines, Reason};

/// Between two looks of `logs -f`.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum IsolateCommand {
    /// Show all isolates and shared instances
    List,
    /// Show one: its runs, how each ended, its last words
    Show {
        /// Its id, or a part of its beginning that no other has
        #[arg(value_parser = id)]
        id: String,
    },
    /// Start it anew; ends backoff and quarantine
    Restart {
        /// Its id, or a part of its beginning that no other has
        #[arg(value_parser = id)]
        id: String,
    },
    /// Kill its whole process tree now; it starts again at the next call
    Kill {
        /// Its id, or a part of its beginning that no other has
        #[arg(value_parser = id)]
        id: String,
        /// What callers are told
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Print what its server wrote to stderr
    Logs {
        /// Its id, or a part of its beginning that no other has
        #[arg(value_parser = id)]
        id: String,
        /// Go on with what comes, over restarts, until interrupted
        #[arg(short, long)]
        follow: bool,
    },
}

pub(super) async fn run(command: IsolateCommand, mut desk: Desk) -> Done {
    match command {
        IsolateCommand::List => list(desk).await,
        IsolateCommand::Show { id } => {
            let detail: IsolateDetail = desk.client.get(&path(&["isolates", &id])).await?;
            let name = detail.view.id.clone();
            desk.out.one(&detail, &name, |out| show(&detail, out))?;
            Ok(Exit::Ok)
        }
        IsolateCommand::Restart { id } => {
            let now: IsolateDetail = desk.client.get(&path(&["isolates", &id])).await?;
            let calls: CallList = desk.client.get("/v1/calls").await?;
            if let Some(what) = cut_off(&now.view, &calls) {
                desk.confirm(&what)?;
            }
            let path = path(&["isolates", &id, "restart"]);
            let view: IsolateView = desk.client.patient().post(&path, NOTHING).await?;
            let text = format!("isolate {} of mcp {} is {}", view.id, view.mcp, view.state);
            desk.out.one(&view, &view.id, |out| out.line(&text))?;
            Ok(Exit::Ok)
        }
        IsolateCommand::Kill { id, reason } => kill(&id, reason, desk).await,
        IsolateCommand::Logs { id, follow } => logs(&id, follow, desk).await,
    }
}

pub(super) async fn list(mut desk: Desk) -> Done {
    let isolates: Vec<IsolateView> = desk.client.get("/v1/isolates").await?;
    desk.out
        .list(&isolates, table, |isolate| isolate.id.clone())?;
    if isolates.is_empty() {
        desk.out
            .say("no isolates yet: one starts at a user's first call");
    }
    Ok(Exit::Ok)
}

/// Isolates under titles.
pub(super) fn table(isolates: &[IsolateView], wide: bool) -> Table {
    let mut titles = vec![
        "ID", "MCP", "USER", "STATE", "SINCE", "PID", "CPU", "MEMORY", "PIDS", "CALLS", "RESTARTS",
    ];
    if wide {
        titles.extend(["CPU TIME", "SHARING", "KEY"]);
    }
    // Whoever lacks nothing needs no column for it.
    let lacks = wide || isolates.iter().any(|one| !one.degraded.is_empty());
    if lacks {
        titles.push("DEGRADED");
    }
    titles.push("VERDICTS");
    let mut table = Table::new(&titles);
    for one in isolates {
        let calls = match one.in_flight {
            0 => one.calls_total.to_string(),
            now => format!("{} (+{now})", one.calls_total),
        };
        let mut row = vec![
            Cell::from(one.id.as_str()),
            one.mcp.as_str().into(),
            Cell::maybe(one.user.as_deref()),
            state(one),
            age(one.since_ms_ago).into(),
            Cell::maybe(one.pid),
            Cell::maybe(one.cpu_millis.map(percent)),
            memory(one).into(),
            Cell::maybe(one.pids),
            calls.into(),
            one.restarts.to_string().into(),
        ];
        if wide {
            row.extend([
                Cell::maybe(one.cpu_micros.map(cpu_time)),
                sharing_word(one.sharing).into(),
                one.key.as_str().into(),
            ]);
        }
        if lacks {
            row.push(Cell::styled(one.degraded.join(", "), Style::Warn));
        }
        row.push(verdicts(one, wide).into());
        table.row(row);
    }
    table
}

/// How the last runs ended, newest first: the newest in full, of the older ones the kind.
fn verdicts(one: &IsolateView, wide: bool) -> String {
    let texts = one.verdicts.iter().enumerate().map(|(nth, verdict)| {
        let text = if nth == 0 || wide {
            &verdict.text
        } else {
            &verdict.kind
        };
        format!("{text} ({} ago)", age(verdict.ms_ago))
    });
    texts.collect::<Vec<_>>().join("; ")
}

pub(super) fn sharing_word(sharing: crate::domain::mcp::Sharing) -> &'static str {
    use crate::domain::mcp::Sharing;
    match sharing {
        Sharing::PerUser => "per_user",
        Sharing::PerSession => "per_session",
        Sharing::Shared => "shared",
    }
}

fn state(one: &IsolateView) -> Cell {
    match one.backoff_ms {
        Some(ms) => Cell::styled(
            format!("{} {}", one.state, age(ms)),
            Style::of_state(&one.state),
        ),
        None => Cell::state(&one.state),
    }
}

fn memory(one: &IsolateView) -> String {
    match one.memory_bytes {
        Some(bytes) => format!("{}/{}", size(bytes), size(one.memory_limit_bytes)),
        None => "-".to_owned(),
    }
}

fn show(detail: &IsolateDetail, out: &mut Out) -> Result<(), CliError> {
    let one = &detail.view;
    let mut facts = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        facts.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact("isolate", Cell::styled(one.id.as_str(), Style::Bold));
    fact(
        "mcp",
        format!("{} ({})", one.mcp, sharing_word(one.sharing)).into(),
    );
    fact("user", Cell::maybe(one.user.as_deref()));
    fact("key", one.key.as_str().into());
    fact("state", state(one));
    fact("since", age(one.since_ms_ago).into());
    match &one.url {
        Some(url) => {
            fact("url", url.as_str().into());
            fact(
                "walls",
                "none: it runs elsewhere, and is not limited".into(),
            );
        }
        None => fact("pid", Cell::maybe(one.pid)),
    }
    fact(
        "calls",
        format!("{}, {} in flight", one.calls_total, one.in_flight).into(),
    );
    fact("restarts", one.restarts.to_string().into());
    if one.url.is_none() {
        fact("memory", memory(one).into());
        fact("processes", Cell::maybe(one.pids));
        fact("cpu time", Cell::maybe(one.cpu_micros.map(cpu_time)));
    }
    if let Some(out) = detail.egress {
        let text = format!(
            "{} connections, {} open; {} out, {} in; {} denied",
            out.connections,
            out.open,
            size(out.sent_bytes),
            size(out.received_bytes),
            out.denied
        );
        fact("network", text.into());
    }
    for missing in &one.degraded {
        fact("degraded", Cell::styled(missing.as_str(), Style::Warn));
    }
    out.table(&facts)?;
    if detail.runs.is_empty() {
        return out.styled("it has not run yet", Style::Dim);
    }
    out.raw("\n")?;
    out.table(&runs(&detail.runs))?;
    match detail.runs.iter().find(|run| !run.stderr_tail.is_empty()) {
        Some(run) => last_words(run, out),
        None => Ok(()),
    }
}

fn runs(runs: &[RunView]) -> Table {
    let mut table = Table::new(&[
        "RUN",
        "STARTED",
        "READY AFTER",
        "LIVED",
        "PEAK",
        "CPU",
        "NOISE",
        "PHASES",
        "VERDICT",
    ]);
    for run in runs {
        let phases = run
            .phases
            .iter()
            .map(|phase| format!("{} {}", phase.name, age(phase.ms)));
        table.row(vec![
            run.epoch.to_string().into(),
            format!("{} ago", age(run.started_ms_ago)).into(),
            Cell::maybe(run.ready_after_ms.map(age)),
            age(run.lived_ms).into(),
            Cell::maybe(run.memory_peak_bytes.map(size)),
            Cell::maybe(run.cpu_micros.map(cpu_time)),
            run.noise_lines.to_string().into(),
            phases.collect::<Vec<_>>().join(", ").into(),
            match &run.verdict {
                Some(verdict) => verdict.as_str().into(),
                None => Cell::styled("alive", Style::Good),
            },
        ]);
    }
    table
}

fn last_words(run: &RunView, out: &mut Out) -> Result<(), CliError> {
    out.raw("\n")?;
    out.styled(&format!("last stderr of run {}", run.epoch), Style::Dim)?;
    run.stderr_tail.iter().try_for_each(|line| out.line(line))
}

/// What a restart does to calls in flight, if there are any.
fn cut_off(one: &IsolateView, list: &CallList) -> Option<String> {
    let here = |call: &&CallView| call.isolate.as_deref() == Some(one.id.as_str());
    let calls = match list.total > list.calls.len() as u64 {
        // Not all are listed; these may be pings of ours as well.
        true => one.in_flight,
        false => list.calls.iter().filter(here).count() as u64,
    };
    let calls = match calls {
        0 => return None,
        1 => "its call in flight".to_owned(),
        calls => format!("its {calls} calls in flight"),
    };
    let (isolate, mcp) = (&one.id, &one.mcp);
    Some(format!(
        "restart isolate {isolate} of mcp {mcp} and answer {calls} with an error"
    ))
}

async fn kill(id: &str, reason: String, mut desk: Desk) -> Done {
    desk.confirm(&format!(
        "kill isolate {id} and answer its calls with an error"
    ))?;
    let reason = Reason { reason };
    let report: KillReport = desk
        .client
        .post(&path(&["isolates", id, "kill"]), Some(&reason))
        .await?;
    desk.out.one(&report, &report.isolate, |out| {
        let (isolate, calls) = (&report.isolate, report.cancelled_calls);
        out.line(&format!(
            "isolate {isolate} is gone after {} ms, {calls} calls cancelled",
            report.took_ms
        ))
    })?;
    Ok(left_over(&report.survivors, &desk.out))
}

/// Names processes that did not die in time.
pub(super) fn left_over(survivors: &[i32], out: &Out) -> Exit {
    if survivors.is_empty() {
        return Exit::Ok;
    }
    let pids: Vec<_> = survivors.iter().map(ToString::to_string).collect();
    out.say(&format!(
        "still alive after the wait: pid {}",
        pids.join(", ")
    ));
    Exit::Partly
}

async fn logs(id: &str, follow: bool, mut desk: Desk) -> Done {
    let base = path(&["isolates", id, "logs"]);
    let mut at: Option<(u64, u64)> = None;
    loop {
        let path = match at {
            Some((epoch, after)) => format!("{base}?epoch={epoch}&after={after}"),
            None => base.clone(),
        };
        let seen: LogLines = desk.client.get(&path).await?;
        if desk.out.is_json() {
            if !follow || !seen.lines.is_empty() {
                desk.out.json_line(&seen)?;
            }
        } else {
            print_new(&seen, at.map(|(epoch, _)| epoch), &mut desk.out)?;
        }
        let older = seen.epoch != seen.newest;
        if !follow {
            match seen.epoch {
                None => desk.out.say("it has not run yet"),
                Some(epoch) if older => desk.out.say(&earlier(epoch, &seen)),
                Some(_) => {}
            }
            return Ok(Exit::Ok);
        }
        at = seen.epoch.map(|epoch| (epoch, seen.last));
        // Of a run that is over there is no more to wait for.
        if !older {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

/// Said where the newest run has written nothing yet.
fn earlier(epoch: u64, seen: &LogLines) -> String {
    let ended = seen.verdict.as_deref().unwrap_or("over");
    let newest = seen.newest.unwrap_or_default();
    format!(
        "-- that was run {epoch}, which is over: {ended}; run {newest} has written nothing yet --"
    )
}

fn print_new(seen: &LogLines, before: Option<u64>, out: &mut Out) -> Result<(), CliError> {
    if let Some(epoch) = seen
        .epoch
        .filter(|epoch| before.is_some_and(|old| old != *epoch))
    {
        out.say(&format!("-- run {epoch} --"));
    }
    if seen.missed > 0 {
        out.say(&format!("-- {} lines are no longer kept --", seen.missed));
    }
    seen.lines.iter().try_for_each(|line| out.line(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::views::PastVerdict;

    #[test]
    fn a_restart_asks_where_it_cuts_calls_off() {
        let mut one = IsolateView {
            id: "iso_a".into(),
            mcp: "time".into(),
            ..IsolateView::default()
        };
        let call = |isolate: &str| CallView {
            isolate: Some(isolate.into()),
            ..CallView::default()
        };
        let mut list = CallList {
            calls: vec![call("iso_b")],
            total: 1,
        };
        // A ping of ours is nobody's call.
        one.in_flight = 1;
        assert_eq!(cut_off(&one, &list), None);
        list.calls.extend([call("iso_a"), call("iso_a")]);
        list.total = 3;
        let asked = cut_off(&one, &list).unwrap();
        assert!(
            asked.ends_with("answer its 2 calls in flight with an error"),
            "{asked}"
        );
    }

    #[test]
    fn the_list_tells_the_troubled_from_the_well() {
        let well = IsolateView {
            id: "iso_a".into(),
            mcp: "time".into(),
            user: Some("ada".into()),
            state: "ready".into(),
            pid: Some(42),
            calls_total: 7,
            in_flight: 2,
            memory_bytes: Some(84 << 20),
            memory_limit_bytes: 512 << 20,
            cpu_millis: Some(12),
            pids: Some(3),
            ..IsolateView::default()
        };
        let past = |epoch, ms_ago, kind: &str, text: &str| PastVerdict {
            epoch,
            ms_ago,
            kind: kind.into(),
            text: text.into(),
        };
        let troubled = IsolateView {
            id: "iso_b".into(),
            mcp: "all".into(),
            state: "backoff".into(),
            backoff_ms: Some(3_900),
            restarts: 4,
            verdicts: vec![
                past(4, 1_000, "exited", "exited with code 1"),
                past(
                    3,
                    61_000,
                    "out_of_memory",
                    "out of memory: the isolate's limit of 512 MiB",
                ),
            ],
            ..IsolateView::default()
        };
        let degraded = IsolateView {
            degraded: vec!["cgroup_memory".into(), "landlock".into()],
            ..well.clone()
        };
        let drawn = table(&[degraded], false).render(None, false);
        assert!(drawn.contains("DEGRADED"), "{drawn}");
        assert!(drawn.contains("cgroup_memory, landlock"), "{drawn}");
        let drawn = table(&[well, troubled], false).render(None, false);
        insta::assert_snapshot!(drawn, @r"
        ID     MCP   USER  STATE         SINCE  PID  CPU   MEMORY          PIDS  CALLS   RESTARTS  VERDICTS
        iso_a  time  ada   ready         0ms    42   1.2%  84 MiB/512 MiB  3     7 (+2)  0
        iso_b  all   -     backoff 3.9s  0ms    -    -     -               -     0       4         exited with code 1 (1.0s ago); out_of_memory (1m1s ago)
        ");
    }
}
