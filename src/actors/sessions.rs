//! The supervisor of sessions: one sweep for all their deadlines, one transaction for all that
//! was seen of them.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::domain::account::Millis;
use crate::domain::ids::{KeyId, SessionId, UserId};
use crate::domain::limits::{COALESCE_EVERY, STORE_LAST_WORDS};
use crate::storage::{SessionSeen, Store};
use crate::telemetry::metrics::labels::{ActorKind, SessionEnd};

use super::changes::Who;
use super::ctx::Ctx;
use super::cut_off::cut_off;
use super::measured::measured;
use super::session::{SessionActor, SessionHandle, SessionMsg};
use super::supervisor::{Children, Fate, Kind};

/// What it hears.
#[derive(Debug)]
pub(super) enum SessionsMsg {
    /// A session was registered; its handle works already.
    Add(Arc<SessionHandle>),
    /// Sessions were revoked: their handles stay to say so, their actors go.
    Revoked(Vec<SessionId>),
    /// Save what was seen, end what aged.
    Sweep,
    /// A save is done, or what it could not save.
    Saved(Unsaved),
    /// Load what could not be loaded at the start.
    Load,
    /// It is loaded.
    Loaded(bool),
}

/// What is to be written of many sessions, in one go.
#[derive(Debug, Default)]
pub(super) struct Unsaved {
    seen: Vec<SessionSeen>,
    keys_used: Vec<(KeyId, Millis)>,
    /// What expired at or before this goes.
    purge: Option<Millis>,
}

/// The service.
pub(super) struct Sessions;

/// What it knows.
pub(super) struct SessionsState {
    ctx: Arc<Ctx>,
    children: Children<SessionId>,
    /// A save is under way: on a store that is away they must not pile up.
    saving: bool,
    /// What aged is still stored.
    purge: Option<Millis>,
}

impl Actor for Sessions {
    type Msg = SessionsMsg;
    type State = SessionsState;
    type Arguments = Arc<Ctx>;

    async fn pre_start(
        &self,
        myself: ActorRef<SessionsMsg>,
        ctx: Arc<Ctx>,
    ) -> Result<SessionsState, ActorProcessingErr> {
        ctx.set_sessions(&myself);
        Ok(SessionsState {
            ctx,
            children: Children::new(Kind::Temporary),
            saving: false,
            purge: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SessionsMsg>,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        if let Err(error) = load(&state.ctx).await {
            // At boot that is the end of it; restarted while the store is away, the handles of
            // this life still stand, and what they lack is loaded when it is back.
            if !state.ctx.gates.listeners.is_open() {
                return Err(error.into());
            }
            tracing::warn!("the stored sessions are loaded later: {error}");
            myself.send_after(COALESCE_EVERY, || SessionsMsg::Load);
        }
        state.adopt_all(&myself).await;
        myself.send_interval(COALESCE_EVERY, || SessionsMsg::Sweep);
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionsMsg>,
        message: SessionsMsg,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SessionsMsg::Add(session) => state.adopt(&myself, session).await,
            SessionsMsg::Revoked(ids) => {
                let ended = &state.ctx.metrics.session_ends;
                ended.increment(SessionEnd::Revoked, ids.len() as u64);
                for id in &ids {
                    state.end(id, "revoked");
                }
            }
            SessionsMsg::Sweep => state.sweep(&myself),
            SessionsMsg::Saved(left) => state.saved(left),
            SessionsMsg::Load => {
                let ctx = Arc::clone(&state.ctx);
                tokio::spawn(async move {
                    let loaded = load(&ctx).await.is_ok();
                    let _ = myself.cast(SessionsMsg::Loaded(loaded));
                });
            }
            SessionsMsg::Loaded(true) => state.adopt_all(&myself).await,
            SessionsMsg::Loaded(false) => {
                myself.send_after(COALESCE_EVERY, || SessionsMsg::Load);
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _myself: ActorRef<SessionsMsg>,
        event: SupervisionEvent,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        if let Some((id, Fate::Ended)) = state.children.exited(&event) {
            if let SupervisionEvent::ActorFailed(_, error) = &event {
                tracing::error!(session.id = %id, "a session failed, which is a bug: {error}");
                state.ctx.sessions.pin().remove(&id.bits());
                let ended = &state.ctx.metrics.session_ends;
                ended.increment(SessionEnd::Failed, 1);
            }
            state.children.forget(&id);
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<SessionsMsg>,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        // The last words of the coalesced times. They are worth no wait: without them sessions end
        // some seconds of a day earlier.
        let last = Unsaved {
            seen: unsaved(&state.ctx),
            keys_used: state.ctx.take_keys_used(),
            purge: None,
        };
        let save = tokio::time::timeout(STORE_LAST_WORDS, save(&state.ctx.store, last));
        match save.await {
            Ok(left) if left.is_nothing() => {}
            _ => tracing::warn!("the last session times could not be saved"),
        }
        Ok(())
    }
}

impl SessionsState {
    /// Gives every live handle its actor.
    async fn adopt_all(&mut self, myself: &ActorRef<SessionsMsg>) {
        let live: Vec<_> = self.ctx.sessions.pin().values().cloned().collect();
        for session in live {
            if !session.is_revoked() && self.children.cell(session.id()).is_none() {
                self.adopt(myself, session).await;
            }
        }
    }

    async fn adopt(&mut self, myself: &ActorRef<SessionsMsg>, session: Arc<SessionHandle>) {
        let id = session.id().clone();
        let args = (Arc::clone(&self.ctx), session);
        let actor = measured(&self.ctx.metrics, ActorKind::Session, SessionActor);
        match Actor::spawn_linked(None, actor, args, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.children.started(&id, actor.get_cell());
                self.ctx
                    .changes
                    .note("up", "registered", || Who::Session(id));
            }
            Err(error) => tracing::error!(session.id = %id, "a session cannot start: {error}"),
        }
    }

    fn end(&self, id: &SessionId, cause: &'static str) {
        self.ctx
            .changes
            .note("ended", cause, || Who::Session(id.clone()));
        if let Some(cell) = self.children.cell(id) {
            let session: ActorRef<SessionMsg> = cell.clone().into();
            let _ = session.cast(SessionMsg::Expire);
        }
    }

    fn sweep(&mut self, myself: &ActorRef<SessionsMsg>) {
        let now = self.ctx.wall_ms();
        let is_out = |session: &SessionHandle| session.is_key_expired(now);
        if self.ctx.sessions.pin().values().any(|one| is_out(one)) {
            cut_off(&self.ctx, is_out);
        }
        let grace = Millis::try_from(self.ctx.settings.token_grace.as_millis()).unwrap_or(0);
        let sessions = self.ctx.sessions.pin();
        let over: Vec<Arc<SessionHandle>> = sessions
            .values()
            .filter(|session| session.is_over(now, grace))
            .cloned()
            .collect();
        // What was revoked ended then.
        let (_, expired): (Vec<_>, Vec<_>) = over
            .iter()
            .cloned()
            .partition(|session| session.is_revoked());
        self.ctx.sessions_ended(&expired, "expired");
        let aged: Vec<SessionId> = over.iter().map(|session| session.id().clone()).collect();
        for id in &aged {
            sessions.remove(&id.bits());
            self.end(id, "no activity for its whole lifetime");
        }
        let ended = &self.ctx.metrics.session_ends;
        ended.increment(SessionEnd::Expired, aged.len() as u64);
        if !aged.is_empty() {
            self.purge = Some(now.saturating_sub(grace));
        }
        if self.saving {
            return;
        }
        let unsaved = Unsaved {
            seen: unsaved(&self.ctx),
            keys_used: self.ctx.take_keys_used(),
            purge: self.purge.take(),
        };
        if unsaved.is_nothing() {
            return;
        }
        self.saving = true;
        let (store, myself) = (self.ctx.store.clone(), myself.clone());
        tokio::spawn(async move {
            let left = save(&store, unsaved).await;
            let _ = myself.cast(SessionsMsg::Saved(left));
        });
    }

    /// What could not be saved is kept for the next time.
    fn saved(&mut self, left: Unsaved) {
        self.saving = false;
        let sessions = self.ctx.sessions.pin();
        for one in &left.seen {
            if let Some(session) = sessions.get(&one.id.bits()) {
                session.not_saved();
            }
        }
        for (key, at) in &left.keys_used {
            self.ctx.note_key_used(key, *at);
        }
        self.purge = self.purge.max(left.purge);
    }
}

impl Unsaved {
    fn is_nothing(&self) -> bool {
        self.seen.is_empty() && self.keys_used.is_empty() && self.purge.is_none()
    }
}

/// Saves all it can, and gives back what it could not.
async fn save(store: &Store, mut unsaved: Unsaved) -> Unsaved {
    match store.touch_keys(&unsaved.keys_used).await {
        Ok(()) => unsaved.keys_used.clear(),
        Err(error) => tracing::warn!("the times keys were used are not saved yet: {error}"),
    }
    match store.extend_sessions(&unsaved.seen).await {
        Ok(()) => unsaved.seen.clear(),
        Err(error) => tracing::warn!("session times are not saved yet: {error}"),
    }
    if let Some(before) = unsaved.purge {
        match store.purge_sessions(before).await {
            Ok(_) => unsaved.purge = None,
            Err(error) => tracing::warn!("aged sessions are not removed yet: {error}"),
        }
    }
    unsaved
}

fn unsaved(ctx: &Ctx) -> Vec<SessionSeen> {
    let sessions = ctx.sessions.pin();
    sessions
        .values()
        .filter_map(|session| {
            let (seen_at, expires_at) = session.unsaved()?;
            Some(SessionSeen {
                id: session.id().clone(),
                seen_at,
                expires_at,
            })
        })
        .collect()
}

/// Loads the sessions of an earlier life: their tokens go on working.
async fn load(ctx: &Ctx) -> Result<(), crate::storage::StoreError> {
    let users: std::collections::HashMap<UserId, _> = ctx
        .store
        .users()
        .await?
        .into_iter()
        .map(|user| (user.id.clone(), user))
        .collect();
    let keys: std::collections::HashMap<KeyId, _> = ctx
        .store
        .keys(None)
        .await?
        .into_iter()
        .map(|key| (key.id, (key.revoked_at, key.expires_at)))
        .collect();
    let grace = Millis::try_from(ctx.settings.token_grace.as_millis()).unwrap_or(0);
    let rows = ctx
        .store
        .live_sessions(ctx.wall_ms().saturating_sub(grace))
        .await?;
    let sessions = ctx.sessions.pin();
    for row in rows {
        let Some(user) = users.get(&row.user) else {
            continue;
        };
        let bits = row.id.bits();
        // Without its key it could never be ended by it.
        let Some((revoked_at, expires_at)) = keys.get(&row.key) else {
            continue;
        };
        let handle = SessionHandle::new(row, user.clone(), *expires_at);
        // Also what a suspension ended while the store was away: it stays ended when it is lifted.
        if revoked_at.is_some() || ctx.suspension(handle.caller()).is_some() {
            handle.revoke();
        }
        sessions.get_or_insert(bits, Arc::new(handle));
    }
    Ok(())
}
