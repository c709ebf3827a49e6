//! What the server of one call asks a client without sessions: gathered for a moment, then answered to the client
//! as what is wanted of it before there is a result. It comes back with the answers and what seals them to this
//! call ([`crate::protocol::state`]).

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;
use tokio::time::Instant;

use super::answer;
use super::passing::{Bounds, Passing};
use crate::actors::front::Asked;
use crate::domain::limits::{MCP_ROUNDS_MAX, QUESTIONS_GATHER};
use crate::domain::talk::Question;
use crate::protocol::modern;
use crate::protocol::questions;
use crate::protocol::state::{self, Bound, Sealer, Stub};

/// What a client answers, as it wrote it, by the names that were given to the questions.
pub(super) type Answers = BTreeMap<String, Box<RawValue>>;

/// The questions of one call.
#[derive(Debug)]
pub(super) struct Rounds {
    /// In whose name the client is answered.
    pub(super) server: String,
    /// Whose call it is, and where it came to.
    principal: String,
    /// What was asked: its method and its parameters; `None` if that has no questions.
    request: Option<(&'static str, Bytes)>,
    /// What it is found by.
    pub(super) call: [u8; 16],
    /// How often the client was asked.
    pub(super) round: u16,
    asked: u32,
    gathered: Vec<(String, Box<Asked>)>,
    /// When the gathered ones are passed on.
    pub(super) due: Option<Instant>,
    /// What the client cannot answer and was not asked for that.
    pub(super) lacks: Option<Question>,
    /// For servers that hold no call.
    passing: Passing,
}

impl Rounds {
    pub(super) fn new(
        server: String,
        principal: String,
        request: Option<(&'static str, Bytes)>,
        call: [u8; 16],
        passing: Passing,
    ) -> Self {
        Self {
            server,
            principal,
            request,
            call,
            round: 0,
            asked: 0,
            gathered: Vec::new(),
            due: None,
            lacks: None,
            passing,
        }
    }

    /// What its answers go through if its server is without sessions as well.
    pub(super) fn passing(&self) -> Bounds<'_> {
        Bounds {
            passing: &self.passing,
            server: &self.server,
            principal: &self.principal,
            request: self.request.as_ref(),
        }
    }

    /// One more question.
    pub(super) fn gather(&mut self, asked: Box<Asked>) {
        self.asked += 1;
        self.gathered.push((format!("q{}", self.asked), asked));
        self.wait();
    }

    fn wait(&mut self) {
        self.due
            .get_or_insert_with(|| Instant::now() + QUESTIONS_GATHER);
    }

    /// Begins another round: what the client is told, and until when it may come back. `None` if there is nothing
    /// to ask, or it was asked too often; then the server has been told.
    pub(super) fn ask(&mut self, sealer: &Sealer, wall_ms: i64) -> Option<(Bytes, Instant)> {
        self.due = None;
        self.gathered.retain(|(_, asked)| !asked.is_withdrawn());
        let request = self.request.clone();
        let Some((method, params)) = request.filter(|_| self.round < MCP_ROUNDS_MAX) else {
            self.give_up();
            return None;
        };
        let until = self.gathered.iter().map(|(_, asked)| asked.until).min()?;
        self.round += 1;
        let left = until.saturating_duration_since(Instant::now());
        let stub = Stub {
            call: self.call,
            round: self.round,
            until: wall_ms.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX)),
        };
        let bound = Bound {
            principal: &self.principal,
            request: &state::digest(method, &params),
        };
        Some((self.written(&sealer.seal(stub, bound)), until))
    }

    /// What nobody will answer any more.
    pub(super) fn forget(&mut self) -> Vec<(String, Box<Asked>)> {
        self.due = None;
        std::mem::take(&mut self.gathered)
    }

    /// There is no room for a call that waits: the server is told that nobody answers.
    pub(super) fn give_up(&mut self) {
        self.gathered.clear();
    }

    fn written(&self, state: &str) -> Bytes {
        let length: usize = self
            .gathered
            .iter()
            .map(|(_, asked)| asked.params.len())
            .sum();
        let mut out = BytesMut::with_capacity(length + 256);
        out.put_slice(b"{\"resultType\":\"input_required\",");
        out.put_slice(modern::server_info(&self.server).as_bytes());
        out.put_slice(b",\"inputRequests\":{");
        for (at, (name, asked)) in self.gathered.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let head = format!(
                "{comma}\"{name}\":{{\"method\":\"{}\",\"params\":",
                asked.method
            );
            out.put_slice(head.as_bytes());
            out.put_slice(&questions::without_elicitation_id(&asked.params));
            out.put_u8(b'}');
        }
        out.put_slice(b"},\"requestState\":\"");
        out.put_slice(state.as_bytes());
        out.put_slice(b"\"}");
        out.freeze()
    }

    /// Why these are no answers to what was asked, if they are none.
    pub(super) fn wrong(&self, answers: &Answers) -> Option<String> {
        let mut names = self.gathered.iter().map(|(name, _)| name);
        let wrong = |name: &&String| {
            answers
                .get(*name)
                .is_some_and(|given| !given.get().starts_with('{'))
        };
        names
            .find(wrong)
            .map(|name| format!("`inputResponses.{name}` must be an object: the result itself"))
    }

    /// Passes on what the client answers. What it does not is asked again.
    pub(super) fn answer(&mut self, mut answers: Answers) {
        let mut left = Vec::new();
        for (name, asked) in std::mem::take(&mut self.gathered) {
            match answers.remove(&name) {
                // It may wait for the call's turn, and for the server to read.
                Some(given) => {
                    let given = Bytes::copy_from_slice(given.get().as_bytes());
                    tokio::spawn(asked.answer(Ok(given)));
                }
                None => left.push((name, asked)),
            }
        }
        self.gathered = left;
        if !self.gathered.is_empty() {
            self.wait();
        }
    }

    /// The error in place of one that came for want of something that the client cannot do.
    pub(super) fn incapable(&self, id: &str) -> Option<Bytes> {
        let question = self.lacks.filter(|_| self.round == 0)?;
        let text = format!(
            "this request needs a client that answers `{}`, and yours does not declare it",
            question.word()
        );
        let needed = questions::required(question);
        let data = format!("{{\"requiredCapabilities\":{needed}}}");
        let code = modern::CAPABILITY_MISSING;
        Some(answer::body_of_error_with(id, code, &text, &data))
    }
}
