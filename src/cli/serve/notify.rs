//! Telling a service manager that the server is ready, that it lives, and that it stops: sd_notify(3), which is one datagram to the socket that
//! `NOTIFY_SOCKET` names. Without the variable nobody is told.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

const VARIABLE: &str = "NOTIFY_SOCKET";
/// Clients are served.
pub(super) const READY: &str = "READY=1";
/// It lives: told twice in the time that the manager gives it.
const WATCHDOG: &str = "WATCHDOG=1";
/// How long the manager waits for that, in microseconds, and for whose word.
const WATCHDOG_TIME: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";
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

/// How often the manager wants to hear that we live (sd_watchdog_enabled(3)): half of what it waits. `None`: it does
/// not, or not from us.
pub(super) fn watchdog() -> Option<Duration> {
    let var = |name| std::env::var(name).ok();
    every(var(WATCHDOG_TIME)?.as_str(), var(WATCHDOG_PID).as_deref())
}

fn every(micros: &str, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let micros: u64 = micros.parse().ok()?;
    (is_ours && micros > 1).then(|| Duration::from_micros(micros / 2))
}

/// Says that we live for as long as this is awaited and it is so: on a worker of the runtime, so that one answers, and
/// while the root of the tree beats.
pub(super) async fn keep_alive(every: Duration, is_alive: impl Fn() -> bool) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match is_alive() {
            true => tell(WATCHDOG),
            false => tracing::error!(
                "the root of the tree is silent: the service manager is not told that we live"
            ),
        }
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
    fn it_is_told_twice_in_the_time_that_is_ours() {
        let own = std::process::id().to_string();
        let half = Some(Duration::from_secs(15));
        for (micros, pid, expected) in [
            ("30000000", None, half),
            ("30000000", Some(own.as_str()), half),
            ("30000000", Some("1"), None),
            ("0", None, None),
            ("soon", None, None),
        ] {
            assert_eq!(every(micros, pid), expected, "{micros} {pid:?}");
        }
    }

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
