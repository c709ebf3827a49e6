//! `legation mcp …`.

mod definition;
mod show;

use clap::Subcommand;

use super::client::{NOTHING, path};
use super::error::{CliError, Done, Exit};
use super::isolate::sharing_word;
use super::kill::{denied, lifted};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::units::{age, cpu, size};
use super::{Desk, name};
use crate::actors::packages::PackageView;
use crate::actors::views::{DenyReport, DenyView, Discovery, UnfitSchema};
use crate::api::admin::isolates::Reason;
use crate::api::admin::mcps::{ArchiveReport, InstallMcp, McpDetail, McpView, PublishReport};
use crate::domain::mcp::{McpState, Tool};
use crate::domain::name::Name;

use definition::{AddArgs, UpdateArgs};
use show::show;

#[derive(Debug, Subcommand)]
pub(super) enum McpCommand {
    /// Define a server: legation mcp add NAME --memory 512MiB -- COMMAND ARGS…, or --url URL of one that runs
    /// elsewhere
    Add(AddArgs),
    /// Change a definition; running isolates of the old one are replaced
    Update(UpdateArgs),
    /// Start the server once, read its tools and show where the time went
    Discover {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Install its package, which else happens when it is needed first
    Install {
        #[arg(value_parser = name)]
        name: Name,
        /// Also if it is there: with the newest versions that the definition allows
        #[arg(long)]
        again: bool,
    },
    /// Let those who are granted it use it; discovers its tools first if none are known
    Publish {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Take it out of service for good; its name becomes free
    Archive {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Switch it off for everybody: short for kill-switch on --scope mcp
    Suspend {
        #[arg(value_parser = name)]
        name: Name,
        /// What callers are told
        #[arg(long, default_value = "", value_name = "TEXT")]
        reason: String,
    },
    /// Let it serve again: short for kill-switch off --scope mcp
    Resume {
        #[arg(value_parser = name)]
        name: Name,
    },
    /// Show all definitions
    List,
    /// Show one definition with its tools
    Show {
        #[arg(value_parser = name)]
        name: Name,
    },
}

pub(super) async fn run(command: McpCommand, mut desk: Desk) -> Done {
    match command {
        McpCommand::Add(args) => {
            let view: McpView = desk.client.post("/v1/mcps", Some(&args.wanted()?)).await?;
            let name = view.mcp.name.as_str();
            desk.out.one(&view, name, |out| {
                out.line(&format!("mcp {name} is a draft"))
            })?;
            desk.out.say(&format!("next: legation mcp publish {name}"));
            Ok(Exit::Ok)
        }
        McpCommand::Update(args) => update(&args, desk).await,
        McpCommand::Discover { name } => discover(name.as_str(), desk).await,
        McpCommand::Install { name, again } => install(name.as_str(), again, desk).await,
        McpCommand::Publish { name } => publish(name.as_str(), desk).await,
        McpCommand::Archive { name } => {
            desk.confirm(&format!(
                "archive mcp {name} for good, and forget every credential that is set for it"
            ))?;
            let path = path(&["mcps", name.as_str(), "archive"]);
            let done: ArchiveReport = desk.client.post(&path, NOTHING).await?;
            let forgotten = match done.credentials_forgotten {
                0 => String::new(),
                1 => ", and the credential that was set for it is forgotten".to_owned(),
                n => format!(", and {n} credentials that were set for it are forgotten"),
            };
            desk.out.one(&done, name.as_str(), |out| {
                out.line(&format!("mcp {name} is archived{forgotten}"))
            })?;
            Ok(Exit::Ok)
        }
        McpCommand::Suspend { name, reason } => {
            desk.confirm(&format!("suspend mcp {name} for everybody"))?;
            let path = path(&["mcps", name.as_str(), "suspend"]);
            let report: DenyReport = desk.client.post(&path, Some(&Reason { reason })).await?;
            denied(&report, &format!("legation mcp resume {name}"), &mut desk)
        }
        McpCommand::Resume { name } => {
            let path = path(&["mcps", name.as_str(), "resume"]);
            let view: DenyView = desk.client.post(&path, NOTHING).await?;
            lifted(&view, &mut desk)
        }
        McpCommand::List => {
            let all: Vec<McpView> = desk.client.get("/v1/mcps").await?;
            desk.out
                .list(&all, table, |view| view.mcp.name.to_string())?;
            Ok(Exit::Ok)
        }
        McpCommand::Show { name } => {
            let detail: McpDetail = desk.client.get(&path(&["mcps", name.as_str()])).await?;
            desk.out
                .one(&detail, name.as_str(), |out| show(&detail, out))?;
            Ok(Exit::Ok)
        }
    }
}

async fn update(args: &UpdateArgs, mut desk: Desk) -> Done {
    let wanted = args.wanted()?;
    let name = args.name.as_str();
    let view: McpView = desk.client.patch(&path(&["mcps", name]), &wanted).await?;
    desk.out.one(&view, name, |out| {
        out.line(&format!("mcp {name} is changed"))
    })?;
    if wanted.program.command.is_some() || wanted.program.remote.url.is_some() {
        desk.out.say(&format!(
            "its tools may be others now: legation mcp discover {name}"
        ));
    }
    Ok(Exit::Ok)
}

async fn discover(name: &str, mut desk: Desk) -> Done {
    desk.out
        .say(&format!("starting {name} once to read its tools…"));
    let path = path(&["mcps", name, "discover"]);
    let found: Discovery = desk.client.patient().post(&path, NOTHING).await?;
    desk.out.one(&found, name, |out| discovered(&found, out))?;
    Ok(Exit::Ok)
}

async fn install(name: &str, again: bool, mut desk: Desk) -> Done {
    desk.out.say(&format!("installing the package of {name}…"));
    let path = path(&["mcps", name, "install"]);
    let wanted = InstallMcp { again };
    let view: PackageView = desk.client.patient().post(&path, Some(&wanted)).await?;
    desk.out.one(&view, name, |out| {
        out.line(&format!(
            "{} {} is installed, with {} packages, in {}",
            view.name,
            view.version,
            view.packages,
            age(view.took_ms)
        ))
    })?;
    Ok(Exit::Ok)
}

async fn publish(name: &str, mut desk: Desk) -> Done {
    let path = path(&["mcps", name, "publish"]);
    let report: PublishReport = desk.client.patient().post(&path, NOTHING).await?;
    desk.out.one(&report, name, |out| {
        match &report.discovery {
            Some(found) => discovered(found, out)?,
            None => left_out(&report.left_out, out)?,
        }
        out.line(&format!(
            "mcp {name} is published with {} tools",
            report.mcp.tool_count
        ))
    })?;
    desk.out
        .say(&format!("next: legation group grant GROUP {name}"));
    Ok(Exit::Ok)
}

fn discovered(found: &Discovery, out: &mut Out) -> Result<(), CliError> {
    let changed = if found.changed { "" } else { ", as before" };
    out.line(&format!(
        "{} {}, MCP {}: {} tools{changed}",
        found.server_name,
        found.server_version,
        found.protocol_version,
        found.tools.len()
    ))?;
    let phases = found
        .phases
        .iter()
        .map(|phase| format!("{} {}", phase.name, age(phase.ms)));
    let phases: Vec<_> = phases.collect();
    out.styled(&format!("time: {}", phases.join(", ")), Style::Dim)?;
    out.table(&tools(&found.tools))?;
    left_out(&found.left_out, out)?;
    unchecked(&found.unfit, out)?;
    // It went well: what a server says as it starts is mostly its banner, or that it does not know
    // our question for its era.
    match found.stderr_tail.len() {
        0 => {}
        _ if out.wide() => {
            for line in &found.stderr_tail {
                out.say(&format!("stderr: {line}"));
            }
        }
        lines => out.say(&format!("stderr: {lines} lines, which -o wide shows")),
    }
    Ok(())
}

/// The tools that a server lists and nobody is offered.
fn left_out(left_out: &[String], out: &mut Out) -> Result<(), CliError> {
    for why in left_out {
        out.styled(&format!("left out: {why}"), Style::Warn)?;
    }
    Ok(())
}

/// The tools whose calls nothing is checked of, though the definition says so.
fn unchecked(unfit: &[UnfitSchema], out: &mut Out) -> Result<(), CliError> {
    for UnfitSchema { tool, why } in unfit {
        let text = format!("unchecked: {tool}, whose schema is not used: {why}");
        out.styled(&text, Style::Warn)?;
    }
    Ok(())
}

fn tools(tools: &[Tool]) -> Table {
    let mut table = Table::new(&["TOOL", "DESCRIPTION"]);
    for tool in tools {
        let first = tool.description.lines().next().unwrap_or_default();
        table.row(vec![Cell::from(tool.name.as_str()), first.into()]);
    }
    table
}

/// A state as a word.
pub(super) const fn state_word(state: McpState) -> &'static str {
    match state {
        McpState::Draft => "draft",
        McpState::Published => "published",
        McpState::Archived => "archived",
    }
}

fn state(view: &McpView) -> Cell {
    match &view.suspended {
        Some(_) => Cell::state("suspended"),
        None => Cell::state(state_word(view.mcp.state)),
    }
}

/// The program as it would be typed, or where the server is.
fn command_line(view: &McpView) -> String {
    let program = &view.mcp.program;
    if let Some(remote) = &program.remote {
        return remote.url.url().to_owned();
    }
    let words = std::iter::once(&program.command).chain(&program.args);
    let quoted = words.map(|word| {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:@,+{}".contains(c);
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

fn table(all: &[McpView], wide: bool) -> Table {
    let mut titles = vec!["NAME", "STATE", "SHARING", "TOOLS"];
    if wide {
        titles.extend(["MEMORY", "PIDS", "CPU", "HASH", "ID", "DESCRIPTION"]);
    }
    titles.push("COMMAND");
    let mut table = Table::new(&titles);
    for view in all {
        let mcp = &view.mcp;
        let mut row = vec![
            Cell::from(mcp.name.as_str()),
            state(view),
            sharing_word(mcp.sharing).into(),
            view.tool_count.to_string().into(),
        ];
        if wide {
            row.extend([
                Cell::from(size(mcp.limits.memory_bytes)),
                mcp.limits.pids.to_string().into(),
                cpu(mcp.limits.cpu_millis).into(),
                view.config_hash.as_str().into(),
                mcp.id.as_str().into(),
                mcp.description.as_str().into(),
            ]);
        }
        row.push(command_line(view).into());
        table.row(row);
    }
    table
}
