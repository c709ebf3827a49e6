//! For tests: a whole tree over a real store, in which only the processes are scripted.

use std::future::pending;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio_util::sync::CancellationToken;

use crate::actors::audit::reading;
use crate::actors::clock::{Clock, HostClock};
use crate::actors::control::Control;
use crate::actors::front::{Front, Registration};
use crate::actors::launcher::{
    BoxFuture, Enforcement, Exit, Launch, LaunchError, Launched, Launcher, Remains, Scope, Usage,
};
use crate::actors::listeners::NoDoors;
use crate::actors::system::System;
use crate::config::Config;
use crate::domain::confinement::Confinement;
use crate::domain::ids::UserId;
use crate::domain::mcp::Limits;
use crate::domain::talk::Questions;
use crate::domain::verdict::OomScope;

/// A running tree in a folder of its own.
pub(crate) struct TestHouse {
    system: System,
    data: PathBuf,
    /// `None` if what is in it outlives the tree.
    _folder: Option<TempDir>,
}

impl TestHouse {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.server.data_dir = folder.path().to_owned();
        Self {
            _folder: Some(folder),
            ..Self::on(config, Arc::new(HostClock)).await
        }
    }

    /// One with this configuration and this time of day.
    pub(crate) async fn on(config: Config, clock: Arc<dyn Clock>) -> Self {
        let data = config.server.data_dir.clone();
        let system = System::start(config, clock, Arc::new(Script), Arc::new(NoDoors));
        Self {
            system: system.await.unwrap(),
            data,
            _folder: None,
        }
    }

    pub(crate) fn front(&self) -> Front {
        self.system.front()
    }

    /// Whether it stopped in time.
    pub(crate) async fn stop(self) -> bool {
        self.system.stop().await
    }

    pub(crate) fn control(&self) -> Control {
        self.system.control()
    }

    /// How many tools a client sees that registers with this key.
    pub(crate) async fn tools_seen_with(&self, key: &str) -> usize {
        let front = self.system.front();
        let registered = front
            .register(Registration {
                preshared_key: SecretString::from(key),
                friendly_name: "test".to_owned(),
                host_tool: "cli".to_owned(),
                from: None,
                questions: Questions::NONE,
            })
            .await
            .unwrap();
        let token = registered.token.expose_secret();
        let session = front.authenticate(Some(token), None).unwrap();
        front.tools(&session).len()
    }

    /// Stops the tree and gives every admin's action that the audit log holds.
    pub(crate) async fn into_actions(self) -> Vec<String> {
        assert!(self.system.stop().await, "it stops in time");
        let records = reading::records(&self.data.join("audit"));
        let actions = records
            .into_iter()
            .filter(|record| record["event"] == "admin.action");
        let word = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
        actions
            .map(|one| {
                ["actor", "action", "target", "outcome"]
                    .map(|name| word(&one, name))
                    .join(" ")
            })
            .collect()
    }
}

/// `false` says why and fails; every other program is a server with one tool, `echo`.
struct Script;

impl Launcher for Script {
    fn starts_in_flight(&self) -> usize {
        0
    }

    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(async move {
            let (mut stdin, theirs_in) = duplex(64 << 10);
            stdin.write_all(&launch.opening).await.unwrap();
            let (stdout, theirs_out) = duplex(64 << 10);
            let (stderr, mut theirs_err) = duplex(4 << 10);
            let end = CancellationToken::new();
            let code = if launch.program.file_name() == Path::new("false").file_name() {
                theirs_err.write_all(b"no token\n").await.unwrap();
                drop((theirs_in, theirs_out, theirs_err));
                Some(1)
            } else {
                let killed = end.clone();
                tokio::spawn(async move {
                    let _quiet = theirs_err;
                    tokio::select! {
                        () = serve(theirs_in, theirs_out) => killed.cancel(),
                        () = killed.cancelled() => {}
                    }
                });
                None
            };
            let ended = end.clone();
            Ok(Launched {
                pid: Some(1),
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(stderr),
                exit: Box::pin(async move {
                    if let Some(code) = code {
                        return Exit::Code(code);
                    }
                    ended.cancelled().await;
                    Exit::Code(0)
                }),
                scope: Box::new(ScriptScope(end)),
                took: Duration::from_millis(1),
                degraded: Vec::new(),
            })
        })
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, LaunchError>> {
        Box::pin(async { Ok(0) })
    }

    fn unowned(&self) -> usize {
        0
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::default()
    }

    fn secrets(&self, _walls: &Confinement) -> &Path {
        Path::new("/run/secrets")
    }

    fn heal(&self) -> BoxFuture<'_, Result<(), LaunchError>> {
        Box::pin(async { Ok(()) })
    }

    fn lost(&self) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }

    fn release_user(&self, _user: &UserId) {}
}

struct ScriptScope(CancellationToken);

impl Scope for ScriptScope {
    fn terminate(&self) {
        self.0.cancel();
    }

    fn kill(&self) {
        self.0.cancel();
    }

    fn oom(&self) -> Option<OomScope> {
        None
    }

    fn relimit(&self, _limits: &Limits) -> Result<(), String> {
        Ok(())
    }

    fn reap(&self, _wait: Duration) -> BoxFuture<'_, Remains> {
        self.0.cancel();
        Box::pin(async { Remains::default() })
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

async fn serve(stdin: DuplexStream, mut stdout: DuplexStream) {
    let mut lines = BufReader::new(stdin).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let asked: Value = serde_json::from_str(&line).unwrap();
        let result = match asked["method"].as_str() {
            Some("initialize") => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "script", "version": "1"},
            }),
            Some("tools/list") => json!({"tools": [
                {"name": "echo", "description": "says it again", "inputSchema": {"type": "object"}},
            ]}),
            _ => json!({}),
        };
        if asked.get("id").is_none() {
            continue;
        }
        let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        if stdout
            .write_all(format!("{answer}\n").as_bytes())
            .await
            .is_err()
        {
            return;
        }
    }
}
