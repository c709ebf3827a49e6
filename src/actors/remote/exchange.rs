//! One request to a server, from its line to its answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::domain::limits::{REMOTE_REFUSAL_BYTES_MAX, REMOTE_RESUMES_MAX, REMOTE_SHORT_WAIT};
use crate::domain::verdict::{RemoteFault, Verdict};
use crate::protocol::envelope::{self, Incoming};

use super::client::{Ask, Lost};
use super::heard::{Heard, Kind};
use super::messages::{Cut, LAST_EVENT, Messages, Whole, crowded, listen};
use super::modern::Spoken;
use super::parts::{Out, SESSION, Shared};
use super::paths::on_one_line;
use super::refusal::{refused, said, told};
use super::share::listening;

/// How long a stream that has given its answer may take to end, so that its connection can be used again.
const TRAILER_WAIT: Duration = Duration::from_millis(50);
/// A request of ours.
#[derive(Debug)]
pub(super) struct Errand {
    /// Our id of it.
    pub(super) id: u64,
    /// The message.
    pub(super) body: Bytes,
    /// It begins the session.
    pub(super) begins: bool,
    /// What a server without sessions is told in headers.
    pub(super) modern: Option<Spoken>,
}

/// How it ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its answer went back, or comes by the stream of all answers.
    Answered,
    /// It alone failed.
    Failed(String),
    /// The server is there, and refused it without an answer of MCP.
    Refused(String),
    /// So does the run.
    Over(Verdict),
    /// So does the run, and the server provably did not take this request.
    Untaken(Verdict),
    /// The server refused it for what its headers do not say: its answer.
    Mismatch(Bytes),
}

/// Sends a request and carries its answer back.
pub(super) async fn ask(shared: &Shared, out: &Out, errand: &Errand) -> Outcome {
    let headers = match &errand.modern {
        Some(spoken) => spoken.headers(shared),
        None => shared.of_session(),
    };
    let only_listens = errand.modern.as_ref().is_some_and(Spoken::only_listens);
    let _room = match only_listens {
        true => listening().await,
        false => None,
    };
    let sent = shared.client.send(Ask {
        method: Method::POST,
        target: shared.target(),
        headers,
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
            let said = said(shared, heard).await;
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
        let why = format!("it answered with something else: {}", told(shared, &line));
        return failed(shared, errand, why);
    }
    if !shared.is_streamable() {
        // Whatever it says: the answer comes by the stream.
        shared.succeeded();
        return Outcome::Answered;
    }
    answered(shared, out, errand, line).await
}

/// Passes the answer on.
pub(super) async fn answered(shared: &Shared, out: &Out, errand: &Errand, line: Bytes) -> Outcome {
    if errand.begins {
        shared.began(None, version(&line).as_deref());
    }
    if let Some(spoken) = &errand.modern {
        spoken.learn(shared, &line);
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
            Ok(Whole { line, room }) if is_answer(&line, errand.id) => {
                let outcome = answered(shared, out, errand, line).await;
                drop(room);
                // The connection is used again if the stream ends with its answer, as it should.
                messages.drain(TRAILER_WAIT).await;
                return outcome;
            }
            Ok(Whole { line, room }) => {
                resumes = 0;
                // Nobody takes lines any more if the run ends.
                let _ = out.lines.send(line).await;
                drop(room);
                continue;
            }
            Err(Cut::TooMuch(verdict)) => return Outcome::Over(verdict),
            Err(Cut::Ended(why)) => why,
        };
        resumes += 1;
        let why = format!("its stream ended before the answer: {why}");
        if let Some(spoken) = &errand.modern {
            // Its streams are not taken up again; and that one who only listened was cut says nothing of the server.
            return match spoken.only_listens() {
                true => Outcome::Failed(why),
                false => failed(shared, errand, why),
            };
        }
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

/// A request failed, and it was the server's doing.
pub(super) fn failed(shared: &Shared, errand: &Errand, why: String) -> Outcome {
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

/// Whether a line answers a request.
pub(super) fn is_answer(line: &[u8], id: u64) -> bool {
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
