//! The filters in a small interpreter of classic BPF: what the kernel would answer, without one.

use seccompiler::sock_filter;

use super::*;

const KILL: u32 = 0x8000_0000;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Runs one program over `seccomp_data`.
fn run(program: &[sock_filter], data: &[u8]) -> u32 {
    outcome(program, data).0
}

/// How many instructions that takes.
fn steps(program: &[sock_filter], data: &[u8]) -> usize {
    outcome(program, data).1
}

fn outcome(program: &[sock_filter], data: &[u8]) -> (u32, usize) {
    let mut accumulator = 0u32;
    let mut at = 0;
    for step in 1.. {
        let op = &program[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { op.jt } else { op.jf });
        match op.code {
            0x20 => {
                let from = usize::try_from(op.k).unwrap();
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            0x54 => accumulator &= op.k,
            0x05 => at += usize::try_from(op.k).unwrap(),
            0x15 => at += jump(accumulator == op.k),
            0x25 => at += jump(accumulator > op.k),
            0x35 => at += jump(accumulator >= op.k),
            0x06 => return (op.k, step),
            other => panic!("unknown instruction {other:#x}"),
        }
    }
    unreachable!()
}

/// A `seccomp_data`.
fn data(arch: u32, call: i64, args: [u64; 3]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(u32::try_from(call).unwrap().to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    for index in 0..6 {
        data.extend(args.get(index).copied().unwrap_or(0).to_le_bytes());
    }
    data
}

/// What the kernel would answer a server.
fn answer(arch: u32, call: i64, args: [u64; 3]) -> u32 {
    run(of_server().unwrap(), &data(arch, call, args))
}

fn native(call: i64, args: [u64; 3]) -> u32 {
    answer(ARCH, call, args)
}

fn errno(errno: i32) -> u32 {
    ERRNO | errno.unsigned_abs()
}

#[test]
fn what_servers_do_is_allowed() {
    let flags = 0x0100_0000 | 0x0000_0100 | 17; // CLONE_CHILD_SETTID, CLONE_VM, SIGCHLD
    for (call, args) in [
        (libc::SYS_read, [0; 3]),
        (libc::SYS_execve, [0; 3]),
        (libc::SYS_futex, [0; 3]),
        (libc::SYS_clone, [flags, 0, 0]),
        (libc::SYS_ioctl, [0, 0x5401, 0]),
        (libc::SYS_personality, [0xffff_ffff, 0, 0]),
        (libc::SYS_socket, [1, 1 | 0o2_000_000, 0]),
        (libc::SYS_socket, [2, 1, 6]),
        (libc::SYS_socket, [10, 2, 0]),
        (libc::SYS_socket, [10, 2 | 0o2_004_000, 17]),
        (libc::SYS_socket, [16, 3, 0]),
        (libc::SYS_socketpair, [1, 5 | 0o2_000_000, 0]),
        // TCP_NODELAY; IPV6_V6ONLY; the same numbers as a route's, of another level.
        (libc::SYS_setsockopt, [3, 6, 1]),
        (libc::SYS_setsockopt, [3, 41, 26]),
        (libc::SYS_setsockopt, [3, 6, 5]),
        (libc::SYS_setsockopt, [3, 1, 57]),
    ] {
        assert_eq!(native(call, args), ALLOW, "call {call} {args:x?}");
    }
}

#[test]
fn what_no_server_needs_is_refused() {
    for call in REFUSED {
        assert_eq!(native(*call, [0; 3]), errno(libc::EPERM), "call {call}");
    }
    for flag in [
        0x80,
        0x2_0000,
        0x200_0000,
        0x400_0000,
        0x800_0000,
        0x1000_0000,
        0x2000_0000,
        0x4000_0000,
    ] {
        let args = [flag | 17, 0, 0];
        assert_eq!(
            native(libc::SYS_clone, args),
            errno(libc::EPERM),
            "{flag:#x}"
        );
    }
    for (call, args) in [
        (libc::SYS_ioctl, [0, TIOCSTI, 0]),
        (libc::SYS_ioctl, [0, TIOCSTI | 0xffff_ffff_0000_0000, 0]),
        (libc::SYS_ioctl, [0, TIOCLINUX, 0]),
        (libc::SYS_personality, [0x0040_0000, 0, 0]),
        (libc::SYS_socket, [17, 3, 0]),
        (libc::SYS_socket, [38, 5, 0]),
        (libc::SYS_socket, [40, 1, 0]),
        (libc::SYS_socket, [16, 3, 12]),
        (libc::SYS_socket, [2, 3, 1]),
        (libc::SYS_socket, [10, 3 | 0o2_000_000, 1]),
        // SCTP, DCCP and MPTCP, by number and by type; ping; UDP-Lite.
        (libc::SYS_socket, [2, 1, 132]),
        (libc::SYS_socket, [10, 5, 0]),
        (libc::SYS_socket, [2, 6 | 0o2_000_000, 0]),
        (libc::SYS_socket, [2, 6, 33]),
        (libc::SYS_socket, [2, 1, 262]),
        (libc::SYS_socket, [2, 2, 1]),
        (libc::SYS_socket, [10, 2, 58]),
        (libc::SYS_socket, [2, 2, 136]),
        (libc::SYS_socket, [2, 10, 0]),
        (libc::SYS_socketpair, [2, 1, 262]),
        (libc::SYS_socketpair, [10, 1, 0]),
        (libc::SYS_socketpair, [40, 1, 0]),
        (libc::SYS_setsockopt, [3, 41, 57]),
        (libc::SYS_setsockopt, [3, 41, 5]),
    ] {
        assert_eq!(
            native(call, args),
            errno(libc::EPERM),
            "call {call} {args:x?}"
        );
    }
    assert_eq!(native(libc::SYS_clone3, [0; 3]), errno(libc::ENOSYS));
}

/// What the kernel would answer init.
fn inits(arch: u32, call: i64, args: [u64; 3]) -> u32 {
    run(of_init().unwrap(), &data(arch, call, args))
}

#[test]
fn init_does_what_its_loop_does_and_nothing_else() {
    let terminate = u64::from(libc::SIGTERM.unsigned_abs());
    for call in INITS {
        assert_eq!(inits(ARCH, *call, [7; 3]), ALLOW, "call {call}");
    }
    assert_eq!(inits(ARCH, libc::SYS_kill, [7, terminate, 0]), ALLOW);
    let group = (-2i64).cast_unsigned();
    assert_eq!(inits(ARCH, libc::SYS_kill, [group, terminate, 0]), ALLOW);
    for signal in (0..=64).filter(|signal| *signal != terminate) {
        assert_eq!(
            inits(ARCH, libc::SYS_kill, [7, signal, 0]),
            KILL,
            "{signal}"
        );
    }
    // All numbers there are, and those of the other calling convention.
    let others = (0..=600).filter(|call| !INITS.contains(call) && *call != libc::SYS_kill);
    for call in others {
        assert_eq!(inits(ARCH, call, [0; 3]), KILL, "call {call}");
        assert_eq!(
            inits(ARCH, i64::from(X32) + call, [0; 3]),
            KILL,
            "x32 {call}"
        );
    }
    for call in INITS {
        assert_eq!(
            inits(ARCH, i64::from(X32) + call, [0; 3]),
            KILL,
            "x32 {call}"
        );
        assert_eq!(inits(0x4000_0003, *call, [0; 3]), KILL, "i386 {call}");
    }
}

#[test]
fn other_calling_conventions_are_killed() {
    const I386: u32 = 0x4000_0003;
    assert_eq!(answer(I386, libc::SYS_read, [0; 3]), KILL);
    for call in [libc::SYS_read, libc::SYS_mount] {
        assert_eq!(native(i64::from(X32) + call, [0; 3]), KILL, "x32 {call}");
    }
}

#[test]
fn all_other_calls_are_allowed_and_found_in_a_few_steps() {
    let rules = by_arguments().unwrap();
    let ours = |call: &i64| REFUSED.contains(call) || *call == libc::SYS_clone3;
    for call in (0..=600).filter(|call| !ours(call) && !rules.contains_key(call)) {
        assert_eq!(native(call, [u64::MAX; 3]), ALLOW, "call {call}");
    }
    let filter = of_server().unwrap();
    let longest = (0..=600)
        .filter(|call| !rules.contains_key(call))
        .map(|call| steps(filter, &data(ARCH, call, [0; 3])));
    assert!(longest.max().unwrap() <= 16);
    assert!(filter.len() < 450, "{}", filter.len());
}
