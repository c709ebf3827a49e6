//! Streams of clients with sessions that can be taken up again: every message has an id, and a client whose
//! connection was lost asks for what came after the last one it had (`Last-Event-ID`). What it missed is kept for a
//! while, within bounds; nothing of it survives its session, or the gateway.
//!
//! A request's stream goes on being written while nobody reads it, so the answer to a call whose connection was lost can
//! be fetched. Questions of servers wait there as well, but not for long.

mod log;
mod name;
mod reader;
mod stream;
mod table;
mod writer;

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;

use super::answer::unread;
use super::exchange::{Exchange, Said};
use super::headers::{Head, Keeps};
use super::listen::{CHANGED, OfServer, Place, of_server};
use super::{Shared, refused};
use crate::actors::front::{ListChange, Lists};
use crate::actors::session::SessionHandle;
use crate::api::error::Error;
use crate::domain::limits::MCP_ASKED_AWAY_MAX;
use log::After;
use name::Kind;
pub(super) use table::Streams;
use writer::{Writer, Written};

/// Answers a request with a stream; `first` is on it at once.
pub(super) fn answer(shared: &Shared, exchange: Exchange, first: Option<Bytes>) -> Response {
    let (front, streams) = (&shared.0.front, &shared.0.streams);
    let stream = streams.begin(front, Kind::Answer, &exchange.session);
    let writer = Writer {
        streams: streams.clone(),
        stream: Arc::clone(&stream),
    };
    tokio::spawn(drive(writer, exchange, first));
    streams.begun(stream)
}

/// Writes what is said until the answer.
async fn drive(writer: Writer, mut exchange: Exchange, first: Option<Bytes>) -> Option<()> {
    if exchange.keeps == Keeps::Primed {
        writer.prime().await?;
    }
    if let Some(first) = first {
        leave_out(&mut exchange, &writer.say(&first).await?);
    }
    loop {
        let said = tokio::select! {
            biased;
            () = writer.stream.gone.cancelled() => return None,
            said = exchange.next() => said,
            () = writer.stream.away_for(MCP_ASKED_AWAY_MAX), if exchange.asks() => {
                exchange.give_up_questions();
                continue;
            }
        };
        match said {
            Said::Event(message) => leave_out(&mut exchange, &writer.say(&message).await?),
            // Clients with sessions are asked on the stream.
            Said::Asks => {}
            Said::Last(body, _) => {
                writer.say_last(&body, || unread(&exchange.id, body.len()));
                return Some(());
            }
            Said::Over => return None,
        }
    }
}

/// What there was no room for may have been a question: its server does not wait for an answer to it.
fn leave_out(exchange: &mut Exchange, written: &Written) {
    if *written == Written::Not {
        exchange.give_up_questions();
    }
}

/// Answers `GET`: what is about no request, or what is left of a stream that was cut.
pub(super) fn listen(
    shared: &Shared,
    head: &Head,
    session: &Arc<SessionHandle>,
    view: Option<String>,
) -> Response {
    let mut missed = false;
    if let Some(id) = head.last_event.as_deref() {
        match shared.0.streams.again(session, id) {
            Some(response) => return response,
            // What was told meanwhile is lost; what will be is not.
            None if name::read(id).is_some_and(|(kind, ..)| kind == Kind::Listen) => missed = true,
            None => return lost(),
        }
    }
    let (front, streams) = (&shared.0.front, &shared.0.streams);
    let place = shared.0.listeners.enter(session);
    let lists = front.follow(Arc::clone(session), view, session.id().bits());
    let stream = streams.begin(front, Kind::Listen, session);
    let writer = Writer {
        streams: streams.clone(),
        stream: Arc::clone(&stream),
    };
    let primes = head.keeps == Keeps::Primed;
    tokio::spawn(tell(writer, lists, place, (primes, missed)));
    streams.begun(stream)
}

/// Writes what changes, until the session ends, the server stops, or a newer stream takes the place. Who has `missed`
/// what was told looks at all lists again.
async fn tell(writer: Writer, mut lists: Lists, place: Place, (primes, missed): (bool, bool)) {
    let telling = async {
        if primes {
            writer.prime().await?;
        }
        if missed {
            writer.say(CHANGED).await?;
            for told in [OfServer::Resources, OfServer::Prompts] {
                if let Some(message) = of_server(&told) {
                    writer.say(&message).await?;
                }
            }
        }
        loop {
            match lists.next().await {
                ListChange::Told(told) => {
                    if let Some(message) = of_server(&told) {
                        writer.say(&message).await?;
                    }
                }
                ListChange::Changed => {
                    writer.say(CHANGED).await?;
                }
                ListChange::Same => {}
                ListChange::Over => return Some(()),
            }
        }
    };
    tokio::select! {
        _ = telling => {}
        () = place.over.cancelled() => {}
        () = writer.stream.gone.cancelled() => {}
    }
    // Nobody takes it up again: there is another one, or no session.
    writer.streams.drop_it(&writer.stream);
}

impl Streams {
    /// The answer that is the first to tell of a stream.
    fn begun(&self, stream: Arc<stream::Stream>) -> Response {
        let told = self.told_after(Arc::clone(&stream), 0);
        if told.is_err() {
            // It is over already, without a word.
            self.drop_it(&stream);
        }
        self::told(told)
    }

    /// What came after this event on its stream, and what will come; `None` if nobody knows such a stream of this
    /// session, or what came is not kept.
    fn again(&self, session: &SessionHandle, id: &str) -> Option<Response> {
        let (kind, token, number) = name::read(id)?;
        let stream = self.find(&token, session)?;
        if stream.kind != kind {
            return None;
        }
        match self.told_after(stream, number) {
            Err(After::Lost) => None,
            response => Some(told(response)),
        }
    }
}

/// An answer that tells; one that says that there is nothing to come back for if there is nothing to tell.
fn told(response: Result<Response, After>) -> Response {
    response.unwrap_or_else(|_| StatusCode::NO_CONTENT.into_response())
}

fn lost() -> Response {
    let text = "`Last-Event-ID` names no event of this session whose stream is still kept: what came after it cannot be \
                told; send the request again if it may run twice";
    refused(Error::invalid(text))
}
