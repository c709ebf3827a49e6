//! The system calls nix has no safe form for, each in a function that is safe to call.
//!
//! Nothing here decides anything; it is the whole of the crate's `unsafe`.
#![expect(
    unsafe_code,
    reason = "raw system calls live here and nowhere else in the workspace"
)]

pub(crate) mod bpf;
pub(crate) mod mount;
pub(crate) mod pidfd;
pub(crate) mod rights;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::unistd::Pid;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`; libc's constant is a `c_int` and overflows to zero.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `CLONE_PIDFD` of `linux/sched.h`.
const CLONE_PIDFD: u64 = 0x1000;
/// `CLONE_PARENT` of `linux/sched.h`.
const CLONE_PARENT: u64 = 0x8000;
/// A new pid namespace.
pub(crate) const CLONE_NEWPID: u64 = 0x2000_0000;
/// A new user namespace.
pub(crate) const CLONE_NEWUSER: u64 = 0x1000_0000;
/// A new mount namespace.
pub(crate) const CLONE_NEWNS: u64 = 0x0002_0000;
/// A new namespace of System V objects and POSIX message queues.
pub(crate) const CLONE_NEWIPC: u64 = 0x0800_0000;
/// A new host name.
pub(crate) const CLONE_NEWUTS: u64 = 0x0400_0000;
/// A new network.
pub(crate) const CLONE_NEWNET: u64 = 0x4000_0000;
/// What a request may ask for.
pub(crate) const NAMESPACES: u64 =
    CLONE_NEWPID | CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET;

/// The two sides of a clone.
pub(crate) enum Cloned {
    /// This is the new process.
    Child,
    /// This is the caller; the new process is a child of the caller's *parent*.
    Caller { pid: i32, pidfd: OwnedFd },
}

/// Clones the calling process as a sibling of itself: its parent becomes the new one's parent.
/// Works like `fork`; the caller must have one thread only.
pub(crate) fn clone_sibling(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    // SAFETY: all-zero is a valid clone_args; it says "nothing".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_PARENT | CLONE_PIDFD | (namespaces & NAMESPACES);
    args.pidfd = (&raw mut pidfd) as u64;
    // CLONE_PARENT demands exit_signal 0; the kernel then copies the caller's, SIGCHLD.
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(dir.as_raw_fd()).map_err(io::Error::other)?;
    }
    // SAFETY: no stack is given, so the child goes on with a copy of ours, as after fork; spawnd
    // has one thread, so no lock can be held by another one. `args` outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match result {
        0 => Ok(Cloned::Child),
        pid if pid > 0 => Ok(Cloned::Caller {
            pid: i32::try_from(pid).map_err(io::Error::other)?,
            // SAFETY: the kernel has just made this descriptor for us.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Bytes of the stack of a process between [`spawn_sharing`] and its exec.
const STACK_BYTES: usize = 128 << 10;

/// The table of descriptors of a process that shares our memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// Its own, with what we have open.
    Copied,
    /// Ours: what it opens is open here.
    Shared,
}

/// Starts a process that shares our memory, as `vfork` does, and runs `work` in it on a stack of
/// its own; we stand still until it has executed a program or ended. Saves the copy of our memory
/// and of its page tables, and what `work` leaves in memory is there for us to read.
///
/// Only for processes with one thread. `work` must not unwind; it leaves by exec or
/// [`exit_now`]. Standing still, we can only be killed: as pid 1 that ends the other one too.
pub(crate) fn spawn_sharing<F: FnMut()>(table: Table, work: &mut F) -> io::Result<Pid> {
    extern "C" fn enter<F: FnMut()>(work: *mut libc::c_void) -> i32 {
        // SAFETY: `work` is the caller's `&mut F`, and the caller stands still until we are gone.
        let work = unsafe { &mut *work.cast::<F>() };
        work();
        exit_now(0)
    }
    let stack = Stack::new(STACK_BYTES)?;
    let table = match table {
        Table::Copied => 0,
        Table::Shared => libc::CLONE_FILES,
    };
    // SAFETY: the stack is our own and outlives the child's use of our memory, because CLONE_VFORK
    // keeps us here until then; no other thread can see the shared memory meanwhile.
    let pid = unsafe {
        libc::clone(
            enter::<F>,
            stack.top(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | table,
            std::ptr::from_mut(work).cast(),
        )
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Pid::from_raw(pid))
}

/// Memory for a stack, with a page below it that nobody may touch.
struct Stack {
    base: *mut libc::c_void,
    length: usize,
}

impl Stack {
    fn new(length: usize) -> io::Result<Self> {
        // SAFETY: asks for new memory anywhere.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base, length };
        // SAFETY: the lowest page of what was just mapped; nobody uses it yet.
        if unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    /// Where it starts: stacks grow down. Page-aligned, so aligned enough for any ABI.
    fn top(&self) -> *mut libc::c_void {
        self.base.wrapping_byte_add(self.length)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: mapped by us with this length; the child has left it.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// `exit(code)`.
    Code(i32),
    /// By a signal. A number, because nix knows no real-time signals and would lose such a death.
    Signal(i32),
}

/// What a look at the children found.
pub(crate) enum Waited {
    /// This one ended and is reaped now.
    Ended(i32, Ended),
    /// There are children, all alive.
    Alive,
    /// There are no children.
    None,
}

/// Reaps one child of any kind, without blocking.
pub(crate) fn wait_any() -> Waited {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    match pid {
        0 => Waited::Alive,
        pid if pid < 0 => Waited::None,
        pid if libc::WIFEXITED(status) => {
            Waited::Ended(pid, Ended::Code(libc::WEXITSTATUS(status)))
        }
        pid => Waited::Ended(pid, Ended::Signal(libc::WTERMSIG(status))),
    }
}

/// Makes sure that children can be waited for: whoever started us may have left SIGCHLD ignored,
/// and then the kernel throws their ends away.
pub(crate) fn wait_for_children() {
    // SAFETY: all-zero is SIG_DFL without flags; both structures are our own and outlive the calls.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut old);
        if old.sa_sigaction == libc::SIG_IGN || old.sa_flags & libc::SA_NOCLDWAIT != 0 {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
    }
}

/// Kills a child of ours and waits until it is reaped. Its pid cannot be another's: it is only
/// given away once it is reaped.
pub(crate) fn kill_child(pid: i32) {
    // SAFETY: no pointers that the kernel writes to.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL);
    }
}

/// An eventfd registered with a v1 `cgroup.event_control` line for the given control file.
pub(crate) fn oom_eventfd(
    control: &std::fs::File,
    register: impl FnOnce(&str) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let events = unsafe { OwnedFd::from_raw_fd(fd) };
    register(&format!("{} {}", events.as_raw_fd(), control.as_raw_fd()))?;
    Ok(events)
}

/// Takes ownership of a descriptor that came over a socket or was put at its number by `dup2`.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass numbers the kernel has just given them, each once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Puts a copy of `fd` at `number`, or at the lowest free number from `number` on.
pub(crate) fn duplicate(fd: RawFd, number: RawFd, place: Place) -> io::Result<RawFd> {
    // SAFETY: no pointers; whatever was at `number` is not owned by a Rust value in init.
    let result = unsafe {
        match place {
            Place::From => libc::fcntl(fd, libc::F_DUPFD, number),
            Place::Exactly => libc::dup2(fd, number),
        }
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Where [`duplicate`] puts its copy.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// The lowest free number from the given one on.
    From,
    /// The given number.
    Exactly,
}

/// Closes every descriptor from `first` on.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: init owns no Rust descriptor at these numbers when it calls this.
    if unsafe { libc::close_range(first, u32::MAX, 0) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Marks every descriptor from `first` on as close-on-exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: i32 = 4;
    // SAFETY: closes nothing now; no Rust descriptor survives the exec that follows.
    if unsafe { libc::close_range(first, u32::MAX, CLOSE_RANGE_CLOEXEC) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Closes the three standard descriptors; init needs none of them once the server has its copies.
pub(crate) fn close_stdio() {
    // SAFETY: init owns no Rust value for these numbers and writes nothing there afterwards.
    unsafe { libc::close_range(0, 2, 0) };
}

/// Empties the signal mask and puts every disposition back to its default.
pub(crate) fn reset_signals() {
    // A zeroed kernel_sigaction: SIG_DFL, no flags, no mask. Straight to the kernel, because libc
    // refuses the two signals it keeps for itself, and a parent may have left them ignored.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: `default` is as long as the kernel's structure on every 64-bit machine and
        // outlives the call; SIGKILL and SIGSTOP just answer EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: an empty set on our own stack.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Ignores a signal for this process.
pub(crate) fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// The usual priority, if this process was started with a higher one.
pub(crate) fn usual_priority() {
    // SAFETY: no pointers; both calls are about this process.
    unsafe {
        if libc::getpriority(libc::PRIO_PROCESS, 0) < 0 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
        }
    }
}

/// Asks for a slice of the CPU of this length for this thread and what it starts: who has a short one runs sooner after it
/// wakes, and holds others up for less. A kernel before 6.12 takes no notice.
pub(crate) fn slice(length: std::time::Duration) -> io::Result<()> {
    /// `struct sched_attr` of `linux/sched/types.h`, as it was first.
    #[repr(C)]
    struct Attributes {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    // SAFETY: no pointers; both calls are about this thread.
    let (policy, nice) = unsafe {
        (
            libc::sched_getscheduler(0),
            libc::getpriority(libc::PRIO_PROCESS, 0),
        )
    };
    if policy != libc::SCHED_OTHER {
        // Somebody chose another one for us.
        return Ok(());
    }
    let wanted = Attributes {
        size: u32::try_from(size_of::<Attributes>()).map_err(io::Error::other)?,
        policy: 0,
        flags: 0,
        nice,
        priority: 0,
        runtime: u64::try_from(length.as_nanos()).map_err(io::Error::other)?,
        deadline: 0,
        period: 0,
    };
    // SAFETY: the kernel reads as many bytes as `size` says, and `wanted` outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends the process here and now: no destructors, no exit handlers.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: always safe; nothing of ours runs afterwards.
    unsafe { libc::_exit(code) }
}
