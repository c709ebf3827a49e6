//! The launcher of servers that are not started but spoken to over HTTP.
//!
//! A run of one has no process: it has a pair of pipes in memory and one task, the `conductor`, which
//! makes each line that the gateway writes a request, and each answer or event a line back. So the tree
//! treats it as any other run: the same handle carries its calls, the same policy lets it back off, and a
//! kill switch cuts its connections as it kills processes.
//!
//! Invariant: when the exit is told, every connection of the run is closed, but for the one over which a
//! server whose run was killed may still be told that its session is over.

mod client;
mod conductor;
mod exchange;
mod heard;
mod line;
mod listener;
mod messages;
mod modern;
mod parts;
mod paths;
mod refusal;
mod scope;
mod share;
mod tls;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::duplex;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::domain::ids::UserId;
use crate::domain::redact::Redactor;
use crate::domain::remote::Remote;
use crate::domain::verdict::Verdict;

use super::launcher::{Exit, LaunchError, Launched, OnDenied};
use client::Client;
use conductor::Conductor;
use parts::{Ends, Out, Shared};
use scope::RemoteScope;

pub(super) use tls::configure;

/// What is told of a request that provably never was taken: our id of it, and why.
pub type Unsent = Arc<dyn Fn(u64, &Verdict) + Send + Sync>;

/// Bytes of a pipe between the gateway and the conductor.
const PIPE_BYTES: usize = 64 << 10;
/// Lines that wait to be written back.
const LINES_WAITING: usize = 8;
/// Remarks that wait to be written to what stands for stderr.
const REMARKS_WAITING: usize = 16;

/// What is needed to speak to a server.
#[derive(Clone)]
pub struct Dial {
    /// Where it is.
    pub remote: Arc<Remote>,
    /// What every request says, secrets among it.
    pub headers: HeaderMap,
    /// Whom to trust, if it is spoken to over TLS.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Bytes of one message at most.
    pub line_max: usize,
    /// Takes its secrets out of what the server says of a request that failed.
    pub redactor: Option<Arc<Redactor>>,
    /// Told of requests that provably never were taken, before the run ends.
    pub unsent: Unsent,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("url", &self.remote.url.url())
            .finish_non_exhaustive()
    }
}

/// Connects, and hands over what stands for the server's pipes.
pub(super) async fn launch(
    dial: Dial,
    opening: Bytes,
    on_denied: Option<OnDenied>,
    user: Option<&UserId>,
) -> Result<Launched, LaunchError> {
    let began = Instant::now();
    let client = Client::new(&dial, on_denied, user);
    client.warm().await.map_err(LaunchError::Over)?;
    let (stdin, lines_in) = duplex(PIPE_BYTES.max(opening.len()));
    let (lines_out, stdout) = duplex(PIPE_BYTES);
    let (remarks_out, stderr) = duplex(PIPE_BYTES);
    let (lines, waiting) = mpsc::channel(LINES_WAITING);
    let (remarks, remarks_waiting) = mpsc::channel(REMARKS_WAITING);
    let shared = Arc::new(Shared::new(client, &dial));
    let ends = Ends::default();
    let out = Out { lines, remarks };
    let writers = [
        paths::write(waiting, lines_out),
        paths::write(remarks_waiting, remarks_out),
    ];
    let conductor = Conductor::new(Arc::clone(&shared), ends.clone(), out);
    let task = tokio::spawn(conductor.run(opening, lines_in, writers));
    let mut exit = ends.exit.subscribe();
    Ok(Launched {
        pid: None,
        stdin: Box::new(stdin),
        stdout: Box::new(stdout),
        stderr: Box::new(stderr),
        exit: Box::pin(async move {
            match exit.wait_for(Option::is_some).await {
                Ok(exit) => exit.clone(),
                Err(_) => None,
            }
            .unwrap_or_else(|| {
                // The conductor is gone without a word, which only a panic of ours explains.
                let detail = "the connection's task was lost".to_owned();
                Exit::Over(Verdict::Internal { detail })
            })
        }),
        scope: Box::new(RemoteScope::new(shared, ends, task.abort_handle())),
        took: began.elapsed(),
        degraded: Vec::new(),
    })
}
