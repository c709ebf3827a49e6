//! A server that answers as a test says, and counts what it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// Answers a request, whose HTTP method and message it is given; `None` closes the connection.
pub(crate) type Script = dyn Fn(&str, &Value) -> Option<(u16, &'static str, String)> + Send + Sync;

/// The kind of a stream that tells nothing and does not end.
pub(crate) const OPEN: &str = "text/event-stream; without=end";

pub(crate) struct Fake {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub(crate) fn start(
        script: impl Fn(&str, &Value) -> Option<(u16, &'static str, String)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let heard = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
                std::thread::spawn(move || serve(stream, &heard, &*script));
            }
        });
        Self { url, asked }
    }

    /// How often this was asked: a method of JSON-RPC, or of HTTP where there is no message.
    pub(crate) fn count(&self, method: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|one| *one == method).count()
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<String>>, script: &Script) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or_default() == 0 {
            return;
        }
    }
    let verb = head.split(' ').next().unwrap().to_owned();
    let length = head
        .to_lowercase()
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).unwrap();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let method = message["method"].as_str().unwrap_or(&verb).to_owned();
    asked.lock().unwrap().push(method);
    let answer = script(&verb, &message);
    if let Some((_, OPEN, _)) = answer {
        let head = format!("HTTP/1.1 200 X\r\nContent-Type: {OPEN}\r\n\r\n: well\n\n");
        _ = reader.get_mut().write_all(head.as_bytes());
        // Until the other side goes.
        _ = reader.read(&mut [0]);
    } else if let Some((status, kind, body)) = answer {
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nMcp-Session-Id: s\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        _ = reader.get_mut().write_all(head.as_bytes());
    }
}

/// An answer with JSON.
pub(crate) fn result(message: &Value, result: Value) -> Option<(u16, &'static str, String)> {
    let answer = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    Some((200, "application/json", answer.to_string()))
}

/// What a server that is well says to the beginning; else `None`.
pub(crate) fn begun(message: &Value) -> Option<(u16, &'static str, String)> {
    match message["method"].as_str() {
        Some("initialize") => result(
            message,
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "fake", "version": "1"}}),
        ),
        Some(_) if message["id"].is_null() => Some((202, "text/plain", String::new())),
        _ => None,
    }
}

pub(crate) fn refused(status: u16, why: &str) -> Option<(u16, &'static str, String)> {
    let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": why}});
    Some((status, "application/json", error.to_string()))
}
