//! The stream of what is about no request: kept open, opened again when it ends, and with it the
//! bridge's way of finding out that the server is back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::again::ask_again;
use super::events::Events;
use super::http::{Ask, Kind, LAST_EVENT, OPEN};
use super::link::Link;
use super::reach::pause;
use super::session::{self, Failure};
use crate::domain::limits::{BRIDGE_BEGIN_WAIT, BRIDGE_CONNECT_MAX};

/// What to do after a try.
enum Next {
    /// At once.
    Now,
    /// After a pause.
    Later,
    /// When something changes.
    Nudge,
}

/// Listens for as long as it is not dropped.
pub(super) async fn listen(link: Arc<Link>) {
    let (mut tries, mut last) = (0, None);
    let mut again = AskingAgain::default();
    loop {
        if !link.is_begun() {
            link.nudged().await;
            continue;
        }
        let since = Instant::now();
        match once(&link, &mut last, &mut again).await {
            Next::Now => {}
            Next::Later => {
                if since.elapsed() > BRIDGE_CONNECT_MAX * 2 {
                    tries = 0;
                }
                // Whoever reaches the server first tells the others.
                _ = timeout(pause(tries), link.nudged()).await;
                tries += 1;
            }
            Next::Nudge => {
                link.nudged().await;
                tries = 0;
            }
        }
    }
}

/// What is asked for again, beside the stream.
type AskingAgain = Option<AbortOnDropHandle<()>>;

/// Where the stream of a session goes on.
type Last = Option<(u64, HeaderValue)>;

async fn once(link: &Arc<Link>, last: &mut Last, again: &mut AskingAgain) -> Next {
    let session = match link.session().await {
        Ok(session) => session,
        Err(failure) => return after(&failure),
    };
    let mut headers = session.headers.clone();
    // Once: a server that knows it no more is asked for a new stream the next time.
    if let Some((_, id)) = last.take_if(|(generation, _)| *generation == session.generation) {
        headers.insert(LAST_EVENT, id);
    }
    let ask = Ask {
        method: Method::GET,
        body: Bytes::new(),
        headers: &headers,
        wait: BRIDGE_BEGIN_WAIT,
    };
    let heard = session::post(&link.http, ask, OPEN).await;
    link.note(heard.as_ref().err());
    let heard = match heard {
        Ok(heard) => heard,
        Err(failure) if failure.is_session_gone() => {
            link.forget(&session);
            return Next::Later;
        }
        Err(failure) => {
            // A server that tells nothing by itself.
            let is_mute = matches!(&failure, Failure::Refused { status, .. }
                if *status == StatusCode::METHOD_NOT_ALLOWED);
            if is_mute {
                link.freshen().await;
                return Next::Nudge;
            }
            return after(&failure);
        }
    };
    link.freshen().await;
    if heard.kind != Kind::Events {
        return Next::Later;
    }
    let (asking, of) = (Arc::clone(link), Arc::clone(&session));
    let task = tokio::spawn(async move { ask_again(&asking, &of).await });
    *again = Some(AbortOnDropHandle::new(task));
    let _moving = heard.moving;
    let mut events = Events::new(heard.body);
    let why = loop {
        let next = tokio::select! {
            next = events.next() => next,
            () = link.nudged() => {
                let current = link.current();
                if current.is_some_and(|current| current.generation != session.generation) {
                    break "the AI tool has begun again".to_owned();
                }
                // A server that hung was away without an end of this stream.
                link.freshen().await;
                continue;
            }
        };
        match next {
            Ok(Some(message)) => link.output.write(message).await,
            Ok(None) => break "the server ended it".to_owned(),
            Err(error) => break error.to_string(),
        }
    };
    tracing::info!(why, "the stream of notifications has ended");
    *last = events.last().map(|id| (session.generation, id));
    // Something may have changed while nobody listened.
    link.is_stale();
    match link.current() {
        // The AI tool began again: the stream of its session before is over.
        Some(current) if current.generation != session.generation => Next::Now,
        _ => Next::Later,
    }
}

fn after(failure: &Failure) -> Next {
    match failure {
        failure if failure.is_denial() => {
            tracing::warn!(%failure, "the server refuses the key; it is not asked again by itself");
            Next::Nudge
        }
        Failure::Error(_) | Failure::NotBegun => {
            tracing::warn!(%failure, "the server begins no session");
            Next::Nudge
        }
        _ => Next::Later,
    }
}
