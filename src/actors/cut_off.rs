//! The calls under way of a key that is good no more are cut off, where they wait and where they
//! are in flight: an answer that comes after the key is gone is nobody's.

use std::collections::HashSet;
use std::sync::Arc;

use super::calls::Why;
use super::ctx::Ctx;
use super::session::SessionHandle;
use super::sessions::SessionsMsg;
use super::slot::Slot;

/// Revokes the sessions that match; their handles stay to say so. Gives how many.
pub(super) fn revoke_sessions(ctx: &Ctx, of: impl Fn(&SessionHandle) -> bool) -> u64 {
    let sessions = ctx.sessions.pin();
    let hit: Vec<_> = sessions
        .values()
        .filter(|session| !session.is_revoked() && of(session))
        .cloned()
        .collect();
    for session in &hit {
        session.revoke();
    }
    ctx.sessions_ended(&hit, "revoked");
    let ids = hit.iter().map(|session| session.id().clone()).collect();
    if let Some(actor) = ctx.sessions_actor() {
        let _ = actor.cast(SessionsMsg::Revoked(ids));
    }
    hit.len() as u64
}

/// Cuts off the calls of the sessions that are meant, which are marked already: a call that looks
/// after we did sees the mark. Their callers are told, their servers too. Gives how many.
pub(super) fn cut_off(ctx: &Ctx, meant: impl Fn(&SessionHandle) -> bool) -> u64 {
    let mut hit = HashSet::new();
    let words: Arc<str> = Why::Revoked.text().into();
    // First where they wait, then where they fly: one that goes from here to there sees it.
    for seated in ctx.waiting.all() {
        if meant(&seated.tag.session) {
            ctx.waiting.cancel(&seated.tag.call, &words);
            hit.insert(seated.tag.call);
        }
    }
    let slots: Vec<Arc<Slot>> = ctx.slots.pin().values().cloned().collect();
    for run in slots.iter().filter_map(|slot| slot.occupant()) {
        let tags = run.handle.tags().into_iter();
        hit.extend(tags.filter(|tag| meant(&tag.session)).map(|tag| tag.call));
        run.handle
            .cancel_where(|tag| meant(&tag.session), &Why::Revoked);
    }
    hit.len() as u64
}
