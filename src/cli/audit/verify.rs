//! `legation audit verify`: by the server, if one answers, or on the files alone.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::actors::audit::{INDEX_NAME, Verify, VerifyError};
use crate::cli::Global;
use crate::cli::client::Client;
use crate::cli::error::{CliError, Done, Exit};
use crate::cli::output::Out;
use crate::cli::socket::{self, DEV_DATA_DIR, SYSTEM_DATA_DIR};
use crate::cli::table::{Cell, Style, Table};
use crate::domain::audit::check::Report;
use crate::storage::AuditIndex;

/// Where the files are in the data directory, unless `audit.dir` says otherwise.
const AUDIT_DIR: &str = "audit";

/// What to check, and against what.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// The directory with the segments, without asking a server [default: the running server's, or
    /// `audit` in the data directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The key that must have signed the checkpoints [default: keys/audit.pub of the server]
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// A copy of the file `checkpoint` that was kept elsewhere: the log must reach it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
}

pub(in crate::cli) fn run(args: &VerifyArgs, global: Global, mut out: Out) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CliError::Runtime)?;
    let report = runtime.block_on(report(args, global, &out))?;
    tell(&report, &mut out)?;
    match &report.fault {
        None => Ok(Exit::Ok),
        Some(fault) => Err(CliError::AuditBroken(fault.to_string())),
    }
}

async fn report(args: &VerifyArgs, global: Global, out: &Out) -> Result<Report, CliError> {
    if let Some(dir) = &args.dir {
        return offline(dir, args).await;
    }
    let folder = global.data_dir.clone();
    let asked = match socket::find(global.socket, global.data_dir) {
        // With a key or a checkpoint of somebody's own the files are what counts.
        Ok(_) if args.public_key.is_some() || args.checkpoint.is_some() => None,
        Ok(socket) => Some(Client::new(socket).patient().get("/v1/audit/verify").await),
        Err(error) if error.is_no_server() => None,
        Err(error) => return Err(error),
    };
    match asked {
        Some(Err(error)) if error.is_no_server() => {}
        None => {}
        Some(answer) => return answer,
    }
    let there = |folder: &&str| Path::new(folder).is_dir();
    let usual = [DEV_DATA_DIR, SYSTEM_DATA_DIR];
    let usual = usual.iter().find(|folder| there(folder)).copied();
    let folder = folder.unwrap_or_else(|| usual.unwrap_or(SYSTEM_DATA_DIR).into());
    let dir = folder.join(AUDIT_DIR);
    out.say(&format!(
        "checking the files in {} without a server",
        dir.display()
    ));
    offline(&dir, args).await
}

async fn offline(dir: &Path, args: &VerifyArgs) -> Result<Report, CliError> {
    let failed = |error: VerifyError| match error {
        VerifyError::Nothing(_) | VerifyError::Unreadable { .. } => {
            CliError::AuditUnreadable(error.to_string())
        }
    };
    let mut verify = Verify::of(dir, args.public_key.as_deref()).map_err(failed)?;
    if let Some(path) = &args.checkpoint {
        verify = verify.kept(path).map_err(failed)?;
    }
    if let Some(high) = AuditIndex::witness(&dir.join(INDEX_NAME)).await {
        verify = verify.witness("the index", high);
    }
    verify.run().map_err(failed)
}

fn tell(report: &Report, out: &mut Out) -> Result<(), CliError> {
    let word = if report.whole { "whole" } else { "broken" };
    out.one(report, word, |out| {
        out.table(&facts(report))?;
        report
            .notes
            .iter()
            .try_for_each(|note| out.styled(&format!("note: {note}"), Style::Dim))
    })
}

fn facts(report: &Report) -> Table {
    let mut table = Table::default();
    let mut fact = |title: &str, cell: Cell| {
        table.row(vec![Cell::styled(title, Style::Dim), cell]);
    };
    fact(
        "audit log",
        match &report.fault {
            None => Cell::styled("whole", Style::Good),
            Some(fault) => Cell::styled(format!("BROKEN: {fault}"), Style::Bad),
        },
    );
    let (first, last) = (report.first_seq, report.last_seq);
    fact(
        "records",
        format!(
            "{} right, {first} to {last}, in {} segments",
            report.records, report.segments
        )
        .into(),
    );
    if !report.last_hash.is_empty() {
        fact("last hash", report.last_hash.as_str().into());
    }
    fact(
        "signed",
        match report.checkpoints {
            0 => "no checkpoint was checked".into(),
            count => format!("up to record {} by {count} checkpoints", report.signed_upto).into(),
        },
    );
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::check::Fault;

    #[test]
    fn the_first_bad_record_is_in_the_first_line() {
        let fault = Fault {
            segment: Some("00000000000000000001.jsonl".into()),
            line: Some(7),
            seq: Some(7),
            what: "its hash does not fit".into(),
        };
        let report = Report {
            fault: Some(fault),
            segments: 1,
            records: 6,
            first_seq: 1,
            last_seq: 6,
            ..Report::default()
        };
        insta::assert_snapshot!(facts(&report).render(None, false), @r"
        audit log  BROKEN: 00000000000000000001.jsonl:7: record 7: its hash does not fit
        records    6 right, 1 to 6, in 1 segments
        signed     no checkpoint was checked
        ");
    }
}
