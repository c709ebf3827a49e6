//! The share of all connections that streams have which only listen: one of each server, open for as long as that
//! runs. Beyond it listening waits for room, and calls are made without, so that no call is refused for want of a
//! connection that somebody merely listens on.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::limits::{REMOTE_CONNECTIONS_ALL_MAX, REMOTE_LISTENING_MAX};

const _: () = assert!(REMOTE_LISTENING_MAX <= REMOTE_CONNECTIONS_ALL_MAX / 2);

static LISTENING: Share = Share::of(REMOTE_LISTENING_MAX);

/// So many at once.
struct Share {
    room: Semaphore,
    is_said: AtomicBool,
}

/// Waits for room to listen. What it gives is held for as long as it is listened.
pub(super) async fn listening() -> Option<SemaphorePermit<'static>> {
    LISTENING.take().await
}

impl Share {
    const fn of(most: usize) -> Self {
        Self {
            room: Semaphore::const_new(most),
            is_said: AtomicBool::new(false),
        }
    }

    /// `None` never comes: nobody closes it.
    async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(permit) = self.room.try_acquire() {
            return Some(permit);
        }
        if !self.is_said.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "{REMOTE_LISTENING_MAX} servers behind HTTP are listened to, which is the most: what others tell of \
                 themselves (that their tools or resources have changed) is heard when there is room again; calls are \
                 made as before"
            );
        }
        self.room.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_to_listen_waits_and_says_so_once() {
        let share = Share::of(1);
        let first = share.take().await;
        assert!(first.is_some() && !share.is_said.load(Ordering::Relaxed));
        let waits = timeout(Duration::from_secs(3600), share.take()).await;
        assert!(waits.is_err() && share.is_said.load(Ordering::Relaxed));
        let (later, ()) = tokio::join!(share.take(), async { drop(first) });
        assert!(later.is_some());
    }
}
