//! Each attack, and what is expected of it.

/// What is expected in `none`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// The attack works there, under root on any host.
    Succeeds,
    /// It fails there too, or it depends on the host.
    Open,
}

pub(super) use Bare::{Open, Succeeds};

/// Name, what is tried, what strict and standard answer (any of), and what `none` lets through.
pub(super) type Row = (&'static str, &'static str, &'static [&'static str], Bare);

pub(super) const KINDS: &[(&str, &[Row])] = &[
    (
        "Files",
        &[
            (
                "shadow",
                "read the host's password hashes",
                &["ENOENT"],
                Open,
            ),
            (
                "file_of_another",
                "read a world-readable file of the host",
                &["ENOENT"],
                Succeeds,
            ),
            (
                "gateway_environment",
                "read the gateway's environment",
                &["ENOENT"],
                Open,
            ),
            (
                "gateway_memory",
                "read the gateway's memory map",
                &["ENOENT"],
                Open,
            ),
            (
                "init_root",
                "reach a root through /proc/1",
                &["ENOENT", "EACCES"],
                Open,
            ),
            (
                "init_memory",
                "read init's memory map",
                &["ENOENT", "EACCES", "EPERM"],
                Open,
            ),
            ("kernel_memory", "open /dev/mem", &["ENOENT"], Open),
            ("kernel_log", "open /dev/kmsg", &["ENOENT"], Open),
            (
                "cgroup_files",
                "leave the cgroup by its files",
                &["ENOENT"],
                Open,
            ),
            ("write_root", "write into /", &["EROFS", "EACCES"], Open),
            ("write_etc", "write into /etc", &["EROFS", "EACCES"], Open),
            (
                "write_programs",
                "write into /usr/bin",
                &["EROFS", "EACCES"],
                Open,
            ),
            (
                "core_pattern",
                "have the kernel start a program",
                &["EROFS", "EACCES"],
                Open,
            ),
            (
                "sysrq",
                "use the magic key",
                &["EROFS", "EACCES", "ENOENT"],
                Open,
            ),
            ("oom_score", "have others killed first", &["EACCES"], Open),
            (
                "setuid_link",
                "keep a link to su",
                &["EXDEV", "EPERM", "ENOENT"],
                Open,
            ),
        ],
    ),
    (
        "Rights",
        &[
            ("device_node", "make a device", &["EPERM"], Open),
            ("become_root", "setuid(0)", &["EPERM"], Open),
            ("other_groups", "change its groups", &["EPERM"], Open),
            (
                "all_capabilities",
                "take all capabilities",
                &["EPERM"],
                Open,
            ),
            ("raise_limit", "raise a limit", &["EPERM"], Open),
            (
                "raise_priority",
                "raise its priority",
                &["EACCES", "EPERM"],
                Open,
            ),
            ("realtime", "run in real time", &["EPERM"], Open),
            ("change_root", "chroot", &["EPERM"], Open),
            ("host_name", "rename the host", &["EPERM"], Open),
        ],
    ),
    (
        "Other processes",
        &[
            ("kill_init", "kill its init", &["no effect"], Open),
            (
                "kill_host",
                "signal a process of the host",
                &["ESRCH"],
                Open,
            ),
            ("trace_init", "trace its init", &["EPERM"], Open),
            ("read_init", "read its init's memory", &["EPERM"], Open),
            (
                "take_descriptor",
                "take another's descriptor",
                &["EPERM"],
                Open,
            ),
        ],
    ),
    (
        "Namespaces and mounts",
        &[
            (
                "user_namespace",
                "become root in a user namespace",
                &["EPERM"],
                Open,
            ),
            (
                "mount_namespace",
                "get an own mount namespace",
                &["EPERM"],
                Open,
            ),
            ("clone_namespace", "the same, by clone", &["EPERM"], Open),
            ("clone3", "the same, by clone3", &["ENOSYS"], Open),
            ("join_namespace", "enter a namespace", &["EPERM"], Open),
            ("mount", "mount", &["EPERM"], Open),
            ("unmount", "take a cover off /proc", &["EPERM"], Open),
            ("new_mount", "mount, the new way", &["EPERM"], Open),
            ("copy_mount", "copy a mount", &["EPERM"], Open),
            ("change_mount", "make a mount writable", &["EPERM"], Open),
            ("file_handle", "open a file by its handle", &["EPERM"], Open),
        ],
    ),
    (
        "The kernel",
        &[
            ("bpf", "load a BPF program", &["EPERM"], Open),
            ("perf", "watch performance counters", &["EPERM"], Open),
            ("userfault", "handle page faults", &["EPERM"], Open),
            ("io_uring", "set up io_uring", &["EPERM"], Open),
            ("keyring", "use the kernel's keyrings", &["EPERM"], Open),
            ("module", "load a module", &["EPERM"], Open),
            ("kexec", "load a kernel", &["EPERM"], Open),
            ("reboot", "reboot", &["EPERM"], Open),
            ("clock", "set the clock", &["EPERM"], Open),
            ("kernel_log_call", "read the kernel's log", &["EPERM"], Open),
            (
                "layout",
                "switch off address randomisation",
                &["EPERM"],
                Succeeds,
            ),
            ("terminal_input", "type into a terminal", &["EPERM"], Open),
            ("x32", "call by x32 numbers", &["SIGSYS"], Open),
            // A kernel without 32-bit programs has no such gate.
            (
                "int80",
                "call by the gate of 32-bit programs",
                &["SIGSYS", "SIGSEGV"],
                Open,
            ),
        ],
    ),
    (
        "Network",
        &[
            ("packet_socket", "open a packet socket", &["EPERM"], Open),
            ("raw_socket", "open a raw socket", &["EPERM"], Open),
            ("vsock", "talk to the hypervisor", &["EPERM"], Open),
            ("vsock_pair", "the same, by a pair", &["EPERM"], Open),
            (
                "multipath_pair",
                "open multipath TCP by a pair",
                &["EPERM"],
                Open,
            ),
            (
                "route",
                "choose the route of its datagrams",
                &["EPERM"],
                Open,
            ),
            (
                "crypto_socket",
                "use the kernel's ciphers",
                &["EPERM"],
                Open,
            ),
            (
                "audit_netlink",
                "talk to the kernel's audit",
                &["EPERM"],
                Open,
            ),
            (
                "metadata",
                "reach the cloud's metadata",
                &["ENETUNREACH", "EPERM"],
                Open,
            ),
            ("internet", "reach the internet", &["ENETUNREACH"], Open),
            (
                "host_loopback",
                "reach a service of the host",
                &["ENETUNREACH"],
                Succeeds,
            ),
            (
                "host_socket",
                "reach a socket in the host's files",
                &["ENOENT"],
                Succeeds,
            ),
            (
                "host_abstract_socket",
                "reach an abstract socket of the host",
                &["ECONNREFUSED", "EPERM"],
                Succeeds,
            ),
        ],
    ),
    (
        FLOODS,
        &[
            ("fill_tmp", "fill /tmp", &["ENOSPC", "EFBIG"], Open),
            ("fill_shm", "fill /dev/shm", &["ENOSPC", "EFBIG"], Open),
            (
                "files_in_tmp",
                "use up the inodes of /tmp",
                &["ENOSPC"],
                Open,
            ),
            ("huge_file", "write a huge file", &["EFBIG"], Open),
            (
                "descriptors",
                "open descriptors without end",
                &["EMFILE"],
                Open,
            ),
            ("lock_memory", "lock memory", &["ENOMEM", "EPERM"], Open),
        ],
    ),
];

/// What fills the isolate comes last.
pub(super) const FLOODS: &str = "Floods";

pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static Row)> {
    let rows = |(kind, rows): &'static (&'static str, &'static [Row])| {
        rows.iter().map(move |row| (*kind, row))
    };
    KINDS.iter().flat_map(rows)
}
