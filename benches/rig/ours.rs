//! The product: `legation serve` with a configuration file, set up by its own command line and
//! called as the standard client calls it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Connection;
use super::load::{Dialect, Session};
use super::target::{Running, Scenario, free_port};

/// How long the server may take to listen.
const START_MAX: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The mcp's name.
const MCP: &str = "bench";

/// Starts the server in a new data directory, publishes the echo server and registers one client
/// of one user for each session.
pub(crate) async fn start(name: String, scenario: &Scenario, durability: &str) -> Result<Running> {
    // Beside the binary, not in /tmp: a memory file system would make fsync free.
    let dir = TempDir::new_in(
        scenario
            .product
            .parent()
            .context("the product has no directory")?,
    )?;
    let port = free_port()?;
    let addr = SocketAddr::from(([127, 0, 0, 1], port));
    let config = dir.path().join("legation.toml");
    std::fs::write(&config, configuration(dir.path(), addr, durability))?;
    let log = std::fs::File::create(dir.path().join("server.log"))?;
    let began = Instant::now();
    let child = Command::new(&scenario.product)
        .arg("serve")
        .arg("--config")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()?;
    let cli = Cli {
        product: scenario.product.clone(),
        data: dir.path().join("data"),
    };
    let mut running = Running::new(name, child, began).keep(dir);
    while Connection::open(addr).await.is_err() {
        if began.elapsed() > START_MAX || running.ended() {
            bail!("the server does not listen; it said:\n{}", running.log());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    running.started_in = began.elapsed();
    cli.publish(scenario)
        .with_context(|| format!("the server said:\n{}", running.log()))?;
    for number in 0..scenario.sessions {
        let key = cli.user_with_key(&format!("user{number}"))?;
        running.sessions.push(register(addr, &key).await?);
    }
    Ok(running)
}

fn configuration(dir: &Path, addr: SocketAddr, durability: &str) -> String {
    let data = dir.join("data");
    format!(
        "[server]\ndata_dir = {data:?}\n\n[client]\nlisten = \"{addr}\"\ntls = \"off\"\n\n\
         [audit]\ndurability = \"{durability}\"\n\n[log]\nlevel = \"warn\"\n"
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

    fn publish(&self, scenario: &Scenario) -> Result<()> {
        let product = scenario
            .product
            .to_str()
            .context("the product's path is not UTF-8")?;
        let sharing = if scenario.shared {
            "shared"
        } else {
            "per_user"
        };
        self.run(&[
            "mcp",
            "add",
            MCP,
            "--sharing",
            sharing,
            "--",
            product,
            "demo-mcp",
            "--echo",
        ])?;
        self.run(&["mcp", "publish", MCP])?;
        self.run(&["group", "add", "everybody"])?;
        self.run(&["group", "grant", "everybody", MCP])?;
        Ok(())
    }

    fn user_with_key(&self, user: &str) -> Result<String> {
        self.run(&["user", "add", user])?;
        self.run(&["group", "member", "add", "everybody", user])?;
        Ok(self.run(&["key", "create", user])?.trim().to_owned())
    }
}

async fn register(addr: SocketAddr, key: &str) -> Result<Session> {
    let head = |path: &str, more: &str| {
        format!("POST {path} HTTP/1.1\r\nhost: {addr}\r\ncontent-type: application/json\r\n{more}")
    };
    let body = json!({"preshared_key": key, "friendly_name": "bench", "host_tool": "bench"});
    let mut connection = Connection::open(addr).await?;
    let answer = connection
        .exchange(
            &head("/v1/sessions/register", ""),
            body.to_string().as_bytes(),
        )
        .await?;
    let said: Value = serde_json::from_slice(answer.body)?;
    let token = said["session_token"]
        .as_str()
        .with_context(|| format!("not registered: status {}, {said}", answer.status))?;
    Ok(Session {
        addr,
        head: Arc::from(head(
            "/v1/tools/invoke",
            &format!("x-session-token: {token}\r\n"),
        )),
        dialect: Dialect::Invoke,
        tool: Arc::from("echo"),
        argument: Arc::from("text"),
    })
}
