//! Asking a server again for what the AI tool's session held: once for each stream of news, until all of it is granted.

use tokio::time::sleep;

use super::link::Link;
use super::reach::pause;
use super::session::{Failure, Session};
use super::wishes::{Step, Wish};
use crate::domain::limits::BRIDGE_WISH_TRIES_MAX;

/// Asks again for what the AI tool has asked its session for, as the server may have forgotten it. A server that starts
/// or is busy is asked until it grants it; what is left at last waits for the next stream of news.
pub(super) async fn ask_again(link: &Link, session: &Session) {
    let mut left: Vec<Wish> = link.wishes(|wishes| wishes.all()).into_iter().collect();
    let count = left.len();
    if count == 0 {
        return;
    }
    tracing::info!(count, "what the AI tool had asked for is asked for again");
    for tries in 0..BRIDGE_WISH_TRIES_MAX {
        if tries > 0 {
            sleep(pause(tries - 1)).await;
        }
        match round(link, session, left).await {
            Round::Over => return,
            Round::Left(unsettled) => left = unsettled,
        }
        if left.is_empty() {
            return tracing::info!("what the AI tool had asked for is granted again");
        }
    }
    let left = left.len();
    tracing::warn!(
        left,
        "what the AI tool had asked for is not granted again; it is asked for when the stream of news is next opened"
    );
}

/// What is left of one round.
enum Round {
    Left(Vec<Wish>),
    /// There is nobody to ask in this session.
    Over,
}

async fn round(link: &Link, session: &Session, wishes: Vec<Wish>) -> Round {
    let (mut left, mut failed) = (Vec::new(), None);
    let mut wishes = wishes.into_iter();
    while let Some(wish) = wishes.next() {
        match settle(link, session, &wish).await {
            Ok(true) => {}
            Ok(false) => left.push(wish),
            Err(failure) if failure.is_denial() || failure.is_session_gone() => {
                tracing::warn!(%failure, "what the AI tool had asked for cannot be asked for again");
                return Round::Over;
            }
            Err(failure) => {
                let is_absence = failure.is_absence();
                failed = Some(failure);
                // The others come first the next time: it may be about this one alone.
                if is_absence {
                    left.extend(wishes.by_ref());
                }
                left.push(wish);
            }
        }
    }
    if let Some(failure) = failed {
        let left = left.len();
        tracing::warn!(left, %failure, "what the AI tool had asked for is not granted again yet");
    }
    Round::Left(left)
}

/// Whether nothing is left to do about a wish.
async fn settle(link: &Link, session: &Session, wish: &Wish) -> Result<bool, Failure> {
    let step = link.wishes(|wishes| wishes.begin(wish));
    let (method, params) = match &step {
        Step::Ask(method, params) => (method, params),
        Step::Wait => return Ok(false),
        Step::Nothing => return Ok(true),
    };
    match link.own(session, method, params).await {
        Ok(_) => {}
        // It holds nothing of the kind.
        Err(Failure::Error(_)) if step.takes_back() => {}
        Err(failure) => return Err(failure),
    }
    Ok(link.wishes(|wishes| wishes.is_settled(wish, &step)))
}
