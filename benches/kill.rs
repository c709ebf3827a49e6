//! What a kill switch costs: from an administrator's request to the end of each isolate's whole
//! tree, against a bare kill of the same trees.
//!
//! ```text
//! cargo bench --bench kill -- [--rounds N] [--isolates N] [--calls N] [--product PATH] [--out FILE]
//! ```
//!
//! Every isolate is a tree of three processes: init, server and a child of the server's. Some have
//! a call in flight, whose answer is timed as well. In a round of ours one `kill-switch on` of
//! scope mcp goes to the admin socket; in a bare round this process writes to each tree's
//! `cgroup.kill` (or signals its init where there is none), one after the other, as fast as it can.
//! Both are seen by the same eyes: a pidfd of each init, which the kernel makes readable when
//! nobody of its pid namespace is left. Rounds alternate. A missed bar is an exit code.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use rig::ours::{Client, Gateway, Settings};
use rig::proc;
use rig::report::{self, median};
use rig::target::default_product;
use rig::words;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::json;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bar on the pooled 99th percentile, as a multiple of the bare kill's.
const P99_RATIO_MAX: f64 = 2.0;
/// The bar on the median of the rounds' slowest.
const SLOWEST_MS_MAX: f64 = 250.0;
/// What the calls in flight have asked for: never answered in time by the server.
const ASLEEP_MS: u64 = 600_000;
/// How long anything may take before the bench calls it stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// First calls at once while a round's isolates are started.
const STARTS: usize = 16;
/// One user runs them all, a session each.
const CONFIG: &str = "[isolates]\nper_user_max = 1000\nuser_memory_bytes = 1099511627776\n\
    user_pids = 1048576\n\n[sessions]\nper_key_max = 10000\n";

struct Options {
    rounds: usize,
    isolates: usize,
    calls: usize,
    product: PathBuf,
    out: Option<PathBuf>,
}

/// One round, in milliseconds since the request.
struct Round {
    /// When each tree was gone, sorted.
    gone: Vec<f64>,
    /// When each call in flight had its answer, sorted.
    answers: Vec<f64>,
    /// When the administrator had his.
    answered: f64,
    /// What the gateway and its spawner worked meanwhile; the rest is the kernel's dying.
    cpu: f64,
}

/// One tree, to be killed.
struct Tree {
    init: i32,
    pidfd: OwnedFd,
}

fn main() -> Result<()> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let (text, ratio, slowest) = runtime.block_on(measure(&options))?;
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(
        ratio <= P99_RATIO_MAX && slowest <= SLOWEST_MS_MAX,
        "missed: p99 {ratio:.2} × the bare kill (bar {P99_RATIO_MAX}), slowest {slowest:.0} ms \
         (bar {SLOWEST_MS_MAX})"
    );
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        isolates: 500,
        calls: 100,
        product: default_product()?,
        out: None,
    };
    words::read("kill", |word, value| {
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--isolates" => options.isolates = value()?.parse()?,
            "--calls" => options.calls = value()?.parse()?,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    ensure!(
        options.rounds > 0 && options.isolates > 0,
        "nothing to measure"
    );
    options.calls = options.calls.min(options.isolates);
    Ok(options)
}

async fn measure(options: &Options) -> Result<(String, f64, f64)> {
    let settings = Settings {
        more: CONFIG.into(),
        ..Settings::default()
    };
    let gateway = Gateway::start("kill".to_owned(), &options.product, settings).await?;
    // One mcp for each round: what a round did to restart policies is no other round's trouble.
    for round in 0..options.rounds {
        for kind in ["ours", "bare"] {
            let options = ["--sharing", "per_session"];
            gateway.publish(&format!("{kind}{round}"), &options, &["demo-mcp"])?;
        }
    }
    gateway.user("everyone")?;
    let key = gateway.key("everyone")?;
    let mut clients = Vec::new();
    for _ in 0..options.isolates {
        clients.push(gateway.register(&key).await?);
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for round in 0..options.rounds {
        // Who is first in a pair changes, so that neither has the warmer machine.
        let order = if round % 2 == 0 {
            [true, false]
        } else {
            [false, true]
        };
        for is_ours in order {
            let name = format!("{}{round}", if is_ours { "ours" } else { "bare" });
            let done = one(&gateway, &clients, &name, options.calls, is_ours).await;
            let done = done.with_context(|| format!("round {name}"))?;
            eprintln!(
                "{name}: gone {:.1}–{:.1} ms, answers until {:.1} ms, the administrator's after \
                 {:.1} ms, {:.0} ms of CPU for the gateway and its spawner",
                done.gone.first().copied().unwrap_or(f64::NAN),
                last(&done.gone),
                last(&done.answers),
                done.answered,
                done.cpu,
            );
            if is_ours { &mut ours } else { &mut bare }.push(done);
        }
    }
    let zombies = proc::zombies(gateway.running.pid);
    ensure!(zombies.is_empty(), "zombies: {zombies:?}");
    Ok(told(options, &ours, &bare))
}

fn told(options: &Options, ours: &[Round], bare: &[Round]) -> (String, f64, f64) {
    let pooled = |rounds: &[Round], of: fn(&Round) -> &Vec<f64>| {
        let mut all: Vec<f64> = rounds.iter().flat_map(|round| of(round).clone()).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let slowest = |rounds: &[Round]| median(rounds.iter().map(|one| last(&one.gone)).collect());
    let (a, b) = (pooled(ours, |one| &one.gone), pooled(bare, |one| &one.gone));
    let (p99, bare_p99) = (share(&a, 0.99), share(&b, 0.99));
    let answers = pooled(ours, |one| &one.answers);
    let ratio = p99 / bare_p99;
    let mut text = report::preamble();
    let _ = write!(
        text,
        "\n### Kill switches\n\n{} rounds each, alternating: {} isolates of three processes, {} \
         calls in flight. Milliseconds from the request (ours: over the admin socket, the journal's \
         fsync included) to the end of each tree, {} trees pooled. Load average at the end {}.\n\n\
         | what | kill switch | bare kill | bar |\n|---|---|---|---|\n\
         | request to gone, p50 | {:.1} | {:.1} | – |\n\
         | request to gone, p99 | {p99:.1} | {bare_p99:.1} | ≤ {P99_RATIO_MAX} ×: {ratio:.2} × |\n\
         | slowest of a round, median of rounds | {:.1} | {:.1} | ≤ {SLOWEST_MS_MAX} ms |\n\
         | slowest caller's answer, p50 (worst) | {:.1} ({:.1}) | – | – |\n\
         | the administrator's answer, median | {:.1} | – | – |\n\
         | CPU of gateway and spawner until then, median | {:.0} | {:.0} | – |\n",
        options.rounds,
        options.isolates,
        options.calls,
        a.len(),
        proc::load_average(),
        share(&a, 0.5),
        share(&b, 0.5),
        slowest(ours),
        slowest(bare),
        share(&answers, 0.5),
        last(&answers),
        median(ours.iter().map(|one| one.answered).collect()),
        median(ours.iter().map(|one| one.cpu).collect()),
        median(bare.iter().map(|one| one.cpu).collect()),
    );
    (text, ratio, slowest(ours))
}

/// Starts a round's isolates, gets calls in flight, kills, and waits for everything.
async fn one(
    gateway: &Gateway,
    clients: &[Client],
    mcp: &str,
    calls: usize,
    is_ours: bool,
) -> Result<Round> {
    start_all(clients, mcp).await?;
    let trees = trees(gateway, mcp, clients.len())?;
    let mut flying = JoinSet::new();
    for client in clients.iter().take(calls) {
        let (client, tool) = (client.clone(), format!("{mcp}.sleep"));
        flying.spawn(async move {
            let reply = client.call(&tool, json!({"ms": ASLEEP_MS})).await;
            reply.map(|reply| (Instant::now(), reply))
        });
    }
    in_flight(gateway, calls).await?;
    let socket = gateway.data_dir().join("admin.sock");
    let files: Vec<Option<PathBuf>> = trees.iter().map(|tree| kill_file(tree.init)).collect();
    let inits: Vec<i32> = trees.iter().map(|tree| tree.init).collect();

    // The eyes are open before the request is made.
    let watcher = std::thread::spawn(move || watch(&trees));
    let spawner = proc::children(gateway.running.pid)
        .into_iter()
        .find(|pid| proc::name(*pid) == "legation-spawnd");
    let busy = || {
        let own = |pid| proc::cpu(pid).own;
        own(gateway.running.pid) + spawner.map_or(0.0, own)
    };
    let before = busy();
    let request = Instant::now();
    let killer = {
        let (socket, mcp) = (socket.clone(), mcp.to_owned());
        tokio::task::spawn_blocking(move || {
            if is_ours {
                return switch(&socket, &mcp).map(|()| request.elapsed());
            }
            for (file, init) in files.iter().zip(inits) {
                let written = file.as_ref().map(|file| std::fs::write(file, "1"));
                if !matches!(written, Some(Ok(())))
                    && let Some(init) = Pid::from_raw(init)
                {
                    // It may be gone by now.
                    let _ = kill_process(init, Signal::KILL);
                }
            }
            Ok(request.elapsed())
        })
    };
    let answered = killer.await??;
    let gone = watcher
        .join()
        .map_err(|_| anyhow::anyhow!("the watcher failed"))??;
    let cpu = (busy() - before) * 1000.0;
    let mut answers = Vec::new();
    while let Some(answer) = flying.join_next().await {
        let (at, reply) = answer??;
        let code = reply.failure()?;
        ensure!(
            !is_ours || code == "kill_switch_active",
            "told {code}: {}",
            reply.body
        );
        answers.push(millis(at.saturating_duration_since(request)));
    }
    if !is_ours {
        // What was killed from outside would start again in the middle of the next round.
        switch(&socket, mcp)?;
    }
    let sorted = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all
    };
    let since = |at: Instant| millis(at.saturating_duration_since(request));
    Ok(Round {
        gone: sorted(gone.into_iter().map(since).collect()),
        answers: sorted(answers),
        answered: millis(answered),
        cpu,
    })
}

/// Every client's first call, which starts its isolate and a child in it.
async fn start_all(clients: &[Client], mcp: &str) -> Result<()> {
    let mut starting = JoinSet::new();
    for client in clients {
        while starting.len() >= STARTS {
            starting
                .join_next()
                .await
                .context("none was starting")???;
        }
        let (client, tool) = (client.clone(), format!("{mcp}.fork"));
        starting.spawn(async move {
            let forked = client.call(&tool, json!({"n": 1, "seconds": 600})).await?;
            forked.text().map(|_| ())
        });
    }
    while let Some(started) = starting.join_next().await {
        started??;
    }
    Ok(())
}

/// The trees of an mcp's isolates, each of three processes.
fn trees(gateway: &Gateway, mcp: &str, wanted: usize) -> Result<Vec<Tree>> {
    let list = gateway.json(&["isolate", "list"])?;
    let all = list.as_array().context("no list of isolates")?;
    let mut trees = Vec::new();
    for one in all.iter().filter(|one| one["mcp"] == mcp) {
        let init = one["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        let init = init.with_context(|| format!("an isolate without a pid: {one}"))?;
        let pid = Pid::from_raw(init).context("pid 0")?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        trees.push(Tree { init, pidfd });
    }
    ensure!(trees.len() == wanted, "{} of {wanted} run", trees.len());
    Ok(trees)
}

async fn in_flight(gateway: &Gateway, calls: usize) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let list = gateway.json(&["isolate", "list"])?;
        let all = list.as_array().context("no list of isolates")?;
        let flying: u64 = all.iter().filter_map(|one| one["in_flight"].as_u64()).sum();
        if usize::try_from(flying)? == calls {
            return Ok(());
        }
        ensure!(Instant::now() < until, "{flying} of {calls} in flight");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The file that kills a tree, where the kernel has it.
fn kill_file(init: i32) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{init}/cgroup")).ok()?;
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|mount| Path::new(mount).join(unified.trim_start_matches('/')))
        .map(|leaf| leaf.join("cgroup.kill"))
        .find(|file| file.exists())
}

/// When each tree was gone. One wait costs the same however many are left: the watcher shares two
/// cores with what it watches.
fn watch(trees: &[Tree]) -> Result<Vec<Instant>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    for tree in trees {
        let once = EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT;
        epoll.add(&tree.pidfd, EpollEvent::new(once, 0))?;
    }
    let mut gone = Vec::with_capacity(trees.len());
    let until = Instant::now() + PATIENCE;
    while gone.len() < trees.len() {
        let mut events = [EpollEvent::empty(); 64];
        let dead = epoll.wait(&mut events, EpollTimeout::from(1000u16))?;
        let now = Instant::now();
        gone.extend(std::iter::repeat_n(now, dead));
        ensure!(now < until, "{} trees do not die", trees.len() - gone.len());
    }
    Ok(gone)
}

/// Switches an mcp off by a request of our own: no process is started for it.
fn switch(socket: &Path, mcp: &str) -> Result<()> {
    let body = json!({"scope": "mcp", "target": mcp, "reason": "a bench"}).to_string();
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(
        format!(
            "POST /v1/kill-switches HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, _) = answer.split_once("\r\n\r\n").context("no answer")?;
    ensure!(
        head.starts_with("HTTP/1.1 200"),
        "not switched off: {answer}"
    );
    Ok(())
}

fn last(sorted: &[f64]) -> f64 {
    sorted.last().copied().unwrap_or(f64::NAN)
}

/// The value below which this share of them is.
fn share(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few thousand values"
    )]
    let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
