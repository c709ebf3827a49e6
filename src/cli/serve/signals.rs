//! What ends a server: SIGTERM, SIGINT, and SIGHUP where it means that its terminal is gone.
//!
//! Without a terminal SIGHUP is what reload habits and logrotate send, and ends nothing: the configuration is
//! read at a start, files that are read again (certificates, tokens) are looked at by themselves, and lines of
//! the log go to standard error, which nobody rotates under us.

use std::io::{self, IsTerminal};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cli::error::CliError;
use crate::domain::limits::SAME_STOP;

/// A hangup must not kill before [`Signals`] hears it, where no terminal is there to hang up. Isolates are not born with
/// this: init sets every signal back before it starts a server.
pub(super) fn before_all() {
    if !on_terminal() {
        sandbox::ignore_hangups();
    }
}

fn on_terminal() -> bool {
    io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal()
}

/// The signals of this process, from here on.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    on_terminal: bool,
    /// When the one that ends it came.
    stopping: Option<Instant>,
}

// === impl Signals ===

impl Signals {
    pub(super) fn new() -> Result<Self, CliError> {
        let on = |kind| signal(kind).map_err(CliError::Runtime);
        Ok(Self {
            term: on(SignalKind::terminate())?,
            int: on(SignalKind::interrupt())?,
            hup: on(SignalKind::hangup())?,
            on_terminal: on_terminal(),
            stopping: None,
        })
    }

    /// The next one that ends the server. A second one right after the first is the same stop, sent twice: to the
    /// process and to its group, as `timeout` and some supervisors do.
    pub(super) async fn next(&mut self) -> &'static str {
        loop {
            let name = tokio::select! {
                _ = self.term.recv() => "SIGTERM",
                _ = self.int.recv() => "SIGINT",
                _ = self.hup.recv() => "SIGHUP",
            };
            if name == "SIGHUP" && !self.on_terminal {
                tracing::warn!(
                    "SIGHUP is ignored: the configuration is read at the start, so restart to have it read again; \
                     certificates and tokens are read again by themselves"
                );
                continue;
            }
            match self.stopping {
                Some(since) if since.elapsed() < SAME_STOP => {
                    tracing::debug!(signal = name, "the same stop, told twice");
                }
                _ => {
                    self.stopping.get_or_insert_with(Instant::now);
                    return name;
                }
            }
        }
    }
}
