//! What a server asks its client while it works: to whom a question goes, and that it is answered, always.
//!
//! A server of an older version does not say for which call it asks: it is the one whose turn it is (see
//! [`Askers`]), or the only one. Roots are asked for at any time; see [`super::roots`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::limits::{
    LOG_LEVEL_WAIT, MCP_QUESTIONS_MAX, NEWS_BYTES_MAX, QUESTION_BYTES_MAX, QUESTIONS_OPEN_MAX,
};
use crate::domain::talk::{Level, Question, Questions};
use crate::protocol::envelope;
use crate::protocol::jsonrpc::{INTERNAL_ERROR, INVALID_REQUEST};
use crate::protocol::{questions, tasks};

use super::super::calls::{News, Tag};
use super::super::sync::Mutex;
use super::era::Speaks;
use super::roots::Roots;
use super::tasks::Known;
use super::tells::Voice;
use super::{Asked, Askers, Handle, Role, Turn};

/// What a run knows of questions.
#[derive(Debug)]
pub(in crate::actors) struct Asking {
    /// What its server was told that can be asked.
    pub(super) declared: Questions,
    /// What its operator permits to be asked of who can answer it.
    permitted: Questions,
    askers: Arc<Askers>,
    /// Those that wait for an answer, by the server's ids.
    pub(super) open: Mutex<HashMap<Box<str>, CancellationToken>>,
    pub(super) roots: Roots,
    /// What its server speaks.
    pub(super) speaks: Speaks,
    pub(super) tasks: Known,
    /// For whom the server speaks, if anybody may listen.
    pub(super) voice: Option<Voice>,
    /// Whether its server logs to clients, and from which level on it was told to.
    logs: AtomicBool,
    level: AtomicU8,
}

/// No level was asked for yet.
const NO_LEVEL: u8 = u8::MAX;

impl Default for Asking {
    fn default() -> Self {
        Self::new(Questions::NONE, Questions::NONE, Arc::default())
    }
}

impl Asking {
    /// The same with who hears what the server tells of itself.
    pub(in crate::actors) fn heard_by(self, voice: Voice) -> Self {
        let voice = Some(voice);
        Self { voice, ..self }
    }

    pub(in crate::actors) fn new(
        declared: Questions,
        permitted: Questions,
        askers: Arc<Askers>,
    ) -> Self {
        Self {
            declared,
            permitted,
            askers,
            open: Mutex::default(),
            roots: Roots::default(),
            speaks: Speaks::default(),
            tasks: Known::default(),
            voice: None,
            logs: AtomicBool::new(false),
            level: AtomicU8::new(NO_LEVEL),
        }
    }
}

/// Tells what may be missed, if it is not too large and there is more room than questions need.
pub(super) fn tell(listener: &mpsc::Sender<News>, news: News) {
    let bytes = match &news {
        News::Progress(progress) => progress.line.len(),
        News::Log(line) => line.len(),
        _ => 0,
    };
    if bytes <= NEWS_BYTES_MAX && listener.capacity() > MCP_QUESTIONS_MAX {
        let _ = listener.try_send(news);
    }
}

/// Who is asked now.
enum Who {
    Caller(Caller),
    /// No call is under way whose caller could be.
    Nobody,
    /// Several are: what was called.
    Unclear(Vec<u64>),
}

/// One who can be asked.
pub(super) struct Caller {
    pub(super) news: mpsc::Sender<News>,
    pub(super) until: Instant,
    /// What was called, if it is for its sake.
    pub(super) what: Option<u64>,
    pub(super) turn: Option<Arc<Turn>>,
}

impl Handle {
    /// The server asks: passes it on to who called, or answers in its place.
    pub(in crate::actors) fn asked(self: &Arc<Self>, id: &str, method: &str, line: &[u8]) {
        let Some(posed) = questions::read(method, line) else {
            self.post(envelope::method_not_found(id));
            return;
        };
        let question = posed.question;
        let asking = &self.asking;
        if !asking.declared.has(question) {
            // Its caller may have been asked by who can do more.
            if asking.permitted.has(question)
                && let Who::Caller(caller) = self.caller()
            {
                let _ = caller.news.try_send(News::Lacks(question));
            }
            self.post(envelope::method_not_found(id));
            return;
        }
        let refuse = |code, why| {
            self.post(envelope::answer_error(id, code, why));
        };
        if line.len() > QUESTION_BYTES_MAX {
            return refuse(INVALID_REQUEST, "the question is larger than 4 MiB");
        }
        let withdrawn = CancellationToken::new();
        {
            let mut open = asking.open.lock();
            if open.len() >= QUESTIONS_OPEN_MAX {
                return refuse(
                    INTERNAL_ERROR,
                    "too many questions wait for an answer already",
                );
            }
            if open.contains_key(id) {
                return refuse(INVALID_REQUEST, "a question with this id waits already");
            }
            open.insert(id.into(), withdrawn.clone());
        }
        let task = tasks::related(&posed.params).filter(|_| question != Question::Roots);
        let mut asked = Asked::of_server(Arc::clone(self), id, withdrawn, posed);
        if let Some(task) = task {
            return self.ask_for_task(&task, asked);
        }
        let who = match question {
            Question::Roots => self.anybody(),
            _ => self.caller(),
        };
        match who {
            Who::Caller(caller) => {
                if let Some(what) = caller.what {
                    asking.askers.asks(what);
                }
                asked.until = caller.until;
                if let Some(turn) = &caller.turn {
                    turn.goes_out();
                }
                asked.in_turn(caller.turn);
                // One who does not read, or is gone: the question goes, and its server is told.
                let _ = caller.news.try_send(News::Asked(Box::new(asked)));
            }
            Who::Nobody if question == Question::Roots => self.park(asked),
            // Dropped, which answers.
            Who::Nobody => {}
            Who::Unclear(all) => all.into_iter().for_each(|what| asking.askers.asks(what)),
        }
    }

    /// The server takes a question back.
    pub(in crate::actors) fn withdraw(&self, line: &[u8]) {
        let open = || self.asking.open.lock();
        if let Some(withdrawn) = envelope::cancelled_id(line).and_then(|id| open().remove(id)) {
            withdrawn.cancel();
        }
    }

    fn caller(&self) -> Who {
        let mut calls = self.listening();
        // What is asked for a task says so: it is meant only where nobody else can be.
        if calls.iter().any(|tag| !tag.task) {
            calls.retain(|tag| !tag.task);
        }
        let in_turn = |tag: &Tag| tag.turn.as_ref().is_some_and(|turn| turn.is_held());
        let overtaken = |tag: &Tag| tag.turn.as_ref().is_some_and(|turn| turn.is_overtaken());
        let is_overtaken = calls.len() > 1 && calls.iter().any(overtaken);
        if !is_overtaken && calls.iter().any(in_turn) {
            calls.retain(in_turn);
        }
        // Of several, none is asked for another; from now on they have turns.
        if calls.len() > 1 {
            return Who::Unclear(calls.into_iter().map(|tag| tag.what).collect());
        }
        let only = calls.pop();
        only.and_then(|tag| {
            Some(Caller {
                until: tag.until,
                news: tag.news?,
                what: Some(tag.what),
                turn: tag.turn,
            })
        })
        .map_or(Who::Nobody, Who::Caller)
    }

    /// Anybody who can say something of roots.
    fn anybody(&self) -> Who {
        let calls = self.listening().into_iter();
        let best = calls.max_by_key(|tag| (tag.late, tag.since));
        let caller = best.and_then(|tag| self.hears_roots(&tag));
        caller.map_or(Who::Nobody, |(caller, _)| Who::Caller(caller))
    }

    fn listening(&self) -> Vec<Tag> {
        self.pending.see(|waiter| match &waiter.role {
            Role::Call(tag) if tag.news.is_some() => Some(tag.clone()),
            _ => None,
        })
    }

    /// Whether the server logs to its clients.
    pub(in crate::actors) fn set_logs(&self, logs: bool) {
        self.asking.logs.store(logs, Ordering::Relaxed);
    }

    /// Has the server log from this level on, if it was told of a graver one so far.
    pub(in crate::actors) async fn heed(self: &Arc<Self>, level: Level) {
        let asking = &self.asking;
        if !asking.logs.load(Ordering::Relaxed) {
            return;
        }
        let told = asking.level.fetch_min(level as u8, Ordering::Relaxed);
        if told <= level as u8 {
            return;
        }
        let params = format!("{{\"level\":\"{}\"}}", level.word());
        let deadline = Instant::now() + LOG_LEVEL_WAIT;
        // One that does not take it logs as it did.
        let set = self.ask("logging/setLevel", params.as_bytes(), deadline);
        if set.await.is_err() {
            asking.level.store(NO_LEVEL, Ordering::Relaxed);
        }
    }

    /// The server logs. A log message does not say for which call: it is told to the one under way, or to one of
    /// several if all are of one session, which then are told in turn.
    pub(in crate::actors) fn logged(&self, line: Bytes) {
        let Some(level) = envelope::log_level(&line) else {
            return;
        };
        if self.logged_for_task(&line, level) {
            return;
        }
        let mut tags = self.tags();
        if tags.iter().any(|tag| !tag.task) {
            tags.retain(|tag| !tag.task);
        }
        let mut sessions = tags.iter().map(|tag| tag.session.id());
        let first = sessions.next();
        if sessions.any(|other| Some(other) != first) {
            return;
        }
        let hears = |tag: &&Tag| tag.level.is_some_and(|least| least <= level);
        let latest = tags.iter().filter(hears).max_by_key(|tag| tag.since);
        if let Some(news) = latest.and_then(|tag| tag.news.as_ref()) {
            tell(news, News::Log(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::Semaphore;

    use super::super::turn::InTurn;
    use super::*;
    use crate::domain::ids::ID_BYTES;

    #[test]
    fn what_is_too_large_to_be_news_is_not_told() {
        let (listener, mut news) = mpsc::channel(MCP_QUESTIONS_MAX * 2);
        let log = |bytes| News::Log(Bytes::from(vec![b'x'; bytes]));
        tell(&listener, log(NEWS_BYTES_MAX + 1));
        assert!(news.try_recv().is_err());
        tell(&listener, log(NEWS_BYTES_MAX));
        assert!(news.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_was_overtaken_is_asked_again_once_it_is_alone() {
        let form = Questions::NONE.with(Question::Elicitation);
        let (handle, mut frames) = Handle::new(1, 4, Asking::new(form, form, Arc::default()));
        handle.open();
        let until = Instant::now() + Duration::from_secs(60);
        let turns = Arc::new(Semaphore::new(1));
        let begin = async || {
            let permit = Arc::clone(&turns).acquire_owned().await.unwrap();
            InTurn::new(Arc::clone(&turns), permit)
        };
        let first = begin().await;
        first.turn().goes_out();
        let second = begin().await;
        first.turn().comes_in(until).await;
        let mut hears = Vec::new();
        let mut calls = Vec::new();
        for (n, turn) in [(1, &first), (2, &second)] {
            let (tell, news) = mpsc::channel(MCP_QUESTIONS_MAX * 2);
            let tag = Tag {
                news: Some(tell),
                turn: Some(turn.turn()),
                ..Tag::for_tests([n; ID_BYTES])
            };
            let handle = Arc::clone(&handle);
            calls.push(tokio::spawn(async move {
                let line = |id| envelope::request(id, "tools/call", b"{}");
                let _ = handle.call(tag, line, until, || true).await;
            }));
            frames.recv().await.unwrap();
            hears.push(news);
        }
        let ask = |id: &str| {
            let line = format!(r#"{{"id":{id},"method":"elicitation/create","params":{{}}}}"#);
            handle.asked(id, "elicitation/create", line.as_bytes());
        };
        // Either could be meant: neither is asked.
        ask("1");
        assert!(hears.iter_mut().all(|news| news.try_recv().is_err()));
        calls.pop().unwrap().abort();
        tokio::time::sleep(Duration::from_millis(1)).await;
        ask("2");
        assert!(matches!(hears[0].try_recv(), Ok(News::Asked(_))));
    }
}
