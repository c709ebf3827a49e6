//! Where a slot is, and how it came there.

use std::sync::Arc;

use tokio::time::Instant;

use super::super::handle::{Handle, RunEnd};

/// Where a slot is.
#[derive(Debug, Clone)]
pub enum SlotState {
    /// No run, and none wanted: the next call starts one.
    Resting,
    /// A run is on its way to ready.
    Starting {
        /// Since when.
        since: Instant,
        /// When it is given up.
        deadline: Instant,
    },
    /// A run serves.
    Ready(Arc<Handle>),
    /// The last run's processes are being cleared away.
    Stopping,
    /// The last run failed; the next is due then.
    Backoff {
        /// When.
        until: Instant,
        /// How the last one ended.
        end: Arc<RunEnd>,
        /// Failures in a row.
        failures: u32,
    },
    /// It failed too often, or cannot heal by itself.
    Quarantined {
        /// When one try is allowed.
        until: Instant,
        /// How the last one ended.
        end: Arc<RunEnd>,
    },
    /// Processes outlived the kill: shut until they are gone.
    Stuck {
        /// Their pids.
        survivors: Vec<i32>,
    },
    /// This slot will never run again; another may have taken its place.
    Closed,
}

impl SlotState {
    /// One word for tables and metrics.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Resting => "resting",
            Self::Starting { .. } => "starting",
            Self::Ready(_) => "ready",
            Self::Stopping => "stopping",
            Self::Backoff { .. } => "backoff",
            Self::Quarantined { .. } => "quarantined",
            Self::Stuck { .. } => "stuck",
            Self::Closed => "closed",
        }
    }
}

/// One remembered change of state.
#[derive(Debug, Clone)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// To what.
    pub to: &'static str,
    /// Why.
    pub cause: String,
}
