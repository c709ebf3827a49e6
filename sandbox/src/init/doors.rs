//! The way out: listeners inside the isolate's network whose other end is the gateway's.
//!
//! Nothing leaves this network by itself: it has no interface but `lo`. Every address leads to `lo`, so
//! what an isolate sends to any address meets these sockets or nobody. They are made here and handed
//! over; whose they are is who they came from, no token says it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt::{RcvBuf, SndBuf},
};

use super::{SEAT_DOOR, failed};
use crate::plan::{PROXY_PORT, Place};
use crate::status::Failure;
use crate::sys::{self, rights};
use crate::wire;

/// The only interface of a new network.
const LO_INDEX: u32 = 1;

/// Bytes of each buffer of a connection that comes over a listener, which has its listener's. They are the gateway's
/// memory: left alone, they grow to some MiB.
const BUFFER_BYTES: usize = 64 << 10;

/// Sets `lo` up, leads every address to it, listens, and hands the listeners over: the name server's,
/// the proxy's, and those of `ports` in their order.
pub(super) fn open(ports: &[u16]) -> Result<(), Failure> {
    let fail = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| failed(Place::Network, &what, &error)
    };
    let door = sys::adopt(SEAT_DOOR);
    rights::loopback_up().map_err(fail("set the interface `lo` up"))?;
    all_is_local().map_err(fail("lead every address to `lo`"))?;
    let names = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53))
        .map_err(fail("listen for name queries"))?;
    let proxy = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT))
        .map_err(fail("listen for the proxy"))?;
    let mut listeners = Vec::new();
    for port in ports {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, *port);
        listeners.push(TcpListener::bind(any).map_err(fail(&format!("listen on port {port}")))?);
    }
    for listener in std::iter::once(&proxy).chain(&listeners) {
        setsockopt(listener, RcvBuf, &BUFFER_BYTES)
            .and_then(|()| setsockopt(listener, SndBuf, &BUFFER_BYTES))
            .map_err(|error| fail("bound the buffers of connections")(error.into()))?;
    }
    let mut doors = vec![names.as_raw_fd(), proxy.as_raw_fd()];
    doors.extend(listeners.iter().map(AsRawFd::as_raw_fd));
    wire::send_doors(door.as_fd(), &doors).map_err(fail("hand the listeners over"))
}

/// `ip route add local 0.0.0.0/0 dev lo`.
fn all_is_local() -> io::Result<()> {
    let link = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let message = route();
    send(link.as_raw_fd(), &message, MsgFlags::empty())?;
    let mut answer = [0; 256];
    let length = recv(link.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    acknowledged(answer.get(..length).unwrap_or_default())
}

fn route() -> Vec<u8> {
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut body = Vec::new();
    // rtmsg: an address of any length, to be taken as our own.
    body.extend([u8::try_from(libc::AF_INET).unwrap_or_default(), 0, 0, 0]);
    body.extend([
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_BOOT,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
    ]);
    body.extend(0u32.to_ne_bytes());
    // rtattr: over this interface.
    body.extend(8u16.to_ne_bytes());
    body.extend(libc::RTA_OIF.to_ne_bytes());
    body.extend(LO_INDEX.to_ne_bytes());
    let length = u32::try_from(16 + body.len()).unwrap_or_default();
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend(u16::try_from(flags).unwrap_or_default().to_ne_bytes());
    // Number and sender; the kernel fills in the latter.
    message.extend(1u32.to_ne_bytes());
    message.extend(0u32.to_ne_bytes());
    message.extend(body);
    message
}

/// `NLMSG_ERROR` with the error 0 is a yes.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    let kind = answer.get(4..6).and_then(|b| b.first_chunk::<2>());
    let error = answer.get(16..20).and_then(|b| b.first_chunk::<4>());
    match (kind, error) {
        (Some(kind), Some(error)) if i32::from(u16::from_ne_bytes(*kind)) == libc::NLMSG_ERROR => {
            match i32::from_ne_bytes(*error) {
                0 => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            }
        }
        _ => Err(io::Error::from_raw_os_error(libc::EPROTO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_a_whole_message() {
        let message = route();
        assert_eq!(message.len(), 36);
        assert_eq!(message[..4], 36u32.to_ne_bytes());
    }

    #[test]
    fn only_a_plain_yes_is_one() {
        let answer = |kind: u16, error: i32| {
            let mut bytes = vec![0; 20];
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes[16..20].copy_from_slice(&error.to_ne_bytes());
            acknowledged(&bytes).map_err(|error| error.raw_os_error())
        };
        assert_eq!(answer(2, 0), Ok(()));
        assert_eq!(answer(2, -1), Err(Some(libc::EPERM)));
        assert_eq!(answer(24, 0), Err(Some(libc::EPROTO)));
        assert!(acknowledged(&[]).is_err());
    }
}
