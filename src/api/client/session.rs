//! `POST /v1/sessions/heartbeat` and `DELETE /v1/sessions/connections/{id}`: staying and leaving.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::Deserialize;

use super::{Shared, body};
use crate::api::error::{Error, json, put_string};
use crate::api::stamp::rfc3339;
use crate::domain::account::Millis;
use crate::domain::limits::SMALL_BODY_BYTES_MAX;

const CONNECTIONS: &str = "/v1/sessions/connections/";

/// A heartbeat says nothing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Beat {}

pub(super) async fn heartbeat(State(shared): State<Shared>, request: Request) -> Response {
    match beaten(&shared, request).await {
        Ok(expires_at) => json(StatusCode::OK, render_beat(expires_at)),
        Err(error) => error.into_response(),
    }
}

async fn beaten(shared: &Shared, mut request: Request) -> Result<Millis, Error> {
    let session = shared.authenticate_post(&mut request).await?;
    let bytes = body::read(request.body_mut(), SMALL_BODY_BYTES_MAX).await?;
    if !bytes.is_empty() {
        let Beat {} = body::parse(&bytes)?;
    }
    Ok(shared.front().heartbeat(&session))
}

/// Leaving twice, or a connection that was never there, is left.
pub(super) async fn disconnect(State(shared): State<Shared>, request: Request) -> Response {
    match shared.authenticate(&request) {
        Ok(session) => {
            let path = request.uri().path();
            let connection = path.strip_prefix(CONNECTIONS).unwrap_or_default();
            shared.front().disconnect(&session, connection);
            json(StatusCode::OK, render_left(connection))
        }
        Err(error) => error.into_response(),
    }
}

fn render_beat(expires_at: Millis) -> Bytes {
    let mut out = BytesMut::with_capacity(96);
    out.put_slice(b"{\"status\":\"ok\",\"session_status\":\"active\",\"expires_at\":\"");
    out.put_slice(&rfc3339(expires_at));
    out.put_slice(b"\"}");
    out.freeze()
}

fn render_left(connection: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(96);
    out.put_slice(b"{\"status\":\"disconnected\",\"connection_id\":");
    put_string(&mut out, connection);
    out.put_u8(b'}');
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_json() {
        assert_eq!(
            render_beat(1_000),
            r#"{"status":"ok","session_status":"active","expires_at":"1970-01-01T00:00:01.000Z"}"#
        );
        assert_eq!(
            render_left("con_1\""),
            r#"{"status":"disconnected","connection_id":"con_1\""}"#
        );
    }
}
