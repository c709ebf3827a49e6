//! Why a run ended, and what that means for the next one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Whose limit the kernel enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OomScope {
    /// The isolate's own limit.
    Isolate,
    /// The sum of the user's isolates.
    User,
    /// The host, or a budget above the user.
    Host,
}

/// What ended the connection to a server behind HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteFault {
    /// No name, no connection, no answer, or again and again a failure.
    Unreachable,
    /// Its certificate is not trusted, or TLS failed.
    Untrusted,
    /// It does not take the credentials.
    Unauthorized,
    /// Its address is one that is not connected to.
    AddressDenied,
    /// It points elsewhere.
    Redirected,
    /// It does not know the session any more.
    SessionLost,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// The server ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended the server, and it was not ours.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel killed it for memory.
    OutOfMemory {
        /// Whose limit.
        scope: OomScope,
        /// That limit in bytes, where known.
        limit_bytes: Option<u64>,
    },
    /// No process was left for it under a limit on processes: it was never executed.
    OutOfProcesses {
        /// Whose limit.
        scope: OomScope,
        /// That limit, where known.
        limit: Option<u64>,
    },
    /// It did not become ready in time or answered the handshake wrongly.
    Handshake {
        /// What went wrong.
        detail: String,
    },
    /// It stopped answering pings.
    Ping {
        /// How many in a row.
        missed: u32,
    },
    /// It broke the framing: a line over the cap, stdout closed while alive.
    Protocol {
        /// What it did.
        detail: String,
    },
    /// A server behind HTTP, or the way to it.
    Remote {
        /// What.
        fault: RemoteFault,
        /// Why, with what, and what to do.
        detail: String,
    },
    /// The server was never executed: not found, not executable, a wall refused.
    NotStarted {
        /// The step of the plan that failed.
        step: String,
        /// Why, with what, and what to do.
        detail: String,
    },
    /// Credentials that it needs are not set.
    CredentialMissing {
        /// Their names.
        names: String,
        /// The commands that set them.
        commands: String,
    },
    /// An administrator, a kill switch or a suspension ended it.
    Killed {
        /// The reason given.
        reason: String,
    },
    /// A call of it was cancelled and it did not stop working on it: it starts afresh.
    Recycled {
        /// Why the call was cancelled.
        reason: String,
    },
    /// Nobody used it for `idle_after`.
    Idle,
    /// The definition changed.
    Replaced,
    /// One of its credentials was set or removed.
    CredentialChanged,
    /// The server is stopping.
    Shutdown,
    /// Our own code failed; never the server's fault.
    Internal {
        /// What happened.
        detail: String,
    },
}

/// How the restart policy weighs a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// We wanted it: no failure, no restart by itself.
    Wanted,
    /// A failure worth this many.
    Failure(u32),
    /// Others took what it needs: it is tried again later, and is not blamed.
    Crowded,
    /// Trying again cannot help: quarantine at once.
    Hopeless,
}

impl Verdict {
    /// How the restart policy weighs this end. An OOM kill counts double.
    #[must_use]
    pub const fn weight(&self) -> Weight {
        match self {
            Self::Idle
            | Self::Replaced
            | Self::CredentialChanged
            | Self::Shutdown
            | Self::Killed { .. }
            | Self::Recycled { .. } => Weight::Wanted,
            Self::OutOfMemory { .. } => Weight::Failure(2),
            Self::OutOfProcesses {
                scope: OomScope::User | OomScope::Host,
                ..
            } => Weight::Crowded,
            // Somebody has to do something before it can be otherwise.
            Self::Remote {
                fault:
                    RemoteFault::Untrusted
                    | RemoteFault::Unauthorized
                    | RemoteFault::AddressDenied
                    | RemoteFault::Redirected,
                ..
            }
            | Self::NotStarted { .. }
            | Self::CredentialMissing { .. }
            | Self::Exited { code: 126 | 127 } => Weight::Hopeless,
            Self::Exited { .. }
            | Self::Signaled { .. }
            | Self::OutOfProcesses { .. }
            | Self::Handshake { .. }
            | Self::Ping { .. }
            | Self::Protocol { .. }
            | Self::Remote { .. }
            | Self::Internal { .. } => Weight::Failure(1),
        }
    }

    /// All words of [`Verdict::kind`].
    pub const KINDS: [&'static str; 22] = [
        "exited",
        "signaled",
        "out_of_memory",
        "out_of_processes",
        "handshake",
        "ping",
        "protocol",
        "unreachable",
        "untrusted",
        "unauthorized",
        "address_denied",
        "redirected",
        "session_lost",
        "not_started",
        "credential_missing",
        "killed",
        "recycled",
        "idle",
        "replaced",
        "credential_changed",
        "shutdown",
        "internal",
    ];

    /// One word for tables, metrics and filters; one of [`Verdict::KINDS`].
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Exited { .. } => "exited",
            Self::Signaled { .. } => "signaled",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::OutOfProcesses { .. } => "out_of_processes",
            Self::Handshake { .. } => "handshake",
            Self::Ping { .. } => "ping",
            Self::Protocol { .. } => "protocol",
            Self::Remote { fault, .. } => match fault {
                RemoteFault::Unreachable => "unreachable",
                RemoteFault::Untrusted => "untrusted",
                RemoteFault::Unauthorized => "unauthorized",
                RemoteFault::AddressDenied => "address_denied",
                RemoteFault::Redirected => "redirected",
                RemoteFault::SessionLost => "session_lost",
            },
            Self::NotStarted { .. } => "not_started",
            Self::CredentialMissing { .. } => "credential_missing",
            Self::Killed { .. } => "killed",
            Self::Recycled { .. } => "recycled",
            Self::Idle => "idle",
            Self::Replaced => "replaced",
            Self::CredentialChanged => "credential_changed",
            Self::Shutdown => "shutdown",
            Self::Internal { .. } => "internal",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signaled { signal } => write!(f, "ended by signal {signal}"),
            Self::OutOfMemory { scope, limit_bytes } => {
                let whose = match scope {
                    OomScope::Isolate => "the isolate's limit",
                    OomScope::User => "the user's limit",
                    OomScope::Host => "the host's memory",
                };
                write!(f, "out of memory: {whose}")?;
                match limit_bytes {
                    Some(bytes) => write!(f, " of {} MiB", bytes >> 20),
                    None => Ok(()),
                }
            }
            Self::OutOfProcesses { scope, limit } => out_of_processes(f, *scope, *limit),
            Self::Handshake { detail } => write!(f, "handshake failed: {detail}"),
            Self::Ping { missed } => write!(f, "missed {missed} pings in a row"),
            Self::Protocol { detail } => write!(f, "broke the protocol: {detail}"),
            Self::Remote { fault, detail } => {
                let what = match fault {
                    RemoteFault::Unreachable => "could not be reached",
                    RemoteFault::Untrusted => "could not be trusted",
                    RemoteFault::Unauthorized => "did not take the credentials",
                    RemoteFault::AddressDenied => "has an address that is not connected to",
                    RemoteFault::Redirected => "pointed elsewhere, which is not followed",
                    RemoteFault::SessionLost => "lost its session",
                };
                write!(f, "{what}: {detail}")
            }
            Self::NotStarted { step, detail } => write!(f, "not started, at {step}: {detail}"),
            Self::CredentialMissing { names, commands } => {
                write!(f, "not started: {names} not set; run: {commands}")
            }
            Self::Killed { reason } => write!(f, "killed: {reason}"),
            Self::Recycled { reason } => write!(f, "recycled after a cancelled call: {reason}"),
            Self::Idle => f.write_str("stopped: idle"),
            Self::Replaced => f.write_str("stopped: the definition changed"),
            Self::CredentialChanged => f.write_str("stopped: a credential changed"),
            Self::Shutdown => f.write_str("stopped: the gateway is stopping"),
            Self::Internal { detail } => write!(f, "internal error: {detail}"),
        }
    }
}

fn out_of_processes(
    f: &mut fmt::Formatter<'_>,
    scope: OomScope,
    limit: Option<u64>,
) -> fmt::Result {
    let (whose, mend) = match scope {
        OomScope::Isolate => (
            "the isolate's limit",
            "raise it: legation mcp update --pids",
        ),
        OomScope::User => (
            "the limit of all isolates of the user together",
            "end what others of them run (legation isolate list), or raise isolates.user_pids",
        ),
        OomScope::Host => (
            "a limit of the host",
            "see kernel.pid_max, kernel.threads-max and the TasksMax of the service",
        ),
    };
    write!(f, "not started: no process was left under {whose}")?;
    match limit {
        Some(limit) => write!(f, " of {limit}; {mend}"),
        None => write!(f, "; {mend}"),
    }
}

impl Verdict {
    /// The same as what is said of a server: `mcp x …`, `it …`.
    #[must_use]
    pub fn predicate(&self) -> String {
        match self {
            Self::OutOfMemory { .. } => format!("ran {self}"),
            Self::Handshake { detail } => format!("failed in its handshake: {detail}"),
            Self::Internal { detail } => format!("was failed by an internal error: {detail}"),
            Self::Signaled { .. }
            | Self::OutOfProcesses { .. }
            | Self::NotStarted { .. }
            | Self::CredentialMissing { .. }
            | Self::Killed { .. }
            | Self::Recycled { .. }
            | Self::Idle
            | Self::Replaced
            | Self::CredentialChanged
            | Self::Shutdown => format!("was {self}"),
            Self::Exited { .. }
            | Self::Ping { .. }
            | Self::Protocol { .. }
            | Self::Remote { .. } => self.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_in_the_list() {
        let source = include_str!("verdict.rs");
        let body = source.split("pub const fn kind(&self)").nth(1).unwrap();
        let body = body.split("\n    }\n").next().unwrap();
        let words: Vec<&str> = body.split('"').skip(1).step_by(2).collect();
        assert_eq!(words, Verdict::KINDS);
    }

    #[test]
    fn oom_counts_double_and_names_the_limit() {
        let oom = Verdict::OutOfMemory {
            scope: OomScope::Isolate,
            limit_bytes: Some(512 << 20),
        };
        assert_eq!(oom.weight(), Weight::Failure(2));
        assert_eq!(
            oom.to_string(),
            "out of memory: the isolate's limit of 512 MiB"
        );
        assert_eq!(oom.predicate(), format!("ran {oom}"));
        assert_eq!(Verdict::Exited { code: 127 }.weight(), Weight::Hopeless);
        assert_eq!(Verdict::Idle.weight(), Weight::Wanted);
    }

    #[test]
    fn who_is_crowded_out_by_others_is_not_blamed_and_learns_whose_limit_it_was() {
        let full = |scope| Verdict::OutOfProcesses {
            scope,
            limit: Some(128),
        };
        assert_eq!(full(OomScope::User).weight(), Weight::Crowded);
        assert_eq!(full(OomScope::Isolate).weight(), Weight::Failure(1));
        assert_eq!(
            full(OomScope::User).to_string(),
            "not started: no process was left under the limit of all isolates of the user together \
             of 128; end what others of them run (legation isolate list), or raise isolates.user_pids"
        );
    }

    #[test]
    fn a_verdict_can_be_said_of_a_server() {
        let detail = || "why".to_owned();
        for (verdict, said) in [
            (
                Verdict::Handshake { detail: detail() },
                "failed in its handshake: why",
            ),
            (
                Verdict::NotStarted {
                    step: "exec".to_owned(),
                    detail: detail(),
                },
                "was not started, at exec: why",
            ),
            (
                Verdict::Internal { detail: detail() },
                "was failed by an internal error: why",
            ),
            (Verdict::Signaled { signal: 9 }, "was ended by signal 9"),
            (Verdict::Idle, "was stopped: idle"),
            (Verdict::Exited { code: 1 }, "exited with code 1"),
            (Verdict::Ping { missed: 3 }, "missed 3 pings in a row"),
        ] {
            assert_eq!(verdict.predicate(), said);
        }
    }
}
