//! Whoever writes a stream. It waits for room, but not for ever for who does not read.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::{sleep, timeout};

use super::stream::Stream;
use super::table::Streams;
use crate::api::mcp::events::put_data;
use crate::api::shares::Share;
use crate::domain::limits::{MCP_RETRY, MCP_UNREAD_MAX, millis};

/// How often a large event looks for a share of its key.
const SHARE_AGAIN: Duration = Duration::from_millis(100);

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Written {
    Whole,
    /// Its key has no share left for one as large, and had none for long: it is left out.
    Not,
}

/// The one who writes a stream.
pub(super) struct Writer {
    pub(super) streams: Streams,
    pub(super) stream: Arc<Stream>,
}

impl Writer {
    /// Writes one event; `None` if the stream is of no use any more.
    pub(super) async fn say(&self, message: &[u8]) -> Option<Written> {
        let mut share = Share::of(&self.stream.session.key);
        let held = async {
            while !share.grow(message.len()) {
                sleep(SHARE_AGAIN).await;
            }
        };
        let held = tokio::select! {
            held = timeout(MCP_UNREAD_MAX, held) => held,
            () = self.stream.gone.cancelled() => return None,
        };
        if held.is_err() {
            return Some(Written::Not);
        }
        self.put(|id| event(id, message), Some(share)).await?;
        Some(Written::Whole)
    }

    /// What tells a client how to come back before there is anything to tell.
    pub(super) async fn prime(&self) -> Option<()> {
        let text = |id: &str| {
            let retry = millis(MCP_RETRY);
            Bytes::from(format!("id: {id}\nretry: {retry}\ndata: \n\n"))
        };
        self.put(text, None).await
    }

    async fn put(&self, text: impl Fn(&str) -> Bytes, mut share: Option<Share>) -> Option<()> {
        let stream = &self.stream;
        while !stream.push(&text, &mut share) {
            if stream.gone.is_cancelled() {
                return None;
            }
            if self.streams.make_room(stream) {
                continue;
            }
            tokio::select! {
                room = timeout(MCP_UNREAD_MAX, stream.room()) => if room.is_err() && stream.leave_behind() {
                    self.streams.away(stream);
                },
                () = stream.gone.cancelled() => return None,
            }
        }
        (!stream.gone.is_cancelled()).then_some(())
    }

    /// Writes the last event.
    pub(super) fn say_last(&self, message: &[u8], instead: impl FnOnce() -> Bytes) {
        while self.streams.make_room(&self.stream) {}
        self.stream
            .push_last(|id| event(id, message), |id| event(id, &instead()));
    }
}

/// One message under an id.
fn event(id: &str, message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + id.len() + 32);
    out.put_slice(b"id: ");
    out.put_slice(id.as_bytes());
    out.put_u8(b'\n');
    put_data(&mut out, message);
    out.freeze()
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stream.end();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::super::name::Kind;
    use super::*;
    use crate::actors::calls::Tag;
    use crate::domain::ids::ID_BYTES;
    use crate::domain::limits::MCP_KEPT_BYTES_MAX;

    fn writer() -> Writer {
        let session = Tag::for_tests([7; ID_BYTES]).session;
        let stream = Stream::new(Kind::Answer, [1; 16], session, Default::default());
        Writer {
            streams: Streams::default(),
            stream: Arc::new(stream),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_left_and_what_it_missed_is_there_for_who_does() {
        let writer = writer();
        let stream = Arc::clone(&writer.stream);
        let response = writer.streams.told_after(Arc::clone(&stream), 0).unwrap();
        let mut unread = response.into_body();
        writer.say(&vec![b'x'; MCP_KEPT_BYTES_MAX]).await.unwrap();
        let began = Instant::now();
        let writing = tokio::spawn(async move {
            writer.say(b"{}").await.unwrap();
            writer.say_last(b"[]", Bytes::new);
        });
        stream.away_for(std::time::Duration::ZERO).await;
        assert_eq!(began.elapsed(), MCP_UNREAD_MAX);
        assert!(unread.frame().await.is_none(), "it is closed");
        assert!(!writing.is_finished(), "nothing is thrown away unread");
        let streams = Streams::default();
        let read = streams.told_after(Arc::clone(&stream), 0).unwrap();
        let read = read.into_body().collect().await.unwrap().to_bytes();
        writing.await.unwrap();
        let text = std::str::from_utf8(&read).unwrap();
        assert!(text.len() > MCP_KEPT_BYTES_MAX);
        assert!(text.contains("-2\nevent: message\ndata: {}\n\n"));
        assert!(text.ends_with("-3\nevent: message\ndata: []\n\n"));
        assert!(stream.is_away(), "its reader is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_event_has_a_share_of_its_key_until_it_is_read() {
        use crate::domain::limits::{LARGE_BYTES_KEY_MAX, LARGE_BYTES_MIN};
        let session = Tag::for_tests([9; ID_BYTES]).session;
        let stream = Stream::new(Kind::Answer, [2; 16], session, Default::default());
        let writer = Writer {
            streams: Streams::default(),
            stream: Arc::new(stream),
        };
        let large = vec![b'x'; LARGE_BYTES_MIN + 1];
        let mut others = Share::of(&writer.stream.session.key);
        assert!(others.grow(LARGE_BYTES_KEY_MAX - large.len()));
        assert_eq!(writer.say(&large).await, Some(Written::Whole));
        assert_eq!(writer.say(&large).await, Some(Written::Not));
        let reader = writer.stream.read_after(0).unwrap();
        let waker = std::task::Waker::noop();
        while let super::super::stream::Given::Piece(_) = writer.stream.take(reader, waker) {}
        assert_eq!(writer.say(&large).await, Some(Written::Whole));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_hears_that_a_silent_stream_lives_and_a_newer_one_takes_its_place() {
        let writer = writer();
        let stream = Arc::clone(&writer.stream);
        let streams = &writer.streams;
        let read = |after| {
            let response = streams.told_after(Arc::clone(&stream), after).unwrap();
            response.into_body()
        };
        let mut older = read(0);
        writer.prime().await.unwrap();
        let primed = older.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(primed.ends_with(b"-1\nretry: 1000\ndata: \n\n"));
        let silent = Instant::now();
        let alive = older.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(alive.starts_with(b":"));
        assert_eq!(silent.elapsed(), crate::domain::limits::MCP_KEEP_ALIVE);
        let mut newer = read(1);
        assert!(older.frame().await.is_none());
        drop(older);
        assert!(!stream.is_away(), "who was replaced leaves nothing behind");
        stream.wipe();
        assert!(newer.frame().await.is_none());
        assert!(writer.say(b"{}").await.is_none());
    }
}
