//! Memory for large requests on their way in and large answers on their way out: so much for all, and of that so
//! much for each key. A client that sends slowly, or does not read, holds what it has; without a share of its
//! own it would hold everybody's.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Frame, SizeHint};

use super::error;
use crate::domain::ids::KeyId;
use crate::domain::limits::{LARGE_BYTES_ALL_MAX, LARGE_BYTES_KEY_MAX, LARGE_BYTES_MIN};

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 << 10;

/// What is held, by whom.
#[derive(Debug, Default)]
struct Held {
    all: usize,
    by: HashMap<KeyId, usize>,
}

/// Requests and answers of the client port.
static LARGE: Mutex<Option<Held>> = Mutex::new(None);

/// Bytes that are held until this is dropped.
#[derive(Debug)]
pub(super) struct Share {
    key: KeyId,
    bytes: usize,
}

impl Share {
    /// Nothing yet.
    pub(super) fn of(key: &KeyId) -> Self {
        Self {
            key: key.clone(),
            bytes: 0,
        }
    }

    /// Holds `bytes` in all, if the key and the house have room for them. What is small is not counted.
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            return true;
        };
        if bytes <= LARGE_BYTES_MIN {
            return true;
        }
        let mut held = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get_or_insert_default();
        let own = held.by.get(&self.key).copied().unwrap_or(0);
        if own + more > LARGE_BYTES_KEY_MAX || held.all + more > LARGE_BYTES_ALL_MAX {
            return false;
        }
        held.all += more;
        held.by.insert(self.key.clone(), own + more);
        self.bytes = bytes;
        true
    }
}

/// Bytes with their share.
struct Counted {
    bytes: Box<[u8]>,
    _share: Share,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A copy of what a client answers, held as long as anybody has it; `None` if the key or the house has no room for
/// it.
pub(super) fn kept(bytes: &[u8], key: &KeyId) -> Option<Bytes> {
    let mut share = Share::of(key);
    share.grow(bytes.len()).then(|| {
        Bytes::from_owner(Counted {
            bytes: bytes.into(),
            _share: share,
        })
    })
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = LARGE.lock().unwrap_or_else(PoisonError::into_inner);
        let held = held.get_or_insert_default();
        held.all = held.all.saturating_sub(self.bytes);
        if let Some(own) = held.by.get_mut(&self.key) {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                held.by.remove(&self.key);
            }
        }
    }
}

/// Bytes that are given to a connection piece by piece, and held until the last piece is taken: given whole, they
/// would be out of our hands however long nobody reads them.
#[derive(Debug)]
pub(super) struct Pieces {
    rest: Bytes,
    share: Share,
}

impl Pieces {
    /// All of `bytes`; `None` if the key or the house has no room for them.
    pub(super) fn of(bytes: Bytes, key: &KeyId) -> Option<Self> {
        let mut share = Share::of(key);
        share
            .grow(bytes.len())
            .then_some(Self { rest: bytes, share })
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.share.bytes == 0;
        let length = if whole { usize::MAX } else { PIECE_BYTES };
        Some(self.rest.split_to(length.min(self.rest.len())))
    }
}

/// A JSON answer that holds its share until it is sent or given up; `None` if there is no room for it.
pub(super) fn json(body: Bytes, key: &KeyId) -> Option<Response> {
    if body.len() <= LARGE_BYTES_MIN {
        return Some(error::json(StatusCode::OK, body));
    }
    let pieces = Pieces::of(body, key)?;
    Some(error::json(StatusCode::OK, Bytes::new()).map(|_| Body::new(pieces)))
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(self.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> KeyId {
        KeyId::from_random([number; 10])
    }

    /// One key's unread answers and unfinished requests took a gigabyte; with one bound for all, they took
    /// everybody's.
    #[test]
    fn a_key_holds_its_share_and_no_more_and_gives_it_back() {
        let (ada, ben) = (key(201), key(202));
        let mut held = Vec::new();
        let refused = loop {
            let mut share = Share::of(&ada);
            if !share.grow(4 << 20) {
                break share;
            }
            held.push(share);
        };
        assert_eq!(held.len(), LARGE_BYTES_KEY_MAX / (4 << 20));
        assert_eq!(refused.bytes, 0);
        assert!(
            Share::of(&ada).grow(LARGE_BYTES_MIN),
            "what is small is not counted"
        );
        assert!(Share::of(&ben).grow(4 << 20), "another key has its own");
        held.pop();
        let mut again = Share::of(&ada);
        assert!(again.grow(2 << 20) && again.grow(4 << 20) && !again.grow(5 << 20));
    }

    /// Answers that waited for the others of their round counted against nobody: a session held 60 MiB of them.
    #[test]
    fn what_a_client_answers_counts_until_it_is_sent() {
        let ada = key(204);
        let large = vec![7; 4 << 20];
        let mut waiting = Vec::new();
        while let Some(answer) = kept(&large, &ada) {
            waiting.push(answer.slice(1..));
        }
        assert_eq!(waiting.len(), LARGE_BYTES_KEY_MAX / large.len());
        assert_eq!(kept(&large[..9], &ada).unwrap(), large[..9]);
        waiting.pop();
        assert!(kept(&large, &ada).is_some());
    }

    #[test]
    fn what_is_large_is_given_away_in_pieces() {
        let bytes = Bytes::from(vec![7; LARGE_BYTES_MIN + 1]);
        let mut pieces = Pieces::of(bytes.clone(), &key(203)).unwrap();
        assert_eq!(pieces.size_hint().exact(), Some(bytes.len() as u64));
        let mut all = Vec::new();
        while let Some(piece) = pieces.next() {
            assert!(piece.len() <= PIECE_BYTES);
            all.extend_from_slice(&piece);
        }
        assert_eq!(all, bytes);
        let small = Bytes::from_static(b"{}");
        assert_eq!(
            Pieces::of(small.clone(), &key(203)).unwrap().next(),
            Some(small)
        );
    }
}
