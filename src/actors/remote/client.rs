//! Requests to one server, over connections that are kept a short while.
//!
//! What fails before a request was handed to a connection never reached the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request};
use http_body_util::Full;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::actors::launcher::{EgressCount, OnDenied};
use crate::actors::lookup::Asker;
use crate::actors::sync::Mutex;
use crate::domain::ids::UserId;
use crate::domain::limits::{REMOTE_IDLE_CONNECTION, REMOTE_IDLE_CONNECTIONS_MAX};
use crate::domain::remote::Remote;
use crate::domain::verdict::Verdict;

use super::Dial;
use super::heard::Heard;
use super::line::{Line, chain};

/// How long a connection may take to be ready after an answer was read.
const READY_WAIT: Duration = Duration::from_millis(5);

/// A way to one server.
pub(super) struct Client {
    pub(super) remote: Arc<Remote>,
    pub(super) tls: Option<TlsConnector>,
    headers: HeaderMap,
    idle: Mutex<Vec<Line>>,
    pub(super) asker: Asker,
    pub(super) on_denied: Option<OnDenied>,
    pub(super) open: Arc<AtomicU64>,
    pub(super) connections: AtomicU64,
    sent: AtomicU64,
    pub(super) received: AtomicU64,
    pub(super) denied: AtomicU64,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) target: &'a str,
    /// Session, version, and where to take a stream up again.
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// The server never saw the request.
    Unreached(Verdict),
    /// It may have seen it.
    Broken(String),
    /// It was not sent, since the gateway has too much to do.
    Crowded(String),
}

// === impl Client ===

impl Client {
    pub(super) fn new(
        dial: &Dial,
        on_denied: Option<OnDenied>,
        user: Option<&UserId>,
    ) -> Arc<Self> {
        Arc::new(Self {
            remote: Arc::clone(&dial.remote),
            tls: dial.tls.clone().map(TlsConnector::from),
            headers: dial.headers.clone(),
            idle: Mutex::new(Vec::new()),
            asker: Asker::new(user),
            on_denied,
            open: Arc::default(),
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        })
    }

    /// Connects, for the first request.
    pub(super) async fn warm(&self) -> Result<(), Verdict> {
        match self.connect().await {
            Ok(line) => {
                self.keep(line);
                Ok(())
            }
            Err(Lost::Unreached(verdict)) => Err(verdict),
            Err(Lost::Broken(why) | Lost::Crowded(why)) => Err(self.unreachable(&why)),
        }
    }

    /// What went over it so far.
    pub(super) fn count(&self) -> EgressCount {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EgressCount {
            open: of(&self.open),
            connections: of(&self.connections),
            sent_bytes: of(&self.sent),
            received_bytes: of(&self.received),
            denied: of(&self.denied),
        }
    }

    /// Closes the connections that wait for a request.
    pub(super) fn close(&self) {
        self.idle.lock().clear();
    }

    /// Sends a request and waits for the head of its answer, for as long as that takes.
    pub(super) async fn send(self: &Arc<Self>, ask: Ask<'_>) -> Result<Heard, Lost> {
        let length = ask.body.len() as u64;
        let mut request = self.request(ask);
        loop {
            let kept = self.kept().await;
            let fresh = kept.is_none();
            let mut line = match kept {
                Some(line) => line,
                None => self.connect().await?,
            };
            match line.sender.try_send_request(request).await {
                Ok(answer) => {
                    self.sent.fetch_add(length, Ordering::Relaxed);
                    return Ok(Heard::new(answer, line, self));
                }
                Err(mut failed) => {
                    let why = chain(failed.error());
                    request = match failed.take_message() {
                        // One that was closed meanwhile; there are only so many of them.
                        Some(untouched) if !fresh => untouched,
                        Some(_) => return Err(Lost::Unreached(self.unreachable(&why))),
                        None => return Err(Lost::Broken(why)),
                    };
                }
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Request<Full<Bytes>> {
        let accepted = match ask.method {
            Method::GET => "text/event-stream",
            _ => "application/json, text/event-stream",
        };
        let has_body = !ask.body.is_empty();
        let mut request = Request::new(Full::new(ask.body));
        *request.method_mut() = ask.method;
        // Parsed as an address before.
        *request.uri_mut() = ask.target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(ask.headers);
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        if let Ok(host) = HeaderValue::from_str(&self.remote.url.authority()) {
            headers.insert(HOST, host);
        }
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static(concat!(
                "legation/",
                env!("CARGO_PKG_VERSION")
            )));
        if has_body {
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        request
    }

    /// A connection that can be used again.
    async fn kept(&self) -> Option<Line> {
        loop {
            let mut line = self.idle.lock().pop()?;
            if line.sender.is_closed() || line.unused_since.elapsed() > REMOTE_IDLE_CONNECTION {
                continue;
            }
            if let Ok(Ok(())) = timeout(READY_WAIT, line.sender.ready()).await {
                return Some(line);
            }
        }
    }

    /// Keeps a connection that is free.
    pub(super) fn keep(&self, mut line: Line) {
        line.unused_since = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|line| {
            !line.sender.is_closed() && line.unused_since.elapsed() <= REMOTE_IDLE_CONNECTION
        });
        if idle.len() < REMOTE_IDLE_CONNECTIONS_MAX {
            idle.push(line);
        }
    }
}
