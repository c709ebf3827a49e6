//! The bridge's state of the one server it speaks to: the session, whether the server can be reached,
//! and whether the AI tool has seen something that may be old.
//!
//! Invariant: sessions begin one at a time, always with the parameters of the AI tool's own
//! `initialize`, so that nobody sees another session than the AI tool negotiated.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::value::RawValue;
use tokio::sync::Notify;

use super::cache::Cache;
use super::http::{Ask, Gate, Heard, Http, OPEN};
use super::output::Output;
use super::reach::Away;
use super::session::{self, Failure, Session};
use super::wire;
use super::wishes::Wishes;
use crate::domain::limits::{BRIDGE_AWAY_WAIT, BRIDGE_BEGIN_WAIT};

/// What all requests share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) http: Http,
    pub(super) cache: Cache,
    pub(super) output: Output,
    state: Mutex<State>,
    beginning: tokio::sync::Mutex<()>,
    /// Something changed that who listens should look at.
    nudged: Notify,
    /// Own requests in sessions so far.
    owned: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// Of the AI tool's `initialize`.
    params: Option<Box<RawValue>>,
    session: Option<Arc<Session>>,
    /// One whose AI tool has begun again; it ends when the next has begun.
    before: Option<Arc<Session>>,
    wishes: Wishes,
    /// Sessions so far.
    count: u64,
    away: Option<Away>,
    /// How often the server was found to be away.
    misses: u64,
    /// The last answer was that the key is not good.
    denied: bool,
    /// What the AI tool has seen may be old.
    stale: bool,
    /// The AI tool has its answer to `initialize`, and can be told things.
    begun: bool,
}

// === impl Link ===

impl Link {
    pub(super) fn new(http: Http, cache: Cache, output: Output) -> Self {
        Self {
            http,
            cache,
            output,
            state: Mutex::default(),
            beginning: tokio::sync::Mutex::default(),
            nudged: Notify::new(),
            owned: AtomicU64::default(),
        }
    }

    pub(super) fn url(&self) -> &str {
        self.http.endpoint().url()
    }

    /// The AI tool begins, or begins again: the session before is not its any more.
    pub(super) fn set_params(&self, params: Box<RawValue>) {
        let mut state = self.lock();
        state.params = Some(params);
        state.wishes.begin_again();
        if let Some(before) = state.session.take() {
            state.before = Some(before);
        }
    }

    /// What the AI tool wants of its session, to be looked at or noted.
    pub(super) fn wishes<T>(&self, look: impl FnOnce(&mut Wishes) -> T) -> T {
        look(&mut self.lock().wishes)
    }

    /// The result of a request of the bridge's own in a session.
    pub(super) async fn own(
        &self,
        session: &Session,
        method: &str,
        params: &RawValue,
    ) -> Result<Box<RawValue>, Failure> {
        let id = wire::own_id(self.owned.fetch_add(1, Ordering::Relaxed));
        let body = wire::own(&id, method, params);
        let heard = self.post(session, body, BRIDGE_BEGIN_WAIT, OPEN).await?;
        session::result(&session::whole(heard, &id).await?)
    }

    /// The AI tool has its answer to `initialize`.
    pub(super) fn has_begun(&self) {
        self.lock().begun = true;
        self.nudged.notify_one();
    }

    pub(super) fn is_begun(&self) -> bool {
        self.lock().begun
    }

    /// Waits until something changed.
    pub(super) async fn nudged(&self) {
        self.nudged.notified().await;
    }

    pub(super) fn current(&self) -> Option<Arc<Session>> {
        self.lock().session.clone()
    }

    /// The session, which begins if there is none.
    pub(super) async fn session(&self) -> Result<Arc<Session>, Failure> {
        if let Some(session) = self.current() {
            return Ok(session);
        }
        let misses = self.lock().misses;
        let _one = self.beginning.lock().await;
        if let Some(session) = self.current() {
            return Ok(session);
        }
        // Who waited for a try that failed need not make another one at once.
        if let Some(why) = self.missed_since(misses) {
            return Err(Failure::Away(why));
        }
        Ok(self.begin().await?.0)
    }

    fn missed_since(&self, misses: u64) -> Option<String> {
        let state = self.lock();
        let away = state.away.as_ref().filter(|_| state.misses != misses);
        away.map(|away| away.why.clone())
    }

    /// A session for the AI tool's own `initialize`, and the server's answer to it.
    pub(super) async fn begin_anew(&self) -> Result<Box<RawValue>, Failure> {
        let _one = self.beginning.lock().await;
        Ok(self.begin().await?.1)
    }

    /// Only with `beginning` held.
    async fn begin(&self) -> Result<(Arc<Session>, Box<RawValue>), Failure> {
        let (params, generation) = {
            let mut state = self.lock();
            state.count += 1;
            (state.params.clone(), state.count)
        };
        let params = params.ok_or(Failure::NotBegun)?;
        let begun = session::begin(&self.http, &params, generation).await;
        self.note(begun.as_ref().err());
        // To begin is harmless, so it makes no difference whether it arrived.
        if let Err(Failure::Broken(why)) = &begun {
            self.is_away(why);
        }
        let (session, result) = begun?;
        let session = Arc::new(session);
        let before = {
            let mut state = self.lock();
            state.session = Some(Arc::clone(&session));
            state.wishes.nothing_held();
            state.before.take()
        };
        if let Some(before) = before {
            session::end(&self.http, &before).await;
        }
        tracing::info!(server = self.url(), "a session has begun");
        self.nudged.notify_one();
        Ok((session, result))
    }

    /// This session is gone; another may have taken its place already.
    pub(super) fn forget(&self, gone: &Session) {
        let mut state = self.lock();
        let is_current = |session: &Arc<Session>| session.generation == gone.generation;
        if state.session.as_ref().is_some_and(is_current) {
            state.session = None;
            tracing::info!("the server knows the session no more; another one begins");
        }
    }

    /// Posts a message in a session.
    pub(super) async fn post(
        &self,
        session: &Session,
        body: Bytes,
        wait: Duration,
        gate: Gate<'_>,
    ) -> Result<Heard, Failure> {
        let ask = Ask {
            method: Method::POST,
            body,
            headers: &session.headers,
            wait,
        };
        let heard = session::post(&self.http, ask, gate).await;
        self.note(heard.as_ref().err());
        heard
    }

    /// Takes note of what an exchange says about the server.
    pub(super) fn note(&self, failure: Option<&Failure>) {
        match failure {
            None => self.is_here(false),
            Some(Failure::Away(why)) => self.is_away(why),
            Some(failure @ (Failure::Refused { .. } | Failure::Error(_))) => {
                if failure.is_denial() {
                    self.cache.forget();
                }
                self.is_here(failure.is_denial());
            }
            Some(Failure::Broken(_) | Failure::NotBegun | Failure::Unwanted) => {}
        }
    }

    /// It was asked for what changes nothing, and said nothing.
    pub(super) fn is_away(&self, why: &str) {
        let mut state = self.lock();
        state.misses += 1;
        match &mut state.away {
            Some(away) => why.clone_into(&mut away.why),
            None => {
                tracing::warn!(server = self.url(), why, "the server is not reachable");
                state.away = Some(Away::now(why.to_owned()));
                state.stale = true;
            }
        }
    }

    fn is_here(&self, denied: bool) {
        let mut state = self.lock();
        let was_denied = std::mem::replace(&mut state.denied, denied);
        let was_away = state.away.take();
        if let Some(away) = &was_away {
            let lasted_ms = away.lasted().as_millis();
            tracing::warn!(server = self.url(), %lasted_ms, "the server is back");
        }
        if was_away.is_some() || (was_denied && !denied) {
            self.nudged.notify_one();
        }
    }

    /// How long a request may wait for the server.
    pub(super) fn patience(&self) -> Duration {
        let state = self.lock();
        state.away.as_ref().map_or(BRIDGE_AWAY_WAIT, Away::patience)
    }

    /// What people and models are told about a server that is away.
    pub(super) fn away_told(&self, why: &str) -> String {
        let away = self.lock().away.clone();
        away.unwrap_or_else(|| Away::now(why.to_owned()))
            .told(self.url())
    }

    /// What the AI tool has seen may be old.
    pub(super) fn is_stale(&self) {
        self.lock().stale = true;
    }

    /// Has the AI tool ask for all lists again, if what it has may be old.
    pub(super) async fn freshen(&self) {
        let is_stale = {
            let mut state = self.lock();
            state.away.is_none() && std::mem::take(&mut state.stale)
        };
        if is_stale {
            for message in wire::LISTS_CHANGED {
                self.output.write(Bytes::from_static(message)).await;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
