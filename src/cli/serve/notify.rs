//! Telling a service manager that the server is ready, and that it stops: sd_notify(3), which is one datagram to the socket that
//! `NOTIFY_SOCKET` names. Without the variable nobody is told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

const VARIABLE: &str = "NOTIFY_SOCKET";
/// Clients are served.
pub(super) const READY: &str = "READY=1";
/// It drains, or ends.
pub(super) const STOPPING: &str = "STOPPING=1";

/// Tells, if somebody wants to know. One who does not listen is no reason to stop.
pub(super) fn tell(state: &str) {
    let Some(socket) = std::env::var_os(VARIABLE).filter(|socket| !socket.is_empty()) else {
        return;
    };
    if let Err(error) = send(&socket, state) {
        tracing::warn!("the service manager was not told {state}: {error}");
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // A name without a file.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A manager that reads nothing must not hold us.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_sockets_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("legation-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        send(path.as_os_str(), READY).unwrap();
        send(format!("@{name}").as_ref(), STOPPING).unwrap();
        for (socket, expected) in [(by_path, READY), (by_name, STOPPING)] {
            let mut room = [0; 64];
            let got = socket.recv(&mut room).unwrap();
            assert_eq!(&room[..got], expected.as_bytes());
        }
        assert!(send("/nowhere/notify".as_ref(), READY).is_err());
    }
}
