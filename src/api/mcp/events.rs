//! The answer to one request as a stream of events: what its server says meanwhile, then the answer, then the end.
//! A client that is slow misses news, never the answer; one that does not read for long is left.

use axum::body::Body;
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Shared;
use super::answer::unread;
use super::call::streamed;
use super::exchange::{Exchange, Said};
use super::listen::Told;
use crate::api::shares::Pieces;
use crate::domain::limits::{MCP_KEEP_ALIVE, MCP_UNREAD_MAX};

/// What is said where there is nothing to say.
pub(super) const ALIVE: Bytes = Bytes::from_static(b": still at work\n\n");
/// What stands before a message that is an event.
pub(super) const BEGINS: &[u8] = b"event: message\ndata: ";
/// What stands behind it.
pub(super) const ENDS: &[u8] = b"\n\n";
/// Events between the one who tells and the connection.
const UNREAD_MAX: usize = 4;

/// Answers with a stream that cannot be taken up again; `first` is on it at once.
pub(super) fn stream(shared: Shared, exchange: Exchange, first: Bytes) -> Response {
    let (tell, told) = mpsc::channel(UNREAD_MAX);
    let task = tokio::spawn(drive(shared, exchange, first, tell));
    streamed(Body::new(Told::new(told, task)))
}

async fn drive(
    shared: Shared,
    mut exchange: Exchange,
    first: Bytes,
    tell: mpsc::Sender<Bytes>,
) -> Option<()> {
    // `None`: unread for long, or gone.
    let say = async |bytes| tell.send_timeout(bytes, MCP_UNREAD_MAX).await.ok();
    say(first).await?;
    loop {
        match timeout(MCP_KEEP_ALIVE, exchange.next()).await {
            Err(_) => say(ALIVE).await?,
            Ok(Said::Event(message)) => say(event(&message)).await?,
            Ok(Said::Asks) => match exchange.hold(&shared) {
                Ok(body) => return say(event(&body)).await,
                Err(goes_on) => exchange = *goes_on,
            },
            Ok(Said::Last(body, _)) => {
                let whole = Pieces::of(event(&body), exchange.key());
                let refused =
                    || Pieces::of(event(&unread(&exchange.id, body.len())), exchange.key());
                let mut pieces = whole.or_else(refused)?;
                drop(body);
                while let Some(piece) = pieces.next() {
                    say(piece).await?;
                }
                return Some(());
            }
            Ok(Said::Over) => return None,
        }
    }
}

/// One message on one line, as everybody's reader takes it.
pub(super) fn event(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + 24);
    put_data(&mut out, message);
    out.freeze()
}

/// The same behind what stands there already.
pub(super) fn put_data(out: &mut BytesMut, message: &[u8]) {
    out.put_slice(BEGINS);
    // A server may put a raw carriage return between two tokens, where it means nothing; here it would
    // end the line.
    let message = message.trim_ascii_end();
    if memchr::memchr2(b'\r', b'\n', message).is_none() {
        out.put_slice(message);
    } else {
        out.extend(message.iter().map(plain));
    }
    out.put_slice(ENDS);
}

/// A part of a message on one line.
pub(super) fn on_one_line(part: Bytes) -> Bytes {
    match memchr::memchr2(b'\r', b'\n', &part) {
        None => part,
        Some(_) => part.iter().map(plain).collect(),
    }
}

fn plain(byte: &u8) -> u8 {
    match byte {
        b'\r' | b'\n' => b' ',
        other => *other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_its_server_put_between_tokens() {
        assert_eq!(
            event(b"{\"a\":1}\r\n"),
            "event: message\ndata: {\"a\":1}\n\n"
        );
        assert_eq!(
            event(b"{\r\"a\":\r1}"),
            "event: message\ndata: { \"a\": 1}\n\n"
        );
    }
}
