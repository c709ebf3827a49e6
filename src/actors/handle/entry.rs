//! A call's place in the pending table.

use crate::protocol::envelope;

use super::Handle;

/// How far its line came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryState {
    Registered,
    Queued,
    Answered,
}

/// One registered call. However its caller goes, the entry goes, and the server hears of it.
pub(super) struct Entry<'a> {
    pub(super) handle: &'a Handle,
    pub(super) id: u64,
    pub(super) state: EntryState,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if self.state == EntryState::Answered {
            return;
        }
        let waited = self.handle.pending.take(self.id).is_some();
        if waited && self.state == EntryState::Queued {
            self.handle
                .post(envelope::cancelled(self.id, "the caller no longer waits"));
        }
    }
}
