//! What an MCP client asks beside calling tools: resources, prompts, completions. It goes the way of a
//! call, recorded under the method's name.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::domain::code::Code;
use crate::domain::ids::CallId;
use crate::domain::limits::{ABILITIES_WAIT, EXTENSION_METHOD_CHARS_MAX};
use crate::domain::name::{NameError, ToolName};
use crate::domain::talk::{Question, Questions};
use crate::protocol::card::Card;
use crate::protocol::extensions::Extensions;
use crate::protocol::handshake::Abilities;
use crate::telemetry::metrics::mcp::CallMeter;

use super::super::catalog::{Published, Route};
use super::super::clock::id_bits;
use super::super::ears::Subscriber;
use super::super::failure::Reason;
use super::super::router::Ask;
use super::super::session::SessionHandle;
use super::admit::{admissible, within_rate};
use super::watch::{self, SUBSCRIBE, UNSUBSCRIBE};
use super::{Aside, Front, Outcome};

/// The methods that are passed on.
const METHODS: [&str; 8] = [
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "prompts/list",
    "prompts/get",
    "completion/complete",
    SUBSCRIBE,
    UNSUBSCRIBE,
];
/// What starts a server to see what it can do.
pub(super) const LOOK: &str = "ping";

/// Methods of the protocol that are answered here, or are nobody's to ask; what begins with one of [`KINDS`] is as well.
const OURS: [&str; 9] = [
    "initialize",
    "ping",
    "server/discover",
    "tools/list",
    "tools/call",
    "logging/setLevel",
    "sampling/createMessage",
    "elicitation/create",
    "roots/list",
];
const KINDS: [&str; 4] = ["tasks/", "subscriptions/", "notifications/", "rpc."];

/// A method that is passed on.
#[derive(Debug, Clone)]
pub struct Method(Cow<'static, str>);

impl Method {
    /// The method of this name, if it is passed on to servers.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let found = METHODS.into_iter().find(|method| *method == name);
        found.map(|method| Self(Cow::Borrowed(method)))
    }

    /// The method of this name, if only an extension can have it.
    #[must_use]
    pub fn of_extension(name: &str) -> Option<Self> {
        let known = OURS.contains(&name) || METHODS.contains(&name);
        let is_ours = known || KINDS.iter().any(|kind| name.starts_with(kind));
        let fits = name.len() <= EXTENSION_METHOD_CHARS_MAX && tool_of(name).is_ok();
        (fits && !is_ours).then(|| Self(Cow::Owned(name.to_owned())))
    }

    /// Whether it is an extension's.
    #[must_use]
    pub const fn is_extensions(&self) -> bool {
        matches!(self.0, Cow::Owned(_))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl Front {
    /// Asks a server of an mcp that the session sees; `None` if it sees nothing of it.
    pub async fn ask(
        &self,
        session: &Arc<SessionHandle>,
        mcp: &str,
        method: &Method,
        params: &RawValue,
        aside: &Aside<'_>,
    ) -> Option<Outcome> {
        let published = self.published(session, mcp)?;
        Some(match method.name() {
            SUBSCRIBE | UNSUBSCRIBE => {
                let (who, asked) = (session.id().bits(), (method.name(), params));
                let outcome = self.watch(session, &published, asked, aside, who).await;
                let begins = method.name() == SUBSCRIBE && matches!(outcome, Outcome::Answered(_));
                if begins && let Some(uri) = watch::uri_of(params) {
                    let what = [(mcp.to_owned(), uri.into_owned())];
                    self.told_of(session, &what, aside.questions).await;
                }
                outcome
            }
            _ => {
                self.asked(session, &published, method.name(), params, aside)
                    .await
            }
        })
    }

    /// A session's client works on other directories than before: those that asked for them may ask again.
    pub fn roots_changed(&self, session: &SessionHandle) {
        for slot in self.ctx.slots_of(Some(&session.user.id)) {
            if let Some(handle) = slot.ready() {
                handle.roots_changed();
            }
        }
    }

    /// What the servers of an mcp can do; `None` if the session sees nothing of it. One of which that is
    /// not known is started, and one that does not start can do nothing but what its tools say.
    pub async fn abilities(
        &self,
        session: &Arc<SessionHandle>,
        questions: Questions,
        mcp: &str,
    ) -> Option<Abilities> {
        let published = self.published(session, mcp)?;
        let known = || self.ctx.abilities.of(&published);
        if let Some(able) = known() {
            return Some(able);
        }
        if let Ok(none) = serde_json::from_str("{}") {
            let aside = Aside {
                questions,
                ..Aside::default()
            };
            let look = self.asked(session, &published, LOOK, none, &aside);
            let _ = tokio::time::timeout(ABILITIES_WAIT, look).await;
        }
        Some(known().unwrap_or_default())
    }

    /// What the servers of an mcp say of themselves to the session's user; `None` if none did yet, or the session sees
    /// nothing of it.
    #[must_use]
    pub fn card(&self, session: &SessionHandle, mcp: &str) -> Option<Arc<Card>> {
        let published = self.published(session, mcp)?;
        let (mcp, config) = (&published.mcp.id, &published.config);
        self.ctx.abilities.card(mcp, config, &session.user.id)
    }

    /// Those of a client's extensions that the server of an mcp has as well. Where there are many servers, there are none.
    #[must_use]
    pub fn common(
        &self,
        session: &SessionHandle,
        mcp: Option<&str>,
        declared: &Extensions,
    ) -> Extensions {
        let mcp = mcp.filter(|_| !declared.is_empty());
        let card = mcp.and_then(|mcp| self.card(session, mcp));
        card.map_or(Extensions::NONE, |card| declared.both(&card.extensions))
    }

    /// Subscribes to a resource for a client without a session, or ends that; gives whether it did.
    pub async fn watch_for(
        &self,
        session: &Arc<SessionHandle>,
        (mcp, uri): (&str, &str),
        questions: Questions,
        who: Subscriber,
        begins: bool,
    ) -> bool {
        let Some(published) = self.published(session, mcp) else {
            return false;
        };
        let params = serde_json::json!({ "uri": uri });
        let Ok(params) = serde_json::value::to_raw_value(&params) else {
            return false;
        };
        let method = if begins { SUBSCRIBE } else { UNSUBSCRIBE };
        let aside = Aside {
            questions,
            ..Aside::default()
        };
        let asked = (method, &*params);
        let outcome = self.watch(session, &published, asked, &aside, who).await;
        matches!(outcome, Outcome::Answered(_))
    }

    /// Whether an mcp that the session sees may ask this of its clients.
    #[must_use]
    pub fn permits(&self, session: &SessionHandle, mcp: &str, question: Question) -> bool {
        let published = self.published(session, mcp);
        published.is_some_and(|published| published.mcp.talk.questions.has(question))
    }

    pub(super) fn published(&self, session: &SessionHandle, mcp: &str) -> Option<Published> {
        let routes = self.ctx.routes.load();
        routes.view(&session.key)?.mcp(mcp).cloned()
    }

    pub(super) async fn asked(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        method: &str,
        params: &RawValue,
        aside: &Aside<'_>,
    ) -> Outcome {
        // Looking what a server can do as well: it may start one.
        match within_rate(&self.ctx, session) {
            Ok(()) => self.passed(session, published, method, params, aside).await,
            Err(reason) => self.not_passed(session, published, method, reason).await,
        }
    }

    /// The same when the key's rate has been looked at.
    pub(super) async fn passed(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        method: &str,
        params: &RawValue,
        aside: &Aside<'_>,
    ) -> Outcome {
        let admitted = Instant::now();
        let ctx = &self.ctx;
        let refusal = match tool_of(method) {
            Ok(tool) => {
                let route = Route {
                    exposed: method.into(),
                    tool,
                    published: published.clone(),
                    definition: RawValue::NULL.to_owned().into(),
                    schema: None,
                };
                match admissible(ctx, session, &route) {
                    Ok(()) => {
                        let call = CallId::from_random(id_bits());
                        ctx.totals.calls.fetch_add(1, Ordering::Relaxed);
                        let params_bytes = params.get().as_bytes();
                        let ask = Ask::Method {
                            name: method,
                            params: params_bytes,
                        };
                        return self
                            .carried(session, &route, params, (ask, aside), call, admitted)
                            .await;
                    }
                    Err(reason) => reason,
                }
            }
            Err(error) => Reason::new(Code::Internal, error.to_string()),
        };
        self.not_passed(session, published, method, refusal).await
    }

    async fn not_passed(
        &self,
        session: &SessionHandle,
        published: &Published,
        method: &str,
        refusal: Reason,
    ) -> Outcome {
        let admitted = Instant::now();
        let call = CallId::from_random(id_bits());
        self.ctx.totals.calls.fetch_add(1, Ordering::Relaxed);
        let meter = CallMeter::refused(Arc::clone(&published.meter));
        self.refused(session, &call, (Some(published), method), &refusal)
            .await;
        self.failed(
            call,
            Some(published.mcp.name.clone()),
            refusal,
            admitted,
            &meter,
        )
    }
}

/// A method as the log, limits and switches have it. A tool's name has no slash, so none is taken for a method.
pub(super) fn tool_of(method: &str) -> Result<ToolName, NameError> {
    ToolName::parse(&method.replace('/', "."))
}
