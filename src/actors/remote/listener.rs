//! The stream that a server speaks on by itself: what is no answer, or, on the older transport, all it
//! says.

use http::StatusCode;
use tokio::time::{sleep, timeout};

use crate::actors::launcher::Exit;
use crate::domain::limits::{REMOTE_RESUMES_MAX, REMOTE_SHORT_WAIT, REMOTE_STREAM_RETRY_MIN};
use crate::domain::verdict::{RemoteFault, Verdict};

use super::client::Lost;
use super::heard::Kind;
use super::messages::{Cut, LAST_EVENT, Messages, Whole, listen};
use super::parts::{Ends, Out, Shared};
use super::share::listening;

/// Follows the stream of a session, if the server has one, and asks for it again when it is cut. It is
/// nobody's answer: a server that will not have it is served without.
pub(super) async fn follow(shared: &Shared, out: &Out, ends: &Ends) {
    let _room = listening().await;
    let mut messages: Option<Messages> = None;
    let mut failures = 0;
    while failures <= REMOTE_RESUMES_MAX {
        let mut headers = shared.of_session();
        if let Some(last) = messages.as_ref().and_then(Messages::last_id) {
            headers.insert(LAST_EVENT, last);
        }
        failures += 1;
        match listen(shared, headers).await {
            Ok(heard) if heard.status == StatusCode::OK && heard.kind() == Kind::Events => {
                let stream = match &mut messages {
                    Some(stream) => {
                        stream.again(heard);
                        stream
                    }
                    none => none.insert(Messages::new(heard, shared.line_max)),
                };
                loop {
                    match stream.next(shared).await {
                        Ok(Whole { line, room }) => {
                            failures = 0;
                            let sent = out.lines.send(line).await;
                            drop(room);
                            if sent.is_err() {
                                return;
                            }
                        }
                        Err(Cut::TooMuch(verdict)) => return ends.stop(Exit::Over(verdict)),
                        Err(Cut::Ended(_)) => break,
                    }
                }
            }
            // It may have one again when it is well.
            Ok(heard) if heard.status.is_server_error() => {}
            Ok(_) => return,
            // Requests find out what this means.
            Err(Lost::Unreached(_) | Lost::Broken(_) | Lost::Crowded(_)) => {}
        }
        let pause = messages.as_ref().map(Messages::pause);
        sleep(pause.unwrap_or(REMOTE_STREAM_RETRY_MIN) * (failures + 1)).await;
    }
}

/// Opens the stream of the older transport and waits until it says where messages go.
pub(super) async fn open(shared: &Shared) -> Result<Messages, Verdict> {
    let url = shared.url();
    let wrong = |detail: String| Verdict::Handshake { detail };
    let begun = async {
        let heard = match listen(shared, shared.of_session()).await {
            Ok(heard) => heard,
            Err(Lost::Unreached(verdict)) => return Err(verdict),
            Err(Lost::Broken(why) | Lost::Crowded(why)) => return Err(unreachable(url, &why)),
        };
        match heard.status.as_u16() {
            200 if heard.kind() == Kind::Events => {}
            status @ (401 | 403) => {
                return Err(Verdict::Remote {
                    fault: RemoteFault::Unauthorized,
                    detail: format!(
                        "{url} answered with status {status}; set the credential that it needs \
                         (legation credential set)"
                    ),
                });
            }
            status @ 300..=399 => {
                return Err(Verdict::Remote {
                    fault: RemoteFault::Redirected,
                    detail: format!("{url} answered with status {status}"),
                });
            }
            status @ 500.. => return Err(unreachable(url, &format!("status {status}"))),
            status => {
                return Err(wrong(format!(
                    "{url} answered with status {status} and no stream of events; does it perhaps \
                     speak the newer transport (--transport streamable)?"
                )));
            }
        }
        let mut messages = Messages::new(heard, shared.line_max);
        loop {
            let (event, _) = messages.event(shared).await.map_err(|cut| match cut {
                Cut::Ended(why) => unreachable(url, &format!("its stream ended at once: {why}")),
                Cut::TooMuch(verdict) => verdict,
            })?;
            if &event.name[..] == b"endpoint" {
                let named = String::from_utf8_lossy(&event.data);
                let endpoint = shared.remote.url.beside(named.trim());
                let endpoint = endpoint
                    .map_err(|why| wrong(format!("{url} named an address for messages: {why}")))?;
                shared.post_to(endpoint);
                return Ok(messages);
            }
        }
    };
    match timeout(REMOTE_SHORT_WAIT, begun).await {
        Ok(begun) => begun,
        Err(_) => Err(wrong(format!(
            "{url} did not say where messages go within {} s",
            REMOTE_SHORT_WAIT.as_secs()
        ))),
    }
}

/// Carries everything that a server of the older transport says; its end is the session's.
pub(super) async fn carry(shared: &Shared, out: &Out, ends: &Ends, mut messages: Messages) {
    let verdict = loop {
        match messages.next(shared).await {
            Ok(Whole { line, room }) => {
                let sent = out.lines.send(line).await;
                drop(room);
                if sent.is_err() {
                    return;
                }
            }
            Err(Cut::TooMuch(verdict)) => break verdict,
            Err(Cut::Ended(why)) => {
                break Verdict::Remote {
                    fault: RemoteFault::SessionLost,
                    detail: format!("the stream of {} ended: {why}", shared.url()),
                };
            }
        }
    };
    ends.stop(Exit::Over(verdict));
}

fn unreachable(url: &str, why: &str) -> Verdict {
    Verdict::Remote {
        fault: RemoteFault::Unreachable,
        detail: format!("{url}: {why}"),
    }
}
