//! One shape for everything that can go wrong, and the exit codes.
//!
//! ```text
//! error[E0412]: isolate 7f3a did not answer initialize within 30 s
//! last stderr: Error: GITHUB_TOKEN is not set
//! try: legation mcp update github --env GITHUB_TOKEN=…
//! docs: legation explain E0412
//! ```
//!
//! What the server refused arrives as a [`Problem`] and keeps its code; what fails on this side of
//! the socket has a [`Code`] too.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use super::output::{Format, colour_wanted, plain};
use super::table::{Style, printable};
use crate::api::admin::Problem;
use crate::domain::code::{self, Code};
use crate::domain::limits;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// Done; for `status`: healthy.
    Ok,
    /// For `status`: it works, but not all of it.
    Degraded,
    /// For `doctor`: all that must be there is.
    Warnings,
    /// For `doctor`: something that must be there is not.
    Failures,
    /// Failed.
    Failed,
    /// The command line or a configuration is wrong.
    Usage,
    /// There is no server to talk to.
    Unreachable,
    /// Not allowed.
    Denied,
    /// There is no such thing.
    NotFound,
    /// It stands against what is there.
    Conflict,
    /// It took too long.
    TimedOut,
    /// Some of it was done.
    Partly,
    /// The server's tree gave up (sysexits' EX_SOFTWARE): the service manager starts it again.
    GaveUp,
}

impl Exit {
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed | Self::Warnings => 1,
            Self::Usage | Self::Degraded | Self::Failures => 2,
            Self::Unreachable => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::TimedOut => 7,
            Self::Partly => 8,
            Self::GaveUp => 70,
        }
    }

    const fn of(exit: code::Exit) -> Self {
        match exit {
            code::Exit::Ok => Self::Ok,
            code::Exit::Failed => Self::Failed,
            code::Exit::Usage => Self::Usage,
            code::Exit::Unreachable => Self::Unreachable,
            code::Exit::Denied => Self::Denied,
            code::Exit::NotFound => Self::NotFound,
            code::Exit::Conflict => Self::Conflict,
            code::Exit::TimedOut => Self::TimedOut,
            code::Exit::Partly => Self::Partly,
        }
    }

    /// For a server of another version, whose code is not known here.
    const fn of_status(status: u16) -> Self {
        match status {
            400 | 405 | 413 | 415 | 422 => Self::Usage,
            401 | 403 => Self::Denied,
            404 => Self::NotFound,
            409 => Self::Conflict,
            408 | 504 => Self::TimedOut,
            _ => Self::Failed,
        }
    }
}

/// How a command ends that failed with a code.
pub(super) const fn exit_of(code: Code) -> Exit {
    match code {
        Code::TreeGaveUp => Exit::GaveUp,
        other => Exit::of(other.exit()),
    }
}

/// How a command ended, or why it could not.
pub(super) type Done = Result<Exit, CliError>;

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error("no server answers at {}: {cause}", socket.display())]
    Unreachable { socket: PathBuf, cause: String },
    #[error("no server was found: neither {}", looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(" nor "))]
    NoSocket { looked: Vec<PathBuf> },
    #[error(
        "the server (process {pid}) is stopping and takes no commands: calls in flight have {} s to end, then its \
         isolates are stopped",
        (limits::DRAIN_MAX + limits::LAST_ANSWERS).as_secs()
    )]
    Stopping { pid: u32 },
    #[error(
        "a server (process {pid}) has {}, but no admin socket is there: it is starting, or has its socket elsewhere",
        folder.display()
    )]
    Silent { pid: u32, folder: PathBuf },
    #[error(
        "no server answers at {}: it is stopped, or stopping, or is not meant for this account; {} cannot be looked into \
         (permission denied)",
        socket.display(),
        shut.display()
    )]
    NoneSeen { socket: PathBuf, shut: PathBuf },
    #[error("permission denied on the admin socket {}", .0.display())]
    SocketDenied(PathBuf),
    #[error(
        "the admin socket {} belongs to uid {owner}, neither you nor root; it is not trusted",
        socket.display()
    )]
    ForeignSocket { socket: PathBuf, owner: u32 },
    #[error("the server did not answer within {} s", .0.as_secs())]
    NoAnswer(Duration),
    #[error("the server broke off its answer: {0}")]
    BrokenAnswer(String),
    #[error("the server's answer to {asked} is not understood: {detail}")]
    StrangeAnswer { asked: String, detail: String },
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    #[error("{0} needs --yes, as there is no terminal to ask on")]
    NeedsYes(String),
    #[error("not done")]
    Declined,
    #[error("the output could not be written: {0}")]
    Output(io::Error),
    #[error("no runtime could be built: {0}")]
    Runtime(io::Error),
    #[error("{0}")]
    Usage(String),
    #[error("{text}")]
    Config { text: String, unreadable: bool },
    #[error("the data directory {} cannot be used: {cause}", path.display())]
    DataDir { path: PathBuf, cause: String },
    #[error(
        "the data directory {} is in use by {}",
        path.display(),
        holder.as_deref().unwrap_or("another server")
    )]
    LockHeld {
        path: PathBuf,
        holder: Option<String>,
    },
    #[error("the server did not start: {message}")]
    NotStarted {
        code: Code,
        message: String,
        next: Option<String>,
    },
    #[error("the audit log is broken: {0}")]
    AuditBroken(String),
    #[error("{0}")]
    AuditUnreadable(String),
    #[error("the supervision tree gave up: {0}")]
    GaveUp(String),
    /// One that knows itself what to do next.
    #[error("{message}")]
    Told {
        code: Code,
        message: String,
        next: String,
    },
}

impl CliError {
    /// Whether there is no server that could have answered.
    pub(super) fn is_no_server(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::NoSocket { .. }
                | Self::Stopping { .. }
                | Self::Silent { .. }
                | Self::NoneSeen { .. }
        )
    }

    /// The stable code; `None` for one that only a server of another version knows.
    fn code(&self) -> Option<Code> {
        Some(match self {
            Self::Refused(problem) => return Code::parse(&problem.code),
            Self::Unreachable { .. }
            | Self::NoSocket { .. }
            | Self::Stopping { .. }
            | Self::Silent { .. }
            | Self::NoneSeen { .. } => Code::DaemonUnreachable,
            Self::SocketDenied(_) | Self::ForeignSocket { .. } => Code::Denied,
            Self::NoAnswer(_) => Code::NoAnswer,
            Self::BrokenAnswer(_) | Self::StrangeAnswer { .. } => Code::AnswerUnreadable,
            Self::NeedsYes(_) | Self::Usage(_) => Code::Usage,
            Self::Declined => Code::Declined,
            Self::Output(_) => Code::OutputFailed,
            Self::Config { .. } => Code::ConfigInvalid,
            Self::LockHeld { .. } => Code::LockHeld,
            Self::NotStarted { code, .. } | Self::Told { code, .. } => *code,
            Self::DataDir { .. } | Self::Runtime(_) => Code::StartFailed,
            Self::GaveUp(_) => Code::TreeGaveUp,
            Self::AuditBroken(_) => Code::AuditBroken,
            Self::AuditUnreadable(_) => Code::AuditUnreadable,
        })
    }

    /// The code's number.
    pub(super) fn number(&self) -> &str {
        match (self.code(), self) {
            (Some(code), _) => code.number(),
            (None, Self::Refused(problem)) => &problem.number,
            (None, _) => Code::Internal.number(),
        }
    }

    /// How the process ends with it.
    pub(super) fn exit(&self) -> Exit {
        match (self.code(), self) {
            // It was not wrong, it was not there.
            (
                _,
                Self::Config {
                    unreadable: true, ..
                },
            ) => Exit::Failed,
            // The host will not have it the next time either: no service manager is to try again.
            (Some(Code::SandboxRefused), Self::NotStarted { .. }) => Exit::Failures,
            (Some(code), _) => exit_of(code),
            (None, Self::Refused(problem)) => Exit::of_status(problem.status),
            (None, _) => Exit::Failed,
        }
    }

    /// What to do next.
    pub(super) fn next(&self) -> String {
        let text = match self {
            Self::Refused(problem) => return problem.next.clone(),
            Self::NotStarted {
                next: Some(next), ..
            }
            | Self::Told { next, .. } => return next.clone(),
            Self::Unreachable { .. } | Self::NoSocket { .. } => {
                "legation serve (or --socket PATH, if it runs elsewhere)"
            }
            Self::NoneSeen { .. } => {
                "the same as root or as the server's own account, who see what is there (sudo legation status)"
            }
            Self::Stopping { pid } => {
                return format!("legation serve, when process {pid} is gone");
            }
            Self::Silent { .. } => {
                "the same again in a moment, or with --socket PATH (what admin.socket says)"
            }
            Self::ForeignSocket { .. } => "name the socket you mean with --socket PATH",
            Self::NeedsYes(_) => "the same with --yes",
            Self::DataDir { .. } => "another one with --data-dir DIR",
            Self::LockHeld { .. } => "stop that server, or use another --data-dir DIR",
            other => other.code().map_or("legation status", Code::next),
        };
        text.to_owned()
    }

    /// The whole text, a line break after each line.
    pub(super) fn render(&self, colour: bool) -> String {
        let text = self.to_string();
        let mut lines = text.lines();
        let head = format!("error[{}]", self.number());
        let first = printable(lines.next().unwrap_or_default());
        let mut out = format!("{}: {first}\n", Style::Bad.paint(&head, colour));
        // A String takes every write.
        for line in lines.filter(|line| !line.trim().is_empty()) {
            _ = writeln!(out, "{}", printable(line));
        }
        let next = printable(&self.next());
        _ = writeln!(out, "{} {next}", Style::Bold.paint("try:", colour));
        let number = self.number();
        _ = writeln!(
            out,
            "{} legation explain {number}",
            Style::Dim.paint("docs:", colour)
        );
        out
    }

    /// Tells on stderr; as a problem document where JSON was asked for.
    pub(super) fn report(&self, format: Format) {
        if matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            return;
        }
        let mut stderr = io::stderr().lock();
        let text = match format {
            Format::Json => format!("{}\n", plain(&self.json().to_string())),
            _ => self.render(stderr.is_terminal() && colour_wanted()),
        };
        // There is no third place to complain.
        _ = stderr.write_all(text.as_bytes());
    }

    fn json(&self) -> serde_json::Value {
        if let Self::Refused(problem) = self {
            return serde_json::to_value(problem).unwrap_or_default();
        }
        serde_json::json!({
            "type": format!("docs/errors.md#{}", self.number()),
            "title": "command failed",
            "code": self.code(),
            "number": self.number(),
            "detail": self.to_string(),
            "next": self.next(),
        })
    }
}

/// An error with what is behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: &str, status: u16) -> CliError {
        CliError::Refused(Box::new(Problem {
            kind: "docs/errors.md#E0412".into(),
            title: "handshake failed".into(),
            status,
            code: code.into(),
            number: "E0412".into(),
            detail: "isolate 7f3a did not answer initialize within 30 s\n\
                     last stderr: Error: \x1b[31mGITHUB_TOKEN is not set"
                .into(),
            next: "legation mcp update github --env GITHUB_TOKEN=…".into(),
        }))
    }

    #[test]
    fn it_says_what_why_and_what_next() {
        let text = problem("handshake_failed", 502).render(false);
        insta::assert_snapshot!(text, @r"
        error[E0412]: isolate 7f3a did not answer initialize within 30 s
        last stderr: Error: \u{1b}[31mGITHUB_TOKEN is not set
        try: legation mcp update github --env GITHUB_TOKEN=…
        docs: legation explain E0412
        ");
    }

    #[test]
    fn without_a_server_it_says_how_to_start_one() {
        let error = CliError::Unreachable {
            socket: "/x/admin.sock".into(),
            cause: "connection refused".into(),
        };
        let text = error.render(false);
        assert!(
            text.contains("/x/admin.sock") && text.contains("try: legation serve"),
            "{text}"
        );
        assert_eq!(error.exit().code(), 3);
    }

    #[test]
    fn exit_codes_follow_the_code_and_else_the_status() {
        for code in Code::ALL {
            let exit = problem(code.as_str(), 200).exit().code();
            let gave_up = *code == Code::TreeGaveUp;
            assert_eq!(
                exit,
                if gave_up { 70 } else { code.exit().code() },
                "{code}"
            );
        }
        for (status, exit) in [(404, 5), (409, 6), (403, 4), (504, 7), (400, 2), (500, 1)] {
            assert_eq!(problem("from_the_future", status).exit().code(), exit);
        }
    }

    #[test]
    fn json_is_asked_for_and_given() {
        let value = CliError::Declined.json();
        assert_eq!(value["code"], "declined");
        assert_eq!(
            problem("handshake_failed", 502).json()["code"],
            "handshake_failed"
        );
    }
}
