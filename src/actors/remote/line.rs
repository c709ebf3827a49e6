//! A connection to a server.
//!
//! A name is looked up here, each of its addresses is checked, and the connection goes to the very
//! address that was: a name cannot mean one thing when it is checked and another when it is used.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::actors::lookup;
use crate::domain::egress::Wanted;
use crate::domain::limits::{EGRESS_DENIALS_TOLD, REMOTE_CONNECT_WAIT, REMOTE_CONNECTIONS_ALL_MAX};
use crate::domain::remote::Reach;
use crate::domain::verdict::{RemoteFault, Verdict};

use super::client::{Client, Lost};

/// Connections to all servers.
static ALL: Semaphore = Semaphore::const_new(REMOTE_CONNECTIONS_ALL_MAX);

/// How long one of several addresses may take, so that a dead one leaves time for the next.
const EACH_ADDRESS: Duration = Duration::from_secs(4);
/// A connection; dropping it closes it.
pub(super) struct Line {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    pub(super) unused_since: Instant,
    _open: Open,
    _moving: AbortOnDropHandle<()>,
}

/// Counts as open, among its run's and among all, while it lives.
struct Open {
    of_run: Arc<AtomicU64>,
    _of_all: SemaphorePermit<'static>,
}

impl Client {
    /// Connects.
    pub(super) async fn connect(&self) -> Result<Line, Lost> {
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
        let port = self.remote.url.port();
        let addresses = match self.remote.url.host() {
            Wanted::Address(address) => vec![SocketAddr::new(*address, port)],
            Wanted::Name(name) => self
                .asker
                .addresses(name.clone(), port)
                .await
                .map_err(|why| self.unreachable(&why))?,
        };
        self.through(addresses, open).await
    }

    /// Connects to the first of them that it may and can.
    async fn through(&self, addresses: Vec<SocketAddr>, open: Open) -> Result<Line, Verdict> {
        let mut last = self.unreachable("its name has no address");
        let mut denied = None;
        for address in addresses {
            if let Some(why) = self.remote.refuses(address.ip()) {
                let verdict = self.deny(address.ip(), &why);
                denied.get_or_insert(verdict);
                continue;
            }
            match lookup::is_own(address.ip()) {
                Ok(true) if self.remote.reach != Reach::Private => {
                    let why = "it is the host itself; see --allow-private";
                    denied.get_or_insert(self.deny(address.ip(), why));
                    continue;
                }
                Err(error) => {
                    last = self.unreachable(&format!("{address}: {error}"));
                    continue;
                }
                Ok(_) => {}
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
        // An address inside is said and quarantined, also if another one merely does not answer.
        Err(denied.unwrap_or(last))
    }

    fn deny(&self, ip: IpAddr, why: &str) -> Verdict {
        if self.denied.fetch_add(1, Ordering::Relaxed) < EGRESS_DENIALS_TOLD
            && let Some(on_denied) = &self.on_denied
        {
            on_denied(
                &self.remote.url.authority(),
                &format!("its address is {ip}: {why}"),
            );
        }
        Verdict::Remote {
            fault: RemoteFault::AddressDenied,
            detail: format!("{} is at {ip}: {why}", self.remote.url.shown()),
        }
    }

    async fn secure(&self, stream: TcpStream, open: Open) -> Result<Line, Verdict> {
        // Requests are whole when they are sent; a delay helps nobody.
        _ = stream.set_nodelay(true);
        self.connections.fetch_add(1, Ordering::Relaxed);
        let Some(tls) = &self.tls else {
            return self.handshake(stream, open).await;
        };
        let name = match self.remote.url.host() {
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

    /// There is no way to it.
    pub(super) fn unreachable(&self, why: &str) -> Verdict {
        Verdict::Remote {
            fault: RemoteFault::Unreachable,
            detail: format!("{}: {why}", self.remote.url.shown()),
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
                self.remote.url.shown()
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

/// An error and what is behind it.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::remote::parts::of_test;

    #[tokio::test]
    async fn a_denied_address_is_not_forgotten_when_a_later_one_fails() {
        let mut dial = of_test::dial("http://127.0.0.1:9/mcp", None);
        Arc::make_mut(&mut dial.remote).reach = Reach::Private;
        let client = Client::new(&dial, None, None);
        let open = Open::new(&client.open, ALL.try_acquire().unwrap());
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let nobody = closed.local_addr().unwrap();
        drop(closed);
        let addresses = vec!["169.254.169.254:80".parse().unwrap(), nobody];
        let Err(verdict) = client.through(addresses, open).await else {
            panic!("it connected");
        };
        let fault = RemoteFault::AddressDenied;
        assert!(
            matches!(&verdict, Verdict::Remote { fault: is, .. } if *is == fault),
            "{verdict}"
        );
    }
}
