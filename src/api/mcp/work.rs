//! The work of one request. It begins in its request's own task, since most of it is done there in a moment, and goes
//! on in one of its own once somebody may be slow to take what is told of it, or has gone.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use futures_util::future::{AbortRegistration, Abortable, BoxFuture};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::job::{Ended, Job};

/// A request's work, and who does it.
pub(super) struct Work {
    doer: Doer,
    /// Whether who lets go of the request cancels it.
    cancels: bool,
    /// Says that it has ended.
    pub(super) done: CancellationToken,
}

/// `None`: it was cancelled, or broke off.
enum Doer {
    /// Whoever waits for it.
    Waiter(BoxFuture<'static, Option<Ended>>),
    /// A task of its own.
    Task(JoinHandle<Option<Ended>>),
    /// Nobody any more.
    Nobody,
}

impl Work {
    /// Work that ends early with `abort`.
    pub(super) fn new(
        job: Job,
        abort: AbortRegistration,
        cancels: bool,
        done: CancellationToken,
    ) -> Self {
        let whole = AssertUnwindSafe(Abortable::new(job.done(), abort)).catch_unwind();
        let work = whole.map(|ended| ended.ok().and_then(Result::ok));
        Self {
            doer: Doer::Waiter(work.boxed()),
            cancels,
            done,
        }
    }

    /// What it ended with, once; `None` if it was cancelled. Nothing is lost if that is not waited for.
    pub(super) async fn ended(&mut self) -> Option<Ended> {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Ended>> {
        let ended = match &mut self.doer {
            Doer::Waiter(work) => ready!(work.as_mut().poll(context)),
            Doer::Task(task) => ready!(Pin::new(task).poll(context)).unwrap_or_default(),
            Doer::Nobody => None,
        };
        self.doer = Doer::Nobody;
        Poll::Ready(ended)
    }

    /// Lets it go on whether somebody waits for it or not.
    pub(super) fn set_apart(&mut self) {
        self.doer = match std::mem::replace(&mut self.doer, Doer::Nobody) {
            Doer::Waiter(work) => Doer::Task(tokio::spawn(work)),
            other => other,
        };
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.doer, Doer::Nobody) {
            Doer::Task(task) if self.cancels => task.abort(),
            // Its connection was lost, which is no cancellation.
            Doer::Waiter(work) if !self.cancels => {
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(work);
                }
            }
            Doer::Waiter(_) | Doer::Task(_) | Doer::Nobody => {}
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let doer = match self.doer {
            Doer::Waiter(_) => "waiter",
            Doer::Task(_) => "task",
            Doer::Nobody => "nobody",
        };
        f.debug_struct("Work")
            .field("doer", &doer)
            .field("cancels", &self.cancels)
            .finish_non_exhaustive()
    }
}
