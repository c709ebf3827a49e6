//! What the tasks of one run share.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::actors::launcher::Exit;
use crate::actors::sync::Mutex;
use crate::domain::limits::{
    REMOTE_FAILURES_MAX, REMOTE_MESSAGES_PER_SECOND, REMOTE_PARTIAL_BYTES_MAX,
};
use crate::domain::redact::Redactor;
use crate::domain::remote::{Endpoint, Remote, Transport};
use crate::domain::verdict::{RemoteFault, Verdict};

use super::client::Client;
use super::modern::Repeats;
use super::{Dial, Unsent};

/// The header that names a session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header that names the version spoken.
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");

const SECOND: Duration = Duration::from_secs(1);

/// What is known of the server, and what was counted.
pub(super) struct Shared {
    pub(super) client: Arc<Client>,
    pub(super) remote: Arc<Remote>,
    pub(super) line_max: usize,
    pub(super) unsent: Unsent,
    session: OnceLock<HeaderValue>,
    version: OnceLock<HeaderValue>,
    /// Where messages go, if not to where the server is.
    beside: OnceLock<Endpoint>,
    /// Bytes of answers that are not whole.
    partial: AtomicUsize,
    /// Requests that failed in a row.
    failures: AtomicU32,
    redactor: Option<Arc<Redactor>>,
    /// What tools of a server without sessions want repeated in headers.
    pub(super) repeats: Repeats,
    /// Messages since a moment.
    heard: Mutex<(Instant, u32)>,
}

/// How a run ends: the first reason counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Ends {
    /// Told once everything is closed.
    pub(super) exit: watch::Sender<Option<Exit>>,
    why: Arc<OnceLock<Exit>>,
    asked: CancellationToken,
}

/// What goes back to the gateway.
#[derive(Debug, Clone)]
pub(super) struct Out {
    /// Messages, as from stdout.
    pub(super) lines: mpsc::Sender<Bytes>,
    /// Remarks for people, as from stderr.
    pub(super) remarks: mpsc::Sender<Bytes>,
}

/// Bytes that are kept for an answer that is not whole; given back when it is dropped.
pub(super) struct Partial<'a> {
    of: &'a Shared,
    bytes: usize,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(client: Arc<Client>, dial: &Dial) -> Self {
        Self {
            client,
            remote: Arc::clone(&dial.remote),
            line_max: dial.line_max,
            unsent: Arc::clone(&dial.unsent),
            session: OnceLock::new(),
            version: OnceLock::new(),
            beside: OnceLock::new(),
            partial: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
            redactor: dial.redactor.clone(),
            repeats: Repeats::default(),
            heard: Mutex::new((Instant::now(), 0)),
        }
    }

    /// Where it is, as far as everybody may be told.
    pub(super) fn url(&self) -> &str {
        self.remote.url.shown()
    }

    pub(super) fn is_streamable(&self) -> bool {
        self.remote.transport == Transport::Streamable
    }

    /// What requests ask for.
    pub(super) fn target(&self) -> &str {
        self.beside.get().unwrap_or(&self.remote.url).target()
    }

    /// Messages go there from now on; the first word counts.
    pub(super) fn post_to(&self, endpoint: Endpoint) -> bool {
        self.beside.set(endpoint).is_ok()
    }

    /// The session that the server began; the first word counts.
    pub(super) fn began(&self, session: Option<&HeaderValue>, version: Option<&str>) {
        if let Some(session) = session {
            let mut session = session.clone();
            session.set_sensitive(true);
            let _ = self.session.set(session);
        }
        if let Some(version) = version.and_then(|text| HeaderValue::from_str(text).ok()) {
            let _ = self.version.set(version);
        }
    }

    pub(super) fn has_session(&self) -> bool {
        self.session.get().is_some()
    }

    /// What every request says once the session has begun.
    pub(super) fn of_session(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(session) = self.session.get() {
            headers.insert(SESSION, session.clone());
        }
        if let Some(version) = self.version.get() {
            headers.insert(VERSION, version.clone());
        }
        headers
    }

    /// A text without the credentials that its server may have put into it.
    pub(super) fn clean(&self, text: &str) -> String {
        match &self.redactor {
            Some(redactor) => redactor.redact_text(text),
            None => text.to_owned(),
        }
    }

    /// Waits a little if the server says more than it may: it is not limited where it runs.
    pub(super) async fn pace(&self) {
        let until = {
            let mut heard = self.heard.lock();
            if heard.0.elapsed() >= SECOND {
                *heard = (Instant::now(), 0);
            }
            heard.1 = heard.1.saturating_add(1);
            (heard.1 > REMOTE_MESSAGES_PER_SECOND).then(|| heard.0 + SECOND)
        };
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    pub(super) fn partial(&self) -> Partial<'_> {
        Partial { of: self, bytes: 0 }
    }

    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// A request failed, and it was the server's doing; gives how the run ends, if it has failed too
    /// often in a row.
    pub(super) fn failed(&self, why: &str) -> Option<Verdict> {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        (failures >= REMOTE_FAILURES_MAX).then(|| Verdict::Remote {
            fault: RemoteFault::Unreachable,
            detail: format!(
                "{} failed {failures} requests in a row, the last one so: {why}",
                self.url()
            ),
        })
    }
}

// === impl Ends ===

impl Ends {
    /// Asks the run to end.
    pub(super) fn stop(&self, why: Exit) {
        // A later reason explains nothing.
        let _ = self.why.set(why);
        self.asked.cancel();
    }

    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Why it ends; by itself, if nobody asked.
    pub(super) fn why(&self) -> Exit {
        self.why.get().cloned().unwrap_or(Exit::Code(0))
    }
}

// === impl Out ===

impl Out {
    /// A remark, dropped if nobody keeps up.
    pub(super) fn remark(&self, text: String) {
        let _ = self.remarks.try_send(text.into());
    }
}

// === impl Partial ===

impl Partial<'_> {
    /// So many are kept now; `false`: together with those of other answers there are too many.
    pub(super) fn keep(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let all = &self.of.partial;
        let now = if bytes >= before {
            all.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before)
        } else {
            all.fetch_sub(before - bytes, Ordering::Relaxed)
        };
        // One that is as long as it may be always has room.
        now <= REMOTE_PARTIAL_BYTES_MAX.max(2 * self.of.line_max)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.of.partial.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
pub(super) mod of_test {
    use super::*;

    /// What speaks to a server at this address.
    pub(in crate::actors::remote) fn dial(url: &str, redactor: Option<Redactor>) -> Dial {
        Dial {
            remote: Arc::new(Remote::at(url.parse().unwrap())),
            headers: HeaderMap::new(),
            tls: None,
            line_max: 1 << 20,
            redactor: redactor.map(Arc::new),
            unsent: Arc::new(|_, _| {}),
        }
    }

    /// What its tasks would share.
    pub(in crate::actors::remote) fn shared(url: &str, redactor: Option<Redactor>) -> Shared {
        let dial = dial(url, redactor);
        Shared::new(Client::new(&dial, None, None), &dial)
    }
}
