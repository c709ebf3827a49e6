//! The stream of one request, which is taken up again where its connection was cut.
//!
//! A server that keeps what it tells gives its messages ids; with the last one the rest is asked for, however often.
//! The request itself is not sent again.

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use super::events::{Events, StreamError};
use super::http::{Ask, Heard, Kind, LAST_EVENT, OPEN};
use super::link::Link;
use super::reach::pause;
use super::session::{self, Failure, Session};
use crate::domain::limits::{BRIDGE_ANSWER_WAIT, BRIDGE_AWAY_WAIT, BRIDGE_BEGIN_WAIT};

/// What a server tells about one request.
pub(super) struct Stream<'a> {
    link: &'a Link,
    session: &'a Session,
    events: Events,
    moving: AbortOnDropHandle<()>,
    /// When whoever goes on ending it is not asked again.
    until: Instant,
}

impl<'a> Stream<'a> {
    pub(super) fn new(link: &'a Link, session: &'a Session, heard: Heard) -> Self {
        Self {
            link,
            session,
            events: Events::new(heard.body),
            moving: heard.moving,
            until: Instant::now() + BRIDGE_ANSWER_WAIT,
        }
    }

    /// The next message.
    pub(super) async fn next(&mut self) -> Result<Bytes, Failure> {
        loop {
            let why = match self.events.next().await {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => "the stream ended without the answer".to_owned(),
                Err(error @ StreamError::TooLong(_)) => {
                    return Err(Failure::Broken(error.to_string()));
                }
                Err(error) => error.to_string(),
            };
            self.take_up(why).await?;
        }
    }

    /// Asks for what came after the last message, until the server has been away for too long.
    async fn take_up(&mut self, why: String) -> Result<(), Failure> {
        let Some(last) = self.events.last().filter(|_| Instant::now() < self.until) else {
            return Err(Failure::Broken(why));
        };
        tracing::info!(
            why,
            "the stream of a request was cut, and is taken up again"
        );
        let mut headers: HeaderMap = self.session.headers.clone();
        headers.insert(LAST_EVENT, last);
        let until = Instant::now() + BRIDGE_AWAY_WAIT;
        let mut tries = 0;
        loop {
            sleep(self.events.retry().unwrap_or_else(|| pause(tries))).await;
            let ask = Ask {
                method: Method::GET,
                body: Bytes::new(),
                headers: &headers,
                wait: BRIDGE_BEGIN_WAIT,
            };
            let heard = session::post(&self.link.http, ask, OPEN).await;
            self.link.note(heard.as_ref().err());
            match heard {
                Ok(heard) if heard.kind == Kind::Events => {
                    self.events.again(heard.body);
                    self.moving = heard.moving;
                    return Ok(());
                }
                Ok(_) => {
                    let text = format!("{why}, and the server has no more of it");
                    return Err(Failure::Broken(text));
                }
                // To ask changes nothing, so it makes no difference whether it arrived.
                Err(failure) if failure.is_absence() && Instant::now() < until => tries += 1,
                Err(failure) => {
                    let text = format!("{why}; the rest could not be fetched: {failure}");
                    return Err(Failure::Broken(text));
                }
            }
        }
    }
}
