//! The task of a run: each line that the gateway writes becomes a request.
//!
//! In order while the session begins; after that requests go side by side, each in a task that a
//! `notifications/cancelled` ends, answers and cancellations beside them, and other notifications one after
//! the other.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::actors::launcher::Exit;
use crate::domain::limits::{
    BODY_BYTES_CEILING, LAST_WORDS, LISTEN_LINGER, QUEUE_BYTES_MAX, REMOTE_FAREWELL_WAIT,
    REMOTE_POSTS_MAX, REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT, REQUEST_STATE_BYTES_MAX,
    ROUND_ANSWERS_BYTES_MAX,
};
use crate::domain::verdict::{RemoteFault, Verdict};
use crate::protocol::frame::Lines;
use crate::protocol::jsonrpc::{INTERNAL_ERROR, METHOD_NOT_FOUND};
use crate::protocol::outbound::DISCOVER;

use super::client::{Ask, Lost};
use super::exchange::{self, Errand, Outcome};
use super::listener;
use super::modern::{self, Spoken};
use super::parts::{Ends, Out, Shared};
use super::refusal::{Session, session};

/// Notifications and answers of ours that wait for their turn.
const NOTICES_WAITING: usize = 128;

/// Bytes of a line: more than a client's request, its answers of a round, and what is said beside them.
const LINE_BYTES_MAX: usize = BODY_BYTES_CEILING + 2 * QUEUE_BYTES_MAX;
const _: () = assert!(ROUND_ANSWERS_BYTES_MAX + REQUEST_STATE_BYTES_MAX < QUEUE_BYTES_MAX);

/// Carries the lines of one run.
pub(super) struct Conductor {
    shared: Arc<Shared>,
    ends: Ends,
    out: Out,
    tasks: JoinSet<Option<u64>>,
    flights: HashMap<u64, Flight>,
    notices: Option<mpsc::Sender<Bytes>>,
    stage: Stage,
}

/// How far the session has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing was said.
    New,
    /// `initialize` was answered.
    Greeted,
    /// The server was told so.
    Begun,
    /// There are no sessions.
    Modern,
}

/// A request under way.
struct Flight {
    task: AbortHandle,
    /// Whether it asks only to be told things.
    listens: bool,
}

/// What a line is, as far as it decides where it goes.
#[derive(Debug, Deserialize)]
struct Head<'a> {
    #[serde(borrow, default)]
    id: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a serde_json::value::RawValue>,
}

impl Conductor {
    pub(super) fn new(shared: Arc<Shared>, ends: Ends, out: Out) -> Self {
        Self {
            shared,
            ends,
            out,
            tasks: JoinSet::new(),
            flights: HashMap::new(),
            notices: None,
            stage: Stage::New,
        }
    }

    /// Carries lines until there are no more or somebody ends it; then closes everything, and tells so.
    pub(super) async fn run(
        mut self,
        opening: Bytes,
        pipe: DuplexStream,
        writers: [AbortOnDropHandle<()>; 2],
    ) {
        let ends = self.ends.clone();
        let told = tokio::select! {
            biased;
            () = ends.asked() => true,
            () = self.carry(opening, pipe) => false,
        };
        self.tasks.abort_all();
        while self.tasks.join_next().await.is_some() {}
        let (shared, why) = (Arc::clone(&self.shared), ends.why());
        // What knows no session, or cannot be reached, is not told that it is over.
        let is_lost = matches!(why, Exit::Over(Verdict::Remote { .. }));
        // The writers end when nobody has a line any more; what was heard until then counts.
        drop(self);
        for writer in writers {
            let _ = timeout(LAST_WORDS, writer).await;
        }
        if shared.has_session() && !is_lost {
            let farewell = farewell(Arc::clone(&shared));
            match told && why != Exit::Signal(TERMINATED) {
                // Whoever kills, or ends what broke the protocol, does not wait for a server's answer; it is bounded by its wait.
                true => drop(tokio::spawn(farewell)),
                false => farewell.await,
            }
        }
        shared.client.close();
        ends.exit.send_replace(Some(why));
    }

    async fn carry(&mut self, opening: Bytes, pipe: DuplexStream) {
        if !self.shared.is_streamable() && !self.open_stream().await {
            return;
        }
        let opening = opening
            .strip_suffix(b"\n")
            .map(|line| opening.slice_ref(line));
        if let Some(line) = opening {
            self.take(line).await;
        }
        // Longer than any request with what its client answers: one that is too long would end the run for everybody.
        let mut lines = Lines::new(pipe, LINE_BYTES_MAX);
        loop {
            tokio::select! {
                line = lines.next() => match line {
                    Ok(Some(line)) => self.take(line).await,
                    Ok(None) | Err(_) => return,
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    // One that was cancelled has left the table already.
                    if let Ok(Some(id)) = done {
                        self.flights.remove(&id);
                    }
                }
            }
        }
    }

    /// Opens the stream of the older transport; tells whether it did.
    async fn open_stream(&mut self) -> bool {
        match listener::open(&self.shared).await {
            Ok(messages) => {
                let (shared, out, ends) = self.parts();
                self.tasks.spawn(async move {
                    listener::carry(&shared, &out, &ends, messages).await;
                    None
                });
                true
            }
            Err(verdict) => {
                self.ends.stop(Exit::Over(verdict));
                false
            }
        }
    }

    fn parts(&self) -> (Arc<Shared>, Out, Ends) {
        (
            Arc::clone(&self.shared),
            self.out.clone(),
            self.ends.clone(),
        )
    }

    async fn take(&mut self, line: Bytes) {
        let Ok(head) = serde_json::from_slice::<Head<'_>>(&line) else {
            return;
        };
        let id = head.id.and_then(|id| id.get().parse::<u64>().ok());
        let (method, body) = (head.method.as_deref(), line.clone());
        if self.stage == Stage::New
            && let Some(method) = method
        {
            match (method, id) {
                (DISCOVER, Some(id)) => return self.probe(id, body),
                // It was silent to that, and what it says now is no answer to this.
                ("initialize", _) => self
                    .flights
                    .drain()
                    .for_each(|(_, probe)| probe.task.abort()),
                _ => self.stage = Stage::Modern,
            }
        }
        match (method, id) {
            (Some(_), Some(id)) if self.stage == Stage::New => {
                let errand = Errand {
                    id,
                    body,
                    begins: true,
                    modern: None,
                };
                let outcome = exchange::ask(&self.shared, &self.out, &errand).await;
                settle(&self.parts(), &errand, outcome).await;
                self.stage = Stage::Greeted;
            }
            (Some(_), Some(id)) => self.ask(id, body).await,
            (Some("notifications/initialized"), None) if self.stage == Stage::Greeted => {
                tell(&self.shared, &self.out, &self.ends, body).await;
                self.stage = Stage::Begun;
                self.begun();
            }
            (Some("notifications/cancelled"), None) => {
                if let Some(flight) = cancelled(&head).and_then(|id| self.flights.remove(&id)) {
                    self.let_go(flight);
                }
                // Closing its stream says as much, and is all that may be said, to one without sessions.
                if self.stage != Stage::Modern {
                    self.beside(body);
                }
            }
            // Which asks nothing, and is told nothing that it did not ask for.
            _ if self.stage == Stage::Modern => {}
            // An answer to a question of the server's: it waits for it.
            (None, _) => self.beside(body),
            _ => self.notify(body),
        }
    }

    /// Asks whether the server knows of no sessions. One that says anything else is one of the older kind, which is
    /// asked as such next; one that failed may be of either.
    fn probe(&mut self, id: u64, body: Bytes) {
        let parts = self.parts();
        let errand = Errand {
            id,
            modern: Some(Spoken::of(&body)),
            body,
            begins: false,
        };
        let task = self.tasks.spawn(async move {
            match exchange::ask(&parts.0, &parts.1, &errand).await {
                Outcome::Refused(why) => {
                    let line = failure(id, METHOD_NOT_FOUND, &parts.0.clean(&why));
                    // Nobody takes lines any more if the run ends.
                    let _ = parts.1.lines.send(line).await;
                }
                outcome => settle(&parts, &errand, outcome).await,
            }
            Some(id)
        });
        let listens = false;
        self.flights.insert(id, Flight { task, listens });
    }

    /// Ends a request that nobody wants any more. One that only listens is read for a moment longer: the one that takes its
    /// place has a connection of its own, and tells nothing of what this one has on its way.
    fn let_go(&mut self, flight: Flight) {
        if !flight.listens {
            return flight.task.abort();
        }
        self.tasks.spawn(async move {
            sleep(LISTEN_LINGER).await;
            flight.task.abort();
            None
        });
    }

    /// A request that goes beside others.
    async fn ask(&mut self, id: u64, body: Bytes) {
        if self.flights.len() >= REMOTE_POSTS_MAX {
            let why =
                format!("{REMOTE_POSTS_MAX} requests are under way; try again when some ended");
            // Nobody takes lines any more if the run ends.
            let _ = self.out.lines.send(failure(id, INTERNAL_ERROR, &why)).await;
            return;
        }
        let parts = self.parts();
        let modern = (self.stage == Stage::Modern).then(|| Spoken::of(&body));
        let listens = modern.as_ref().is_some_and(Spoken::only_listens);
        let errand = Errand {
            id,
            body,
            begins: false,
            modern,
        };
        let task = self.tasks.spawn(async move {
            let outcome = modern::ask(&parts.0, &parts.1, &errand).await;
            settle(&parts, &errand, outcome).await;
            Some(id)
        });
        self.flights.insert(id, Flight { task, listens });
    }

    /// The session has begun: what waits for that.
    fn begun(&mut self) {
        let (notices, mut waiting) = mpsc::channel(NOTICES_WAITING);
        self.notices = Some(notices);
        let (shared, out, ends) = self.parts();
        self.tasks.spawn(async move {
            while let Some(body) = waiting.recv().await {
                tell(&shared, &out, &ends, body).await;
            }
            None
        });
        if self.shared.is_streamable() {
            let (shared, out, ends) = self.parts();
            self.tasks.spawn(async move {
                listener::follow(&shared, &out, &ends).await;
                None
            });
        }
    }

    /// Sends what must not wait behind a notification that the server is slow to take.
    fn beside(&mut self, body: Bytes) {
        if self.stage != Stage::Begun || self.tasks.len() >= 2 * REMOTE_POSTS_MAX {
            return self.notify(body);
        }
        let (shared, out, ends) = self.parts();
        self.tasks.spawn(async move {
            tell(&shared, &out, &ends, body).await;
            None
        });
    }

    fn notify(&self, body: Bytes) {
        let sent = self.notices.as_ref().map(|notices| notices.try_send(body));
        if !matches!(sent, Some(Ok(()))) {
            self.out
                .remark("a notification was dropped: too many wait".to_owned());
        }
    }
}

/// What [`crate::actors::launcher::Scope::terminate`] ends a run with.
const TERMINATED: i32 = 15;

/// What the end of a request means for the others.
async fn settle((shared, out, ends): &(Arc<Shared>, Out, Ends), errand: &Errand, end: Outcome) {
    match end {
        Outcome::Answered => {}
        // It was asked again, and refused again.
        Outcome::Mismatch(line) => {
            let _ = out.lines.send(line).await;
        }
        Outcome::Failed(why) | Outcome::Refused(why) => {
            let why = shared.clean(&why);
            out.remark(format!("request {} failed: {why}", errand.id));
            // Nobody takes lines any more if the run ends.
            let line = failure(errand.id, INTERNAL_ERROR, &why);
            let _ = out.lines.send(line).await;
        }
        Outcome::Over(verdict) => ends.stop(Exit::Over(verdict)),
        Outcome::Untaken(verdict) => {
            if !errand.begins {
                (shared.unsent)(errand.id, &verdict);
            }
            ends.stop(Exit::Over(verdict));
        }
    }
}

/// Sends what nobody answers.
async fn tell(shared: &Shared, out: &Out, ends: &Ends, body: Bytes) {
    let sent = shared.client.send(Ask {
        method: Method::POST,
        target: shared.target(),
        headers: shared.of_session(),
        body,
    });
    let lost = |fault, detail| ends.stop(Exit::Over(Verdict::Remote { fault, detail }));
    let why = match timeout(REMOTE_SHORT_WAIT, sent).await {
        Ok(Ok(heard)) if heard.status.is_success() => {
            drop(
                heard
                    .said(REMOTE_REFUSAL_BYTES_MAX, REMOTE_SHORT_WAIT)
                    .await,
            );
            return;
        }
        // It may have no ears for this one alone, such as one that says a call is cancelled.
        Ok(Ok(heard)) if heard.status.as_u16() == 404 && shared.has_session() => {
            if session(shared).await == Session::Gone {
                let detail = format!("{} does not know it any more (status 404)", shared.url());
                return lost(RemoteFault::SessionLost, detail);
            }
            "status 404".to_owned()
        }
        Ok(Ok(heard)) => format!("status {}", heard.status.as_u16()),
        Ok(Err(Lost::Unreached(verdict))) => return ends.stop(Exit::Over(verdict)),
        Ok(Err(Lost::Broken(why) | Lost::Crowded(why))) => why,
        Err(_) => "no answer".to_owned(),
    };
    out.remark(format!("a notification failed: {why}"));
}

/// Tells a server that its session is over. It may not want to hear of it.
async fn farewell(shared: Arc<Shared>) {
    let sent = shared.client.send(Ask {
        method: Method::DELETE,
        target: shared.remote.url.target(),
        headers: shared.of_session(),
        body: Bytes::new(),
    });
    let _ = timeout(REMOTE_FAREWELL_WAIT, sent).await;
    shared.client.close();
}

/// Which request is not wanted any more.
fn cancelled(head: &Head<'_>) -> Option<u64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        request_id: u64,
    }
    let params: Params = serde_json::from_str(head.params?.get()).ok()?;
    Some(params.request_id)
}

/// An answer in the server's place.
fn failure(id: u64, code: i64, why: &str) -> Bytes {
    let answer = serde_json::json!({
        "jsonrpc": "2.0",
        "id": id,
        "error": {
            "code": code,
            "message": format!("the server behind HTTP did not answer this request: {why}"),
        },
    });
    answer.to_string().into()
}
