//! What a call is told in the end, and why it may get no answer.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::domain::verdict::Verdict;
use crate::protocol::envelope::ReplyKind;

use super::super::calls::Why;

/// Why a run ended, as its callers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunEnd {
    /// The verdict.
    pub verdict: Verdict,
    /// The last line of stderr, if there was one.
    pub last_stderr: Option<String>,
}

/// A server's answer: the whole line, and where the body is in it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The line as the server wrote it.
    pub line: Bytes,
    /// A result or a JSON-RPC error.
    pub kind: ReplyKind,
    /// Where the `result` or `error` value is.
    pub body: Range<usize>,
    /// Whether its server is of the era without sessions.
    pub modern: bool,
}

/// Why a waiter gets no reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// The run ended.
    Ended(Arc<RunEnd>),
    /// This call alone was cut off.
    Cancelled(Why),
    /// The server refused it, since it does not know the session.
    Refused,
}

/// What a waiter is told.
pub type Told = Result<Reply, Cut>;

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// It provably never reached stdin: the run is draining or gone. Safe to try the next run.
    NotSent,
    /// The server refused it unseen, since it does not know the session. Safe to try the next run, once.
    Refused,
    /// Too many calls in flight, or too many bytes waiting for the writer.
    Busy {
        /// Calls in flight.
        in_flight: usize,
    },
    /// The run ended while the call was in flight.
    Ended(Arc<RunEnd>),
    /// This call alone was cut off; the server was told to stop working on it.
    Cancelled(Why),
    /// The deadline passed; the server was told to stop working on it.
    TimedOut,
}

/// What a call is told, as its error.
pub(super) fn answer(told: Result<Told, oneshot::error::RecvError>) -> Result<Reply, CallError> {
    match told {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(Cut::Ended(end))) => Err(CallError::Ended(end)),
        Ok(Err(Cut::Cancelled(why))) => Err(CallError::Cancelled(why)),
        Ok(Err(Cut::Refused)) => Err(CallError::Refused),
        Err(_) => Err(CallError::NotSent),
    }
}
