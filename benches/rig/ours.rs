//! The product: `legation serve` with a configuration file, set up by its own command line and
//! called as the standard client calls it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::{Connection, Endpoint};
use super::load::{Dialect, Session};
use super::target::{Running, free_port};

/// How long the server may take to be ready.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Longest wait for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// The group of all users, which is granted every mcp.
const GROUP: &str = "everybody";

/// What a measurement sets; everything else is as built in.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) durability: &'static str,
    /// A self-signed certificate instead of plain HTTP.
    pub(crate) tls: bool,
    /// More lines of configuration: the rest of `[sandbox]`, then whole sections.
    pub(crate) more: Cow<'static, str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            durability: "buffered",
            tls: false,
            more: "".into(),
        }
    }
}

/// A running server with its command line.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    endpoint: Endpoint,
    cli: Cli,
}

/// One registered client.
#[derive(Clone)]
pub(crate) struct Client {
    endpoint: Endpoint,
    token: String,
}

/// The answer to a call.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

// === impl Gateway ===

impl Gateway {
    /// Starts a server in a new data directory.
    pub(crate) async fn start(name: String, product: &Path, settings: Settings) -> Result<Self> {
        // Beside the binary, not in /tmp: a memory file system would make fsync free.
        let beside = product.parent().context("the product has no directory")?;
        let dir = Arc::new(TempDir::new_in(beside)?);
        Self::start_in(name, product, settings, dir).await
    }

    /// Starts a server in a directory that may hold the data of an earlier one.
    pub(crate) async fn start_in(
        name: String,
        product: &Path,
        settings: Settings,
        dir: Arc<TempDir>,
    ) -> Result<Self> {
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let config = dir.path().join("legation.toml");
        let data = dir.path().join("data");
        std::fs::write(&config, configuration(&data, addr, &settings))?;
        let log = std::fs::File::create(dir.path().join("server.log"))?;
        let began = Instant::now();
        let child = Command::new(product)
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let mut running = Running::new(name, child, began).keep(dir);
        // The port opens last: who is accepted is served.
        while tokio::net::TcpStream::connect(addr).await.is_err() {
            if began.elapsed() > START_MAX || running.ended() {
                bail!("the server does not listen; it said:\n{}", running.log());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        running.started_in = began.elapsed();
        let endpoint = if settings.tls {
            Endpoint::trusting(addr, &data.join("tls/cert.pem"))?
        } else {
            Endpoint::plain(addr)
        };
        let cli = Cli {
            product: product.to_owned(),
            data,
        };
        Ok(Self {
            running,
            endpoint,
            cli,
        })
    }

    /// Publishes the product's own demo server under a name and grants it to everybody. It comes
    /// before the keys, which see what is granted when they are made.
    pub(crate) fn publish(&self, mcp: &str, options: &[&str], demo: &[&str]) -> Result<()> {
        let program = self.cli.product.to_str();
        let program = program.context("the product's path is not UTF-8")?;
        self.publish_program(mcp, options, &[&[program], demo].concat())
    }

    /// The same with another program.
    pub(crate) fn publish_program(
        &self,
        mcp: &str,
        options: &[&str],
        command: &[&str],
    ) -> Result<()> {
        let mut add = vec!["mcp", "add", mcp];
        add.extend(options);
        add.push("--");
        add.extend(command);
        self.told(&add)?;
        self.told(&["mcp", "publish", mcp])?;
        // There already from the second mcp on.
        let _ = self.cli.run(&["group", "add", GROUP]);
        self.told(&["group", "grant", GROUP, mcp])?;
        Ok(())
    }

    /// A new user who may use everything that is published.
    pub(crate) fn user(&self, name: &str) -> Result<()> {
        self.told(&["user", "add", name])?;
        self.told(&["group", "member", "add", GROUP, name])?;
        Ok(())
    }

    /// A new key of a user.
    pub(crate) fn key(&self, user: &str) -> Result<String> {
        Ok(self.told(&["key", "create", user])?.trim().to_owned())
    }

    /// Registers a client with a key.
    pub(crate) async fn register(&self, key: &str) -> Result<Client> {
        let mut connection = Connection::open(&self.endpoint).await?;
        self.register_over(&mut connection, key).await
    }

    /// The same over a connection that is open.
    pub(crate) async fn register_over(
        &self,
        connection: &mut Connection,
        key: &str,
    ) -> Result<Client> {
        let body = json!({"preshared_key": key, "friendly_name": "bench", "host_tool": "bench"});
        let head = head(self.endpoint.addr, "/v1/sessions/register", "");
        let answer = connection
            .exchange(&head, body.to_string().as_bytes())
            .await?;
        let said: Value = serde_json::from_slice(answer.body)?;
        let token = said["session_token"]
            .as_str()
            .with_context(|| format!("not registered: status {}, {said}", answer.status))?;
        Ok(Client {
            endpoint: self.endpoint.clone(),
            token: token.to_owned(),
        })
    }

    /// A new user with one registered client.
    pub(crate) async fn client(&self, user: &str) -> Result<Client> {
        self.user(user)?;
        self.register(&self.key(user)?).await
    }

    /// A connection to the client port.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.endpoint).await
    }

    /// The client port.
    pub(crate) const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it keeps its data, its admin socket among it.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.cli.data
    }

    /// What a command answers as JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend(args);
        Ok(serde_json::from_str(&self.told(&all)?)?)
    }

    fn told(&self, args: &[&str]) -> Result<String> {
        let told = self.cli.run(args);
        told.with_context(|| format!("the server said:\n{}", self.running.log()))
    }
}

// === impl Client ===

impl Client {
    /// Its calls of an echo tool, as load.
    pub(crate) fn session(&self, tool: &str) -> Session {
        Session {
            endpoint: self.endpoint.clone(),
            head: Arc::from(self.head()),
            dialect: Dialect::Invoke,
            tool: Arc::from(tool),
            argument: Arc::from("text"),
        }
    }

    /// A connection to the client port.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.endpoint).await
    }

    /// One call over a connection of its own.
    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> Result<Reply> {
        let mut connection = Connection::open(&self.endpoint).await?;
        self.call_over(&mut connection, tool, arguments).await
    }

    /// One call over a connection that is open.
    pub(crate) async fn call_over(
        &self,
        connection: &mut Connection,
        tool: &str,
        arguments: Value,
    ) -> Result<Reply> {
        let body = json!({"tool": tool, "arguments": arguments}).to_string();
        let head = self.head();
        let exchange = connection.exchange(&head, body.as_bytes());
        let answer = tokio::time::timeout(ANSWER_MAX, exchange)
            .await
            .with_context(|| format!("no answer to {tool}"))??;
        Ok(Reply {
            status: answer.status,
            body: serde_json::from_slice(answer.body)?,
        })
    }

    fn head(&self) -> String {
        let token = format!("x-session-token: {}\r\n", self.token);
        head(self.endpoint.addr, "/v1/tools/invoke", &token)
    }
}

// === impl Reply ===

impl Reply {
    /// The text of a call that the server itself answered.
    pub(crate) fn text(&self) -> Result<&str> {
        let text = self.body["result"][0]["text"].as_str();
        ensure!(
            self.status == 200 && self.body["metadata"]["is_error"] == false,
            "not a good answer: status {}, {}",
            self.status,
            self.body
        );
        text.with_context(|| format!("no text in {}", self.body))
    }

    /// The code of a call that its server did not answer.
    pub(crate) fn failure(&self) -> Result<&str> {
        let code = self.body["metadata"]["error"].as_str();
        code.with_context(|| format!("no failure: status {}, {}", self.status, self.body))
    }
}

fn head(addr: SocketAddr, path: &str, more: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n{more}")
}

fn configuration(data: &Path, addr: SocketAddr, settings: &Settings) -> String {
    let Settings {
        durability,
        tls,
        more,
    } = settings;
    let tls = if *tls { "self" } else { "off" };
    // Servers of one host never share uids; nor do they share ports.
    let uids = 1_300_000_000 + u32::from(addr.port()) * 1000;
    format!(
        "[server]\ndata_dir = {data:?}\n\n[client]\nlisten = \"{addr}\"\ntls = \"{tls}\"\n\n\
         [audit]\ndurability = \"{durability}\"\n\n[log]\nlevel = \"warn\"\n\n\
         [ops]\nlisten = \"127.0.0.1:0\"\n\n\
         [sandbox]\nuid_base = {uids}\nuid_count = 1000\n{more}"
    )
}

/// The product's own commands, on this server.
struct Cli {
    product: PathBuf,
    data: PathBuf,
}

impl Cli {
    fn run(&self, args: &[&str]) -> Result<String> {
        let done = Command::new(&self.product)
            .arg("--data-dir")
            .arg(&self.data)
            .arg("--yes")
            .args(args)
            .output()?;
        ensure!(
            done.status.success(),
            "legation {}: {}: {}",
            args.join(" "),
            done.status,
            String::from_utf8_lossy(&done.stderr)
        );
        Ok(String::from_utf8(done.stdout)?)
    }
}
