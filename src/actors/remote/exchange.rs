//! One request to a server, from its line to its answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::domain::limits::{
    REMOTE_PARTIAL_BYTES_MAX, REMOTE_REFUSAL_BYTES_MAX, REMOTE_RESUMES_MAX, REMOTE_SHORT_WAIT,
    REMOTE_STREAM_RETRY_MAX, REMOTE_STREAM_RETRY_MIN,
};
use crate::domain::verdict::{RemoteFault, Verdict};
use crate::protocol::envelope::{self, Incoming};
use crate::protocol::sse::{Event, Parser};

use super::client::{Ask, Heard, Kind, Lost};
use super::parts::{Out, SESSION, Shared};
use super::paths::on_one_line;

/// The header that says where to take a stream up again.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// However short a server says the pause is.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How long a stream that has given its answer may take to end, so that its connection can be used again.
const TRAILER_WAIT: Duration = Duration::from_millis(50);
/// Characters of what a server says that are told.
const SAID_CHARS: usize = 300;

/// A request of ours.
#[derive(Debug)]
pub(super) struct Errand {
    /// Our id of it.
    pub(super) id: u64,
    /// The message.
    pub(super) body: Bytes,
    /// It begins the session.
    pub(super) begins: bool,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its answer went back, or comes by the stream of all answers.
    Answered,
    /// It alone failed.
    Failed(String),
    /// So does the run.
    Over(Verdict),
    /// So does the run, and the server provably did not take this request.
    Untaken(Verdict),
}

/// Why a body is of no more use.
#[derive(Debug)]
pub(super) enum Cut {
    /// It ended, in whatever way.
    Ended(String),
    /// It breaks a bound.
    TooMuch(Verdict),
}

/// A stream of messages.
pub(super) struct Messages {
    heard: Heard,
    parser: Parser,
}

/// Sends a request and carries its answer back.
pub(super) async fn ask(shared: &Shared, out: &Out, errand: &Errand) -> Outcome {
    let sent = shared.client.send(Ask {
        method: Method::POST,
        target: shared.target(),
        headers: shared.of_session(),
        body: errand.body.clone(),
    });
    let heard = match sent.await {
        Ok(heard) => heard,
        Err(Lost::Unreached(verdict)) => return Outcome::Untaken(verdict),
        Err(Lost::Crowded(why)) => return Outcome::Failed(why),
        Err(Lost::Broken(why)) => {
            return failed(shared, errand, format!("the connection was lost: {why}"));
        }
    };
    if !heard.status.is_success() {
        return refused(shared, out, errand, heard).await;
    }
    if errand.begins && shared.is_streamable() {
        shared.began(heard.headers.get(SESSION), None);
    }
    match heard.kind() {
        Kind::Json => json(shared, out, errand, heard).await,
        Kind::Events => events(shared, out, errand, heard).await,
        Kind::Other if !shared.is_streamable() => {
            drop(
                heard
                    .said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT)
                    .await,
            );
            shared.succeeded();
            Outcome::Answered
        }
        Kind::Other => {
            let status = heard.status.as_u16();
            let said = said(heard).await;
            let why = format!("it answered with status {status} and neither JSON nor events{said}");
            failed(shared, errand, why)
        }
    }
}

async fn json(shared: &Shared, out: &Out, errand: &Errand, mut heard: Heard) -> Outcome {
    let mut partial = shared.partial();
    let mut whole = BytesMut::new();
    loop {
        match heard.bytes().await {
            Ok(Some(bytes)) => {
                whole.extend_from_slice(&bytes);
                if whole.len() > shared.line_max {
                    let detail = format!("an answer of more than {} bytes", shared.line_max);
                    return Outcome::Over(Verdict::Protocol { detail });
                }
                if !partial.keep(whole.len()) {
                    return Outcome::Over(crowded());
                }
            }
            Ok(None) => break,
            Err(why) => {
                let why = format!("the connection was lost within its answer: {why}");
                return failed(shared, errand, why);
            }
        }
    }
    let line = on_one_line(whole.freeze());
    if !is_answer(&line, errand.id) && shared.is_streamable() {
        let why = format!("it answered with something else: {}", cut(&line));
        return failed(shared, errand, why);
    }
    if !shared.is_streamable() {
        // Whatever it says: the answer comes by the stream.
        return Outcome::Answered;
    }
    answered(shared, out, errand, line).await
}

/// Passes the answer on.
async fn answered(shared: &Shared, out: &Out, errand: &Errand, line: Bytes) -> Outcome {
    if errand.begins {
        shared.began(None, version(&line).as_deref());
    }
    shared.succeeded();
    // Nobody takes lines any more if the run ends.
    let _ = out.lines.send(line).await;
    Outcome::Answered
}

async fn events(shared: &Shared, out: &Out, errand: &Errand, heard: Heard) -> Outcome {
    let mut messages = Messages::new(heard, shared.line_max);
    let mut resumes = 0;
    loop {
        let why = match messages.next(shared).await {
            Ok(line) if is_answer(&line, errand.id) => {
                let outcome = answered(shared, out, errand, line).await;
                // The connection is used again if the stream ends with its answer, as it should.
                let _ = timeout(TRAILER_WAIT, messages.heard.bytes()).await;
                return outcome;
            }
            Ok(line) => {
                resumes = 0;
                // Nobody takes lines any more if the run ends.
                let _ = out.lines.send(line).await;
                continue;
            }
            Err(Cut::TooMuch(verdict)) => return Outcome::Over(verdict),
            Err(Cut::Ended(why)) => why,
        };
        resumes += 1;
        let why = format!("its stream ended before the answer: {why}");
        let last = messages.last_id();
        let Some(last) = last.filter(|_| resumes <= REMOTE_RESUMES_MAX) else {
            return failed(shared, errand, why);
        };
        tokio::time::sleep(messages.pause()).await;
        match resume(shared, last).await {
            Ok(again) => messages.again(again),
            Err(later) => return failed(shared, errand, format!("{why}; {later}")),
        }
    }
}

// === impl Messages ===

impl Messages {
    pub(super) fn new(heard: Heard, max: usize) -> Self {
        let parser = Parser::new(max);
        Self { heard, parser }
    }

    /// The next message.
    pub(super) async fn next(&mut self, shared: &Shared) -> Result<Bytes, Cut> {
        loop {
            shared.pace().await;
            let event = self.event(shared).await?;
            if event.name.is_empty() && !event.data.is_empty() {
                return Ok(on_one_line(event.data));
            }
        }
    }

    /// The next event.
    pub(super) async fn event(&mut self, shared: &Shared) -> Result<Event, Cut> {
        let mut partial = shared.partial();
        loop {
            match self.parser.event() {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => {}
                Err(long) => {
                    let detail = long.to_string();
                    return Err(Cut::TooMuch(Verdict::Protocol { detail }));
                }
            }
            if !partial.keep(self.parser.kept()) {
                return Err(Cut::TooMuch(crowded()));
            }
            match self.heard.bytes().await {
                Ok(Some(bytes)) => self.parser.feed(&bytes),
                Ok(None) => return Err(Cut::Ended("it was closed".to_owned())),
                Err(why) => return Err(Cut::Ended(why)),
            }
        }
    }

    /// The stream goes on in another answer.
    pub(super) fn again(&mut self, heard: Heard) {
        self.heard = heard;
        self.parser.again();
    }

    /// Where it was.
    pub(super) fn last_id(&self) -> Option<HeaderValue> {
        let last = self.parser.last_id()?;
        HeaderValue::from_bytes(last).ok()
    }

    /// How long to wait before it is asked for again.
    pub(super) fn pause(&self) -> Duration {
        let said = self.parser.retry().unwrap_or(REMOTE_STREAM_RETRY_MIN);
        said.clamp(PAUSE_MIN, REMOTE_STREAM_RETRY_MAX)
    }
}

/// Asks for what a stream had left to say.
async fn resume(shared: &Shared, last: HeaderValue) -> Result<Heard, String> {
    let mut headers = shared.of_session();
    headers.insert(LAST_EVENT, last);
    let asked = listen(shared, headers);
    match timeout(REMOTE_SHORT_WAIT, asked).await {
        Ok(Ok(heard)) if heard.status == StatusCode::OK && heard.kind() == Kind::Events => {
            Ok(heard)
        }
        Ok(Ok(heard)) => {
            let status = heard.status.as_u16();
            Err(format!(
                "taking it up again was answered with status {status}"
            ))
        }
        Ok(Err(Lost::Unreached(verdict))) => Err(verdict.to_string()),
        Ok(Err(Lost::Broken(why) | Lost::Crowded(why))) => Err(why),
        Err(_) => Err("taking it up again was not answered".to_owned()),
    }
}

/// Asks for a stream.
pub(super) async fn listen(shared: &Shared, headers: HeaderMap) -> Result<Heard, Lost> {
    let asked = shared.client.send(Ask {
        method: Method::GET,
        target: shared.remote.url.target(),
        headers,
        body: Bytes::new(),
    });
    asked.await
}

fn crowded() -> Verdict {
    Verdict::Protocol {
        detail: format!("more than {REMOTE_PARTIAL_BYTES_MAX} bytes of answers in part at once"),
    }
}

/// What a status that is none of success says.
async fn refused(shared: &Shared, out: &Out, errand: &Errand, heard: Heard) -> Outcome {
    let status = heard.status;
    let (url, number) = (shared.url(), status.as_u16());
    let remote = |fault, detail| Verdict::Remote { fault, detail };
    if status.is_redirection() {
        return Outcome::Over(redirected(shared, &heard));
    }
    let after = heard.headers.get(RETRY_AFTER).cloned();
    let body = heard
        .said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT)
        .await;
    let line = on_one_line(body.into());
    let said = message(&line);
    let is_session = match status {
        StatusCode::NOT_FOUND => true,
        // What many servers say of a session they do not know, whatever the specification says.
        StatusCode::BAD_REQUEST => said.to_ascii_lowercase().contains("session"),
        _ => false,
    };
    if is_session && shared.has_session() && !is_alive(shared).await {
        let detail = format!(
            "{url} does not know it any more (status {number}{})",
            tail(&said)
        );
        return Outcome::Untaken(remote(RemoteFault::SessionLost, detail));
    }
    if status == StatusCode::UNAUTHORIZED || (errand.begins && status == StatusCode::FORBIDDEN) {
        let detail = format!(
            "{url} answered with status {number}{}; set the credential that it needs (legation \
             credential set)",
            tail(&said)
        );
        return Outcome::Over(remote(RemoteFault::Unauthorized, detail));
    }
    // An answer is an answer, whatever the status.
    if is_answer(&line, errand.id) && shared.is_streamable() {
        return answered(shared, out, errand, line).await;
    }
    let mut why = format!("status {number}{}", tail(&said));
    if let Some(after) = after.as_ref().and_then(|value| value.to_str().ok()) {
        why = format!("{why}; try again in {}", cut(after.as_bytes()));
    }
    if status.is_server_error() {
        return failed(shared, errand, why);
    }
    if errand.begins {
        let hint = match status {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if shared.is_streamable() => {
                "; is its path right, and does it perhaps speak the older transport (--transport sse)?"
            }
            _ => "",
        };
        let detail = format!("{url} answered to initialize with {why}{hint}");
        return Outcome::Over(Verdict::Handshake { detail });
    }
    Outcome::Failed(why)
}

/// Whether the session is there all the same: a server may say as much of one request for reasons of its
/// own, and that must not end everybody's.
async fn is_alive(shared: &Shared) -> bool {
    const PING: &[u8] = br#"{"jsonrpc":"2.0","id":"legation-alive","method":"ping"}"#;
    let asked = shared.client.send(Ask {
        method: Method::POST,
        target: shared.target(),
        headers: shared.of_session(),
        body: Bytes::from_static(PING),
    });
    match timeout(REMOTE_SHORT_WAIT, asked).await {
        Ok(Ok(heard)) => heard.status.is_success(),
        Ok(Err(_)) | Err(_) => false,
    }
}

/// Where a server points is not gone to: it may lead inside, and takes the credentials along.
fn redirected(shared: &Shared, heard: &Heard) -> Verdict {
    let to = heard.headers.get(LOCATION).map(HeaderValue::as_bytes);
    let to = cut(to.unwrap_or(b"nowhere"));
    let (url, number) = (shared.url(), heard.status.as_u16());
    Verdict::Remote {
        fault: RemoteFault::Redirected,
        detail: format!(
            "{url} answered with status {number} and {to}; if that is right, name it (legation mcp \
             update --url)"
        ),
    }
}

/// A request failed, and it was the server's doing.
fn failed(shared: &Shared, errand: &Errand, why: String) -> Outcome {
    if errand.begins {
        let detail = format!("{}: {why}", shared.url());
        let fault = RemoteFault::Unreachable;
        return Outcome::Over(Verdict::Remote { fault, detail });
    }
    match shared.failed(&why) {
        Some(verdict) => Outcome::Over(verdict),
        None => Outcome::Failed(why),
    }
}

async fn said(heard: Heard) -> String {
    let body = heard.said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT);
    tail(&message(&body.await))
}

fn tail(said: &str) -> String {
    match said.is_empty() {
        true => String::new(),
        false => format!(": {said}"),
    }
}

/// What a refusal says, in the forms there are: JSON-RPC, flat, a problem document, or text.
fn message(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told = [
        "/error/message",
        "/message",
        "/detail",
        "/error_description",
        "/error",
    ]
    .iter()
    .find_map(|place| json.pointer(place)?.as_str());
    match told {
        Some(text) => cut(text.as_bytes()),
        None => cut(body),
    }
}

/// The beginning of a text, for people.
fn cut(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let clean = text.trim().chars().take(SAID_CHARS);
    clean
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn is_answer(line: &[u8], id: u64) -> bool {
    matches!(envelope::parse(line), Some(Incoming::Response { id: theirs, .. }) if theirs == id)
}

/// The version that a server speaks, by its answer to `initialize`.
fn version(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        result: Begun,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Begun {
        protocol_version: String,
    }
    let answer: Answer = serde_json::from_slice(line).ok()?;
    Some(answer.result.protocol_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_every_form_it_has() {
        for (body, text) in [
            (
                &br#"{"error":{"message":"no such key"}}"#[..],
                "no such key",
            ),
            (
                br#"{"error":"invalid_token","error_description":"it is old"}"#,
                "it is old",
            ),
            (br#"{"error":"flat"}"#, "flat"),
            (b"Bad\r\nGateway\n", "Bad  Gateway"),
            (b"", ""),
        ] {
            assert_eq!(message(body), text);
        }
    }

    #[test]
    fn only_the_answer_to_a_request_is_one() {
        assert!(is_answer(br#"{"jsonrpc":"2.0","id":7,"result":{}}"#, 7));
        assert!(is_answer(
            br#"{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":""}}"#,
            7
        ));
        for other in [
            &br#"{"jsonrpc":"2.0","id":8,"result":{}}"#[..],
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#,
            br#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#,
            b"<html>",
        ] {
            assert!(!is_answer(other, 7));
        }
    }
}
