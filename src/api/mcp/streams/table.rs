//! All streams that can be taken up again, and how many of them, and for how long, when nobody reads them: so many of a
//! session, so many of a key, for so long. The oldest make room.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::name::{Kind, Token};
use super::stream::{Crowd, Stream, Tally};
use crate::actors::clock::random;
use crate::actors::front::Front;
use crate::actors::session::SessionHandle;
use crate::domain::ids::{ID_BYTES, KeyId};
use crate::domain::limits::{
    MCP_KEPT, MCP_KEPT_STREAMS_KEY_MAX, MCP_KEPT_STREAMS_MAX, MCP_KEPT_SWEEP, MCP_LISTEN_KEPT,
};

type SessionBits = [u8; ID_BYTES];

#[derive(Debug, Default)]
struct Table {
    by: HashMap<Token, Arc<Stream>>,
    sessions: HashMap<SessionBits, Tally>,
    keys: HashMap<KeyId, Own>,
    /// Whether somebody looks after what is kept.
    swept: bool,
}

/// What is of one key.
#[derive(Debug, Default)]
struct Own {
    bytes: Tally,
    /// Streams that nobody reads, the longest unread first.
    away: VecDeque<Away>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    token: Token,
    session: SessionBits,
}

/// All of them.
#[derive(Debug, Default, Clone)]
pub(in crate::api::mcp) struct Streams(Arc<Mutex<Table>>);

impl Streams {
    /// A new stream of a session.
    pub(super) fn begin(
        &self,
        front: &Front,
        kind: Kind,
        session: &Arc<SessionHandle>,
    ) -> Arc<Stream> {
        let (stream, is_first) = self.add(kind, session);
        if is_first {
            tokio::spawn(sweep(Arc::downgrade(&self.0), front.clone()));
        }
        stream
    }

    /// The same; gives whether nobody looks after what is kept yet.
    fn add(&self, kind: Kind, session: &Arc<SessionHandle>) -> (Arc<Stream>, bool) {
        let mut table = lock(&self.0);
        let of_session = table.sessions.entry(session.id().bits()).or_default();
        let of_session = Arc::clone(of_session);
        let of_key = Arc::clone(&table.keys.entry(session.key.clone()).or_default().bytes);
        let token = random();
        let tallies = [of_session, of_key];
        let stream = Arc::new(Stream::new(kind, token, Arc::clone(session), tallies));
        table.by.insert(token, Arc::clone(&stream));
        (stream, !std::mem::replace(&mut table.swept, true))
    }

    /// The stream of this name, if it is this session's.
    pub(super) fn find(&self, token: &Token, session: &SessionHandle) -> Option<Arc<Stream>> {
        let table = lock(&self.0);
        let found = table.by.get(token)?;
        (found.session.id() == session.id()).then(|| Arc::clone(found))
    }

    /// Somebody reads it again.
    pub(super) fn here(&self, stream: &Stream) {
        let mut table = lock(&self.0);
        if let Some(own) = table.keys.get_mut(&stream.session.key) {
            own.away.retain(|away| away.token != stream.token);
        }
    }

    /// Nobody reads it: it is kept for a while.
    pub(super) fn away(&self, stream: &Stream) {
        let mut table = lock(&self.0);
        // Somebody may have taken it up since it was left.
        if !table.by.contains_key(&stream.token) || !stream.is_away() {
            return;
        }
        let session = stream.session.id().bits();
        let key = &stream.session.key;
        let Some(own) = table.keys.get_mut(key) else {
            return;
        };
        own.away.retain(|away| away.token != stream.token);
        own.away.push_back(Away {
            since: Instant::now(),
            token: stream.token,
            session,
        });
        let of_session = own.away.iter().filter(|away| away.session == session);
        let gone = if of_session.count() > MCP_KEPT_STREAMS_MAX {
            table.drop_one(key, |away| away.session == session)
        } else if own.away.len() > MCP_KEPT_STREAMS_KEY_MAX {
            table.drop_one(key, |_| true)
        } else {
            None
        };
        drop(table);
        wipe(gone);
    }

    /// Makes room for a stream's next event, if there is none: another one of its session or key is thrown away. Gives whether there was one.
    pub(super) fn make_room(&self, stream: &Stream) -> bool {
        let Some(crowd) = stream.crowd() else {
            return false;
        };
        let mut table = lock(&self.0);
        let (key, session) = (&stream.session.key, stream.session.id().bits());
        let gone = table.drop_one(key, |away| {
            away.token != stream.token && (crowd == Crowd::Key || away.session == session)
        });
        drop(table);
        wipe(gone)
    }

    /// It is of no use any more.
    pub(super) fn drop_it(&self, stream: &Stream) {
        let mut table = lock(&self.0);
        let gone = table.by.remove(&stream.token);
        if let Some(own) = table.keys.get_mut(&stream.session.key) {
            own.away.retain(|away| away.token != stream.token);
        }
        drop(table);
        wipe(gone);
    }

    /// A session has ended: nothing of it is kept.
    pub(in crate::api::mcp) fn forget(&self, session: &SessionHandle) {
        let mut table = lock(&self.0);
        let own: Vec<_> = table
            .by
            .extract_if(|_, stream| stream.session.id() == session.id())
            .map(|(_, stream)| stream)
            .collect();
        let bits = session.id().bits();
        if let Some(kept) = table.keys.get_mut(&session.key) {
            kept.away.retain(|away| away.session != bits);
        }
        drop(table);
        wipe(own);
    }
}

impl Table {
    /// Takes out one of these that nobody reads: one that has ended and was told whole, else the longest unread.
    fn drop_one(&mut self, key: &KeyId, is_meant: impl Fn(&Away) -> bool) -> Option<Arc<Stream>> {
        let Self { by, keys, .. } = self;
        let own = keys.get_mut(key)?;
        // Who has taken one up again tells the table in a moment.
        let is_unread = |away: &Away| by.get(&away.token).is_none_or(|stream| stream.is_away());
        let is_told = |away: &Away| by.get(&away.token).is_none_or(|stream| stream.is_told());
        let meant = |away: &Away| is_meant(away) && is_unread(away);
        let at = own
            .away
            .iter()
            .position(|away| meant(away) && is_told(away))
            .or_else(|| own.away.iter().position(meant))?;
        let away = own.away.remove(at)?;
        by.remove(&away.token)
    }

    /// Takes out what was kept for long enough, and what is of no session any more.
    fn old(&mut self, now: Instant, is_live: impl Fn(&SessionHandle) -> bool) -> Vec<Arc<Stream>> {
        let Self { by, keys, .. } = self;
        let mut gone = Vec::new();
        for own in keys.values_mut() {
            own.away.retain(|away| {
                let Some(stream) = by.get(&away.token) else {
                    return false;
                };
                if !stream.is_away() {
                    return false;
                }
                let keep = now < away.since + kept_for(stream.kind) && is_live(&stream.session);
                if !keep {
                    gone.extend(by.remove(&away.token));
                }
                keep
            });
        }
        let is_used =
            |tally: &Tally| Arc::strong_count(tally) > 1 || tally.load(Ordering::Relaxed) > 0;
        keys.retain(|_, own| !own.away.is_empty() || is_used(&own.bytes));
        self.sessions.retain(|_, tally| is_used(tally));
        gone
    }
}

/// How long a stream is kept when nobody reads it. Who listens keeps servers from resting.
const fn kept_for(kind: Kind) -> Duration {
    match kind {
        Kind::Answer => MCP_KEPT,
        Kind::Listen => MCP_LISTEN_KEPT,
    }
}

/// Outside of the lock: whoever reads or writes it is woken.
fn wipe(gone: impl IntoIterator<Item = Arc<Stream>>) -> bool {
    let mut any = false;
    for stream in gone {
        stream.wipe();
        any = true;
    }
    any
}

/// Throws away what is old, until nothing is kept.
async fn sweep(table: Weak<Mutex<Table>>, front: Front) {
    loop {
        tokio::time::sleep(MCP_KEPT_SWEEP).await;
        let Some(table) = table.upgrade() else {
            return;
        };
        let mut table = lock(&table);
        let gone = table.old(Instant::now(), |session| front.is_live(session));
        let done = table.by.is_empty() && table.keys.is_empty();
        table.swept = !done;
        drop(table);
        wipe(gone);
        if done {
            return;
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;

    use super::super::stream::Given;
    use super::*;
    use crate::actors::calls::Tag;
    use crate::domain::limits::{MCP_KEPT_BYTES_MAX, MCP_KEPT_SESSION_BYTES_MAX};

    /// A session; all are of keys of their own.
    fn session(number: u8) -> Arc<SessionHandle> {
        Tag::for_tests([number; ID_BYTES]).session
    }

    fn lost(streams: &Streams, kind: Kind, session: &Arc<SessionHandle>) -> Arc<Stream> {
        let (stream, _) = streams.add(kind, session);
        streams.away(&stream);
        stream
    }

    fn is_kept(streams: &Streams, stream: &Stream) -> bool {
        let found = streams.find(&stream.token, &stream.session).is_some();
        assert_eq!(found, !stream.gone.is_cancelled());
        found
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_keeps_so_many_unread_streams_and_the_longest_unread_goes_first() {
        let streams = Streams::default();
        let (ada, bob) = (session(1), session(2));
        let other = lost(&streams, Kind::Answer, &bob);
        let read = lost(&streams, Kind::Answer, &ada);
        streams.here(&read);
        let all: Vec<_> = (0..=MCP_KEPT_STREAMS_MAX)
            .map(|_| lost(&streams, Kind::Answer, &ada))
            .collect();
        assert!(!is_kept(&streams, &all[0]));
        for kept in all[1..].iter().chain([&other, &read]) {
            assert!(is_kept(&streams, kept));
        }
        // Nobody else finds them, and with the session they go.
        assert!(streams.find(&other.token, &ada).is_none());
        streams.forget(&ada);
        assert!(!all.iter().any(|stream| is_kept(&streams, stream)));
        assert!(!is_kept(&streams, &read) && is_kept(&streams, &other));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_told_whole_makes_room_before_what_was_not() {
        let streams = Streams::default();
        let ada = session(1);
        let event = |_: &str| Bytes::from_static(b"x");
        let waits = lost(&streams, Kind::Answer, &ada);
        waits.push_last(event, event);
        let told: Vec<_> = (0..=MCP_KEPT_STREAMS_MAX)
            .map(|_| {
                let (stream, _) = streams.add(Kind::Answer, &ada);
                stream.push_last(event, event);
                let reader = stream.read_after(0).unwrap();
                while let Given::Piece(_) = stream.take(reader, Waker::noop()) {}
                assert!(stream.leave(reader));
                streams.away(&stream);
                stream
            })
            .collect();
        assert!(is_kept(&streams, &waits));
        assert!(!is_kept(&streams, &told[0]) && !is_kept(&streams, &told[1]));
        assert!(told[2..].iter().all(|stream| is_kept(&streams, stream)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_was_taken_up_again_is_not_looked_at_as_left() {
        let streams = Streams::default();
        let ada = session(1);
        let (stream, _) = streams.add(Kind::Answer, &ada);
        let first = stream.read_after(0).unwrap();
        assert!(stream.leave(first));
        // Somebody else comes before who left has said so.
        stream.read_after(0).unwrap();
        streams.here(&stream);
        streams.away(&stream);
        let mut table = lock(&streams.0);
        assert!(table.keys.values().all(|own| own.away.is_empty()));
        assert!(table.old(Instant::now() + MCP_KEPT, |_| true).is_empty());
        drop(table);
        assert!(is_kept(&streams, &stream));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_or_of_no_session_any_more_goes() {
        let streams = Streams::default();
        let (ada, bob) = (session(1), session(2));
        let answer = lost(&streams, Kind::Answer, &ada);
        let listen = lost(&streams, Kind::Listen, &ada);
        let revoked = lost(&streams, Kind::Answer, &bob);
        let (read, _) = streams.add(Kind::Answer, &bob);
        let old = |after: Duration| {
            let mut table = lock(&streams.0);
            let now = Instant::now() + after;
            let gone = table.old(now, |session| session.id() != bob.id());
            drop(table);
            wipe(gone);
        };
        old(Duration::ZERO);
        assert!(!is_kept(&streams, &revoked) && is_kept(&streams, &listen));
        old(MCP_LISTEN_KEPT);
        assert!(!is_kept(&streams, &listen) && is_kept(&streams, &answer));
        assert!(is_kept(&streams, &read), "somebody reads it");
        old(MCP_KEPT);
        assert!(!is_kept(&streams, &answer));
        streams.drop_it(&read);
        drop((answer, listen, revoked, read));
        old(MCP_KEPT);
        let table = lock(&streams.0);
        assert!(table.by.is_empty() && table.keys.is_empty() && table.sessions.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_keeps_too_much_makes_room_with_its_own() {
        let streams = Streams::default();
        let (ada, bob) = (session(1), session(2));
        let other = lost(&streams, Kind::Answer, &bob);
        let event = |_: &str| Bytes::from(vec![b'x'; MCP_KEPT_BYTES_MAX]);
        let fill = MCP_KEPT_SESSION_BYTES_MAX / MCP_KEPT_BYTES_MAX;
        let full: Vec<_> = (0..fill)
            .map(|_| {
                let stream = lost(&streams, Kind::Answer, &ada);
                assert!(stream.push(event, &mut None));
                stream
            })
            .collect();
        let (next, _) = streams.add(Kind::Answer, &ada);
        assert!(
            next.push(event, &mut None),
            "one event there is always room for"
        );
        assert!(!next.push(event, &mut None));
        assert!(streams.make_room(&next) && streams.make_room(&next));
        assert!(!is_kept(&streams, &full[0]) && !is_kept(&streams, &full[1]));
        assert!(!streams.make_room(&next), "there is room");
        assert!(is_kept(&streams, &full[2]) && is_kept(&streams, &other));
    }
}
