//! How records look to people: a table, a line, a row of CSV.

use std::fmt::Write as _;

use serde_json::Value;

use super::Names;
use crate::cli::table::{Cell, Style, Table};
use crate::cli::units::age;
use crate::domain::audit::filter::Item;

/// Fields that a line shows elsewhere, or not at all.
const NOT_IN_DETAIL: &[&str] = &[
    "seq",
    "at",
    "event",
    "hash",
    "user",
    "mcp",
    "tool",
    "outcome",
    "prev",
    "public_key",
    "signature",
    "tip",
];

/// Fields that tell people little; the wide table has them.
const FOR_PROGRAMS: &[&str] = &[
    "session",
    "call",
    "deny",
    "kind",
    "code",
    "verdict",
    "arguments_bytes",
    "arguments_sha256",
    "format",
    "installation",
    "integrity",
    "lock_sha256",
    "tree_sha256",
    "journal_us",
    "told_us",
    "killed_us",
    "gone_us",
];
/// Fields that are shown before the others: a terminal cuts off what is behind.
const FIRST: &[&str] = &["action", "scope", "label", "target", "reason"];

/// The columns of [`csv`].
pub(super) const CSV_TITLES: &str =
    "seq,time,event,user,mcp,tool,key,session,call,outcome,took_us,record\r\n";

fn time(at: i64) -> String {
    jiff::Timestamp::from_millisecond(at).map_or_else(|_| at.to_string(), |at| format!("{at:.3}"))
}

/// A value as plain text.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn named(value: &Value, names: &Names) -> String {
    let id = text(value);
    names.get(&id).cloned().unwrap_or(id)
}

/// Whether all ids in a record have names.
pub(super) fn knows(record: &Value, names: &Names) -> bool {
    ["user", "mcp"].iter().all(|field| {
        record[*field]
            .as_str()
            .is_none_or(|id| id.is_empty() || names.contains_key(id))
    })
}

fn outcome(record: &Value) -> String {
    [&record["outcome"], &record["code"], &record["verdict"]]
        .into_iter()
        .map(text)
        .find(|word| !word.is_empty())
        .unwrap_or_default()
}

/// What else a record says: `name=value` for each field.
fn detail(record: &Value, but: &[&str]) -> String {
    let mut out = String::new();
    let fields = || record.as_object().into_iter().flatten();
    let first = FIRST
        .iter()
        .filter_map(|wanted| fields().find(|(name, _)| name == wanted));
    let rest = fields().filter(|(name, _)| !FIRST.contains(&name.as_str()));
    for (name, value) in first.chain(rest) {
        let name = name.as_str();
        if NOT_IN_DETAIL.contains(&name) || but.contains(&name) || text(value).is_empty() {
            continue;
        }
        let gap = if out.is_empty() { "" } else { " " };
        let value = text(value);
        let value = match value.contains(' ') {
            true => format!("{value:?}"),
            false => value,
        };
        // A String takes every write.
        _ = write!(out, "{gap}{name}={value}");
    }
    out
}

/// Things found, a row each. Of a call its columns say what matters; of anything else the rest of the record does.
pub(super) fn table(items: &[Item], names: &Names, wide: bool) -> Table {
    let mut titles = vec![
        "SEQ", "TIME", "EVENT", "USER", "MCP", "TOOL", "OUTCOME", "TOOK",
    ];
    let detailed = |item: &Item| wide || item.event != "call";
    let has_detail = items.iter().any(detailed);
    if has_detail {
        titles.push("DETAIL");
    }
    let mut table = Table::new(&titles);
    for item in items {
        let (start, end) = (&item.record, item.end.as_ref());
        let how = match (&end, item.event.as_str()) {
            (Some(end), _) => Cell::from(outcome(end)),
            (None, "call") => Cell::styled("no end", Style::Warn),
            (None, _) => outcome(start).into(),
        };
        let took = end.and_then(|end| end["took_us"].as_u64());
        let took = took.or_else(|| start["took_ms"].as_u64().map(|ms| ms * 1000));
        let mut row = vec![
            Cell::from(item.seq.to_string()),
            time(item.at).into(),
            item.event.as_str().into(),
            named(&start["user"], names).into(),
            named(&start["mcp"], names).into(),
            text(&start["tool"]).into(),
            how,
            took.map(|us| match us {
                0..10_000 => format!("{us}µs"),
                _ => age(us / 1000),
            })
            .unwrap_or_default()
            .into(),
        ];
        if has_detail {
            let detail = match (wide, detailed(item)) {
                (true, _) => detail(start, &[]),
                (false, true) => detail(start, FOR_PROGRAMS),
                (false, false) => String::new(),
            };
            row.push(detail.into());
        }
        table.row(row);
    }
    table
}

/// One record on one line.
pub(super) fn line(record: &Value, names: &Names) -> String {
    let mut out = format!(
        "{} {} {}",
        time(record["at"].as_i64().unwrap_or(0)),
        text(&record["seq"]),
        text(&record["event"])
    );
    for (name, value) in [
        ("user", named(&record["user"], names)),
        ("mcp", named(&record["mcp"], names)),
        ("tool", text(&record["tool"])),
        ("outcome", outcome(record)),
    ] {
        if !value.is_empty() {
            _ = write!(out, " {name}={value}");
        }
    }
    let detail = detail(record, &[]);
    if !detail.is_empty() {
        _ = write!(out, " {detail}");
    }
    out
}

/// One record as a row of CSV (RFC 4180).
pub(super) fn csv(line: &str) -> String {
    let record: Value = serde_json::from_str(line).unwrap_or_default();
    let mut row: Vec<String> = vec![
        text(&record["seq"]),
        time(record["at"].as_i64().unwrap_or(0)),
    ];
    let fields = ["event", "user", "mcp", "tool", "key", "session", "call"];
    row.extend(fields.map(|field| text(&record[field])));
    row.push(outcome(&record));
    row.push(text(&record["took_us"]));
    row.push(line.to_owned());
    let row: Vec<String> = row.iter().map(|field| quoted(field)).collect();
    row.join(",") + "\r\n"
}

fn quoted(field: &str) -> String {
    match field.contains(['"', ',', '\r', '\n']) {
        true => format!("\"{}\"", field.replace('"', "\"\"")),
        false => field.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_call_is_one_row_and_what_has_no_end_is_told() {
        let start = json!({"seq": 7, "at": 0, "event": "call.start", "user": "usr_a",
            "mcp": "mcp_b", "tool": "echo", "call": "call_c", "hash": "x"});
        let end = json!({"seq": 8, "outcome": "answered", "took_us": 1500});
        let item = |seq, end| Item {
            seq,
            at: 0,
            event: "call".into(),
            record: start.clone(),
            end,
        };
        let names = Names::from([("usr_a".into(), "ada".into())]);
        let drawn = table(&[item(9, None), item(7, Some(end))], &names, false).render(None, false);
        insta::assert_snapshot!(drawn, @r"
        SEQ  TIME                      EVENT  USER  MCP    TOOL  OUTCOME   TOOK
        9    1970-01-01T00:00:00.000Z  call   ada   mcp_b  echo  no end
        7    1970-01-01T00:00:00.000Z  call   ada   mcp_b  echo  answered  1500µs
        ");
        assert_eq!(
            line(&start, &names),
            "1970-01-01T00:00:00.000Z 7 call.start user=ada mcp=mcp_b tool=echo call=call_c"
        );
        assert!(!knows(&start, &names));
    }

    #[test]
    fn what_is_no_call_says_what_it_is_about() {
        let record = json!({"seq": 7, "at": 0, "event": "kill.on", "deny": "deny_x",
            "kind": "kill_switch", "scope": "mcp", "target": "mcp_b", "label": "demo",
            "reason": "it leaks", "author": "uid:0", "hash": "x"});
        let item = Item {
            seq: 7,
            at: 0,
            event: "kill.on".into(),
            record,
            end: None,
        };
        let drawn = table(&[item], &Names::new(), false).render(None, false);
        let says = "scope=mcp label=demo target=mcp_b reason=\"it leaks\" author=uid:0";
        assert!(drawn.contains(says), "{drawn}");
        assert!(!drawn.contains("deny_x"), "{drawn}");
    }

    #[test]
    fn csv_keeps_the_whole_record_and_quotes_it() {
        let row = csv(r#"{"seq":1,"at":0,"event":"a","tool":"x,y"}"#);
        assert_eq!(
            row,
            "1,1970-01-01T00:00:00.000Z,a,,,\"x,y\",,,,,,\"{\"\"seq\"\":1,\"\"at\"\":0,\"\"event\"\":\"\"a\"\",\"\"tool\"\":\"\"x,y\"\"}\"\r\n"
        );
    }
}
