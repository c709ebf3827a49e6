//! What a server says that does not answer: the run's end, or one request's.

use bytes::Bytes;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use crate::domain::limits::{REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT};
use crate::domain::verdict::{RemoteFault, Verdict};

use super::client::Ask;
use super::exchange::{Errand, Outcome, answered, failed, is_answer};
use super::heard::Heard;
use super::parts::{Out, Shared};
use super::paths::on_one_line;

/// Characters of what a server says that are told.
const SAID_CHARS: usize = 300;

/// What a status that is none of success says.
pub(super) async fn refused(shared: &Shared, out: &Out, errand: &Errand, heard: Heard) -> Outcome {
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
    let said = told(shared, message(&line).as_bytes());
    if is_of_session(status, &said)
        && shared.has_session()
        && session(shared).await == Session::Gone
    {
        let detail = format!(
            "{url} does not know it any more (status {number}{})",
            tail(&said)
        );
        let verdict = remote(RemoteFault::SessionLost, detail);
        return match status {
            StatusCode::NOT_FOUND => Outcome::Untaken(verdict),
            // Tools say as much of what they did, too, and a ping later proves nothing of that.
            _ => Outcome::Over(verdict),
        };
    }
    if status == StatusCode::UNAUTHORIZED || (errand.begins && status == StatusCode::FORBIDDEN) {
        let detail = format!(
            "{url} answered with status {number}{}; set the credential that it needs (legation \
             credential set)",
            tail(&said)
        );
        return Outcome::Over(remote(RemoteFault::Unauthorized, detail));
    }
    if errand
        .modern
        .as_ref()
        .is_some_and(|spoken| spoken.may_say_more(errand.id, &line))
    {
        return Outcome::Mismatch(line);
    }
    // An answer is an answer, whatever the status.
    if is_answer(&line, errand.id) && shared.is_streamable() {
        return answered(shared, out, errand, line).await;
    }
    let mut why = format!("status {number}{}", tail(&said));
    if let Some(after) = after.as_ref().and_then(|value| value.to_str().ok()) {
        why = format!("{why}; try again in {}", told(shared, after.as_bytes()));
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
    // It is there and speaks, whatever it says.
    shared.succeeded();
    match status {
        // At another time it may do it.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Outcome::Failed(why),
        _ => Outcome::Refused(why),
    }
}

/// What is known of a session after a ping in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// It is there.
    Alive,
    /// The server does not know it.
    Gone,
    /// Nothing: the server is busy, away, or does not answer pings.
    Unknown,
}

/// Whether a status speaks of the session: 404, or what many servers say in place of that, whatever the
/// specification says.
fn is_of_session(status: StatusCode, said: &str) -> bool {
    match status {
        StatusCode::NOT_FOUND => true,
        StatusCode::BAD_REQUEST => said.to_ascii_lowercase().contains("session"),
        _ => false,
    }
}

/// Whether the session is there all the same: a server may say as much of one request for reasons of its
/// own, and that must not end everybody's.
pub(super) async fn session(shared: &Shared) -> Session {
    const PING: &[u8] = br#"{"jsonrpc":"2.0","id":"legation-alive","method":"ping"}"#;
    let asked = shared.client.send(Ask {
        method: Method::POST,
        target: shared.target(),
        headers: shared.of_session(),
        body: Bytes::from_static(PING),
    });
    match timeout(REMOTE_SHORT_WAIT, asked).await {
        Ok(Ok(heard)) if heard.status.is_success() => Session::Alive,
        Ok(Ok(heard)) => {
            let status = heard.status;
            let body = heard.said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT);
            match is_of_session(status, &message(&body.await)) {
                true => Session::Gone,
                false => Session::Unknown,
            }
        }
        Ok(Err(_)) | Err(_) => Session::Unknown,
    }
}

/// Where a server points is not gone to: it may lead inside, and takes the credentials along.
fn redirected(shared: &Shared, heard: &Heard) -> Verdict {
    let to = heard.headers.get(LOCATION).map(HeaderValue::as_bytes);
    let to = told(shared, to.unwrap_or(b"nowhere"));
    let (url, number) = (shared.url(), heard.status.as_u16());
    Verdict::Remote {
        fault: RemoteFault::Redirected,
        detail: format!(
            "{url} answered with status {number} and {to}; if that is right, name it (legation mcp \
             update --url)"
        ),
    }
}

/// What an answer says of itself, to be put behind other words.
pub(super) async fn said(shared: &Shared, heard: Heard) -> String {
    let body = heard.said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT);
    tail(&told(shared, message(&body.await).as_bytes()))
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
    let text = [
        "/error/message",
        "/message",
        "/detail",
        "/error_description",
        "/error",
    ]
    .iter()
    .find_map(|place| json.pointer(place)?.as_str());
    match text {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(body).into_owned(),
    }
}

/// The beginning of a text, for people. Credentials are taken out of it before it is cut: half of one is
/// not found any more once other words stand behind it.
pub(super) fn told(shared: &Shared, text: &[u8]) -> String {
    let text = text.get(..REMOTE_REFUSAL_BYTES_MAX).unwrap_or(text);
    cut(&shared.clean(&String::from_utf8_lossy(text)))
}

fn cut(text: &str) -> String {
    let beginning = text.trim().chars().take(SAID_CHARS);
    beginning
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::remote::parts::of_test;
    use crate::domain::name::CredentialName;
    use crate::domain::redact::Redactor;

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
            assert_eq!(cut(&message(body)), text);
        }
    }

    /// Half of one stood before other words, where nothing finds it any more.
    #[test]
    fn a_credential_is_taken_out_before_a_text_is_cut() {
        let secret = "Bearer of-ada-0123456789";
        let name = CredentialName::parse("TOKEN").unwrap();
        let redactor = Redactor::new([(&name, secret.as_bytes())]);
        let shared = of_test::shared("https://tools.example/mcp", redactor);
        for before in 270..310 {
            let text = format!("{}{secret}", "x".repeat(before));
            let told = told(&shared, text.as_bytes());
            assert!(!told.contains("Bear"), "{told}");
        }
        // Cut where its body was no longer read, too.
        let body = format!("{{\"message\":\"{}{secret}", " ".repeat(8 << 10));
        assert!(!told(&shared, body.as_bytes()).contains("Bear"));
    }
}
