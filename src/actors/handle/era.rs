//! Which era of MCP a run's server speaks, and what of ours differs by it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
#[derive(Debug, Default)]
pub(super) struct Speaks {
    modern: AtomicBool,
}

impl Handle {
    /// Whether its server is of the era without sessions.
    #[must_use]
    pub fn is_modern(&self) -> bool {
        self.asking.speaks.modern.load(Ordering::Relaxed)
    }

    /// Listens to what the server tells of itself; nobody's call, so that it keeps nothing from being idle. Dropping
    /// the future ends it.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::actors) async fn listen(
        self: &Arc<Self>,
        params: &[u8],
        until: Instant,
    ) -> Result<Reply, CallError> {
        let (line, posed) = self.pose("subscriptions/listen", params)?;
        let open = Open {
            handle: Arc::clone(self),
            id: posed.id(),
        };
        self.tell(line).await;
        let answered = posed.answer(until).await;
        if !matches!(answered, Err(CallError::TimedOut)) {
            open.ended();
        }
        answered
    }

    /// It is.
    pub(in crate::actors) fn speaks_modern(&self) {
        self.asking.speaks.modern.store(true, Ordering::Relaxed);
    }
}
