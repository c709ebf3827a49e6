//! `legation status`: the server on one screen, and an exit code for scripts.

use super::Desk;
use super::error::{Done, Exit};
use super::table::{Cell, Style, Table};
use super::units::{age, size};
use crate::actors::room::RoomView;
use crate::actors::views::Status;

pub(super) async fn run(mut desk: Desk) -> Done {
    let status: Status = desk.client.get("/v1/status").await?;
    let why = status.degraded();
    desk.out.one(&status, &status.version, |out| {
        let head = format!("legation {}", status.version);
        out.styled(&head, Style::Bold)?;
        out.table(&screen(&status))?;
        for reason in &why {
            out.styled(&format!("degraded: {reason}"), Style::Warn)?;
        }
        Ok(())
    })?;
    Ok(if why.is_empty() {
        Exit::Ok
    } else {
        Exit::Degraded
    })
}

fn screen(status: &Status) -> Table {
    let mut table = Table::default();
    let mut line = |title: &str, cell: Cell| {
        table.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    line(
        "up",
        format!("{}, pid {}", age(status.up_ms), status.pid).into(),
    );
    line(
        "ready",
        match (status.ready, status.not_ready.as_slice()) {
            (true, _) => Cell::styled("yes", Style::Good),
            (false, []) => Cell::styled("no", Style::Bad),
            (false, waits) => Cell::styled(format!("no: {}", waits.join(", ")), Style::Bad),
        },
    );
    line("clients", status.client_url.as_str().into());
    if !status.ops_url.is_empty() {
        line("ops", status.ops_url.as_str().into());
    }
    line("limits", status.enforcement.summary.as_str().into());
    line("isolates", counts(status).into());
    if status.elsewhere > 0 {
        let text = format!(
            "{} of them servers behind HTTP, without limits and walls",
            status.elsewhere
        );
        line("", text.into());
    }
    line("room", room(&status.room).into());
    line(
        "sessions",
        format!(
            "{} live, {} users with isolates",
            status.sessions, status.users_active
        )
        .into(),
    );
    line(
        "calls",
        format!(
            "{}, {} failed",
            status.calls_total, status.calls_failed_total
        )
        .into(),
    );
    let store = &status.store;
    line(
        "store",
        match &store.away {
            Some(why) => Cell::styled(format!("AWAY, {}: {why}", store.kind), Style::Bad),
            None => format!("{} {}", store.kind, store.place).into(),
        },
    );
    let audit = &status.audit;
    line(
        "audit",
        match audit.failing {
            true => Cell::styled(format!("FAILING, {} queued", audit.queued), Style::Bad),
            false if audit.lost > 0 => Cell::styled(
                format!(
                    "{}, {} queued, {} LOST",
                    audit.durability, audit.queued, audit.lost
                ),
                Style::Warn,
            ),
            false => format!("{}, {} queued", audit.durability, audit.queued).into(),
        },
    );
    line("suspended", status.suspensions.to_string().into());
    line(
        "switches",
        match status.kill_switches {
            0 => "nothing".into(),
            some => Cell::styled(format!("{some} kill switches are on"), Style::Bad),
        },
    );
    for deny in &status.denies {
        line("", deny.as_str().into());
    }
    let shown = status.denies.len() as u64;
    let hidden = (status.suspensions + status.kill_switches).saturating_sub(shown);
    if hidden > 0 {
        line(
            "",
            format!("and {hidden} more: legation kill-switch list").into(),
        );
    }
    table
}

fn room(room: &RoomView) -> String {
    let host = match room.free_bytes {
        Some(free) => format!(", the host has {} left", size(free)),
        None => String::new(),
    };
    let refused = match room.refused {
        0 => String::new(),
        refused => format!(", {refused} starts refused"),
    };
    let disk = match room.disk_free_bytes {
        Some(free) if free < room.disk_free_min_bytes => {
            format!(", the homes' disk is nearly full ({} left)", size(free))
        }
        _ => String::new(),
    };
    let pressure = match room.pressure {
        view if view.shut => ", nothing starts: the host is under PRESSURE",
        view if view.unknown => ", its pressure is not known",
        _ => "",
    };
    format!(
        "{} of {} for isolates{host}{disk}{pressure}{refused}",
        size(room.used_bytes),
        size(room.budget_bytes)
    )
}

fn counts(status: &Status) -> String {
    let some = status.isolates.iter().filter(|(_, count)| **count > 0);
    let texts: Vec<_> = some
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_one_screen() {
        let mut status = Status {
            up_ms: 8_040_000,
            pid: 7,
            not_ready: vec!["store".into()],
            client_url: "https://localhost:8443".into(),
            ops_url: "http://localhost:9464".into(),
            sessions: 3,
            users_active: 2,
            calls_total: 9,
            calls_failed_total: 1,
            ..Status::default()
        };
        status.enforcement.summary = "cgroup v2".into();
        status.audit.durability = "durable".into();
        status.store.kind = "sqlite".into();
        status.store.place = "/d/legation.db".into();
        status.isolates = [
            ("ready".into(), 2),
            ("idle".into(), 0),
            ("backoff".into(), 1),
        ]
        .into();
        status.room = RoomView {
            used_bytes: 2 << 30,
            budget_bytes: 16 << 30,
            free_bytes: Some(4 << 30),
            refused: 3,
            ..RoomView::default()
        };
        status.kill_switches = 2;
        status.denies = vec!["kill switch on mcp demo: leaks".into()];
        insta::assert_snapshot!(screen(&status).render(None, false), @r"
        up         2h14m, pid 7
        ready      no: store
        clients    https://localhost:8443
        ops        http://localhost:9464
        limits     cgroup v2
        isolates   1 backoff, 2 ready
        room       2 GiB of 16 GiB for isolates, the host has 4 GiB left, 3 starts refused
        sessions   3 live, 2 users with isolates
        calls      9, 1 failed
        store      sqlite /d/legation.db
        audit      durable, 0 queued
        suspended  0
        switches   2 kill switches are on
                   kill switch on mcp demo: leaks
                   and 1 more: legation kill-switch list
        ");
    }
}
