//! Looking a host up and connecting to it: one look, and the connection goes to what was looked at.

use std::io;
use std::net::{IpAddr, SocketAddr};

use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::Shared;
use crate::actors::lookup;
use crate::domain::egress::site::Site;
use crate::domain::egress::{Wanted, address};
use crate::domain::limits::{EGRESS_CONNECT_WAIT, EGRESS_SOCKET_BYTES};
use crate::protocol::egress::tunnel;

/// Why a host is not reached.
#[derive(Debug)]
pub(super) enum Unreached {
    /// It is not to be.
    Denied(String),
    /// It cannot be.
    Failed(String),
}

/// Connects to a host that a rule allows.
pub(super) async fn connect(
    wanted: &Wanted,
    port: u16,
    shared: &Shared,
) -> Result<TcpStream, Unreached> {
    let late = || Unreached::Failed(format!("no connection within {EGRESS_CONNECT_WAIT:?}"));
    let connected = timeout(EGRESS_CONNECT_WAIT, attempt(wanted, port, shared));
    connected.await.unwrap_or_else(|_| Err(late()))
}

async fn attempt(wanted: &Wanted, port: u16, shared: &Shared) -> Result<TcpStream, Unreached> {
    if let Some(proxy) = &shared.leave.proxy {
        return by_proxy(proxy, wanted, port, shared).await;
    }
    let private = shared.may_be_private(wanted, port);
    let mut last = Unreached::Failed("it has no address".to_owned());
    for address in addresses(wanted, port, shared).await? {
        if let Err(why) = address::check(address.ip(), private) {
            last = Unreached::Denied(format!("its address is {}: {why}", address.ip()));
            continue;
        }
        match lookup::is_own(address.ip()) {
            Ok(true) if !private => {
                let why = "it is the host itself; a rule may say /private";
                last = Unreached::Denied(format!("its address is {}: {why}", address.ip()));
                continue;
            }
            Err(error) => {
                last = Unreached::Failed(error.to_string());
                continue;
            }
            Ok(_) => {}
        }
        match open(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Unreached::Failed(error.to_string()),
        }
    }
    Err(last)
}

/// Connects, with buffers that do not grow: who makes a host send and does not take it, or sends what nobody reads,
/// fills them with the gateway's memory.
async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_recv_buffer_size(EGRESS_SOCKET_BYTES)?;
    socket.set_send_buffer_size(EGRESS_SOCKET_BYTES)?;
    socket.connect(address).await
}

/// Over the operator's proxy, which looks names up itself: what it may reach is its own business.
async fn by_proxy(
    proxy: &Site,
    wanted: &Wanted,
    port: u16,
    shared: &Shared,
) -> Result<TcpStream, Unreached> {
    let failed = |why: String| Unreached::Failed(format!("the proxy {proxy}: {why}"));
    // What a name leads to only the proxy knows; but these lead to its own machine or network.
    let inside = match wanted {
        Wanted::Name(name) => !name.contains('.') || name.ends_with(".localhost"),
        Wanted::Address(address) => address::check(*address, false).is_err(),
    };
    if inside && !shared.may_be_private(wanted, port) {
        let why = "it is a name or an address of the proxy's own network";
        return Err(Unreached::Denied(why.to_owned()));
    }
    let mut last = failed("it has no address".to_owned());
    for address in addresses(proxy.host(), proxy.port(), shared).await? {
        let asked = async {
            let mut stream = open(address).await?;
            let host = match wanted {
                Wanted::Address(IpAddr::V6(six)) => format!("[{six}]"),
                other => other.to_string(),
            };
            let login = shared
                .leave
                .proxy_login
                .as_ref()
                .map(|login| login.header());
            let login = login.as_ref().map(ExposeSecret::expose_secret);
            let request = Zeroizing::new(tunnel::request(&host, port, login));
            stream.write_all(&request).await?;
            let mut head = Vec::new();
            // Byte by byte: what follows the head is the host's.
            while !head.ends_with(b"\r\n\r\n") && head.len() < tunnel::HEAD_BYTES_MAX {
                head.push(stream.read_u8().await?);
            }
            tunnel::opened(&head).map_err(io::Error::other)?;
            Ok::<_, io::Error>(stream)
        };
        match asked.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = failed(error.to_string()),
        }
    }
    Err(last)
}

async fn addresses(
    wanted: &Wanted,
    port: u16,
    shared: &Shared,
) -> Result<Vec<SocketAddr>, Unreached> {
    match wanted {
        Wanted::Address(address) => Ok(vec![SocketAddr::new(*address, port)]),
        Wanted::Name(name) => shared
            .asker
            .addresses(name.clone(), port)
            .await
            .map_err(Unreached::Failed),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use super::super::names::Names;
    use super::super::places::Users;
    use super::super::{Leave, Shared};
    use super::*;
    use crate::actors::lookup::Asker;

    /// An address of the world's that is this host's, in the test's second process.
    const OWN: &str = "93.184.216.34";
    const WITHIN: &str = "LEGATION_TEST_WITHIN";

    fn shared(rule: &str) -> Shared {
        Shared {
            leave: Leave {
                rules: vec![rule.parse().unwrap()],
                proxy: None,
                proxy_login: None,
            },
            names: Names::default(),
            places: Users::default().places(None),
            asker: Asker::new(None),
            on_denied: Arc::new(|_, _| {}),
            connections: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            denied: AtomicU64::new(0),
        }
    }

    /// In a network of its own, where a host has such an address.
    #[test]
    fn the_host_s_own_public_address_is_the_host_itself() {
        if std::env::var_os(WITHIN).is_some() {
            return within();
        }
        let name =
            "actors::jail::egress::reach::tests::the_host_s_own_public_address_is_the_host_itself";
        let script = format!(
            "ip link set lo up && ip addr add {OWN}/32 dev lo || exit 77; exec \"$0\" --exact {name}"
        );
        let done = Command::new("unshare")
            .args(["--net", "sh", "-c", &script])
            .arg(std::env::current_exe().unwrap())
            .env(WITHIN, "1")
            .output();
        match done {
            Ok(done) if done.status.success() => {
                let said = String::from_utf8_lossy(&done.stdout);
                assert!(said.contains("1 passed"), "{said}");
            }
            Ok(done) if done.status.code() == Some(101) => {
                panic!("{}", String::from_utf8_lossy(&done.stdout));
            }
            // Only root may, and with `ip`.
            other => eprintln!("skipped: {other:?}"),
        }
    }

    #[tokio::main(flavor = "current_thread")]
    async fn within() {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let wanted = Wanted::Address(OWN.parse().unwrap());
        let refused = connect(&wanted, port, &shared(&format!("{OWN}:{port}"))).await;
        let Err(Unreached::Denied(why)) = refused else {
            panic!("{refused:?}");
        };
        assert!(why.contains("the host itself"), "{why}");
        let private = shared(&format!("{OWN}:{port}/private"));
        assert!(connect(&wanted, port, &private).await.is_ok());
        let (stream, from) = listener.accept().await.unwrap();
        drop(stream);
        assert_eq!(from.ip().to_string(), OWN, "the first that came was let go");
    }
}
