//! Labels of clients: who they are, what they ask, how they are connected.

use super::{Label, Labelled, Values};
use crate::domain::code::Code;

labels! {
    /// What was presented.
    AuthMethod "method" {
        /// A preshared key: at registration, and one that is not taken with any other request.
        Key "key",
        /// A session, by its token or beside a key that is good, with every other request.
        Session "session",
    }

    /// What an MCP client's message asks. (Tools' names are in no label.)
    RpcMethod "method" {
        /// The beginning.
        Initialize "initialize",
        /// A sign of life.
        Ping "ping",
        /// The list of tools.
        ToolsList "tools/list",
        /// A call.
        ToolsCall "tools/call",
        /// The list of resources.
        ResourcesList "resources/list",
        /// The list of their templates.
        ResourcesTemplates "resources/templates/list",
        /// One of them.
        ResourcesRead "resources/read",
        /// The list of prompts.
        PromptsList "prompts/list",
        /// One of them.
        PromptsGet "prompts/get",
        /// A completion.
        Complete "completion/complete",
        /// How a task stands.
        TasksGet "tasks/get",
        /// What it ended with.
        TasksResult "tasks/result",
        /// The list of tasks.
        TasksList "tasks/list",
        /// The end of one.
        TasksCancel "tasks/cancel",
        /// Answers to what one asks.
        TasksUpdate "tasks/update",
        /// What can be asked here.
        Discover "server/discover",
        /// A stream of what changes.
        Listen "subscriptions/listen",
        /// A notification.
        Notification "notification",
        /// Anything else.
        Other "other",
    }

    /// How an MCP client's message was answered.
    RpcOutcome "outcome" {
        /// With a result, or taken note of.
        Ok "ok",
        /// With an error.
        Error "error",
        /// Not at all: it was cancelled.
        Cancelled "cancelled",
    }

    /// What was decided.
    Auth "outcome" {
        /// Let in.
        Ok "ok",
        /// Unknown or malformed.
        Invalid "invalid",
        /// Too old.
        Expired "expired",
        /// Revoked or suspended.
        Revoked "revoked",
        /// Too many failures.
        RateLimited "rate_limited",
        /// It could not be decided.
        Unavailable "unavailable",
    }

    /// Why a session ended.
    SessionEnd "reason" {
        /// By age.
        Expired "expired",
        /// Its key or user was revoked or suspended.
        Revoked "revoked",
        /// Its actor failed.
        Failed "failed",
    }

    /// A kind of session.
    SessionKind "kind" {
        /// A registered standard client.
        Standard "standard",
    }

    /// What a connection to the database does.
    Connection "state" {
        /// It works for somebody.
        InUse "in_use",
        /// It waits for work.
        Idle "idle",
    }

    /// A listener.
    Listener "listener" {
        /// The client port.
        Client "client",
        /// The admin socket.
        Admin "admin",
        /// The ops listener.
        Ops "ops",
    }

    /// The class of an HTTP status.
    Class "class" {
        /// Done.
        Success "2xx",
        /// Elsewhere.
        Redirect "3xx",
        /// The client's fault.
        Client "4xx",
        /// Ours.
        Server "5xx",
    }
}

impl Auth {
    /// How a refusal with this code counts.
    #[must_use]
    pub const fn of(code: Code) -> Self {
        match code {
            Code::Unauthorized | Code::KeyUnknown | Code::InvalidRequest => Self::Invalid,
            Code::SessionExpired => Self::Expired,
            Code::SessionSuspended | Code::UserDisabled => Self::Revoked,
            Code::RateLimited | Code::SessionsMax => Self::RateLimited,
            _ => Self::Unavailable,
        }
    }
}

impl Class {
    /// The class of a status.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        match status {
            300..=399 => Self::Redirect,
            400..=499 => Self::Client,
            500.. => Self::Server,
            _ => Self::Success,
        }
    }
}
