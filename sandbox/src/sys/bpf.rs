//! `bpf(2)`: loading a program that looks at addresses, and attaching it to a cgroup.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use super::adopt;

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const SOCK_ADDR: u32 = 18;
/// Attributes of one call, all of it: what the kernel does not know must be zero.
const ATTRIBUTE_WORDS: usize = 32;

/// Where a program is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Hook {
    /// `connect` to an IPv4 address.
    Connect4 = 10,
    /// `connect` to an IPv6 address.
    Connect6 = 11,
    /// `sendmsg` and `sendto` of a datagram to an IPv4 address.
    Send4 = 14,
    /// The same to an IPv6 address.
    Send6 = 15,
}

/// Has the kernel check and keep a program.
pub(crate) fn load(hook: Hook, program: &[u64]) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attributes = [0u32; ATTRIBUTE_WORDS];
    let length = u32::try_from(program.len()).map_err(io::Error::other)?;
    let (code, terms) = (
        split(program.as_ptr() as u64),
        split(license.as_ptr() as u64),
    );
    // Type, length, program, licence; the hook stands behind the log and the name.
    let head = [SOCK_ADDR, length, code[0], code[1], terms[0], terms[1]];
    for (word, value) in attributes.iter_mut().zip(head) {
        *word = value;
    }
    if let Some(word) = attributes.get_mut(17) {
        *word = hook as u32;
    }
    let fd = call(PROG_LOAD, &attributes)?;
    Ok(adopt(i32::try_from(fd).map_err(io::Error::other)?))
}

/// Asks it from now on for everybody in the group and below; one that was attached before goes.
pub(crate) fn attach(hook: Hook, group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [0u32; ATTRIBUTE_WORDS];
    let number = |fd: BorrowedFd<'_>| u32::try_from(fd.as_raw_fd()).map_err(io::Error::other);
    let head = [number(group)?, number(program)?, hook as u32, 0];
    for (word, value) in attributes.iter_mut().zip(head) {
        *word = value;
    }
    call(PROG_ATTACH, &attributes).map(|_| ())
}

/// The two halves of a pointer, in the order they have in memory.
fn split(pointer: u64) -> [u32; 2] {
    let bytes = pointer.to_ne_bytes();
    let half = |at: usize| {
        bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<4>())
            .map_or(0, |four| u32::from_ne_bytes(*four))
    };
    [half(0), half(4)]
}

fn call(command: libc::c_long, attributes: &[u32; ATTRIBUTE_WORDS]) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads the attributes, and through them the program and the licence, all of
    // which outlive the call; it writes nothing, since no log is asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
