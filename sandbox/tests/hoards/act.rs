//! As a probe: takes one kind of thing until the kernel says no, and holds it all.

use std::io::{self, Error, Write};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{ForkResult, fork};

type Held = io::Result<Vec<OwnedFd>>;

/// More than any isolate may have of anything.
const MANY: usize = 100_000;
/// Bytes of one large thing.
const LARGE: usize = 1 << 20;

/// What is hoarded: its word, and what that is.
pub(crate) const KINDS: [(&str, &str); 10] = [
    ("zombies", "children that are never waited for"),
    ("pipes", "pipes of 1 MiB, full"),
    ("sockets", "sockets that are full of unread messages"),
    ("memory_files", "files in memory that have no name"),
    ("segments", "System V shared memory"),
    ("watches", "inotify instances"),
    ("timers", "POSIX timers"),
    ("event_counters", "event descriptors"),
    ("maps", "mappings of one page each"),
    ("aio", "contexts of asynchronous I/O"),
];

/// Says `refused` and why, or `SUCCEEDED`; one that is killed for its memory says nothing.
pub(crate) fn run(kind: &str) {
    let held = match kind {
        "zombies" => zombies(),
        "pipes" => until_refused(pipe),
        "sockets" => until_refused(sockets),
        "memory_files" => until_refused(memory_file),
        "segments" => until_refused(segment),
        "watches" => until_refused(watch),
        "timers" => until_refused(timer),
        "event_counters" => until_refused(counter),
        "maps" => until_refused(map),
        "aio" => until_refused(context),
        other => panic!("unknown hoard {other}"),
    };
    match held {
        Ok(held) => println!("SUCCEEDED, {} descriptors", held.len()),
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(0);
            println!("refused {:?}", nix::errno::Errno::from_raw(errno));
        }
    }
    io::stdout().flush().unwrap();
}

fn until_refused(take: fn() -> Held) -> Held {
    let mut held = Vec::new();
    for _ in 0..MANY {
        held.extend(take()?);
    }
    Ok(held)
}

fn answer(result: i64) -> io::Result<i64> {
    if result < 0 {
        return Err(Error::last_os_error());
    }
    Ok(result)
}

fn call(number: libc::c_long, args: [i64; 4]) -> io::Result<i64> {
    let [a, b, c, d] = args;
    #[expect(unsafe_code, reason = "calls that no library here has")]
    // SAFETY: the pointers among the arguments are to constants or to memory that is never freed.
    answer(unsafe { libc::syscall(number, a, b, c, d) })
}

fn owned(fd: i64) -> OwnedFd {
    #[expect(unsafe_code, reason = "the kernel just gave it to us")]
    // SAFETY: nobody else has it.
    unsafe {
        OwnedFd::from_raw_fd(i32::try_from(fd).unwrap())
    }
}

/// Children that have ended and are never waited for.
fn zombies() -> Held {
    for _ in 0..MANY {
        #[expect(unsafe_code, reason = "zombies are forked")]
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => std::process::exit(0),
            ForkResult::Parent { .. } => {}
        }
    }
    Ok(Vec::new())
}

/// A pipe as large as it gets, and full.
fn pipe() -> Held {
    let (out, back) = nix::unistd::pipe2(OFlag::O_NONBLOCK)?;
    fcntl(&back, FcntlArg::F_SETPIPE_SZ(i32::try_from(LARGE).unwrap()))?;
    let chunk = vec![1; 64 << 10];
    while nix::unistd::write(&back, &chunk).is_ok() {}
    Ok(vec![out, back])
}

/// Two sockets, each full of what the other has said.
fn sockets() -> Held {
    let (one, two) = std::os::unix::net::UnixDatagram::pair()?;
    for socket in [&one, &two] {
        socket.set_nonblocking(true)?;
        while socket.send(&[1; 32 << 10]).is_ok() {}
    }
    Ok(vec![one.into(), two.into()])
}

fn memory_file() -> Held {
    let file = owned(call(
        libc::SYS_memfd_create,
        [c"x".as_ptr().addr().try_into().unwrap(), 0, 0, 0],
    )?);
    let chunk = vec![1; LARGE];
    nix::unistd::write(&file, &chunk)?;
    Ok(vec![file])
}

/// System V shared memory, touched.
fn segment() -> Held {
    let size = i64::try_from(LARGE).unwrap();
    let id = call(libc::SYS_shmget, [0, size, 0o1600, 0])?;
    let at = call(libc::SYS_shmat, [id, 0, 0, 0])?;
    for page in (0..LARGE).step_by(4096) {
        let address = usize::try_from(at).unwrap() + page;
        #[expect(unsafe_code, reason = "touches what was just attached")]
        // SAFETY: it is within the segment, which nobody else knows.
        unsafe {
            std::ptr::with_exposed_provenance_mut::<u8>(address).write_volatile(1);
        }
    }
    Ok(Vec::new())
}

fn watch() -> Held {
    Ok(vec![owned(call(libc::SYS_inotify_init1, [0; 4])?)])
}

fn counter() -> Held {
    Ok(vec![owned(call(libc::SYS_eventfd2, [0; 4])?)])
}

/// A timer that never rings.
fn timer() -> Held {
    let mut id = 0i32;
    let place = i64::try_from((&raw mut id).addr()).unwrap();
    // The default event: SIGALRM.
    call(libc::SYS_timer_create, [1, 0, place, 0])?;
    Ok(Vec::new())
}

/// Mappings that the kernel must keep apart: each one is a structure of its own.
fn map() -> Held {
    for protection in [0, 1] {
        let flags = i64::from(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        #[expect(unsafe_code, reason = "mmap has six arguments")]
        // SAFETY: a fresh mapping, that nobody uses.
        answer(unsafe { libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, -1, 0) })?;
    }
    Ok(Vec::new())
}

/// Room for as many requests as there may be at once, of all the host's.
fn context() -> Held {
    let mut id = 0u64;
    let place = i64::try_from((&raw mut id).addr()).unwrap();
    call(libc::SYS_io_setup, [8192, place, 0, 0])?;
    Ok(Vec::new())
}
