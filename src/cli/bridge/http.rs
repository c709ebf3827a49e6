//! One request to the server over a connection of its own.
//!
//! A connection that is used again may have been closed meanwhile, and then nobody knows whether the
//! request arrived. With one of its own, what fails before [`Gate`] opens never reached the server.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::bearer::Bearer;
use super::endpoint::{Endpoint, Scheme};
use super::settings::Trust;
use super::trust;
use crate::cli::error::CliError;
use crate::domain::code::Code;
use crate::domain::limits::{BRIDGE_CONNECT_MAX, BRIDGE_REFUSAL_BYTES_MAX};

/// The header that names a session.
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
/// The header that names the version spoken.
pub(super) const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The header that says where a stream goes on.
pub(super) const LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");

/// How a certificate that is not taken is told.
pub(super) const DISTRUSTED: &str = "its certificate is not trusted";
/// How a server without TLS is told, and all else that ends a handshake.
pub(super) const NO_TLS: &str = "TLS failed";

/// Asked once, at the last moment before a request goes out: whether it still may.
pub(super) type Gate<'a> = &'a (dyn Fn() -> bool + Sync);

/// What always may.
pub(super) const OPEN: Gate<'static> = &|| true;

/// A way to one server.
pub(super) struct Http {
    endpoint: Endpoint,
    trust: Trust,
    tls: Option<Mutex<TlsConnector>>,
    headers: HeaderMap,
    bearer: Bearer,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) body: Bytes,
    /// The session and the version.
    pub(super) headers: &'a HeaderMap,
    /// How long the head of the answer may take.
    pub(super) wait: Duration,
}

/// The head of an answer, and its body to be read.
#[derive(Debug)]
pub(super) struct Heard {
    pub(super) status: StatusCode,
    pub(super) session: Option<HeaderValue>,
    pub(super) kind: Kind,
    pub(super) body: Incoming,
    pub(super) moving: AbortOnDropHandle<()>,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Events,
    Other,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Lost {
    /// The server never saw the request.
    #[error("{0}")]
    Unreached(String),
    /// It may have seen it.
    #[error("{0}")]
    Broken(String),
    /// Nobody wants it any more, and it was not sent.
    #[error("no longer wanted")]
    Unwanted,
}

// === impl Http ===

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Http")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Http {
    pub(super) fn new(
        endpoint: Endpoint,
        trust: &Trust,
        key: &SecretString,
        key_file: Option<PathBuf>,
    ) -> Result<Self, CliError> {
        let tls = match endpoint.scheme() {
            Scheme::Https => Some(Mutex::new(trust::connector(trust)?)),
            Scheme::Http => None,
        };
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| CliError::Told {
                code: Code::ConfigInvalid,
                message: "the address or the key cannot be sent as a header".to_owned(),
                next: "check --url and the key".to_owned(),
            })
        };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, value(&endpoint.authority())?);
        // Looked at here, since a key that cannot be sent would be left out of requests.
        value(key.expose_secret())?;
        let bearer = Bearer::new(key, key_file);
        let agent = concat!("legation-bridge/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        Ok(Self {
            endpoint,
            trust: trust.clone(),
            tls,
            headers,
            bearer,
        })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, ask: Ask<'_>, gate: Gate<'_>) -> Result<Heard, Lost> {
        let late = || Lost::Unreached(format!("no connection within {BRIDGE_CONNECT_MAX:?}"));
        let connected = timeout(BRIDGE_CONNECT_MAX, self.connect()).await;
        let (mut sender, moving) = connected.map_err(|_| late())??;
        let wait = ask.wait;
        let request = self.request(ask);
        if !gate() {
            return Err(Lost::Unwanted);
        }
        let answer = match timeout(wait, sender.try_send_request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(mut failed)) => {
                let was_kept = failed.take_message().is_some();
                let why = chain(failed.error());
                return Err(if was_kept {
                    Lost::Unreached(why)
                } else {
                    Lost::Broken(why)
                });
            }
            Err(_) => return Err(Lost::Broken(format!("no answer within {wait:?}"))),
        };
        let kind = answer.headers().get(CONTENT_TYPE).map_or(Kind::Other, kind);
        Ok(Heard {
            status: answer.status(),
            session: answer.headers().get(SESSION).cloned(),
            kind,
            body: answer.into_body(),
            moving,
        })
    }

    fn request(&self, ask: Ask<'_>) -> Request<Full<Bytes>> {
        let accepted = match ask.method {
            Method::GET => "text/event-stream",
            _ => "application/json, text/event-stream",
        };
        let has_body = !ask.body.is_empty();
        let mut request = Request::new(Full::new(ask.body));
        *request.method_mut() = ask.method;
        // Parsed as an address before.
        *request.uri_mut() = self.endpoint.target().parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        headers.extend(self.bearer.header().map(|bearer| (AUTHORIZATION, bearer)));
        headers.extend(ask.headers.clone());
        headers.insert(ACCEPT, HeaderValue::from_static(accepted));
        if has_body {
            let json = HeaderValue::from_static("application/json");
            headers.insert(CONTENT_TYPE, json);
        }
        request
    }

    /// Connects; where the server's certificate is not trusted, once more with what the authorities' file holds now.
    async fn connect(&self) -> Result<Connected, Lost> {
        let first = self.connect_once().await;
        let (Some(tls), Err(Lost::Unreached(why))) = (&self.tls, &first) else {
            return first;
        };
        // A server that is merely away costs no look at the authorities.
        if !why.contains(DISTRUSTED) {
            return first;
        }
        let Ok(anew) = trust::connector(&self.trust) else {
            return first;
        };
        *lock(tls) = anew;
        self.connect_once().await
    }

    async fn connect_once(&self) -> Result<Connected, Lost> {
        let unreached = |why: String| Lost::Unreached(why);
        let place = (self.endpoint.host(), self.endpoint.port());
        let stream = TcpStream::connect(place)
            .await
            .map_err(|error| unreached(error.to_string()))?;
        // Requests are whole when they are sent; a delay helps nobody.
        _ = stream.set_nodelay(true);
        match &self.tls {
            None => handshake(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(self.endpoint.host().to_owned())
                    .map_err(|error| unreached(error.to_string()))?;
                let tls = lock(tls).clone();
                let secured = tls.connect(name, stream).await;
                handshake(secured.map_err(|error| unreached(distrust(&error)))?).await
            }
        }
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

type Connected = (http1::SendRequest<Full<Bytes>>, AbortOnDropHandle<()>);

async fn handshake<S>(stream: S) -> Result<Connected, Lost>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Lost::Unreached(chain(&error)))?;
    let moving = AbortOnDropHandle::new(tokio::spawn(async move {
        // Its end shows in the answer.
        _ = connection.await;
    }));
    Ok((sender, moving))
}

// === impl Heard ===

impl Heard {
    /// The text of an answer that refuses: the message of its JSON-RPC error, or what there is.
    pub(super) async fn refusal(self) -> String {
        let body = Limited::new(self.body, BRIDGE_REFUSAL_BYTES_MAX);
        let read = timeout(BRIDGE_CONNECT_MAX, body.collect()).await;
        let bytes = read.ok().and_then(Result::ok).map(|read| read.to_bytes());
        let text = said(&bytes.unwrap_or_default());
        let number = self.status.as_u16();
        match text.is_empty() {
            true => format!("status {number} without a reason"),
            false => text,
        }
    }

    /// Whether something before the server says that the server is away.
    pub(super) fn is_of_a_proxy(&self) -> bool {
        matches!(self.status.as_u16(), 502..=504) && self.kind != Kind::Json
    }
}

/// What a body says, in our forms: JSON-RPC, flat, or a problem document.
fn said(body: &[u8]) -> String {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let told = json
        .pointer("/error/message")
        .or_else(|| json.get("message"))
        .or_else(|| json.get("detail"));
    match told.and_then(serde_json::Value::as_str) {
        Some(text) => text.to_owned(),
        None => String::from_utf8_lossy(body).chars().take(200).collect(),
    }
}

fn kind(value: &HeaderValue) -> Kind {
    let first = value.as_bytes().split(|byte| *byte == b';').next();
    match first.unwrap_or_default().trim_ascii() {
        b"application/json" => Kind::Json,
        b"text/event-stream" => Kind::Events,
        _ => Kind::Other,
    }
}

/// What to do about a certificate that is not trusted stands with the failure itself.
fn distrust(error: &std::io::Error) -> String {
    let text = error.to_string();
    if !text.contains("certificate") {
        return format!("{NO_TLS}: {text}");
    }
    let next = match text.contains("not valid for") {
        true => "use the address it is for",
        false if text.contains("expired") => "its server needs a new one",
        false => "give it, or its CA's, with --ca-file",
    };
    format!("{DISTRUSTED} ({text}); {next}")
}

/// An error and what is behind it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_read_in_every_form_it_has() {
        for (body, text) in [
            (
                &br#"{"error":{"message":"no such key"}}"#[..],
                "no such key",
            ),
            (br#"{"error":"x","message":"flat"}"#, "flat"),
            (br#"{"detail":"a problem"}"#, "a problem"),
            (b"Bad Gateway", "Bad Gateway"),
            (b"", ""),
        ] {
            assert_eq!(said(body), text);
        }
    }

    #[test]
    fn what_a_body_is_stands_before_its_parameters() {
        for (value, expected) in [
            ("application/json; charset=utf-8", Kind::Json),
            ("text/event-stream", Kind::Events),
            ("text/html", Kind::Other),
        ] {
            assert_eq!(kind(&HeaderValue::from_static(value)), expected);
        }
    }
}
