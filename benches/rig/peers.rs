//! Other gateways, as `scripts/peers.sh` installs them, driven over Streamable HTTP.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Connection, Endpoint};
use super::load::{Dialect, Session};
use super::target::{Running, Scenario, free_port};

/// How long a peer may take until its first session works.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two tries.
const TRY_EVERY: Duration = Duration::from_millis(50);
const VERSION: &str = "2025-06-18";

/// A gateway to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// npm, a child for each session.
    Supergateway,
    /// Rust, a child for each session; answers string ids only.
    Mcpway,
    /// Rust, one child.
    McpProxyRs,
    /// Rust, one child.
    McpAggregator,
    /// Python, one child.
    McpProxyPy,
}

// === impl Peer ===

impl Peer {
    pub(crate) const ALL: [Self; 5] = [
        Self::Mcpway,
        Self::Supergateway,
        Self::McpAggregator,
        Self::McpProxyRs,
        Self::McpProxyPy,
    ];
    /// The peers that isolate sessions.
    pub(crate) const ISOLATING: [Self; 2] = [Self::Mcpway, Self::Supergateway];
    /// The peers with one child for everybody.
    pub(crate) const SHARING: [Self; 3] = [Self::McpAggregator, Self::McpProxyRs, Self::McpProxyPy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Supergateway => "supergateway 4.0.0 --stateful",
            Self::Mcpway => "mcpway 0.2.1 --stateful",
            Self::McpProxyRs => "mcp-proxy 0.6.0 (Rust)",
            Self::McpAggregator => "mcp-aggregator 0.1.0",
            Self::McpProxyPy => "mcp-proxy 0.13.0 (Python)",
        }
    }

    const fn dialect(self) -> Dialect {
        match self {
            Self::Mcpway => Dialect::RpcStringId,
            _ => Dialect::Rpc,
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::McpProxyRs => "/",
            Self::McpProxyPy => "/mcp/",
            _ => "/mcp",
        }
    }

    fn command(self, port: u16, product: &Path, dir: &Path) -> Result<Command> {
        let product = product
            .to_str()
            .context("the product's path is not UTF-8")?;
        let one_string = format!("{product} demo-mcp --echo");
        let port = port.to_string();
        let mut command = Command::new(self.program()?);
        match self {
            Self::Supergateway => command
                .args([
                    "--stdio",
                    &one_string,
                    "--outputTransport",
                    "streamableHttp",
                ])
                .args(["--stateful", "--logLevel", "none", "--port", &port]),
            Self::Mcpway => command
                .args([
                    "--stdio",
                    &one_string,
                    "--output-transport",
                    "streamable-http",
                ])
                .args(["--stateful", "--log-level", "none", "--port", &port]),
            Self::McpProxyPy => command
                .args([
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &port,
                    "--log-level",
                    "ERROR",
                ])
                .args(["--", product, "demo-mcp", "--echo"]),
            Self::McpProxyRs => {
                let config = format!(
                    "[proxy]\nname = \"bench\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
                     [[backends]]\nname = \"e\"\ntransport = \"stdio\"\ncommand = {product:?}\n\
                     args = [\"demo-mcp\", \"--echo\"]\n"
                );
                let path = dir.join("proxy.toml");
                std::fs::write(&path, config)?;
                command.arg("--config").arg(path)
            }
            Self::McpAggregator => {
                let server = json!({"type": "stdio", "command": product, "args": ["demo-mcp", "--echo"], "enabled": true});
                let path = dir.join("mcp.config.json");
                std::fs::write(&path, json!({"servers": {"e": server}}).to_string())?;
                let addr = format!("127.0.0.1:{port}");
                command.arg("--config").arg(path).args(["--addr", &addr])
            }
        };
        Ok(command)
    }

    fn program(self) -> Result<PathBuf> {
        let path = match self {
            Self::Supergateway => "npm/node_modules/.bin/supergateway",
            Self::Mcpway => "cargo/bin/mcpway",
            Self::McpProxyRs => "cargo/bin/mcp-proxy",
            Self::McpAggregator => "cargo/bin/mcp-aggregator",
            Self::McpProxyPy => "venv/bin/mcp-proxy",
        };
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/peers")
            .join(path);
        ensure!(
            path.exists(),
            "{} is not installed; run scripts/peers.sh",
            self.name()
        );
        Ok(path)
    }

    /// Starts the peer and opens the sessions.
    pub(crate) async fn start(self, scenario: &Scenario) -> Result<Running> {
        let dir = TempDir::new()?;
        let port = free_port()?;
        let began = Instant::now();
        let child = self
            .command(port, &scenario.product, dir.path())?
            .current_dir(dir.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut running = Running::new(self.name().to_owned(), child, began)
            .in_a_group()
            .keep(Arc::new(dir));
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        while running.sessions.len() < scenario.sessions {
            match self.session(addr).await {
                Ok(session) => running.sessions.push(session),
                Err(why) if began.elapsed() > START_MAX => {
                    return Err(why.context(format!("{} did not get ready", self.name())));
                }
                Err(_) => tokio::time::sleep(TRY_EVERY).await,
            }
            if running.sessions.len() == 1 {
                running.started_in = began.elapsed();
            }
        }
        Ok(running)
    }

    async fn session(self, addr: SocketAddr) -> Result<Session> {
        let endpoint = Endpoint::plain(addr);
        let mut connection = Connection::open(&endpoint).await?;
        let mut head = format!(
            "POST {} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\n",
            self.path()
        );
        let initialize = json!({
            "protocolVersion": VERSION, "capabilities": {},
            "clientInfo": {"name": "legation-bench", "version": "0"},
        });
        let id = |number: u64| match self.dialect() {
            Dialect::RpcStringId => json!(number.to_string()),
            _ => json!(number),
        };
        let request =
            json!({"jsonrpc": "2.0", "id": id(1), "method": "initialize", "params": initialize});
        let answer = connection
            .exchange(&head, request.to_string().as_bytes())
            .await?;
        ensure!(answer.status == 200, "initialize: status {}", answer.status);
        if let Some(session) = answer.header("mcp-session-id") {
            head.push_str(&format!("mcp-session-id: {session}\r\n"));
        }
        head.push_str(&format!("mcp-protocol-version: {VERSION}\r\n"));
        let request = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        connection
            .exchange(&head, request.to_string().as_bytes())
            .await?;
        // Also because mcp-aggregator knows no tool of a session that has not listed them.
        let request = json!({"jsonrpc": "2.0", "id": id(2), "method": "tools/list", "params": {}});
        let answer = connection
            .exchange(&head, request.to_string().as_bytes())
            .await?;
        let tool = echo_tool(answer.body).context("no echo tool is listed")?;
        Ok(Session {
            endpoint,
            head: Arc::from(head),
            dialect: self.dialect(),
            tool: Arc::from(tool),
            argument: Arc::from("text"),
        })
    }
}

/// The name of the tool that ends in `echo`, from an answer as JSON or as an event stream.
fn echo_tool(body: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(body)?;
    let json = text
        .lines()
        .map(|line| line.strip_prefix("data:").unwrap_or(line).trim())
        .find(|line| line.starts_with('{'))
        .context("no JSON in the answer")?;
    let answer: Value = serde_json::from_str(json)?;
    let tools = answer["result"]["tools"].as_array().into_iter().flatten();
    for tool in tools {
        if let Some(name) = tool["name"].as_str().filter(|name| name.ends_with("echo")) {
            return Ok(name.to_owned());
        }
    }
    bail!("none in {json}")
}
