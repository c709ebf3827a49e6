//! Requests to one server, over connections that are kept a short while.
//!
//! A name is looked up here, each of its addresses is checked, and the connection goes to the very
//! address that was: a name cannot mean one thing when it is checked and another when it is used. What
//! fails before a request was handed to a connection never reached the server.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::actors::launcher::{EgressCount, OnDenied};
use crate::actors::lookup;
use crate::actors::sync::Mutex;
use crate::domain::egress::{Wanted, address};
use crate::domain::limits::{
    EGRESS_DENIALS_TOLD, EGRESS_LOOKUPS_MAX, REMOTE_CONNECT_WAIT, REMOTE_CONNECTIONS_ALL_MAX,
    REMOTE_IDLE_CONNECTION, REMOTE_IDLE_CONNECTIONS_MAX,
};
use crate::domain::remote::{Endpoint, Reach, Scheme};
use crate::domain::verdict::{RemoteFault, Verdict};

use super::Dial;

/// Connections to all servers.
static ALL: Semaphore = Semaphore::const_new(REMOTE_CONNECTIONS_ALL_MAX);

/// How long one of several addresses may take, so that a dead one leaves time for the next.
const EACH_ADDRESS: Duration = Duration::from_secs(4);
/// How long a connection may take to be ready after an answer was read.
const READY_WAIT: Duration = Duration::from_millis(5);

/// A way to one server.
pub(super) struct Client {
    endpoint: Endpoint,
    reach: Reach,
    tls: Option<TlsConnector>,
    headers: HeaderMap,
    idle: Mutex<Vec<Line>>,
    lookups: Arc<Semaphore>,
    on_denied: Option<OnDenied>,
    open: Arc<AtomicU64>,
    connections: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    denied: AtomicU64,
}

/// A connection; dropping it closes it.
struct Line {
    sender: http1::SendRequest<Full<Bytes>>,
    unused_since: Instant,
    _open: Open,
    _moving: AbortOnDropHandle<()>,
}

/// Counts as open, among its run's and among all, while it lives.
struct Open {
    of_run: Arc<AtomicU64>,
    _of_all: SemaphorePermit<'static>,
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

/// The head of an answer, and its body to be read.
pub(super) struct Heard {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    line: Option<Line>,
    client: Arc<Client>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Events,
    Other,
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
    pub(super) fn new(dial: &Dial, on_denied: Option<OnDenied>) -> Arc<Self> {
        Arc::new(Self {
            endpoint: dial.remote.url.clone(),
            reach: dial.remote.reach,
            tls: dial.tls.clone().map(TlsConnector::from),
            headers: dial.headers.clone(),
            idle: Mutex::new(Vec::new()),
            lookups: Arc::new(Semaphore::new(EGRESS_LOOKUPS_MAX)),
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
                    let (head, body) = answer.into_parts();
                    return Ok(Heard {
                        status: head.status,
                        headers: head.headers,
                        body,
                        line: Some(line),
                        client: Arc::clone(self),
                    });
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
        if let Ok(host) = HeaderValue::from_str(&self.endpoint.authority()) {
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

    fn keep(&self, mut line: Line) {
        line.unused_since = Instant::now();
        let mut idle = self.idle.lock();
        idle.retain(|line| {
            !line.sender.is_closed() && line.unused_since.elapsed() <= REMOTE_IDLE_CONNECTION
        });
        if idle.len() < REMOTE_IDLE_CONNECTIONS_MAX {
            idle.push(line);
        }
    }

    async fn connect(&self) -> Result<Line, Lost> {
        let of_all = ALL.try_acquire().map_err(|_| {
            Lost::Crowded(format!(
                "{REMOTE_CONNECTIONS_ALL_MAX} connections to servers behind HTTP are open, which is \
                 the most; try again"
            ))
        })?;
        let open = Open::new(&self.open, of_all);
        match timeout(REMOTE_CONNECT_WAIT, self.attempt(open)).await {
            Ok(connected) => connected.map_err(Lost::Unreached),
            Err(_) => {
                let why = format!("no connection within {} s", REMOTE_CONNECT_WAIT.as_secs());
                Err(Lost::Unreached(self.unreachable(&why)))
            }
        }
    }

    async fn attempt(&self, open: Open) -> Result<Line, Verdict> {
        let port = self.endpoint.port();
        let addresses = match self.endpoint.host() {
            Wanted::Address(address) => vec![SocketAddr::new(*address, port)],
            Wanted::Name(name) => lookup::addresses(name.clone(), port, &self.lookups)
                .await
                .map_err(|why| self.unreachable(&why))?,
        };
        let mut last = self.unreachable("its name has no address");
        for address in addresses {
            if let Err(why) = self.check(address.ip()) {
                last = self.deny(address.ip(), &why);
                continue;
            }
            match timeout(EACH_ADDRESS, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secure(stream, open).await,
                Ok(Err(error)) => last = self.unreachable(&format!("{address}: {error}")),
                Err(_) => {
                    let why = format!("{address}: no answer within {} s", EACH_ADDRESS.as_secs());
                    last = self.unreachable(&why);
                }
            }
        }
        Err(last)
    }

    /// Whether this address may be connected to.
    fn check(&self, ip: IpAddr) -> Result<(), String> {
        let is_ours = address::check(ip, false).is_err();
        if let Err(why) = address::check(ip, self.reach == Reach::Private) {
            return Err(why.replace("a rule may say /private", "see --allow-private"));
        }
        match self.endpoint.scheme() {
            Scheme::Http if !is_ours => Err(
                "it is on the internet, where http:// is in the clear; write https://".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    fn deny(&self, ip: IpAddr, why: &str) -> Verdict {
        if self.denied.fetch_add(1, Ordering::Relaxed) < EGRESS_DENIALS_TOLD
            && let Some(on_denied) = &self.on_denied
        {
            on_denied(
                &self.endpoint.authority(),
                &format!("its address is {ip}: {why}"),
            );
        }
        Verdict::Remote {
            fault: RemoteFault::AddressDenied,
            detail: format!("{} is at {ip}: {why}", self.endpoint.url()),
        }
    }

    async fn secure(&self, stream: TcpStream, open: Open) -> Result<Line, Verdict> {
        // Requests are whole when they are sent; a delay helps nobody.
        _ = stream.set_nodelay(true);
        self.connections.fetch_add(1, Ordering::Relaxed);
        let Some(tls) = &self.tls else {
            return self.handshake(stream, open).await;
        };
        let name = match self.endpoint.host() {
            Wanted::Address(ip) => ServerName::from(*ip),
            Wanted::Name(name) => ServerName::try_from(name.clone())
                .map_err(|error| self.unreachable(&error.to_string()))?,
        };
        match tls.connect(name, stream).await {
            Ok(secured) => self.handshake(secured, open).await,
            Err(error) => Err(self.distrust(&error)),
        }
    }

    async fn handshake<S>(&self, stream: S, open: Open) -> Result<Line, Verdict>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.unreachable(&chain(&error)))?;
        Ok(Line {
            sender,
            unused_since: Instant::now(),
            _open: open,
            _moving: AbortOnDropHandle::new(tokio::spawn(async move {
                // Its end shows in the answer.
                _ = connection.await;
            })),
        })
    }

    fn unreachable(&self, why: &str) -> Verdict {
        Verdict::Remote {
            fault: RemoteFault::Unreachable,
            detail: format!("{}: {why}", self.endpoint.url()),
        }
    }

    fn distrust(&self, error: &std::io::Error) -> Verdict {
        let of_tls = error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>());
        if !of_tls {
            return self.unreachable(&format!("TLS did not begin: {error}"));
        }
        Verdict::Remote {
            fault: RemoteFault::Untrusted,
            detail: format!(
                "{}: {error}; if its certificate is of a CA of your own, name that with --ca",
                self.endpoint.url()
            ),
        }
    }
}

impl Open {
    fn new(of_run: &Arc<AtomicU64>, of_all: SemaphorePermit<'static>) -> Self {
        of_run.fetch_add(1, Ordering::Relaxed);
        Self {
            of_run: Arc::clone(of_run),
            _of_all: of_all,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of_run.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl Heard ===

impl Heard {
    pub(super) fn kind(&self) -> Kind {
        let value = self.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let first = value.unwrap_or_default().split(|byte| *byte == b';').next();
        let first = first.unwrap_or_default().trim_ascii();
        if first.eq_ignore_ascii_case(b"application/json") {
            Kind::Json
        } else if first.eq_ignore_ascii_case(b"text/event-stream") {
            Kind::Events
        } else {
            Kind::Other
        }
    }

    /// The next bytes of the body; `None` at its end, when the connection is free for the next request.
    pub(super) async fn bytes(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.body.frame().await {
                None => {
                    if let Some(line) = self.line.take() {
                        self.client.keep(line);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => return Err(chain(&error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        let length = bytes.len() as u64;
                        self.client.received.fetch_add(length, Ordering::Relaxed);
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    /// What it says of itself, for people: the beginning of the body, within a bound and a time.
    pub(super) async fn said(mut self, max: usize, wait: Duration) -> Vec<u8> {
        let mut all = Vec::new();
        let read = async {
            while let Ok(Some(bytes)) = self.bytes().await {
                let room = max.saturating_sub(all.len());
                all.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
                if all.len() >= max {
                    return;
                }
            }
        };
        // What was read until then is what there is.
        let _ = timeout(wait, read).await;
        all
    }
}

/// An error and what is behind it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
