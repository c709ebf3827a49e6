//! Whoever writes a stream. It waits for room, but not for ever for who does not read.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::time::timeout;

use super::stream::Stream;
use super::table::Streams;
use crate::api::mcp::events::put_data;
use crate::domain::limits::{MCP_RETRY, MCP_UNREAD_MAX, millis};

/// The one who writes a stream.
pub(super) struct Writer {
    pub(super) streams: Streams,
    pub(super) stream: Arc<Stream>,
}

impl Writer {
    /// Writes one event; `None` if the stream is of no use any more.
    pub(super) async fn say(&self, message: &[u8]) -> Option<()> {
        self.put(|id| event(id, message)).await
    }

    /// What tells a client how to come back before there is anything to tell.
    pub(super) async fn prime(&self) -> Option<()> {
        self.put(|id| {
            let retry = millis(MCP_RETRY);
            Bytes::from(format!("id: {id}\nretry: {retry}\ndata: \n\n"))
        })
        .await
    }

    async fn put(&self, text: impl Fn(&str) -> Bytes) -> Option<()> {
        let stream = &self.stream;
        while !stream.push(&text) {
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
