//! What a start does with files: off the runtime's workers, and only on a part of the other threads.
//!
//! A file on a dead network disk holds its thread for as long as that is dead, also when the caller
//! has gone. Without a bound, starts that are tried again and again would take every thread there
//! is, and the kill switch would find none.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::domain::limits::{START_WORK_MAX, START_WORK_WAIT};

static THREADS: Semaphore = Semaphore::const_new(START_WORK_MAX);

/// Does `work` on one of the threads for it.
///
/// # Errors
/// No thread came free in time, or the work panicked: in words.
pub(super) async fn start_work<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    on(&THREADS, START_WORK_WAIT, work).await
}

async fn on<T: Send + 'static>(
    threads: &'static Semaphore,
    wait: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let turn = timeout(wait, threads.acquire()).await;
    // Never closed.
    let turn = turn.ok().and_then(Result::ok).ok_or_else(|| {
        "too many starts hang on files of theirs; is a disk with programs or homes dead?".to_owned()
    })?;
    // The thread keeps the turn as long as it takes, also if we are gone.
    let done = spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    done.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// 512 starts hung on a pipe in a home, and no kill switch took effect any more.
    #[tokio::test]
    async fn starts_that_hang_leave_threads_to_others() {
        static TWO: Semaphore = Semaphore::const_new(2);
        let mut held = Vec::new();
        for left in [1, 0] {
            let (release, hang) = mpsc::channel::<()>();
            held.push(release);
            let hung = tokio::spawn(on(&TWO, START_WORK_WAIT, move || hang.recv().is_err()));
            while TWO.available_permits() > left {
                tokio::task::yield_now().await;
            }
            // The caller goes; the thread stays.
            hung.abort();
        }
        let refused = on(&TWO, Duration::from_millis(1), || ()).await.unwrap_err();
        assert!(refused.contains("hang on files"), "{refused}");
        assert_eq!(spawn_blocking(|| 7).await.unwrap(), 7);
        drop(held);
        assert_eq!(on(&TWO, START_WORK_WAIT, || 7).await, Ok(7));
    }
}
