//! On which directories a client works. Servers ask when they begin, which is before anybody calls: the question
//! waits a moment for the call that they were started for. If none comes, or it is over first, they get what was
//! said last, or nothing yet, and are told to ask again when somebody can say.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::domain::limits::{ROOTS_BYTES_MAX, ROOTS_WAIT};
use crate::domain::talk::Question;
use crate::protocol::envelope;

use super::super::calls::{News, Tag};
use super::super::sync::Mutex;
use super::questions::Caller;
use super::{Asked, Handle};

/// What a run knows of roots.
#[derive(Debug, Default)]
pub(super) struct Roots {
    /// The last that a client said.
    known: Mutex<Option<Bytes>>,
    /// A question that waits for somebody.
    parked: Mutex<Option<Box<Asked>>>,
    /// The server got nothing, for want of somebody.
    owed: AtomicBool,
}

impl Roots {
    pub(super) fn learn(&self, result: &[u8]) {
        if result.len() <= ROOTS_BYTES_MAX {
            *self.known.lock() = Some(Bytes::copy_from_slice(result));
        }
    }

    pub(super) fn known_or_owed(&self) -> Bytes {
        self.known.lock().clone().unwrap_or_else(|| {
            self.owed.store(true, Ordering::Relaxed);
            Bytes::from_static(b"{\"roots\":[]}")
        })
    }
}

impl Handle {
    /// The caller of this call, if it can say more of roots than is known.
    pub(super) fn hears_roots(&self, tag: &Tag) -> Option<(Caller, bool)> {
        let news = tag.news.clone().filter(|_| !tag.task)?;
        let asking = &self.asking;
        let caller = Caller {
            news,
            until: tag.until,
            what: None,
            turn: None,
        };
        asking
            .declared
            .has(Question::Roots)
            .then_some((caller, tag.late))
    }

    /// A call is on its way whose caller can be asked.
    pub(super) fn ask_roots(&self, (caller, late): (Caller, bool)) {
        let roots = &self.asking.roots;
        if let Some(mut asked) = roots.parked.lock().take() {
            asked.until = caller.until;
            let _ = caller.news.try_send(News::Asked(asked));
        } else if late && roots.owed.swap(false, Ordering::Relaxed) {
            self.tell_roots_changed();
        }
    }

    /// Nobody can be asked now.
    pub(super) fn park(self: &Arc<Self>, asked: Asked) {
        let roots = &self.asking.roots;
        // One that is known, and all but one that wait, are answered as they go.
        if roots.known.lock().is_some() {
            return;
        }
        let before = roots.parked.lock().replace(Box::new(asked));
        if before.is_some() {
            return;
        }
        let handle = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(ROOTS_WAIT).await;
            if let Some(handle) = handle.upgrade() {
                let late = handle.asking.roots.parked.lock().take();
                drop(late);
            }
        });
    }

    /// A client works on other directories than before.
    pub(in crate::actors) fn roots_changed(&self) {
        if self.asking.declared.has(Question::Roots) {
            *self.asking.roots.known.lock() = None;
            self.tell_roots_changed();
        }
    }

    fn tell_roots_changed(&self) {
        self.post(envelope::notification(
            "notifications/roots/list_changed",
            b"{}",
        ));
    }
}
