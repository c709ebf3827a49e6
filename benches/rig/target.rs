//! The things that are loaded: how each is started, and what its sessions look like.

use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::face::Era;
use super::http::Endpoint;
use super::load::{Dialect, Session};
use super::ours::{Gateway, Settings};
use super::peers::Peer;

/// How long a target may take to end by itself.
const STOP_MAX: Duration = Duration::from_secs(25);

/// What is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// A bare axum POST.
    Floor,
    /// The bare hop, a child for each session.
    Hop,
    /// The bare hop, one child.
    HopShared,
    /// The product with `audit.durability = "buffered"`.
    Buffered,
    /// The product as it is by default: every call's record is on the disk first.
    Durable,
    /// The product with buffered audit behind its own self-signed certificate.
    Tls,
    /// The product with buffered audit, as MCP clients of this era call it.
    Face(Era),
    /// Somebody else's.
    Peer(Peer),
}

/// What a target has to offer in a scenario.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// Calls in flight.
    pub(crate) connections: usize,
    /// Sessions, each with a child of its own unless `shared`.
    pub(crate) sessions: usize,
    /// One child for all sessions.
    pub(crate) shared: bool,
    /// The product's binary; its `demo-mcp --echo` is everybody's child.
    pub(crate) product: PathBuf,
}

/// A started target; stopped when dropped.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) sessions: Vec<Session>,
    /// From spawn to the port being open.
    pub(crate) started_in: Duration,
    child: Child,
    /// The process leads a group that is signalled as a whole.
    group: bool,
    /// Our roles end when this closes, also when the bench is killed.
    _lifeline: Option<ChildStdin>,
    /// Its files, removed after its end.
    files: Option<Arc<TempDir>>,
}

// === impl Target ===

impl Target {
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Floor => "axum floor".to_owned(),
            Self::Hop => "bare hop".to_owned(),
            Self::HopShared => "bare hop, shared".to_owned(),
            Self::Buffered => "legation, audit buffered".to_owned(),
            Self::Durable => "legation, audit durable".to_owned(),
            Self::Tls => "legation, audit buffered, TLS".to_owned(),
            Self::Face(era) => format!("legation, audit buffered, MCP {}", era.version()),
            Self::Peer(peer) => peer.name().to_owned(),
        }
    }

    /// Starts the target and opens the scenario's sessions.
    pub(crate) async fn start(&self, scenario: &Scenario) -> Result<Running> {
        match self {
            Self::Floor => role("floor", self.name(), scenario),
            Self::Hop => role("hop", self.name(), scenario),
            Self::HopShared => role("hop-shared", self.name(), scenario),
            Self::Buffered | Self::Face(_) => self.ours(scenario, "buffered", false).await,
            Self::Durable => self.ours(scenario, "durable", false).await,
            Self::Tls => self.ours(scenario, "buffered", true).await,
            Self::Peer(peer) => peer.start(scenario).await,
        }
    }

    /// Whether it is the product: then nothing may fail.
    pub(crate) fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Buffered | Self::Durable | Self::Tls | Self::Face(_)
        )
    }

    /// Publishes the echo server and registers one client of one user for each session.
    async fn ours(
        &self,
        scenario: &Scenario,
        durability: &'static str,
        tls: bool,
    ) -> Result<Running> {
        let settings = Settings {
            durability,
            tls,
            ..Settings::default()
        };
        let mut gateway = Gateway::start(self.name(), &scenario.product, settings).await?;
        let sharing = if scenario.shared {
            "shared"
        } else {
            "per_user"
        };
        gateway.publish("bench", &["--sharing", sharing], &["demo-mcp", "--echo"])?;
        for number in 0..scenario.sessions {
            let user = format!("user{number}");
            let session = match self {
                Self::Face(era) => {
                    gateway.user(&user)?;
                    let key = gateway.key(&user)?;
                    gateway.face_session(&key, "/mcp/bench", *era).await?
                }
                _ => gateway.client(&user).await?.session("echo"),
            };
            gateway.running.sessions.push(session);
        }
        Ok(gateway.running)
    }
}

// === impl Running ===

impl Running {
    /// Wraps a started process.
    pub(crate) fn new(name: String, mut child: Child, began: Instant) -> Self {
        let lifeline = child.stdin.take();
        Self {
            name,
            pid: child.id(),
            sessions: Vec::new(),
            started_in: began.elapsed(),
            child,
            group: false,
            _lifeline: lifeline,
            files: None,
        }
    }

    /// Says that the process leads a process group.
    pub(crate) fn in_a_group(mut self) -> Self {
        self.group = true;
        self
    }

    /// Keeps its files until it has ended.
    pub(crate) fn keep(mut self, files: Arc<TempDir>) -> Self {
        self.files = Some(files);
        self
    }

    /// Whether the process is gone already.
    pub(crate) fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        self.files.as_ref().map(|files| files.path().join(name))
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        self.files
            .as_ref()
            .and_then(|files| std::fs::read_to_string(files.path().join("server.log")).ok())
            .unwrap_or_default()
    }

    fn signal(&self, signal: &str) {
        let whom = if self.group {
            format!("-{}", self.pid)
        } else {
            self.pid.to_string()
        };
        let _ = Command::new("kill")
            .args([signal, "--", &whom])
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("-TERM");
        let until = Instant::now() + STOP_MAX;
        while !self.ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        if self.group {
            // Children that outlived their gateway.
            self.signal("-KILL");
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts this very program in a role of its own.
fn role(role: &str, name: String, scenario: &Scenario) -> Result<Running> {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--role", role, "--product"])
        .arg(&scenario.product)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let addr = announced(&mut child)?;
    let mut running = Running::new(name, child, began);
    running.sessions = (0..scenario.sessions)
        .map(|number| Session {
            endpoint: Endpoint::plain(addr),
            head: Arc::from(format!(
                "POST /mcp HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\nx-session: {number}\r\n"
            )),
            dialect: Dialect::Rpc,
            tool: Arc::from("echo"),
            argument: Arc::from("text"),
        })
        .collect();
    Ok(running)
}

/// Says on stdout where a role listens, and ends it when its stdin closes.
pub(crate) fn announce(addr: SocketAddr) -> Result<()> {
    let mut stdout = stdout().lock();
    writeln!(stdout, "{addr}")?;
    stdout.flush()?;
    std::thread::spawn(|| {
        let _ = stdin().lock().read(&mut [0]);
        std::process::exit(0);
    });
    Ok(())
}

fn announced(child: &mut Child) -> Result<SocketAddr> {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut line)?;
    line.trim()
        .parse()
        .with_context(|| format!("no address in {line:?}"))
}

/// A port that was free just now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Where the product's binary is when nobody says: next to the benches' own directory.
pub(crate) fn default_product() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let dir = own
        .ancestors()
        .nth(2)
        .context("the bench has no directory")?;
    Ok(Path::new(dir).join("legation"))
}
