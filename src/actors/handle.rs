//! The handle: the cheap, shared thing through which a call reaches a run.
//!
//! Gate, in-flight slots, bounded queue to the writer, pending table. It has no actor in it and
//! never waits for one: a call costs one queue and one oneshot.
//!
//! Invariants: a registered call is answered exactly once (by the server, by the run's end, by its
//! deadline or by its caller leaving); a request is written at most once; ids are ours, so two
//! clients' equal ids never meet.

mod among;
mod asked;
mod askers;
mod awaited;
mod entry;
mod era;
mod found;
mod noise;
mod ping;
mod posed;
mod questions;
mod roots;
mod tasks;
mod tells;
mod told;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::domain::limits::{CATCH_UP_MAX, QUEUE_BYTES_MAX, WRITER_QUEUE_MAX};
use crate::protocol::envelope;

use super::calls::{News, Tag};
use asked::Answered;
pub use asked::Asked;
pub use askers::Askers;
pub(super) use askers::asker;
pub(super) use awaited::Awaited;
use entry::{Entry, EntryState};
pub(super) use posed::Posed;
pub(super) use questions::Asking;
pub(super) use tasks::TaskEar;
pub(super) use tells::Voice;
use told::answer;
pub use told::{CallError, Cut, Reply, RunEnd, Told};
pub use turn::{InTurn, Turn};

use super::gate::{Gate, Position};
use super::health::Pulse;
use super::pending::Pending;

/// Who waits in the pending table.
#[derive(Debug)]
struct Waiter {
    tell: oneshot::Sender<Told>,
    role: Role,
}

#[derive(Debug)]
enum Role {
    /// A tool call.
    Call(Tag),
    /// A question of our own.
    Ours,
    /// A call was cancelled, and somebody looks whether its server answers all the same.
    Watch,
}

/// One line for the writer.
#[derive(Debug)]
pub(super) struct Frame {
    /// The call it belongs to; 0 if none.
    pub(super) id: u64,
    /// The line, with its line break.
    pub(super) line: Bytes,
}

/// The shared part of a run that callers see.
#[derive(Debug)]
pub struct Handle {
    epoch: u64,
    gate: Gate,
    slots: Semaphore,
    in_flight_max: usize,
    queue: mpsc::Sender<Frame>,
    queued_bytes: AtomicUsize,
    pending: Pending<Waiter, Arc<RunEnd>>,
    next_id: AtomicU64,
    started: Instant,
    used_ms: AtomicU64,
    heard_ms: AtomicU64,
    calls: AtomicU64,
    pulse: Pulse,
    noise: noise::Noise,
    /// Entries in `pending` that are questions on their way without the writer.
    posed: AtomicUsize,
    asking: Asking,
}

impl Handle {
    /// A handle with a shut door (draining until [`Handle::open`]), and the writer's end.
    pub(super) fn new(
        epoch: u64,
        in_flight_max: usize,
        asking: Asking,
    ) -> (Arc<Self>, mpsc::Receiver<Frame>) {
        let (queue, frames) = mpsc::channel(WRITER_QUEUE_MAX);
        let handle = Self {
            epoch,
            gate: Gate::new(Position::Draining),
            slots: Semaphore::new(in_flight_max),
            in_flight_max,
            queue,
            queued_bytes: AtomicUsize::new(0),
            pending: Pending::new(),
            next_id: AtomicU64::new(1),
            started: Instant::now(),
            used_ms: AtomicU64::new(0),
            heard_ms: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            pulse: Pulse::default(),
            noise: noise::Noise::default(),
            posed: AtomicUsize::new(0),
            asking,
        };
        (Arc::new(handle), frames)
    }

    /// Which run of its slot this is.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether a call would be let in now.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.gate.is_open()
    }

    /// Calls in flight; the question a run is started with is none.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        let posed = self.posed.load(Ordering::Relaxed);
        self.pending.len().saturating_sub(posed)
    }

    /// Calls carried so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Milliseconds since a tool call last began or ended.
    #[must_use]
    pub fn unused_ms(&self) -> u64 {
        self.now_ms()
            .saturating_sub(self.used_ms.load(Ordering::Relaxed))
    }

    /// Milliseconds since the server last wrote a line.
    #[must_use]
    pub fn unheard_ms(&self) -> u64 {
        self.now_ms()
            .saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }

    /// Carries one request of a client, whose line `line` makes for our id, to the server and its
    /// answer back.
    ///
    /// Dropping the future cancels the call: the server gets `notifications/cancelled`.
    ///
    /// `allowed` is asked again once the call can be found here: whoever takes a permission away
    /// and then looks for calls either finds this one, or this one finds that it is not allowed.
    ///
    /// # Errors
    /// [`CallError`]; at most `deadline` later.
    pub async fn call(
        self: &Arc<Self>,
        tag: Tag,
        line: impl FnOnce(u64) -> Bytes,
        deadline: Instant,
        allowed: impl FnOnce() -> bool,
    ) -> Result<Reply, CallError> {
        if !self.gate.is_open() {
            return Err(CallError::NotSent);
        }
        self.used_ms.store(self.now_ms(), Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
        let result = self
            .exchange(deadline, Role::Call(tag), allowed, line)
            .await;
        self.used_ms.store(self.now_ms(), Ordering::Relaxed);
        result
    }

    /// A request of our own (handshake, ping): passes the closed door, does not count as use.
    pub(super) async fn ask(
        self: &Arc<Self>,
        method: &str,
        params: &[u8],
        deadline: Instant,
    ) -> Result<Reply, CallError> {
        self.exchange(
            deadline,
            Role::Ours,
            || true,
            |id| envelope::request(id, method, params),
        )
        .await
    }

    async fn exchange(
        self: &Arc<Self>,
        deadline: Instant,
        role: Role,
        allowed: impl FnOnce() -> bool,
        line: impl FnOnce(u64) -> Bytes,
    ) -> Result<Reply, CallError> {
        // Our own questions take no caller's slot, and a full house still hears a ping.
        let checked = matches!(role, Role::Call(_));
        let roots_from = match &role {
            Role::Call(tag) => self.hears_roots(tag),
            _ => None,
        };
        let _slot = match checked {
            false => None,
            true => match self.slots.try_acquire() {
                Ok(slot) => Some(slot),
                Err(_) => return Err(self.busy()),
            },
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let line = line(id);
        let length = line.len();
        let queued = self.queued_bytes.load(Ordering::Relaxed);
        if queued > 0 && queued + length > QUEUE_BYTES_MAX {
            return Err(self.busy());
        }
        let (tell, mut told) = oneshot::channel();
        if self.pending.insert(id, Waiter { tell, role }).is_err() {
            return Err(CallError::NotSent);
        }
        let mut entry = Entry {
            handle: self,
            id,
            state: EntryState::Registered,
        };
        if checked && !(self.gate.is_open() && allowed()) {
            // Whoever drains or denies may have looked before we registered (see gate.rs).
            return Err(CallError::NotSent);
        }
        let exchange = async {
            let place = match self.queue.try_reserve() {
                Ok(place) => place,
                Err(_) => tokio::select! {
                    biased;
                    cut = &mut told => return answer(cut),
                    place = self.queue.reserve() => match place {
                        Ok(place) => place,
                        Err(_) => return Err(CallError::NotSent),
                    },
                },
            };
            self.queued_bytes.fetch_add(length, Ordering::Relaxed);
            place.send(Frame { id, line });
            entry.state = EntryState::Queued;
            if let Some(caller) = roots_from {
                self.ask_roots(caller);
            }
            answer(told.await)
        };
        match tokio::time::timeout_at(deadline, exchange).await {
            Ok(result) => {
                entry.state = EntryState::Answered;
                result
            }
            Err(_) => Err(CallError::TimedOut),
        }
    }

    /// Lets calls in.
    pub(super) fn open(&self) {
        self.used_ms.store(self.now_ms(), Ordering::Relaxed);
        self.gate.reopen();
    }

    /// Stops letting calls in if nobody is inside; tells whether it did.
    pub(super) fn drain_if_idle(&self) -> bool {
        if !self.gate.drain() {
            return false;
        }
        // What the run listens to by itself is nobody's call.
        if self.in_flight() == 0 {
            return true;
        }
        self.gate.reopen();
        false
    }

    /// Stops letting calls in; those inside finish.
    pub(super) fn drain(&self) {
        self.gate.drain();
    }

    /// Ends the run for its callers: shuts the gate and tells all who wait. The first end counts.
    /// Gives how many callers were told.
    pub fn end(&self, end: &Arc<RunEnd>) -> usize {
        self.gate.shut();
        let waiting = self.pending.close(Arc::clone(end));
        let mut told = 0;
        for waiter in waiting {
            told += usize::from(matches!(waiter.role, Role::Call(_)));
            // A caller that left in this moment needs no answer.
            let _ = waiter.tell.send(Err(Cut::Ended(Arc::clone(end))));
        }
        told
    }

    /// Why the run ended for its callers, if it did.
    #[must_use]
    pub fn ended(&self) -> Option<Arc<RunEnd>> {
        self.pending.closed()
    }

    /// The reader has a reply. `false`: nobody waits for it (late, twice, or never asked).
    pub(super) fn deliver(&self, id: u64, reply: Reply) -> bool {
        match self.pending.take(id) {
            Some(waiter) => waiter.tell.send(Ok(reply)).is_ok(),
            None => false,
        }
    }

    /// The reader has news of a call. Dropped if nobody waits for it, or whoever does is behind.
    pub(super) fn news(&self, id: u64, news: News) {
        let wants = |waiter: &Waiter| match &waiter.role {
            Role::Call(tag) => tag.news.clone(),
            Role::Ours | Role::Watch => None,
        };
        // A call that became a task has its answer, and goes on.
        let listener = self.pending.look(id, wants).flatten();
        if let Some(listener) = listener.or_else(|| self.asking.tasks.of_token(id)) {
            questions::tell(&listener, news);
        }
    }

    /// The server wrote a line.
    pub(super) fn heard(&self) {
        self.heard_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    /// A line of ours that nobody waits for: dropped if the writer is behind.
    pub(super) fn post(&self, line: Bytes) -> bool {
        let length = line.len();
        let queued = self.queued_bytes.fetch_add(length, Ordering::Relaxed);
        let sent = queued + length <= QUEUE_BYTES_MAX
            && self.queue.try_send(Frame { id: 0, line }).is_ok();
        if !sent {
            self.queued_bytes.fetch_sub(length, Ordering::Relaxed);
        }
        sent
    }

    /// A line of ours that nobody waits for, and that must not be lost: waits for the writer while there is
    /// one.
    async fn tell(&self, line: Bytes) {
        if let Ok(place) = self.queue.reserve().await {
            self.queued_bytes.fetch_add(line.len(), Ordering::Relaxed);
            place.send(Frame { id: 0, line });
        }
    }

    /// Waits for the writer, if it is behind: whoever asks faster than it reads would get no answers.
    pub(super) async fn catch_up(&self) {
        if self.queue.capacity() == 0 {
            let _ = tokio::time::timeout(CATCH_UP_MAX, self.queue.reserve()).await;
        }
    }

    /// Whether a frame is still worth writing: its caller may have left while it waited.
    pub(super) fn wants(&self, frame: &Frame) -> bool {
        let watched = |waiter: &Waiter| matches!(waiter.role, Role::Watch);
        match self.pending.look(frame.id, watched) {
            Some(false) => true,
            // Cancelled before it was written: whoever watches learns that it never was.
            Some(true) => {
                self.pending.take(frame.id);
                false
            }
            None => frame.id == 0,
        }
    }

    /// The writer took this many bytes from the queue.
    pub(super) fn written(&self, bytes: usize) {
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn busy(&self) -> CallError {
        CallError::Busy {
            in_flight: self.in_flight_max - self.slots.available_permits(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::actors::calls::Why;
    use crate::domain::verdict::Verdict;
    use crate::protocol::envelope::ReplyKind;

    fn end() -> Arc<RunEnd> {
        Arc::new(RunEnd {
            verdict: Verdict::Exited { code: 1 },
            last_stderr: None,
        })
    }

    fn echo(id: u64) -> Bytes {
        envelope::tool_call(id, "echo", b"{}", envelope::Meta::default())
    }

    fn tag() -> Tag {
        Tag::for_tests([7; crate::domain::ids::ID_BYTES])
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    fn text(frame: &Frame) -> String {
        String::from_utf8(frame.line.to_vec()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_times_out_once_and_the_server_is_told() {
        let (handle, mut frames) = Handle::new(1, 4, Asking::default());
        handle.open();
        let error = handle.call(tag(), echo, soon(), || true).await.unwrap_err();
        assert_eq!(error, CallError::TimedOut);
        let sent = frames.recv().await.unwrap();
        assert!(text(&sent).contains("tools/call"));
        assert!(
            !handle.wants(&sent),
            "a call nobody waits for is not written"
        );
        assert!(text(&frames.recv().await.unwrap()).contains("notifications/cancelled"));
        assert_eq!(handle.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_leaves_frees_its_slot() {
        let (handle, mut frames) = Handle::new(1, 1, Asking::default());
        handle.open();
        let call = {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move { handle.call(tag(), echo, soon(), || true).await })
        };
        let sent = frames.recv().await.unwrap();
        let busy = handle.call(tag(), echo, soon(), || true).await.unwrap_err();
        assert_eq!(busy, CallError::Busy { in_flight: 1 });
        call.abort();
        let _ = call.await;
        assert!(text(&frames.recv().await.unwrap()).contains("\"requestId\":1,"));
        assert!(!handle.deliver(
            sent.id,
            Reply {
                line: Bytes::new(),
                kind: ReplyKind::Result,
                body: 0..0,
                modern: false
            }
        ));
        assert_eq!(handle.in_flight(), 0);
        assert_eq!(handle.slots.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_in_flight_hear_of_the_end_and_later_calls_were_not_sent() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let handle = Arc::clone(&handle);
                tokio::spawn(async move { handle.call(tag(), echo, soon(), || true).await })
            })
            .collect();
        for _ in 0..5 {
            frames.recv().await.unwrap();
        }
        assert_eq!(handle.end(&end()), 5);
        for call in calls {
            assert_eq!(call.await.unwrap().unwrap_err(), CallError::Ended(end()));
        }
        assert_eq!(
            handle.call(tag(), echo, soon(), || true).await.unwrap_err(),
            CallError::NotSent
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_is_stuck_costs_a_deadline_and_bounded_bytes() {
        let (handle, _frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let large = vec![b' '; QUEUE_BYTES_MAX];
        let first = {
            let (handle, large) = (Arc::clone(&handle), large.clone());
            tokio::spawn(async move {
                handle
                    .call(
                        tag(),
                        |id| envelope::request(id, "x", &large),
                        soon(),
                        || true,
                    )
                    .await
            })
        };
        tokio::task::yield_now().await;
        let second = handle
            .call(
                tag(),
                |id| envelope::request(id, "x", &large),
                soon(),
                || true,
            )
            .await
            .unwrap_err();
        assert!(matches!(second, CallError::Busy { .. }), "{second:?}");
        assert_eq!(first.await.unwrap().unwrap_err(), CallError::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_posed_question_needs_no_writer_and_is_forgotten_with_its_asker() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        let reply = Reply {
            line: Bytes::from_static(b"x"),
            kind: ReplyKind::Result,
            body: 0..1,
            modern: false,
        };
        let (line, posed) = handle.pose("initialize", b"{}").unwrap();
        assert!(line.ends_with(b"\n"));
        assert!(
            handle.deliver(1, reply.clone()),
            "it may be answered at once"
        );
        assert_eq!(posed.answer(soon()).await.unwrap().line, "x");
        let (_, posed) = handle.pose("initialize", b"{}").unwrap();
        assert_eq!(handle.in_flight(), 0, "it is nobody's call");
        assert_eq!(posed.answer(soon()).await.unwrap_err(), CallError::TimedOut);
        assert!(!handle.deliver(2, reply));
        let (_, posed) = handle.pose("initialize", b"{}").unwrap();
        assert_eq!(handle.end(&end()), 0, "a question of ours is no caller");
        assert_eq!(
            posed.answer(soon()).await.unwrap_err(),
            CallError::Ended(end())
        );
        assert_eq!(handle.pose("x", b"{}").unwrap_err(), CallError::NotSent);
        assert!(
            frames.try_recv().is_err(),
            "nothing is said of `initialize`"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn idle_drain_refuses_while_a_call_is_inside() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let call = {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move { handle.call(tag(), echo, soon(), || true).await })
        };
        let sent = frames.recv().await.unwrap();
        assert!(!handle.drain_if_idle());
        assert!(handle.gate.is_open());
        let reply = Reply {
            line: Bytes::from_static(b"x"),
            kind: ReplyKind::Result,
            body: 0..1,
            modern: false,
        };
        assert!(handle.deliver(sent.id, reply));
        assert_eq!(call.await.unwrap().unwrap().line, "x");
        assert!(handle.drain_if_idle());
        assert_eq!(
            handle.call(tag(), echo, soon(), || true).await.unwrap_err(),
            CallError::NotSent
        );
    }

    /// A call in flight, and what the writer got of it.
    async fn flying(
        handle: &Arc<Handle>,
        frames: &mut mpsc::Receiver<Frame>,
        tag: Tag,
    ) -> (tokio::task::JoinHandle<Result<Reply, CallError>>, Frame) {
        let ours = Arc::clone(handle);
        let call = tokio::spawn(async move { ours.call(tag, echo, soon(), || true).await });
        loop {
            let sent = frames.recv().await.unwrap();
            // 0: a notification of an earlier call.
            if sent.id != 0 {
                return (call, sent);
            }
        }
    }

    fn reply() -> Reply {
        Reply {
            line: Bytes::from_static(b"x"),
            kind: ReplyKind::Result,
            body: 0..1,
            modern: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_calls_that_are_meant_are_cut_off_and_the_server_is_told() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let (hit, other) = (tag(), Tag::for_tests([8; crate::domain::ids::ID_BYTES]));
        let meant = hit.call.clone();
        let (cut, sent) = flying(&handle, &mut frames, hit).await;
        let (spared, later) = flying(&handle, &mut frames, other).await;
        let why = Why::Asked("leaks".into());
        assert_eq!(handle.cancel_where(|tag| tag.call == meant, &why), 1);
        assert_eq!(cut.await.unwrap().unwrap_err(), CallError::Cancelled(why));
        let told = text(&frames.recv().await.unwrap());
        assert!(
            told.contains(&format!("\"requestId\":{},", sent.id)),
            "{told}"
        );
        assert!(!told.contains("leaks"), "the reason is for people: {told}");
        assert!(handle.deliver(later.id, reply()));
        spared.await.unwrap().unwrap();
        assert_eq!(handle.slots.available_permits(), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_denied_once_it_can_be_found_is_not_sent() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let denied = handle.call(tag(), echo, soon(), || {
            assert_eq!(handle.tags().len(), 1, "whoever looks now finds it");
            false
        });
        assert_eq!(denied.await.unwrap_err(), CallError::NotSent);
        assert_eq!(handle.in_flight(), 0);
        assert!(frames.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_cancels_sees_whether_the_server_answers_all_the_same() {
        let (handle, mut frames) = Handle::new(1, 8, Asking::default());
        handle.open();
        let (cut, sent) = flying(&handle, &mut frames, tag()).await;
        assert!(handle.wants(&sent));
        let why = Why::Asked("too long".into());
        let answered = handle.cancel_one(&tag().call, &why).unwrap();
        assert_eq!(
            cut.await.unwrap().unwrap_err(),
            CallError::Cancelled(why.clone())
        );
        assert!(handle.cancel_one(&tag().call, &why).is_none(), "once");
        assert!(handle.deliver(sent.id, reply()), "it is not a stray");
        answered.await.unwrap().unwrap();

        // Not written yet: then it never is, and whoever watches learns that.
        let (cut, unsent) = flying(&handle, &mut frames, tag()).await;
        let answered = handle.cancel_one(&tag().call, &why).unwrap();
        cut.await.unwrap().unwrap_err();
        assert!(!handle.wants(&unsent));
        assert!(answered.await.is_err());
        assert_eq!(handle.in_flight(), 0);

        // Nobody waits for it any more.
        let (cut, _) = flying(&handle, &mut frames, tag()).await;
        drop(handle.cancel_one(&tag().call, &why).unwrap());
        cut.await.unwrap().unwrap_err();
        handle.unwatch();
        assert_eq!(handle.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_writer_is_told_at_once() {
        let (handle, _frames) = Handle::new(1, 2 * WRITER_QUEUE_MAX, Asking::default());
        handle.open();
        for _ in 0..WRITER_QUEUE_MAX {
            assert!(handle.post(Bytes::from_static(b"x")));
        }
        let stuck = {
            let handle = Arc::clone(&handle);
            tokio::spawn(async move { handle.call(tag(), echo, soon(), || true).await })
        };
        while handle.in_flight() == 0 {
            tokio::task::yield_now().await;
        }
        let since = Instant::now();
        let why = Why::Asked("leaks".into());
        assert_eq!(handle.cancel_where(|_| true, &why), 1);
        assert_eq!(stuck.await.unwrap().unwrap_err(), CallError::Cancelled(why));
        assert_eq!(since.elapsed(), Duration::ZERO);
    }
}
