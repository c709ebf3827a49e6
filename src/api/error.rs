//! The only place that knows HTTP statuses.
//!
//! An error body is flat, as the standard client expects it:
//! `{"error": "<code>", "message": "<text>"}`, with `retry_after` seconds (and the header of the
//! same meaning) where it is known.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};

use crate::actors::front::Refusal;
use crate::domain::code::Code;

/// Why a request gets no answer of the kind it asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    code: Code,
    message: String,
    retry_after: Option<Duration>,
}

// === impl Error ===

impl Error {
    /// An error with a stable code and a text that says what to do.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// A request we cannot read.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, message)
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            code,
            message,
            retry_after,
        } = refusal;
        Self {
            code,
            message,
            retry_after,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        flat(&self)
    }
}

/// The status a code has when it ends a request. (A tool call that fails is a `200` for the
/// standard client, whatever its code.)
#[must_use]
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest
        | Code::Usage
        | Code::ConfigInvalid
        | Code::ArgumentsInvalid
        | Code::ResourceUnclear => StatusCode::BAD_REQUEST,
        Code::Unauthorized
        | Code::OpsUnauthorized
        | Code::SessionExpired
        | Code::SessionSuspended
        | Code::KeyUnknown => StatusCode::UNAUTHORIZED,
        Code::Denied
        | Code::NotSubscribed
        | Code::McpDisabled
        | Code::UserDisabled
        | Code::KillSwitchActive => StatusCode::FORBIDDEN,
        Code::NotFound | Code::ToolUnknown => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        // The caller of a cancelled call went away: only logs show its status.
        Code::RequestTimeout | Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::Conflict
        | Code::PortTaken
        | Code::LockHeld
        | Code::StoreHeld
        | Code::KillSwitchesMax => StatusCode::CONFLICT,
        Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        // The request was understood; what it names cannot be run.
        Code::CommandNotFound | Code::SandboxRefused | Code::CredentialMissing => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::RateLimited | Code::SessionsMax | Code::IsolatesMax | Code::TasksMax => {
            StatusCode::TOO_MANY_REQUESTS
        }
        Code::HostFull => StatusCode::SERVICE_UNAVAILABLE,
        // `partly_done` names what failed; a 2xx would hide it from scripts.
        Code::Internal
        | Code::StoreDamaged
        | Code::StoreIncompatible
        | Code::KillJournalDamaged
        | Code::StoreUnfit
        | Code::StoreLost
        | Code::Stuck
        | Code::PartlyDone
        | Code::OutputFailed
        | Code::StartFailed
        | Code::TreeGaveUp
        | Code::AuditBroken
        | Code::AuditUnreadable
        | Code::Declined => StatusCode::INTERNAL_SERVER_ERROR,
        Code::ServerError
        | Code::Unanswered
        | Code::RunEnded
        | Code::OutOfMemory
        | Code::ResultTooLarge
        | Code::DiscoverFailed
        | Code::HandshakeFailed
        | Code::InstallFailed
        | Code::ListCut
        | Code::AnswerUnreadable => StatusCode::BAD_GATEWAY,
        Code::Starting
        | Code::BackingOff
        | Code::Quarantined
        | Code::Busy
        | Code::ShuttingDown
        | Code::StoreUnavailable
        | Code::KillJournalUnavailable
        | Code::AuditUnavailable
        | Code::VaultUnavailable
        | Code::ScrapeBusy
        | Code::DaemonUnreachable => StatusCode::SERVICE_UNAVAILABLE,
        Code::CallTimeout | Code::NoAnswer | Code::ListLate => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// The answer to a path that exists, with a method it does not have. (The `Allow` header is added
/// by the router.)
pub async fn method_not_allowed() -> Response {
    let text = "this path does not have that method; the Allow header says which it has";
    Error::new(Code::MethodNotAllowed, text).into_response()
}

/// A JSON answer that nobody may cache.
#[must_use]
pub fn json(status: StatusCode, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    // Writing a string into a growing buffer cannot fail.
    let _ = serde_json::to_writer(out.writer(), text);
}

/// Appends a number.
pub(crate) fn put_number(out: &mut BytesMut, number: u64) {
    let _ = serde_json::to_writer(out.writer(), &number);
}

/// Whole milliseconds, as all machine fields have them.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn flat(error: &Error) -> Response {
    let (code, message) = (error.code.as_str(), error.message.as_str());
    // Rounded up, and never 0: a client that waits that long is not early.
    let seconds = error
        .retry_after
        .map(|wait| millis(wait).div_ceil(1000).max(1));
    let mut out = BytesMut::with_capacity(64 + code.len() + message.len());
    out.put_slice(b"{\"error\":");
    put_string(&mut out, code);
    out.put_slice(b",\"message\":");
    put_string(&mut out, message);
    if let Some(seconds) = seconds {
        out.put_slice(b",\"retry_after\":");
        put_number(&mut out, seconds);
    }
    out.put_u8(b'}');
    let mut response = json(status(error.code), out.freeze());
    if let Some(seconds) = seconds {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn errors_are_flat_and_say_when_to_come_back() {
        let response = Error::from(Refusal {
            code: Code::RateLimited,
            message: "too many \"failures\"".into(),
            retry_after: Some(Duration::from_millis(1_001)),
        })
        .into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(
            body(response).await,
            r#"{"error":"rate_limited","message":"too many \"failures\"","retry_after":2}"#
        );
    }

    #[tokio::test]
    async fn without_a_time_there_is_no_retry_after() {
        let response = Error::invalid("no").into_response();
        assert_eq!(response.status(), 400);
        assert!(response.headers().get("retry-after").is_none());
        assert_eq!(
            body(response).await,
            r#"{"error":"invalid_request","message":"no"}"#
        );
    }

    #[test]
    fn the_codes_the_standard_client_knows_are_401() {
        for code in [
            Code::Unauthorized,
            Code::SessionExpired,
            Code::SessionSuspended,
        ] {
            assert_eq!(status(code), 401);
        }
        assert_eq!(status(Code::KeyUnknown), 401);
        assert!(Code::ALL.iter().all(|code| status(*code).as_u16() >= 400));
        assert_eq!(status(Code::BodyTooLarge), 413);
        assert_eq!(status(Code::UnsupportedMediaType), 415);
    }
}
