//! The one list of stable error codes, shared by the client API, the admin API, the command line,
//! metrics and `docs/errors.md`, which is rendered from here.
//!
//! A code's text and number never change and are never used again for something else. HTTP status
//! is not here: only `api` knows it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the command line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed.
    Failed,
    /// Asked wrongly.
    Usage,
    /// The daemon cannot be reached.
    Unreachable,
    /// Not allowed.
    Denied,
    /// What was named does not exist.
    NotFound,
    /// It stands against what is there.
    Conflict,
    /// It took too long.
    TimedOut,
    /// Done for some, not for all.
    Partly,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::TimedOut => 7,
            Self::Partly => 8,
        }
    }
}

/// Whether the same request may succeed later without anybody changing anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    Later,
    Never,
}

macro_rules! codes {
    ($($number:literal $variant:ident $text:literal $exit:ident $retry:ident
        $meaning:literal; $next:literal;)+) => {
        /// What went wrong, as programs see it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $meaning] $variant,)+
        }

        impl Code {
            /// Every code, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The code as text: snake case.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The number by which documentation and people name it: `E0412`.
            #[must_use]
            pub const fn number(self) -> &'static str {
                match self { $(Self::$variant => $number,)+ }
            }

            /// What it means, in one line.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)+ }
            }

            /// What to do about it.
            #[must_use]
            pub const fn next(self) -> &'static str {
                match self { $(Self::$variant => $next,)+ }
            }

            /// How a command that failed with it ends.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)+ }
            }

            const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)+ }
            }
        }
    };
}

codes! {
    "E0101" InvalidRequest "invalid_request" Usage Never
        "The request is not of the form this endpoint takes.";
        "Correct the field the message names.";
    "E0102" UnsupportedMediaType "unsupported_media_type" Usage Never
        "The body's content type is not application/json.";
        "Send JSON, with Content-Type: application/json.";
    "E0103" BodyTooLarge "body_too_large" Usage Never
        "The request's body is larger than client.body_bytes_max.";
        "Send less, or let an operator raise the limit.";
    "E0104" NotFound "not_found" NotFound Never
        "What the request names does not exist.";
        "Check the name or id; the list command of its kind shows what there is.";
    "E0105" Conflict "conflict" Conflict Never
        "The request stands against what is there: a taken name, a step the lifecycle forbids.";
        "Look at the current state and choose another name or step.";
    "E0106" RateLimited "rate_limited" Failed Later
        "Too many attempts in a short time.";
        "Wait the seconds the answer names, then try again.";
    "E0107" MethodNotAllowed "method_not_allowed" Usage Never
        "The endpoint exists, but not with this method.";
        "Use a method the Allow header names.";
    "E0108" RequestTimeout "request_timeout" TimedOut Later
        "The request did not arrive whole in time.";
        "Check the network between client and server, then try again.";
    "E0109" NotAcceptable "not_acceptable" Usage Never
        "The client takes none of the forms the answer may have.";
        "Send Accept: application/json, text/event-stream.";

    "E0201" Unauthorized "unauthorized" Denied Never
        "The request carries no valid session token.";
        "Register again with a client key.";
    "E0202" SessionExpired "session_expired" Denied Never
        "The session or its token has ended by age.";
        "Register again; the standard client does so by itself.";
    "E0203" SessionSuspended "session_suspended" Denied Never
        "The session, its key or its user was revoked or suspended.";
        "Ask an administrator; registering again works once the suspension is lifted.";
    "E0204" KeyUnknown "key_unknown" Denied Never
        "The client key is unknown, revoked or expired.";
        "Check the key, or let an administrator create one: legation key create.";
    "E0205" UserDisabled "user_disabled" Denied Never
        "The user is suspended.";
        "Ask an administrator: legation user resume.";
    "E0206" Denied "denied" Denied Never
        "The caller may not do this.";
        "Run the command as root or as a member of the admin group.";
    "E0207" SessionsMax "sessions_max" Failed Later
        "The key, or the server, has as many live sessions as it may have.";
        "End sessions that are not needed, or wait until some expire.";

    "E0301" ToolUnknown "tool_unknown" NotFound Never
        "No tool of that name is in the caller's view.";
        "List the tools again; names are case-sensitive.";
    "E0302" NotSubscribed "not_subscribed" Denied Never
        "The key is not subscribed to the mcp.";
        "Subscribe the key: legation subscription add.";
    "E0303" McpDisabled "mcp_disabled" Denied Never
        "The mcp is not published.";
        "Ask an administrator: legation mcp list.";
    "E0304" CallTimeout "call_timeout" TimedOut Never
        "The tool did not answer before the call's deadline; the server was told to stop.";
        "Ask for less at once, or raise its time: legation mcp update NAME --call-timeout. The call may have had its effect.";
    "E0305" Cancelled "cancelled" Failed Never
        "The caller went away or cancelled; the server was told to stop.";
        "Nothing, if it was meant. The call may have had its effect.";
    "E0306" Busy "busy" Failed Later
        "As many calls are in flight on the isolate as it takes.";
        "Try again in a moment, or call less in parallel.";
    "E0307" ResultTooLarge "result_too_large" Failed Never
        "The result is larger than the client accepts.";
        "Ask the tool for less: a page, a filter, a file instead of its content.";
    "E0308" ServerError "server_error" Failed Never
        "The mcp server itself answered with an error.";
        "Read its message; it is about this call's arguments or the server's own trouble.";
    "E0310" KillSwitchActive "kill_switch_active" Denied Never
        "A kill switch is on for the tool, the mcp, the user, the client or everything.";
        "Read the reason the answer gives; an administrator lifts it: legation kill-switch list.";
    "E0311" KillJournalUnavailable "kill_journal_unavailable" Failed Later
        "The journal of kill switches cannot be written, so nothing was switched.";
        "Free space or correct the permissions of the data directory; legation isolate kill needs no journal.";
    "E0312" KillJournalDamaged "kill_journal_damaged" Failed Never
        "The journal of kill switches is damaged; starting without it could forget a kill switch.";
        "Do what the message names: restore kill.journal, or set it aside and look at legation kill-switch list.";
    "E0313" KillSwitchesMax "kill_switches_max" Conflict Never
        "As many kill switches and suspensions are on as the server holds.";
        "Lift those that are not needed, or use a wider scope: legation kill-switch list.";

    "E0401" Starting "starting" Failed Later
        "The isolate is starting or waits for its turn to start.";
        "Try again after the seconds the answer names.";
    "E0402" BackingOff "backing_off" Failed Later
        "The server failed and waits before its next start.";
        "Try again after the seconds the answer names; legation isolate show tells why.";
    "E0403" Quarantined "quarantined" Failed Later
        "The server failed too often, or in a way that cannot heal by itself.";
        "Read the last stderr line and correct the definition; legation isolate restart tries at once.";
    "E0404" OutOfMemory "out_of_memory" Failed Never
        "The kernel ended the server at its memory limit.";
        "Ask for less at once, or raise the limit the message names.";
    "E0405" RunEnded "run_ended" Failed Never
        "The server ended while the call was in flight.";
        "Try again if the call may safely run twice; legation isolate show tells why it ended.";
    "E0406" IsolatesMax "isolates_max" Failed Later
        "The user has as many isolates as isolates.per_user_max allows.";
        "Wait until one is idle and stops, or let an operator raise the limit.";
    "E0407" CommandNotFound "command_not_found" Failed Never
        "The mcp's command does not exist or cannot be executed.";
        "Install it, or correct the command: legation mcp update.";
    "E0408" SandboxRefused "sandbox_refused" Failed Never
        "The kernel lacks or refused a wall of the sandbox.";
        "Do what the message names, or list the facility in sandbox.allow_degraded.";
    "E0409" DiscoverFailed "discover_failed" Failed Never
        "The server started, but its tools could not be read.";
        "Read its stderr and correct the definition: legation mcp update.";
    "E0410" Stuck "stuck" Failed Never
        "Processes of the isolate outlived the kill; it stays shut.";
        "Look at the processes it names; most hang in the kernel on a dead disk or mount.";
    "E0412" HandshakeFailed "handshake_failed" Failed Never
        "The server did not answer initialize in time, or answered wrongly.";
        "Read its last stderr line; most often a setting or credential is missing.";
    "E0418" HostFull "host_full" Failed Later
        "The host has no room for another isolate.";
        "Try again when others have stopped; a disk that is full has to be cleared. legation status shows what is short, isolates.max, memory_budget_bytes, host_free_bytes and disk_free_bytes set it.";

    "E0419" InstallFailed "install_failed" Failed Later
        "The package of this mcp could not be installed.";
        "Read the reason with legation mcp show NAME, mend it, and run legation mcp install NAME.";
    "E0431" ArgumentsInvalid "arguments_invalid" Usage Never
        "The call's arguments do not fit the schema of its tool, and the mcp says that they must.";
        "Correct what the message names; the tool's inputSchema says what it takes.";
    "E0432" ListLate "list_late" Failed Later
        "The mcp's server had not answered when a list of all servers was given.";
        "List again in a while; it may still be starting. legation isolate show tells how it is.";
    "E0433" ListCut "list_cut" Failed Never
        "The mcp's server lists more than is taken into a list of all servers, or items without a usable name.";
        "Ask at the mcp's own address, /mcp/NAME: there its list is passed on page by page.";
    "E0434" ResourceUnclear "resource_unclear" Usage Never
        "A server's own URI was named where all servers are, and it may be several servers'.";
        "Name it with its mcp, legation://NAME/URI, as lists there do.";
    "E0435" TasksMax "tasks_max" Failed Later
        "The user has as many tasks under way as one may have, or the gateway has.";
        "Wait for some to end, or cancel them (tasks/cancel).";
    "E0440" Unanswered "unanswered" Failed Never
        "The server needs an answer from its client before it can go on, and got none.";
        "Answer what the client asks, or use a client that can; then call again.";

    "E0501" ShuttingDown "shutting_down" Failed Later
        "The gateway is stopping.";
        "Try again once it is back.";
    "E0502" StoreUnavailable "store_unavailable" Failed Later
        "The database cannot be read or written.";
        "Do what the message names: free space, permissions, another process's lock.";
    "E0503" AuditUnavailable "audit_unavailable" Failed Later
        "The audit log cannot be written, so nothing that must be audited is done.";
        "Check space and permissions of the audit directory.";
    "E0504" Internal "internal" Failed Never
        "A bug of ours.";
        "Report it with the request id and the log lines around it.";
    "E0505" StoreDamaged "store_damaged" Failed Never
        "The database holds what cannot have been written there.";
        "Stop the server and restore a backup.";
    "E0506" StoreIncompatible "store_incompatible" Failed Never
        "The database was written by another version.";
        "Start the version that wrote it, or a newer one.";
    "E0520" AuditBroken "audit_broken" Failed Never
        "The audit log is not what was written: a record was changed, removed, added or moved.";
        "Keep the files as they are, find out who could write them, and compare with a copy.";
    "E0521" AuditUnreadable "audit_unreadable" Failed Never
        "The audit log, its key or a checkpoint cannot be read.";
        "Check that it is there and readable; nothing is said about whether it is whole.";
    "E0530" CredentialMissing "credential_missing" Failed Never
        "The mcp needs a credential that is not set.";
        "Set it, as the message says: legation credential set. The next call starts the server.";
    "E0531" VaultUnavailable "vault_unavailable" Failed Later
        "The master key file cannot be read or written, or does not fit the database.";
        "Restore the file keys/master.key that belongs to the database, or do what the message names.";
    "E0540" StoreHeld "store_held" Conflict Never
        "Another server uses the database.";
        "Stop the server the message names, or set storage.url to another database.";
    "E0541" StoreUnfit "store_unfit" Failed Never
        "The database is of a kind or version this server cannot stand on, or is somebody else's.";
        "Do what the message names; docs/postgres.md says what is needed.";
    "E0542" StoreLost "store_lost" Usage Never
        "The database is new, and an audit log or homes tell of a server that lived here before.";
        "Restore the database from a backup, or name the right one; to start anew, move away what the message names.";
    "E0550" ScrapeBusy "scrape_busy" Failed Later
        "Another scrape is being answered, or reading the numbers hangs.";
        "Scrape less often; if it stays, look why the kernel does not answer.";
    "E0551" OpsUnauthorized "ops_unauthorized" Denied Never
        "The request to the ops listener carries no valid bearer token.";
        "Send the token of ops.token_file as Authorization: Bearer.";

    "E0601" Usage "usage" Usage Never
        "The command line is wrong.";
        "See the command's --help.";
    "E0602" DaemonUnreachable "daemon_unreachable" Unreachable Later
        "No daemon answers on the admin socket.";
        "Start it: legation serve; or name its socket with --socket.";
    "E0603" PortTaken "port_taken" Conflict Never
        "Another process listens on the port.";
        "Stop it, or set the listener that the message names (client.listen, ops.listen) to another port.";
    "E0604" LockHeld "lock_held" Conflict Never
        "Another server uses the data directory or the directory of the audit log.";
        "Stop that one, or set server.data_dir or audit.dir to another directory.";
    "E0605" ConfigInvalid "config_invalid" Usage Never
        "The configuration is wrong.";
        "Correct the line the message names; legation config check looks again.";
    "E0606" PartlyDone "partly_done" Partly Never
        "It was done for some and failed for others.";
        "Read which failed and why, then repeat it for those.";
    "E0607" NoAnswer "no_answer" TimedOut Later
        "The daemon took the request but did not answer in time.";
        "Look at legation status and the daemon's log; what was asked for may still be done.";
    "E0608" AnswerUnreadable "answer_unreadable" Failed Never
        "The daemon's answer broke off or is not understood.";
        "Check that command and daemon have the same version: legation status.";
    "E0609" OutputFailed "output_failed" Failed Never
        "The output could not be written.";
        "Check the disk or the program it is piped to.";
    "E0610" StartFailed "start_failed" Failed Never
        "The server could not start.";
        "Do what the message names.";
    "E0611" TreeGaveUp "tree_gave_up" Failed Later
        "A service failed too often in a short time, so the server ended (exit 70).";
        "Read in its log which service failed and why; the service manager starts it again.";
    "E0612" Declined "declined" Failed Never
        "Nothing was done, because the question was not answered with yes.";
        "Answer y, or give --yes.";
}

// === impl Code ===

impl Code {
    /// The code of that text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }

    /// Whether the same request may succeed later without anybody changing anything.
    #[must_use]
    pub const fn retryable(self) -> bool {
        matches!(self.retry(), Retry::Later)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no error code")))
    }
}

/// The headings of `docs/errors.md`, by the number's hundreds.
const CHAPTERS: &[(&str, &str)] = &[
    ("E01", "Requests"),
    ("E02", "Who"),
    ("E03", "Calls"),
    ("E04", "Isolates"),
    ("E05", "The server"),
    ("E06", "The command line"),
];

/// Renders `docs/errors.md`.
#[must_use]
pub fn render_reference() -> String {
    let mut out = String::from(
        "# Error codes\n\n\
         Rendered from `src/domain/code.rs`; do not edit. The text (`tool_unknown`) is what APIs\n\
         and metrics carry, the number (`E0301`) is what people say. Neither ever changes.\n\
         \"Retry\" says whether the same request may succeed later without anybody changing\n\
         anything. \"Exit\" is how a `legation` command ends that failed with it: 0 ok, 1 failed,\n\
         2 usage, 3 cannot reach the daemon, 4 denied, 5 not found, 6 conflict, 7 timed out,\n\
         8 partly done.\n",
    );
    for (prefix, heading) in CHAPTERS {
        out.push_str(&format!("\n## {heading}\n"));
        for code in Code::ALL {
            if !code.number().starts_with(prefix) {
                continue;
            }
            let retry = if code.retryable() { "yes" } else { "no" };
            out.push_str(&format!(
                "\n<a id=\"{number}\"></a>\n### {number} `{code}`\n\n{meaning}\n\n\
                 *What to do:* {next}\n\n*Retry:* {retry}. *Exit:* {exit}.\n",
                number = code.number(),
                meaning = code.meaning(),
                next = code.next(),
                exit = code.exit().code(),
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::domain::bless;

    #[test]
    fn codes_are_unique_ordered_and_well_formed() {
        let numbers: Vec<&str> = Code::ALL.iter().map(|code| code.number()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        let texts: HashSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        for code in Code::ALL {
            let (text, number) = (code.as_str(), code.number());
            assert!(text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(number.len() == 5 && number.starts_with("E0"));
            assert!(
                CHAPTERS
                    .iter()
                    .any(|(prefix, _)| number.starts_with(prefix))
            );
            assert!(code.meaning().ends_with('.') && code.next().ends_with('.'));
            assert_ne!(code.exit(), Exit::Ok, "{code}");
            assert_eq!(Code::parse(text), Some(*code));
            // The text is the variant's name: nobody has to look it up.
            let name = format!("{code:?}").to_lowercase();
            assert_eq!(text.replace('_', ""), name);
        }
    }

    #[test]
    fn codes_travel_as_text() {
        let json = serde_json::to_string(&Code::HandshakeFailed).unwrap();
        assert_eq!(json, "\"handshake_failed\"");
        assert_eq!(
            serde_json::from_str::<Code>(&json).unwrap(),
            Code::HandshakeFailed
        );
        assert!(serde_json::from_str::<Code>("\"nonsense\"").is_err());
        assert!(Code::Starting.retryable() && !Code::CallTimeout.retryable());
    }

    #[test]
    fn the_reference_is_current() {
        bless::assert_current("docs/errors.md", &render_reference());
    }
}
