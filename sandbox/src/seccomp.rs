//! The system call filter: what no server needs is refused, the way a kernel without it would.
//!
//! One filter: it kills what uses another calling convention's numbers (x32 among them), says "not permitted", and
//! "not implemented" for `clone3`, so that libc falls back to `clone`, whose flags can be inspected. It finds a call
//! by its number ([`search`]); where that depends on arguments, rules of seccompiler's decide.
//!
//! Init has a filter of its own once the server runs: what its loop does, and nothing else.

mod search;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Width, SeccompCmpOp as Is,
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use search::Answer;

/// The first x32 number, on machines that have them; no other call has a number like it.
const X32: u32 = 0x4000_0000;
/// `CLONE_NEW*`, all of them.
const NAMESPACES: u64 = 0x7e02_0080;
/// Personalities that only ask, or ask for the usual.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];
/// Fakes input on a terminal.
const TIOCSTI: u64 = 0x5412;
/// The same, on the console.
const TIOCLINUX: u64 = 0x541c;

/// Of Linux 6.15, the same number everywhere; libc does not know it yet.
const OPEN_TREE_ATTR: libc::c_long = 467;
/// The protocols of an internet socket. The rest (SCTP, DCCP, MPTCP, ping, UDP-Lite) is much kernel that
/// no server needs; who asks for MPTCP takes TCP when it is refused.
const PROTOCOLS: [i32; 3] = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
/// Types of socket besides stream and datagram: with protocol 0, each is another protocol's usual one.
const ODD_TYPES: [u64; 5] = [3, 4, 5, 6, 10];

/// `IPV6_RTHDR` as RFC 2292 had it.
const IPV6_2292RTHDR: i32 = 5;

/// Calls refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // The view.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    // Namespaces; `clone` below.
    libc::SYS_unshare,
    libc::SYS_setns,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    // Wide doors into the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // What it hands out is counted for the host alone, and there are few.
    libc::SYS_io_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_fanotify_init,
    // Memory that is taken out of the kernel's own map, and cannot be swapped or moved.
    libc::SYS_memfd_secret,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// The filter of servers, made once: in spawnd before the first clone, so that every init has it for nothing.
pub(crate) fn of_server() -> Result<&'static BpfProgram, String> {
    static FILTER: OnceLock<Result<BpfProgram, String>> = OnceLock::new();
    let made = FILTER.get_or_init(server_filter);
    made.as_ref().map_err(Clone::clone)
}

/// Loads the filter of servers: from here on it holds for this process and all it becomes.
pub(crate) fn load_of_server() -> Result<(), String> {
    seccompiler::apply_filter(of_server()?).map_err(|error| error.to_string())
}

fn server_filter() -> Result<BpfProgram, String> {
    let told = |error: BackendError| error.to_string();
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(told)?;
    let rules = by_arguments().map_err(told)?;
    let asked = rules.keys().map(|call| (*call, Answer::Ask));
    let refused = REFUSED
        .iter()
        .map(|call| (*call, Answer::Errno(libc::EPERM)));
    let answers = refused
        .chain(asked)
        .chain([(libc::SYS_clone3, Answer::Errno(libc::ENOSYS))])
        .filter_map(|(call, answer)| Some((u32::try_from(call).ok()?, answer)))
        .collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rest = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)
        .and_then(BpfProgram::try_from)
        .map_err(told)?;
    search::by_number(audit_number(arch), &answers, X32, rest)
        .ok_or_else(|| "there are too many calls for one filter".to_owned())
}

/// What the kernel's audit calls a calling convention.
const fn audit_number(arch: TargetArch) -> u32 {
    match arch {
        TargetArch::x86_64 => 0xc000_003e,
        TargetArch::aarch64 => 0xc000_00b7,
        TargetArch::riscv64 => 0xc000_00f3,
    }
}

/// What init does from the server's exec to its own end: wait, read a signal, reap, pass TERM on, tell of the end, go.
const INITS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    // A wait goes on by it after the process was frozen or stopped.
    libc::SYS_restart_syscall,
    libc::SYS_read,
    libc::SYS_wait4,
    libc::SYS_write,
    libc::SYS_exit_group,
];

/// The filter of init, made once like the server's.
pub(crate) fn of_init() -> Result<&'static BpfProgram, String> {
    static FILTER: OnceLock<Result<BpfProgram, String>> = OnceLock::new();
    let made = FILTER.get_or_init(|| init_filter().map_err(|error| error.to_string()));
    made.as_ref().map_err(Clone::clone)
}

/// Whatever else is called is not called by our code: it is the end, not a refusal.
fn init_filter() -> Result<BpfProgram, BackendError> {
    let mut rules: Rules = INITS.iter().map(|call| (*call, Vec::new())).collect();
    let terminate = u64::from(libc::SIGTERM.unsigned_abs());
    let passes_on = SeccompCondition::new(1, Width::Dword, Is::Eq, terminate)?;
    rules.insert(libc::SYS_kill, vec![SeccompRule::new(vec![passes_on])?]);
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let (other, known) = (SeccompAction::KillProcess, SeccompAction::Allow);
    SeccompFilter::new(rules, other, known, arch)?.try_into()
}

/// Loads the filter of init.
pub(crate) fn load_of_init() -> Result<(), String> {
    let filter = of_init()?;
    seccompiler::apply_filter(filter).map_err(|error| error.to_string())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls that are refused by what they are asked for.
fn by_arguments() -> Result<Rules, BackendError> {
    let condition = |argument, is, value| SeccompCondition::new(argument, Width::Dword, is, value);
    let mut rules = Rules::new();
    // Any flag of a namespace: one rule for each bit, because a mask can only be compared whole.
    let bits = (0..32).map(|bit| 1u64 << bit);
    let clones = bits
        .filter(|bit| NAMESPACES & bit != 0)
        .map(|bit| SeccompRule::new(vec![condition(0, Is::MaskedEq(bit), bit)?]))
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, clones);
    let ioctls = [TIOCSTI, TIOCLINUX]
        .map(|number| SeccompRule::new(vec![condition(1, Is::Eq, number)?]))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_ioctl, ioctls);
    let odd = PERSONALITIES
        .map(|usual| condition(0, Is::Ne, usual))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_personality, vec![SeccompRule::new(odd)?]);
    rules.insert(libc::SYS_socket, sockets()?);
    rules.insert(libc::SYS_socketpair, pairs()?);
    rules.insert(libc::SYS_setsockopt, options()?);
    Ok(rules)
}

/// Local sockets, TCP, UDP, and the one question of netlink that node asks for its interfaces.
fn sockets() -> Result<Vec<SeccompRule>, BackendError> {
    let family = |is, family: i32| {
        SeccompCondition::new(0, Width::Dword, is, u64::from(family.unsigned_abs()))
    };
    let usual = [
        libc::AF_UNIX,
        libc::AF_INET,
        libc::AF_INET6,
        libc::AF_NETLINK,
    ];
    let others = usual
        .map(|usual| family(Is::Ne, usual))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let routes = SeccompCondition::new(
        2,
        Width::Dword,
        Is::Ne,
        u64::from(libc::NETLINK_ROUTE.unsigned_abs()),
    )?;
    let mut rules = vec![
        SeccompRule::new(others)?,
        SeccompRule::new(vec![family(Is::Eq, libc::AF_NETLINK)?, routes])?,
    ];
    for internet in [libc::AF_INET, libc::AF_INET6] {
        let mut odd = vec![family(Is::Eq, internet)?];
        for usual in PROTOCOLS {
            let usual = u64::from(usual.unsigned_abs());
            odd.push(SeccompCondition::new(2, Width::Dword, Is::Ne, usual)?);
        }
        rules.push(SeccompRule::new(odd)?);
        for kind in ODD_TYPES {
            // The low bits are the type; above them stand flags.
            let kind = SeccompCondition::new(1, Width::Dword, Is::MaskedEq(0xf), kind)?;
            rules.push(SeccompRule::new(vec![family(Is::Eq, internet)?, kind])?);
        }
    }
    Ok(rules)
}

/// Of local sockets alone: of another family the kernel makes both before it says that it knows no pairs of it.
fn pairs() -> Result<Vec<SeccompRule>, BackendError> {
    let local = u64::from(libc::AF_UNIX.unsigned_abs());
    let other = SeccompCondition::new(0, Width::Dword, Is::Ne, local)?;
    Ok(vec![SeccompRule::new(vec![other])?])
}

/// The route that a datagram of IPv6 is to take.
fn options() -> Result<Vec<SeccompRule>, BackendError> {
    let is = |argument, value: i32| {
        SeccompCondition::new(
            argument,
            Width::Dword,
            Is::Eq,
            u64::from(value.unsigned_abs()),
        )
    };
    [libc::IPV6_RTHDR, IPV6_2292RTHDR]
        .into_iter()
        .map(|route| SeccompRule::new(vec![is(1, libc::IPPROTO_IPV6)?, is(2, route)?]))
        .collect()
}

#[cfg(test)]
mod tests;
