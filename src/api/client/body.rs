//! Reading request bodies: bounded in bytes and in time, and not copied where they came in one
//! piece.

use std::borrow::Cow;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use serde::Deserialize;
use tokio::time::timeout;

use crate::api::error::Error;
use crate::api::shares::Share;
use crate::domain::code::Code;
use crate::domain::ids::KeyId;
use crate::domain::limits::{BODY_DISCARD_BYTES_MAX, BODY_DISCARD_MAX, BODY_READ_MAX};

/// Characters of a parser's complaint that are passed on.
const REASON_CHARS_MAX: usize = 200;

/// Refuses a body that does not say it is JSON.
///
/// # Errors
/// `unsupported_media_type`.
pub(in crate::api) fn is_json(headers: &HeaderMap) -> Result<(), Error> {
    const JSON: &[u8] = b"application/json";
    let given = headers
        .get(CONTENT_TYPE)
        .map_or(&b""[..], |value| value.as_bytes());
    let essence = given
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if essence.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    let text = "the body must be JSON, sent with `Content-Type: application/json`";
    Err(Error::new(Code::UnsupportedMediaType, text))
}

/// The whole body, of at most `max` bytes: few, because nobody is held to a share of what there is for
/// large ones.
///
/// # Errors
/// `body_too_large`, `request_timeout`, or `invalid_request` if it breaks off.
pub(in crate::api) async fn read(body: &mut Body, max: usize) -> Result<Bytes, Error> {
    take(body, max, None).await
}

/// The same of a key that is known, within its share.
///
/// # Errors
/// And `busy`, if the key has no room left.
pub(in crate::api) async fn read_of(
    body: &mut Body,
    max: usize,
    key: &KeyId,
) -> Result<Bytes, Error> {
    take(body, max, Some(Share::of(key))).await
}

async fn take(body: &mut Body, max: usize, mut share: Option<Share>) -> Result<Bytes, Error> {
    match timeout(BODY_READ_MAX, collect(body, max, &mut share)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(Broken::TooLarge)) => {
            discard(body).await;
            let text = format!("the body is larger than {max} bytes, the most this call takes");
            Err(Error::new(Code::BodyTooLarge, text))
        }
        Ok(Err(Broken::Crowded)) => {
            discard(body).await;
            let text = "other large requests and unread answers of this key take all there is for it; try \
                        again in a moment";
            Err(Error::new(Code::Busy, text))
        }
        Ok(Err(Broken::Off)) => Err(Error::invalid("the body broke off or is badly chunked")),
        Err(_) => {
            let seconds = BODY_READ_MAX.as_secs();
            let text = format!("the body did not arrive within {seconds} s; send it again");
            Err(Error::new(Code::RequestTimeout, text))
        }
    }
}

/// Throws away what is still coming, within bounds, so that the client gets to read the refusal.
pub(in crate::api) async fn discard(body: &mut Body) {
    let mut left = BODY_DISCARD_BYTES_MAX;
    let all = async {
        while let Some(Ok(frame)) = body.frame().await {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            match left.checked_sub(bytes) {
                Some(less) => left = less,
                None => return,
            }
        }
    };
    // Too slow or too much: the connection is closed on it after all.
    let _ = timeout(BODY_DISCARD_MAX, all).await;
}

#[derive(Debug)]
enum Broken {
    TooLarge,
    Crowded,
    Off,
}

async fn collect(body: &mut Body, max: usize, share: &mut Option<Share>) -> Result<Bytes, Broken> {
    if body.size_hint().lower() > u64::try_from(max).unwrap_or(u64::MAX) {
        return Err(Broken::TooLarge);
    }
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Off)?.into_data() else {
            continue;
        };
        if only.len() + joined.len() + data.len() > max {
            return Err(Broken::TooLarge);
        }
        let length = only.len() + joined.len() + data.len();
        if share.as_mut().is_some_and(|share| !share.grow(length)) {
            return Err(Broken::Crowded);
        }
        if only.is_empty() && joined.is_empty() {
            only = data;
        } else {
            if joined.is_empty() {
                joined.extend_from_slice(&std::mem::take(&mut only));
            }
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() {
        only
    } else {
        joined.freeze()
    })
}

/// Parses a JSON object (serde would also take an array for a struct).
///
/// # Errors
/// `invalid_request` with what is wrong, and where.
pub(super) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    match bytes.trim_ascii_start().first() {
        None => return Err(Error::invalid("the body is empty; a JSON object is wanted")),
        Some(b'[' | b'"' | b'0'..=b'9' | b'-' | b't' | b'f' | b'n') => {
            return Err(Error::invalid("the body is not a JSON object"));
        }
        // What is not JSON at all gets the parser's line and column.
        Some(_) => {}
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let reason: String = error.to_string().chars().take(REASON_CHARS_MAX).collect();
        let what = match error.classify() {
            serde_json::error::Category::Data => "the body is not what this call takes",
            _ => "the body is not valid JSON",
        };
        Error::invalid(format!("{what}: {reason}"))
    })
}

/// A string that is only copied if it has escapes.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use http::HeaderValue;
    use hyper::body::Frame;

    /// A body of these pieces, and what comes after them.
    struct Pieces(std::vec::IntoIter<&'static str>, Poll<()>);

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.next() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
                None => self.1.map(|()| None),
            }
        }
    }

    fn pieces(pieces: &[&'static str]) -> Body {
        Body::new(Pieces(Vec::from(pieces).into_iter(), Poll::Ready(())))
    }

    #[tokio::test]
    async fn pieces_become_one() {
        for (given, whole) in [
            (vec![], ""),
            (vec!["abc"], "abc"),
            (vec!["", "ab", "", "c", "def"], "abcdef"),
        ] {
            assert_eq!(read(&mut pieces(&given), 6).await.unwrap(), whole);
        }
    }

    #[tokio::test]
    async fn one_byte_too_many_is_refused_and_the_rest_thrown_away() {
        let mut body = pieces(&["abc", "defg", "more"]);
        let refused = read(&mut body, 6).await.unwrap_err();
        assert_eq!(refused.code(), Code::BodyTooLarge);
        assert!(body.frame().await.is_none(), "drained");
        let announced = read(&mut Body::from("abcdefg"), 6).await.unwrap_err();
        assert_eq!(announced.code(), Code::BodyTooLarge);
        assert_eq!(read(&mut Body::from("abcdef"), 6).await.unwrap(), "abcdef");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_ends_is_given_up() {
        let mut body = Body::new(Pieces(vec!["{"].into_iter(), Poll::Pending));
        let refused = read(&mut body, 6).await.unwrap_err();
        assert!(refused.to_string().contains("30 s"), "{refused}");
    }

    #[test]
    fn content_types() {
        let check = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_str(value).unwrap());
            is_json(&headers).is_ok()
        };
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json ;x",
        ] {
            assert!(check(good), "{good}");
        }
        for bad in [
            "",
            "text/plain",
            "application/jsonp",
            "application/x-www-form-urlencoded",
        ] {
            assert!(!check(bad), "{bad}");
        }
        assert_eq!(
            is_json(&HeaderMap::new()).unwrap_err().code(),
            Code::UnsupportedMediaType
        );
    }

    #[test]
    fn complaints_say_where() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            #[serde(rename = "a")]
            _a: u8,
        }
        let complaint = |text: &str| parse::<Wanted>(text.as_bytes()).unwrap_err().to_string();
        assert!(
            complaint("{\n  \"a\": }").contains("line 2 column"),
            "{}",
            complaint("{\n \"a\": }")
        );
        assert!(complaint("{\"a\":1").contains("not valid JSON"));
        assert!(complaint("{\"a\":1} x").contains("trailing"));
        assert!(complaint("{\"a\":1,\"b\":2}").contains("unknown field `b`"));
        assert!(complaint("{\"a\":1,\"a\":2}").contains("duplicate field `a`"));
        assert!(complaint("[1]").contains("not a JSON object"));
        assert!(complaint(" ").contains("empty"));
        assert!(complaint("hello").contains("line 1 column 1"));
        let long = format!("{{\"{}\":1}}", "x".repeat(5_000));
        assert!(complaint(&long).len() < 300);
        assert!(parse::<Wanted>(b"{\"a\":1, \"\xff\":1}").is_err());
    }
}
