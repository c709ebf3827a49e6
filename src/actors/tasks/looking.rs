//! A task whose server says how it stands only when it is asked: whoever works on it asks now and then, and at once if
//! somebody wants to know.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::Task;

/// Who wants to know, and how often its server was asked.
#[derive(Debug)]
pub(super) struct Look {
    wanted: Notify,
    done: watch::Sender<u64>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            wanted: Notify::new(),
            done: watch::Sender::new(0),
        }
    }
}

impl Task {
    /// Has its server asked, and waits until it was, or the task has ended.
    pub(in crate::actors) async fn look_soon(&self, wait: Duration) {
        let mut done = self.look.done.subscribe();
        self.look.wanted.notify_one();
        let over = self.over();
        let looked = async {
            tokio::select! {
                _ = done.changed() => {}
                () = over => {}
            }
        };
        // How it stood before is true still, as far as is known.
        let _ = timeout(wait, looked).await;
    }

    /// Waits until somebody wants to know how it stands.
    pub(in crate::actors) async fn wanted(&self) {
        self.look.wanted.notified().await;
    }

    /// Its server was asked, and it has not ended.
    pub(in crate::actors) fn looked(&self) {
        self.look.done.send_modify(|times| *times += 1);
    }
}
