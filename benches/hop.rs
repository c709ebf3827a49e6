//! The end-to-end comparison: the same call through the product, through a bare hop, through a
//! bare POST and through a bare pipe, in alternating rounds of one run.
//!
//! ```text
//! cargo bench --bench hop -- [--c N] [--isolates N] [--shared] [--rounds N] [--seconds S]
//!     [--targets floor,hop,buffered,durable,tls] [--tls] [--peers] [--no-gates] [--product PATH]
//!     [--awake] [--out FILE]
//! ```
//!
//! `--tls` adds the product behind its own certificate to the unshared scenarios.
//!
//! `--peers` adds the other gateways of the scenario's kind, as `scripts/peers.sh` installs them.
//!
//! Without `--c` it runs the hard gates and the three standard scenarios: concurrency 1, 64 over 16
//! isolates, and 64 over 16 sessions of one shared instance. Any bad answer of the product ends the
//! run with an exit code. Gate on ratios and CPU per request, never on absolute
//! times: the machine's mood (idle cores wake slowly) is worth more than the code between.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rig::peers::Peer;
use rig::report::{Cell, Row};
use rig::target::{Scenario, Target, default_product};
use rig::words;
use rig::{disk, gates, pipe, proc, report, rounds};

/// The product's allocator: the bare hop gets the same one, or the comparison is of allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The row of the bare pipe.
const PIPE: &str = "bare pipe";
/// Seconds of a round that the bare disk gets at most.
const DISK_SECONDS_MAX: f64 = 1.0;

struct Options {
    role: Option<String>,
    connections: Option<usize>,
    isolates: usize,
    shared: bool,
    rounds: usize,
    seconds: f64,
    targets: Option<Vec<Target>>,
    peers: bool,
    tls: bool,
    gates: bool,
    product: PathBuf,
    awake: bool,
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = options()?;
    match options.role.as_deref() {
        None => rounds::block_on(compare(&options)),
        Some("spin") => spin(),
        Some(role) => rounds::play(role, options.product),
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        role: None,
        connections: None,
        isolates: 16,
        shared: false,
        rounds: 5,
        seconds: 3.0,
        targets: None,
        peers: false,
        tls: false,
        gates: true,
        product: default_product()?,
        awake: false,
        out: None,
    };
    words::read("hop", |word, value| {
        match word {
            "--role" => options.role = Some(value()?),
            "--c" => options.connections = Some(value()?.parse()?),
            "--isolates" => options.isolates = value()?.parse()?,
            "--shared" => options.shared = true,
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--targets" => options.targets = Some(targets(&value()?)?),
            "--peers" => options.peers = true,
            "--tls" => options.tls = true,
            "--no-gates" => options.gates = false,
            "--product" => options.product = value()?.into(),
            "--awake" => options.awake = true,
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

fn targets(list: &str) -> Result<Vec<Target>> {
    list.split(',')
        .map(|name| match name {
            "floor" => Ok(Target::Floor),
            "hop" => Ok(Target::Hop),
            "hop-shared" => Ok(Target::HopShared),
            "buffered" => Ok(Target::Buffered),
            "durable" => Ok(Target::Durable),
            "tls" => Ok(Target::Tls),
            other => bail!("no target {other}"),
        })
        .collect()
}

async fn compare(options: &Options) -> Result<()> {
    let scenario = |name: &str, connections, sessions, shared| Scenario {
        name: name.to_owned(),
        connections,
        sessions,
        shared,
        product: options.product.clone(),
    };
    let scenarios = match options.connections {
        Some(connections) => {
            let sessions = options.isolates.min(connections);
            let kind = if options.shared {
                "sessions of one shared instance"
            } else {
                "isolates"
            };
            let name = format!("Concurrency {connections} over {sessions} {kind}");
            vec![scenario(&name, connections, sessions, options.shared)]
        }
        None => vec![
            scenario("Concurrency 1", 1, 1, false),
            scenario("Concurrency 64 over 16 isolates", 64, 16, false),
            scenario(
                "Concurrency 64 over 16 sessions of one shared instance",
                64,
                16,
                true,
            ),
        ],
    };
    let _awake = if options.awake {
        spinners()?
    } else {
        Vec::new()
    };
    let time = Duration::from_secs_f64(options.seconds);
    let mut text = report::preamble();
    if options.gates && options.connections.is_none() {
        let part = gates::run(&options.product, time).await?;
        println!("{part}");
        text.push_str(&part);
    }
    for scenario in scenarios {
        let part = measure(options, &scenario).await?;
        println!("{part}");
        text.push_str(&part);
    }
    if let Some(path) = &options.out {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

async fn measure(options: &Options, scenario: &Scenario) -> Result<String> {
    let hop = if scenario.shared {
        Target::HopShared
    } else {
        Target::Hop
    };
    let mut chosen = options.targets.clone().unwrap_or_else(|| {
        vec![
            Target::Floor,
            hop.clone(),
            Target::Buffered,
            Target::Durable,
        ]
    });
    if options.tls && !scenario.shared {
        chosen.push(Target::Tls);
    }
    if options.peers {
        let peers = if scenario.shared {
            &Peer::SHARING[..]
        } else {
            &Peer::ISOLATING[..]
        };
        chosen.extend(peers.iter().copied().map(Target::Peer));
    }
    let mut running = Vec::new();
    let mut failed = String::new();
    for target in &chosen {
        match rounds::start(target, scenario).await {
            Ok(started) => running.push((target.clone(), started)),
            // A peer that fails is reported; of ours, nothing may fail.
            Err(why) if matches!(target, Target::Peer(_)) => {
                let _ = writeln!(failed, "\n`{}` FAILED: {why:#}", target.name());
            }
            Err(why) => return Err(why.context(format!("cannot start {}", target.name()))),
        }
    }
    let mut rows: Vec<Row> = running.iter().map(|one| rounds::row(&one.1)).collect();
    let mut pipe_row = (scenario.connections == 1).then(|| Row::bare(PIPE));
    let records = scenario.connections;
    let disk_name = format!("bare append + fdatasync, audit records: {records}");
    let durable = chosen.contains(&Target::Durable);
    let mut disk_row = durable.then(|| Row::bare(&disk_name));
    let time = Duration::from_secs_f64(options.seconds);
    for round in 0..options.rounds {
        for turn in rounds::turns(round, running.len()) {
            let (kind, target) = &running[turn];
            let connections = scenario.connections;
            let cell = rounds::cell(kind, target, connections, time, round).await?;
            rows[turn].cells.push(cell);
            rows[turn].loaded = proc::memory(target.pid);
            if let (Target::Durable, Some(row)) = (kind, &mut disk_row) {
                let log = target.file("data/audit").context("no log")?;
                let log = disk::newest_segment(&log)?;
                let bytes = disk::last_records(&log, records)?;
                let time = Duration::from_secs_f64(options.seconds.min(DISK_SECONDS_MAX));
                let sample = disk::run(&log, &bytes, time)?;
                row.cells.push(Cell::new(&sample, proc::Cpu::default()));
            }
        }
        if let Some(row) = &mut pipe_row {
            let sample = pipe::run(&options.product, time)?;
            row.cells.push(Cell::new(&sample, proc::Cpu::default()));
        }
    }
    rows.extend(pipe_row);
    rows.extend(disk_row);
    let mut text = report::scenario(&scenario.name, &rows, &hop.name(), options.seconds);
    text.push_str(&failed);
    let row = |target: &Target| rows.iter().find(|row| row.name == target.name());
    if let (Some(buffered), Some(hop)) = (row(&Target::Buffered), row(&hop)) {
        text.push_str(&bars(scenario, buffered, hop, &rows));
    }
    if let (Some(durable), Some(disk)) = (row(&Target::Durable), rows.last()) {
        text.push_str(&report::disk_share(durable, disk, scenario.connections));
    }
    Ok(text)
}

/// Where the product stands against the bars.
fn bars(scenario: &Scenario, ours: &Row, hop: &Row, rows: &[Row]) -> String {
    let p50 = ours.ratio(hop, |cell| cell.p50);
    let rate = ours.ratio(hop, |cell| cell.per_second);
    let cpu = ours.ratio(hop, |cell| cell.cpu_own);
    let mut text = String::from("\n");
    let mut bar = |what: &str, is: f64, holds: bool| {
        let word = if holds { "held" } else { "**MISSED**" };
        let _ = writeln!(text, "* {what}: {is:.2}, {word}");
    };
    if scenario.connections == 1 {
        bar("p50 ≤ 1.5 × the bare hop", p50, p50 <= 1.5);
        return text;
    }
    // The bars are for isolates; of a shared instance only the peers' rates are asked.
    if !scenario.shared {
        bar("req/s ≥ 0.8 × the bare hop", rate, rate >= 0.8);
        bar("own CPU per request ≤ 1.5 × the bare hop", cpu, cpu <= 1.5);
    }
    for peer in rows {
        let is_peer = Peer::ALL.iter().any(|known| known.name() == peer.name);
        if is_peer && peer.failed_rounds() > 0 {
            let _ = writeln!(text, "* {} FAILED a round: not compared", peer.name);
        } else if is_peer {
            let ahead = ours.ratio(peer, |cell| cell.per_second);
            let what = format!("req/s ahead of {}", peer.name);
            let word = if ahead > 1.0 { "held" } else { "**MISSED**" };
            let _ = writeln!(text, "* {what}: {ahead:.2} ×, {word}");
        }
    }
    text
}

/// One spinner of the lowest priority per core: an idle virtual core takes ~30 µs to wake.
fn spinners() -> Result<Vec<Spinner>> {
    let cores = std::thread::available_parallelism()?.get();
    (0..cores)
        .map(|_| {
            let child = Command::new("chrt")
                .args(["--idle", "0"])
                .arg(std::env::current_exe()?)
                .args(["--role", "spin"])
                .stdin(Stdio::piped())
                .spawn()
                .context("chrt is needed for --awake")?;
            Ok(Spinner(child))
        })
        .collect()
}

struct Spinner(Child);

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Burns the core until stdin closes.
fn spin() -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::Read::read(&mut std::io::stdin().lock(), &mut [0]);
        std::process::exit(0);
    });
    loop {
        std::hint::spin_loop();
    }
}
