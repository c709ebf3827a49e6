//! What the gateway is compared with: a bare axum POST, and the bare hop, which is the least that
//! carries a call from HTTP to a child's stdio: parse the envelope, change the id, write a line,
//! find the waiting caller by the id of the answer. No authentication, supervision, limits,
//! deadline or audit.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::serve::ListenerExt;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{ChildStdin, ChildStdout, Command};
use tokio::sync::{OnceCell, mpsc, oneshot};

const QUEUE: usize = 1024;
const INITIALIZE: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"hop","version":"0"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
"#;

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    method: &'a str,
    #[serde(borrow)]
    params: &'a RawValue,
}

#[derive(Deserialize)]
struct Answer<'a> {
    id: u64,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// A child and who waits for what from it.
struct Line {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Vec<u8>>>>,
    queue: mpsc::Sender<Vec<u8>>,
}

struct Hop {
    program: PathBuf,
    shared: bool,
    lines: Mutex<HashMap<String, Arc<OnceCell<Arc<Line>>>>>,
}

/// Serves the bare POST: the same parsing and the same answer, without a child.
pub(crate) async fn floor() -> Result<()> {
    serve(Router::new().route("/mcp", post(floor_call))).await
}

/// Serves the bare hop; one child of `program` for each session, or one for all.
pub(crate) async fn hop(program: PathBuf, shared: bool) -> Result<()> {
    let hop = Arc::new(Hop {
        program,
        shared,
        lines: Mutex::default(),
    });
    serve(Router::new().route("/mcp", post(hop_call)).with_state(hop)).await
}

async fn serve(router: Router) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    super::target::announce(listener.local_addr()?)?;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    axum::serve(listener, router).await?;
    Ok(())
}

fn reply(id: &RawValue, member: &str, value: &str) -> Response {
    let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{value}}}"#);
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn floor_call(body: Bytes) -> Response {
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        arguments: HashMap<&'a str, &'a RawValue>,
    }
    let Ok(request) = serde_json::from_slice::<Request<'_>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let Ok(params) = serde_json::from_str::<Params<'_>>(request.params.get()) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let text = params
        .arguments
        .get("text")
        .map_or("null", |text| text.get());
    let result = format!(r#"{{"content":[{{"type":"text","text":{text}}}],"isError":false}}"#);
    reply(request.id, "result", &result)
}

async fn hop_call(State(hop): State<Arc<Hop>>, headers: HeaderMap, body: Bytes) -> Response {
    let Ok(request) = serde_json::from_slice::<Request<'_>>(&body) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let session = headers.get("x-session").and_then(|name| name.to_str().ok());
    let session = if hop.shared {
        ""
    } else {
        session.unwrap_or("")
    };
    let Ok(line) = hop.line(session).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let Some(answer) = line.call(&request).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let Ok(answer) = serde_json::from_slice::<Answer<'_>>(&answer) else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    match (answer.result, answer.error) {
        (Some(result), _) => reply(request.id, "result", result.get()),
        (None, error) => reply(request.id, "error", error.map_or("null", RawValue::get)),
    }
}

impl Hop {
    async fn line(&self, session: &str) -> Result<Arc<Line>> {
        let cell = {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            match lines.get(session) {
                Some(cell) => Arc::clone(cell),
                None => Arc::clone(lines.entry(session.to_owned()).or_default()),
            }
        };
        let line = cell.get_or_try_init(|| Line::start(&self.program)).await?;
        Ok(Arc::clone(line))
    }
}

impl Line {
    async fn start(program: &PathBuf) -> Result<Arc<Self>> {
        let mut child = Command::new(program)
            .args(["demo-mcp", "--echo"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        stdin.write_all(INITIALIZE).await?;
        stdout.read_until(b'\n', &mut Vec::new()).await?;
        let (queue, queued) = mpsc::channel(QUEUE);
        let line = Arc::new(Self {
            next: AtomicU64::new(1),
            waiting: Mutex::default(),
            queue,
        });
        tokio::spawn(write(queued, stdin));
        let reading = Arc::clone(&line);
        tokio::spawn(async move {
            reading.read(stdout).await;
            drop(child);
            reading
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clear();
        });
        Ok(line)
    }

    async fn call(&self, request: &Request<'_>) -> Option<Vec<u8>> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, answered);
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{}\",\"params\":{}}}\n",
            request.method,
            request.params.get()
        );
        self.queue.send(line.into_bytes()).await.ok()?;
        answer.await.ok()
    }

    async fn read(&self, mut stdout: BufReader<ChildStdout>) {
        let mut line = Vec::new();
        while matches!(stdout.read_until(b'\n', &mut line).await, Ok(1..)) {
            let Ok(Answer { id, .. }) = serde_json::from_slice(&line) else {
                break;
            };
            if let Some(answered) = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id)
            {
                let _ = answered.send(std::mem::take(&mut line));
            }
            line.clear();
        }
    }
}

async fn write(mut queued: mpsc::Receiver<Vec<u8>>, mut stdin: ChildStdin) {
    let mut batch = Vec::new();
    let mut bytes = Vec::new();
    while queued.recv_many(&mut batch, 64).await > 0 {
        bytes.clear();
        for line in batch.drain(..) {
            bytes.extend_from_slice(&line);
        }
        if stdin.write_all(&bytes).await.is_err() {
            break;
        }
    }
}
