//! Lines for the AI tool: one writer, a bounded queue before it.

use bytes::Bytes;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::wire;
use crate::domain::limits::BRIDGE_LINES_MAX;

/// Where messages for the AI tool go.
#[derive(Debug, Clone)]
pub(super) struct Output(mpsc::Sender<Bytes>);

impl Output {
    /// A writer to stdout; `gone` is cancelled when nobody reads it any more. The task ends when the
    /// last [`Output`] does.
    pub(super) fn start(gone: CancellationToken) -> (Self, JoinHandle<()>) {
        let (send, mut queue) = mpsc::channel::<Bytes>(BRIDGE_LINES_MAX);
        let task = tokio::spawn(async move {
            let mut stdout = BufWriter::new(tokio::io::stdout());
            while let Some(message) = queue.recv().await {
                let mut written = stdout.write_all(&message).await;
                if written.is_ok() {
                    written = stdout.write_all(b"\n").await;
                }
                if written.is_ok() && queue.is_empty() {
                    written = stdout.flush().await;
                }
                if let Err(error) = written {
                    tracing::info!(%error, "the AI tool reads no more");
                    gone.cancel();
                    return;
                }
            }
            _ = stdout.flush().await;
        });
        (Self(send), task)
    }

    /// Writes one message. Waits while the AI tool does not read.
    pub(super) async fn write(&self, message: Bytes) {
        // Nobody reads: the writer has said so.
        _ = self.0.send(wire::line(message)).await;
    }
}
