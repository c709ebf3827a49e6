//! A session: one registered client. The actor owns its end; requests use the handle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::domain::account::{Millis, Session, User};
use crate::domain::ids::{KeyId, SessionId};
use crate::domain::limits::SESSION_STALE;
use crate::domain::talk::{Level, Questions};
use crate::domain::verdict::Verdict;
use crate::protocol::extensions::Extensions;

use super::ctx::Ctx;
use super::isolate::IsolateMsg;
use super::slot::Principal;

/// What a request needs of a session: found by its token, without any actor.
#[derive(Debug)]
pub struct SessionHandle {
    id: SessionId,
    /// The key that registered it.
    pub key: KeyId,
    /// Whose it is.
    pub user: User,
    /// What was said at registration.
    pub row: Session,
    seen_at: AtomicI64,
    saved_at: AtomicI64,
    expires_at: AtomicI64,
    key_expires_at: Millis,
    revoked: AtomicBool,
    /// Its client said goodbye, and was not heard of since.
    left: AtomicBool,
    /// Its client ended it, and the token that it is of lives on: it is to begin again.
    ended: AtomicBool,
    /// What its client can answer.
    questions: AtomicU8,
    /// The extensions that its client declared since the gateway was started.
    extensions: ArcSwap<Extensions>,
    /// From which level on its client hears what servers log, if it said so.
    level: AtomicU8,
}

/// No level was said.
const NO_LEVEL: u8 = u8::MAX;

impl SessionHandle {
    /// The handle of a stored session; it never outlives its key.
    #[must_use]
    pub fn new(row: Session, user: User, key_expires_at: Option<Millis>) -> Self {
        let key_expires_at = key_expires_at.unwrap_or(Millis::MAX);
        Self {
            id: row.id.clone(),
            key: row.key.clone(),
            user,
            seen_at: AtomicI64::new(row.seen_at),
            saved_at: AtomicI64::new(row.seen_at),
            expires_at: AtomicI64::new(row.expires_at.min(key_expires_at)),
            key_expires_at,
            revoked: AtomicBool::new(false),
            left: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            questions: AtomicU8::new(row.questions.bits()),
            extensions: ArcSwap::default(),
            level: AtomicU8::new(NO_LEVEL),
            row,
        }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// What its client can answer when a server asks.
    #[must_use]
    pub fn questions(&self) -> Questions {
        Questions::from_bits(self.questions.load(Ordering::Relaxed))
    }

    /// Its client begins, and says what it can answer.
    pub fn declare(&self, questions: Questions) {
        self.ended.store(false, Ordering::Relaxed);
        self.questions.store(questions.bits(), Ordering::Relaxed);
    }

    /// Its client ended it: its id is none until a client begins again.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether its client did.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The extensions that its client has.
    #[must_use]
    pub fn extensions(&self) -> Arc<Extensions> {
        self.extensions.load_full()
    }

    /// Its client says which it has.
    pub fn extend(&self, extensions: Extensions) {
        self.extensions.store(Arc::new(extensions));
    }

    /// From which level on its client wants to hear what servers log, if it said so.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        Level::from_number(self.level.load(Ordering::Relaxed))
    }

    /// Its client says from which level on it wants to hear.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
    }

    /// When it ends without activity.
    #[must_use]
    pub fn expires_at(&self) -> Millis {
        self.expires_at.load(Ordering::Relaxed)
    }

    /// When it was last active.
    #[must_use]
    pub fn seen_at(&self) -> Millis {
        self.seen_at.load(Ordering::Relaxed)
    }

    /// It was active: it ends so much later.
    pub(super) fn touch(&self, now: Millis, ttl: Millis) {
        self.left.store(false, Ordering::Relaxed);
        self.seen_at.fetch_max(now, Ordering::Relaxed);
        self.expires_at.fetch_max(
            now.saturating_add(ttl).min(self.key_expires_at),
            Ordering::Relaxed,
        );
    }

    /// Whether it is over: aged beyond the grace.
    pub(super) fn is_over(&self, now: Millis, grace: Millis) -> bool {
        self.expires_at() <= now.saturating_sub(grace)
    }

    /// Whether its key has expired, which ends it without grace.
    pub(super) fn is_key_expired(&self, now: Millis) -> bool {
        self.key_expires_at <= now
    }

    /// For how long its key lives on; `None`: for ever.
    pub(super) fn key_lives_for(&self, now: Millis) -> Option<Duration> {
        if self.key_expires_at == Millis::MAX {
            return None;
        }
        let left = self.key_expires_at.saturating_sub(now);
        Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
    }

    /// Takes note that its activity was saved; `None` if there was none since.
    pub(super) fn unsaved(&self) -> Option<(Millis, Millis)> {
        let seen = self.seen_at();
        (self.saved_at.swap(seen, Ordering::Relaxed) != seen).then(|| (seen, self.expires_at()))
    }

    /// What was taken note of as saved was not: the next save has it again.
    pub(super) fn not_saved(&self) {
        self.saved_at.store(Millis::MIN, Ordering::Relaxed);
    }

    /// Its client said goodbye.
    pub(super) fn leave(&self) {
        self.left.store(true, Ordering::Relaxed);
    }

    /// Whether it may go when its key needs room: its client has left, or was not heard of for long.
    pub(super) fn is_spare(&self, now: Millis) -> bool {
        let unseen = now.saturating_sub(self.seen_at());
        let stale = Millis::try_from(SESSION_STALE.as_millis()).unwrap_or(Millis::MAX);
        self.left.load(Ordering::Relaxed) || unseen >= stale
    }

    /// No grace: its next request is refused.
    pub(super) fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// Whether it was revoked.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

/// How a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionMsg {
    /// It aged, or its client left for good.
    Expire,
}

/// The session actor: temporary, without traffic.
pub(super) struct SessionActor;

impl Actor for SessionActor {
    type Msg = SessionMsg;
    type State = (Arc<Ctx>, Arc<SessionHandle>);
    type Arguments = (Arc<Ctx>, Arc<SessionHandle>);

    async fn pre_start(
        &self,
        _myself: ActorRef<SessionMsg>,
        args: Self::Arguments,
    ) -> Result<Self::State, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        myself: ActorRef<SessionMsg>,
        SessionMsg::Expire: SessionMsg,
        (ctx, session): &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        // What was this session's alone goes with it.
        for slot in ctx.slots_of(Some(&session.user.id)) {
            if matches!(&slot.key.principal, Principal::Session(_, id) if *id == session.id) {
                let told = slot.actor().is_some_and(|isolate| {
                    isolate.cast(IsolateMsg::Leave(Verdict::Replaced)).is_ok()
                });
                if !told {
                    ctx.close_slot(&slot, "its session ended");
                }
            }
        }
        myself.stop(None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ConnectionId, ID_BYTES, UserId};
    use crate::domain::name::Name;

    #[test]
    fn activity_never_carries_a_session_beyond_its_key() {
        let user = User {
            id: UserId::from_random([1; ID_BYTES]),
            name: Name::parse("ada").unwrap(),
            created_at: 0,
        };
        let row = Session {
            id: SessionId::from_random([2; ID_BYTES]),
            key: KeyId::from_random([3; ID_BYTES]),
            user: user.id.clone(),
            connection: ConnectionId::from_random([4; ID_BYTES]),
            friendly_name: String::new(),
            host_tool: String::new(),
            questions: Questions::NONE,
            created_at: 0,
            seen_at: 0,
            expires_at: 500,
        };
        let session = SessionHandle::new(row.clone(), user.clone(), Some(300));
        assert_eq!(session.expires_at(), 300);
        session.touch(200, 500);
        assert_eq!(session.expires_at(), 300);
        assert!(!session.is_key_expired(299) && session.is_key_expired(300));
        assert!(!session.is_over(399, 100) && session.is_over(400, 100));
        let free = SessionHandle::new(row, user, None);
        free.touch(200, 500);
        assert_eq!(free.expires_at(), 700);
        assert!(!free.is_key_expired(Millis::MAX - 1));
    }
}
