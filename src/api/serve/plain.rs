//! Plain HTTP on a port that speaks TLS: answered once, with what is wrong, and closed.
//!
//! A handshake begins with byte 22 (RFC 8446, section 5.1), a request with a letter (RFC 9110, section 9.1), so one byte
//! tells. The caller bounds the time; nothing is read but what is thrown away.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const TEXT: &str = "This port speaks HTTPS only: use https:// in the address.\n";

/// Whether the client begins with a letter. Takes nothing off the stream.
pub(super) async fn speaks(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let got = stream.peek(&mut first).await?;
    Ok(got == 1 && first.iter().all(u8::is_ascii_alphabetic))
}

/// Says so, and throws away at most `bytes_max` of what comes: closing on what was not read would reset the connection, and
/// the answer with it.
pub(super) async fn refuse(mut stream: TcpStream, bytes_max: usize) -> io::Result<()> {
    tracing::debug!("plain HTTP on a TLS port was refused");
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{TEXT}",
        TEXT.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let mut scratch = [0; 1024];
    let mut left = bytes_max;
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => left = left.saturating_sub(read),
        }
    }
    Ok(())
}
