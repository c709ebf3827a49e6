//! A question of our own that needs no writer: its line is brought to the server by who asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::protocol::envelope;

use super::{CallError, Handle, Reply, Role, Told, Waiter, answer};

/// A question on its way without the writer. Dropped, it is forgotten: an answer is a stray then.
#[derive(Debug)]
pub(in crate::actors) struct Posed {
    handle: Arc<Handle>,
    id: u64,
    told: oneshot::Receiver<Told>,
}

impl Handle {
    /// A question of our own whose line the caller brings to the server: the first one is in its
    /// stdin before there is a writer.
    ///
    /// # Errors
    /// [`CallError::NotSent`]: the run has ended.
    pub(in crate::actors) fn pose(
        self: &Arc<Self>,
        method: &str,
        params: &[u8],
    ) -> Result<(Bytes, Posed), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, told) = oneshot::channel();
        let role = Role::Ours;
        if self.pending.insert(id, Waiter { tell, role }).is_err() {
            return Err(CallError::NotSent);
        }
        self.posed.fetch_add(1, Ordering::Relaxed);
        let posed = Posed {
            handle: Arc::clone(self),
            id,
            told,
        };
        Ok((envelope::request(id, method, params), posed))
    }
}

impl Posed {
    /// Our id of it.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer.
    pub(in crate::actors) async fn answer(mut self, deadline: Instant) -> Result<Reply, CallError> {
        match timeout_at(deadline, &mut self.told).await {
            Ok(told) => answer(told),
            Err(_) => Err(CallError::TimedOut),
        }
    }
}

impl Drop for Posed {
    fn drop(&mut self) {
        // `initialize` must not be cancelled (MCP, cancellation), so nothing is said of it.
        self.handle.pending.take(self.id);
        self.handle.posed.fetch_sub(1, Ordering::Relaxed);
    }
}
