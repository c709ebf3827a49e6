//! The servers under test, and the gateway that is killed.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{ForkResult, fork};
use sandbox::host::HostConfig;
use sandbox::{Facility, Host};

use crate::world;

pub(crate) fn run(args: &[String]) -> ExitCode {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["descriptors"] => descriptors(),
        ["walls"] => walls(),
        ["attacks", pid, port, folder, name, profile] => {
            crate::attacks::run(pid, port, folder, name, profile);
        }
        ["guard", port] => guard(port.parse().unwrap()),
        ["network", port] => network(port.parse().unwrap()),
        ["hoard", kind] => crate::hoards::run(kind),
        ["forks", most] => forks(most.parse().unwrap()),
        ["memory", mebibytes] => memory(mebibytes.parse().unwrap()),
        ["tcp", connections] => tcp(connections.parse().unwrap()),
        ["daemon", word] => daemon(word),
        ["sleep", _] => std::thread::sleep(Duration::from_secs(1000)),
        ["gateway", id, word, facilities] => gateway(id, word, facilities),
        other => panic!("unknown probe {other:?}"),
    }
    ExitCode::SUCCESS
}

/// Every way there is to reach a metadata address, with the kernel's answer.
fn guard(port: u16) {
    use std::net::{TcpStream, UdpSocket};
    let own = TcpStream::connect(("127.0.0.1", port)).map_or("refused", |_| "reached");
    println!("the host's service {own}");
    let name =
        |error: &std::io::Error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let tell = |way: &str, result: std::io::Result<()>| match result {
        Ok(()) => println!("{way} passed"),
        Err(error) => println!("{way} {:?}", name(&error)),
    };
    let wait = Duration::from_millis(300);
    for address in [
        "169.254.169.254:80",
        "[::ffff:169.254.169.254]:80",
        "168.63.129.16:80",
        "[fd00:ec2::254]:80",
        "[fe80::1]:80",
    ] {
        let to = address.parse().unwrap();
        let tcp = TcpStream::connect_timeout(&to, wait).map(drop);
        tell(&format!("tcp to {address}"), tcp);
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let udp = UdpSocket::bind(own);
        let sent = udp.and_then(|socket| socket.send_to(b"x", to).map(drop));
        tell(&format!("udp to {address}"), sent);
        let udp = UdpSocket::bind(own);
        tell(
            &format!("connected udp to {address}"),
            udp.and_then(|socket| socket.connect(to)),
        );
    }
    tell("multipath tcp", stream_by(262));
    tell("sctp", stream_by(132));
    tell("fast open", fast_open());
}

static METADATA: libc::sockaddr_in = libc::sockaddr_in {
    sin_family: 2,
    sin_port: 80u16.to_be(),
    sin_addr: libc::in_addr {
        s_addr: u32::from_ne_bytes([169, 254, 169, 254]),
    },
    sin_zero: [0; 8],
};

#[expect(unsafe_code, reason = "ways that std does not go")]
fn stream_by(protocol: libc::c_int) -> std::io::Result<()> {
    let length = u32::try_from(size_of::<libc::sockaddr_in>()).unwrap();
    // SAFETY: no pointers but to a constant of that length.
    let result = unsafe {
        let fd = libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK,
            protocol,
        );
        if fd < 0 {
            fd
        } else {
            libc::connect(fd, (&raw const METADATA).cast(), length)
        }
    };
    answer(result.try_into().unwrap())
}

/// `connect` by the first word.
#[expect(unsafe_code, reason = "ways that std does not go")]
fn fast_open() -> std::io::Result<()> {
    let length = u32::try_from(size_of::<libc::sockaddr_in>()).unwrap();
    // SAFETY: no pointers but to constants of those lengths.
    let result = unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0);
        let flags = libc::MSG_FASTOPEN;
        libc::sendto(
            fd,
            c"x".as_ptr().cast(),
            1,
            flags,
            (&raw const METADATA).cast(),
            length,
        )
    };
    answer(result)
}

fn answer(result: isize) -> std::io::Result<()> {
    if result < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

fn descriptors() {
    let open: Vec<String> = (0..1024)
        .filter(|fd| nix::fcntl::fcntl(borrow(*fd), nix::fcntl::FcntlArg::F_GETFD).is_ok())
        .map(|fd| fd.to_string())
        .collect();
    println!("{}", open.join(" "));
}

fn borrow(fd: i32) -> std::os::fd::BorrowedFd<'static> {
    #[expect(unsafe_code, reason = "asks whether a number is open at all")]
    // SAFETY: only used for F_GETFD, which answers EBADF for what is not open.
    unsafe {
        std::os::fd::BorrowedFd::borrow_raw(fd)
    }
}

/// Its interfaces, whether it reaches itself, and a listener of the host.
fn network(port: u16) {
    use std::net::{TcpListener, TcpStream};
    let told = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let names = told.lines().filter_map(|line| line.split_once(':'));
    let names: Vec<_> = names.map(|(name, _)| name.trim()).collect();
    println!("interfaces {}", names.join(" "));
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let verdict = |port| match TcpStream::connect(("127.0.0.1", port)) {
        Ok(_) => "reached",
        Err(_) => "refused",
    };
    println!("self {}", verdict(own.local_addr().unwrap().port()));
    println!("host {}", verdict(port));
}

fn walls() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let nnp = status
        .lines()
        .find_map(|line| line.strip_prefix("NoNewPrivs:\t"))
        .unwrap();
    println!("no_new_privs {nnp}");
    for (name, resource) in [
        ("core", Resource::RLIMIT_CORE),
        ("nofile", Resource::RLIMIT_NOFILE),
        ("fsize", Resource::RLIMIT_FSIZE),
    ] {
        let (soft, hard) = getrlimit(resource).unwrap();
        println!("{name} {soft} {hard}");
    }
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    println!("oom_score_adj {}", score.trim());
    let leader = nix::unistd::getsid(None).unwrap() == nix::unistd::getpid();
    println!("session_leader {leader}");
}

/// Forks until the kernel refuses, tells how often that went well, and stays.
fn forks(most: u32) {
    let mut made = 0;
    while made < most {
        #[expect(unsafe_code, reason = "a fork bomb forks")]
        // SAFETY: this process has one thread.
        match unsafe { fork() } {
            Ok(ForkResult::Child) => {
                std::thread::sleep(Duration::from_secs(1000));
                return;
            }
            Ok(ForkResult::Parent { .. }) => made += 1,
            Err(_) => break,
        }
    }
    println!("{made}");
    std::thread::sleep(Duration::from_secs(1000));
}

fn memory(mebibytes: usize) {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(vec![1u8; 1 << 20]);
        std::hint::black_box(&held);
    }
}

/// Says how many bytes so many connections hold that nobody reads.
fn tcp(connections: usize) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut chunk = vec![1; 64 << 10];
    let mut held = Vec::new();
    let mut bytes = 0;
    for _ in 0..connections {
        let mut from = std::net::TcpStream::connect(address).unwrap();
        let (mut to, _) = listener.accept().unwrap();
        from.set_nonblocking(true).unwrap();
        to.set_nonblocking(true).unwrap();
        // Its buffers grow with what is read.
        for _ in 0..100 {
            let _ = from.write(&chunk);
            let _ = to.read(&mut chunk);
        }
        while let Ok(more) = from.write(&chunk) {
            bytes += more;
        }
        held.push((from, to));
    }
    println!("{bytes}");
}

/// A daemon the old way: forks twice, in a session of its own, deaf to every signal it may ignore.
fn daemon(word: &str) {
    #[expect(unsafe_code, reason = "a daemon forks")]
    // SAFETY: this process has one thread.
    if let ForkResult::Child = unsafe { fork() }.unwrap() {
        nix::unistd::setsid().unwrap();
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGINT] {
            #[expect(unsafe_code, reason = "ignores signals as daemons do")]
            // SAFETY: SIG_IGN is a valid disposition.
            unsafe {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
        let failed = Command::new(std::env::current_exe().unwrap())
            .args(["probe", "sleep", word])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .exec();
        panic!("{failed}");
    }
}

/// A gateway with one server that has a daemon; tells that it is up and waits for its own death.
fn gateway(id: &str, word: &str, facilities: &str) {
    let mut config = HostConfig::new(id);
    config.allow_degraded = Facility::ALL.to_vec();
    config.probe_identity = world::identity();
    if facilities == "none" {
        config.without = Facility::ALL.to_vec();
    }
    let host = Host::start(config).unwrap();
    let own = std::env::current_exe().unwrap();
    let own = own.display();
    let script = format!("{own} probe daemon {word}; {own} probe sleep {word}; true");
    let _spawned = host.spawn(&world::shell(&script)).unwrap();
    println!("up");
    std::thread::sleep(Duration::from_secs(1000));
}
