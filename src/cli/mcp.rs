//! `legation mcp …`.

mod definition;

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
use crate::api::admin::credentials::NeededCredential;
use crate::api::admin::isolates::Reason;
use crate::api::admin::mcps::{InstallMcp, McpDetail, McpView, PublishReport};
use crate::domain::confinement::{Confinement, Profile};
use crate::domain::era::Era;
use crate::domain::mcp::{Mcp, McpState, Tool, Usual};
use crate::domain::name::Name;
use crate::domain::remote::{Reach, Remote};
use crate::domain::talk::{Check, ToolChanges};

use definition::{AddArgs, UpdateArgs};

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
            desk.confirm(&format!("archive mcp {name} for good"))?;
            let path = path(&["mcps", name.as_str(), "archive"]);
            let view: McpView = desk.client.post(&path, NOTHING).await?;
            desk.out.one(&view, name.as_str(), |out| {
                out.line(&format!("mcp {name} is archived"))
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
        if let Some(found) = &report.discovery {
            discovered(found, out)?;
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

/// Where the package is: what it is, or what is the matter.
fn package_state(package: &PackageView) -> Cell {
    match (package.state.as_str(), &package.detail) {
        ("installed", _) => format!(
            "{} {}, {} packages, {}, by {}",
            package.name,
            package.version,
            package.packages,
            size(package.bytes),
            package.manager
        )
        .into(),
        (_, Some(detail)) if package.state == "failed" => {
            Cell::styled(format!("not installed: {detail}"), Style::Bad)
        }
        (_, Some(detail)) => detail.as_str().into(),
        _ => "not installed yet: it is when it is needed first, or by legation mcp install".into(),
    }
}

/// Where a server behind HTTP is, and how it is spoken to.
fn away(remote: &Remote, fact: &mut impl FnMut(&str, Cell)) {
    fact("url", remote.url.url().into());
    fact("transport", remote.transport.as_str().into());
    for (name, value) in &remote.headers {
        fact("header", format!("{name}: {value}").into());
    }
    let addresses = match remote.reach {
        Reach::Public => "public alone, over TLS",
        Reach::Private => "private ones too",
    };
    fact("addresses", addresses.into());
    if let Some(ca) = &remote.ca {
        fact("authorities", ca.display().to_string().into());
    }
    fact(
        "walls",
        "none: it runs elsewhere, and is not limited".into(),
    );
}

/// A value, and the configuration's key if it is that one's.
fn usual(mcp: &Mcp, one: Usual, value: &str) -> Cell {
    match mcp.as_configured.contains(&one) {
        true => format!("{value}, as {} says", one.key()).into(),
        false => value.into(),
    }
}

/// What is started, and what the kernel lets it have.
fn limited(mcp: &Mcp, command: String, fact: &mut impl FnMut(&str, Cell)) {
    fact("command", command.into());
    // Values may be secrets; whoever needs them asks for JSON.
    for name in mcp.program.env.keys() {
        fact("variable", format!("{name}=…").into());
    }
    let limits = &mcp.limits;
    let (memory, files) = (size(limits.memory_bytes), size(limits.file_bytes));
    fact("memory", usual(mcp, Usual::MemoryBytes, &memory));
    let pids = limits.pids.to_string();
    fact("processes", usual(mcp, Usual::Pids, &pids));
    let cores = format!("{} cores", cpu(limits.cpu_millis));
    fact("cpu", usual(mcp, Usual::CpuMillis, &cores));
    fact(
        "open files",
        format!("{}, {files} each at most", limits.open_files).into(),
    );
}

fn walls(walls: &Confinement, fact: &mut impl FnMut(&str, Cell)) {
    let profile = walls
        .profile
        .map_or("as sandbox.profile says", Profile::as_str);
    fact("profile", profile.into());
    fact("network", walls.network.as_str().into());
    for host in &walls.hosts {
        fact("reaches", host.to_string().into());
    }
    for (title, paths) in [("sees", &walls.read), ("writes", &walls.write)] {
        for path in paths {
            fact(title, path.display().to_string().into());
        }
    }
}

/// What a credential is, and who has set it: never a value.
fn credential(needed: &NeededCredential) -> Cell {
    let mut text = match &needed.to {
        Some(to) if needed.required => format!("{} as {to}", needed.name),
        Some(to) => format!("{} as {to}, optional", needed.name),
        None => format!("{}, no longer wanted", needed.name),
    };
    let users = |count: usize| match count {
        1 => "1 user".to_owned(),
        count => format!("{count} users"),
    };
    text.push_str(&format!("; set for {}", users(needed.users_set)));
    if !needed.users.is_empty() {
        let more = needed.users_set.saturating_sub(needed.users.len());
        let more = if more > 0 { ", …" } else { "" };
        text.push_str(&format!(" ({}{more})", needed.users.join(", ")));
    }
    if needed.shared {
        text.push_str(" and shared");
    }
    match needed.users_missing {
        0 => text.into(),
        missing => {
            text.push_str(&format!("; missing for {}", users(missing)));
            Cell::styled(text, Style::Warn)
        }
    }
}

fn show(detail: &McpDetail, out: &mut Out) -> Result<(), CliError> {
    let view = &detail.view;
    let mcp = &view.mcp;
    let mut facts = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        facts.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact("mcp", Cell::styled(mcp.name.as_str(), Style::Bold));
    if !mcp.description.is_empty() {
        fact("description", mcp.description.as_str().into());
    }
    fact("state", state(view));
    if let Some(reason) = &view.suspended {
        fact("reason", reason.as_str().into());
    }
    fact("sharing", sharing_word(mcp.sharing).into());
    match &mcp.program.remote {
        Some(remote) => away(remote, &mut fact),
        None => limited(mcp, command_line(view), &mut fact),
    }
    for (name, slot) in &mcp.credentials {
        fact("credential", format!("{name}={}", slot.delivery).into());
    }
    let call = age(mcp.times.call_ms);
    fact("call within", usual(mcp, Usual::CallMs, &call));
    let start = u64::try_from(mcp.start_deadline().as_millis()).unwrap_or(u64::MAX);
    fact("start within", age(start).into());
    let idle = mcp.times.idle_ms.map_or_else(|| "never".to_owned(), age);
    fact("idle after", usual(mcp, Usual::IdleMs, &idle));
    if !mcp.program.is_remote() {
        walls(&mcp.confinement, &mut fact);
    }
    for needed in &detail.needs {
        fact("credential", credential(needed));
    }
    if let Some(spoken) = &detail.spoken {
        let era = match spoken.era {
            Era::Legacy => "with sessions",
            Era::Modern => "without sessions",
        };
        fact("speaks", format!("MCP {}, {era}", spoken.version).into());
    }
    match mcp.talk.arguments {
        Check::Off => {}
        Check::Warn => fact("arguments", "checked, and what does not fit is told".into()),
        Check::Enforce => fact(
            "arguments",
            "checked, and what does not fit is refused".into(),
        ),
    }
    if mcp.talk.tool_changes == ToolChanges::Adopt {
        fact("tool changes", "discovered and offered at once".into());
    }
    if let Some(package) = &detail.package {
        fact("package", package_state(package));
        for (title, text) in [
            ("integrity", &package.integrity),
            ("lock", &package.lock_sha256),
            ("runs", &package.entry),
        ] {
            if !text.is_empty() {
                fact(title, text.as_str().into());
            }
        }
    }
    fact("hash", view.config_hash.as_str().into());
    out.table(&facts)?;
    out.raw("\n")?;
    if detail.tools.is_empty() {
        return out.styled("no tools are known: legation mcp discover", Style::Warn);
    }
    out.table(&tools(&detail.tools))?;
    unchecked(&detail.unfit, out)
}
