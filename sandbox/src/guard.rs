//! The guard of the host's network: isolates that have it reach no link-local and no metadata address.
//!
//! Four small BPF programs on the cgroup that all isolates are in, asked at each `connect` and each
//! datagram. They are made here instruction by instruction: a comparison of the address with a list. The
//! host's firewall is not touched, and they go with the cgroup.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;

use crate::sys::bpf::{self, Hook};

/// Offsets in the kernel's `bpf_sock_addr`.
const USER_IP4: u16 = 4;
const USER_IP6: u16 = 8;
const ALL_BITS: u32 = u32::MAX;

/// Metadata services with an IPv4 address of their own: Azure, Alibaba, Oracle of old.
const METADATA4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// AWS, Google, Oracle and Scaleway, over IPv6.
const METADATA6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// Attaches the guard to a group of cgroup v2.
///
/// # Errors
/// The kernel has no such thing, we may not, or somebody above has forbidden it.
pub(crate) fn attach(group: &Path) -> io::Result<()> {
    let group = File::open(group)?;
    for hook in [Hook::Connect4, Hook::Connect6, Hook::Send4, Hook::Send6] {
        let program = bpf::load(hook, &program(hook))?;
        bpf::attach(hook, group.as_fd(), program.as_fd())?;
    }
    Ok(())
}

/// One word of the address: where, which bits, and what they are if it is refused.
#[derive(Debug, Clone, Copy)]
struct Word {
    at: u16,
    mask: u32,
    is: u32,
}

/// Refuses every address on the list, lets all others pass.
fn program(hook: Hook) -> Vec<u64> {
    let list = match hook {
        Hook::Connect4 | Hook::Send4 => addresses4(USER_IP4, &[]),
        Hook::Connect6 | Hook::Send6 => addresses6(),
    };
    let mut out = Vec::new();
    for address in &list {
        let mut tests: Vec<Vec<u64>> = address.iter().map(|word| test(*word)).collect();
        let refuse = [code::set(0, 0), code::EXIT];
        // From the end of each test to behind the refusal.
        let mut behind = refuse.len();
        for test in tests.iter_mut().rev() {
            if let Some(jump) = test.last_mut() {
                *jump = code::skip(*jump, behind);
            }
            behind += test.len();
        }
        out.extend(tests.into_iter().flatten());
        out.extend(refuse);
    }
    out.extend([code::set(0, 1), code::EXIT]);
    out
}

/// Loads a word and jumps, to where is filled in later, unless it is what is refused.
fn test(word: Word) -> Vec<u64> {
    let mut out = vec![code::load(2, 1, word.at)];
    if word.mask != ALL_BITS {
        out.push(code::and(2, word.mask));
    }
    out.push(code::unless(2, word.is));
    out
}

/// Refused IPv4 addresses at `at`, behind words that say that there is one.
fn addresses4(at: u16, before: &[Word]) -> Vec<Vec<Word>> {
    let link = Word {
        at,
        mask: u32::from_ne_bytes([255, 255, 0, 0]),
        is: u32::from_ne_bytes([169, 254, 0, 0]),
    };
    let metadata = METADATA4.map(|address| Word {
        at,
        mask: ALL_BITS,
        is: u32::from_ne_bytes(address.octets()),
    });
    std::iter::once(link)
        .chain(metadata)
        .map(|word| [before, &[word]].concat())
        .collect()
}

fn addresses6() -> Vec<Vec<Word>> {
    let part = |number: u16, mask: [u8; 4], is: [u8; 4]| Word {
        at: USER_IP6 + 4 * number,
        mask: u32::from_ne_bytes(mask),
        is: u32::from_ne_bytes(is),
    };
    let word = |number, is| part(number, [0xff; 4], is);
    let upper = |number, [a, b]: [u8; 2]| part(number, [0xff, 0xff, 0, 0], [a, b, 0, 0]);
    let zero = |number| word(number, [0; 4]);
    let link = part(0, [0xff, 0xc0, 0, 0], [0xfe, 0x80, 0, 0]);
    let metadata = METADATA6.map(|address| {
        let octets = address.octets();
        let fours = (0..4).zip(octets.chunks_exact(4));
        let four = |four: &[u8]| four.first_chunk::<4>().copied().unwrap_or_default();
        fours
            .map(|(number, part)| word(number, four(part)))
            .collect()
    });
    let mut list = vec![vec![link]];
    list.extend(metadata);
    let nat64 = word(0, [0, 0x64, 0xff, 0x9b]);
    for prefix in [
        // An IPv4 address, mapped; compatible, of old.
        vec![zero(0), zero(1), word(2, [0, 0, 0xff, 0xff])],
        vec![zero(0), zero(1), zero(2)],
        // NAT64, the well-known prefix and whatever an operator takes of the local one.
        vec![nat64, zero(1), zero(2)],
        vec![nat64, upper(1, [0, 1])],
    ] {
        list.extend(addresses4(USER_IP6 + 12, &prefix));
    }
    // NAT64 by the whole local prefix: around the eight bits that RFC 6052 leaves out.
    list.push(vec![nat64, word(1, [0, 1, 169, 254])]);
    // 6to4.
    list.push(vec![word(0, [0x20, 0x02, 169, 254])]);
    for [a, b, c, d] in METADATA4.map(|address| address.octets()) {
        let rest = part(2, [0xff, 0xff, 0xff, 0], [0, c, d, 0]);
        list.push(vec![nat64, word(1, [0, 1, a, b]), rest]);
        list.push(vec![word(0, [0x20, 0x02, a, b]), upper(1, [c, d])]);
    }
    list
}

/// Instructions of eBPF: code, registers, offset, value.
mod code {
    pub(super) const EXIT: u64 = instruction(0x95, 0, 0, 0, 0);

    /// `register = value`.
    pub(super) const fn set(register: u8, value: u32) -> u64 {
        instruction(0xb7, register, 0, 0, value)
    }

    /// `register = *(u32 *)(from + at)`.
    pub(super) const fn load(register: u8, from: u8, at: u16) -> u64 {
        instruction(0x61, register, from, at, 0)
    }

    /// `register &= value`, 32 bits.
    pub(super) const fn and(register: u8, value: u32) -> u64 {
        instruction(0x54, register, 0, 0, value)
    }

    /// Skips unless `register` is `value`, 32 bits.
    pub(super) const fn unless(register: u8, value: u32) -> u64 {
        instruction(0x56, register, 0, 0, value)
    }

    /// The same jump over `count` instructions.
    pub(super) fn skip(jump: u64, count: usize) -> u64 {
        let [code, registers, _, _, a, b, c, d] = jump.to_ne_bytes();
        let [low, high] = u16::try_from(count).unwrap_or(u16::MAX).to_ne_bytes();
        u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
    }

    const fn instruction(code: u8, to: u8, from: u8, offset: u16, value: u32) -> u64 {
        let [low, high] = offset.to_ne_bytes();
        let [a, b, c, d] = value.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") {
            to | from << 4
        } else {
            to << 4 | from
        };
        u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on the part of `bpf_sock_addr` that it reads.
    fn run(program: &[u64], context: &[u8; 24]) -> u64 {
        let mut registers = [0u64; 3];
        let mut at = 0;
        for _ in 0..1000 {
            let [code, both, low, high, a, b, c, d] = program[at].to_ne_bytes();
            let (to, from) = (usize::from(both & 15), both >> 4);
            let offset = usize::from(u16::from_ne_bytes([low, high]));
            let value = u32::from_ne_bytes([a, b, c, d]);
            at += 1;
            match code {
                0x95 => return registers[0],
                0xb7 => registers[to] = value.into(),
                0x61 => {
                    assert_eq!(from, 1, "only the context is read");
                    let word = context[offset..].first_chunk::<4>().unwrap();
                    registers[to] = u32::from_ne_bytes(*word).into();
                }
                0x54 => registers[to] &= u64::from(value),
                0x56 if registers[to] != u64::from(value) => at += offset,
                0x56 => {}
                other => panic!("instruction {other:#x}"),
            }
        }
        panic!("it does not end");
    }

    fn passes(text: &str) -> bool {
        let mut context = [0; 24];
        let program = match text.parse().unwrap() {
            std::net::IpAddr::V4(address) => {
                context[4..8].copy_from_slice(&address.octets());
                program(Hook::Connect4)
            }
            std::net::IpAddr::V6(address) => {
                context[8..24].copy_from_slice(&address.octets());
                program(Hook::Send6)
            }
        };
        match run(&program, &context) {
            0 => false,
            1 => true,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn link_local_and_metadata_addresses_are_refused_in_every_form() {
        for text in [
            "169.254.169.254",
            "169.254.0.1",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fe80::1",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:42::42",
            "::ffff:169.254.169.254",
            "::ffff:100.100.100.200",
            "64:ff9b::a9fe:a9fe",
            "::169.254.169.254",
            "64:ff9b:1::a9fe:a9fe",
            "64:ff9b:1:7:8:9:6464:64c8",
            "64:ff9b:1:a9fe:a9:fe00::",
            "64:ff9b:1:6464:64:c800::",
            "2002:a9fe:a9fe::1",
            "2002:a83f:8110::",
        ] {
            assert!(!passes(text), "{text}");
        }
    }

    #[test]
    fn everything_else_passes() {
        for text in [
            "1.1.1.1",
            "127.0.0.1",
            "10.0.0.1",
            "169.253.1.1",
            "254.169.1.1",
            "168.63.129.17",
            "::1",
            "fec0::1",
            "fd00:ec2::255",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::101:101",
            "64:ff9b:1::101:101",
            "64:ff9b:1:6464:64:c900::",
            "2002:101:101::1",
            "2002:a83f:8111::",
            "::1.1.1.1",
            "::",
        ] {
            assert!(passes(text), "{text}");
        }
    }
}
