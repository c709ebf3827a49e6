//! The demo server: one loop reads stdin and answers quick things itself; each slow call runs on
//! a small thread of its own and can be cancelled.
//!
//! Invariant: every request is answered exactly once, or never when it was cancelled. (The
//! hostile modes break this on purpose, in [`super::misbehave`].)

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufReader, stdin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::misbehave::{Flow, Quirk};
use super::tools::{self, Context, Outcome, Tool};
use super::wire::{
    Fault, INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, LINE_BYTES_MAX, Line, METHOD_NOT_FOUND,
    Message, Out, PARSE_ERROR, lock, read_line,
};

/// Versions spoken, oldest first.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];
/// What is answered to a client that asks for any other.
const LATEST: &str = "2025-11-25";
/// Slow calls at once; the next one is refused.
const SLOW_CALLS_MAX: usize = 1024;
/// Bytes of stack of a slow call's thread.
const STACK_BYTES: usize = 256 << 10;
/// Environment variable with the number of tools on one page of `tools/list`.
const PAGE_VARIABLE: &str = "DEMO_PAGE_SIZE";

/// A call's way to be told that nobody waits any more.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    cancelled: Mutex<bool>,
    changed: Condvar,
}

// === impl Cancel ===

impl Cancel {
    fn cancel(&self) {
        *lock(&self.cancelled) = true;
        self.changed.notify_all();
    }

    fn is_cancelled(&self) -> bool {
        *lock(&self.cancelled)
    }

    /// Waits; whether it was cancelled before the time was over.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut cancelled = lock(&self.cancelled);
        while !*cancelled {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            cancelled = match self.changed.wait_timeout(cancelled, left) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }
}

/// One demo server: its stdout, its memory, its calls.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) out: Out,
    /// Random; tells one run of the program from the next, which in a pid namespace have one pid.
    pub(super) run: String,
    pub(super) notes: Mutex<BTreeMap<String, String>>,
    pub(super) held: Mutex<Vec<u8>>,
    pub(super) counts: Mutex<BTreeMap<String, u64>>,
    pub(super) calls_received: AtomicU64,
    pub(super) calls_cancelled: AtomicU64,
    quirk: Quirk,
    page: usize,
    version: OnceLock<&'static str>,
    calls: Mutex<HashMap<String, Arc<Cancel>>>,
    asks: Mutex<HashMap<String, SyncSender<String>>>,
    asked: AtomicU64,
    ended: AtomicBool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Initialize<'a> {
    protocol_version: &'a str,
}

#[derive(Deserialize)]
struct List {
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct Call<'a> {
    name: String,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cancelled<'a> {
    #[serde(borrow)]
    request_id: &'a RawValue,
}

/// Serves until stdin ends.
pub(super) fn serve(quirk: Quirk) -> ExitCode {
    let server = Arc::new(Server::new(quirk));
    if let Some(code) = server.quirk.at_start(&server.out) {
        return code;
    }
    let mut input = BufReader::new(stdin().lock());
    let mut line = Vec::new();
    loop {
        match read_line(&mut input, &mut line) {
            Line::Read => receive(&server, &line),
            Line::TooLong => server.out.fault(Fault::new(
                PARSE_ERROR,
                format!("line over {LINE_BYTES_MAX} bytes"),
            )),
            Line::End => break,
        }
        if line.capacity() > STACK_BYTES {
            line = Vec::new();
        }
    }
    server.ended.store(true, Ordering::Relaxed);
    server.quirk.at_end()
}

/// The version to answer `initialize` with.
pub(super) fn agreed_version(params: Option<&RawValue>) -> &'static str {
    params
        .and_then(|params| serde_json::from_str::<Initialize<'_>>(params.get()).ok())
        .and_then(|asked| {
            VERSIONS
                .into_iter()
                .find(|known| *known == asked.protocol_version)
        })
        .unwrap_or(LATEST)
}

// === impl Server ===

impl Server {
    fn new(quirk: Quirk) -> Self {
        let page = std::env::var(PAGE_VARIABLE)
            .ok()
            .and_then(|size| size.parse().ok())
            .filter(|size| *size > 0)
            .unwrap_or(usize::MAX);
        Self {
            out: Out::new(),
            run: format!("{:016x}", RandomState::new().hash_one(std::process::id())),
            notes: Mutex::default(),
            held: Mutex::default(),
            counts: Mutex::default(),
            calls_received: AtomicU64::new(0),
            calls_cancelled: AtomicU64::new(0),
            quirk,
            page,
            version: OnceLock::new(),
            calls: Mutex::default(),
            asks: Mutex::default(),
            asked: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        }
    }

    /// The version agreed in the handshake, if there was one.
    pub(super) fn agreed(&self) -> Option<&'static str> {
        self.version.get().copied()
    }

    /// Sends the client a request and waits for the answer's text: its result or error as JSON.
    pub(super) fn ask(&self, method: &str, params: Value, wait: Duration) -> Option<String> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = sync_channel(1);
        lock(&self.asks).insert(id.to_string(), answered);
        self.out.call(Some(id), method, params);
        let answer = answer.recv_timeout(wait).ok();
        lock(&self.asks).remove(&id.to_string());
        answer
    }

    fn initialize(&self, params: Option<&RawValue>) -> Value {
        let version = *self.version.get_or_init(|| agreed_version(params));
        json!({
            "protocolVersion": version,
            "capabilities": { "tools": { "listChanged": true } },
            "serverInfo": { "name": "legation-demo", "version": env!("CARGO_PKG_VERSION") },
            "instructions": "A server to try Legation with: notes, sums, sleeps, and ways to die.",
        })
    }

    fn list(&self, params: Option<&RawValue>) -> Result<Value, Fault> {
        let from = match params.map(|params| serde_json::from_str::<List>(params.get())) {
            None | Some(Ok(List { cursor: None })) => 0,
            Some(Ok(List { cursor: Some(at) })) => at
                .parse()
                .ok()
                .filter(|at| *at < tools::TOOLS.len())
                .ok_or_else(|| {
                    Fault::new(INVALID_PARAMS, format!("{at:?} is no cursor of ours"))
                })?,
            Some(Err(why)) => return Err(Fault::new(INVALID_PARAMS, why.to_string())),
        };
        let to = from.saturating_add(self.page).min(tools::TOOLS.len());
        let page: Vec<Value> = tools::TOOLS
            .iter()
            .take(to)
            .skip(from)
            .map(Tool::listed)
            .collect();
        let mut result = json!({ "tools": page });
        if to < tools::TOOLS.len() {
            result["nextCursor"] = Value::String(to.to_string());
        }
        Ok(result)
    }

    fn cancel(&self, params: Option<&RawValue>) {
        let Some(cancelled) =
            params.and_then(|params| serde_json::from_str::<Cancelled<'_>>(params.get()).ok())
        else {
            return;
        };
        if let Some(call) = lock(&self.calls).get(cancelled.request_id.get()) {
            call.cancel();
            self.calls_cancelled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn answered(&self, message: &Message<'_>) {
        let Some(id) = message.id else { return };
        let Some(waiting) = lock(&self.asks).remove(id.get()) else {
            return;
        };
        let text = match (message.result, message.error) {
            (Some(result), _) => format!("{{\"result\":{}}}", result.get()),
            (None, Some(error)) => format!("{{\"error\":{}}}", error.get()),
            (None, None) => "{}".to_owned(),
        };
        let _ = waiting.try_send(text);
    }
}

/// Acts on one line.
fn receive(server: &Arc<Server>, line: &[u8]) {
    let message = match Message::parse(line) {
        Ok(message) => message,
        Err(why) => {
            server.out.fault(Fault::new(PARSE_ERROR, why.to_string()));
            return;
        }
    };
    if let Flow::Handled = server.quirk.before(&message, &server.out) {
        return;
    }
    if message.method.is_empty() {
        server.answered(&message);
        return;
    }
    let Some(id) = message.id else {
        if message.method == "notifications/cancelled" {
            server.cancel(message.params);
        }
        return;
    };
    if server.version.get().is_none() && !matches!(message.method.as_ref(), "initialize" | "ping") {
        let why = format!("{} before initialize", message.method);
        server.out.answer(id, Err(Fault::new(INVALID_REQUEST, why)));
        return;
    }
    match message.method.as_ref() {
        "initialize" => server.out.answer(id, Ok(server.initialize(message.params))),
        "ping" => server.out.answer(id, Ok(json!({}))),
        "tools/list" => server.out.answer(id, server.list(message.params)),
        "tools/call" => call(server, id, message.params),
        other => {
            let why = format!("no method {other} here");
            server
                .out
                .answer(id, Err(Fault::new(METHOD_NOT_FOUND, why)));
        }
    }
    server.quirk.after(&message);
}

fn call(server: &Arc<Server>, id: &RawValue, params: Option<&RawValue>) {
    let parsed = params.map(|params| serde_json::from_str::<Call<'_>>(params.get()));
    let (name, arguments) = match parsed {
        Some(Ok(Call { name, arguments })) => (name, arguments),
        Some(Err(why)) => return refuse(server, id, why.to_string()),
        None => return refuse(server, id, "tools/call without params".to_owned()),
    };
    server.calls_received.fetch_add(1, Ordering::Relaxed);
    let Some(tool) = tools::find(&name) else {
        return refuse(server, id, format!("no tool {name} here"));
    };
    *lock(&server.counts).entry(name).or_default() += 1;
    let nothing = RawValue::from_string("{}".to_owned()).unwrap_or_default();
    let arguments = arguments.map_or(nothing, RawValue::to_owned);
    let context = Context {
        server: Arc::clone(server),
        cancel: Arc::new(Cancel::default()),
    };
    if tool.slow {
        begin_slow(context, tool, id, arguments);
    } else {
        finish(&context, tool, id, &arguments);
    }
}

fn begin_slow(context: Context, tool: &'static Tool, id: &RawValue, arguments: Box<RawValue>) {
    let server = Arc::clone(&context.server);
    {
        let mut calls = lock(&server.calls);
        if calls.len() >= SLOW_CALLS_MAX {
            let why = format!("{SLOW_CALLS_MAX} slow calls run already; try again later");
            return server.out.answer(id, Err(Fault::new(INTERNAL_ERROR, why)));
        }
        calls.insert(id.get().to_owned(), Arc::clone(&context.cancel));
    }
    let own_id = id.to_owned();
    let started = thread::Builder::new()
        .stack_size(STACK_BYTES)
        .spawn(move || {
            finish(&context, tool, &own_id, &arguments);
            lock(&context.server.calls).remove(own_id.get());
        });
    if let Err(why) = started {
        lock(&server.calls).remove(id.get());
        let why = format!("no thread for this call: {why}");
        server.out.answer(id, Err(Fault::new(INTERNAL_ERROR, why)));
    }
}

fn finish(context: &Context, tool: &Tool, id: &RawValue, arguments: &RawValue) {
    let result = match (tool.run)(context, arguments) {
        Ok(Outcome::Texts(texts)) => Ok(content(&texts, false)),
        Ok(Outcome::Json(value)) => Ok(content(&[value.to_string()], false)),
        Ok(Outcome::Failed(why)) => Ok(content(&[why], true)),
        Ok(Outcome::Silent) => return,
        Err(fault) => Err(fault),
    };
    if !context.cancel.is_cancelled() && !context.server.ended.load(Ordering::Relaxed) {
        context.server.out.answer(id, result);
    }
}

fn content(texts: &[String], is_error: bool) -> Value {
    let items: Vec<Value> = texts
        .iter()
        .map(|text| json!({ "type": "text", "text": text }))
        .collect();
    json!({ "content": items, "isError": is_error })
}

fn refuse(server: &Server, id: &RawValue, why: String) {
    server.out.answer(id, Err(Fault::new(INVALID_PARAMS, why)));
}
