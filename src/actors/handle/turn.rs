//! A call's turn to be asked for ([`super::Askers`]): from when it is sent until it has ended, but for the time that
//! its questions are out with its client. Somebody who never answers would keep everybody waiting.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::domain::limits::{TURN_BACK_MAX, TURN_GRACE};

use super::super::sync::Mutex;

/// Shared by the call and by what is asked for it.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Semaphore>,
    state: Mutex<State>,
    /// One at a time waits to have it back.
    waiting: tokio::sync::Mutex<()>,
    over: CancellationToken,
}

#[derive(Debug)]
struct State {
    permit: Option<OwnedSemaphorePermit>,
    /// Questions that are out.
    out: usize,
    /// Counts what happens to them.
    changes: u64,
    /// It goes on without its turn, which did not come back in time.
    is_overtaken: bool,
}

/// The call's own hold: it is over with the call.
#[derive(Debug)]
pub struct InTurn(Arc<Turn>);

impl InTurn {
    pub(super) fn new(turns: Arc<Semaphore>, permit: OwnedSemaphorePermit) -> Self {
        let state = State {
            permit: Some(permit),
            out: 0,
            changes: 0,
            is_overtaken: false,
        };
        Self(Arc::new(Turn {
            turns,
            state: Mutex::new(state),
            waiting: tokio::sync::Mutex::default(),
            over: CancellationToken::new(),
        }))
    }

    /// What the call's tag has of it.
    #[must_use]
    pub fn turn(&self) -> Arc<Turn> {
        Arc::clone(&self.0)
    }
}

impl Drop for InTurn {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        self.0.over.cancel();
        state.permit = None;
    }
}

impl Turn {
    /// Whether what is asked now is asked for its call.
    pub(super) fn is_held(&self) -> bool {
        self.state.lock().permit.is_some()
    }

    /// Whether its call goes on without it: what is asked then may be asked for it.
    pub(super) fn is_overtaken(&self) -> bool {
        self.state.lock().is_overtaken
    }

    /// A question goes out. Others that the server asks at once belong to it; then others may have the turn.
    pub(super) fn goes_out(self: &Arc<Self>) {
        let mut state = self.state.lock();
        state.out += 1;
        self.lend(&mut state);
    }

    /// An answer comes in: the server goes on, so the call has the turn first, if it still is under way. It does not
    /// wait for long: who has the turn may wait for this very call.
    pub(super) async fn comes_in(self: &Arc<Self>, until: Instant) {
        let until = until.min(Instant::now() + TURN_BACK_MAX);
        let is_late = timeout_at(until, self.back()).await.is_err();
        let mut state = self.state.lock();
        state.is_overtaken = is_late;
        state.out = state.out.saturating_sub(1);
        self.lend(&mut state);
    }

    async fn back(&self) {
        let _one = self.waiting.lock().await;
        if self.is_held() {
            return;
        }
        let permit = tokio::select! {
            biased;
            () = self.over.cancelled() => return,
            permit = Arc::clone(&self.turns).acquire_owned() => permit.ok(),
        };
        let mut state = self.state.lock();
        if !self.over.is_cancelled() {
            state.permit = permit;
        }
    }

    /// Gives it away in a moment, if something is out then that is out now.
    fn lend(self: &Arc<Self>, state: &mut State) {
        state.changes += 1;
        if state.out == 0 {
            return;
        }
        let (turn, changes) = (Arc::downgrade(self), state.changes);
        tokio::spawn(async move {
            tokio::time::sleep(TURN_GRACE).await;
            if let Some(turn) = turn.upgrade() {
                let mut state = turn.state.lock();
                if state.changes == changes {
                    state.permit = None;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn begin(turns: &Arc<Semaphore>) -> InTurn {
        let permit = Arc::clone(turns).acquire_owned().await.unwrap();
        InTurn::new(Arc::clone(turns), permit)
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_not_answered_keeps_nobody_waiting() {
        let turns = Arc::new(Semaphore::new(1));
        let until = Instant::now() + Duration::from_secs(60);
        let first = begin(&turns).await;
        first.turn().goes_out();
        assert!(
            first.turn().is_held(),
            "what is asked at once is the same call's"
        );
        let second = begin(&turns).await;
        assert!(!first.turn().is_held() && second.turn().is_held());
        // Its answer waits for the other's end, and it has the turn before its server goes on.
        let turn = first.turn();
        let answered = tokio::spawn(async move { turn.comes_in(until).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!answered.is_finished());
        drop(second);
        answered.await.unwrap();
        assert!(first.turn().is_held());
        drop(first);
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_does_not_wait_for_who_may_wait_for_it() {
        let turns = Arc::new(Semaphore::new(1));
        let until = Instant::now() + Duration::from_secs(600);
        let first = begin(&turns).await;
        first.turn().goes_out();
        let second = begin(&turns).await;
        first.turn().comes_in(until).await;
        assert!(first.turn().is_overtaken() && !first.turn().is_held());
        drop(second);
        first.turn().goes_out();
        first.turn().comes_in(until).await;
        assert!(first.turn().is_held() && !first.turn().is_overtaken());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_over_takes_no_turn_for_a_late_answer() {
        let turns = Arc::new(Semaphore::new(1));
        let first = begin(&turns).await;
        let turn = first.turn();
        turn.goes_out();
        drop(first);
        turn.comes_in(Instant::now() + Duration::from_secs(60))
            .await;
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_answered_soon_keeps_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let until = Instant::now() + Duration::from_secs(60);
        let first = begin(&turns).await;
        let turn = first.turn();
        turn.goes_out();
        turn.goes_out();
        turn.comes_in(until).await;
        turn.comes_in(until).await;
        tokio::time::sleep(TURN_GRACE * 4).await;
        assert!(turn.is_held());
    }
}
