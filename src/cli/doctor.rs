//! `legation doctor`: what this host offers to isolates, tried in the name of whoever asks; needs no running server, and
//! tells what one that runs says of itself.

use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::config::{load, setting};
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use super::{Global, socket};
use crate::actors::jail::{Facility, Finding, Verdict, Walls, examine};
use crate::actors::pressure;
use crate::actors::views::Status;
use crate::config::Sources;
use crate::domain::code::Code;

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The configuration file [default: /etc/legation/legation.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a value, as SECTION.KEY=VALUE; may be repeated
    #[arg(long, value_parser = setting, value_name = "SECTION.KEY=VALUE")]
    set: Vec<(String, String)>,
}

pub(super) fn run(args: DoctorArgs, global: Global, mut out: Out) -> Done {
    let mut flags = args.set;
    let folder = global.data_dir;
    flags.extend(folder.map(|folder| ("server.data_dir".to_owned(), folder.display().to_string())));
    let (config, _) = load(&Sources::standard(args.config, flags))?;
    let names = config.sandbox.allow_degraded.iter();
    let allowed: Result<Vec<Facility>, _> = names.map(|name| name.parse()).collect();
    let allowed = allowed.map_err(|unknown| CliError::Config {
        text: format!("sandbox.allow_degraded: {unknown}"),
        unreadable: false,
    })?;
    let mut found =
        examine(&Walls::of(&config), &allowed).map_err(|error| CliError::NotStarted {
            code: Code::SandboxRefused,
            message: error.to_string(),
            next: None,
        })?;
    found.extend(pressure::finding(&config.isolates));
    let tried = exit(&found);
    let server = server(socket::of_config(global.socket, &config, &out), &out);
    found.extend(server.iter().flat_map(|server| server.lacks.clone()));
    out.list(&found, |found, _| table(found), |one| one.facility.clone())?;
    let whose = account(rustix::process::geteuid().as_raw());
    out.say(&match tried {
        Exit::Ok => format!("isolates of a server that {whose} starts have all their walls here"),
        Exit::Warnings => {
            format!("isolates of a server that {whose} starts start here, and some lack a wall")
        }
        _ => format!(
            "isolates of a server that {whose} starts do not start here: mend what is missing, or \
             name it in sandbox.allow_degraded"
        ),
    });
    if let Some(server) = server {
        let Server { who, lacks } = &server;
        out.say(&match lacks.len() {
            0 => format!("{who} enforces all of it"),
            some => format!("{who} does not enforce {some} of it, as it says itself"),
        });
    }
    out.say("servers behind HTTP (mcp add --url) run elsewhere, and none of this holds for them");
    Ok(exit(&found))
}

/// A server that runs: it may be of another account, and stand on less than we were given.
struct Server {
    who: String,
    lacks: Vec<Finding>,
}

fn server(socket: Option<PathBuf>, out: &Out) -> Option<Server> {
    let socket = socket?;
    let shown = socket.display().to_string();
    let status: Status = match Client::new(socket).get_now("/v1/status") {
        Ok(status) => status,
        Err(CliError::Unreachable { .. }) => return None,
        Err(error) => {
            out.say(&format!(
                "a server's socket is at {shown}, which was not asked: {error}"
            ));
            return None;
        }
    };
    let owner = owner(status.pid).map_or_else(|| "another account".to_owned(), account);
    let who = format!("the server that runs as {owner} (pid {})", status.pid);
    let lacks = status.enforcement.missing.iter();
    let lacks = lacks.map(|lack| lacking(&who, lack));
    Some(Server {
        lacks: lacks.collect(),
        who,
    })
}

/// From the server's own words, `FACILITY: WHY; FIX`.
fn lacking(who: &str, lack: &str) -> Finding {
    let (name, why) = lack.split_once(": ").unwrap_or((lack, ""));
    let fix = name.parse().map_or("legation status", Facility::fix);
    let why = why.strip_suffix(fix).unwrap_or(why);
    Finding {
        facility: name.to_owned(),
        verdict: Verdict::Degraded,
        evidence: format!("{who}: {}", why.trim_end_matches("; ")),
        fix: Some(fix.to_owned()),
    }
}

/// Whose a process is; the owner of its files in `/proc` is root where it is not to be looked into.
fn owner(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn account(uid: u32) -> String {
    match uid {
        0 => "root".to_owned(),
        other => format!("uid {other}"),
    }
}

fn exit(found: &[Finding]) -> Exit {
    match found.iter().map(|one| one.verdict).max() {
        Some(Verdict::Missing) => Exit::Failures,
        Some(Verdict::Degraded | Verdict::Unused) => Exit::Warnings,
        Some(Verdict::Ok) | None => Exit::Ok,
    }
}

fn table(found: &[Finding]) -> Table {
    let mut table = Table::new(&["FACILITY", "VERDICT", "EVIDENCE", "FIX"]);
    for one in found {
        let (word, style) = match one.verdict {
            Verdict::Ok => ("ok", Style::Good),
            Verdict::Degraded => ("degraded", Style::Warn),
            Verdict::Unused => ("unused", Style::Warn),
            Verdict::Missing => ("MISSING", Style::Bad),
        };
        table.row(vec![
            Cell::from(one.facility.as_str()),
            Cell::styled(word, style),
            one.evidence.as_str().into(),
            one.fix.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_finding_is_the_exit() {
        let finding = |verdict| Finding {
            facility: "landlock".to_owned(),
            verdict,
            evidence: String::new(),
            fix: None,
        };
        let ended = |verdicts: &[Verdict]| {
            let found: Vec<_> = verdicts.iter().map(|verdict| finding(*verdict)).collect();
            exit(&found).code()
        };
        assert_eq!(ended(&[Verdict::Ok, Verdict::Ok]), 0);
        assert_eq!(ended(&[Verdict::Ok, Verdict::Degraded]), 1);
        assert_eq!(ended(&[Verdict::Missing, Verdict::Degraded]), 2);
    }
}
