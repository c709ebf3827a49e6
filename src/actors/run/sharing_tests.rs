//! Many sessions on one run, all with the same ids: whatever order their calls, the server's news, its answers, its
//! questions and their leaving come in, nobody is told what is another's. The pumps are the real ones; the server is the
//! test.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::super::calls::{News, Tag};
use super::super::handle::{Asking, CallError, Handle, Reply};
use super::super::record::RunRecord;
use super::super::slot::{Occupant, Order};
use super::pumps;
use crate::domain::ids::ID_BYTES;
use crate::domain::talk::{Question, Questions};
use crate::protocol::envelope::{self, Meta};

/// What happens next. Numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// A client calls, under the id and with the token that all use.
    Call(u8),
    /// The server tells of progress with a call.
    Progress(u8),
    /// It answers a call.
    Answer(u8),
    /// It answers one again, or one that never was.
    AnswerAgain(u8),
    /// A client leaves, or cancels.
    Leave(u8),
    /// The server asks something, under the id of one of the calls.
    Ask(u8),
    /// It takes the question back.
    Withdraw(u8),
    /// It logs something.
    Log,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<u8>().prop_map(Step::Call),
        3 => any::<u8>().prop_map(Step::Progress),
        2 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::AnswerAgain),
        1 => any::<u8>().prop_map(Step::Leave),
        2 => any::<u8>().prop_map(Step::Ask),
        1 => any::<u8>().prop_map(Step::Withdraw),
        1 => Just(Step::Log),
    ]
}

/// One client's call.
struct Caller {
    /// What stands in everything that is its own.
    nonce: u64,
    session: u8,
    news: mpsc::Receiver<News>,
    task: JoinHandle<Result<Reply, CallError>>,
}

/// A call as the server has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AtServer {
    id: u64,
    nonce: u64,
}

struct House {
    handle: Arc<Handle>,
    from: BufReader<ReadHalf<DuplexStream>>,
    to: WriteHalf<DuplexStream>,
    callers: Vec<Caller>,
    open: Vec<AtServer>,
    over: Vec<AtServer>,
    seen: HashMap<u64, u64>,
    nonces: u64,
}

impl House {
    fn new() -> Self {
        let form = Questions::NONE.with(Question::Elicitation);
        let asking = Asking::new(form, form, Arc::default());
        let (handle, frames) = Handle::new(1, 64, asking);
        handle.open();
        let occupant = Occupant {
            epoch: 1,
            handle: Arc::clone(&handle),
            orders: watch::Sender::new(Order::Run),
            scope: None,
            record: Arc::new(RunRecord::new(1)),
        };
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (stdout, stdin) = tokio::io::split(ours);
        let (done, _) = oneshot::channel();
        tokio::spawn(pumps::write(Box::new(stdin), frames, occupant.clone()));
        tokio::spawn(pumps::read(Box::new(stdout), 1 << 20, occupant, done));
        let (from, to) = tokio::io::split(theirs);
        Self {
            handle,
            from: BufReader::new(from),
            to,
            callers: Vec::new(),
            open: Vec::new(),
            over: Vec::new(),
            seen: HashMap::new(),
            nonces: 0,
        }
    }

    async fn say(&mut self, line: String) {
        self.to.write_all(line.as_bytes()).await.unwrap();
        self.to.write_all(b"\n").await.unwrap();
        settle().await;
    }

    /// What the server has been told since.
    async fn hear(&mut self) -> Vec<serde_json::Value> {
        settle().await;
        let mut heard = Vec::new();
        let mut line = String::new();
        let soon = Duration::from_millis(1);
        while let Ok(read) = tokio::time::timeout(soon, self.from.read_line(&mut line)).await {
            assert!(read.unwrap() > 0);
            let message: serde_json::Value = serde_json::from_str(&line).unwrap();
            line.clear();
            if message["method"] == "tools/call" {
                let at = AtServer {
                    id: message["id"].as_u64().unwrap(),
                    nonce: message["params"]["arguments"]["nonce"].as_u64().unwrap(),
                };
                assert_eq!(message["params"]["_meta"]["progressToken"], at.id);
                assert_eq!(self.seen.insert(at.id, at.nonce), None, "an id twice");
                self.open.push(at);
            } else if message["method"] == "notifications/cancelled" {
                let id = message["params"]["requestId"].as_u64().unwrap();
                let nonce = self.seen[&id];
                assert!(
                    !self.callers.iter().any(|caller| caller.nonce == nonce),
                    "the call of one who waits was cancelled"
                );
                self.end(id);
            }
            heard.push(message);
        }
        heard
    }

    fn end(&mut self, id: u64) {
        if let Some(at) = self.open.iter().position(|at| at.id == id) {
            self.over.push(self.open.swap_remove(at));
        }
    }

    fn call(&mut self, session: u8) {
        self.nonces += 1;
        let nonce = self.nonces;
        let (tell, news) = mpsc::channel(64);
        let tag = Tag {
            news: Some(tell),
            until: Instant::now() + Duration::from_secs(600),
            level: Some(crate::domain::talk::Level::Debug),
            ..Tag::for_tests([session; ID_BYTES])
        };
        let handle = Arc::clone(&self.handle);
        let task = tokio::spawn(async move {
            let arguments = format!("{{\"nonce\":{nonce}}}");
            let meta = Meta {
                members: b"",
                progress: true,
            };
            let line = |id| envelope::tool_call(id, "echo", arguments.as_bytes(), meta);
            let until = Instant::now() + Duration::from_secs(600);
            handle.call(tag, line, until, || true).await
        });
        self.callers.push(Caller {
            nonce,
            session,
            news,
            task,
        });
    }

    /// A call at the server, if there is any.
    fn one(&self, all: &[AtServer], n: u8) -> Option<AtServer> {
        all.get(usize::from(n) % all.len().max(1)).copied()
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Call(session) => self.call(session % 8),
            Step::Progress(n) => {
                // Also of one that is over: nobody hears that.
                let all = [&self.open[..], &self.over[..]].concat();
                if let Some(AtServer { id, nonce }) = self.one(&all, n) {
                    let params = format!(r#"{{"progressToken":{id},"progress":{nonce}}}"#);
                    self.notify("progress", &params).await;
                }
            }
            Step::Answer(n) => {
                if let Some(AtServer { id, nonce }) = self.one(&self.open, n) {
                    self.end(id);
                    self.say(answer(id, nonce)).await;
                }
            }
            Step::AnswerAgain(n) => {
                let id = self.one(&self.over, n).map_or(1_000_000, |at| at.id);
                self.say(answer(id, 0)).await;
            }
            Step::Leave(n) => {
                if !self.callers.is_empty() {
                    let at = usize::from(n) % self.callers.len();
                    let mut caller = self.callers.swap_remove(at);
                    caller.task.abort();
                    let _ = caller.hear(false).await;
                }
            }
            Step::Ask(n) => {
                // Under an id that a call has, or a question that waits.
                let id = u64::from(n % 4);
                self.say(format!(
                    r#"{{"jsonrpc":"2.0","id":{id},"method":"elicitation/create","params":{{"message":"m"}}}}"#
                ))
                .await;
            }
            Step::Withdraw(n) => {
                let params = format!(r#"{{"requestId":{}}}"#, n % 4);
                self.notify("cancelled", &params).await;
            }
            Step::Log => self.notify("message", r#"{"level":"info","data":1}"#).await,
        }
        settle().await;
        let at_server = self.hear().await;
        // Whoever was asked was alone, and its answer reaches the server under the server's id.
        let alone = self.callers.len() == 1;
        let sessions: HashSet<u8> = self.callers.iter().map(|one| one.session).collect();
        let mut asked = Vec::new();
        for caller in &mut self.callers {
            asked.extend(caller.hear(sessions.len() == 1).await);
        }
        assert!(asked.is_empty() || alone, "one of several was asked");
        if let (Step::Ask(n), [nonce]) = (step, asked.as_slice()) {
            let told = [at_server, self.hear().await].concat();
            let answers = told.iter().filter(|told| told["id"] == n % 4);
            let said = answers.filter(|told| told["result"]["nonce"] == *nonce);
            assert_eq!(said.count(), 1, "{told:?}");
        }
        // Who has an answer has its own, and once.
        let mut waits = Vec::new();
        for caller in self.callers.drain(..) {
            if !caller.task.is_finished() {
                waits.push(caller);
                continue;
            }
            let reply = caller.task.await.unwrap().unwrap();
            let line: serde_json::Value = serde_json::from_slice(&reply.line).unwrap();
            assert_eq!(line["result"]["nonce"], caller.nonce, "a foreign answer");
        }
        self.callers = waits;
    }

    async fn notify(&mut self, method: &str, params: &str) {
        self.say(format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/{method}","params":{params}}}"#
        ))
        .await;
    }
}

impl Caller {
    /// Takes all that it was told, which must be its own; says its nonce to whoever asks, and gives it then.
    async fn hear(&mut self, may_log: bool) -> Option<u64> {
        let mut asked = None;
        while let Ok(news) = self.news.try_recv() {
            match news {
                News::Progress(progress) => {
                    let line: serde_json::Value = serde_json::from_slice(&progress.line).unwrap();
                    assert_eq!(line["params"]["progress"], self.nonce, "foreign news");
                    let token = progress.line.get(progress.token).unwrap();
                    assert_eq!(
                        token,
                        line["params"]["progressToken"].to_string().as_bytes()
                    );
                }
                News::Asked(question) => {
                    assert_eq!(asked.replace(self.nonce), None);
                    let said = format!(r#"{{"nonce":{}}}"#, self.nonce);
                    question.answer(Ok(said.into())).await;
                }
                News::Log(_) => assert!(may_log, "it may be another's"),
                News::Lacks(_) | News::Stands(_) => {}
                News::AskedForTask(_) => panic!("nobody made a task"),
            }
        }
        asked
    }
}

fn answer(id: u64, nonce: u64) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"nonce":{nonce}}}}}"#)
}

/// Lets everybody do what there is to do.
async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nobody_is_told_what_is_anothers(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut house = House::new();
            for step in steps {
                house.take(step).await;
            }
            // Everybody who waits gets its own in the end.
            while let Some(AtServer { id, nonce }) = house.open.first().copied() {
                house.end(id);
                house.say(answer(id, nonce)).await;
                house.take(Step::AnswerAgain(0)).await;
            }
            assert!(house.callers.is_empty(), "{} wait for ever", house.callers.len());
            assert_eq!(house.handle.in_flight(), 0);
        });
    }
}
