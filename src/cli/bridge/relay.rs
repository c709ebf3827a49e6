//! What becomes of a request of the AI tool: it goes to the server once, and is answered once.
//!
//! Invariant: what may have reached the server is not sent again, but for lists, which change nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::cache;
use super::flights::{Flight, Place};
use super::http::{Heard, Kind, OPEN};
use super::link::Link;
use super::reach::{self, pause};
use super::session::{self, Failure, Session};
use super::stream::Stream;
use super::wire;
use super::wishes::Asking;
use crate::domain::code::Code;
use crate::domain::limits::{
    BRIDGE_AWAY_WAIT, BRIDGE_BEGIN_WAIT, BRIDGE_SENT_BYTES_MIN, BRIDGE_SILENCE_MAX,
};
use crate::protocol::jsonrpc::{INTERNAL_ERROR, INVALID_REQUEST};

/// A request of the AI tool.
#[derive(Debug)]
pub(super) struct Request {
    /// Raw, as it came.
    pub(super) id: String,
    pub(super) method: String,
    pub(super) params: Option<Box<RawValue>>,
    /// The whole message.
    pub(super) message: Bytes,
}

/// Answers a request, unless it is cancelled meanwhile.
pub(super) async fn answer(link: Arc<Link>, request: Request, place: Place) {
    let work = async {
        match request.method.as_str() {
            "initialize" => initialize(&link, &request, &place).await,
            _ => relay(&link, &request, &place).await,
        }
    };
    tokio::select! {
        () = place.dropped.cancelled() => {}
        () = work => {}
    }
}

async fn initialize(link: &Link, request: &Request, flight: &Flight) {
    let version = wire::version_asked(request.params.as_deref());
    let failure = match with_patience(link, flight, || begin(link, &version)).await {
        Ok(result) => {
            link.output.write(wire::result(&request.id, &result)).await;
            link.has_begun();
            link.cache.keep_initialize(&version, &result).await;
            return;
        }
        Err(failure) => failure,
    };
    let cached = link
        .cache
        .initialize(&version)
        .filter(|_| failure.is_absence());
    let told = link.away_told(&failure.to_string());
    let known = cached.and_then(|known| {
        let notice = format!(
            "Note: {told}. Until then its tools are those it had when it was last seen, and calls fail."
        );
        cache::with_notice(&known, &notice)
    });
    match known {
        Some(known) => {
            link.is_stale();
            link.output.write(wire::result(&request.id, &known)).await;
            link.has_begun();
        }
        None => link.output.write(refusal(link, request, &failure)).await,
    }
}

/// One try. What is known already is as good as waiting.
async fn begin(link: &Link, version: &str) -> Tried<Box<RawValue>> {
    let begun = link.begin_anew().await;
    match begun {
        Err(failure) if failure.is_absence() && link.cache.initialize(version).is_none() => {
            Tried::Again(failure)
        }
        other => Tried::Done(other),
    }
}

/// How a try ended.
enum Tried<T> {
    Done(Result<T, Failure>),
    /// It did not reach the server, or that makes no difference.
    Again(Failure),
}

/// Tries until it is done, or the server has been away for too long.
async fn with_patience<T, F: Future<Output = Tried<T>>>(
    link: &Link,
    flight: &Flight,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Failure> {
    let until = Instant::now() + BRIDGE_AWAY_WAIT;
    let mut tries = 0;
    loop {
        match attempt().await {
            Tried::Done(done) => return done,
            Tried::Again(failure) => {
                let left = link
                    .patience()
                    .min(until.saturating_duration_since(Instant::now()));
                if left.is_zero() || flight.is_cancelled() {
                    return Err(failure);
                }
                tokio::time::sleep(pause(tries).min(left)).await;
                tries += 1;
            }
        }
    }
}

async fn relay(link: &Link, request: &Request, flight: &Flight) {
    let _asking = Asking::of(link, &request.method, request.params.as_deref());
    let Err(failure) = with_patience(link, flight, || send(link, request, flight)).await else {
        return;
    };
    if flight.is_cancelled() {
        return;
    }
    if is_tool_list(request)
        && failure.is_absence()
        && let Some(tools) = link.cache.tools()
    {
        link.is_stale();
        link.output.write(wire::result(&request.id, &tools)).await;
        return;
    }
    tracing::warn!(method = request.method, %failure, "a request has failed");
    link.output.write(refusal(link, request, &failure)).await;
}

/// One try. A session that the server does not know is begun again once.
async fn send(link: &Link, request: &Request, flight: &Flight) -> Tried<()> {
    let mut is_second = false;
    loop {
        let session = match link.session().await {
            Ok(session) => session,
            // To begin changes nothing, and the request itself was not sent.
            Err(Failure::Broken(why)) => return absent(link, request, Failure::Away(why)),
            Err(failure) if failure.is_absence() => return absent(link, request, failure),
            Err(failure) => return Tried::Done(Err(failure)),
        };
        let gate = || flight.take_off();
        let body = request.message.clone();
        let wait = head_wait(request, is_known(link, request));
        match link.post(&session, body, wait, &gate).await {
            Ok(heard) => return pass(link, request, flight, (&session, heard)).await,
            Err(failure) if failure.is_session_gone() && !is_second => {
                link.forget(&session);
                is_second = true;
            }
            Err(failure) => {
                // As for a beginning: it makes no difference whether it arrived.
                if let Failure::Broken(why) = &failure
                    && is_list(request)
                {
                    link.is_away(why);
                }
                return ended(link, request, failure);
            }
        }
    }
}

/// What a try that failed means for the next: only what was not sent, or changes nothing, has one.
fn ended<T>(link: &Link, request: &Request, failure: Failure) -> Tried<T> {
    match failure {
        Failure::Away(_) => absent(link, request, failure),
        Failure::Broken(_) if is_list(request) => absent(link, request, failure),
        _ => Tried::Done(Err(failure)),
    }
}

/// It is tried again, unless something is known to answer it with.
fn absent<T>(link: &Link, request: &Request, failure: Failure) -> Tried<T> {
    match is_known(link, request) {
        true => Tried::Done(Err(failure)),
        false => Tried::Again(failure),
    }
}

async fn pass(
    link: &Link,
    request: &Request,
    flight: &Flight,
    answer: (&Session, Heard),
) -> Tried<()> {
    match passed(link, request, flight, answer).await {
        Ok(()) => Tried::Done(Ok(())),
        Err(failure) => ended(link, request, failure),
    }
}

/// Writes what comes, in its order, to the answer.
async fn passed(
    link: &Link,
    request: &Request,
    flight: &Flight,
    (session, heard): (&Session, Heard),
) -> Result<(), Failure> {
    let number = heard.status.as_u16();
    match heard.kind {
        Kind::Json => {
            let body = session::body(heard).await?;
            finish(link, request, flight, body).await;
            Ok(())
        }
        Kind::Events => {
            let mut stream = Stream::new(link, session, heard);
            loop {
                let message = stream.next().await?;
                if wire::is_answer_to(&message, &request.id) {
                    finish(link, request, flight, message).await;
                    return Ok(());
                }
                if !flight.is_cancelled() {
                    link.output.write(message).await;
                }
            }
        }
        Kind::Other => Err(Failure::Broken(format!("status {number} and no answer"))),
    }
}

async fn finish(link: &Link, request: &Request, flight: &Flight, message: Bytes) {
    if flight.is_cancelled() {
        return;
    }
    link.output.write(message.clone()).await;
    if wire::is_result(&message) {
        link.wishes(|wishes| wishes.granted(&request.method, request.params.as_deref()));
    }
    if is_tool_list(request)
        && let Ok(result) = session::result(&message)
        && !wire::has_member(result.get(), "nextCursor")
    {
        link.cache.keep_tools(&result).await;
    }
}

/// Sends on what the AI tool answers to a question of the server's: again, while the server is away or busy, since a call
/// waits for it. That it comes twice does no harm.
pub(super) async fn reply(link: &Link, message: Bytes) {
    let Some(session) = link.current() else {
        return tracing::warn!("an answer of the AI tool is to nobody: the session has ended");
    };
    let until = Instant::now() + BRIDGE_AWAY_WAIT;
    let mut tries = 0;
    loop {
        let sent = link.post(&session, message.clone(), BRIDGE_BEGIN_WAIT, OPEN);
        let Err(failure) = sent.await else { return };
        let left = until.saturating_duration_since(Instant::now());
        if !failure.is_absence() || left.is_zero() {
            return tracing::warn!(%failure, "an answer of the AI tool was not sent on");
        }
        tokio::time::sleep(pause(tries).min(left)).await;
        tries += 1;
    }
}

/// How long the head of an answer may take: the server begins one by its next sign of life at the latest, and has a list
/// at hand. For what is known already nobody waits longer than for a server that is away.
fn head_wait(request: &Request, is_known: bool) -> Duration {
    let wait = match is_list(request) {
        true if is_known => BRIDGE_AWAY_WAIT,
        true => BRIDGE_BEGIN_WAIT,
        false => BRIDGE_SILENCE_MAX,
    };
    let sending = request.message.len() / BRIDGE_SENT_BYTES_MIN;
    wait + Duration::from_secs(sending as u64)
}

/// Whether there is a last good answer to give.
fn is_known(link: &Link, request: &Request) -> bool {
    is_tool_list(request) && link.cache.tools().is_some()
}

/// Whether it is a list: it changes nothing.
fn is_list(request: &Request) -> bool {
    request.method.ends_with("/list")
}

/// Whether it asks for the (first page of the) tools.
fn is_tool_list(request: &Request) -> bool {
    let params = request.params.as_deref().map_or("", RawValue::get);
    request.method == "tools/list" && !wire::has_member(params, "cursor")
}

/// The answer in place of the server's.
fn refusal(link: &Link, request: &Request, failure: &Failure) -> Bytes {
    let url = link.url();
    let is_call = request.method == "tools/call";
    let (code, text) = match failure {
        // Nobody waits for a beginning that failed, so nothing is retried.
        Failure::Away(why) if request.method == "initialize" => (
            Code::DaemonUnreachable,
            format!(
                "Legation at {url} is not reachable: {why}. No earlier answer of it is known for this \
                 key, so there is nothing to go on with; check the address, and begin again"
            ),
        ),
        Failure::Away(why) => (Code::DaemonUnreachable, link.away_told(why)),
        Failure::Broken(why) if is_call => (
            Code::AnswerUnreadable,
            format!(
                "the answer of Legation at {url} was lost during this call, at {}: {why}. The call \
                 may have been carried out, so it was not repeated; check before you make it again",
                reach::wall()
            ),
        ),
        Failure::Broken(why) => (
            Code::AnswerUnreadable,
            format!("the answer of Legation at {url} was lost: {why}; ask again"),
        ),
        Failure::Refused { text, .. } if failure.is_denial() => (
            Code::Denied,
            format!(
                "Legation at {url} refuses this key: {text}. An operator can look with `legation key \
                 list`; a new key is given to the bridge with LEGATION_KEY or --key-file"
            ),
        ),
        Failure::Refused { text, status } => (
            Code::InvalidRequest,
            format!(
                "Legation at {url} refused the request: {text} (status {})",
                status.as_u16()
            ),
        ),
        Failure::Error(error) => return wire::passed_error(&request.id, error),
        Failure::NotBegun | Failure::Unwanted => {
            let text = failure.to_string();
            let code = Code::InvalidRequest.as_str();
            return wire::error(&request.id, INVALID_REQUEST, &text, code);
        }
    };
    match is_call {
        true => wire::tool_failed(&request.id, &text, code.as_str()),
        false => wire::error(&request.id, INTERNAL_ERROR, &text, code.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::limits::MCP_KEEP_ALIVE;

    #[test]
    fn a_server_that_says_nothing_is_waited_for_as_long_as_it_may_be_silent() {
        let request = |method: &str, bytes: usize| Request {
            id: "1".to_owned(),
            method: method.to_owned(),
            params: None,
            message: vec![b' '; bytes].into(),
        };
        let list = request("tools/list", 9);
        assert_eq!(head_wait(&list, true), BRIDGE_AWAY_WAIT);
        assert_eq!(head_wait(&list, false), BRIDGE_BEGIN_WAIT);
        let call = head_wait(&request("tools/call", 9), false);
        assert_eq!(call, BRIDGE_SILENCE_MAX);
        assert!(call > 2 * MCP_KEEP_ALIVE);
        // What takes long to be sent is not given up on the way.
        let large = head_wait(&request("tools/call", 16 << 20), false);
        assert!(large > call * 10, "{large:?}");
    }
}
