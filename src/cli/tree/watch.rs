//! `legation tree --watch`: a living picture on a terminal, a line for each change elsewhere, the
//! stream itself as JSON.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::super::Desk;
use super::super::client::Lines;
use super::super::error::{CliError, Done, Exit};
use super::super::output::Out;
use super::super::table::Style;
use super::super::units::age;
use super::picture::Picture;
use super::{draw, prune};
use crate::actors::control::News;
use crate::domain::limits::FOLLOW_BEAT;

/// Between two drawings.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Before a server that went away is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A server that misses so many beats is gone.
const BEATS_MISSED: u32 = 3;
/// Cursor home, clear what is below: less flicker than clearing first.
const REDRAW: &str = "\x1b[H\x1b[J";

pub(super) async fn run(depth: usize, mut desk: Desk) -> Done {
    let living = desk.out.on_terminal() && !desk.out.is_json();
    let mut met = false;
    loop {
        let opened = desk.client.stream("/v1/watch").await.map(Stream::new);
        let followed = match opened {
            Ok(stream) if living => picture(stream, depth, &mut desk.out, &mut met).await,
            Ok(stream) => return lines(stream, &mut desk.out).await,
            Err(error) => Err(error),
        };
        match followed {
            Err(error) if !met || !passes(&error) => return Err(error),
            Ok(()) | Err(_) => {
                desk.out
                    .styled("the server is gone; waiting for it", Style::Warn)?;
                sleep(AGAIN).await;
            }
        }
    }
}

/// The news as they come.
struct Stream {
    lines: Lines,
    heard: Instant,
}

impl Stream {
    fn new(lines: Lines) -> Self {
        let heard = Instant::now();
        Self { lines, heard }
    }

    /// The next news; `None` at the end. Dropping the future loses nothing.
    async fn next(&mut self) -> Result<Option<News>, CliError> {
        let quiet = FOLLOW_BEAT * BEATS_MISSED;
        let line = timeout_at(self.heard + quiet, self.lines.next()).await;
        let line = line.map_err(|_| CliError::NoAnswer(quiet))??;
        self.heard = Instant::now();
        let news = line.map(|line| serde_json::from_slice(&line)).transpose();
        news.map_err(|error| CliError::StrangeAnswer {
            asked: "GET /v1/watch".to_owned(),
            detail: error.to_string(),
        })
    }
}

/// Whether a server that was there may come back.
fn passes(error: &CliError) -> bool {
    let cut_off = matches!(error, CliError::NoAnswer(_) | CliError::BrokenAnswer(_));
    cut_off || error.is_no_server()
}

async fn picture(
    mut stream: Stream,
    depth: usize,
    out: &mut Out,
    met: &mut bool,
) -> Result<(), CliError> {
    let mut picture = Picture::default();
    let mut at = Instant::now();
    let mut draw_at = at;
    loop {
        let news = tokio::select! {
            biased;
            () = tokio::time::sleep_until(draw_at), if *met => None,
            news = stream.next() => match news? {
                None | Some(News::End { .. }) => return Ok(()),
                news => news,
            },
        };
        let passed = at.elapsed();
        at += passed;
        picture.advance(u64::try_from(passed.as_millis()).unwrap_or(0));
        match news {
            Some(news) => {
                // The first picture at once, then at a pace that can be read.
                let first = matches!(news, News::Snapshot { .. });
                picture.put(news);
                *met = true;
                if first {
                    draw_at = at;
                }
            }
            None => {
                redraw(&picture, depth, out)?;
                draw_at = at + DRAW_EVERY;
            }
        }
    }
}

fn redraw(picture: &Picture, depth: usize, out: &mut Out) -> Result<(), CliError> {
    let status = &picture.status;
    let mut tree = picture.tree.clone();
    prune(&mut tree, depth);
    let counts: Vec<_> = status
        .isolates
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let head = format!(
        "legation {}, up {}, {} sessions, {} calls ({} failed), isolates: {}; change {}",
        status.version,
        age(status.up_ms),
        status.sessions,
        status.calls_total,
        status.calls_failed_total,
        if counts.is_empty() {
            "none".to_owned()
        } else {
            counts.join(", ")
        },
        picture.seq,
    );
    out.raw(REDRAW)?;
    out.styled(&head, Style::Bold)?;
    for reason in status.degraded() {
        out.styled(&format!("degraded: {reason}"), Style::Warn)?;
    }
    let wide = out.wide();
    out.table(&draw(&tree, wide))
}

async fn lines(mut stream: Stream, out: &mut Out) -> Done {
    while let Some(news) = stream.next().await? {
        if out.is_json() {
            out.json_line(&news)?;
            continue;
        }
        match &news {
            News::Snapshot { seq, status, .. } => {
                let up = age(status.up_ms);
                out.line(&format!(
                    "{seq} snapshot: legation {}, up {up}",
                    status.version
                ))?;
            }
            News::Change {
                seq,
                actor,
                to,
                cause,
                ..
            } => out.line(&format!("{seq} {actor} {to}: {cause}"))?,
            News::End { seq } => out.line(&format!("{seq} end: the server stops"))?,
            News::Usage { .. } | News::Beat { .. } => {}
        }
    }
    Ok(Exit::Ok)
}
