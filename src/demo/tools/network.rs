//! What of the network is reached from here.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, Outcome, arguments};
use crate::demo::wire::Fault;

/// How long each step may take.
const STEP: Duration = Duration::from_secs(5);
/// Bytes that are dripped at most.
const DRIPS_MAX: u32 = 1000;
/// Bytes of an answer that are told.
const TOLD_BYTES: u64 = 4096;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Reach {
    host: String,
    port: u16,
    #[serde(default)]
    say: String,
    #[serde(default)]
    hex: bool,
    #[serde(default)]
    proxy: bool,
    drip_ms: Option<u64>,
}

pub(super) fn reach(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let wanted: Reach = arguments(raw)?;
    let told = match attempt(&wanted) {
        Ok((address, answer)) => json!({
            "address": address.map(|address| address.to_string()),
            "answer": String::from_utf8_lossy(&answer),
        }),
        Err((step, error)) => json!({"failed": step, "error": error.to_string()}),
    };
    Ok(Outcome::Json(told))
}

type Attempt = (Option<SocketAddr>, Vec<u8>);

fn attempt(wanted: &Reach) -> Result<Attempt, (&'static str, io::Error)> {
    let (mut stream, address) = if wanted.proxy {
        (tunnel(wanted).map_err(|e| ("proxy", e))?, None)
    } else {
        let found = (wanted.host.as_str(), wanted.port).to_socket_addrs();
        let address = found.map_err(|e| ("lookup", e))?.next();
        let address = address.ok_or(("lookup", io::ErrorKind::NotFound.into()))?;
        let stream = TcpStream::connect_timeout(&address, STEP).map_err(|e| ("connect", e))?;
        (stream, Some(address))
    };
    let talked = stream
        .set_read_timeout(Some(STEP))
        .and_then(|()| stream.write_all(&said(wanted)))
        .and_then(|()| {
            if let Some(pause) = wanted.drip_ms {
                drip(&mut stream, Duration::from_millis(pause.max(1)))?;
            }
            let mut answer = Vec::new();
            let read = (&mut stream).take(TOLD_BYTES).read_to_end(&mut answer);
            match read {
                // Silence after an answer is an answer.
                Err(error) if answer.is_empty() => Err(error),
                _ => Ok(answer),
            }
        });
    talked
        .map(|answer| (address, answer))
        .map_err(|e| ("talk", e))
}

/// A byte more each time, until the other end answers or is gone.
fn drip(stream: &mut TcpStream, pause: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(pause))?;
    for _ in 0..DRIPS_MAX {
        stream.write_all(&[0])?;
        match stream.peek(&mut [0]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock) => {}
            other => return other.map(|_| ()),
        }
    }
    Ok(())
}

fn said(wanted: &Reach) -> Vec<u8> {
    if !wanted.hex {
        return wanted.say.as_bytes().to_vec();
    }
    let digits = wanted.say.as_bytes().chunks(2);
    digits
        .filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok())
        .collect()
}

/// A tunnel through the proxy of the environment; what the proxy says instead is the error.
fn tunnel(wanted: &Reach) -> io::Result<TcpStream> {
    let proxy = std::env::var("HTTPS_PROXY").unwrap_or_default();
    let proxy = proxy.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(proxy)?;
    stream.set_read_timeout(Some(STEP))?;
    let target = format!("{}:{}", wanted.host, wanted.port);
    write!(
        stream,
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n"
    )?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    if head.starts_with(b"HTTP/1.1 200") {
        return Ok(stream);
    }
    let mut rest = String::new();
    let _ = stream.take(TOLD_BYTES).read_to_string(&mut rest);
    let head = String::from_utf8_lossy(&head);
    let status = head.lines().next().unwrap_or_default();
    Err(io::Error::other(format!("{status}: {rest}")))
}
