//! Everything that is known of one definition, as facts below each other.

use std::time::Duration;

use super::super::error::CliError;
use super::super::isolate::sharing_word;
use super::super::output::Out;
use super::super::table::{Cell, Style, Table};
use super::super::units::{age, cpu, size};
use super::{command_line, left_out, state, tools, unchecked};
use crate::actors::packages::PackageView;
use crate::api::admin::credentials::NeededCredential;
use crate::api::admin::mcps::McpDetail;
use crate::domain::confinement::{Confinement, Profile};
use crate::domain::era::Era;
use crate::domain::limits::INSTALL_DEADLINE;
use crate::domain::mcp::{Capture, Mcp, Usual};
use crate::domain::package::Install;
use crate::domain::remote::{Reach, Remote};
use crate::domain::talk::{Check, ToolChanges};

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

/// What is said between the server and its clients, and what the audit log keeps of it.
fn talk(mcp: &Mcp, fact: &mut impl FnMut(&str, Cell)) {
    if !mcp.talk.questions.is_empty() {
        fact("asks", mcp.talk.questions.to_string().into());
    }
    match mcp.talk.arguments {
        Check::Off => {}
        Check::Warn => fact("arguments", "checked, and what does not fit is told".into()),
        Check::Enforce => fact(
            "arguments",
            "checked, and what does not fit is refused".into(),
        ),
    }
    let kept = match mcp.audit_arguments {
        Capture::None => "the size of arguments",
        Capture::Digest => "size and SHA-256 of arguments",
        Capture::Full => "arguments in full",
    };
    fact("audit", kept.into());
    if mcp.talk.tool_changes == ToolChanges::Adopt {
        fact("tool changes", "discovered and offered at once".into());
    }
}

/// How a package is installed.
fn install(install: &Install, fact: &mut impl FnMut(&str, Cell)) {
    let scripts = match install.scripts {
        true => Cell::styled("run during the install", Style::Warn),
        false => "do not run".into(),
    };
    fact("install scripts", scripts);
    let own = install.within_ms.map(Duration::from_millis);
    let within = own.unwrap_or(INSTALL_DEADLINE).as_millis();
    fact(
        "install within",
        age(u64::try_from(within).unwrap_or(u64::MAX)).into(),
    );
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

/// Shows all of it, and its tools.
pub(super) fn show(detail: &McpDetail, out: &mut Out) -> Result<(), CliError> {
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
    talk(mcp, &mut fact);
    if let Some(package) = &detail.package {
        install(&mcp.install, &mut fact);
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
        left_out(&detail.left_out, out)?;
        return out.styled("no tools are known: legation mcp discover", Style::Warn);
    }
    out.table(&tools(&detail.tools))?;
    left_out(&detail.left_out, out)?;
    unchecked(&detail.unfit, out)
}
