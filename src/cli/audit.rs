//! `legation audit …`: what happened, and whether the record of it is whole.

mod show;
mod verify;

use std::collections::BTreeMap;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::Desk;
use super::client::escape;
use super::error::{CliError, Done, Exit};
use super::units::parse_duration;
use crate::actors::audit::Page;
use crate::actors::clock::{Clock as _, HostClock};
use crate::api::admin::audit::{KeyView, Query};
use crate::api::admin::mcps::McpView;
use crate::api::admin::users::UserView;
use crate::domain::account::Millis;
use crate::domain::limits::AUDIT_PAGE_MAX;

pub(super) use verify::{VerifyArgs, run as verify};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the last records, oldest first
    Tail(TailArgs),
    /// Find calls and other events, newest first
    Search(SearchArgs),
    /// Write records as they stand in the log to stdout, oldest first
    Export(ExportArgs),
    /// Check that no record was changed, removed, added or moved; needs no server. Exit 0 whole, 1
    /// broken, 2 usage
    Verify(VerifyArgs),
    /// Print the public key that checks the log's signed checkpoints
    Key,
}

/// What to look for.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filters {
    /// Not before: a time like 2026-01-31T12:00:00Z, or so long ago, like 1h
    #[arg(long, value_parser = when, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<Millis>,
    /// Before
    #[arg(long, value_parser = when, value_name = "WHEN")]
    until: Option<Millis>,
    /// About a user, by name or id
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// About an mcp, by name or id
    #[arg(long, value_name = "MCP")]
    mcp: Option<String>,
    /// About a tool, by its own name
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// About a client: a key's id
    #[arg(long, value_name = "KEY")]
    client: Option<String>,
    /// An event or a class of events, like call, auth.register or isolate
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// How it ended: answered, ok, or an error code like call_timeout
    #[arg(long, value_name = "WORD")]
    outcome: Option<String>,
    /// One call, by its id
    #[arg(long, value_name = "CALL")]
    call: Option<String>,
    /// A text anywhere in the record
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct TailArgs {
    /// How many records
    #[arg(short = 'n', default_value_t = 20, value_name = "N",
        value_parser = clap::value_parser!(u16).range(0..=1000))]
    lines: u16,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    filters: Filters,
}

#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    #[command(flatten)]
    filters: Filters,
    /// Calls that began and have no end: in flight, or cut off by a crash
    #[arg(long)]
    unfinished: bool,
    /// How many at most
    #[arg(long, default_value_t = 50, value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// Each record on a line, byte for byte as in the log
    Jsonl,
    /// The common fields in columns, the whole record in the last
    Csv,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    filters: Filters,
    /// How to write them
    #[arg(long, value_enum, default_value = "jsonl", value_name = "FORMAT")]
    format: ExportFormat,
}

/// A time, or a duration before now.
fn when(text: &str) -> Result<Millis, String> {
    if let Ok(ago) = parse_duration(text) {
        let ago = Millis::try_from(ago.as_millis()).unwrap_or(Millis::MAX);
        return Ok(HostClock.wall_ms().saturating_sub(ago));
    }
    text.parse::<jiff::Timestamp>()
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| "expected a time like 2026-01-31T12:00:00Z, or a duration like 1h".to_owned())
}

impl Filters {
    fn query(self) -> Query {
        Query {
            since: self.since,
            until: self.until,
            user: self.user,
            mcp: self.mcp,
            tool: self.tool,
            client: self.client,
            event: self.event,
            outcome: self.outcome,
            call: self.call,
            text: self.text,
            ..Query::default()
        }
    }
}

/// The path with the query behind it.
fn path(of: &str, query: &Query) -> String {
    let value = serde_json::to_value(query).unwrap_or_default();
    let fields = value.as_object().into_iter().flatten();
    let pairs = fields.map(|(name, value)| {
        let text = match value {
            Value::String(text) => escape(text),
            other => other.to_string(),
        };
        format!("{name}={text}")
    });
    format!("/v1/audit/{of}?{}", pairs.collect::<Vec<_>>().join("&"))
}

pub(super) async fn run(command: AuditCommand, mut desk: Desk) -> Done {
    match command {
        AuditCommand::Tail(args) => tail(args, desk).await,
        AuditCommand::Search(args) => search(args, desk).await,
        AuditCommand::Export(args) => export(args, desk).await,
        AuditCommand::Key => {
            let key: KeyView = desk.client.get("/v1/audit/key").await?;
            desk.out.one(&key, &key.id, |out| out.raw(&key.pem))?;
            Ok(Exit::Ok)
        }
        // Taken before there is a desk: it needs no server.
        AuditCommand::Verify(_) => Ok(Exit::Usage),
    }
}

async fn search(args: SearchArgs, mut desk: Desk) -> Done {
    let query = Query {
        unfinished: args.unfinished,
        limit: Some(usize::from(args.limit)),
        cursor: args.cursor,
        ..args.filters.query()
    };
    let page: Page = desk.client.get(&path("search", &query)).await?;
    let name = page
        .items
        .iter()
        .map(|item| item.seq.to_string())
        .collect::<Vec<_>>()
        .join("\n");
    let wide = desk.out.wide();
    desk.out.one(&page, &name, |out| {
        out.table(&show::table(&page.items, &page.names, wide))
    })?;
    if page.items.is_empty() {
        desk.out.say("nothing fits");
    }
    if let Some(cursor) = page.cursor {
        desk.out.say(&format!(
            "there may be more: the same with --cursor {cursor}"
        ));
    }
    Ok(Exit::Ok)
}

async fn tail(args: TailArgs, mut desk: Desk) -> Done {
    let query = args.filters.query();
    let lines = usize::from(args.lines);
    // While the store is away there are ids.
    let mut names = names(&desk).await.unwrap_or_default();
    let last = Query {
        limit: Some(lines.clamp(1, AUDIT_PAGE_MAX)),
        ..query.clone()
    };
    let page: Page = desk.client.get(&path("search", &last)).await?;
    let mut records: Vec<Value> = page
        .items
        .into_iter()
        .flat_map(|item| [Some(item.record), item.end])
        .flatten()
        .collect();
    records.sort_by_key(|record| record["seq"].as_u64());
    let skip = records.len().saturating_sub(lines);
    for record in records.iter().skip(skip) {
        print(record, &names, &mut desk)?;
    }
    if !args.follow {
        return Ok(Exit::Ok);
    }
    let on = Query {
        after: Some(page.tip),
        follow: true,
        ..query
    };
    let mut stream = desk.client.stream(&path("records", &on)).await?;
    while let Some(line) = stream.next().await? {
        let record: Value = serde_json::from_slice(&line).unwrap_or_default();
        if !show::knows(&record, &names) {
            names = self::names(&desk).await.unwrap_or(names);
        }
        print(&record, &names, &mut desk)?;
    }
    Ok(Exit::Ok)
}

fn print(record: &Value, names: &Names, desk: &mut Desk) -> Result<(), CliError> {
    if desk.out.is_json() {
        return desk.out.json_line(record);
    }
    desk.out.line(&show::line(record, names))
}

async fn export(args: ExportArgs, mut desk: Desk) -> Done {
    let mut stream = desk
        .client
        .stream(&path("records", &args.filters.query()))
        .await?;
    if args.format == ExportFormat::Csv {
        desk.out.raw(show::CSV_TITLES)?;
    }
    while let Some(mut line) = stream.next().await? {
        match args.format {
            ExportFormat::Jsonl => {
                line.push(b'\n');
                desk.out.bytes(&line)?;
            }
            ExportFormat::Csv => {
                let text = String::from_utf8_lossy(&line);
                desk.out.raw(&show::csv(&text))?;
            }
        }
    }
    Ok(Exit::Ok)
}

/// Names of users and mcps by id.
type Names = BTreeMap<String, String>;

async fn names(desk: &Desk) -> Result<Names, CliError> {
    let users: Vec<UserView> = desk.client.get("/v1/users").await?;
    let mcps: Vec<McpView> = desk.client.get("/v1/mcps").await?;
    let users = users
        .into_iter()
        .map(|view| (view.user.id.to_string(), view.user.name.to_string()));
    let mcps = mcps
        .into_iter()
        .map(|view| (view.mcp.id.to_string(), view.mcp.name.to_string()));
    Ok(users.chain(mcps).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_so_long_ago() {
        assert_eq!(when("1970-01-01T00:00:01Z"), Ok(1000));
        let hour = HostClock.wall_ms() - when("1h").unwrap();
        assert!((3_600_000 - 1000..3_660_000).contains(&hour), "{hour}");
        for bad in ["yesterday", "", "-1h", "12:00"] {
            assert!(when(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_query_is_escaped_and_has_only_what_was_said() {
        let query = Query {
            user: Some("a&b=c".into()),
            follow: true,
            after: Some(7),
            ..Query::default()
        };
        assert_eq!(
            path("records", &query),
            "/v1/audit/records?after=7&follow=true&user=a%26b%3Dc"
        );
        assert_eq!(path("search", &Query::default()), "/v1/audit/search?");
    }
}
