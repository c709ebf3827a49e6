//! One request that goes to a server, and all that its client hears until the answer: progress, logs, and what the
//! server asks it. One with a session is asked in the stream of events that its request is answered with; one
//! without gets what is asked in place of the answer, and comes back ([`super::rounds`]).

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::events::{self, event};
use super::headers::Keeps;
use super::inquiries::{Inquiries, Inquiry};
use super::job::Ended;
use super::rounds::Rounds;
use super::work::Work;
use super::{Shared, answer, streams};
use crate::actors::front::News;
use crate::actors::session::SessionHandle;
use crate::api::error::json;
use crate::api::shares;
use crate::domain::ids::KeyId;
use crate::domain::limits::{MCP_KEEP_ALIVE, MCP_PRIME_AFTER};

/// A request on its way.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) session: Arc<SessionHandle>,
    pub(super) work: Work,
    /// What the server says meanwhile, as long as there can be more.
    pub(super) news: Option<mpsc::Receiver<News>>,
    /// What the client calls its request; raw.
    pub(super) id: String,
    /// What it calls its progress; raw.
    pub(super) token: Option<String>,
    pub(super) takes_events: bool,
    /// Whether the stream of its answer can be taken up again.
    pub(super) keeps: Keeps,
    pub(super) side: Side,
    /// What it ended with, while there is something to tell before.
    pub(super) ended: Option<Option<Ended>>,
}

/// Who is asked, and how.
pub(super) enum Side {
    /// A client with a session, with these questions open.
    Sessions(Inquiries, Vec<Inquiry>),
    /// One without.
    Stateless(Box<Rounds>),
}

impl std::fmt::Debug for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sessions(_, open) => f.debug_tuple("Sessions").field(&open.len()).finish(),
            Self::Stateless(rounds) => f.debug_tuple("Stateless").field(rounds).finish(),
        }
    }
}

/// What a client hears.
#[derive(Debug)]
pub(super) enum Said {
    /// This message, if it takes events.
    Event(Bytes),
    /// Questions wait for [`Exchange::hold`].
    Asks,
    /// The answer, and the status of one that is not a stream.
    Last(Bytes, StatusCode),
    /// Nothing any more: it was cancelled.
    Over,
}

enum Step {
    Heard(Option<News>),
    TakenBack(usize),
    Ended(Option<Ended>),
    Due,
}

impl Exchange {
    /// Whose it is.
    pub(super) fn key(&self) -> &KeyId {
        &self.session.key
    }

    /// What comes next. Nothing is lost if it is not waited for.
    pub(super) async fn next(&mut self) -> Said {
        loop {
            if let Some(ended) = self.ended.take() {
                // Nobody waits for an answer to these any more.
                if let Some(event) = self.side.end_one().filter(|_| self.takes_events) {
                    self.ended = Some(ended);
                    return Said::Event(event);
                }
                return ended.map_or(Said::Over, |ended| self.last(ended));
            }
            let due = self.side.due();
            let step = tokio::select! {
                biased;
                news = hear(&mut self.news) => Step::Heard(news),
                at = self.side.taken_back() => Step::TakenBack(at),
                ended = self.work.ended() => Step::Ended(ended),
                () = until(due) => Step::Due,
            };
            let event = match step {
                Step::Heard(None) => {
                    self.news = None;
                    continue;
                }
                Step::Heard(Some(news)) => self.heard(news),
                Step::TakenBack(at) => self.side.take_back(at),
                Step::Due => return Said::Asks,
                Step::Ended(ended) => {
                    self.ended = Some(ended);
                    continue;
                }
            };
            if let Some(event) = event.filter(|_| self.takes_events) {
                return Said::Event(event);
            }
        }
    }

    /// What the client is told of news.
    fn heard(&mut self, news: News) -> Option<Bytes> {
        match (news, &mut self.side) {
            (News::Progress(progress), _) => {
                let token = self.token.as_ref()?;
                Some(progress.with(token))
            }
            (News::Log(line), _) => Some(line),
            (News::Asked(asked), Side::Sessions(inquiries, open)) => {
                let (inquiry, request) = inquiries.put(&self.session, asked)?;
                open.retain(Inquiry::is_open);
                open.push(inquiry);
                Some(request)
            }
            (News::AskedForTask(question), Side::Sessions(inquiries, open)) => {
                let (inquiry, request) = inquiries.put_of_task(&self.session, question)?;
                open.push(inquiry);
                Some(request)
            }
            (News::Asked(asked), Side::Stateless(rounds)) => {
                rounds.gather(asked);
                None
            }
            (News::Lacks(question), Side::Stateless(rounds)) => {
                rounds.lacks.get_or_insert(question);
                None
            }
            (News::Lacks(_), Side::Sessions(..))
            | (News::AskedForTask(_), Side::Stateless(_))
            | (News::Stands(_), _) => None,
        }
    }

    fn last(&self, mut ended: Ended) -> Said {
        let Side::Stateless(rounds) = &self.side else {
            return Said::Last(ended.body(&self.id, None), StatusCode::OK);
        };
        match rounds.incapable(&self.id) {
            Some(error) if ended.is_failure() => Said::Last(error, StatusCode::BAD_REQUEST),
            _ => {
                let status = ended.status(rounds);
                Said::Last(ended.body(&self.id, Some(rounds)), status)
            }
        }
    }

    /// Leaves the call waiting for its client's answers: what to tell it.
    ///
    /// # Errors
    /// It goes on: nothing is to be asked, or there is no room.
    pub(super) fn hold(mut self, shared: &Shared) -> Result<Bytes, Box<Self>> {
        let shared = &shared.0;
        let Side::Stateless(rounds) = &mut self.side else {
            return Err(Box::new(self));
        };
        let Some((result, until)) = rounds.ask(&shared.held.sealer, shared.front.wall_ms()) else {
            return Err(Box::new(self));
        };
        let place = (rounds.call, rounds.round);
        self.work.set_apart();
        let body = answer::body_of_result(&self.id, &result);
        match shared.held.keep(self, place, until) {
            Ok(()) => Ok(body),
            Err(mut full) => {
                if let Side::Stateless(rounds) = &mut full.side {
                    rounds.give_up();
                }
                Err(full)
            }
        }
    }

    /// What was asked and not answered, to be dropped: its call has ended.
    pub(super) fn forget_questions(&mut self) -> impl Sized + use<> {
        let gathered = match &mut self.side {
            Side::Sessions(..) => Vec::new(),
            Side::Stateless(rounds) => rounds.forget(),
        };
        (gathered, self.news.take())
    }

    /// The answer: JSON if it comes soon and alone, a stream of events if there is more to tell.
    pub(super) async fn answered(mut self, shared: &Shared) -> Response {
        loop {
            // Who is to come back for its answer is told early how.
            let patience = match self.keeps {
                Keeps::Primed if self.takes_events => MCP_PRIME_AFTER,
                _ => MCP_KEEP_ALIVE,
            };
            match timeout(patience, self.next()).await {
                Err(_) if self.takes_events => return self.streamed(shared, None),
                Err(_) => {}
                Ok(Said::Event(first)) => return self.streamed(shared, Some(first)),
                Ok(Said::Asks) => match self.hold(shared) {
                    Ok(body) => return json(StatusCode::OK, body),
                    Err(goes_on) => self = *goes_on,
                },
                Ok(Said::Last(body, StatusCode::OK)) => {
                    let length = body.len();
                    let answered = shares::json(body, self.key());
                    return answered
                        .unwrap_or_else(|| json(StatusCode::OK, answer::unread(&self.id, length)));
                }
                Ok(Said::Last(body, status)) => return json(status, body),
                // Cancelled: nobody waits for an answer.
                Ok(Said::Over) => return StatusCode::ACCEPTED.into_response(),
            }
        }
    }

    /// The answer as a stream, which begins with this if there is something to tell already.
    fn streamed(mut self, shared: &Shared, first: Option<Bytes>) -> Response {
        // Who is slow to read it does not hold up the work.
        self.work.set_apart();
        if self.keeps == Keeps::Nothing {
            let first = first.map_or(events::ALIVE, |message| event(&message));
            return events::stream(shared.clone(), self, first);
        }
        streams::answer(shared, self, first)
    }

    /// Whether its client was asked something.
    pub(super) fn asks(&self) -> bool {
        match &self.side {
            Side::Sessions(_, open) => open.iter().any(Inquiry::is_open),
            Side::Stateless(_) => false,
        }
    }

    /// Nobody is there to answer: the servers that asked hear so.
    pub(super) fn give_up_questions(&mut self) {
        if let Side::Sessions(_, open) = &mut self.side {
            open.clear();
        }
    }
}

impl Side {
    fn due(&self) -> Option<Instant> {
        match self {
            Self::Sessions(..) => None,
            Self::Stateless(rounds) => rounds.due,
        }
    }

    /// Which of the open questions its server takes back.
    async fn taken_back(&mut self) -> usize {
        let Self::Sessions(_, open) = self else {
            return pending().await;
        };
        poll_fn(|context| {
            let ready = |inquiry: &mut Inquiry| inquiry.withdrawn.as_mut().poll(context).is_ready();
            let at = open.iter_mut().position(ready);
            at.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Ends a question of the call that its client has not answered; what to tell it.
    fn end_one(&mut self) -> Option<Bytes> {
        let Self::Sessions(_, open) = self else {
            return None;
        };
        let at = open.iter().position(Inquiry::ends_with_its_call)?;
        Some(open.swap_remove(at).taken_back())
    }

    fn take_back(&mut self, at: usize) -> Option<Bytes> {
        match self {
            Self::Sessions(_, open) if at < open.len() => Some(open.swap_remove(at).taken_back()),
            _ => None,
        }
    }
}

/// News; `None` once, when there will be none any more.
async fn hear(news: &mut Option<mpsc::Receiver<News>>) -> Option<News> {
    match news {
        Some(news) => news.recv().await,
        None => pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
