//! The calls in flight on a run, for those who look for some of them: to count, to list, to cut off.

use tokio::sync::oneshot;

use crate::domain::ids::CallId;
use crate::protocol::envelope;

use super::super::calls::{Tag, Why};
use super::{Cut, Handle, Role, Told, Waiter};

/// What a server hears when a call is cut off.
const BY_ADMIN: &str = "cancelled by an administrator";

impl Waiter {
    /// Whether its server is told by cancelling the request: who waited for a task cancels that, and is answered.
    fn is_call(&self) -> bool {
        !matches!(&self.role, Role::Call(tag) if tag.task)
    }
}

impl Handle {
    /// A request provably was not taken by the server: whoever waits may try the next run.
    pub(in crate::actors) fn unsend(&self, id: u64) {
        // Without a word, which says just that.
        drop(self.pending.take(id));
    }

    /// The same, and it was the server that refused it.
    pub(in crate::actors) fn refuse(&self, id: u64) {
        if let Some(waiter) = self.pending.take(id) {
            // Whoever waited is gone.
            let _ = waiter.tell.send(Err(Cut::Refused));
        }
    }

    /// Cuts off the calls that are meant, and tells the server to stop working on them. Gives how
    /// many there were.
    pub(in crate::actors) fn cancel_where(&self, meant: impl Fn(&Tag) -> bool, why: &Why) -> usize {
        let of_call = |waiter: &Waiter| matches!(&waiter.role, Role::Call(tag) if meant(tag));
        let hit = self.pending.take_where(of_call);
        let count = hit.len();
        for (id, waiter) in hit {
            let is_call = waiter.is_call();
            let _ = waiter.tell.send(Err(Cut::Cancelled(why.clone())));
            // The reason is for people; the server is told no more than it must know.
            if is_call {
                self.post(envelope::cancelled(id, BY_ADMIN));
            }
        }
        count
    }

    /// Cuts off one call and tells the server. What comes back resolves when the server answers
    /// all the same; it breaks off if the call had never reached the server.
    pub(in crate::actors) fn cancel_one(
        &self,
        call: &CallId,
        why: &Why,
    ) -> Option<oneshot::Receiver<Told>> {
        let (tell, answered) = oneshot::channel();
        let of_call =
            |waiter: &Waiter| matches!(&waiter.role, Role::Call(tag) if tag.call == *call);
        let watch = Waiter {
            tell,
            role: Role::Watch,
        };
        let (id, waiter) = self.pending.swap(of_call, watch)?;
        let is_call = waiter.is_call();
        let _ = waiter.tell.send(Err(Cut::Cancelled(why.clone())));
        if is_call {
            self.post(envelope::cancelled(id, BY_ADMIN));
        }
        Some(answered)
    }

    /// Nobody waits any more for what [`Handle::cancel_one`] watches.
    pub(in crate::actors) fn unwatch(&self) {
        self.pending
            .take_where(|waiter| waiter.tell.is_closed() && matches!(waiter.role, Role::Watch));
    }

    /// The calls in flight.
    #[must_use]
    pub fn tags(&self) -> Vec<Tag> {
        self.pending.see(|waiter| match &waiter.role {
            Role::Call(tag) => Some(tag.clone()),
            Role::Ours | Role::Watch => None,
        })
    }

    /// How many calls in flight are meant.
    #[must_use]
    pub fn count(&self, meant: impl Fn(&Tag) -> bool) -> usize {
        let of_call = |waiter: &Waiter| matches!(&waiter.role, Role::Call(tag) if meant(tag));
        self.pending
            .see(|waiter| of_call(waiter).then_some(()))
            .len()
    }
}
