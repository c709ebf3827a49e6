//! Which era of MCP a run's server speaks, and what of ours differs by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::protocol::envelope;

use super::{CallError, Handle, Reply};

/// A subscription; its server is told when nobody wants it any more.
struct Open {
    handle: Arc<Handle>,
    id: u64,
}

impl Open {
    fn ended(mut self) {
        self.id = 0;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.id != 0 {
            self.handle
                .post(envelope::cancelled(self.id, "nobody listens any more"));
        }
    }
}

/// What a server speaks; older versions, until it is known.
#[derive(Debug)]
pub(super) struct Speaks {
    modern: AtomicBool,
    /// The newest subscription that it has acknowledged.
    listened: watch::Sender<u64>,
}

impl Default for Speaks {
    fn default() -> Self {
        Self {
            modern: AtomicBool::new(false),
            listened: watch::Sender::new(0),
        }
    }
}

impl Handle {
    /// Whether its server is of the era without sessions.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.asking.speaks.modern.load(Ordering::Relaxed)
    }

    /// Listens to what the server tells of itself, and says when the server does; nobody's call, so that it keeps
    /// nothing from being idle. Dropping the future ends it.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::actors) async fn listen(
        self: &Arc<Self>,
        params: &[u8],
        opened: oneshot::Sender<()>,
        until: Instant,
    ) -> Result<Reply, CallError> {
        let mut listened = self.asking.speaks.listened.subscribe();
        let (line, posed) = self.pose("subscriptions/listen", params)?;
        let open = Open {
            handle: Arc::clone(self),
            id: posed.id(),
        };
        self.tell(line).await;
        let id = posed.id();
        let opens = async {
            // It is we who hold the sender.
            let _ = listened.wait_for(|newest| *newest >= id).await;
        };
        let answer = posed.answer(until);
        tokio::pin!(answer, opens);
        let answered = tokio::select! {
            biased;
            answered = &mut answer => answered,
            () = opens => {
                let _ = opened.send(());
                answer.await
            }
        };
        if !matches!(answered, Err(CallError::TimedOut)) {
            open.ended();
        }
        answered
    }

    /// Its server has acknowledged a subscription.
    pub(in crate::actors) fn listens(&self, line: &[u8]) {
        if let Some(id) = envelope::subscription(line) {
            let newest = |known: &mut u64| {
                let is_newer = id > *known;
                *known = id.max(*known);
                is_newer
            };
            self.asking.speaks.listened.send_if_modified(newest);
        }
    }

    /// It is.
    pub(in crate::actors) fn speaks_modern(&self) {
        self.asking.speaks.modern.store(true, Ordering::Relaxed);
    }
}
