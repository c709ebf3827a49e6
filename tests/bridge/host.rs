//! An AI tool that speaks stdio only, with the bridge as its server.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{LEGATION, PATIENCE};

/// A bridge that runs, and both ends of its pipes.
pub(crate) struct Host {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What came while another thing was waited for.
    put_by: Vec<Value>,
    next: u64,
    home: PathBuf,
}

/// The command of a bridge whose home is `home`.
pub(crate) fn bridge(home: &Path, url: &str, key: &str) -> Command {
    let mut command = Command::new(LEGATION);
    command
        .arg("bridge")
        .env_clear()
        .env("HOME", home)
        .env("LEGATION_URL", url)
        .env("LEGATION_KEY", key);
    command
}

impl Host {
    /// Starts a bridge to this address.
    pub(crate) fn start(home: &Path, url: &str, key: &str) -> Self {
        Self::spawn(&mut bridge(home, url, key), home)
    }

    pub(crate) fn spawn(command: &mut Command, home: &Path) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (tell, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            put_by: Vec::new(),
            next: 0,
            home: home.to_owned(),
        }
    }

    /// Begins, and gives the result of `initialize`.
    pub(crate) fn begin(&mut self) -> Value {
        let id = self.ask("initialize", initialize());
        let answer = self.answer(&id);
        self.tell("notifications/initialized", json!({}));
        answer["result"].clone()
    }

    pub(crate) fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line.as_bytes()).unwrap();
        stdin.write_all(b"\n").unwrap();
        stdin.flush().unwrap();
    }

    pub(crate) fn tell(&mut self, method: &str, params: Value) {
        self.write(&json!({"jsonrpc": "2.0", "method": method, "params": params}).to_string());
    }

    /// Sends a request; its id.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = json!(self.next);
        self.ask_as(&id, method, params);
        id
    }

    pub(crate) fn ask_as(&mut self, id: &Value, method: &str, params: Value) {
        let line = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.write(&line.to_string());
    }

    /// Calls a tool; the request's id.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.ask("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// The next message, whatever it is.
    fn next(&mut self, until: Instant) -> Option<Value> {
        let left = until.saturating_duration_since(Instant::now());
        let line = self.lines.recv_timeout(left).ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}")))
    }

    /// The first message that fits; others are put by.
    pub(crate) fn find(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.put_by.iter().position(&fits) {
            return self.put_by.remove(at);
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let Some(message) = self.next(until) else {
                panic!("never: {what}; but {:?}\n{}", self.put_by, self.log());
            };
            if fits(&message) {
                return message;
            }
            self.put_by.push(message);
        }
    }

    /// The answer to a request.
    pub(crate) fn answer(&mut self, id: &Value) -> Value {
        self.find(&format!("the answer to {id}"), |message| {
            message["id"] == *id && message["method"].is_null()
        })
    }

    /// The next notification of this method.
    pub(crate) fn told(&mut self, method: &str) -> Value {
        self.find(method, |message| message["method"] == method)
    }

    /// Calls a tool and gives its answer.
    pub(crate) fn done(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.call(tool, arguments);
        self.answer(&id)
    }

    pub(crate) fn tools(&mut self) -> Vec<String> {
        let id = self.ask("tools/list", json!({}));
        let answer = self.answer(&id);
        let tools = answer["result"]["tools"].as_array();
        let tools = tools.unwrap_or_else(|| panic!("no tools: {answer}"));
        let name = |tool: &Value| tool["name"].as_str().unwrap().to_owned();
        tools.iter().map(name).collect()
    }

    /// What came before the last thing that was waited for.
    pub(crate) fn before(&mut self) -> Vec<Value> {
        std::mem::take(&mut self.put_by)
    }

    /// Whatever else comes within a while.
    pub(crate) fn rest(&mut self, within: Duration) -> Vec<Value> {
        let until = Instant::now() + within;
        let mut rest = std::mem::take(&mut self.put_by);
        while let Some(message) = self.next(until) {
            rest.push(message);
        }
        rest
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Closes its input and waits for its end.
    pub(crate) fn leave(&mut self) -> ExitStatus {
        drop(self.stdin.take());
        self.ended()
    }

    pub(crate) fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        let path = self.home.join(".local/state/legation/bridge.log");
        if let Ok(mut file) = std::fs::File::open(path) {
            file.read_to_string(&mut text).unwrap();
        }
        text
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

pub(crate) fn initialize() -> Value {
    json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "host", "version": "1"}})
}

pub(crate) fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"]
        .as_str()
        .unwrap_or_default()
}
