//! The three pumps of a run: frames to stdin, lines from stdout, lines from stderr.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};

use crate::domain::limits::{
    HALF_CLOSED_MAX, REQUEST_ID_BYTES_MAX, STDERR_LINE_BYTES_MAX, WRITER_QUEUE_MAX,
};
use crate::domain::verdict::Verdict;
use crate::protocol::envelope::{self, Incoming};
use crate::protocol::frame::{FrameError, Lines};

use super::super::calls::{News, Progress};
use super::super::ears::Told;
use super::super::handle::{Frame, Reply};
use super::super::record::RunRecord;
use super::super::slot::{Occupant, Order};

/// Frames that are joined into one write.
const JOIN_BYTES_MAX: usize = 64 << 10;

/// Writes frames until the queue or the pipe ends. Frames whose caller has left are skipped, so a
/// call that timed out while it waited never runs.
pub(super) async fn write(
    mut stdin: Box<dyn AsyncWrite + Send + Unpin>,
    mut frames: mpsc::Receiver<Frame>,
    occupant: Occupant,
) {
    let handle = &occupant.handle;
    let mut batch: Vec<Frame> = Vec::new();
    let mut joined = BytesMut::new();
    loop {
        if frames.recv_many(&mut batch, WRITER_QUEUE_MAX).await == 0 {
            return;
        }
        // One turn for others that are on their way saves a write and a wake-up for each; whoever
        // is alone gets the turn back at once.
        tokio::task::yield_now().await;
        while batch.len() < WRITER_QUEUE_MAX
            && let Ok(frame) = frames.try_recv()
        {
            batch.push(frame);
        }
        let mut failed = false;
        for frame in batch.drain(..) {
            handle.written(frame.line.len());
            if failed || !handle.wants(&frame) {
                continue;
            }
            if joined.len() + frame.line.len() > JOIN_BYTES_MAX && !joined.is_empty() {
                failed = stdin.write_all(&joined).await.is_err();
                joined.clear();
            }
            if frame.line.len() > JOIN_BYTES_MAX {
                failed = failed || stdin.write_all(&frame.line).await.is_err();
            } else {
                joined.extend_from_slice(&frame.line);
            }
        }
        failed = failed || stdin.write_all(&joined).await.is_err() || stdin.flush().await.is_err();
        joined.clear();
        if joined.capacity() > JOIN_BYTES_MAX / 8 {
            joined = BytesMut::new();
        }
        if failed {
            // It died, and the warden ends this task; or it closed stdin and lives on.
            tokio::time::sleep(HALF_CLOSED_MAX).await;
            let detail = "it closed stdin and lived on".to_owned();
            occupant.order(Order::Fault(Verdict::Protocol { detail }));
            return;
        }
    }
}

/// Reads answers until stdout ends, then says so. A line over the cap ends the run.
pub(super) async fn read(
    stdout: Box<dyn AsyncRead + Send + Unpin>,
    line_max: usize,
    occupant: Occupant,
    done: oneshot::Sender<()>,
) {
    let mut lines = Lines::new(stdout, line_max);
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                if take(&occupant, line) {
                    occupant.handle.catch_up().await;
                }
            }
            Ok(None) | Err(FrameError::Io(_)) => break,
            Err(error @ FrameError::TooLong { .. }) => {
                occupant.order(Order::Fault(Verdict::Protocol {
                    detail: error.to_string(),
                }));
                break;
            }
        }
    }
    // Nobody listens if the run is being ended for another reason.
    let _ = done.send(());
}

/// Takes a line; gives whether its server wants an answer.
fn take(occupant: &Occupant, line: bytes::Bytes) -> bool {
    let handle = &occupant.handle;
    let record = &occupant.record;
    handle.heard();
    match envelope::parse(&line) {
        Some(Incoming::Response { id, kind, body }) => {
            let modern = handle.is_modern();
            let reply = Reply {
                line,
                kind,
                body,
                modern,
            };
            if !handle.deliver(id, reply) {
                record.learn(|facts| facts.strays += 1);
            }
        }
        // An id that long is no id: we would only echo the server's own flood.
        Some(Incoming::Request { id, .. }) if id.len() > REQUEST_ID_BYTES_MAX => {
            handle.noisy(&line, &record.keep_noise(&line));
        }
        Some(Incoming::Request { id, method }) => {
            record.learn(|facts| facts.asked += 1);
            if method == "ping" {
                handle.post(envelope::empty_result(id));
            } else {
                handle.asked(id, &method, &line);
            }
            return true;
        }
        Some(Incoming::Notification { method }) if method == "notifications/progress" => {
            if let Some((id, token)) = envelope::progress_token(&line) {
                handle.news(id, News::Progress(Progress { line, token }));
            }
        }
        Some(Incoming::Notification { method }) if method == "notifications/message" => {
            handle.logged(line);
        }
        Some(Incoming::Notification { method }) if method == "notifications/tools/list_changed" => {
            handle.tells_of_tools();
        }
        Some(Incoming::Notification { method })
            if method == "notifications/resources/list_changed" =>
        {
            handle.tells(&Told::Resources);
        }
        Some(Incoming::Notification { method })
            if method == "notifications/prompts/list_changed" =>
        {
            handle.tells(&Told::Prompts);
        }
        Some(Incoming::Notification { method })
            if method == "notifications/elicitation/complete" =>
        {
            handle.tells(&Told::Elicited(line));
        }
        Some(Incoming::Notification { method }) if method == "notifications/resources/updated" => {
            handle.updated(line);
        }
        Some(Incoming::Notification { method }) if method == "notifications/tasks/status" => {
            handle.task_stands(&line);
        }
        Some(Incoming::Notification { method }) if method == "notifications/cancelled" => {
            handle.withdraw(&line);
        }
        Some(Incoming::Notification { method })
            if method == "notifications/subscriptions/acknowledged" =>
        {
            handle.listens(&line);
        }
        Some(Incoming::Notification { .. }) => {}
        Some(Incoming::Stray) => record.learn(|facts| facts.strays += 1),
        None if line.is_empty() => {}
        None => handle.noisy(&line, &record.keep_noise(&line)),
    }
    false
}

/// Keeps the last of stderr until it ends, then says so. Never waits for anything but the pipe, so a server that floods it is
/// neither blocked nor believed; overlong lines are cut.
pub(super) async fn keep_stderr(
    mut stderr: Box<dyn AsyncRead + Send + Unpin>,
    record: Arc<RunRecord>,
    done: oneshot::Sender<()>,
) {
    let mut chunk = [0u8; 1024];
    let mut line: Vec<u8> = Vec::new();
    while let Ok(read) = stderr.read(&mut chunk).await {
        if read == 0 {
            break;
        }
        for part in chunk
            .get(..read)
            .unwrap_or_default()
            .split_inclusive(|byte| *byte == b'\n')
        {
            let room = STDERR_LINE_BYTES_MAX.saturating_sub(line.len());
            let kept = part.get(..room.min(part.len())).unwrap_or_default();
            line.extend_from_slice(kept);
            record.stderr.dropped((part.len() - kept.len()) as u64);
            if part.ends_with(b"\n") {
                while matches!(line.last(), Some(b'\n' | b'\r')) {
                    line.pop();
                }
                record.keep_stderr(&line);
                line = Vec::new();
            }
        }
    }
    if !line.is_empty() {
        record.keep_stderr(&line);
    }
    // Nobody listens if the run is being ended for another reason.
    let _ = done.send(());
}
