//! A reverse proxy that puts a key into every request and passes everything else on as it comes: the suite cannot
//! send one. Loopback only; one connection for each request, so that streams end when either side ends them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

/// More than any head of a test.
const HEAD_MAX: usize = 64 << 10;

/// Listens until the test process ends; the address of `target` (an `http://` URL) with the key in it.
pub(crate) fn inject(target: &str, key: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let target = target.trim_start_matches("http://").to_owned();
    let line = format!("Authorization: Bearer {key}\r\nConnection: close\r\n");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (target, line) = (target.clone(), line.clone());
            thread::spawn(move || {
                // A connection that breaks is its client's business.
                let _ = pass(client, &target, &line);
            });
        }
    });
    format!("http://localhost:{port}")
}

fn pass(mut client: TcpStream, target: &str, line: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 2;
        }
        let mut more = [0; 4096];
        let read = client.read(&mut more)?;
        if read == 0 || head.len() > HEAD_MAX {
            return Ok(());
        }
        head.extend_from_slice(&more[..read]);
    };
    let (head, rest) = head.split_at(end);
    let mut server = TcpStream::connect(target)?;
    for one in head.split_inclusive(|byte| *byte == b'\n') {
        if !one.to_ascii_lowercase().starts_with(b"connection:") {
            server.write_all(one)?;
        }
    }
    server.write_all(line.as_bytes())?;
    server.write_all(rest)?;
    let (back, mut up) = (client.try_clone()?, server.try_clone()?);
    let upward = thread::spawn(move || {
        let _ = std::io::copy(&mut client, &mut up);
        let _ = up.shutdown(Shutdown::Both);
    });
    let mut down = &back;
    let _ = std::io::copy(&mut server, &mut down);
    let _ = back.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}
