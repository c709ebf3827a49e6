//! Registering and authenticating: keys once, tokens on every call.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::account::{Key, Millis, Session};
use crate::domain::audit::Category;
use crate::domain::code::Code;
use crate::domain::ids::{ConnectionId, SessionId};
use crate::domain::kill::Caller;
use crate::domain::limits::SESSIONS_MAX;
use crate::domain::token::PresharedKey;
use crate::storage::StoreError;
use crate::telemetry::metrics::labels::{Auth, AuthMethod};

use super::super::access::AccessKeys;
use super::super::audit::{AuditError, Entry};
use super::super::clock::{id_bits, random};
use super::super::ctx::Ctx;
use super::super::failure;
use super::super::session::SessionHandle;
use super::super::sessions::SessionsMsg;
use super::{Refusal, Registered, Registration};

fn refuse(code: Code, message: impl Into<String>) -> Refusal {
    Refusal {
        code,
        message: message.into(),
        retry_after: None,
    }
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

pub(super) fn authenticate(
    ctx: &Ctx,
    token: Option<&str>,
    from: Option<IpAddr>,
) -> Result<Arc<SessionHandle>, Refusal> {
    let began = Instant::now();
    let decided = decide(ctx, token, from);
    let outcome = decided
        .as_ref()
        .map_or_else(|refusal| Auth::of(refusal.code), |_| Auth::Ok);
    ctx.metrics
        .auth(AuthMethod::Session, outcome, began.elapsed());
    decided
}

fn decide(
    ctx: &Ctx,
    token: Option<&str>,
    from: Option<IpAddr>,
) -> Result<Arc<SessionHandle>, Refusal> {
    let Some(token) = token else {
        return Err(refuse(
            Code::Unauthorized,
            "the header X-Session-Token is missing; register first",
        ));
    };
    let access = access(ctx)?;
    let genuine = access.tokens.verify(token).map_err(|error| {
        let refusal = refuse(Code::Unauthorized, error.to_string());
        record_refused(ctx, None, &refusal, from);
        refusal
    })?;
    let Some(session) = ctx.sessions.pin().get(&genuine.session).cloned() else {
        let refusal = refuse(
            Code::SessionExpired,
            "the session has ended; register again",
        );
        record_refused(ctx, None, &refusal, from);
        return Err(refusal);
    };
    match takes(ctx, &session, genuine.signed_by_rotated) {
        Ok(()) => Ok(session),
        Err(refusal) => {
            record_refused(ctx, Some(&session), &refusal, from);
            Err(refusal)
        }
    }
}

/// Whether a known session's genuine token is still good; if so, the session lives on.
pub(super) fn takes(
    ctx: &Ctx,
    session: &SessionHandle,
    signed_by_rotated: Option<Millis>,
) -> Result<(), Refusal> {
    let now = ctx.wall_ms();
    if session.is_revoked()
        || session.is_key_expired(now)
        || ctx.suspension(session.caller()).is_some()
    {
        return Err(refuse(
            Code::SessionSuspended,
            "this session, its key or its user was revoked or suspended, or the key has expired; \
             ask your operator",
        ));
    }
    let grace = millis(ctx.settings.token_grace);
    let rotated = signed_by_rotated.is_some_and(|at| at.saturating_add(grace) < now);
    if rotated || session.is_over(now, grace) {
        return Err(refuse(
            Code::SessionExpired,
            "the session has expired; register again",
        ));
    }
    session.touch(now, millis(ctx.settings.session_ttl));
    Ok(())
}

pub(super) fn access(ctx: &Ctx) -> Result<Arc<AccessKeys>, Refusal> {
    let starting = || {
        refuse(
            Code::Starting,
            "the gateway is starting; try again in a moment",
        )
    };
    ctx.access.load_full().ok_or_else(starting)
}

pub(super) async fn register(
    ctx: &Arc<Ctx>,
    registration: Registration,
) -> Result<Registered, Refusal> {
    if !ctx.may(Category::Auth) {
        // Before anything is stored or counted: what cannot be recorded does not happen.
        return Err(refuse(
            Code::AuditUnavailable,
            "not registered: the audit log cannot be written; tell your operator",
        ));
    }
    let began = Instant::now();
    let result = try_register(ctx, &registration).await;
    let outcome = result
        .as_ref()
        .map_or_else(|refusal| Auth::of(refusal.code), |_| Auth::Ok);
    // Registering is an authentication decision: it counts only if it is on record.
    let recorded = record(ctx, &registration, &result).await;
    ctx.metrics.auth(AuthMethod::Key, outcome, began.elapsed());
    match recorded {
        Ok(()) => result,
        Err(error) => {
            if let Ok(registered) = &result {
                end(ctx, &registered.session).await;
            }
            Err(refuse(
                Code::AuditUnavailable,
                format!("not registered: {error}; tell your operator"),
            ))
        }
    }
}

/// Records who was let in, and who was not: of many alike the first, then how many.
async fn record(
    ctx: &Ctx,
    registration: &Registration,
    result: &Result<Registered, Refusal>,
) -> Result<(), AuditError> {
    use secrecy::ExposeSecret;
    // Only a key that has the form of one has a public part; the rest is never repeated.
    let presented = PresharedKey::parse(registration.preshared_key.expose_secret());
    let prefix = presented.as_ref().map_or("", |key| key.public_prefix());
    let entry = Entry::new("auth.register", ctx.wall_ms())
        .field("client", &registration.friendly_name)
        .field("host_tool", &registration.host_tool)
        .field("prefix", prefix);
    let entry = with_address(entry, registration.from);
    let entry = match result {
        Ok(registered) => {
            let id = registered.session.bits();
            let handle = ctx.sessions.pin().get(&id).cloned();
            let entry = entry
                .field("outcome", "ok")
                .field("session", registered.session.as_str());
            match handle {
                Some(handle) => entry
                    .field("user", handle.user.id.as_str())
                    .field("key", handle.key.as_str()),
                None => entry,
            }
        }
        Err(refusal) => {
            let code = refusal.code.as_str();
            if !ctx.refusals.is_first("register", prefix, code) {
                return Ok(());
            }
            entry.field("outcome", code)
        }
    };
    ctx.audit.commit(entry).await
}

/// Records a token that was not taken: of many alike the first, then how many.
pub(super) fn record_refused(
    ctx: &Ctx,
    session: Option<&SessionHandle>,
    refusal: &Refusal,
    from: Option<IpAddr>,
) {
    let (code, who) = (
        refusal.code.as_str(),
        session.map_or("", |session| session.id().as_str()),
    );
    if !ctx.refusals.is_first("token", who, code) {
        return;
    }
    let entry = Entry::new("auth.refused", ctx.wall_ms()).field("outcome", code);
    let mut entry = with_address(entry, from);
    if let Some(session) = session {
        entry = entry
            .field("session", who)
            .field("user", session.user.id.as_str())
            .field("key", session.key.as_str());
    }
    ctx.audit.post(entry);
}

/// Where a client is, if it is known.
fn with_address(entry: Entry, from: Option<IpAddr>) -> Entry {
    match from {
        Some(from) => entry.field("address", &from.to_string()),
        None => entry,
    }
}

/// Ends a session so that it takes no room from its key.
pub(super) async fn end(ctx: &Ctx, id: &SessionId) {
    if let Some(handle) = ctx.sessions.pin().remove(&id.bits()) {
        handle.revoke();
    }
    if let Some(sessions) = ctx.sessions_actor() {
        // If it is restarting it adopts only what is left.
        let _ = sessions.cast(SessionsMsg::Revoked(vec![id.clone()]));
    }
    if let Err(error) = ctx.store.end_session(id).await {
        tracing::warn!(session.id = %id, "a session that has ended stays stored until it ages: {error}");
    }
}

fn unknown() -> Refusal {
    refuse(
        Code::KeyUnknown,
        "this preshared key is not known here, or no longer; check it, or ask your operator for \
         another (legation key create)",
    )
}

/// The key whose text this is, if it is good now.
pub(super) async fn key_of(ctx: &Ctx, text: &str) -> Result<Key, Refusal> {
    let Ok(presented) = PresharedKey::parse(text) else {
        return Err(unknown());
    };
    let prefix = presented.public_prefix();
    // Only failures are held back: whoever has the right key is never locked out by others' tries.
    let failed = || match ctx.failures.wait(prefix) {
        Some(wait) => {
            let left = wait.as_secs() + 1;
            let message = format!("too many failed registrations with this key; wait {left} s");
            Refusal {
                code: Code::RateLimited,
                message,
                retry_after: Some(wait),
            }
        }
        None => {
            ctx.failures.count(prefix);
            unknown()
        }
    };
    let key = match ctx.store.key_by_prefix(prefix).await {
        Ok(key) => key,
        Err(StoreError::NotFound { .. }) => return Err(failed()),
        Err(error) => return Err(store_away(&error)),
    };
    let access = access(ctx)?;
    let pepper = &access.pepper;
    if pepper.id() != key.pepper_id || !presented.matches(&key.digest, pepper) {
        return Err(failed());
    }
    let now = ctx.wall_ms();
    if key.revoked_at.is_some() || key.expires_at.is_some_and(|at| at <= now) {
        return Err(unknown());
    }
    if let Some(deny) = ctx.suspension(caller(&key)) {
        let reason = failure::denied(&deny);
        // Of a key as well: the client must not take it for a session that only has to be renewed.
        return Err(refuse(Code::UserDisabled, reason.text));
    }
    Ok(key)
}

async fn try_register(ctx: &Arc<Ctx>, registration: &Registration) -> Result<Registered, Refusal> {
    use secrecy::ExposeSecret;
    let key = key_of(ctx, registration.preshared_key.expose_secret()).await?;
    let access = access(ctx)?;
    let now = ctx.wall_ms();
    room(ctx, &key, now).await?;
    let user = ctx
        .store
        .user(&key.user)
        .await
        .map_err(|error| store_away(&error))?;
    let row = Session {
        id: SessionId::from_random(id_bits()),
        key: key.id.clone(),
        user: user.id.clone(),
        connection: ConnectionId::from_random(id_bits()),
        friendly_name: registration.friendly_name.clone(),
        host_tool: registration.host_tool.clone(),
        questions: registration.questions,
        created_at: now,
        seen_at: now,
        expires_at: now
            .saturating_add(millis(ctx.settings.session_ttl))
            .min(key.expires_at.unwrap_or(Millis::MAX)),
    };
    ctx.store
        .create_session(&row)
        .await
        .map_err(|error| store_away(&error))?;
    let token = access.tokens.sign(&row.id, now, &random());
    let registered = Registered {
        session: row.id.clone(),
        token,
        connection: row.connection.clone(),
        expires_at: row.expires_at,
        user: user.name.clone(),
    };
    let handle = Arc::new(SessionHandle::new(row, user, key.expires_at));
    ctx.sessions
        .pin()
        .insert(registered.session.bits(), Arc::clone(&handle));
    // A key revoked or a user suspended in this very moment: their sweep may have missed us.
    let still = ctx
        .store
        .key(&key.id)
        .await
        .is_ok_and(|key| key.revoked_at.is_none());
    if !still || ctx.suspension(caller(&key)).is_some() {
        end(ctx, &registered.session).await;
        return Err(unknown());
    }
    if let Some(sessions) = ctx.sessions_actor() {
        // If it is restarting it adopts all handles when it is up.
        let _ = sessions.cast(SessionsMsg::Add(handle));
    }
    ctx.note_key_used(&key.id, now);
    Ok(registered)
}

fn caller(key: &Key) -> Caller<'_> {
    Caller {
        user: &key.user,
        key: &key.id,
    }
}

/// Registering ends no session that is in use. Where a key has all it may have, one that was left
/// behind makes room: a client that is started anew for every task leaves hundreds a day.
async fn room(ctx: &Ctx, key: &Key, now: Millis) -> Result<(), Refusal> {
    let (spare, of_key, all) = {
        let sessions = ctx.sessions.pin();
        let own = || {
            let live = |s: &&Arc<SessionHandle>| s.key == key.id && !s.is_revoked();
            sessions.values().filter(live)
        };
        let of_key = own().count();
        if of_key < ctx.settings.sessions_per_key_max && sessions.len() < SESSIONS_MAX {
            return Ok(());
        }
        let spare = own().filter(|s| s.is_spare(now));
        let oldest = spare.min_by_key(|s| s.seen_at()).cloned();
        (oldest, of_key, sessions.len())
    };
    if let Some(spare) = spare {
        tracing::info!(session.id = %spare.id(), "a session that was left behind makes room");
        end(ctx, spare.id()).await;
        return Ok(());
    }
    let message = if all >= SESSIONS_MAX {
        format!("the server has {all} live sessions, which is the most; tell your operator")
    } else {
        format!(
            "this key has {of_key} live sessions, which is the most, and all were used in the last \
             quarter of an hour; close some of your clients, or use another key"
        )
    };
    Err(Refusal {
        code: Code::SessionsMax,
        message,
        retry_after: Some(Duration::from_secs(60)),
    })
}

fn store_away(error: &StoreError) -> Refusal {
    if error.is_away() {
        tracing::debug!("a registration was refused: {error}");
    } else {
        tracing::error!("a registration failed: {error}");
    }
    Refusal {
        code: Code::StoreUnavailable,
        message: "the gateway's store does not answer; try again in a moment".to_owned(),
        retry_after: Some(Duration::from_secs(5)),
    }
}
