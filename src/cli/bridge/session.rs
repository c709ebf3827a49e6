//! A session with the server: how it begins, and what an answer is.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::events::Events;
use super::http::{Ask, Gate, Heard, Http, Kind, Lost, OPEN, SESSION, VERSION};
use super::wire::{self, Answer};
use crate::domain::limits::{
    BRIDGE_ANSWER_BYTES_MAX, BRIDGE_BEGIN_WAIT, BRIDGE_LEAVE_MAX, BRIDGE_SILENCE_MAX,
};

/// Why a request came to nothing, by what can be done about it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// It never reached the server: it may be sent again.
    #[error("{0}")]
    Away(String),
    /// It may have reached the server.
    #[error("{0}")]
    Broken(String),
    /// The server said no.
    #[error("{text} (status {})", status.as_u16())]
    Refused { status: StatusCode, text: String },
    /// The server answered with an error of JSON-RPC.
    #[error("{0}")]
    Error(Box<RawValue>),
    /// The AI tool has not begun.
    #[error("begin with `initialize`")]
    NotBegun,
    /// Nobody wants it any more.
    #[error("no longer wanted")]
    Unwanted,
}

/// What the server knows a client by.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) headers: HeaderMap,
    pub(super) generation: u64,
}

// === impl Failure ===

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Unreached(why) => Self::Away(why),
            Lost::Broken(why) => Self::Broken(why),
            Lost::Unwanted => Self::Unwanted,
        }
    }
}

impl Failure {
    /// Whether there is nobody who could say more: the last good answer is better than none.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Away(_) | Self::Broken(_) => true,
            Self::Refused { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// Whether the key is not, or no longer, good.
    pub(super) fn is_denial(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403))
    }

    /// Whether the server knows no such session, and so has not carried anything out.
    pub(super) fn is_session_gone(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// Posts a message; everything but a success is a [`Failure`].
pub(super) async fn post(http: &Http, ask: Ask<'_>, gate: Gate<'_>) -> Result<Heard, Failure> {
    let heard = http.send(ask, gate).await?;
    if heard.status.is_success() {
        return Ok(heard);
    }
    let (status, of_a_proxy) = (heard.status, heard.is_of_a_proxy());
    let text = heard.refusal().await;
    if of_a_proxy {
        let number = status.as_u16();
        return Err(Failure::Broken(format!("a proxy answers {number}: {text}")));
    }
    Err(Failure::Refused { status, text })
}

/// Begins a session: `initialize`, then the notification that it is done.
pub(super) async fn begin(
    http: &Http,
    params: &RawValue,
    generation: u64,
) -> Result<(Session, Box<RawValue>), Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Begun {
        protocol_version: String,
    }
    let none = HeaderMap::new();
    let ask = |body: Bytes, headers| Ask {
        method: Method::POST,
        body,
        headers,
        wait: BRIDGE_BEGIN_WAIT,
    };
    let heard = post(
        http,
        ask(wire::own(wire::OWN_ID, "initialize", params), &none),
        OPEN,
    )
    .await?;
    let id = heard.session.clone();
    let result = result(&whole(heard, wire::OWN_ID).await?)?;
    let strange =
        |why: String| Failure::Broken(format!("its `initialize` is not understood: {why}"));
    let begun: Begun =
        serde_json::from_str(result.get()).map_err(|error| strange(error.to_string()))?;
    let mut headers = HeaderMap::new();
    let version = HeaderValue::from_str(&begun.protocol_version);
    headers.insert(
        VERSION,
        version.map_err(|error| strange(error.to_string()))?,
    );
    if let Some(id) = id {
        headers.insert(SESSION, id);
    }
    let done = Bytes::from_static(wire::INITIALIZED);
    post(http, ask(done, &headers), OPEN).await?;
    let session = Session {
        headers,
        generation,
    };
    Ok((session, result))
}

/// Ends a session, if the server is there to hear it.
pub(super) async fn end(http: &Http, session: &Session) {
    let ask = Ask {
        method: Method::DELETE,
        body: Bytes::new(),
        headers: &session.headers,
        wait: BRIDGE_LEAVE_MAX,
    };
    let left = timeout(BRIDGE_LEAVE_MAX, post(http, ask, OPEN)).await;
    if !matches!(left, Ok(Ok(_))) {
        tracing::info!("the server was not told that a session ends");
    }
}

/// The result of a whole answer.
pub(super) fn result(answer: &[u8]) -> Result<Box<RawValue>, Failure> {
    let strange = |why: &str| Failure::Broken(format!("its answer is not understood: {why}"));
    let read: Answer<'_> =
        serde_json::from_slice(answer).map_err(|error| strange(&error.to_string()))?;
    match (read.result, read.error) {
        (Some(result), None) => Ok(result.to_owned()),
        (None, Some(error)) => Err(Failure::Error(error.to_owned())),
        _ => Err(strange("it has no result and no error")),
    }
}

/// The answer to the request of this id, and nothing else of what comes with it.
pub(super) async fn whole(heard: Heard, id: &str) -> Result<Bytes, Failure> {
    let broken = |why: String| Failure::Broken(why);
    match heard.kind {
        Kind::Events => {
            let mut events = Events::new(heard.body);
            loop {
                let next = events.next().await;
                match next.map_err(|error| broken(error.to_string()))? {
                    Some(message) if wire::is_answer_to(&message, id) => return Ok(message),
                    Some(_) => {}
                    None => return Err(broken("the stream ended without the answer".to_owned())),
                }
            }
        }
        Kind::Json => body(heard).await,
        Kind::Other => Err(broken("the answer is no JSON".to_owned())),
    }
}

/// A body of JSON.
pub(super) async fn body(mut heard: Heard) -> Result<Bytes, Failure> {
    let broken = |why: String| Failure::Broken(why);
    let mut read = BytesMut::new();
    loop {
        let frame = timeout(BRIDGE_SILENCE_MAX, heard.body.frame()).await;
        match frame {
            Err(_) => return Err(broken(format!("silent for {BRIDGE_SILENCE_MAX:?}"))),
            Ok(None) => return Ok(read.freeze()),
            Ok(Some(Err(error))) => return Err(broken(error.to_string())),
            Ok(Some(Ok(frame))) => {
                let data = frame.into_data().unwrap_or_default();
                if read.len() + data.len() > BRIDGE_ANSWER_BYTES_MAX {
                    let why = format!("the answer has more than {BRIDGE_ANSWER_BYTES_MAX} bytes");
                    return Err(broken(why));
                }
                read.extend_from_slice(&data);
            }
        }
    }
}
