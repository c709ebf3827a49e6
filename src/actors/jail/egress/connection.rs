//! One connection out: for whom it is, whether that is allowed, and the bytes both ways.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::reach::{self, Unreached};
use super::{Shared, Way};
use crate::domain::egress::Wanted;
use crate::domain::limits::{EGRESS_BUFFER_BYTES, EGRESS_HEAD_WAIT, EGRESS_IDLE};
use crate::protocol::egress::hello::{self, Hello};
use crate::protocol::egress::tunnel::{self, HEAD_BYTES_MAX, Head};

const NOT_LISTED: &str = "it is not on the mcp's list of hosts";

/// From the accepted connection to its end.
pub(super) async fn run(client: TcpStream, way: Way, shared: &Shared) {
    // A small message is not kept back for a larger one.
    let _ = client.set_nodelay(true);
    match way {
        Way::Proxy => asked(client, shared).await,
        Way::Port(port) => taken(client, port, shared).await,
    }
}

/// A client that asks the proxy.
async fn asked(mut client: TcpStream, shared: &Shared) {
    let head = timeout(EGRESS_HEAD_WAIT, read_head(&mut client)).await;
    let Ok(Ok((head, rest))) = head else { return };
    let (host, port) = match head {
        Head::Connect { host, port, .. } => (host, port),
        Head::Other => {
            let text = "Legation's proxy knows CONNECT only; use https, or connect directly.\n";
            refuse(client, "405 Method Not Allowed", text).await;
            return;
        }
        Head::More | Head::Broken => {
            refuse(client, "400 Bad Request", "This is no CONNECT request.\n").await;
            return;
        }
    };
    let shown = format!("{host}:{port}");
    let Some(wanted) = Wanted::parse(&host).filter(|wanted| shared.allows(wanted, port)) else {
        shared.deny(&shown, NOT_LISTED);
        let text = format!(
            "{shown} is not allowed: {NOT_LISTED}. An operator adds it with `legation mcp update \
             NAME --host {shown}`, which names all of an mcp's hosts, so with `--host` for each that it has.\n"
        );
        refuse(client, "403 Forbidden", &text).await;
        return;
    };
    match reach::connect(&wanted, port, shared).await {
        Ok(host) => {
            let _ = host.set_nodelay(true);
            if client.write_all(tunnel::OPEN).await.is_ok() {
                carry(client, host, rest, &wanted, &shown, shared).await;
            }
        }
        Err(Unreached::Denied(why)) => {
            shared.deny(&shown, &why);
            let text = format!("{shown} is not allowed: {why}.\n");
            refuse(client, "403 Forbidden", &text).await;
        }
        Err(Unreached::Failed(why)) => {
            let text = format!("{shown} is not reached: {why}.\n");
            refuse(client, "502 Bad Gateway", &text).await;
        }
    }
}

/// A client that believes it has connected to the host itself.
async fn taken(client: TcpStream, port: u16, shared: &Shared) {
    let Ok(local) = client.local_addr() else {
        return;
    };
    let wanted = match local.ip() {
        IpAddr::V4(address) => match shared.names.name(address) {
            Some(name) => Wanted::Name(name.to_string()),
            None => Wanted::Address(address.into()),
        },
        address => Wanted::Address(address),
    };
    let shown = format!("{wanted}:{port}");
    if !shared.allows(&wanted, port) {
        shared.deny(&shown, NOT_LISTED);
        reset(&client);
        return;
    }
    match reach::connect(&wanted, port, shared).await {
        Ok(host) => {
            let _ = host.set_nodelay(true);
            carry(client, host, Vec::new(), &wanted, &shown, shared).await;
        }
        Err(Unreached::Denied(why)) => {
            shared.deny(&shown, &why);
            reset(&client);
        }
        Err(Unreached::Failed(_)) => reset(&client),
    }
}

async fn read_head(client: &mut TcpStream) -> io::Result<(Head, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    loop {
        match tunnel::look(&bytes) {
            Head::More if bytes.len() < HEAD_BYTES_MAX => {}
            head @ Head::Connect { length, .. } => return Ok((head, bytes.split_off(length))),
            head => return Ok((head, Vec::new())),
        }
        let read = client.read(&mut part).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(part.get(..read).unwrap_or_default());
    }
}

async fn refuse(mut client: TcpStream, status: &str, text: &str) {
    let answer = tunnel::refusal(status, text);
    // Who does not read its refusal does without.
    let said = async {
        let _ = client.write_all(&answer).await;
        let _ = client.shutdown().await;
    };
    let _ = timeout(EGRESS_HEAD_WAIT, said).await;
}

/// Ends a connection so that the other end sees a refusal, not an end.
fn reset(client: &TcpStream) {
    // Where that cannot be had, it is closed as usual.
    let _ = client.set_zero_linger();
}

/// Bytes both ways, until both have ended, nothing moves for too long, or the client turns out to
/// talk to somebody else.
async fn carry(
    client: TcpStream,
    host: TcpStream,
    first: Vec<u8>,
    wanted: &Wanted,
    shown: &str,
    shared: &Shared,
) {
    let moved = Moved(AtomicU64::new(0), Instant::now());
    let (client_reads, client_writes) = client.into_split();
    let (host_reads, host_writes) = host.into_split();
    let out = async {
        let mut out = Pump::new(client_reads, host_writes, &shared.sent, &moved);
        out.begin(first, wanted).await?;
        out.run().await
    };
    let back = Pump::new(host_reads, client_writes, &shared.received, &moved).run();
    tokio::select! {
        ended = async { tokio::try_join!(out, back) } => {
            if let Err(End::Elsewhere(name)) = ended {
                let why = format!("the client says that it talks to `{name}`");
                shared.deny(shown, &why);
            }
        }
        () = moved.stopped() => {}
    }
}

/// When something moved last, in milliseconds since the beginning.
struct Moved(AtomicU64, Instant);

impl Moved {
    fn now(&self) {
        let since = u64::try_from(self.1.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.store(since, Ordering::Relaxed);
    }

    async fn stopped(&self) {
        loop {
            let last = self.1 + Duration::from_millis(self.0.load(Ordering::Relaxed));
            let still = last.elapsed();
            if still >= EGRESS_IDLE {
                return;
            }
            sleep(EGRESS_IDLE - still).await;
        }
    }
}

/// Why a direction ended before its time.
enum End {
    Broken,
    /// The name in the client's TLS is another one.
    Elsewhere(String),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        Self::Broken
    }
}

/// One direction.
struct Pump<'a> {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    buffer: Vec<u8>,
    count: &'a AtomicU64,
    moved: &'a Moved,
}

impl<'a> Pump<'a> {
    fn new(
        from: OwnedReadHalf,
        to: OwnedWriteHalf,
        count: &'a AtomicU64,
        moved: &'a Moved,
    ) -> Self {
        let buffer = vec![0; EGRESS_BUFFER_BYTES];
        Self {
            from,
            to,
            buffer,
            count,
            moved,
        }
    }

    /// Lets the beginning pass if it is TLS for the host it goes to, or no TLS at all.
    async fn begin(&mut self, first: Vec<u8>, wanted: &Wanted) -> Result<(), End> {
        let mut bytes = first;
        let mut until = None;
        loop {
            match hello::look(&bytes) {
                Hello::More => {}
                Hello::Broken => return Err(End::Elsewhere("nobody it names readably".to_owned())),
                Hello::Tls(Some(name)) => {
                    let same = match wanted {
                        Wanted::Name(_) => Wanted::parse(&name).as_ref() == Some(wanted),
                        Wanted::Address(_) => true,
                    };
                    if !same {
                        return Err(End::Elsewhere(name.chars().take(253).collect()));
                    }
                    break;
                }
                Hello::Other | Hello::Tls(None) => break,
            }
            // A client may wait for the host's first word; but who has begun comes to the end in time, however
            // small its pieces are.
            let read = if bytes.is_empty() {
                self.from.read(&mut self.buffer).await?
            } else {
                let until = *until.get_or_insert_with(|| Instant::now() + EGRESS_HEAD_WAIT);
                let read = timeout_at(until, self.from.read(&mut self.buffer)).await;
                read.map_err(|_| End::Broken)??
            };
            if read == 0 {
                break;
            }
            bytes.extend_from_slice(self.buffer.get(..read).unwrap_or_default());
        }
        self.pass(&bytes).await?;
        Ok(())
    }

    async fn run(mut self) -> Result<(), End> {
        loop {
            let read = self.from.read(&mut self.buffer).await?;
            if read == 0 {
                self.to.shutdown().await?;
                return Ok(());
            }
            let bytes = self.buffer.get(..read).unwrap_or_default();
            self.to.write_all(bytes).await?;
            self.count.fetch_add(read as u64, Ordering::Relaxed);
            self.moved.now();
        }
    }

    async fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        self.count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.moved.now();
        Ok(())
    }
}
