//! How many servers of a key are asked at a time, whichever of its clients lists; and servers that were late.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::domain::ids::KeyId;
use crate::domain::limits::{GATHER_SERVERS_MAX, GATHERS_KEY_MAX};

use super::super::super::catalog::Published;
use super::super::super::ears::Told;
use super::super::super::router;
use super::super::super::session::SessionHandle;
use super::super::super::slot::{SlotKey, SlotState};
use super::super::super::sync::Mutex;
use super::super::{Aside, Front};
use super::Listing;

/// Keys whose lists are being gathered, with what they may ask at a time; and slots whose servers were late.
#[derive(Debug, Default)]
pub struct Gathering(
    Mutex<HashMap<KeyId, Arc<Own>>>,
    Mutex<HashSet<(SlotKey, Listing)>>,
);

/// What a key may do at a time.
#[derive(Debug)]
pub(super) struct Own {
    /// Gather lists.
    pub(super) lists: Semaphore,
    /// Ask servers for them.
    pub(super) asks: Semaphore,
}

/// A key's turns while a list of it is gathered.
pub(super) struct Turns<'a>(&'a Gathering, KeyId, pub(super) Arc<Own>);

impl Gathering {
    pub(super) fn turns(&self, key: &KeyId) -> Turns<'_> {
        let mut open = self.0.lock();
        let new = || {
            Arc::new(Own {
                lists: Semaphore::new(GATHERS_KEY_MAX),
                asks: Semaphore::new(GATHER_SERVERS_MAX),
            })
        };
        let own = Arc::clone(open.entry(key.clone()).or_insert_with(new));
        Turns(self, key.clone(), own)
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        let mut open = self.0.0.lock();
        // Ours and the map's: nobody else gathers.
        if Arc::strong_count(&self.2) <= 2 {
            open.remove(&self.1);
        }
    }
}

impl Front {
    /// A server that was on its way when a list was given: once it is there, the list is another one.
    pub(super) fn tell_when_ready(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        listing: Listing,
        aside: &Aside<'_>,
    ) {
        let slot = router::find(&self.ctx, session, published, aside.questions);
        let mut watch = slot.watch();
        if !matches!(*watch.borrow_and_update(), SlotState::Starting { .. }) {
            return;
        }
        let late = (slot.key.clone(), listing);
        if !self.ctx.gathering.1.lock().insert(late.clone()) {
            return;
        }
        let ctx = Arc::clone(&self.ctx);
        tokio::spawn(async move {
            let started = watch.wait_for(|state| !matches!(state, SlotState::Starting { .. }));
            let started = timeout(slot.mcp.start_deadline() * 2, started).await;
            let is_ready =
                matches!(&started, Ok(Ok(state)) if matches!(**state, SlotState::Ready(_)));
            drop(started);
            ctx.gathering.1.lock().remove(&late);
            if is_ready {
                let told = match listing {
                    Listing::Prompts => Told::Prompts,
                    Listing::Resources | Listing::Templates => Told::Resources,
                };
                ctx.ears.tell(&slot.key, &told);
            }
        });
    }
}
