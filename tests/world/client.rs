//! A plain HTTP/1.1 client over std: it sends exactly what a test says, well-formed or not.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::PATIENCE;

/// Where to connect.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    address: String,
}

/// An HTTP answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The text of the first content item.
    pub(crate) fn text(&self) -> String {
        let json = self.json();
        json["result"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("no text: {json}"))
            .to_owned()
    }

    /// The stable code, of a failed call or of a flat error.
    pub(crate) fn code(&self) -> String {
        let json = self.json();
        json["metadata"]["error"]
            .as_str()
            .or_else(|| json["error"].as_str())
            .unwrap_or_default()
            .to_owned()
    }
}

/// A registered client.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) http: Http,
    pub(crate) token: String,
    pub(crate) connection: String,
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        let address = url
            .trim_start_matches("http://")
            .trim_end_matches('/')
            .to_owned();
        Self { address }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE * 5)).unwrap();
        stream
    }

    /// Sends these bytes and reads one answer.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(bytes).unwrap();
        read(&mut BufReader::new(stream))
    }

    /// A request as the standard client sends it: chunked, with a content type even on GET.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        body: Option<&[u8]>,
    ) -> Answer {
        self.raw(&request(method, path, token, body))
    }

    pub(crate) fn register_with(&self, key: &str) -> Answer {
        let body = json!({"preshared_key": key, "friendly_name": "test", "host_tool": "tests"});
        self.send(
            "POST",
            "/v1/sessions/register",
            None,
            Some(body.to_string().as_bytes()),
        )
    }

    pub(crate) fn register(&self, key: &str) -> Session {
        let answer = self.register_with(key);
        assert_eq!(answer.status, 201, "{answer:?}");
        let body = answer.json();
        Session {
            http: self.clone(),
            token: body["session_token"].as_str().unwrap().to_owned(),
            connection: body["connection_id"].as_str().unwrap().to_owned(),
        }
    }
}

/// The bytes of a request as the standard client sends it.
pub(crate) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&[u8]>,
) -> Vec<u8> {
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\nContent-Type: application/json\r\n"
    );
    if let Some(token) = token {
        head.push_str(&format!("X-Session-Token: {token}\r\n"));
    }
    let mut bytes = head.into_bytes();
    match body {
        Some(body) => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(64 << 10) {
                bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
        None => bytes.extend(b"\r\n"),
    }
    bytes
}

/// Reads one answer.
pub(crate) fn read(stream: &mut impl BufRead) -> Answer {
    let mut headers = String::new();
    loop {
        let mut line = String::new();
        let read = stream.read_line(&mut line).unwrap();
        if read == 0 || line == "\r\n" {
            break;
        }
        headers.push_str(&line);
    }
    let status = headers
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("not an answer: {headers:?}"));
    let lower = headers.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|value| value.trim().parse::<usize>().ok());
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length, 0);
        stream.read_exact(&mut body).unwrap();
    } else if lower.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim(), 16).unwrap();
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).unwrap();
            chunk.truncate(size);
            if size == 0 {
                break;
            }
            body.extend(chunk);
        }
    }
    Answer {
        status,
        headers,
        body,
    }
}

impl Session {
    pub(crate) fn send(&self, method: &str, path: &str, body: Option<&[u8]>) -> Answer {
        self.http.send(method, path, Some(&self.token), body)
    }

    /// The names of the tools this client sees.
    pub(crate) fn tools(&self) -> Vec<String> {
        let answer = self.send("GET", "/v1/tools", None);
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        let tools = json["tools"].as_array().unwrap();
        tools
            .iter()
            .map(|tool| tool["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A tool call, however it ends.
    pub(crate) fn call(&self, tool: &str, arguments: Value) -> Answer {
        let body = json!({"tool": tool, "arguments": arguments}).to_string();
        self.send("POST", "/v1/tools/invoke", Some(body.as_bytes()))
    }

    /// A tool call that must succeed; the text of its first item.
    pub(crate) fn ask(&self, tool: &str, arguments: Value) -> String {
        let answer = self.call(tool, arguments);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.code(), "", "{}", answer.text());
        answer.text()
    }
}
