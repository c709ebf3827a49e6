//! Servers of the tests: npm's reference server, and one that does wrong on command.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::tools;
use crate::world::{Http, PATIENCE};

/// A server of a test's; dropping it ends it.
pub(super) struct Server {
    child: Child,
    pub(super) port: u16,
}

impl Server {
    /// Starts a program that listens on the port in its environment, and waits until it does.
    pub(super) fn start(command: Command) -> Self {
        Self::at(free_port(), command)
    }

    fn at(port: u16, mut command: Command) -> Self {
        let child = command
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { child, port };
        server.wait();
        server
    }

    fn wait(&mut self) {
        let since = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the test's server ended: {ended:?}");
            assert!(
                since.elapsed() < PATIENCE,
                "the test's server never listens"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The reference server of npm.
    pub(super) fn everything(mode: &str) -> Option<Self> {
        let program = tools::npm_server("server-everything")?;
        let mut command = Command::new(program.program);
        command.args(program.args).arg(mode);
        Some(Self::start(command))
    }

    /// The one that does wrong on command.
    pub(super) fn faulty() -> Self {
        Self::start(faulty())
    }

    /// The same, on the port of one that has ended.
    pub(super) fn faulty_at(port: u16) -> Self {
        Self::at(port, faulty())
    }

    /// The same, over TLS with this certificate.
    pub(super) fn faulty_over_tls(cert: &Path, key: &Path) -> Self {
        let mut command = faulty();
        command.env("CERT", cert).env("KEY", key);
        Self::start(command)
    }

    /// What it does from now on, until it is told otherwise.
    pub(super) fn command(&self, what: &Value) {
        let answer = self.http().raw(&post("/command", &what.to_string()));
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The requests it saw.
    pub(super) fn seen(&self) -> Vec<Value> {
        let answer = self
            .http()
            .raw(b"GET /seen HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// How many requests with this method it saw.
    pub(super) fn count(&self, method: &str) -> usize {
        let seen = self.seen();
        seen.iter().filter(|one| one["method"] == method).count()
    }

    /// How many requests with this verb of HTTP it saw.
    pub(super) fn verbs(&self, verb: &str) -> usize {
        self.seen().iter().filter(|one| one["verb"] == verb).count()
    }

    fn http(&self) -> Http {
        Http::new(&self.url(""))
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

fn faulty() -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/remote.py");
    let mut command = Command::new("python3");
    command.arg(script);
    command
}

fn post(path: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
