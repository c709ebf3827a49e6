//! The warden waits for whatever ends a run, and ends it: for its callers first.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::domain::limits::{HALF_CLOSED_MAX, KILL_WAIT, LAST_WORDS, STOP_STDIN, STOP_TERM};
use crate::domain::verdict::Verdict;

use super::super::launcher::{BoxFuture, Exit, Scope};
use super::super::slot::{Occupant, Order, Slot};
use super::end_for_callers;

/// What the warden watches over.
pub(super) struct Warden {
    pub(super) slot: Arc<Slot>,
    pub(super) occupant: Occupant,
    pub(super) scope: Arc<dyn Scope>,
    pub(super) writer: AbortHandle,
    pub(super) stdout_ended: oneshot::Receiver<()>,
    pub(super) stderr_ended: oneshot::Receiver<()>,
    pub(super) stop_within: Duration,
}

enum Cause {
    Exit(Exit),
    StdoutEnded,
    Ordered(Order),
}

impl Warden {
    /// Returns when the server process has ended and its callers are told.
    pub(super) async fn guard(mut self, mut exit: BoxFuture<'static, Exit>) {
        let mut orders = self.occupant.orders.subscribe();
        let cause = tokio::select! {
            biased;
            exit = &mut exit => Cause::Exit(exit),
            order = next_order(&mut orders) => Cause::Ordered(order),
            _ = &mut self.stdout_ended => Cause::StdoutEnded,
        };
        match cause {
            Cause::Exit(exit) => Box::pin(self.died(exit)).await,
            Cause::StdoutEnded => Box::pin(self.half_closed(exit)).await,
            // Boxed, like what a run's end takes: all of its life the task would be as large.
            Cause::Ordered(Order::Stop(verdict)) => {
                Box::pin(self.stop(verdict, exit, orders)).await;
            }
            Cause::Ordered(Order::Fault(verdict) | Order::Kill(verdict)) => {
                self.end(verdict);
                self.scope.kill();
                self.wait_dead(exit).await;
            }
            Cause::Ordered(Order::Run) => {}
        }
    }

    /// The server ended by itself: what it still wrote counts, then all who wait are told.
    async fn died(&mut self, exit: Exit) {
        // A descendant may hold stdout open and the cgroup occupied.
        self.scope.kill();
        let pipes = async {
            let _ = (&mut self.stdout_ended).await;
            let _ = (&mut self.stderr_ended).await;
        };
        let _ = timeout(LAST_WORDS, pipes).await;
        let verdict = self.verdict(exit);
        self.end(verdict);
    }

    /// stdout ended first: usually the exit is on its way.
    async fn half_closed(&mut self, mut exit: BoxFuture<'static, Exit>) {
        if let Ok(exit) = timeout(HALF_CLOSED_MAX, &mut exit).await {
            self.scope.kill();
            let _ = timeout(LAST_WORDS, &mut self.stderr_ended).await;
            let verdict = self.verdict(exit);
            self.end(verdict);
            return;
        }
        self.end(Verdict::Protocol {
            detail: "it closed stdout and lived on".to_owned(),
        });
        self.scope.kill();
        self.wait_dead(exit).await;
    }

    /// The stop ladder: calls inside finish, stdin closes, SIGTERM, the kill.
    async fn stop(
        &mut self,
        verdict: Verdict,
        mut exit: BoxFuture<'static, Exit>,
        mut orders: tokio::sync::watch::Receiver<Order>,
    ) {
        self.occupant.handle.drain();
        let handle = Arc::clone(&self.occupant.handle);
        let patience = if verdict == Verdict::Shutdown {
            STOP_STDIN
        } else {
            self.stop_within
        };
        let empty = async {
            while handle.in_flight() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let first = Order::Stop(verdict.clone());
        let graver = async {
            let order = orders
                .wait_for(|order| *order != Order::Run && *order != first)
                .await;
            order.map_or(Order::Kill(Verdict::Shutdown), |order| order.clone())
        };
        tokio::select! {
            biased;
            _ = &mut exit => {
                self.end(verdict);
                self.scope.kill();
                return;
            }
            graver = graver => {
                if let Order::Fault(graver) | Order::Kill(graver) = graver {
                    self.end(graver);
                    self.scope.kill();
                    self.wait_dead(exit).await;
                    return;
                }
                // The whole server stops: no more patience for the calls inside.
            }
            _ = timeout(patience, empty) => {}
        }
        self.end(verdict);
        self.writer.abort();
        if timeout(STOP_STDIN, &mut exit).await.is_err() {
            self.scope.terminate();
            if timeout(STOP_TERM, &mut exit).await.is_err() {
                self.scope.kill();
                self.wait_dead(exit).await;
                return;
            }
        }
        self.scope.kill();
    }

    async fn wait_dead(&self, exit: BoxFuture<'static, Exit>) {
        // Whoever outlives this is the reaping barrier's business.
        let _ = timeout(KILL_WAIT, exit).await;
    }

    fn end(&self, verdict: Verdict) {
        end_for_callers(&self.slot, &self.occupant, verdict);
    }

    fn verdict(&self, exit: Exit) -> Verdict {
        // An order given in the same moment explains the exit better than the exit itself.
        if let Order::Kill(verdict) | Order::Fault(verdict) = &*self.occupant.orders.borrow() {
            return verdict.clone();
        }
        match (exit, self.scope.oom()) {
            (Exit::Over(verdict), _) => verdict,
            (Exit::NotStarted { step, detail }, _) => Verdict::NotStarted { step, detail },
            (Exit::Code(0), _) => Verdict::Exited { code: 0 },
            (_, Some(scope)) => Verdict::OutOfMemory {
                scope,
                limit_bytes: self.slot.limit_of(scope),
            },
            (Exit::Code(code), None) => Verdict::Exited { code },
            (Exit::Signal(signal), None) => Verdict::Signaled { signal },
        }
    }
}

async fn next_order(orders: &mut tokio::sync::watch::Receiver<Order>) -> Order {
    let order = orders.wait_for(|order| *order != Order::Run).await;
    order.map_or(Order::Kill(Verdict::Shutdown), |order| order.clone())
}
