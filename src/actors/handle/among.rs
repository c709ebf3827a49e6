//! Work that is a call's, though its server is asked nothing meanwhile: the pause between two looks at a task. It is
//! in the pending table, so it is found by whoever lists calls, cuts them off, or looks whether a run is in use.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::super::calls::Tag;
use super::entry::{Entry, EntryState};
use super::{CallError, Cut, Handle, Role, Waiter, answer};

impl Handle {
    /// Does `work` as a call that is in flight. `allowed` is asked once it can be found here.
    ///
    /// # Errors
    /// Why a call would have been cut off meanwhile.
    pub(in crate::actors) async fn among_calls<T>(
        self: &Arc<Self>,
        tag: Tag,
        work: impl Future<Output = T>,
        allowed: impl FnOnce() -> bool,
    ) -> Result<T, CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (tell, mut told) = oneshot::channel();
        let role = Role::Call(tag);
        if let Err(end) = self.pending.insert(id, Waiter { tell, role }) {
            return Err(CallError::Ended(end));
        }
        // Nothing was written for it, so its server is told nothing of its end.
        let _entry = Entry {
            handle: self,
            id,
            state: EntryState::Registered,
        };
        if !allowed() {
            return Err(CallError::NotSent);
        }
        let done = tokio::select! {
            biased;
            cut = &mut told => match answer(cut) {
                Err(error) => Err(error),
                // Nobody asked, so nobody answers.
                Ok(_) => Err(CallError::NotSent),
            },
            done = work => Ok(done),
        };
        if let Err(CallError::Cancelled(why)) = &done
            && let Some(watch) = self.pending.take(id)
        {
            // Whoever cancelled it need not wait for a server that was asked nothing.
            let _ = watch.tell.send(Err(Cut::Cancelled(why.clone())));
        }
        self.used_ms.store(self.now_ms(), Ordering::Relaxed);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::super::super::calls::Why;
    use super::super::{Asking, RunEnd};
    use super::*;
    use crate::domain::verdict::Verdict;

    fn tag() -> Tag {
        Tag {
            task: true,
            ..Tag::for_tests([7; crate::domain::ids::ID_BYTES])
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_found_and_cut_off_like_a_call_and_its_server_hears_nothing() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let pause = || {
            let handle = Arc::clone(&handle);
            let pause = sleep(Duration::from_secs(60));
            tokio::spawn(async move { handle.among_calls(tag(), pause, || true).await })
        };
        let whole = pause();
        tokio::task::yield_now().await;
        assert_eq!((handle.in_flight(), handle.tags().len()), (1, 1));
        assert!(!handle.drain_if_idle());
        whole.await.unwrap().unwrap();
        assert_eq!((handle.in_flight(), handle.unused_ms()), (0, 0));

        let cut = pause();
        tokio::task::yield_now().await;
        let why = Why::Asked("enough".into());
        let answered = handle.cancel_one(&tag().call, &why).unwrap();
        assert_eq!(cut.await.unwrap(), Err(CallError::Cancelled(why.clone())));
        assert_eq!(
            answered.await.unwrap().unwrap_err(),
            Cut::Cancelled(why.clone())
        );
        assert_eq!(handle.in_flight(), 0);

        let denied = handle.among_calls(tag(), sleep(Duration::from_secs(60)), || false);
        assert_eq!(denied.await, Err(CallError::NotSent));

        let ended = pause();
        tokio::task::yield_now().await;
        let end = Arc::new(RunEnd {
            verdict: Verdict::Exited { code: 1 },
            last_stderr: None,
        });
        handle.end(&end);
        assert_eq!(ended.await.unwrap(), Err(CallError::Ended(end)));
        assert!(frames.try_recv().is_err());
    }
}
