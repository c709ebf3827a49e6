//! Subscriptions to resources: kept by isolate and resource, so that its server is asked once however many subscribe.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::code::Code;
use crate::domain::era::Era;
use crate::domain::ids::CallId;
use crate::domain::limits::WATCHED_URI_BYTES_MAX;
use crate::telemetry::metrics::mcp::CallMeter;

use super::super::catalog::Published;
use super::super::clock::id_bits;
use super::super::ears::Subscriber;
use super::super::failure::Reason;
use super::super::router;
use super::super::session::SessionHandle;
use super::ask::LOOK;
use super::{Answer, Aside, Front, Outcome};

pub(super) const SUBSCRIBE: &str = "resources/subscribe";
pub(super) const UNSUBSCRIBE: &str = "resources/unsubscribe";

impl Front {
    /// Subscribes to a resource in the name of `who`, or ends that.
    pub(super) async fn watch(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        (method, params): (&'static str, &RawValue),
        aside: &Aside<'_>,
        who: Subscriber,
    ) -> Outcome {
        #[derive(Deserialize)]
        struct Params<'a> {
            #[serde(borrow)]
            uri: Cow<'a, str>,
        }
        let uri = match serde_json::from_str::<Params<'_>>(params.get()) {
            Ok(Params { uri }) if uri.len() <= WATCHED_URI_BYTES_MAX => uri,
            _ => {
                let text = format!("`uri` must be text of at most {WATCHED_URI_BYTES_MAX} bytes");
                return self.unfit(published, Reason::new(Code::InvalidRequest, text));
            }
        };
        let ctx = &self.ctx;
        if ctx.eras.of(&published.mcp.id, &published.config).is_none() {
            // Which way it goes is known when one of its servers was there.
            let mcp = published.mcp.name.as_str();
            let _ = self.abilities(session, aside.questions, mcp).await;
        }
        let slot = router::find(ctx, session, published, aside.questions);
        if method == UNSUBSCRIBE {
            return match slot.watched.remove(&uri, who) && !self.is_modern(published) {
                true => self.asked(session, published, method, params, aside).await,
                false => nothing_to_do(published),
            };
        }
        // Who left without a word makes room.
        slot.watched
            .keep(|who| ctx.sessions.pin().contains_key(who) || ctx.ears.is_open(who));
        if slot.watched.add(&uri, who).is_err() {
            let text =
                "too many resources of this server are subscribed to; end some of that first";
            return self.unfit(published, Reason::new(Code::Busy, text));
        }
        let outcome = match self.is_modern(published) {
            true => self.watch_modern(session, published, aside).await,
            false => self.asked(session, published, method, params, aside).await,
        };
        if matches!(outcome, Outcome::Failed(_)) {
            slot.watched.remove(&uri, who);
        }
        outcome
    }

    pub(super) fn is_modern(&self, published: &Published) -> bool {
        let era = self.ctx.eras.of(&published.mcp.id, &published.config);
        era == Some(Era::Modern)
    }

    /// A server without sessions is listened to ([`super::super::run`]), as far as it is there and can do this.
    async fn watch_modern(
        &self,
        session: &Arc<SessionHandle>,
        published: &Published,
        aside: &Aside<'_>,
    ) -> Outcome {
        let mcp = published.mcp.name.as_str();
        let able = self.abilities(session, aside.questions, mcp).await;
        if !able.unwrap_or_default().subscribe {
            let text = format!("the server of mcp `{mcp}` tells nothing of single resources");
            return self.unfit(published, Reason::new(Code::ServerError, text));
        }
        let looked = match serde_json::from_str("{}") {
            Ok(none) => self.asked(session, published, LOOK, none, aside).await,
            Err(_) => return nothing_to_do(published),
        };
        match looked {
            Outcome::Answered(_) => nothing_to_do(published),
            failed @ Outcome::Failed(_) => failed,
        }
    }

    fn unfit(&self, published: &Published, reason: Reason) -> Outcome {
        let meter = CallMeter::refused(Arc::clone(&published.meter));
        let call = CallId::from_random(id_bits());
        let admitted = tokio::time::Instant::now();
        self.failed(
            call,
            Some(published.mcp.name.clone()),
            reason,
            admitted,
            &meter,
        )
    }
}

/// Others are subscribed still, so its server is not told.
fn nothing_to_do(published: &Published) -> Outcome {
    let meter = CallMeter::begin(Arc::clone(&published.meter), 0);
    meter.answered(2);
    Outcome::Answered(Answer {
        call: CallId::from_random(id_bits()),
        mcp: published.mcp.name.clone(),
        line: Bytes::from_static(b"{}"),
        result: 0..2,
        modern: false,
        took: Duration::ZERO,
        meter,
    })
}
