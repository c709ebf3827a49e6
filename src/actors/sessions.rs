//! The supervisor of sessions: one sweep for all their deadlines, one transaction for all that
//! was seen of them.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::domain::account::Millis;
use crate::domain::ids::{KeyId, SessionId, UserId};
use crate::domain::limits::COALESCE_EVERY;
use crate::storage::SessionSeen;
use crate::telemetry::metrics::labels::{ActorKind, SessionEnd};

use super::ctx::Ctx;
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
}

/// The service.
pub(super) struct Sessions;

/// What it knows.
pub(super) struct SessionsState {
    ctx: Arc<Ctx>,
    children: Children<SessionId>,
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
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<SessionsMsg>,
        state: &mut SessionsState,
    ) -> Result<(), ActorProcessingErr> {
        load(&state.ctx).await?;
        let live: Vec<_> = state.ctx.sessions.pin().values().cloned().collect();
        for session in live {
            if !session.is_revoked() {
                state.adopt(&myself, session).await;
            }
        }
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
                    state.end(id);
                }
            }
            SessionsMsg::Sweep => state.sweep(),
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
        // The last words of the coalesced times.
        let seen = unsaved(&state.ctx);
        if !seen.is_empty() {
            state.ctx.store.extend_sessions(&seen).await?;
        }
        Ok(())
    }
}

impl SessionsState {
    async fn adopt(&mut self, myself: &ActorRef<SessionsMsg>, session: Arc<SessionHandle>) {
        let id = session.id().clone();
        let args = (Arc::clone(&self.ctx), session);
        let actor = measured(&self.ctx.metrics, ActorKind::Session, SessionActor);
        match Actor::spawn_linked(None, actor, args, myself.get_cell()).await {
            Ok((actor, _)) => self.children.started(&id, actor.get_cell()),
            Err(error) => tracing::error!(session.id = %id, "a session cannot start: {error}"),
        }
    }

    fn end(&self, id: &SessionId) {
        if let Some(cell) = self.children.cell(id) {
            let session: ActorRef<SessionMsg> = cell.clone().into();
            let _ = session.cast(SessionMsg::Expire);
        }
    }

    fn sweep(&mut self) {
        let now = self.ctx.wall_ms();
        let grace = Millis::try_from(self.ctx.settings.token_grace.as_millis()).unwrap_or(0);
        let sessions = self.ctx.sessions.pin();
        let aged: Vec<SessionId> = sessions
            .values()
            .filter(|session| session.is_over(now, grace))
            .map(|session| session.id().clone())
            .collect();
        for id in &aged {
            sessions.remove(&id.bits());
            self.end(id);
        }
        let ended = &self.ctx.metrics.session_ends;
        ended.increment(SessionEnd::Expired, aged.len() as u64);
        let seen = unsaved(&self.ctx);
        let used = self.ctx.take_keys_used();
        if seen.is_empty() && aged.is_empty() && used.is_empty() {
            return;
        }
        let store = self.ctx.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.touch_keys(&used).await {
                tracing::warn!("the times keys were used could not be saved: {error}");
            }
            if let Err(error) = store.extend_sessions(&seen).await {
                // Lost: seconds of a lifetime of a day. The next activity saves it again.
                tracing::warn!("session times could not be saved: {error}");
            }
            if !aged.is_empty()
                && let Err(error) = store.purge_sessions(now.saturating_sub(grace)).await
            {
                tracing::warn!("aged sessions could not be removed: {error}");
            }
        });
    }
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
        if revoked_at.is_some() {
            handle.revoke();
        }
        sessions.get_or_insert(bits, Arc::new(handle));
    }
    Ok(())
}
