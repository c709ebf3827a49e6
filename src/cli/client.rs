//! The command line's half of the admin API: one request, one connection, one bounded answer.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use super::error::CliError;
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

    /// Opens a stream of JSON lines. `quiet_max` is how long the server may say nothing.
    pub(super) async fn open(&self, path: &str, quiet_max: Duration) -> Result<Stream, CliError> {
        let asked = format!("GET {path}");
        let broke = |error: hyper::Error| CliError::BrokenAnswer(error.to_string());
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broke)?;
        let moving = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = request(&Method::GET, path, NOTHING).map_err(|detail| {
            let asked = asked.clone();
            CliError::StrangeAnswer { asked, detail }
        })?;
        let answer = timeout(self.patience, sender.send_request(request));
        let answer = answer
            .await
            .map_err(|_| CliError::NoAnswer(self.patience))?;
        let answer = answer.map_err(broke)?;
        let mut stream = Stream {
            asked,
            quiet_max,
            heard: Instant::now(),
            status: answer.status(),
            body: answer.into_body(),
            lines: Lines::default(),
            _moving: moving,
        };
        if stream.status.is_success() {
            return Ok(stream);
        }
        while stream.more().await? {}
        match serde_json::from_slice::<Problem>(&stream.lines.bytes) {
            Ok(problem) => Err(CliError::Refused(Box::new(problem))),
            Err(_) => {
                let detail = format!("status {} without a problem document", stream.status);
                Err(stream.strange(detail))
            }
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

    async fn connect(&self) -> Result<UnixStream, CliError> {
        let unreachable = |cause: String| CliError::Unreachable {
            socket: self.socket.clone(),
            cause,
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

/// An open stream of JSON lines.
#[derive(Debug)]
pub(super) struct Stream {
    asked: String,
    quiet_max: Duration,
    heard: Instant,
    status: StatusCode,
    body: Incoming,
    lines: Lines,
    /// Moves the bytes; ends with this.
    _moving: AbortOnDropHandle<hyper::Result<()>>,
}

impl Stream {
    /// The next line; `None` at the end. Dropping the future loses nothing.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, CliError> {
        loop {
            if let Some(line) = self.lines.next() {
                let item = serde_json::from_slice(&line);
                return item.map(Some).map_err(|e| self.strange(e.to_string()));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    async fn more(&mut self) -> Result<bool, CliError> {
        let frame = timeout_at(self.heard + self.quiet_max, self.body.frame()).await;
        let frame = frame.map_err(|_| CliError::NoAnswer(self.quiet_max))?;
        self.heard = Instant::now();
        let Some(frame) = frame else { return Ok(false) };
        let frame = frame.map_err(|error| CliError::BrokenAnswer(error.to_string()))?;
        if let Ok(bytes) = frame.into_data() {
            self.lines.push(&bytes)?;
        }
        Ok(true)
    }

    fn strange(&self, detail: String) -> CliError {
        let asked = self.asked.clone();
        CliError::StrangeAnswer { asked, detail }
    }
}

/// Bytes as they come, lines as they are whole; a line is bounded as an answer is.
#[derive(Debug, Default)]
struct Lines {
    bytes: BytesMut,
    /// How far there is no line break.
    seen: usize,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Result<(), CliError> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > limits::ADMIN_ANSWER_BYTES_MAX {
            let most = limits::ADMIN_ANSWER_BYTES_MAX;
            let why = format!("a line of it has more than {most} bytes");
            return Err(CliError::BrokenAnswer(why));
        }
        Ok(())
    }

    fn next(&mut self) -> Option<BytesMut> {
        let unseen = self.bytes.get(self.seen..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', unseen) else {
            self.seen = self.bytes.len();
            return None;
        };
        let line = self.bytes.split_to(self.seen + at + 1);
        self.seen = 0;
        Some(line)
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

    #[test]
    fn lines_are_whole_however_they_come() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for piece in [&b"{\"a\":1}\n{\"a\""[..], b":2", b"}", b"\n\n", b"rest"] {
            lines.push(piece).unwrap();
            while let Some(line) = lines.next() {
                got.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        assert_eq!(got, ["{\"a\":1}\n", "{\"a\":2}\n", "\n"]);
        assert_eq!(&lines.bytes[..], b"rest");
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
