//! The numbers the actors go by.

use std::path::PathBuf;
use std::time::Duration;

use crate::domain::mcp::Limits;
use crate::domain::restart;

/// The numbers the actors go by; `cli` fills them in from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where homes are: `<homes>/<user>/<mcp>`.
    pub homes: PathBuf,
    /// `PATH` of isolates; where bare commands are found.
    pub path: String,
    /// Bytes of one line from a server.
    pub line_bytes_max: usize,
    /// Calls in flight on one isolate.
    pub in_flight_max: usize,
    /// When a kill that is not done leaves the slot stuck.
    pub kill_wait: Duration,
    /// Isolates one user may have.
    pub per_user_max: usize,
    /// Starts at once.
    pub start_parallel: usize,
    /// The restart policy.
    pub restart: restart::Settings,
    /// Restarts per second, host-wide.
    pub restarts_per_second: u32,
    /// The limits of all isolates of a user.
    pub user_limits: Limits,
    /// A session without activity ends after this.
    pub session_ttl: Duration,
    /// A token past its age, or signed by a rotated key, works this long.
    pub token_grace: Duration,
    /// Live sessions of one key.
    pub sessions_per_key_max: usize,
    /// Calls of one key in a minute; 0: any number.
    pub calls_per_minute: u32,
    /// Failed registrations of one key prefix in the window.
    pub failed_tries_max: u32,
    /// That window.
    pub failed_window: Duration,
}
