//! Errors of the admin API: problem documents (RFC 9457) with our stable code and the next step.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, Uri};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::actors::control::ControlError;
use crate::api::error::status;
use crate::domain::code::Code;
use crate::storage::StoreError;

/// The media type of [`Problem`].
const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Seconds after which a request that the store's absence refused is worth another try.
const STORE_RETRY_AFTER: &str = "5";

/// What an error looks like on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where the kind of error is described, relative to the documentation.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// The stable code.
    pub code: String,
    /// The code's number, `E0…`.
    pub number: String,
    /// What failed, with what, and why; `last stderr: …` on lines of its own.
    pub detail: String,
    /// What to do next, best a command.
    pub next: String,
}

/// Why an admin's request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ApiError {
    code: Code,
    detail: String,
    next: Option<String>,
}

// === impl ApiError ===

impl ApiError {
    /// An error with its code's usual next step.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            next: None,
        }
    }

    /// The same with a better next step.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, detail)
    }

    fn problem(self, status: StatusCode) -> Problem {
        let (code, number) = (self.code.as_str(), self.code.number());
        Problem {
            kind: format!("docs/errors.md#{number}"),
            title: code.replace('_', " "),
            status: status.as_u16(),
            code: code.to_owned(),
            number: number.to_owned(),
            detail: self.detail,
            next: self.next.unwrap_or_else(|| self.code.next().to_owned()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = status(self.code);
        let later = (self.code == Code::StoreUnavailable).then_some(STORE_RETRY_AFTER);
        let mut response = (status, Json(self.problem(status))).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = later {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        Self {
            code: error.code,
            detail: error.message,
            next: error.next,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match &error {
            StoreError::NotFound { kind, .. } => {
                let next = listing(kind).map(str::to_owned);
                let code = Code::NotFound;
                let detail = error.to_string();
                Self { code, detail, next }
            }
            StoreError::Conflict { .. } => Self::new(Code::Conflict, error.to_string()),
            // The text names the fault; the driver's own words stay in the log.
            StoreError::Unavailable { .. } | StoreError::Open { .. } => {
                if !error.is_away() {
                    tracing::error!(error = ?error, "the store did not do what an admin asked");
                }
                Self::new(Code::StoreUnavailable, error.to_string())
            }
            StoreError::Corrupt { .. } => Self::new(Code::StoreDamaged, error.to_string()),
            StoreError::Incompatible { .. }
            | StoreError::Held { .. }
            | StoreError::Unfit { .. } => Self::new(error.code(), error.to_string()),
        }
    }
}

/// The command that shows what there is of a kind.
fn listing(kind: &str) -> Option<&'static str> {
    match kind {
        "user" => Some("legation user list"),
        "group" => Some("legation group list"),
        "mcp" => Some("legation mcp list"),
        "key" => Some("legation key list"),
        "subscription" => Some("legation subscription list"),
        "session" => Some("legation session list"),
        _ => None,
    }
}

pub(super) async fn no_such_endpoint(method: Method, uri: Uri) -> ApiError {
    let text = format!("there is no {method} {} on the admin socket", uri.path());
    ApiError::new(Code::NotFound, text)
        .next("check that client and server have the same version: legation status")
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let text = format!("{} does not take {method}", uri.path());
    ApiError::new(Code::MethodNotAllowed, text)
}

/// A JSON body of exactly the wanted form.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(ApiError::new(
                Code::UnsupportedMediaType,
                "the body must be sent as content-type: application/json",
            )),
            Err(rejected) if rejected.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                let text = format!(
                    "the body is larger than {} bytes",
                    super::ADMIN_BODY_BYTES_MAX
                );
                Err(ApiError::new(Code::BodyTooLarge, text))
            }
            Err(rejected) => Err(ApiError::invalid(rejected.body_text())),
        }
    }
}

/// A query of exactly the wanted form.
#[derive(Debug)]
pub(super) struct Asked<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Query::<T>::from_request_parts(parts, state)
            .await
            .map(|Query(asked)| Self(asked))
            .map_err(|rejected: QueryRejection| ApiError::invalid(rejected.body_text()))
    }
}
