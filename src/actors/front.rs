//! What the listeners may ask of the tree, and all they may ask: register, authenticate, list,
//! call, heartbeat, leave. A request never goes further up the tree than this file.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use secrecy::SecretString;
use serde_json::value::RawValue;

use crate::domain::account::Millis;
use crate::domain::code::Code;
use crate::domain::ids::{CallId, ConnectionId, SessionId};
use crate::domain::name::Name;

use super::ctx::Ctx;
use super::session::SessionHandle;

/// Why a request was refused before it became a call: the HTTP layer turns it into a status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// What happened and what to do, for people.
    pub message: String,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

/// What a client says when it registers.
#[derive(Debug)]
pub struct Registration {
    /// The preshared key, unchecked.
    pub preshared_key: SecretString,
    /// What the client calls itself.
    pub friendly_name: String,
    /// The AI tool it runs in.
    pub host_tool: String,
}

/// What a client gets when it registers.
#[derive(Debug)]
pub struct Registered {
    /// Its session.
    pub session: SessionId,
    /// Its token, shown only here.
    pub token: SecretString,
    /// Its connection.
    pub connection: ConnectionId,
    /// When the session ends without activity.
    pub expires_at: Millis,
    /// The user's name.
    pub user: Name,
}

/// One tool as a client sees it.
#[derive(Debug, Clone)]
pub struct ToolView {
    /// The exposed name.
    pub name: String,
    /// Its mcp's name.
    pub mcp: Name,
    /// The tool's definition as its server declared it: `description`, `inputSchema`, … stay raw.
    pub definition: Arc<RawValue>,
}

/// How a call ended. Both are `200` for the standard client.
#[derive(Debug)]
pub enum Outcome {
    /// The server answered.
    Answered(Answer),
    /// It did not, and this is what the user can do about it.
    Failed(Failure),
}

/// A server's answer, untouched.
#[derive(Debug)]
pub struct Answer {
    /// The call.
    pub call: CallId,
    /// The mcp that answered.
    pub mcp: Name,
    /// The whole JSON-RPC line as the server wrote it.
    pub line: Bytes,
    /// Where the `result` is in it.
    pub result: Range<usize>,
    /// From admission to answer.
    pub took: Duration,
}

/// Why a call has no answer from its server.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The call.
    pub call: CallId,
    /// The stable code.
    pub code: Code,
    /// What happened and what to do, as a text for the AI tool's user.
    pub text: String,
    /// The mcp, once the tool's name was resolved.
    pub mcp: Option<Name>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// The verdict's word, if a run's end is the reason.
    pub verdict: Option<String>,
    /// From admission to failure.
    pub took: Duration,
}

/// The tree, as the listeners see it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Front {
    ctx: Arc<Ctx>,
}
