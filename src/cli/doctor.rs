//! `legation doctor`: what this host offers to isolates, tried; needs no running server.

use std::path::PathBuf;

use clap::Args;

use super::config::{load, setting};
use super::error::{CliError, Done, Exit};
use super::output::Out;
use super::table::{Cell, Style, Table};
use crate::actors::jail::{Facility, Finding, Verdict, Walls, examine};
use crate::actors::pressure;
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

pub(super) fn run(args: DoctorArgs, data_dir: Option<PathBuf>, mut out: Out) -> Done {
    let mut flags = args.set;
    flags.extend(
        data_dir.map(|folder| ("server.data_dir".to_owned(), folder.display().to_string())),
    );
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
    out.list(&found, |found, _| table(found), |one| one.facility.clone())?;
    let exit = exit(&found);
    out.say(match exit {
        Exit::Ok => "isolates have all their walls here",
        Exit::Warnings => "isolates start here, and some lack a wall",
        _ => {
            "isolates do not start here: mend what is missing, or name it in sandbox.allow_degraded"
        }
    });
    out.say("servers behind HTTP (mcp add --url) run elsewhere, and none of this holds for them");
    Ok(exit)
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
