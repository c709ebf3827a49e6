//! What watching costs: a scrape of `/metrics` with many isolates, and one sweep over the counters
//! of many more.
//!
//! ```text
//! cargo bench --bench scrape -- [--rounds N] [--isolates N] [--leaves N] [--mcps N]
//!     [--product PATH] [--out FILE]
//! ```
//!
//! The scrape is timed from outside, from the request to the last byte, on a connection that is open.
//! The sweep reads real cgroups through the `sandbox` crate, each with a sleeping process in it, on one
//! thread, as the gateway does. A missed bar is an exit code. Needs root.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rig::http::{Connection, Endpoint};
use rig::ours::{Gateway, Settings};
use rig::report::{self, median};
use rig::target::default_product;
use rig::words;
use sandbox::cgroup::{LeafName, Limits};
use sandbox::plan::{Identity, Program};
use sandbox::reach::Declared;
use sandbox::{Facility, Host, HostConfig, Network, Profile, SpawnSpec, Spawned};
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bars.
const SCRAPE_MS_MAX: f64 = 20.0;
const SWEEP_MS_MAX: f64 = 50.0;
/// Between two rounds: scrapes come apart, and so do sweeps.
const APART: Duration = Duration::from_millis(200);

struct Options {
    rounds: usize,
    isolates: usize,
    leaves: usize,
    mcps: usize,
    product: PathBuf,
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    // As the product's own main: the spawner is this program in another role.
    sandbox::role();
    let options = options()?;
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: cgroups need root");
        return Ok(());
    }
    let mut text = report::preamble();
    text.push_str(
        "\n### Watching\n\n\
         | what | bar, ms | median | worst | of |\n|---|---|---|---|---|\n",
    );
    let mut missed = Vec::new();
    let sweeps = sweeps(&options)?;
    let what = format!("one sweep over {} isolates", options.leaves);
    let (walls, cpus): (Vec<f64>, Vec<f64>) = sweeps.into_iter().unzip();
    row(&mut text, &mut missed, &what, Some(SWEEP_MS_MAX), &walls);
    row(&mut text, &mut missed, "the same, on the CPU", None, &cpus);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(scrapes(&options, &mut text, &mut missed))?;
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 20,
        isolates: 500,
        leaves: 1000,
        mcps: 10,
        product: default_product()?,
        out: None,
    };
    words::read("scrape", |word, value| {
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--isolates" => options.isolates = value()?.parse()?,
            "--leaves" => options.leaves = value()?.parse()?,
            "--mcps" => options.mcps = value()?.parse()?,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    ensure!(
        options.isolates.is_multiple_of(options.mcps),
        "isolates must divide by mcps"
    );
    Ok(options)
}

fn row(text: &mut String, missed: &mut Vec<String>, what: &str, bar: Option<f64>, times: &[f64]) {
    let middle = median(times.to_vec());
    let worst = times.iter().copied().fold(0.0, f64::max);
    let shown = bar.map_or("-".to_owned(), |bar| format!("≤ {bar}"));
    let rounds = times.len();
    let _ = writeln!(
        text,
        "| {what} | {shown} | {middle:.2} | {worst:.2} | {rounds} |"
    );
    if bar.is_some_and(|bar| middle > bar) {
        missed.push(format!("{what}: {middle:.2} ms"));
    }
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

// === the sweep ===

/// The isolates under it, killed and removed whatever happens.
struct Leaves(Vec<Spawned>);

impl Drop for Leaves {
    fn drop(&mut self) {
        for one in &self.0 {
            one.leaf.kill();
            one.process.kill();
        }
        for one in &self.0 {
            let since = Instant::now();
            while since.elapsed() < Duration::from_secs(10) {
                let reaped = matches!(one.process.try_reap(), Ok(Some(_)) | Err(_));
                if reaped && one.leaf.is_empty() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = one.leaf.remove();
        }
    }
}

/// Milliseconds this thread was on a CPU: what is left of a time on a machine that does other things.
fn on_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|first| first.parse().ok());
    nanos.unwrap_or(0.0) / 1e6
}

/// Wall time and time on the CPU of each.
fn sweeps(options: &Options) -> Result<Vec<(f64, f64)>> {
    let mut config = HostConfig::new(&format!("{:012x}", std::process::id()));
    config.allow_degraded = Facility::ALL.to_vec();
    config.probe_identity = somebody();
    let host = Host::start(config)?;
    let mut leaves = Leaves(Vec::new());
    for number in 0..options.leaves {
        leaves.0.push(host.spawn(&sleeper(number))?);
    }
    let mut times = Vec::new();
    let mut seen = 0;
    for turn in (0..).take(options.rounds) {
        std::thread::sleep(APART);
        let (since, cpu) = (Instant::now(), on_cpu());
        seen = leaves
            .0
            .iter()
            .filter(|one| one.leaf.sample(turn).memory.is_some())
            .count();
        times.push((ms(since), on_cpu() - cpu));
    }
    ensure!(
        seen == options.leaves,
        "only {seen} of {} leaves could be read",
        options.leaves
    );
    Ok(times)
}

/// Whom sleepers run as: under root nobody runs as root.
fn somebody() -> Option<Identity> {
    let id = 1_400_000_000;
    rustix::process::geteuid()
        .is_root()
        .then_some(Identity { uid: id, gid: id })
}

fn sleeper(number: usize) -> SpawnSpec {
    let limits = |memory_bytes, pids| Limits {
        memory_bytes,
        pids,
        cpu_millis: 1000,
    };
    SpawnSpec {
        leaf: LeafName {
            user: Some(format!("u{}", number / 10)),
            isolate: format!("i{number}"),
        },
        program: Program {
            path: "/bin/sleep".into(),
            args: vec!["3600".to_owned()],
            env: BTreeMap::new(),
        },
        workdir: "/".into(),
        profile: Profile::None,
        network: Network::None,
        ports: Vec::new(),
        identity: somebody(),
        declared: Declared::default(),
        secrets: None,
        descriptors: BTreeMap::new(),
        opening: Vec::new(),
        limits: limits(64 << 20, 32),
        user_limits: limits(1 << 30, 512),
        open_files: 64,
        file_bytes: 1 << 20,
    }
}

// === the scrape ===

async fn scrapes(options: &Options, text: &mut String, missed: &mut Vec<String>) -> Result<()> {
    let settings = Settings {
        more: "[isolates]\nper_user_max = 100\n".into(),
        ..Settings::default()
    };
    let gateway = Gateway::start("scraped".to_owned(), &options.product, settings).await?;
    for mcp in 0..options.mcps {
        let name = format!("bench{mcp}");
        gateway.publish(&name, &["--idle", "never"], &["demo-mcp", "--echo"])?;
    }
    for user in 0..options.isolates / options.mcps {
        let client = gateway.client(&format!("user{user}")).await?;
        for mcp in 0..options.mcps {
            let tool = format!("bench{mcp}.echo");
            client.call(&tool, json!({"text": "hello"})).await?.text()?;
        }
    }
    let status = gateway.json(&["status"])?;
    let url = status["ops_url"].as_str().context("no ops listener")?;
    let address: SocketAddr = url.replace("http://localhost", "127.0.0.1").parse()?;
    let mut connection = Connection::open(&Endpoint::plain(address)).await?;
    // The first sweep has read them all.
    let until = Instant::now() + Duration::from_secs(30);
    while series(&mut connection, "/metrics").await?.1 < options.isolates {
        ensure!(Instant::now() < until, "not all isolates were read");
        tokio::time::sleep(APART).await;
    }
    for (path, bar) in [
        ("/metrics", Some(SCRAPE_MS_MAX)),
        ("/metrics/isolates", None),
    ] {
        let mut times = Vec::new();
        let mut count = 0;
        for _ in 0..options.rounds {
            tokio::time::sleep(APART).await;
            let since = Instant::now();
            count = series(&mut connection, path).await?.0;
            times.push(ms(since));
        }
        let (isolates, mcps) = (options.isolates, options.mcps);
        let what = format!("{path}, {isolates} isolates of {mcps} mcps, {count} series");
        row(text, missed, &what, bar, &times);
    }
    Ok(())
}

/// How many series a page has, and how many processes `/metrics` knows of in isolates.
async fn series(connection: &mut Connection, path: &str) -> Result<(usize, usize)> {
    let answer = connection
        .exchange(&format!("GET {path} HTTP/1.1\r\nhost: bench\r\n"), b"")
        .await?;
    ensure!(answer.status == 200, "{path}: status {}", answer.status);
    let page = std::str::from_utf8(answer.body)?;
    let samples = page
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    let processes: usize = samples
        .clone()
        .filter(|line| line.starts_with("legation_cgroup_processes{"))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
        .sum();
    Ok((samples.count(), processes))
}
