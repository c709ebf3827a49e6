//! A connection's pulse: what its guard needs to know to tell a slow client from a working one.
//!
//! hyper has a timer for request headers, but it arms and drops one timer per request, closes
//! idle connections by the same figure, and nothing bounds a client that never reads its answer.
//! Here a request costs a few plain stores, and one timer per connection looks at them a few times
//! per bound.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Bounds;
use crate::domain::limits::CROWDED_IDLE_MAX;

/// Written by the connection's own task, read by its guard in the same task: relaxed is enough.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// A request is being served.
    busy: AtomicBool,
    /// Requests begun.
    requests: AtomicU32,
    /// Bytes came in since the last answer.
    read: AtomicBool,
    /// Bytes went out since the guard last looked.
    wrote: AtomicBool,
    /// Bytes are waiting to go out, and the client does not take them.
    stalled: AtomicBool,
}

/// While it lives, a request is being served.
#[derive(Debug)]
#[must_use]
pub(super) struct Serving(Arc<Pulse>);

/// Why a connection is waiting for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// A request's headers are on their way (or its first byte, on a new connection).
    Headers,
    /// The next request, or the client taking an answer.
    Idle,
}

/// Looks at a pulse now and then and says when a bound was exceeded.
#[derive(Debug)]
pub(super) struct Guard {
    headers: Duration,
    idle: Duration,
    since: Instant,
    last: Option<(Waiting, u32)>,
}

/// A stream whose traffic is felt in its pulse.
#[derive(Debug)]
pub(super) struct Watched<I> {
    inner: I,
    pulse: Arc<Pulse>,
}

// === impl Serving ===

impl Serving {
    pub(super) fn begin(pulse: &Arc<Pulse>) -> Self {
        pulse.busy.store(true, Ordering::Relaxed);
        let begun = pulse.requests.load(Ordering::Relaxed).wrapping_add(1);
        pulse.requests.store(begun, Ordering::Relaxed);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.read.store(false, Ordering::Relaxed);
        self.0.busy.store(false, Ordering::Relaxed);
    }
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(bounds: &Bounds, now: Instant) -> Self {
        let (headers, idle) = (bounds.header_read, bounds.idle);
        Self {
            headers,
            idle,
            since: now,
            last: Some((Waiting::Headers, 0)),
        }
    }

    /// How often to look: a bound is exceeded by at most this much.
    pub(super) fn tick(&self) -> Duration {
        self.headers.min(self.idle) / 3
    }

    /// Whether the client has kept the connection waiting for too long.
    pub(super) fn is_overdue(&mut self, pulse: &Pulse, now: Instant, crowded: bool) -> bool {
        let requests = pulse.requests.load(Ordering::Relaxed);
        let wrote = pulse.wrote.swap(false, Ordering::Relaxed);
        let busy = pulse.busy.load(Ordering::Relaxed);
        if busy && !pulse.stalled.load(Ordering::Relaxed) {
            self.last = None;
            return false;
        }
        let waiting = if !busy && (requests == 0 || pulse.read.load(Ordering::Relaxed)) {
            Waiting::Headers
        } else {
            Waiting::Idle
        };
        let moving = wrote && waiting == Waiting::Idle;
        if moving || self.last != Some((waiting, requests)) {
            self.last = Some((waiting, requests));
            self.since = now;
            return false;
        }
        let bound = match waiting {
            // Nor must who never begins.
            Waiting::Headers if crowded => self.headers.min(CROWDED_IDLE_MAX),
            Waiting::Headers => self.headers,
            // Who only holds a connection must not keep others out.
            Waiting::Idle if crowded => self.idle.min(CROWDED_IDLE_MAX),
            Waiting::Idle => self.idle,
        };
        now.duration_since(self.since) >= bound
    }
}

// === impl Watched ===

impl<I> Watched<I> {
    pub(super) fn new(inner: I, pulse: Arc<Pulse>) -> Self {
        Self { inner, pulse }
    }

    fn wrote(&self, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &done {
            Poll::Ready(Ok(1..)) => {
                self.pulse.wrote.store(true, Ordering::Relaxed);
                self.pulse.stalled.store(false, Ordering::Relaxed);
            }
            Poll::Pending => self.pulse.stalled.store(true, Ordering::Relaxed),
            Poll::Ready(_) => {}
        }
        done
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.pulse.read.store(true, Ordering::Relaxed);
        }
        done
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.wrote(done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(now: Instant) -> Guard {
        let bounds = Bounds {
            header_read: Duration::from_secs(15),
            idle: Duration::from_secs(75),
            ..Bounds::default()
        };
        Guard::new(&bounds, now)
    }

    /// Looks every tick for `seconds` and says after how many the guard gave up.
    fn gives_up(guard: &mut Guard, pulse: &Pulse, from: Instant, seconds: u64) -> Option<u64> {
        (1..=seconds / 5)
            .map(|tick| tick * 5)
            .find(|s| guard.is_overdue(pulse, from + Duration::from_secs(*s), false))
    }

    #[test]
    fn a_new_connection_must_ask_something() {
        let now = Instant::now();
        assert_eq!(
            gives_up(&mut guard(now), &Pulse::default(), now, 100),
            Some(15)
        );
    }

    /// Four thousand idle connections of nobody kept everybody out.
    #[test]
    fn an_idle_connection_makes_room_when_there_is_little() {
        let now = Instant::now();
        let pulse = Arc::new(Pulse::default());
        drop(Serving::begin(&pulse));
        let mut guard = guard(now);
        assert!(!guard.is_overdue(&pulse, now, true));
        assert!(!guard.is_overdue(&pulse, now + Duration::from_secs(10), false));
        assert!(guard.is_overdue(&pulse, now + Duration::from_secs(10), true));
        // One that is served is not idle, however long it takes.
        let _serving = Serving::begin(&pulse);
        assert!(!guard.is_overdue(&pulse, now + Duration::from_secs(1000), true));
    }

    /// The same by connections that asked for nothing.
    #[test]
    fn who_never_begins_makes_room_too() {
        let now = Instant::now();
        let pulse = Pulse::default();
        let mut guard = guard(now);
        assert!(!guard.is_overdue(&pulse, now, true));
        assert!(!guard.is_overdue(&pulse, now + Duration::from_secs(5), false));
        assert!(guard.is_overdue(&pulse, now + Duration::from_secs(5), true));
    }

    #[test]
    fn headers_that_trickle_do_not_extend_their_bound() {
        let now = Instant::now();
        let pulse = Pulse::default();
        pulse.read.store(true, Ordering::Relaxed);
        pulse.wrote.store(true, Ordering::Relaxed);
        assert_eq!(gives_up(&mut guard(now), &pulse, now, 100), Some(15));
    }

    #[test]
    fn an_idle_connection_lives_longer_and_a_served_request_resets_it() {
        let now = Instant::now();
        let pulse = Arc::new(Pulse::default());
        let mut guard = guard(now);
        drop(Serving::begin(&pulse));
        assert_eq!(gives_up(&mut guard, &pulse, now, 70), None);
        drop(Serving::begin(&pulse));
        let later = now + Duration::from_secs(70);
        assert_eq!(gives_up(&mut guard, &pulse, later, 500), Some(80));
    }

    #[test]
    fn a_request_in_hand_is_never_overdue_and_a_moving_answer_neither() {
        let now = Instant::now();
        let pulse = Arc::new(Pulse::default());
        let mut guard = guard(now);
        let serving = Serving::begin(&pulse);
        assert_eq!(gives_up(&mut guard, &pulse, now, 4_000), None);
        pulse.stalled.store(true, Ordering::Relaxed);
        let stream = now + Duration::from_secs(4_000);
        assert_eq!(
            gives_up(&mut guard, &pulse, stream, 500),
            Some(80),
            "a deaf client"
        );
        pulse.stalled.store(false, Ordering::Relaxed);
        drop(serving);
        for tick in 0..100 {
            pulse.wrote.store(true, Ordering::Relaxed);
            let at = now + Duration::from_secs(4_000 + tick * 5);
            assert!(!guard.is_overdue(&pulse, at, false), "{tick}");
        }
        let stalled = now + Duration::from_secs(4_495);
        assert_eq!(gives_up(&mut guard, &pulse, stalled, 500), Some(75));
    }
}
