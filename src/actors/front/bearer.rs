//! Who speaks MCP: a client's key, or a session's token, in `Authorization: Bearer`.
//!
//! A key is shown with every request, and names a session beside it; the session says which user and
//! what was revoked. The store is asked for a key once; later its digest is enough, because whatever
//! ends the key ends its sessions.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use secrecy::{ExposeSecret, SecretString};

use crate::domain::code::Code;
use crate::domain::ids::{KeyId, SessionId};
use crate::domain::limits::BEARERS_MAX;
use crate::domain::talk::Questions;
use crate::domain::token::PresharedKey;
use crate::telemetry::metrics::labels::{Auth, AuthMethod, RpcMethod, RpcOutcome};

use super::super::ctx::Ctx;
use super::super::session::SessionHandle;
use super::register::{access, end, key_of, record_refused, takes};
use super::{Front, Refusal, Registration, ToolView};

/// Keys that were found good, by their digest.
#[derive(Debug, Default)]
pub struct Bearers {
    keys: papaya::HashMap<String, KeyId>,
    /// The sessions of keys whose clients have none of their own.
    standing: papaya::HashMap<KeyId, SessionId>,
    /// One is begun at a time, so that many first requests begin one.
    beginning: tokio::sync::Mutex<()>,
}

impl Bearers {
    fn remember(&self, digest: String, key: &KeyId) {
        let known = self.keys.pin();
        if known.len() >= BEARERS_MAX {
            known.clear();
        }
        known.insert(digest, key.clone());
    }
}

/// What a request proves itself with, and where it came from.
#[derive(Debug, Clone)]
pub struct Bearer {
    text: SecretString,
    from: Option<IpAddr>,
}

impl Bearer {
    /// A key or a token, unchecked.
    #[must_use]
    pub fn new(text: SecretString, from: Option<IpAddr>) -> Self {
        Self { text, from }
    }

    /// Whether it has the form of a key; else it is a session's token, or nothing.
    #[must_use]
    pub fn is_key(&self) -> bool {
        PresharedKey::parse(self.text()).is_ok()
    }

    pub(crate) fn text(&self) -> &str {
        self.text.expose_secret()
    }
}

/// What a standing session is called in tables.
const STANDING: &str = "clients without sessions";

fn refuse(code: Code, message: &str) -> Refusal {
    Refusal {
        code,
        message: message.to_owned(),
        retry_after: None,
    }
}

impl Front {
    /// A session for an MCP client that begins: a new one for a key, its own for a session's token.
    ///
    /// # Errors
    /// [`Refusal`], as for [`Front::register`] and [`Front::authenticate`].
    pub async fn begin(
        &self,
        bearer: &Bearer,
        client: String,
        questions: Questions,
    ) -> Result<Arc<SessionHandle>, Refusal> {
        if !bearer.is_key() {
            let session = self.by_token(bearer)?;
            session.declare(questions);
            return Ok(session);
        }
        let registration = Registration {
            preshared_key: bearer.text.clone(),
            friendly_name: client,
            host_tool: "mcp".to_owned(),
            questions,
            from: bearer.from,
        };
        let registered = self.register(registration).await?;
        let known = self.ctx.sessions.pin();
        known
            .get(&registered.session.bits())
            .cloned()
            .ok_or_else(gone)
    }

    /// The session an MCP client names.
    ///
    /// # Errors
    /// [`Refusal`]: the bearer is not good, no session is named, or it has ended.
    pub async fn resume(
        &self,
        bearer: &Bearer,
        session: Option<&str>,
    ) -> Result<Arc<SessionHandle>, Refusal> {
        if !bearer.is_key() {
            let own = self.by_token(bearer)?;
            return match session {
                Some(named) if named != own.id().as_str() || own.is_ended() => Err(gone()),
                _ => Ok(own),
            };
        }
        let began = Instant::now();
        let decided = self.resumed(bearer, session).await;
        let outcome = decided
            .as_ref()
            .map_or_else(|refusal| Auth::of(refusal.code), |_| Auth::Ok);
        let metrics = &self.ctx.metrics;
        metrics.auth(AuthMethod::Session, outcome, began.elapsed());
        decided
    }

    /// The session in whose name a client is served that knows of no sessions: its key's own standing one,
    /// which is begun anew when it has ended.
    ///
    /// # Errors
    /// [`Refusal`]: the bearer is not good, or its user or key is suspended.
    pub async fn standing(&self, bearer: &Bearer) -> Result<Arc<SessionHandle>, Refusal> {
        if !bearer.is_key() {
            return self.by_token(bearer);
        }
        let began = Instant::now();
        let decided = self.stood(bearer).await;
        let outcome = decided
            .as_ref()
            .map_or_else(|refusal| Auth::of(refusal.code), |_| Auth::Ok);
        let metrics = &self.ctx.metrics;
        metrics.auth(AuthMethod::Session, outcome, began.elapsed());
        decided
    }

    /// Whose key a bearer is of.
    ///
    /// # Errors
    /// [`Refusal`]: it is not good.
    pub async fn key_of(&self, bearer: &Bearer) -> Result<KeyId, Refusal> {
        if !bearer.is_key() {
            return self.by_token(bearer).map(|session| session.key.clone());
        }
        let known = known_key(&self.ctx, bearer.text()).await;
        known.inspect_err(|refusal| record_refused(&self.ctx, None, refusal, bearer.from))
    }

    async fn stood(&self, bearer: &Bearer) -> Result<Arc<SessionHandle>, Refusal> {
        let ctx = &self.ctx;
        let key = known_key(ctx, bearer.text()).await.inspect_err(|refusal| {
            record_refused(ctx, None, refusal, bearer.from);
        })?;
        if let Some(session) = self.standing_of(&key) {
            return Ok(session);
        }
        let _turn = ctx.bearers.beginning.lock().await;
        if let Some(session) = self.standing_of(&key) {
            return Ok(session);
        }
        let session = self
            .begin(bearer, STANDING.to_owned(), Questions::NONE)
            .await?;
        let standing = ctx.bearers.standing.pin();
        if standing.len() >= BEARERS_MAX {
            standing.clear();
        }
        standing.insert(key, session.id().clone());
        Ok(session)
    }

    fn standing_of(&self, key: &KeyId) -> Option<Arc<SessionHandle>> {
        let ctx = &self.ctx;
        let id = ctx.bearers.standing.pin().get(key)?.bits();
        let session = ctx.sessions.pin().get(&id).cloned()?;
        // What ended it may be over; whoever may not begin again is told so.
        takes(ctx, &session, None).is_ok().then_some(session)
    }

    fn by_token(&self, bearer: &Bearer) -> Result<Arc<SessionHandle>, Refusal> {
        self.authenticate(Some(bearer.text()), bearer.from).map_err(|refusal| match refusal.code {
            // It may as well be a key that was copied badly.
            Code::Unauthorized => refuse(
                Code::Unauthorized,
                "this bearer is no client key and no session's token of this server; check it, or ask \
                 your operator for a key (legation key create)",
            ),
            _ => refusal,
        })
    }

    async fn resumed(
        &self,
        bearer: &Bearer,
        session: Option<&str>,
    ) -> Result<Arc<SessionHandle>, Refusal> {
        let ctx = &self.ctx;
        let key = known_key(ctx, bearer.text()).await.inspect_err(|refusal| {
            record_refused(ctx, None, refusal, bearer.from);
        })?;
        let Some(named) = session else {
            let text = "the header Mcp-Session-Id is missing; begin with `initialize`";
            return Err(refuse(Code::InvalidRequest, text));
        };
        let id = SessionId::parse(named).map_err(|_| gone())?;
        let found = ctx.sessions.pin().get(&id.bits()).cloned();
        // Another key's session is no session of this one.
        let session = found
            .filter(|session| session.key == key)
            .ok_or_else(gone)?;
        let taken = takes(ctx, &session, None).inspect_err(|refusal| {
            record_refused(ctx, Some(&session), refusal, bearer.from);
        });
        match taken {
            Ok(()) => Ok(session),
            // Its user was suspended and is back: a client begins again when a session is gone, and gives up
            // when it is not authorized.
            Err(_) if session.is_revoked() && ctx.suspension(session.caller()).is_none() => {
                Err(gone())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Ends the session of a client that leaves for good. One that belongs to a token lives on: the
    /// token is still somebody's.
    pub async fn leave(&self, bearer: &Bearer, session: &SessionHandle) {
        if bearer.is_key() {
            end(&self.ctx, session.id()).await;
        } else {
            session.leave();
        }
    }

    /// A message of an MCP client was answered.
    pub fn answered(&self, method: RpcMethod, outcome: RpcOutcome) {
        self.ctx.metrics.rpc(method, outcome);
    }

    /// The tools of one mcp by their own names; `None` if the session sees nothing of it.
    #[must_use]
    pub fn tools_of(&self, session: &SessionHandle, mcp: &str) -> Option<Vec<ToolView>> {
        let routes = self.ctx.routes.load();
        let own = || {
            let all = routes.view(&session.key).into_iter();
            all.flat_map(|view| view.routes())
                .filter(|route| route.published.mcp.name.as_str() == mcp)
        };
        routes.view(&session.key)?.mcp(mcp)?;
        let allowed = own().filter(|route| {
            let id = &route.published.mcp.id;
            self.ctx.denies_call(session, id, &route.tool).is_none()
        });
        let view = |route: &super::Route| ToolView {
            name: route.tool.to_string(),
            mcp: route.published.mcp.name.clone(),
            definition: Arc::clone(&route.definition),
        };
        Some(allowed.map(view).collect())
    }
}

/// Whose key this is.
async fn known_key(ctx: &Ctx, bearer: &str) -> Result<KeyId, Refusal> {
    let presented = PresharedKey::parse(bearer).map_err(|_| gone())?;
    let digest = presented.digest(&access(ctx)?.pepper);
    if let Some(key) = ctx.bearers.keys.pin().get(&digest) {
        return Ok(key.clone());
    }
    let key = key_of(ctx, bearer).await?;
    ctx.bearers.remember(digest, &key.id);
    Ok(key.id)
}

fn gone() -> Refusal {
    refuse(
        Code::NotFound,
        "there is no such session, or it has ended; begin again with `initialize`",
    )
}
