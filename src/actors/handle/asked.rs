//! A question on its way to a client, and back: to the server that waits for it, or into the next round of a call
//! whose server needs it first.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::talk::Question;
use crate::protocol::envelope;
use crate::protocol::jsonrpc::INTERNAL_ERROR;
use crate::protocol::questions::Posed;

use super::{Awaited, Handle, Turn};

/// What a client answers: a result, or an error; raw.
pub(in crate::actors) type Answered = Result<Bytes, Bytes>;

/// A question on its way to a client. Who asks gets an answer: the client's, or an error when this is dropped.
#[derive(Debug)]
pub struct Asked {
    /// Who asks; `None` once it has its answer.
    by: Option<By>,
    withdrawn: CancellationToken,
    /// When the call that it is asked for is over.
    pub until: Instant,
    /// Which kind it is.
    pub question: Question,
    /// Its method.
    pub method: &'static str,
    /// Its parameters, raw; an object.
    pub params: Bytes,
}

#[derive(Debug)]
enum By {
    /// A server that waits.
    Server(OfServer),
    /// A call that goes on with the answer. One that is gone needs none.
    Round(oneshot::Sender<Answered>),
}

#[derive(Debug)]
struct OfServer {
    handle: Arc<Handle>,
    /// The server's id, raw.
    id: Box<str>,
    /// Of the call that it is asked for.
    turn: Option<Arc<Turn>>,
}

impl Asked {
    /// What a server asks, and waits for.
    pub(super) fn of_server(
        handle: Arc<Handle>,
        id: &str,
        withdrawn: CancellationToken,
        posed: Posed,
    ) -> Self {
        let by = By::Server(OfServer {
            handle,
            id: id.into(),
            turn: None,
        });
        Self::new(by, withdrawn, Instant::now(), posed)
    }

    /// What is asked between two requests to a server that does not ask itself.
    pub(in crate::actors) fn of_round(posed: Posed, until: Instant) -> (Self, Awaited) {
        let (tell, told) = oneshot::channel();
        let withdrawn = CancellationToken::new();
        let awaited = Awaited::new(posed.question, told, withdrawn.clone());
        let asked = Self::new(By::Round(tell), withdrawn, until, posed);
        (asked, awaited)
    }

    fn new(by: By, withdrawn: CancellationToken, until: Instant, posed: Posed) -> Self {
        Self {
            by: Some(by),
            withdrawn,
            until,
            question: posed.question,
            method: posed.method,
            params: posed.params.into(),
        }
    }

    /// It is asked for a call that has this turn.
    pub(super) fn in_turn(&mut self, turn: Option<Arc<Turn>>) {
        if let Some(By::Server(server)) = &mut self.by {
            server.turn = turn;
        }
    }

    /// Resolves when who asks does not want an answer any more.
    pub fn withdrawn(&self) -> impl Future<Output = ()> + Send + use<> {
        self.withdrawn.clone().cancelled_owned()
    }

    /// Whether who asks does not want an answer any more.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.withdrawn.is_cancelled()
    }

    /// Passes on what the client answered: a result, or an error; raw.
    pub async fn answer(mut self, answer: Result<Bytes, Bytes>) {
        if self.is_withdrawn() {
            return;
        }
        // Taken only when it has its answer: one who is cut off in between leaves the server none.
        match &self.by {
            Some(By::Server(server)) => {
                let line = match &answer {
                    Ok(result) => {
                        if self.question == Question::Roots {
                            server.handle.asking.roots.learn(result);
                        }
                        envelope::answer(&server.id, "result", result)
                    }
                    Err(error) => envelope::answer(&server.id, "error", error),
                };
                if let Some(turn) = server.turn.clone() {
                    turn.comes_in(self.until).await;
                }
                self.in_turn(None);
                if let Some(By::Server(server)) = &self.by {
                    server.handle.tell(line).await;
                    if !self.is_withdrawn() {
                        server.handle.asking.open.lock().remove(&server.id);
                    }
                }
                self.by = None;
            }
            Some(By::Round(_)) => {
                if let Some(By::Round(tell)) = self.by.take() {
                    // Not copied: who counts it counts until the round is sent.
                    let _ = tell.send(answer);
                }
            }
            None => {}
        }
    }
}

impl OfServer {
    /// What its server hears in place of an answer. Roots are never refused: one that got none is told to ask again
    /// when somebody can say.
    fn unanswered(&self, question: Question) -> Bytes {
        if question == Question::Roots {
            let roots = self.handle.asking.roots.known_or_owed();
            return envelope::answer(&self.id, "result", &roots);
        }
        let why = "nobody answered, or it is not clear for which of several calls this is asked";
        envelope::answer_error(&self.id, INTERNAL_ERROR, why)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // A round hears of it by its end of the channel.
        let Some(By::Server(mut server)) = self.by.take() else {
            return;
        };
        // One that was withdrawn has no place any more, and another one may have its id.
        if !self.is_withdrawn() {
            server.handle.asking.open.lock().remove(&server.id);
        }
        // The server of a withdrawn one has gone on long since.
        let line = (!self.is_withdrawn()).then(|| server.unanswered(self.question));
        let (turn, until) = (server.turn.take(), self.until);
        let post = move || {
            if let Some(line) = line {
                server.handle.post(line);
            }
        };
        match (turn, tokio::runtime::Handle::try_current()) {
            (Some(turn), Ok(runtime)) => {
                runtime.spawn(async move {
                    turn.comes_in(until).await;
                    post();
                });
            }
            _ => post(),
        }
    }
}
