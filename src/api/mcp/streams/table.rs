//! All streams that can be taken up again, and how many of them, and for how long, when nobody reads them: so many of a
//! session, so many of a key, for so long. The oldest make room.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::name::{Kind, Token};
use super::stream::{Stream, Tally};
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
        let mut table = lock(&self.0);
        let of_session = table.sessions.entry(session.id().bits()).or_default();
        let of_session = Arc::clone(of_session);
        let of_key = Arc::clone(&table.keys.entry(session.key.clone()).or_default().bytes);
        let token = random();
        let tallies = [of_session, of_key];
        let stream = Arc::new(Stream::new(kind, token, Arc::clone(session), tallies));
        table.by.insert(token, Arc::clone(&stream));
        if !std::mem::replace(&mut table.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0), front.clone()));
        }
        stream
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
        if !table.by.contains_key(&stream.token) {
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
        let oldest = if of_session.count() > MCP_KEPT_STREAMS_MAX {
            own.away.iter().position(|away| away.session == session)
        } else if own.away.len() > MCP_KEPT_STREAMS_KEY_MAX {
            Some(0)
        } else {
            None
        };
        let gone = oldest.and_then(|oldest| table.drop_of(key, oldest));
        drop(table);
        wipe(gone);
    }

    /// Makes room for a stream's next event: the longest unread one of its session or key is thrown away, but not it.
    /// Gives whether there was one.
    pub(super) fn make_room(&self, stream: &Stream) -> bool {
        let mut table = lock(&self.0);
        let key = &stream.session.key;
        let oldest = table.keys.get(key).and_then(|own| {
            let mut away = own.away.iter();
            away.position(|away| away.token != stream.token)
        });
        let gone = oldest.and_then(|oldest| table.drop_of(key, oldest));
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
    /// Takes out one that nobody reads.
    fn drop_of(&mut self, key: &KeyId, at: usize) -> Option<Arc<Stream>> {
        let away = self.keys.get_mut(key)?.away.remove(at)?;
        self.by.remove(&away.token)
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
