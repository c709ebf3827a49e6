//! Labels of calls.

use super::{Label, Labelled, Values};
use crate::domain::code::Code;

labels! {
    /// How a call ended.
    Outcome "outcome" {
        /// The tool answered.
        Ok "ok",
        /// The tool answered that it failed (`isError`).
        ToolError "tool_error",
        /// The server answered with a JSON-RPC error.
        RpcError "rpc_error",
        /// No answer before the deadline.
        Timeout "timeout",
        /// The caller left.
        Cancelled "cancelled",
        /// Not allowed, switched off, or nothing of that name.
        Denied "denied",
        /// An administrator ended it under way: the call, its server, or what it stood on.
        Killed "killed",
        /// Too many at once.
        RateLimited "rate_limited",
        /// The server died, backs off, is quarantined, or we could not.
        Unavailable "unavailable",
        /// The answer was larger than the client takes.
        TooLarge "too_large",
    }

    /// What became of holding arguments against a schema.
    ArgumentCheck "result" {
        /// They fit.
        Fit "fit",
        /// They do not, and the call went on.
        Warned "warned",
        /// They do not, or cannot be read in one way, and the call was refused.
        Refused "refused",
        /// The schema cannot be used, and the call went on.
        Unchecked "unchecked",
    }

    /// Which way bytes went.
    Direction "direction" {
        /// Arguments, to the server.
        In "in",
        /// Results, to the client.
        Out "out",
    }
}

/// How far a call came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was done for it yet.
    Admission,
    /// It was admitted: it waited for its server, or the server had it.
    UnderWay,
}

impl Outcome {
    /// How a call that was refused with this code, or failed with it after it was admitted, counts.
    /// What an administrator takes away is denied to the next call, and kills one under way.
    #[must_use]
    pub const fn of(code: Code, stage: Stage) -> Self {
        match code {
            Code::ServerError | Code::Unanswered => Self::RpcError,
            Code::CallTimeout => Self::Timeout,
            Code::Cancelled => Self::Killed,
            Code::KillSwitchActive | Code::UserDisabled | Code::SessionSuspended => match stage {
                Stage::Admission => Self::Denied,
                Stage::UnderWay => Self::Killed,
            },
            Code::Busy | Code::RateLimited | Code::IsolatesMax | Code::TasksMax => {
                Self::RateLimited
            }
            Code::ResultTooLarge => Self::TooLarge,
            Code::ToolUnknown
            | Code::NotSubscribed
            | Code::McpDisabled
            | Code::ArgumentsInvalid
            | Code::SessionExpired
            | Code::Denied => Self::Denied,
            // Also a credential that is not set, and a host without room: only an operator can mend that.
            _ => Self::Unavailable,
        }
    }
}
