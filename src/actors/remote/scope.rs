//! What stands for a process tree: the connections of a run.

use std::time::Duration;

use std::sync::Arc;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::actors::launcher::{BoxFuture, EgressCount, Exit, Remains, Scope, Usage};
use crate::domain::mcp::Limits;
use crate::domain::verdict::OomScope;

use super::parts::{Ends, Shared};

/// The connections of one run; dropping it closes them.
pub(super) struct RemoteScope {
    shared: Arc<Shared>,
    ends: Ends,
    task: AbortHandle,
}

impl RemoteScope {
    pub(super) fn new(shared: Arc<Shared>, ends: Ends, task: AbortHandle) -> Self {
        Self { shared, ends, task }
    }
}

impl Scope for RemoteScope {
    fn terminate(&self) {
        self.ends.stop(Exit::Signal(15));
    }

    fn kill(&self) {
        self.ends.stop(Exit::Signal(9));
    }

    fn reap(&self, wait: Duration) -> BoxFuture<'_, Remains> {
        Box::pin(async move {
            self.kill();
            let mut exit = self.ends.exit.subscribe();
            if timeout(wait, exit.wait_for(Option::is_some)).await.is_err() {
                // What it holds goes with it; there is no process that could live on.
                self.task.abort();
            }
            Remains::default()
        })
    }

    fn oom(&self) -> Option<OomScope> {
        None
    }

    fn egress(&self) -> Option<EgressCount> {
        Some(self.shared.client.count())
    }

    /// The kernel limits nothing of it.
    fn relimit(&self, _limits: &Limits) -> Result<(), String> {
        Ok(())
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

impl Drop for RemoteScope {
    fn drop(&mut self) {
        self.kill();
    }
}
