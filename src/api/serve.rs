//! Accept loops: one per listener, one task per connection, every wait bounded.
//!
//! Bind first ([`bind_tcp`], [`bind_unix`]), so that a start fails before anything else does; then
//! [`Bound::serve`]. Cancelling the token closes the port, lets requests in hand finish and closes
//! idle connections; what is left when [`Bounds::drain`] is over is dropped, and with it the
//! requests' futures.
//!
//! Only HTTP/1.1 is spoken: the standard client knows nothing else, and TLS says so (ALPN).

mod bind;
mod connection;
mod plain;
mod pulse;

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::domain::limits;
use crate::telemetry::metrics::http::HttpMeter;

use super::peer::{PeerAddress, PeerCred};
use super::tls::Tls;
use connection::{Ended, Shared, Who, drive};

pub use bind::{BindError, OtherPort, SocketMode};

/// The bounds of a listener.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once; the next one is closed.
    pub connections: usize,
    /// A TLS handshake.
    pub tls_handshake: Duration,
    /// Reading a request's headers.
    pub header_read: Duration,
    /// Bytes of a request's headers.
    pub header_bytes: usize,
    /// Waiting for the next request, or for the client to read an answer.
    pub idle: Duration,
    /// Finishing what is in hand after the listener was told to stop.
    pub drain: Duration,
}

/// A listener that has its port or socket, and serves nothing yet.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: Address,
    meter: Option<Arc<HttpMeter>>,
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A port.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// A listener that serves. Dropping it stops it at once.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    join: JoinHandle<Drained>,
}

/// How a listener ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still busy when the time was over, and were dropped.
    pub dropped: usize,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, bind::Place),
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

/// Binds a TCP port; port 0 is any free one.
///
/// # Errors
/// [`BindError`], if the port is taken and no other will do, or the system refuses it.
pub async fn bind_tcp(asked: SocketAddr, other: OtherPort) -> Result<Bound, BindError> {
    let listener = bind::tcp(asked, other).await?;
    let address = listener.local_addr().map_err(|source| BindError::Tcp {
        address: asked,
        source,
    })?;
    Ok(Bound {
        socket: Socket::Tcp(listener),
        address: Address::Tcp(address),
        meter: None,
    })
}

/// Binds a Unix socket, replacing one at which nobody answers. Requests carry [`PeerCred`].
///
/// # Errors
/// [`BindError`], of which [`BindError::Answers`] means that a server is running there.
pub fn bind_unix(path: &Path, mode: SocketMode) -> Result<Bound, BindError> {
    let (listener, place) = bind::unix(path, mode)?;
    Ok(Bound {
        socket: Socket::Unix(listener, place),
        address: Address::Unix(path.to_owned()),
        meter: None,
    })
}

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_MAX,
            tls_handshake: limits::TLS_HANDSHAKE_MAX,
            header_read: limits::HEADER_READ_MAX,
            header_bytes: limits::HEADER_BYTES_MAX,
            idle: limits::KEEP_ALIVE_IDLE_MAX,
            // Calls cut short at `DRAIN_MAX` are answered; their connections must still be there.
            drain: limits::DRAIN_MAX.saturating_add(limits::LAST_ANSWERS),
        }
    }
}

// === impl Bound ===

impl Bound {
    /// Where it listens: the real port, if any free one was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The port, if it has one.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match &self.address {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// Counts its requests and connections there.
    #[must_use]
    pub fn measured(self, meter: Option<Arc<HttpMeter>>) -> Self {
        Self { meter, ..self }
    }

    /// Serves `router` until `stop` is cancelled and the connections are drained. `tls` is for
    /// ports; a Unix socket has none.
    #[must_use]
    pub fn serve(
        self,
        router: Router,
        tls: Option<Arc<Tls>>,
        bounds: Bounds,
        stop: CancellationToken,
    ) -> Listener {
        let Self {
            socket,
            address,
            meter,
        } = self;
        let join = tokio::spawn(async move {
            let watch = async {
                match &tls {
                    Some(tls) => tls.watch().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                drained = accept_loop(socket, router, tls.clone(), Shared::new(bounds, meter), stop) => {
                    drained
                }
                never = watch => match never {},
            }
        });
        Listener { address, join }
    }
}

// === impl Listener ===

impl Listener {
    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Returns when it has stopped. Cancel-safe.
    ///
    /// # Errors
    /// The accept loop's panic, which is a bug.
    pub async fn stopped(&mut self) -> Result<Drained, tokio::task::JoinError> {
        (&mut self.join).await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.join.abort();
    }
}

// === impl Socket ===

impl Socket {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => listener
                .accept()
                .await
                .map(|(stream, from)| Stream::Tcp(stream, from)),
            Self::Unix(listener, _) => listener
                .accept()
                .await
                .map(|(stream, _)| Stream::Unix(stream)),
        }
    }

    /// Returns when nobody can connect any more: its file was removed, or replaced.
    async fn lost(&self) {
        match self {
            Self::Tcp(_) => pending().await,
            Self::Unix(_, place) => place.lost().await,
        }
    }

    /// Makes the file again, unless something else is in its place.
    fn renew(&mut self) -> Result<(), BindError> {
        if let Self::Unix(_, place) = self {
            let (listener, place) = place.again()?;
            *self = Self::Unix(listener, place);
        }
        Ok(())
    }
}

async fn accept_loop(
    mut socket: Socket,
    router: Router,
    tls: Option<Arc<Tls>>,
    shared: Shared,
    stop: CancellationToken,
) -> Drained {
    let slots = Arc::new(Semaphore::new(shared.bounds.connections));
    let shared = Arc::new(shared);
    let mut connections = JoinSet::new();
    let (mut full, mut shut) = (false, false);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => { note(ended); continue }
            () = socket.lost() => {
                let renewed = socket.renew();
                let failed = renewed.is_err();
                match renewed {
                    Ok(()) => tracing::warn!("the socket was removed, and made again"),
                    // Said once.
                    Err(error) if !shut => tracing::error!(%error, "the socket was removed, and cannot be made again"),
                    Err(_) => {}
                }
                shut = failed;
                if failed {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(limits::SOCKET_LOOK) => {}
                    }
                }
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                refused(&error, &stop).await;
                continue;
            }
        };
        shared.left(slots.available_permits());
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            // Said once per crowd, not once per connection.
            if !std::mem::replace(&mut full, true) {
                let max = shared.bounds.connections;
                tracing::warn!(
                    max,
                    "connection limit reached; further connections are closed"
                );
            }
            continue;
        };
        full = false;
        let counted = shared.meter.clone().map(Counted::new);
        let one = serve_one(stream, tls.clone(), Arc::clone(&shared), router.clone());
        connections.spawn(async move {
            let (_slot, _counted) = (slot, counted);
            one.await;
        });
    }
    drop(socket);
    shared.drain();
    let deadline = Instant::now() + shared.bounds.drain;
    loop {
        tokio::select! {
            biased;
            ended = connections.join_next() => match ended {
                Some(ended) => note(ended),
                None => return Drained { dropped: 0 },
            },
            () = sleep_until(deadline) => {
                let dropped = connections.len();
                tracing::warn!(dropped, "connections were still busy at the end of the drain");
                connections.shutdown().await;
                return Drained { dropped };
            }
        }
    }
}

/// A connection that is counted for as long as this lives.
struct Counted(Arc<HttpMeter>);

impl Counted {
    fn new(meter: Arc<HttpMeter>) -> Self {
        meter.connected();
        Self(meter)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.disconnected();
    }
}

/// A connection task that panicked takes only its own connection with it, but is a bug.
fn note(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a request handler panicked; its connection was dropped");
    }
}

/// Accepting failed: a client that left while it waited is nothing; without descriptors or memory,
/// asking again at once would only spin.
async fn refused(error: &io::Error, stop: &CancellationToken) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    ) {
        return;
    }
    tracing::error!(%error, "a connection could not be accepted; check the open files limit");
    tokio::select! {
        () = stop.cancelled() => {}
        () = sleep(limits::ACCEPT_RETRY) => {}
    }
}

async fn serve_one(stream: Stream, tls: Option<Arc<Tls>>, shared: Arc<Shared>, router: Router) {
    let ended = match (stream, tls) {
        (Stream::Tcp(stream, from), tls) => {
            // Answers are one write; waiting for more to send only adds latency.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            let who = Who::Address(PeerAddress(from));
            match tls {
                None => drive(stream, who, shared, router).await,
                // Boxed, so that a plain connection does not carry the room of a TLS one.
                Some(tls) => Box::pin(serve_tls(stream, who, tls, shared, router)).await,
            }
        }
        (Stream::Unix(stream), _) => match stream.peer_cred() {
            Ok(cred) => {
                let cred = PeerCred {
                    uid: cred.uid(),
                    gid: cred.gid(),
                    pid: cred.pid(),
                };
                drive(stream, Who::Cred(cred), shared, router).await
            }
            Err(error) => {
                tracing::warn!(%error, "a local peer without credentials was refused");
                Ended::Closed
            }
        },
    };
    match ended {
        Ended::Closed => {}
        Ended::Broken(error) => tracing::debug!(%error, "connection broke"),
        Ended::Overdue => tracing::debug!("connection closed: its client let it wait too long"),
    }
}

async fn serve_tls(
    stream: TcpStream,
    who: Who,
    tls: Arc<Tls>,
    shared: Arc<Shared>,
    router: Router,
) -> Ended {
    let handshake = async {
        if plain::speaks(&stream).await? {
            plain::refuse(stream, shared.bounds.header_bytes).await?;
            return Ok(None);
        }
        let acceptor = TlsAcceptor::from(tls.server_config());
        acceptor.accept(stream).await.map(Some)
    };
    let done: io::Result<_> = tokio::select! {
        done = handshake => done,
        () = overdue(&shared) => return Ended::Overdue,
        () = shared.drained() => return Ended::Closed,
    };
    match done {
        Ok(Some(stream)) => drive(stream, who, shared, router).await,
        Ok(None) => Ended::Closed,
        Err(error) => {
            tracing::debug!(%error, "TLS handshake failed");
            Ended::Closed
        }
    }
}

/// Returns when a handshake has taken too long: sooner where few connections are left, so that who never begins
/// keeps nobody out.
async fn overdue(shared: &Shared) {
    let longest = shared.bounds.tls_handshake;
    let shortest = longest.min(limits::CROWDED_HANDSHAKE_MAX);
    let since = Instant::now();
    sleep(shortest).await;
    while !shared.is_crowded() && since.elapsed() < longest {
        let left = longest.saturating_sub(since.elapsed());
        sleep(left.min(shortest / 4)).await;
    }
}

#[cfg(test)]
mod tests;
