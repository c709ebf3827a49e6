//! The task that watches over one run: reads what its init tells, ends it when a part of it was killed for memory, and reaps.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sandbox::status::Decoder;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::sleep;

use super::Run;

/// On v1 the word that memory ran out comes before the kill is counted: when to look.
const OOM_LOOKS: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(20),
    Duration::from_millis(100),
    Duration::from_millis(500),
];

/// The init's pidfd in the reactor; the run stays alive as long as it is there.
#[derive(Debug)]
pub(super) struct Pidfd(pub(super) Arc<Run>);

impl AsRawFd for Pidfd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.process.as_fd().as_raw_fd()
    }
}

/// Reads what init tells, ends the isolate when a part of it was killed for memory, and reaps.
pub(super) struct Warden {
    run: Arc<Run>,
    pidfd: AsyncFd<Pidfd>,
    /// Until its end was read.
    status: Option<pipe::Receiver>,
    events: Option<AsyncFd<OwnedFd>>,
    /// Which of [`OOM_LOOKS`] comes next.
    look: Option<usize>,
    decoder: Decoder,
}

impl Warden {
    pub(super) fn new(
        run: Arc<Run>,
        pidfd: AsyncFd<Pidfd>,
        status: pipe::Receiver,
        events: Option<AsyncFd<OwnedFd>>,
    ) -> Self {
        Self {
            run,
            pidfd,
            status: Some(status),
            events,
            look: None,
            decoder: Decoder::default(),
        }
    }

    pub(super) async fn watch(mut self) {
        let end = loop {
            tokio::select! {
                biased;
                () = readable(self.status.as_ref()) => self.read_status(),
                ready = self.pidfd.readable() => {
                    if let Ok(mut ready) = ready {
                        ready.clear_ready();
                    }
                    match self.run.process.try_reap() {
                        Ok(None) => {}
                        Ok(end) => break end,
                        // Nobody else reaps; but if it is not our child any more, it is over.
                        Err(_) => break None,
                    }
                }
                () = due(self.look) => self.look_for_oom(),
                () = happened(self.events.as_ref()) => self.look = Some(0),
            }
        };
        self.read_status();
        self.run.dying.over();
        self.run.stage.send_modify(|stage| stage.reaped(end));
        let run = Arc::clone(&self.run);
        // The descriptors are of no more use, even if the scope is kept for long.
        drop(self);
        if run.abandoned.load(Ordering::SeqCst) {
            run.end_abandoned().await;
        }
    }

    fn read_status(&mut self) {
        let Some(status) = &self.status else { return };
        let mut bytes = [0; 1024];
        loop {
            match status.try_read(&mut bytes) {
                Ok(0) => break,
                Ok(n) => {
                    for record in self.decoder.feed(bytes.get(..n).unwrap_or_default()) {
                        self.run.stage.send_modify(|stage| stage.told(record));
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        self.status = None;
    }

    /// v1 has no `memory.oom.group`: a server that lost a child would limp on. The event may as well
    /// have been another isolate's, at the user's limit: then there is nothing to see here.
    fn look_for_oom(&mut self) {
        let killed = self.run.leaf().as_ref().is_some_and(|l| l.oom().is_some());
        if killed {
            self.run.kill();
            self.events = None;
        }
        self.look = self
            .look
            .map(|look| look + 1)
            .filter(|look| !killed && *look < OOM_LOOKS.len());
    }
}

/// Waits until the next look for a kill is due; for ever if none is.
async fn due(look: Option<usize>) {
    match look.and_then(|look| OOM_LOOKS.get(look)) {
        Some(pause) => sleep(*pause).await,
        None => std::future::pending().await,
    }
}

/// Waits for the status pipe; for ever once it has ended.
async fn readable(status: Option<&pipe::Receiver>) {
    match status {
        Some(status) => {
            let _ = status.readable().await;
        }
        None => std::future::pending().await,
    }
}

/// Waits for an event of the memory controller; for ever where there are none.
async fn happened(events: Option<&AsyncFd<OwnedFd>>) {
    match events {
        Some(events) => {
            if let Ok(mut ready) = events.readable().await {
                // An eventfd is edge-triggered here: its count need not be read.
                ready.clear_ready();
            }
        }
        None => std::future::pending().await,
    }
}
