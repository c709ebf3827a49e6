//! Signs of life.

use std::sync::Arc;

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

    /// A ping is to be sent, unless one is under way.
    pub(in crate::actors) fn begin_ping(&self) -> bool {
        self.pulse.begin()
    }

    /// The ping is over; gives how many in a row were missed.
    pub(in crate::actors) fn end_ping(&self, missed: bool) -> u32 {
        self.pulse.end(missed)
    }
}
