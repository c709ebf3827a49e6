//! The command line's half of the admin API: one request, one connection, one bounded answer.

mod lines;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub(super) use lines::Lines;

use super::error::CliError;
use super::socket;
use crate::api::admin::Problem;
use crate::domain::limits;

/// No body.
pub(super) const NOTHING: Option<&()> = None;

/// A client of one admin socket.
#[derive(Debug, Clone)]
pub(super) struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            patience: limits::ADMIN_ANSWER_MAX,
        }
    }

    /// The same for what starts a server first, which may install itself.
    pub(super) fn patient(&self) -> Self {
        Self {
            socket: self.socket.clone(),
            patience: limits::ADMIN_START_ANSWER_MAX,
        }
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.ask(Method::GET, path, NOTHING).await
    }

    /// The same for a command that does nothing else with a server.
    pub(super) fn get_now<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(CliError::Runtime)?;
        runtime.block_on(self.get(path))
    }

    pub(super) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, CliError> {
        self.ask(Method::POST, path, body).await
    }

    pub(super) async fn patch<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, CliError> {
        self.ask(Method::PATCH, path, Some(body)).await
    }

    pub(super) async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, CliError> {
        self.ask(Method::DELETE, path, NOTHING).await
    }

    async fn ask<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, CliError> {
        let strange = |detail: String| CliError::StrangeAnswer {
            asked: format!("{method} {path}"),
            detail,
        };
        let request = request(&method, path, body).map_err(strange)?;
        let (status, bytes) = timeout(self.patience, self.send(request))
            .await
            .map_err(|_| CliError::NoAnswer(self.patience))??;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| strange(e.to_string()));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(CliError::Refused(Box::new(problem))),
            Err(_) => Err(strange(format!(
                "status {status} without a problem document"
            ))),
        }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), CliError> {
        let broke = |error: hyper::Error| CliError::BrokenAnswer(error.to_string());
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(broke)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), limits::ADMIN_ANSWER_BYTES_MAX);
            let whole = body.collect().await.map_err(|error| {
                let why = match error.downcast_ref::<LengthLimitError>() {
                    Some(_) => format!("it has more than {} bytes", limits::ADMIN_ANSWER_BYTES_MAX),
                    None => error.to_string(),
                };
                CliError::BrokenAnswer(why)
            })?;
            Ok((status, whole.to_bytes()))
        };
        // The connection's future moves the bytes; it ends with the exchange.
        tokio::pin!(exchange, connection);
        tokio::select! {
            done = &mut exchange => done,
            ended = &mut connection => match ended {
                Ok(()) => exchange.await,
                Err(error) => Err(broke(error)),
            },
        }
    }

    /// Asks for an answer that comes line by line, and may never end.
    pub(super) async fn stream(&self, path: &str) -> Result<Lines, CliError> {
        let broke = |error: hyper::Error| CliError::BrokenAnswer(error.to_string());
        let strange = |detail: String| CliError::StrangeAnswer {
            asked: format!("GET {path}"),
            detail,
        };
        let request = request(&Method::GET, path, NOTHING).map_err(strange)?;
        let begin = async {
            let stream = self.connect().await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(broke)?;
            let moving = AbortOnDropHandle::new(tokio::spawn(async move {
                // Its end shows in the body.
                _ = connection.await;
            }));
            let answer = sender.send_request(request).await.map_err(broke)?;
            Ok((answer, moving))
        };
        let (answer, moving) = timeout(self.patience, begin)
            .await
            .map_err(|_| CliError::NoAnswer(self.patience))??;
        let status = answer.status();
        if status.is_success() {
            return Ok(Lines::new(answer.into_body(), moving));
        }
        let body = Limited::new(answer.into_body(), limits::ADMIN_BODY_BYTES_MAX);
        let bytes = body
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes);
        match serde_json::from_slice::<Problem>(&bytes.unwrap_or_default()) {
            Ok(problem) => Err(CliError::Refused(Box::new(problem))),
            Err(_) => Err(strange(format!(
                "status {status} without a problem document"
            ))),
        }
    }

    async fn connect(&self) -> Result<UnixStream, CliError> {
        let unreachable = |cause: String| {
            let held = self.socket.parent().and_then(socket::held);
            held.unwrap_or_else(|| CliError::Unreachable {
                socket: self.socket.clone(),
                cause,
            })
        };
        match timeout(limits::ADMIN_CONNECT_MAX, UnixStream::connect(&self.socket)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(match error.kind() {
                io::ErrorKind::PermissionDenied => CliError::SocketDenied(self.socket.clone()),
                io::ErrorKind::NotFound => unreachable("there is no such socket".to_owned()),
                io::ErrorKind::ConnectionRefused => {
                    unreachable("nobody listens (a server that was killed left it)".to_owned())
                }
                _ => unreachable(error.to_string()),
            }),
            Err(_) => Err(unreachable("it does not accept".to_owned())),
        }
    }
}

fn request<B: Serialize>(
    method: &Method,
    path: &str,
    body: Option<&B>,
) -> Result<Request<Full<Bytes>>, String> {
    let bytes = match body {
        Some(body) => serde_json::to_vec(body).map_err(|e| e.to_string())?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "legation")
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(bytes.into()))
        .map_err(|e| e.to_string())
}

/// A path under `/v1` of these segments, each escaped.
pub(super) fn path(segments: &[&str]) -> String {
    let escaped = segments
        .iter()
        .map(|segment| format!("/{}", escape(segment)));
    std::iter::once("/v1".to_owned()).chain(escaped).collect()
}

/// Percent-encodes all but RFC 3986's unreserved characters.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // A dot alone would be a step in the path.
            b'.' if text != "." && text != ".." => out.push('.'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::{Value, json};
    use tokio::net::UnixListener;

    use super::*;

    #[test]
    fn paths_cannot_be_walked() {
        assert_eq!(
            path(&["mcps", "a.b-c", "publish"]),
            "/v1/mcps/a.b-c/publish"
        );
        assert_eq!(
            path(&["isolates", "../x?y#z"]),
            "/v1/isolates/..%2Fx%3Fy%23z"
        );
        assert_eq!(path(&["keys", ".."]), "/v1/keys/%2E%2E");
        assert_eq!(path(&["keys", ""]), "/v1/keys/");
    }

    async fn against(router: Router) -> (tempfile::TempDir, Client) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (folder, Client::new(socket))
    }

    #[tokio::test]
    async fn it_reads_answers_and_problems() {
        let problem = json!({"type": "t", "title": "t", "status": 404, "code": "not_found",
            "number": "E0104", "detail": "no such", "next": "look"});
        let router = Router::new()
            .route("/v1/ok", get(|| async { Json(json!({"a": 1})) }))
            .route("/v1/text", get(|| async { "hello" }))
            .route(
                "/v1/no",
                get(|| async move { (StatusCode::NOT_FOUND, Json(problem)) }),
            );
        let (_folder, client) = against(router).await;
        let value: Value = client.get("/v1/ok").await.unwrap();
        assert_eq!(value["a"], 1);
        let refused = client.get::<Value>("/v1/no").await.unwrap_err();
        assert_eq!((refused.exit().code(), refused.number()), (5, "E0104"));
        for strange in ["/v1/text", "/v1/unknown"] {
            let error = client.get::<Value>(strange).await.unwrap_err();
            assert!(matches!(error, CliError::StrangeAnswer { .. }), "{error:?}");
        }
    }

    #[tokio::test]
    async fn no_server_is_told_from_one_that_hangs_or_floods() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let mut client = Client::new(socket.clone());
        let missing = client.get::<Value>("/v1/x").await.unwrap_err();
        assert_eq!(missing.exit().code(), 3);

        let silent = UnixListener::bind(&socket).unwrap();
        client.patience = Duration::from_millis(50);
        let hung = client.get::<Value>("/v1/x").await.unwrap_err();
        assert_eq!(hung.exit().code(), 7);
        drop(silent);
        let stale = client.get::<Value>("/v1/x").await.unwrap_err();
        assert_eq!(stale.exit().code(), 3);
        assert!(stale.to_string().contains("nobody listens"), "{stale}");

        let large = || async { vec![b' '; limits::ADMIN_ANSWER_BYTES_MAX + 1] };
        let (_folder, client) = against(Router::new().route("/v1/large", get(large))).await;
        let flood = client.get::<Value>("/v1/large").await.unwrap_err();
        assert!(matches!(flood, CliError::BrokenAnswer(_)), "{flood:?}");
    }
}
