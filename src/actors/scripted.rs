//! A scripted launcher for tests of the tree: in-memory pipes in place of a process, and a script
//! in place of a program. No process, no cgroup; the paused clock drives everything.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream};
use tokio::sync::watch;

use crate::domain::confinement::Confinement;
use crate::domain::ids::{IsolateId, UserId};
use crate::domain::mcp::Limits;
use crate::domain::verdict::OomScope;

use super::launcher::{
    BoxFuture, Enforcement, Exit, Launch, LaunchError, Launched, Launcher, Remains, Scope, Usage,
};
use super::sync::Mutex;

/// What the next run of a program does.
#[derive(Debug, Clone)]
pub(super) enum Script {
    /// Serves until it is told to end.
    Serve,
    /// Serves, but exits when a tool is called.
    DieOnCall(Exit),
    /// Exits before it says anything.
    ExitAtOnce(Exit),
    /// Never answers.
    Hang,
    /// Cannot be executed.
    Refuse,
    /// Serves, and ignores stdin's end and SIGTERM.
    Stubborn,
    /// Serves, never answers a call, and its processes do not die before this long.
    Undying(Duration),
    /// Serves calls but never answers a ping.
    Deaf,
    /// Does one thing at a time: reads nothing while it works on a call for this long.
    Busy(Duration),
}

/// Launches scripts. The last script of a queue is repeated.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    scripts: Mutex<VecDeque<(String, VecDeque<Script>)>>,
    pub(super) launches: Mutex<Vec<(tokio::time::Instant, IsolateId)>>,
    pub(super) alive: Arc<AtomicUsize>,
    pub(super) most_alive_per_isolate:
        Arc<Mutex<std::collections::HashMap<IsolateId, (usize, usize)>>>,
    pub(super) calls: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// What runs of this program (by file name) do, one after the other.
    pub(super) fn on(&self, program: &str, scripts: impl IntoIterator<Item = Script>) {
        let mut all = self.scripts.lock();
        all.retain(|(name, _)| name != program);
        all.push_back((program.to_owned(), scripts.into_iter().collect()));
    }

    pub(super) fn launches(&self) -> usize {
        self.launches.lock().len()
    }

    fn next(&self, launch: &Launch) -> Script {
        let name = launch.args.first().cloned().unwrap_or_default();
        let mut all = self.scripts.lock();
        let scripts = all.iter_mut().find(|(program, _)| *program == name);
        match scripts {
            Some((_, scripts)) if scripts.len() > 1 => scripts.pop_front().unwrap(),
            Some((_, scripts)) => scripts.front().cloned().unwrap_or(Script::Serve),
            None => Script::Serve,
        }
    }
}

impl Launcher for Scripted {
    fn launch(&self, launch: Launch) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        let script = self.next(&launch);
        self.launches
            .lock()
            .push((tokio::time::Instant::now(), launch.isolate.clone()));
        if matches!(script, Script::Refuse) {
            let (step, detail) = ("exec".to_owned(), "no such file".to_owned());
            return Box::pin(async { Err(LaunchError::Refused { step, detail }) });
        }
        {
            let mut most = self.most_alive_per_isolate.lock();
            let entry = most.entry(launch.isolate.clone()).or_default();
            entry.0 += 1;
            entry.1 = entry.1.max(entry.0);
        }
        self.alive.fetch_add(1, Ordering::SeqCst);
        let (mut stdin, their_stdin) = tokio::io::duplex(1 << 16);
        let (their_stdout, stdout) = tokio::io::duplex(1 << 16);
        let (mut their_stderr, stderr) = tokio::io::duplex(1 << 12);
        let end = watch::Sender::new(None);
        let scope = ScriptedScope {
            end: end.clone(),
            stubborn: matches!(script, Script::Stubborn),
            undying: match script {
                Script::Undying(after) => Some(tokio::time::Instant::now() + after),
                _ => None,
            },
            gone: AtomicBool::new(false),
            alive: Arc::clone(&self.alive),
            isolate: launch.isolate,
            most: Arc::clone(&self.most_alive_per_isolate),
        };
        let calls = Arc::clone(&self.calls);
        let mut ended = end.subscribe();
        let server_end = end.clone();
        tokio::spawn(async move {
            let server = serve(script, their_stdin, their_stdout, calls);
            tokio::select! {
                exit = server => {
                    let _ = their_stderr.write_all(b"the last words\n").await;
                    server_end.send_if_modified(|end| end.is_none().then(|| *end = Some(exit)).is_some());
                }
                () = async { let _ = ended.wait_for(Option::is_some).await; } => {}
            }
        });
        let mut exit = end.subscribe();
        Box::pin(async move {
            // A server that has gone already does not read it; its end is told by `exit`.
            let _ = stdin.write_all(&launch.opening).await;
            Ok(Launched {
                pid: Some(4711),
                stdin: Box::new(stdin),
                stdout: Box::new(stdout),
                stderr: Box::new(stderr),
                exit: Box::pin(async move {
                    let end = exit.wait_for(Option::is_some).await;
                    end.ok()
                        .and_then(|end| end.clone())
                        .unwrap_or(Exit::Signal(9))
                }),
                scope: Box::new(scope),
                took: Duration::ZERO,
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

    fn starts_in_flight(&self) -> usize {
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
        Box::pin(std::future::pending())
    }

    fn release_user(&self, _user: &UserId) {}
}

async fn serve(
    script: Script,
    stdin: DuplexStream,
    mut stdout: DuplexStream,
    calls: Arc<Mutex<Vec<String>>>,
) -> Exit {
    match script {
        Script::ExitAtOnce(exit) => return exit,
        Script::Hang => std::future::pending().await,
        _ => {}
    }
    let mut lines = BufReader::new(stdin).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        let Some(id) = message.get("id") else {
            continue;
        };
        let result = match message["method"].as_str().unwrap() {
            "initialize" => {
                r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"s","version":"1"}}"#
            }
            "tools/list" => r#"{"tools":[{"name":"echo","inputSchema":{"type":"object"}}]}"#,
            "ping" if matches!(script, Script::Deaf) => continue,
            "ping" => "{}",
            _ => {
                calls.lock().push(message["params"]["name"].to_string());
                match &script {
                    Script::DieOnCall(exit) => return exit.clone(),
                    Script::Undying(_) => continue,
                    Script::Busy(long) => {
                        tokio::time::sleep(*long).await;
                        r#"{"content":[{"type":"text","text":"done"}]}"#
                    }
                    _ => r#"{"content":[{"type":"text","text":"hi"}]}"#,
                }
            }
        };
        let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n");
        if stdout.write_all(answer.as_bytes()).await.is_err() {
            break;
        }
    }
    match script {
        Script::Stubborn | Script::Undying(_) => std::future::pending().await,
        _ => Exit::Code(0),
    }
}

struct ScriptedScope {
    end: watch::Sender<Option<Exit>>,
    stubborn: bool,
    undying: Option<tokio::time::Instant>,
    gone: AtomicBool,
    alive: Arc<AtomicUsize>,
    isolate: IsolateId,
    most: Arc<Mutex<std::collections::HashMap<IsolateId, (usize, usize)>>>,
}

impl Scope for ScriptedScope {
    fn terminate(&self) {
        if !self.stubborn {
            self.end.send_if_modified(|end| {
                end.is_none()
                    .then(|| *end = Some(Exit::Signal(15)))
                    .is_some()
            });
        }
    }

    fn kill(&self) {
        if self
            .undying
            .is_none_or(|at| at <= tokio::time::Instant::now())
        {
            self.end.send_if_modified(|end| {
                end.is_none()
                    .then(|| *end = Some(Exit::Signal(9)))
                    .is_some()
            });
        }
    }

    fn relimit(&self, _limits: &Limits) -> Result<(), String> {
        Ok(())
    }

    fn reap(&self, wait: Duration) -> BoxFuture<'_, Remains> {
        Box::pin(async move {
            self.kill();
            let mut end = self.end.subscribe();
            if tokio::time::timeout(wait, end.wait_for(Option::is_some))
                .await
                .is_err()
            {
                return Remains {
                    survivors: vec![4711],
                    ..Remains::default()
                };
            }
            if !self.gone.swap(true, Ordering::SeqCst) {
                self.alive.fetch_sub(1, Ordering::SeqCst);
                self.most.lock().get_mut(&self.isolate).unwrap().0 -= 1;
            }
            Remains::default()
        })
    }

    fn oom(&self) -> Option<OomScope> {
        None
    }

    fn usage(&self) -> Usage {
        Usage::default()
    }
}

impl Drop for ScriptedScope {
    fn drop(&mut self) {
        self.kill();
    }
}
