//! The run that is in a slot, and the orders it is given.

use std::sync::Arc;

use tokio::sync::watch;

use crate::domain::verdict::Verdict;

use super::super::handle::{Handle, RunEnd};
use super::super::launcher::Scope;
use super::super::record::RunRecord;

/// What a run in progress is told to do. A later order counts only if it is graver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Run,
    /// Finish what is inside, then leave by the stop ladder.
    Stop(Verdict),
    /// End now: it broke the rules, or stopped answering.
    Fault(Verdict),
    /// End now: somebody said so.
    Kill(Verdict),
}

impl Order {
    const fn rank(&self) -> u8 {
        match self {
            Self::Run => 0,
            // The whole server stops: a slower stop under way hurries up.
            Self::Stop(Verdict::Shutdown) => 2,
            Self::Stop(_) => 1,
            Self::Fault(_) => 3,
            Self::Kill(_) => 4,
        }
    }
}

/// The run that is in a slot, for those who must reach it without its actor.
#[derive(Clone)]
pub struct Occupant {
    /// Which run.
    pub epoch: u64,
    /// Its handle; its gate may be closed.
    pub handle: Arc<Handle>,
    /// Its orders.
    pub orders: watch::Sender<Order>,
    /// Its process tree, once it has one.
    pub scope: Option<Arc<dyn Scope>>,
    /// Its record.
    pub record: Arc<RunRecord>,
}

impl std::fmt::Debug for Occupant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Occupant")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl Occupant {
    /// Gives an order; tells whether it counted.
    pub fn order(&self, order: Order) -> bool {
        self.orders.send_if_modified(|current| {
            let graver = order.rank() > current.rank();
            if graver {
                *current = order;
            }
            graver
        })
    }

    /// Ends the run here and now, without any mailbox: its callers are told, its tree is killed,
    /// its actor learns of it last. Gives how many callers were told.
    pub fn kill(&self, verdict: Verdict) -> usize {
        let told = self.shut(verdict);
        if let Some(scope) = &self.scope {
            scope.kill();
        }
        told
    }

    /// The first half of [`Occupant::kill`]: its callers are told and nobody is let in any more. A
    /// process tree that is only being born dies as it comes (see [`Slot::scope_of`]).
    pub fn shut(&self, verdict: Verdict) -> usize {
        let end = Arc::new(RunEnd {
            verdict: verdict.clone(),
            last_stderr: None,
        });
        let told = self.handle.end(&end);
        self.order(Order::Kill(verdict));
        told
    }
}
