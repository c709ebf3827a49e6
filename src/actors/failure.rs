//! What a failed call says: what happened, with what, and what to do; for people who never saw
//! this gateway.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::kill::{Deny, Kind, Target};
use crate::domain::limits::CALLS_WAITING_MAX;
use crate::domain::mcp::Mcp;
use crate::domain::talk::Question;
use crate::domain::verdict::Verdict;

use super::handle::RunEnd;
use super::packages::{Failed, Progress};

/// A failure before it is tied to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reason {
    pub(super) code: Code,
    pub(super) text: String,
    pub(super) retry_after: Option<Duration>,
    pub(super) verdict: Option<&'static str>,
    pub(super) deny: Option<Arc<Deny>>,
    /// The JSON-RPC error as the server wrote it.
    pub(super) error: Option<Bytes>,
    /// Whether that server is of the era without sessions.
    pub(super) modern: bool,
    /// The rule of a schema that was broken, for the record.
    pub(super) rule: Option<Box<str>>,
    /// It is on record as one of many.
    pub(super) counted: bool,
}

impl Reason {
    pub(super) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
            retry_after: None,
            verdict: None,
            deny: None,
            error: None,
            modern: false,
            rule: None,
            counted: false,
        }
    }

    pub(super) fn retry(mut self, after: Duration) -> Self {
        self.retry_after = Some(after.max(Duration::from_secs(1)));
        self
    }

    pub(super) fn rule(mut self, rule: String) -> Self {
        self.rule = Some(rule.into());
        self
    }

    pub(super) fn counted(mut self) -> Self {
        self.counted = true;
        self
    }

    pub(super) fn because(mut self, end: &RunEnd) -> Self {
        self.verdict = Some(end.verdict.kind());
        self
    }
}

fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn last_line(end: &RunEnd) -> String {
    match &end.last_stderr {
        Some(line) => format!(" Last stderr line: {line}"),
        None => String::new(),
    }
}

/// The run ended with the call in flight.
pub(super) fn run_ended(mcp: &Mcp, end: &RunEnd) -> Reason {
    let name = &mcp.name;
    let verdict = &end.verdict;
    let reason = match verdict {
        Verdict::OutOfMemory { .. } => Reason::new(
            Code::OutOfMemory,
            format!(
                "mcp `{name}` was ended by the kernel during this call: {verdict}. It restarts by \
                 itself; ask for less at once, or ask your operator to raise its memory limit \
                 (legation mcp update {name} --memory).{}",
                last_line(end)
            ),
        ),
        Verdict::Killed { reason } => Reason::new(
            Code::Cancelled,
            format!("this call was ended because `{name}` was stopped: {reason}"),
        ),
        Verdict::Recycled { reason } => Reason::new(
            Code::RunEnded,
            format!(
                "this call was ended because `{name}` was recycled: another call of it was \
                 cancelled ({reason}) and it did not stop working on that one. Whether this call \
                 had an effect is unknown, so it was not repeated."
            ),
        )
        .retry(Duration::from_secs(1)),
        Verdict::CredentialChanged => Reason::new(
            Code::RunEnded,
            format!(
                "this call was ended because a credential of `{name}` was changed and the call did \
                 not end in time. Whether it had an effect is unknown, so it was not repeated."
            ),
        )
        .retry(Duration::from_secs(1)),
        Verdict::Shutdown => Reason::new(
            Code::ShuttingDown,
            "this call was ended because the gateway is restarting. Try again in a few seconds.",
        )
        .retry(Duration::from_secs(5)),
        _ => Reason::new(
            Code::RunEnded,
            format!(
                "mcp `{name}` {} during this call. It is restarted by itself; whether the \
                 call had an effect is unknown, so it was not repeated.{}",
                verdict.predicate(),
                last_line(end)
            ),
        )
        .retry(Duration::from_secs(1)),
    };
    reason.because(end)
}

/// The server refused the call in a second session too.
pub(super) fn refused_again(mcp: &Mcp) -> Reason {
    let text = format!(
        "mcp `{}` lost its session over this call twice. Whether it had an effect is unknown, so it was \
         not repeated once more.",
        mcp.name
    );
    Reason::new(Code::RunEnded, text).retry(Duration::from_secs(1))
}

/// The slot waits for its next try.
pub(super) fn backing_off(mcp: &Mcp, until: Instant, end: &RunEnd) -> Reason {
    let left = until.saturating_duration_since(Instant::now());
    let text = format!(
        "mcp `{}` failed ({}) and is started again in {} s. Try again then.{}",
        mcp.name,
        end.verdict,
        seconds(left),
        last_line(end)
    );
    Reason::new(Code::BackingOff, text).retry(left).because(end)
}

/// The slot failed too often, or cannot heal by itself.
pub(super) fn quarantined(mcp: &Mcp, until: Instant, end: &RunEnd) -> Reason {
    let left = until.saturating_duration_since(Instant::now());
    let text = format!(
        "mcp `{}` is quarantined: it {} and will be tried again in {} s. Ask your operator to look \
         (legation isolate list).{}",
        mcp.name,
        end.verdict.predicate(),
        seconds(left),
        last_line(end)
    );
    if let Verdict::CredentialMissing { names, commands } = &end.verdict {
        let text = format!(
            "mcp `{}` needs {names}, which is not set for you. Ask your operator to run: {commands}. \
             The next call after that starts it.",
            mcp.name
        );
        return Reason::new(Code::CredentialMissing, text).because(end);
    }
    let code = match end.verdict {
        Verdict::OutOfMemory { .. } => Code::OutOfMemory,
        _ => Code::Quarantined,
    };
    Reason::new(code, text).retry(left).because(end)
}

/// Its package is not there.
pub(super) fn not_installed(mcp: &Mcp, failed: &Failed) -> Reason {
    let left = failed.until().saturating_duration_since(Instant::now());
    let what = match failed.is_slow() {
        true => "its package took too long to install",
        false => "its package could not be installed",
    };
    // Why is in the words of the package and its manager: for operators, not for models.
    let text = format!(
        "mcp `{}` cannot be started: {what}. It is tried again in {} s. Ask your operator to look \
         (legation mcp show {}).",
        mcp.name,
        seconds(left),
        mcp.name
    );
    Reason::new(Code::InstallFailed, text).retry(left)
}

/// The gateway is on its way down.
pub(super) fn shutting_down() -> Reason {
    Reason::new(
        Code::ShuttingDown,
        "the gateway is restarting. Try again in a few seconds.",
    )
    .retry(Duration::from_secs(5))
}

/// Its package was not there before the call's deadline.
pub(super) fn installing(mcp: &Mcp, progress: &Progress) -> Reason {
    let text = format!(
        "the package of mcp `{}` is still being installed, for {} s. Try again in a few seconds.",
        mcp.name,
        progress.seconds()
    );
    Reason::new(Code::Starting, text).retry(Duration::from_secs(5))
}

/// It did not become ready before the call's deadline.
pub(super) fn starting(mcp: &Mcp, waited: Duration) -> Reason {
    let text = format!(
        "mcp `{}` is still starting after {} s. Try again in a few seconds.",
        mcp.name,
        seconds(waited)
    );
    Reason::new(Code::Starting, text).retry(Duration::from_secs(5))
}

/// The server did not answer in time.
///
/// `noise`: what it wrote meanwhile that was no answer.
pub(super) fn timed_out(mcp: &Mcp, tool: &str, noise: Option<String>) -> Reason {
    let text = format!(
        "tool `{tool}` of mcp `{}` did not answer within {} s; it was told to stop. Ask for less at \
         once, or ask your operator for a longer deadline (legation mcp update {} --call-timeout).{}",
        mcp.name,
        seconds(mcp.call_deadline()),
        mcp.name,
        noise.unwrap_or_default()
    );
    Reason::new(Code::CallTimeout, text)
}

/// A server's answer is none that can be passed on.
pub(super) fn unusable(mcp: &Mcp, what: &str) -> Reason {
    let text = format!("the answer of mcp `{}` cannot be used: {what}", mcp.name);
    Reason::new(Code::ServerError, text)
}

/// A server asked, and has no answer.
pub(super) fn unanswered(mcp: &Mcp, question: Question, why: &str) -> Reason {
    let text = format!(
        "mcp `{}` needs an answer to `{}` before it can go on, and {why}",
        mcp.name,
        question.word()
    );
    Reason::new(Code::Unanswered, text)
}

/// A task did not end for as long as it is kept.
pub(super) fn task_timed_out(mcp: &Mcp, tool: &str) -> Reason {
    let text = format!(
        "tool `{tool}` of mcp `{}` works as a task, which did not end in the time that it is kept; it was told to stop. \
         Ask for less at once, or for a longer `ttl`.",
        mcp.name
    );
    Reason::new(Code::CallTimeout, text)
}

/// The server ended a task without a result.
pub(super) fn task_cancelled(mcp: &Mcp, why: Option<&str>) -> Reason {
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let text = format!("mcp `{}` cancelled this task{why}", mcp.name);
    Reason::new(Code::Cancelled, text)
}

/// The run of a task takes no more questions.
pub(super) fn task_lost(mcp: &Mcp) -> Reason {
    let text = format!(
        "mcp `{}` was being stopped when this task began. Whether it had an effect is unknown, so it was not repeated.",
        mcp.name
    );
    Reason::new(Code::RunEnded, text).retry(Duration::from_secs(1))
}

/// The user has enough tasks.
pub(super) fn too_many_tasks(most: usize, all: bool) -> Reason {
    let whose = if all {
        "this gateway keeps"
    } else {
        "you have"
    };
    let text = format!(
        "{whose} {most} tasks, which is the most. Wait until some have ended, or cancel them (tasks/cancel)."
    );
    Reason::new(Code::TasksMax, text).retry(Duration::from_secs(5))
}

/// A tool that works as no task was asked for one.
pub(super) fn no_task(tool: &str) -> Reason {
    let text = format!("tool `{tool}` does not work as a task: call it without `task`");
    let message = serde_json::to_string(&text).unwrap_or_default();
    let error = format!("{{\"code\":-32601,\"message\":{message}}}");
    Reason {
        error: Some(error.into()),
        ..Reason::new(Code::InvalidRequest, text)
    }
}

/// Another call of a tool that asks did not end in time.
pub(super) fn out_of_turn(mcp: &Mcp, tool: &str) -> Reason {
    let text = format!(
        "tool `{tool}` of mcp `{}` asks questions, and another call of yours that does had not ended after {} s: it \
         may be waiting for an answer. This call was not made. Answer or cancel the other one, then try again.",
        mcp.name,
        seconds(mcp.call_deadline())
    );
    Reason::new(Code::CallTimeout, text)
}

/// Too much at once.
pub(super) fn busy(mcp: &Mcp, in_flight: usize) -> Reason {
    let text = format!(
        "mcp `{}` is busy with {in_flight} calls and takes no more now. Try again when some have \
         ended.",
        mcp.name
    );
    Reason::new(Code::Busy, text).retry(Duration::from_secs(1))
}

/// The key makes more calls than it may.
pub(super) fn too_many(per_minute: u32, wait: Duration) -> Reason {
    let text = format!(
        "this key makes more than {per_minute} calls a minute, which is the most \
         (calls.per_key_minute_max). Try again in {} s.",
        seconds(wait)
    );
    Reason::new(Code::RateLimited, text).retry(wait)
}

/// More calls wait than there is room for.
pub(super) fn no_seat(mcp: &Mcp) -> Reason {
    let text = format!(
        "{CALLS_WAITING_MAX} calls are waiting for servers to start on this host; this one of `{}` \
         did not get a place. Try again in a few seconds.",
        mcp.name
    );
    Reason::new(Code::Starting, text).retry(Duration::from_secs(5))
}

/// A kill switch or suspension is on.
pub(super) fn denied(deny: &Arc<Deny>) -> Reason {
    let why = &deny.reason;
    // People write reasons as they like.
    let stop = match why.ends_with(['.', '!', '?', '…']) {
        true => "",
        false => ".",
    };
    let until = match deny.expires_at.map(jiff::Timestamp::from_millisecond) {
        Some(Ok(at)) => format!("{stop} It ends at {}.", at.strftime("%Y-%m-%dT%H:%M:%SZ")),
        _ => String::new(),
    };
    let stopped = |what: String| {
        let text = format!("{what} by an administrator: {why}{until}");
        Reason::new(Code::KillSwitchActive, text)
    };
    let reason = match (deny.kind, &deny.target) {
        (Kind::Suspension, Target::Client(_)) => Reason::new(
            Code::SessionSuspended,
            format!("this client's key is suspended: {why}{until}"),
        ),
        (Kind::Suspension, _) => Reason::new(
            Code::UserDisabled,
            format!("your account is suspended: {why}{until}"),
        ),
        (Kind::KillSwitch, Target::Tool(_, tool)) => {
            let mcp = deny.label.split('/').next().unwrap_or_default();
            stopped(format!("tool `{tool}` of mcp `{mcp}` is switched off"))
        }
        (Kind::KillSwitch, Target::Mcp(_)) => {
            stopped(format!("mcp `{}` is switched off", deny.label))
        }
        (Kind::KillSwitch, Target::User(_)) => {
            stopped("all calls of your account are switched off".to_owned())
        }
        (Kind::KillSwitch, Target::Client(_)) => {
            stopped("all calls of this client are switched off".to_owned())
        }
        (Kind::KillSwitch, Target::All) => {
            stopped("all calls through this gateway are switched off".to_owned())
        }
    };
    Reason {
        deny: Some(Arc::clone(deny)),
        ..reason
    }
}

/// The session's key is good no more.
pub(super) fn revoked() -> Reason {
    let text = "this session or its key was revoked, or the key has expired; ask your operator";
    Reason::new(Code::SessionSuspended, text)
}

/// An administrator cancelled this very call before any server had it.
pub(super) fn cancelled_unsent(mcp: &Mcp, why: &str) -> Reason {
    let text = format!(
        "this call of `{}` was cancelled by an administrator: {why}. No server had seen it yet, so it \
         had no effect.",
        mcp.name
    );
    Reason::new(Code::Cancelled, text)
}

/// An administrator cancelled this very call.
pub(super) fn cancelled(mcp: &Mcp, why: &str) -> Reason {
    let text = format!(
        "this call of `{}` was cancelled by an administrator: {why}. It may have had its effect.",
        mcp.name
    );
    Reason::new(Code::Cancelled, text)
}
