//! What the gateway's memory costs: for each idle isolate (its processes not counted), for each
//! idle session, and at rest after a second start.
//!
//! ```text
//! cargo bench --bench footprint -- [--repeats N] [--isolates FROM,TO] [--sessions FROM,TO]
//!     [--product PATH] [--out FILE]
//! ```
//!
//! A slope between two counts, not a total: what the server costs without any of them is not in
//! it. Each repeat is a new server; the median of the slopes is held against the bar. A missed bar
//! is an exit code.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rig::ours::{Client, Gateway, Settings};
use rig::proc::{self, Memory};
use rig::report::{self, median};
use rig::target::{Running, default_product, free_port};
use rig::words;
use serde_json::json;
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bars.
const ISOLATE_KIB_MAX: f64 = 48.0;
const SESSION_KIB_MAX: f64 = 16.0;
const IDLE_MIB_MAX: f64 = 24.0;
/// Sessions of one key.
const SESSIONS_PER_KEY: usize = 250;
/// What was allocated on the way is given back within this.
const SETTLE: Duration = Duration::from_secs(4);

struct Options {
    repeats: usize,
    isolates: (usize, usize),
    sessions: (usize, usize),
    product: PathBuf,
    out: Option<PathBuf>,
}

/// One slope.
struct Step {
    low: Memory,
    high: Memory,
    count: usize,
}

fn main() -> Result<()> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (text, missed) = runtime.block_on(measure(&options))?;
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        repeats: 3,
        isolates: (50, 200),
        sessions: (1000, 5000),
        product: default_product()?,
        out: None,
    };
    words::read("footprint", |word, value| {
        match word {
            "--repeats" => options.repeats = value()?.parse()?,
            "--isolates" => options.isolates = range(&value()?)?,
            "--sessions" => options.sessions = range(&value()?)?,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

fn range(text: &str) -> Result<(usize, usize)> {
    let (low, high) = text.split_once(',').context("expected FROM,TO")?;
    let (low, high) = (low.parse()?, high.parse()?);
    ensure!(low < high, "{low} is not less than {high}");
    Ok((low, high))
}

async fn measure(options: &Options) -> Result<(String, Vec<String>)> {
    let mut text = report::preamble();
    let mut missed = Vec::new();
    text.push_str(
        "\n### Memory of the gateway process\n\n\
         | what | bar | median | of | by repeat: PSS (private dirty, RSS) |\n|---|---|---|---|---|\n",
    );
    let mut isolates = Vec::new();
    let mut sessions = Vec::new();
    let mut idle = Vec::new();
    let mut spawner = Vec::new();
    for repeat in 0..options.repeats {
        eprintln!("repeat {repeat}");
        isolates.push(of_isolates(options).await?);
        sessions.push(of_sessions(options).await?);
        let (own, helper) = at_rest(&options.product).await?;
        idle.push(own);
        spawner.push(helper);
    }
    let slopes = [
        (
            "idle isolate, KiB",
            ISOLATE_KIB_MAX,
            &isolates,
            options.isolates,
        ),
        (
            "idle session, KiB",
            SESSION_KIB_MAX,
            &sessions,
            options.sessions,
        ),
    ];
    for (what, bar, steps, (low, high)) in slopes {
        let middle = median(
            steps
                .iter()
                .map(|step| step.slope(|memory| memory.pss_kib))
                .collect(),
        );
        let each: Vec<String> = steps.iter().map(Step::show).collect();
        let _ = writeln!(
            text,
            "| {what} | ≤ {bar} | {middle:.1} | {low} → {high} | {} |",
            each.join("; ")
        );
        if middle > bar {
            missed.push(format!("{what}: {middle:.1} > {bar}"));
        }
    }
    let mib = |kib: u64| kib as f64 / 1024.0;
    let middle = median(idle.iter().map(|memory| mib(memory.rss_kib)).collect());
    let show = |memory: &Memory| {
        let (pss, private, rss) = (memory.pss_kib, memory.private_kib, memory.rss_kib);
        format!("{:.1} ({:.1}, {:.1})", mib(pss), mib(private), mib(rss))
    };
    let each: Vec<String> = idle.iter().map(show).collect();
    let _ = writeln!(
        text,
        "| idle after the second start, RSS MiB | ≤ {IDLE_MIB_MAX} | {middle:.1} | `serve --dev` | {} |",
        each.join("; ")
    );
    let each: Vec<String> = spawner.iter().map(show).collect();
    let rss = median(spawner.iter().map(|memory| mib(memory.rss_kib)).collect());
    let _ = writeln!(
        text,
        "| its spawner beside it, RSS MiB | - | {rss:.1} | | {} |",
        each.join("; ")
    );
    if middle > IDLE_MIB_MAX {
        missed.push(format!("idle RSS: {middle:.1} MiB > {IDLE_MIB_MAX}"));
    }
    Ok((text, missed))
}

/// Every user is registered before the first figure, so that only isolates come between the two.
async fn of_isolates(options: &Options) -> Result<Step> {
    let (low, high) = options.isolates;
    let gateway = server(&options.product).await?;
    gateway.publish("bench", &["--idle", "never"], &["demo-mcp", "--echo"])?;
    let mut clients = Vec::new();
    for number in 0..high {
        clients.push(gateway.client(&format!("user{number}")).await?);
    }
    let (first, rest) = clients.split_at(low);
    wake(first).await?;
    let at_low = settled(&gateway).await;
    wake(rest).await?;
    let at_high = settled(&gateway).await;
    let list = gateway.json(&["isolate", "list"])?;
    let ready = list.as_array().map_or(0, |all| {
        all.iter().filter(|one| one["state"] == "ready").count()
    });
    ensure!(ready == high, "{ready} isolates are ready, not {high}");
    Ok(Step {
        low: at_low,
        high: at_high,
        count: high - low,
    })
}

async fn wake(clients: &[Client]) -> Result<()> {
    for client in clients {
        client
            .call("echo", json!({"text": "hello"}))
            .await?
            .text()?;
    }
    Ok(())
}

/// Sessions of one user over several keys, none of which calls anything.
async fn of_sessions(options: &Options) -> Result<Step> {
    let (low, high) = options.sessions;
    let gateway = server(&options.product).await?;
    gateway.publish("bench", &[], &["demo-mcp", "--echo"])?;
    gateway.user("ada")?;
    let mut keys = Vec::new();
    for _ in 0..high.div_ceil(SESSIONS_PER_KEY) {
        keys.push(gateway.key("ada")?);
    }
    register(&gateway, &keys, 0..low).await?;
    let at_low = settled(&gateway).await;
    register(&gateway, &keys, low..high).await?;
    let at_high = settled(&gateway).await;
    let status = gateway.json(&["status"])?;
    ensure!(
        status["sessions"] == high,
        "{} sessions",
        status["sessions"]
    );
    Ok(Step {
        low: at_low,
        high: at_high,
        count: high - low,
    })
}

async fn register(
    gateway: &Gateway,
    keys: &[String],
    numbers: std::ops::Range<usize>,
) -> Result<()> {
    let mut connection = gateway.connect().await?;
    for number in numbers {
        let key = &keys[number / SESSIONS_PER_KEY];
        gateway.register_over(&mut connection, key).await?;
    }
    Ok(())
}

async fn server(product: &Path) -> Result<Gateway> {
    Gateway::start("footprint".to_owned(), product, Settings::default()).await
}

async fn settled(gateway: &Gateway) -> Memory {
    tokio::time::sleep(SETTLE).await;
    proc::memory(gateway.running.pid)
}

/// `serve --dev` twice in one directory; memory of the second one and of its spawner.
async fn at_rest(product: &Path) -> Result<(Memory, Memory)> {
    let beside = product.parent().context("the product has no directory")?;
    let dir = Arc::new(TempDir::new_in(beside)?);
    drop(trial(product, &dir).await?);
    let second = trial(product, &dir).await?;
    tokio::time::sleep(SETTLE).await;
    let children = proc::children(second.pid);
    let spawner = children.first().copied().map(proc::memory);
    Ok((proc::memory(second.pid), spawner.unwrap_or_default()))
}

async fn trial(product: &Path, dir: &Arc<TempDir>) -> Result<Running> {
    let addr = format!("127.0.0.1:{}", free_port()?);
    let began = Instant::now();
    let child = Command::new(product)
        .args(["serve", "--dev", "--listen", &addr])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut running = Running::new("trial".to_owned(), child, began).keep(Arc::clone(dir));
    while tokio::net::TcpStream::connect(&addr).await.is_err() {
        ensure!(!running.ended(), "serve --dev ended");
        ensure!(
            began.elapsed() < Duration::from_secs(30),
            "serve --dev does not listen"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The demo is furnished after the port is open.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(running)
}

// === impl Step ===

impl Step {
    fn slope(&self, of: impl Fn(&Memory) -> u64) -> f64 {
        (of(&self.high) as f64 - of(&self.low) as f64) / self.count as f64
    }

    fn show(&self) -> String {
        format!(
            "{:.1} ({:.1}, {:.1})",
            self.slope(|memory| memory.pss_kib),
            self.slope(|memory| memory.private_kib),
            self.slope(|memory| memory.rss_kib)
        )
    }
}
