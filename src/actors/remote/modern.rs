//! Requests to a server without sessions (MCP 2026-07-28): what each repeats of itself in headers, arguments among
//! it where a tool's schema asks for that.

use std::borrow::Cow;
use std::collections::HashMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::actors::sync::Mutex;
use crate::domain::limits::TOOLS_PER_MCP_MAX;
use crate::protocol::handshake;
use crate::protocol::modern::{HEADER_MISMATCH, VERSION};
use crate::protocol::outbound;
use crate::protocol::repeated::outgoing::{Wants, encoded};

use super::exchange::{self, Errand, Outcome, is_answer};
use super::parts::{Out, Shared};

const VERSION_HEADER: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// The id of a list of tools that nobody but us asked for.
const RELIST: u64 = 0;

/// What a request is.
#[derive(Debug)]
pub(super) struct Spoken {
    method: String,
    /// What it names, for the methods whose names are repeated.
    name: Option<String>,
    /// The arguments of a tool's call.
    arguments: String,
}

/// What tools want repeated, by their names; those that want nothing are not in it.
#[derive(Debug, Default)]
pub(super) struct Repeats(Mutex<HashMap<String, Wants>>);

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, default)]
    method: Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow)]
    uri: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "taskId")]
    task: Option<Cow<'a, str>>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

impl Spoken {
    /// By its line.
    pub(super) fn of(line: &[u8]) -> Self {
        let (method, params) = match serde_json::from_slice::<Line<'_>>(line) {
            Ok(line) => (line.method.into_owned(), line.params.unwrap_or_default()),
            Err(_) => (String::new(), Params::default()),
        };
        let name = match method.as_str() {
            "tools/call" | "prompts/get" => params.name,
            "resources/read" => params.uri,
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task,
            _ => None,
        };
        let arguments = params.arguments.filter(|_| method == "tools/call");
        Self {
            name: name.map(Cow::into_owned),
            arguments: arguments.map_or_else(String::new, |given| given.get().to_owned()),
            method,
        }
    }

    /// Its headers.
    pub(super) fn headers(&self, shared: &Shared) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(VERSION_HEADER, HeaderValue::from_static(VERSION));
        let mut put = |name: HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        put(METHOD, &self.method);
        if let Some(name) = &self.name {
            put(NAME, &encoded(name));
            let known = shared.repeats.0.lock();
            let repeated = known.get(name).filter(|_| self.method == "tools/call");
            for (name, value) in
                repeated.map_or_else(Vec::new, |wants| wants.headers(&self.arguments))
            {
                if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                    put(name, &value);
                }
            }
        }
        headers
    }

    /// Remembers of an answer what tools want repeated.
    pub(super) fn learn(&self, shared: &Shared, line: &[u8]) {
        #[derive(Deserialize)]
        struct Answer<'a> {
            #[serde(borrow)]
            result: &'a RawValue,
        }
        if self.method != "tools/list" {
            return;
        }
        let Ok(Answer { result }) = serde_json::from_slice(line) else {
            return;
        };
        let Ok(page) = handshake::read_tools(result.get().as_bytes()) else {
            return;
        };
        let mut known = shared.repeats.0.lock();
        for tool in page.tools {
            let name = tool.name.to_string();
            let wants = Wants::of(&tool.definition);
            if wants.is_empty() {
                known.remove(&name);
            } else if known.len() < TOOLS_PER_MCP_MAX {
                known.insert(name, wants);
            }
        }
    }

    /// Whether it only listens: its stream may be cut at any time.
    pub(super) fn only_listens(&self) -> bool {
        self.method == "subscriptions/listen"
    }

    /// Whether a refusal may be for what a newer list of tools says.
    pub(super) fn may_say_more(&self, id: u64, line: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Refusal {
            error: Error,
        }
        #[derive(Deserialize)]
        struct Error {
            code: i64,
        }
        self.method == "tools/call"
            && is_answer(line, id)
            && serde_json::from_slice::<Refusal>(line)
                .is_ok_and(|refusal| refusal.error.code == HEADER_MISMATCH)
    }
}

/// Sends a request and carries its answer back. One that was refused for its headers, which is before the server
/// looked at anything else, is sent once more after the tools were listed again.
pub(super) async fn ask(shared: &Shared, out: &Out, errand: &Errand) -> Outcome {
    let outcome = exchange::ask(shared, out, errand).await;
    if !matches!(outcome, Outcome::Mismatch(_)) {
        return outcome;
    }
    let body = outbound::own_params("");
    let body = crate::protocol::envelope::request(RELIST, "tools/list", &body);
    let list = Errand {
        id: RELIST,
        modern: Some(Spoken::of(&body)),
        body,
        begins: false,
    };
    // What is learned of it is learned on the way: nobody waits for the answer.
    let (lines, _) = mpsc::channel(1);
    let nobody = Out {
        lines,
        remarks: out.remarks.clone(),
    };
    match exchange::ask(shared, &nobody, &list).await {
        Outcome::Answered => exchange::ask(shared, out, errand).await,
        _ => outcome,
    }
}
