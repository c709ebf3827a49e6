//! One attack each, tried from inside; `Ok` is a success of the attacker.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{ForkResult, fork};

type Tried = io::Result<()>;

/// What an attack needs to know of the host it is to reach.
pub(super) struct Host<'a> {
    /// A process outside.
    pub(super) pid: i32,
    /// A port on which the host listens on loopback.
    pub(super) port: u16,
    /// A folder of the host with `secret`, a file, and `socket`, where somebody listens.
    pub(super) folder: &'a Path,
    /// The name of an abstract socket of the host.
    pub(super) name: &'a str,
}

pub(super) fn attack(name: &str, host: &Host<'_>) -> Tried {
    match name {
        "shadow" => read("/etc/shadow"),
        "file_of_another" => read(host.folder.join("secret")),
        "gateway_environment" => read(format!("/proc/{}/environ", host.pid)),
        "gateway_memory" => read(format!("/proc/{}/maps", host.pid)),
        "init_root" => read("/proc/1/root//etc/hostname"),
        "init_memory" => read("/proc/1/maps"),
        "kernel_memory" => read("/dev/mem"),
        "kernel_log" => read("/dev/kmsg"),
        "cgroup_files" => write("/sys/fs/cgroup/cgroup.procs", "0"),
        "write_root" => write("/attack", "x"),
        "write_etc" => write("/etc/attack", "x"),
        "write_programs" => write("/usr/bin/attack", "x"),
        "core_pattern" => write("/proc/sys/kernel/core_pattern", "|/bin/sh"),
        "sysrq" => write("/proc/sysrq-trigger", "h"),
        "oom_score" => write("/proc/self/oom_score_adj", "-500"),
        "setuid_link" => done(std::fs::hard_link("/usr/bin/su", "su").is_ok()),
        "device_node" => call(libc::SYS_mknod, &[text(c"node"), 0o020_600, 0x0103]),
        "become_root" => call(libc::SYS_setuid, &[0]),
        "other_groups" => call(libc::SYS_setgroups, &[0, 0]),
        "all_capabilities" => capabilities(),
        "raise_limit" => raise_limit(),
        "raise_priority" => call(libc::SYS_setpriority, &[0, 0, -10]),
        "realtime" => realtime(),
        "change_root" => call(libc::SYS_chroot, &[text(c"/tmp")]),
        "host_name" => call(libc::SYS_sethostname, &[text(c"evil"), 4]),
        "kill_init" => kill_init(),
        "kill_host" => call(libc::SYS_kill, &[host.pid.into(), 0]),
        "trace_init" => call(libc::SYS_ptrace, &[16, 1, 0, 0]),
        "read_init" => call(libc::SYS_process_vm_readv, &[1, 0, 0, 0, 0, 0]),
        "take_descriptor" => call(libc::SYS_pidfd_getfd, &[0, 0, 0]),
        "user_namespace" => call(libc::SYS_unshare, &[0x1000_0000]),
        "mount_namespace" => call(libc::SYS_unshare, &[0x2_0000]),
        "clone_namespace" => clone_namespace(),
        "clone3" => call(libc::SYS_clone3, &[0, 0]),
        "join_namespace" => join(),
        "mount" => call(
            libc::SYS_mount,
            &[text(c"x"), text(c"/tmp"), text(c"tmpfs"), 0, 0],
        ),
        "unmount" => call(libc::SYS_umount2, &[text(c"/proc/sys"), 2]),
        "new_mount" => call(libc::SYS_fsopen, &[text(c"tmpfs"), 0]),
        "copy_mount" => call(libc::SYS_open_tree, &[-100, text(c"/"), 1]),
        "change_mount" => call(libc::SYS_mount_setattr, &[-100, text(c"/"), 0, 0, 0]),
        "file_handle" => call(libc::SYS_open_by_handle_at, &[-100, 0, 0]),
        "bpf" => call(libc::SYS_bpf, &[0, 0, 0]),
        "perf" => call(libc::SYS_perf_event_open, &[0, 0, -1, -1, 0]),
        "userfault" => call(libc::SYS_userfaultfd, &[1]),
        "io_uring" => call(libc::SYS_io_uring_setup, &[1, 0]),
        "keyring" => call(libc::SYS_keyctl, &[0, -3, 0]),
        "module" => call(libc::SYS_init_module, &[0, 0, 0]),
        "kexec" => call(libc::SYS_kexec_load, &[0, 0, 0, 0]),
        "reboot" => call(libc::SYS_reboot, &[0, 0, 0]),
        "clock" => call(libc::SYS_settimeofday, &[0, 0]),
        "kernel_log_call" => call(libc::SYS_syslog, &[3, 0, 0]),
        "layout" => call(libc::SYS_personality, &[0x004_0000]),
        "terminal_input" => call(libc::SYS_ioctl, &[0, 0x5412, text(c"x")]),
        "x32" => call(0x4000_0000 | libc::SYS_getpid, &[]),
        "int80" => int80(),
        "packet_socket" => call(libc::SYS_socket, &[17, 3, 0]),
        "raw_socket" => call(libc::SYS_socket, &[2, 3, 1]),
        "vsock" => call(libc::SYS_socket, &[40, 1, 0]),
        "crypto_socket" => call(libc::SYS_socket, &[38, 5, 0]),
        "audit_netlink" => call(libc::SYS_socket, &[16, 3, 9]),
        "metadata" => connect("169.254.169.254:80"),
        "internet" => connect("192.0.2.1:443"),
        "host_loopback" => connect(&format!("127.0.0.1:{}", host.port)),
        "host_socket" => UnixStream::connect(host.folder.join("socket")).map(drop),
        "host_abstract_socket" => abstract_socket(host.name),
        "fill_tmp" => fill("/tmp/full", 1 << 30),
        "fill_shm" => fill("/dev/shm/full", 1 << 30),
        "files_in_tmp" => many_files(),
        "huge_file" => fill("huge", 1 << 30),
        "descriptors" => descriptors(),
        "lock_memory" => lock_memory(),
        other => panic!("unknown attack {other}"),
    }
}

/// Asks for its pid as 32-bit programs do, which the filter's numbers are not for.
#[cfg(target_arch = "x86_64")]
fn int80() -> Tried {
    let mut number: i64 = 20;
    #[expect(unsafe_code, reason = "there is no other way to that gate")]
    // SAFETY: the call takes nothing and writes to no memory; what the kernel clears is named.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inout("rax") number,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            options(nostack),
        );
    }
    done(number > 0)
}

/// There is no such gate.
#[cfg(not(target_arch = "x86_64"))]
fn int80() -> Tried {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}

fn done(succeeded: bool) -> Tried {
    if succeeded {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

fn text(text: &std::ffi::CStr) -> libc::c_long {
    i64::try_from(text.as_ptr().addr()).unwrap()
}

fn call(number: libc::c_long, args: &[libc::c_long]) -> Tried {
    let arg = |index: usize| args.get(index).copied().unwrap_or(0);
    #[expect(unsafe_code, reason = "an attack calls what no library would")]
    // SAFETY: whatever it does, it does to this process, which is here to be misused.
    let result = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    done(result >= 0)
}

fn read(path: impl AsRef<Path>) -> Tried {
    File::open(path)?.read(&mut [0; 16]).map(drop)
}

fn write(path: &str, what: &str) -> Tried {
    let create = !path.starts_with("/proc") && !path.starts_with("/sys");
    let mut file = OpenOptions::new().write(true).create(create).open(path)?;
    file.write_all(what.as_bytes())
}

fn capabilities() -> Tried {
    let header = [0x2008_0522u32, 0];
    let all = [u32::MAX; 6];
    let address = |words: &[u32]| i64::try_from(words.as_ptr().addr()).unwrap();
    call(libc::SYS_capset, &[address(&header), address(&all)])
}

fn raise_limit() -> Tried {
    let most = nix::sys::resource::RLIM_INFINITY;
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 1 << 20, most)?;
    Ok(())
}

fn realtime() -> Tried {
    let priority = 10i32;
    let address = i64::try_from(std::ptr::from_ref(&priority).addr()).unwrap();
    call(libc::SYS_sched_setscheduler, &[0, 1, address])
}

/// The kernel takes the signal and does nothing: what counts is that pid 1 is there afterwards.
fn kill_init() -> Tried {
    call(libc::SYS_kill, &[1, 9])?;
    std::thread::sleep(Duration::from_millis(50));
    call(libc::SYS_kill, &[1, 0])?;
    Err(io::Error::other("no effect"))
}

fn clone_namespace() -> Tried {
    // CLONE_NEWUSER with SIGCHLD: a child that would be root in a namespace of its own.
    #[expect(unsafe_code, reason = "an attack calls what no library would")]
    // SAFETY: no stack is given, so the child goes on like after fork, and ends at once.
    let pid = unsafe { libc::syscall(libc::SYS_clone, 0x1000_0000 | 17, 0, 0, 0, 0) };
    if pid == 0 {
        std::process::exit(0);
    }
    done(pid > 0)
}

fn join() -> Tried {
    let own = File::open("/proc/self/ns/uts")?;
    call(libc::SYS_setns, &[own.as_raw_fd().into(), 0])
}

fn connect(to: &str) -> Tried {
    let address = to.parse().unwrap();
    std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)).map(drop)
}

fn abstract_socket(name: &str) -> Tried {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(drop)
}

fn fill(path: &str, bytes: usize) -> Tried {
    let mut file = File::create(path)?;
    let chunk = vec![1u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        file.write_all(&chunk)?;
    }
    Ok(())
}

fn many_files() -> Tried {
    for number in 0..100_000 {
        File::create(format!("/tmp/{number}"))?;
    }
    Ok(())
}

fn descriptors() -> Tried {
    let mut held = Vec::new();
    for _ in 0..10_000 {
        held.push(File::open("/dev/null")?);
    }
    Ok(())
}

fn lock_memory() -> Tried {
    let held = vec![1u8; 8 << 20];
    let address = i64::try_from(held.as_ptr().addr()).unwrap();
    call(libc::SYS_mlock, &[address, 8 << 20])
}

/// Runs an attack in a child, so that one that is killed for it can be told; gives its result as
/// one word.
pub(super) fn told(name: &str, host: &Host<'_>) -> String {
    let (mut result, theirs) = io::pipe().unwrap();
    #[expect(unsafe_code, reason = "an attack may be the death of its process")]
    // SAFETY: this process has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let mut theirs = theirs;
            #[expect(
                unsafe_code,
                reason = "a file that is too large is an error, not a death"
            )]
            // SAFETY: SIG_IGN is a valid disposition.
            unsafe {
                libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            }
            let word = match attack(name, host) {
                Ok(()) => "SUCCEEDED".to_owned(),
                Err(error) => match error.raw_os_error() {
                    Some(errno) => format!("{:?}", nix::errno::Errno::from_raw(errno)),
                    None => error.to_string(),
                },
            };
            theirs.write_all(word.as_bytes()).unwrap();
            std::process::exit(0)
        }
        ForkResult::Parent { child } => {
            drop(theirs);
            let mut word = String::new();
            result.read_to_string(&mut word).unwrap();
            match nix::sys::wait::waitpid(child, None).unwrap() {
                nix::sys::wait::WaitStatus::Signaled(_, signal, _) => signal.to_string(),
                _ => word,
            }
        }
    }
}
