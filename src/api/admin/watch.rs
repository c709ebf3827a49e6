//! `GET /v1/watch`: the live tree as JSON lines; `GET /v1/actors/{id}`: one actor with its past.
//!
//! A line of the stream is one `News`: a snapshot first, then changes with growing numbers. The
//! answer ends when the server stops, when the reader goes, or when it reads nothing for
//! `FOLLOW_STALL_MAX`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http_body_util::channel::{Channel, Sender};
use tokio::time::timeout;

use super::{Admin, ApiError, Shared};
use crate::actors::control::{Control, Follower};
use crate::actors::views::TreeNode;
use crate::domain::limits::FOLLOW_STALL_MAX;

/// Lines on their way to one reader.
const LINES_AHEAD: usize = 4;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/watch", get(watch))
        .route("/v1/actors/{id}", get(actor))
}

async fn actor(
    _: Admin,
    State(control): State<Control>,
    Path(id): Path<String>,
) -> Result<Json<TreeNode>, ApiError> {
    Ok(Json(control.actor(&id)?))
}

async fn watch(_: Admin, State(control): State<Control>) -> Result<Response, ApiError> {
    let follower = control.follow()?;
    let (lines, body) = Channel::<Bytes>::new(LINES_AHEAD);
    tokio::spawn(tell(follower, lines));
    let head = [
        (CONTENT_TYPE, "application/x-ndjson"),
        (CACHE_CONTROL, "no-store"),
    ];
    Ok((head, Body::new(body)).into_response())
}

/// Ends with the reader: a line that finds nobody is an error, and a beat comes soon.
async fn tell(mut follower: Follower, mut lines: Sender<Bytes>) {
    while let Some(news) = follower.next().await {
        let mut line = match serde_json::to_vec(&news) {
            Ok(line) => line,
            Err(error) => {
                tracing::error!("a line of the live tree cannot be written: {error}");
                return;
            }
        };
        line.push(b'\n');
        match timeout(FOLLOW_STALL_MAX, lines.send_data(line.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("a follower of the tree reads nothing; it is let go");
                return;
            }
        }
    }
}
