//! Answers as they are for the newer transport, told on the connection of the older one: one event each, or the events
//! that they are already.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt as _;
use tokio::sync::{MutexGuard, mpsc};

use super::lines::{Line, put};
use crate::api::mcp::events::{BEGINS, ENDS, on_one_line};

type Turn<'a> = MutexGuard<'a, mpsc::Sender<Bytes>>;

impl Line {
    /// Tells an answer, piece by piece; `None` if nobody reads.
    pub(super) async fn pass_on(&self, response: Response, turn: Option<Turn<'_>>) -> Option<()> {
        let kind = response.headers().get(CONTENT_TYPE);
        let is_stream = kind.is_some_and(|kind| kind == "text/event-stream");
        let body = response.into_body();
        match is_stream {
            true => {
                drop(turn);
                self.events(body).await
            }
            false => self.whole(body, turn).await,
        }
    }

    /// One message; an empty one is none.
    async fn whole(&self, mut body: Body, turn: Option<Turn<'_>>) -> Option<()> {
        let Some(first) = next(&mut body).await else {
            return Some(());
        };
        let turn = match turn {
            Some(turn) => turn,
            None => self.turn().await,
        };
        put(&turn, Bytes::from_static(BEGINS)).await?;
        put(&turn, on_one_line(first)).await?;
        while let Some(more) = next(&mut body).await {
            put(&turn, on_one_line(more)).await?;
        }
        put(&turn, Bytes::from_static(ENDS)).await
    }

    /// The events of a stream. Others may tell something between two of them, and not within one.
    async fn events(&self, mut body: Body) -> Option<()> {
        while let Some(mut part) = next(&mut body).await {
            let turn = self.turn().await;
            loop {
                let ends = part.ends_with(ENDS);
                put(&turn, part).await?;
                if ends {
                    break;
                }
                match next(&mut body).await {
                    Some(more) => part = more,
                    None => return Some(()),
                }
            }
        }
        Some(())
    }
}

/// The next piece of a body that has something in it.
async fn next(body: &mut Body) -> Option<Bytes> {
    loop {
        let piece = body.frame().await?.ok()?.into_data().ok()?;
        if !piece.is_empty() {
            return Some(piece);
        }
    }
}
