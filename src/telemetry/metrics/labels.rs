//! The sets of label values, as enums: what is not in one cannot be a label.

use super::family::{Label, Values};
use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::kill::{Kind, Scope};

/// An enum whose values are a label's.
pub trait Labelled: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// All values.
    const ALL: &'static [Self];
    /// The value.
    fn as_str(self) -> &'static str;
    /// Its place in `ALL`.
    fn index(self) -> usize;
}

macro_rules! labels {
    ($($(#[doc = $doc:literal])+ $name:ident $label:literal { $($(#[doc = $what:literal])+ $value:ident $text:literal,)+ })+) => {$(
        $(#[doc = $doc])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $what])+ $value,)+
        }

        impl $name {
            /// The label with its set.
            pub const LABEL: Label = Label {
                name: $label,
                values: Values::Of(&[$($text,)+]),
            };
        }

        impl Labelled for $name {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &[$(Self::$value,)+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

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

    /// Why a run was started.
    StartCause "cause" {
        /// A call wanted it.
        Demand "demand",
        /// The last one failed.
        Restart "restart",
        /// One try after a quarantine.
        HalfOpen "half_open",
        /// An administrator.
        Admin "admin",
        /// To see what tools a server has.
        Discovery "discovery",
        /// To install its package.
        Install "install",
    }

    /// Why a slot is left alone for a while.
    GaveUp "reason" {
        /// It failed too often.
        Failures "failures",
        /// It cannot be otherwise before somebody does something.
        Hopeless "hopeless",
        /// A credential is not set or not taken: its user's to mend, mostly.
        Credential "credential",
    }

    /// A step of a start.
    Phase "phase" {
        /// Waiting for a start permit.
        Permit "permit",
        /// Cgroup, clone, exec.
        Spawn "spawn",
        /// Connecting to a server behind HTTP.
        Connect "connect",
        /// The MCP handshake.
        Initialize "initialize",
        /// Reading the tools.
        ListTools "list_tools",
        /// A round trip, for servers without tools.
        Ping "ping",
    }

    /// How an install ended.
    InstallResult "result" {
        /// It is there.
        Installed "installed",
        /// It could not be made.
        Failed "failed",
        /// It took too long.
        Slow "slow",
        /// Somebody stopped it.
        Stopped "stopped",
    }

    /// Where a slot is.
    SlotWord "state" {
        /// No run, and none wanted.
        Resting "resting",
        /// On its way to ready.
        Starting "starting",
        /// Serves.
        Ready "ready",
        /// Being cleared away.
        Stopping "stopping",
        /// Waits after a failure.
        Backoff "backoff",
        /// Failed too often.
        Quarantined "quarantined",
        /// Its processes do not die.
        Stuck "stuck",
    }

    /// An event of the memory controller.
    MemoryEvent "event" {
        /// Throttled above the soft limit.
        High "high",
        /// The limit was hit.
        Max "max",
        /// Nothing could be freed.
        Oom "oom",
        /// A process was killed.
        OomKill "oom_kill",
    }

    /// What is waited for.
    Resource "resource" {
        /// A core.
        Cpu "cpu",
        /// Memory.
        Memory "memory",
        /// A disk.
        Io "io",
    }

    /// What the kernel limits.
    Controller "controller" {
        /// Bandwidth.
        Cpu "cpu",
        /// Bytes.
        Memory "memory",
        /// Processes and threads.
        Pids "pids",
    }

    /// A kind of actor.
    ActorKind "kind" {
        /// The root supervisor.
        Root "root",
        /// The link to spawnd.
        Spawner "spawner",
        /// The store's keeper.
        Store "store",
        /// The audit log's keeper.
        Audit "audit",
        /// The deny table.
        KillSwitch "killswitch",
        /// The keys.
        Vault "vault",
        /// The routes.
        Catalog "catalog",
        /// The boot sweep.
        Reaper "reaper",
        /// The supervisor of shared instances.
        Shared "shared",
        /// The supervisor of users.
        Users "users",
        /// The supervisor of sessions.
        Sessions "sessions",
        /// Pings and sweeps.
        Health "health",
        /// The doors.
        Listeners "listeners",
        /// One user's supervisor.
        User "user",
        /// The supervisor of one slot.
        Isolate "isolate",
        /// One run.
        Run "run",
        /// One registered client.
        Session "session",
    }

    /// How an actor ended.
    ActorEnd "reason" {
        /// It stopped.
        Normal "normal",
        /// A handler failed.
        Error "error",
        /// A handler panicked.
        Panic "panic",
        /// Its supervisor killed it.
        Killed "killed",
    }

    /// What was presented.
    AuthMethod "method" {
        /// A preshared key, at registration.
        Key "key",
        /// A session token, with every other request.
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

/// Enums of the domain that are labels as they are.
macro_rules! labels_of_domain {
    ($($(#[doc = $doc:literal])+ $const:ident $type:ty, $label:literal $word:ident;)+) => {$(
        $(#[doc = $doc])+
        pub const $const: Label = {
            const WORDS: [&str; <$type>::ALL.len()] = {
                let mut words = [""; <$type>::ALL.len()];
                let mut at = 0;
                while at < words.len() {
                    words[at] = <$type>::ALL[at].$word();
                    at += 1;
                }
                words
            };
            Label { name: $label, values: Values::Of(&WORDS) }
        };

        impl Labelled for $type {
            const NAME: &'static str = $label;
            const ALL: &'static [Self] = &<$type>::ALL;

            fn as_str(self) -> &'static str {
                self.$word()
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

labels_of_domain! {
    /// How far a deny reaches.
    SCOPE Scope, "scope" word;
    /// Kill switch or suspension.
    DENY_KIND Kind, "kind" word;
    /// The kind of an audit record.
    CATEGORY Category, "category" as_str;
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

/// The label value of a text that is meant to be in a set.
#[must_use]
pub fn known<L: Labelled>(text: &str) -> Option<L> {
    L::ALL.iter().copied().find(|one| one.as_str() == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::verdict::Verdict;

    #[test]
    fn calls_are_counted_by_what_their_caller_can_do() {
        for (code, refused, failed) in [
            (Code::ToolUnknown, Outcome::Denied, Outcome::Denied),
            (Code::KillSwitchActive, Outcome::Denied, Outcome::Killed),
            (Code::UserDisabled, Outcome::Denied, Outcome::Killed),
            (Code::SessionSuspended, Outcome::Denied, Outcome::Killed),
            (Code::Cancelled, Outcome::Killed, Outcome::Killed),
            (Code::RunEnded, Outcome::Unavailable, Outcome::Unavailable),
            (
                Code::IsolatesMax,
                Outcome::RateLimited,
                Outcome::RateLimited,
            ),
            (Code::HostFull, Outcome::Unavailable, Outcome::Unavailable),
            (
                Code::CredentialMissing,
                Outcome::Unavailable,
                Outcome::Unavailable,
            ),
        ] {
            assert_eq!(Outcome::of(code, Stage::Admission), refused, "{code}");
            assert_eq!(Outcome::of(code, Stage::UnderWay), failed, "{code}");
        }
        let missing = Verdict::CredentialMissing {
            names: "TOKEN".to_owned(),
            commands: String::new(),
        };
        assert_eq!(GaveUp::of(&missing), GaveUp::Credential);
        let gave_up = |code| GaveUp::of(&Verdict::Exited { code });
        assert_eq!(gave_up(127), GaveUp::Hopeless);
        assert_eq!(gave_up(1), GaveUp::Failures);
        assert_eq!(Auth::of(Code::KeyUnknown), Auth::Invalid);
        assert_eq!(Auth::of(Code::StoreUnavailable), Auth::Unavailable);
        assert_eq!(Class::of(204), Class::Success);
        assert_eq!(Class::of(503), Class::Server);
        assert_eq!(known::<Phase>("list_tools"), Some(Phase::ListTools));
        assert_eq!(known::<Phase>("lunch"), None);
    }
}
