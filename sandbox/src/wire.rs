//! What goes over the socket between the gateway and spawnd: one datagram each way per spawn.
//!
//! Requests carry a fixed header and descriptors in a fixed order; spawnd never looks into the
//! plan. An answer is a pid with its pidfd, or an errno.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::sys;

/// Descriptors every spawn brings: stdin, stdout, stderr, plan, status, lifeline.
pub(crate) const FIXED_FDS: usize = 6;
/// The door, the v2 directory and up to this many v1 `tasks` files come after them.
pub(crate) const FDS_MAX: usize = FIXED_FDS + 2 + 6;
/// Listeners of one isolate: the name server's, the proxy's, and one for each port.
pub(crate) const DOORS_MAX: usize = 2 + crate::plan::PORTS_MAX;
const REQUEST_BYTES: usize = 16;
const ANSWER_BYTES: usize = 8;

/// What is asked of spawnd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Clone an init.
    Spawn {
        /// A socket to hand listeners over follows the fixed descriptors.
        door: bool,
        /// A v2 directory follows them.
        into_cgroup: bool,
    },
    /// Clone a child that ends at once, to see whether the namespaces may be had.
    Probe,
}

/// One request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    /// `CLONE_NEW*` flags.
    pub(crate) namespaces: u64,
}

impl Request {
    pub(crate) fn encode(self) -> [u8; REQUEST_BYTES] {
        let op: u64 = match self.ask {
            Ask::Probe => 1,
            Ask::Spawn { door, into_cgroup } => 2 + u64::from(into_cgroup) + 2 * u64::from(door),
        };
        let mut out = [0; REQUEST_BYTES];
        let (head, tail) = out.split_at_mut(8);
        head.copy_from_slice(&op.to_le_bytes());
        tail.copy_from_slice(&self.namespaces.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: [u8; REQUEST_BYTES]) -> Option<Self> {
        let (op, rest) = bytes.split_first_chunk::<8>()?;
        let namespaces = u64::from_le_bytes(*rest.first_chunk::<8>()?);
        let ask = match u64::from_le_bytes(*op) {
            1 => Ask::Probe,
            op @ 2..=5 => Ask::Spawn {
                door: op >= 4,
                into_cgroup: op % 2 == 1,
            },
            _ => return None,
        };
        Some(Self { ask, namespaces })
    }
}

/// Sends a request with its descriptors.
pub(crate) fn send_request(
    socket: BorrowedFd<'_>,
    request: Request,
    fds: &[RawFd],
) -> io::Result<()> {
    send(socket, &request.encode(), fds)
}

/// Sends the answer to a request.
pub(crate) fn send_answer(
    socket: BorrowedFd<'_>,
    answer: io::Result<(i32, OwnedFd)>,
) -> io::Result<()> {
    let mut out = [0; ANSWER_BYTES];
    let (head, tail) = out.split_at_mut(4);
    match answer {
        Ok((pid, pidfd)) => {
            head.copy_from_slice(&pid.to_le_bytes());
            send(socket, &out, &[pidfd.as_raw_fd()])
        }
        Err(error) => {
            tail.copy_from_slice(&error.raw_os_error().unwrap_or(libc::EPROTO).to_le_bytes());
            send(socket, &out, &[])
        }
    }
}

/// One word of the spawner's beginning, each way: whether it has a user namespace, and whether that has its ids.
pub(crate) fn send_word(socket: BorrowedFd<'_>, errno: i32) -> io::Result<()> {
    send(socket, &errno.to_le_bytes(), &[])
}

/// Receives such a word: 0, or an errno.
pub(crate) fn receive_word(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let mut bytes = [0; 4];
    match receive(socket, &mut bytes, &mut space())? {
        (4, _) => Ok(i32::from_le_bytes(bytes)),
        _ => Err(io::Error::from_raw_os_error(libc::EPIPE)),
    }
}

/// Receives one request; `None` when the gateway has closed its end.
pub(crate) fn receive_request(
    socket: BorrowedFd<'_>,
    space: &mut [u8],
) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut bytes = [0; REQUEST_BYTES];
    let (length, fds) = receive(socket, &mut bytes, space)?;
    if length == 0 {
        return Ok(None);
    }
    let request = Request::decode(bytes).filter(|_| length == REQUEST_BYTES);
    request
        .map(|request| Some((request, fds)))
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EBADMSG))
}

/// A new process, and its pidfd if there was room for it in our table.
pub(crate) type Answer = (i32, Option<OwnedFd>);

/// Receives the answer: the outer error is a broken link, the inner one the kernel's refusal.
pub(crate) fn receive_answer(socket: BorrowedFd<'_>) -> io::Result<io::Result<Answer>> {
    let mut bytes = [0; ANSWER_BYTES];
    let (length, fds) = receive(socket, &mut bytes, &mut space())?;
    if length != ANSWER_BYTES {
        return Err(io::Error::from_raw_os_error(libc::EPIPE));
    }
    let word = |half: &[u8]| {
        half.first_chunk::<4>()
            .map_or(0, |w| i32::from_le_bytes(*w))
    };
    let (head, tail) = bytes.split_at(4);
    let errno = word(tail);
    if errno != 0 {
        return Ok(Err(io::Error::from_raw_os_error(errno)));
    }
    Ok(Ok((word(head), fds.into_iter().next())))
}

/// A buffer for the descriptors of one message.
pub(crate) fn space() -> Vec<u8> {
    nix::cmsg_space!([RawFd; FDS_MAX])
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Hands listeners over.
pub(crate) fn send_doors(socket: BorrowedFd<'_>, doors: &[RawFd]) -> io::Result<()> {
    send(socket, &[0], doors)
}

/// Receives listeners.
pub(crate) fn receive_doors(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut space = nix::cmsg_space!([RawFd; DOORS_MAX]);
    let (_, doors) = receive(socket, &mut [0], &mut space)?;
    Ok(doors)
}

fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    space: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut parts = [IoSliceMut::new(bytes)];
    let message = loop {
        match recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Err(nix::Error::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    // A truncated control message yields what did arrive; the counts are checked by the callers.
    if let Ok(controls) = message.cmsgs() {
        for control in controls {
            if let ControlMessageOwned::ScmRights(received) = control {
                fds.extend(received.into_iter().map(sys::adopt));
            }
        }
    }
    Ok((message.bytes, fds))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap()
    }

    #[test]
    fn a_request_keeps_its_header_and_descriptors() {
        let (ours, theirs) = pair();
        let request = Request {
            ask: Ask::Spawn {
                door: true,
                into_cgroup: false,
            },
            namespaces: sys::CLONE_NEWPID,
        };
        let extra = std::io::pipe().unwrap();
        send_request(
            ours.as_fd(),
            request,
            &[extra.0.as_raw_fd(), extra.1.as_raw_fd()],
        )
        .unwrap();
        let (got, fds) = receive_request(theirs.as_fd(), &mut space())
            .unwrap()
            .unwrap();
        assert_eq!(got, request);
        assert_eq!(fds.len(), 2);
        drop(ours);
        assert!(
            receive_request(theirs.as_fd(), &mut space())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn an_answer_is_a_pid_or_an_errno_and_a_closed_link_is_neither() {
        let (ours, theirs) = pair();
        send_answer(
            theirs.as_fd(),
            Err(io::Error::from_raw_os_error(libc::EAGAIN)),
        )
        .unwrap();
        let refused = receive_answer(ours.as_fd()).unwrap().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EAGAIN));
        let some_fd = OwnedFd::from(std::io::pipe().unwrap().0);
        send_answer(theirs.as_fd(), Ok((42, some_fd))).unwrap();
        assert_eq!(receive_answer(ours.as_fd()).unwrap().unwrap().0, 42);
        drop(theirs);
        assert!(receive_answer(ours.as_fd()).is_err());
    }
}
