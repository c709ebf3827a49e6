//! The line of starts: how many runs may be on their way at once, and who is next.
//!
//! Round robin over principals, so one user's twenty cold starts cost another user one place, not
//! twenty. A permit is held for a bounded time only (see `run::start`): it spreads the load of
//! starting, it is not a right to be ready.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::ids::UserId;

use super::slot::Principal;
use super::sync::Mutex;

/// Who is counted together; `None` is everything shared.
type Lane = Option<UserId>;

/// The line.
#[derive(Debug)]
pub struct StartLine(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: usize,
    order: VecDeque<Lane>,
    lanes: HashMap<Lane, VecDeque<oneshot::Sender<Permit>>>,
}

/// Leave to start one run, given back on drop.
#[derive(Debug)]
pub struct Permit(Option<Arc<Mutex<State>>>);

impl StartLine {
    /// A line that lets this many start at once.
    #[must_use]
    pub fn new(permits: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            free: permits.max(1),
            waiting: 0,
            order: VecDeque::new(),
            lanes: HashMap::new(),
        })))
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting
    }

    /// Waits for its turn. The caller bounds how many wait (`limits::START_QUEUE_MAX`).
    pub async fn acquire(&self, principal: &Principal) -> Permit {
        let turn = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return Permit(Some(Arc::clone(&self.0)));
            }
            let lane = principal.user().cloned();
            let (tell, turn) = oneshot::channel();
            let queue = state.lanes.entry(lane.clone()).or_default();
            let first = queue.is_empty();
            queue.push_back(tell);
            if first {
                state.order.push_back(lane);
            }
            state.waiting += 1;
            turn
        };
        // The line outlives those who wait in it.
        turn.await.unwrap_or(Permit(None))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(line) = self.0.take() else { return };
        let mut state = line.lock();
        while let Some(lane) = state.order.pop_front() {
            let Some(queue) = state.lanes.get_mut(&lane) else {
                continue;
            };
            let next = queue.pop_front();
            if queue.is_empty() {
                state.lanes.remove(&lane);
            } else {
                state.order.push_back(lane);
            }
            let Some(tell) = next else { continue };
            state.waiting -= 1;
            match tell.send(Permit(Some(Arc::clone(&line)))) {
                Ok(()) => return,
                // Its start was given up; the permit it did not take must not take our lock.
                Err(mut unused) => unused.0 = None,
            }
        }
        state.free += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    fn user(n: u8) -> Principal {
        Principal::User(UserId::from_random([n; ID_BYTES]))
    }

    #[tokio::test(start_paused = true)]
    async fn users_take_turns() {
        let line = Arc::new(StartLine::new(1));
        let first = line.acquire(&user(1)).await;
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut waits = Vec::new();
        for n in [1, 1, 1, 2, 3] {
            let (line, served) = (Arc::clone(&line), Arc::clone(&served));
            waits.push(tokio::spawn(async move {
                let permit = line.acquire(&user(n)).await;
                served.lock().push(n);
                drop(permit);
            }));
            tokio::task::yield_now().await;
        }
        assert_eq!(line.waiting(), 5);
        drop(first);
        for wait in waits {
            wait.await.unwrap();
        }
        assert_eq!(*served.lock(), [1, 2, 3, 1, 1]);
        assert_eq!(line.0.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_left_the_line_costs_no_permit() {
        let line = Arc::new(StartLine::new(1));
        let first = line.acquire(&user(1)).await;
        let gone = {
            let line = Arc::clone(&line);
            tokio::spawn(async move { drop(line.acquire(&user(2)).await) })
        };
        tokio::task::yield_now().await;
        gone.abort();
        let _ = gone.await;
        drop(first);
        drop(line.acquire(&user(3)).await);
        assert_eq!(line.0.lock().free, 1);
        assert_eq!(line.waiting(), 0);
    }
}
