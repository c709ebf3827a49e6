//! Calls of clients without sessions that wait for their answers. A client that comes back finds its call here, or
//! nowhere: what does not come back in time is cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::exchange::Exchange;
use crate::actors::clock::random;
use crate::domain::ids::KeyId;
use crate::domain::limits::{MCP_HELD_KEY_MAX, MCP_HELD_MAX};
use crate::protocol::state::Sealer;

#[derive(Debug, Default)]
struct Calls {
    by: HashMap<[u8; 16], Entry>,
    of: HashMap<KeyId, usize>,
}

#[derive(Debug)]
struct Entry {
    exchange: Exchange,
    round: u16,
    _timer: AbortOnDropHandle<()>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Held {
    calls: Arc<Mutex<Calls>>,
    pub(super) sealer: Arc<Sealer>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            calls: Arc::default(),
            sealer: Arc::new(Sealer::new(random(), random())),
        }
    }
}

impl Held {
    /// Keeps a call until its client comes back, or until then.
    ///
    /// # Errors
    /// Its key, or all keys, have their fill.
    pub(super) fn keep(
        &self,
        exchange: Exchange,
        (call, round): ([u8; 16], u16),
        until: Instant,
    ) -> Result<(), Box<Exchange>> {
        let mut calls = lock(&self.calls);
        let own = calls.of.get(exchange.key()).copied().unwrap_or(0);
        if own >= MCP_HELD_KEY_MAX || calls.by.len() >= MCP_HELD_MAX {
            return Err(Box::new(exchange));
        }
        calls.of.insert(exchange.key().clone(), own + 1);
        let all = Arc::downgrade(&self.calls);
        let done = exchange.work.done.clone();
        let timer = tokio::spawn(async move {
            let late = tokio::time::sleep_until(until);
            tokio::pin!(late);
            tokio::select! {
                () = &mut late => {}
                () = done.cancelled() => {
                    // Its server hears that nobody answers; what it ended with waits for its client.
                    let questions = all
                        .upgrade()
                        .and_then(|all| look(&all, call, round, Exchange::forget_questions));
                    drop(questions);
                    late.await;
                }
            }
            let late = all.upgrade().and_then(|all| take(&all, call, round));
            if let Some(late) = late {
                tracing::debug!(key.id = %late.key(), "a call was asked for and not answered in time");
            }
        });
        let entry = Entry {
            exchange,
            round,
            _timer: AbortOnDropHandle::new(timer),
        };
        calls.by.insert(call, entry);
        Ok(())
    }

    /// Looks at the call that waits for the answers of this round.
    pub(super) fn look<T>(
        &self,
        (call, round): ([u8; 16], u16),
        at: impl FnOnce(&mut Exchange) -> T,
    ) -> Option<T> {
        look(&self.calls, call, round, at)
    }

    /// The call that waits for the answers of this round.
    pub(super) fn take(&self, call: [u8; 16], round: u16) -> Option<Exchange> {
        take(&self.calls, call, round)
    }
}

fn look<T>(
    calls: &Mutex<Calls>,
    call: [u8; 16],
    round: u16,
    at: impl FnOnce(&mut Exchange) -> T,
) -> Option<T> {
    let mut calls = lock(calls);
    let entry = calls.by.get_mut(&call)?;
    (entry.round == round).then(|| at(&mut entry.exchange))
}

fn take(calls: &Mutex<Calls>, call: [u8; 16], round: u16) -> Option<Exchange> {
    let mut calls = lock(calls);
    if calls.by.get(&call)?.round != round {
        return None;
    }
    let entry = calls.by.remove(&call)?;
    let key = entry.exchange.key();
    if let Some(own) = calls.of.get_mut(key) {
        *own -= 1;
        if *own == 0 {
            calls.of.remove(key);
        }
    }
    Some(entry.exchange)
}

fn lock(calls: &Mutex<Calls>) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}
