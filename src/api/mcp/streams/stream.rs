//! One stream that can be taken up again: who writes it does not know who reads it, or whether anybody does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::log::{After, Log};
use super::name::{Kind, Token, id_of};
use crate::actors::session::SessionHandle;
use crate::api::shares::Share;
use crate::domain::limits::{LARGE_BYTES_MIN, MCP_KEPT_KEY_BYTES_MAX, MCP_KEPT_SESSION_BYTES_MAX};

/// Bytes that are given to a connection at once.
const PIECE_BYTES: usize = 64 << 10;

/// Bytes that all streams of somebody keep.
pub(super) type Tally = Arc<AtomicUsize>;

/// One of them.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) kind: Kind,
    pub(super) token: Token,
    pub(super) session: Arc<SessionHandle>,
    /// Of its session, and of its key.
    tallies: [Tally; 2],
    state: Mutex<State>,
    /// Somebody who writes may find room now.
    room: Notify,
    /// Since when nobody reads it; `None` as long as somebody does.
    away: watch::Sender<Option<Instant>>,
    /// It is of no use any more to anybody.
    pub(super) gone: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    log: Log,
    /// What its reader takes next, and how much of that it has.
    next: u64,
    offset: usize,
    /// How many readers there were; the last one is the one.
    readers: u64,
    waker: Option<Waker>,
}

/// Whose streams are to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Crowd {
    /// The session's own.
    Session,
    /// Those of all sessions of the key.
    Key,
}

/// What a reader is given.
pub(super) enum Given {
    Piece(Bytes),
    /// Nothing yet.
    Wait,
    /// Nothing any more.
    Over,
}

impl Stream {
    pub(super) fn new(
        kind: Kind,
        token: Token,
        session: Arc<SessionHandle>,
        tallies: [Tally; 2],
    ) -> Self {
        Self {
            kind,
            token,
            session,
            tallies,
            state: Mutex::new(State {
                next: 1,
                ..State::default()
            }),
            room: Notify::new(),
            away: watch::Sender::new(Some(Instant::now())),
            gone: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who keeps as much as it may, if anybody does.
    pub(super) fn crowd(&self) -> Option<Crowd> {
        let [session, key] = &self.tallies;
        if session.load(Ordering::Relaxed) >= MCP_KEPT_SESSION_BYTES_MAX {
            return Some(Crowd::Session);
        }
        (key.load(Ordering::Relaxed) >= MCP_KEPT_KEY_BYTES_MAX).then_some(Crowd::Key)
    }

    /// One more event, if there is room for it; `text` is given its id. A large one has a share of its key, which is
    /// taken with it.
    pub(super) fn push(&self, text: impl FnOnce(&str) -> Bytes, share: &mut Option<Share>) -> bool {
        self.changed(|state| {
            let next = state.next;
            if state.log.has_room(next) && self.crowd().is_none() {
                let id = id_of(self.kind, &self.token, state.log.next());
                state.log.push(text(&id), share.take());
                return true;
            }
            // What was read is of less use than what was not; and one event there is always room for.
            state.log.forget_before(next);
            if state.log.next() > next {
                return false;
            }
            let id = id_of(self.kind, &self.token, state.log.next());
            state.log.push(text(&id), share.take());
            true
        })
    }

    /// The last event, whether there is room or not: of a large one its key has a share, or it becomes `instead`.
    pub(super) fn push_last(
        &self,
        text: impl FnOnce(&str) -> Bytes,
        instead: impl FnOnce(&str) -> Bytes,
    ) {
        self.changed(|state| {
            let id = id_of(self.kind, &self.token, state.log.next());
            let whole = text(&id);
            let mut share = Share::of(&self.session.key);
            match share.grow(whole.len()) {
                true => state.log.push(whole, Some(share)),
                false => state.log.push(instead(&id), None),
            }
            state.log.end();
        });
    }

    /// There will be no more.
    pub(super) fn end(&self) {
        self.changed(|state| state.log.end());
    }

    /// Changes what is kept, counts it, and wakes who reads.
    fn changed<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let before = counted(&state.log);
        let done = change(&mut state);
        let after = counted(&state.log);
        let waker = state.waker.take();
        drop(state);
        for tally in &self.tallies {
            if after >= before {
                tally.fetch_add(after - before, Ordering::Relaxed);
            } else {
                tally.fetch_sub(before - after, Ordering::Relaxed);
            }
        }
        if let Some(waker) = waker {
            waker.wake();
        }
        done
    }

    /// Waits until there may be room.
    pub(super) async fn room(&self) {
        self.room.notified().await;
    }

    /// Resolves when nobody has read it for this long.
    pub(super) async fn away_for(&self, long: std::time::Duration) {
        let mut away = self.away.subscribe();
        loop {
            let since = *away.borrow_and_update();
            let late = async {
                match since {
                    Some(since) => tokio::time::sleep_until(since + long).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = late => return,
                told = away.changed() => if told.is_err() { return },
            }
        }
    }

    /// Whether nobody reads it.
    pub(super) fn is_away(&self) -> bool {
        self.away.borrow().is_some()
    }

    /// Whether it has ended, and its last reader was given all of it.
    pub(super) fn is_told(&self) -> bool {
        let state = self.state();
        state.log.is_ended() && state.next >= state.log.next()
    }

    /// A reader of what comes after the event of this number takes the place of the one before.
    pub(super) fn read_after(&self, number: u64) -> Result<u64, After> {
        let reader = self.changed(|state| match state.log.after(number) {
            After::From(from) => {
                // It has seen all before.
                state.log.forget_before(number.saturating_add(1));
                state.next = from;
                state.offset = 0;
                state.readers += 1;
                // Under the lock: who leaves says so before, or is not the one.
                self.away.send_replace(None);
                Ok(state.readers)
            }
            other => Err(other),
        })?;
        self.room.notify_one();
        Ok(reader)
    }

    /// What this reader takes next.
    pub(super) fn take(&self, reader: u64, waker: &Waker) -> Given {
        let mut state = self.state();
        if state.readers != reader || self.gone.is_cancelled() {
            return Given::Over;
        }
        let (next, offset) = (state.next, state.offset);
        let Some(text) = state.log.get(next) else {
            if state.log.is_ended() {
                return Given::Over;
            }
            state.waker = Some(waker.clone());
            return Given::Wait;
        };
        let end = text.len().min(offset + PIECE_BYTES);
        let (piece, whole) = (text.slice(offset..end), end == text.len());
        let large = text.len() > LARGE_BYTES_MIN;
        if !whole {
            state.offset = end;
            return Given::Piece(piece);
        }
        state.next += 1;
        state.offset = 0;
        drop(state);
        if large {
            // A large one is kept only until it is sent.
            self.changed(|state| state.log.forget_before(next + 1));
        }
        self.room.notify_one();
        Given::Piece(piece)
    }

    /// This reader is no more; gives whether it was the one.
    pub(super) fn leave(&self, reader: u64) -> bool {
        let mut state = self.state();
        if state.readers != reader {
            return false;
        }
        // Nobody is it now.
        state.readers += 1;
        state.offset = 0;
        state.waker = None;
        self.away.send_replace(Some(Instant::now()));
        drop(state);
        true
    }

    /// Who reads does not take anything, and is not waited for any more.
    pub(super) fn leave_behind(&self) -> bool {
        let reader = self.state().readers;
        !self.is_away() && self.leave(reader)
    }

    /// All of it is thrown away.
    pub(super) fn wipe(&self) {
        self.gone.cancel();
        self.changed(|state| {
            state.log.clear();
            state.log.end();
        });
        self.room.notify_one();
    }
}

/// Bytes that count against a session and its key: of a large answer there is a share.
fn counted(log: &Log) -> usize {
    log.bytes().min(2 * LARGE_BYTES_MIN)
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.changed(|state| state.log.clear());
    }
}
