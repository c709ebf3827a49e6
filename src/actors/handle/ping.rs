//! Signs of life.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::protocol::outbound::{self, DISCOVER};

use super::{CallError, Handle, Reply};

impl Handle {
    /// Asks for a sign of life.
    ///
    /// # Errors
    /// [`CallError`].
    pub(in crate::actors) async fn ping(
        self: &Arc<Self>,
        until: Instant,
    ) -> Result<Reply, CallError> {
        match self.is_modern() {
            // It knows no pings.
            true => self.ask(DISCOVER, &outbound::own_params(""), until).await,
            false => self.ask("ping", b"{}", until).await,
        }
    }

    /// A ping is to be sent, unless one is under way or the last is not that long ago.
    pub(in crate::actors) fn begin_ping(&self, every: Duration) -> bool {
        self.pulse.begin(self.now_ms(), every)
    }

    /// The ping is over, and nobody was to expect an answer.
    pub(in crate::actors) fn skip_ping(&self) {
        self.pulse.skip();
    }

    /// The ping is over; gives how many in a row were missed.
    pub(in crate::actors) fn end_ping(&self, missed: bool) -> u32 {
        self.pulse.end(missed)
    }
}
