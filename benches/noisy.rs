//! What one user's attack costs another user's calls: while an isolate runs a fork bomb, a memory bomb and a CPU
//! spin at once, the p99 of a call through the product, and of the same call through the bare hop, in alternating
//! stretches of one run; and both without the attack.
//!
//! ```text
//! cargo bench --bench noisy -- [--rounds N] [--seconds S] [--product PATH] [--out FILE]
//! ```
//!
//! The attack is the same for both: a server in an isolate of the product, with its limits; it is ended for want of
//! memory again and again, and another user's begins. The bare hop and its child have no limits and stand beside it.
//! How each attacker ended, whose limit that was and whose isolate, is checked. A missed bar is an exit code. Needs
//! root, or nothing is limited.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rig::load::{self, Sample, Session};
use rig::ours::{Client, Gateway, Settings};
use rig::report::{self, median};
use rig::target::{Scenario, Target, default_product};
use rig::{bare, proc, words};
use serde_json::json;
use tokio::time::sleep;

/// The product's allocator: the bare hop gets the same one, or the comparison is of allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bars on medians over rounds: against the bare hop under the same attack, and against our own quiet.
const HOP_RATIO_MAX: f64 = 1.5;
const QUIET_RATIO_MAX: f64 = 5.0;
/// Users who attack one after the other: who was ended has to wait before it starts again.
const ATTACKERS: usize = 6;
/// Memory of an attacker's isolate, and how fast it is taken: a life of two seconds.
const ATTACK_MEMORY: &str = "256MiB";
const ATTACK_MIB_PER_SECOND: u64 = 128;
/// How long an attack may take to be under way, and to be over.
const PATIENCE: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_millis(500);
/// Attackers start again at once, or soon the attack would be over.
const RESTARTS: &str = "[restart]\nfloor_ms = 10\ncap_ms = 100\nfailures_max = 100\n";

struct Options {
    role: Option<String>,
    rounds: usize,
    seconds: f64,
    product: PathBuf,
    out: Option<PathBuf>,
}

/// p99 in microseconds of each, quiet and under attack, by round.
#[derive(Default)]
struct Seen {
    ours: [Vec<f64>; 2],
    hop: [Vec<f64>; 2],
    calls: usize,
}

/// Whether the attack goes on, and what came of it.
#[derive(Default)]
struct Attack {
    on: AtomicBool,
    over: AtomicBool,
    ended: AtomicU64,
}

fn main() -> Result<()> {
    let options = options()?;
    let threads = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    match options.role.as_deref() {
        None => {}
        Some("hop") => return threads()?.block_on(bare::hop(options.product, false)),
        Some(other) => bail!("no role {other}"),
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: nothing is limited without root");
        return Ok(());
    }
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
        role: None,
        rounds: 5,
        seconds: 3.0,
        product: default_product()?,
        out: None,
    };
    words::read("noisy", |word, value| {
        match word {
            "--role" => options.role = Some(value()?),
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

async fn measure(options: &Options) -> Result<(String, Vec<String>)> {
    let settings = Settings {
        more: RESTARTS.into(),
        ..Settings::default()
    };
    let gateway = Gateway::start("noisy".to_owned(), &options.product, settings).await?;
    gateway.publish("bench", &[], &["demo-mcp", "--echo"])?;
    gateway.publish("attack", &["--memory", ATTACK_MEMORY], &["demo-mcp"])?;
    let victim = gateway.client("victim").await?.session("bench.echo");
    let mut attackers = Vec::new();
    for number in 0..ATTACKERS {
        attackers.push(gateway.client(&format!("mallory{number}")).await?);
    }
    let scenario = Scenario {
        name: "noisy".to_owned(),
        connections: 1,
        sessions: 1,
        shared: false,
        product: options.product.clone(),
    };
    let hop = Target::Hop.start(&scenario).await?;
    let hop_session = hop
        .sessions
        .first()
        .context("no session of the hop")?
        .clone();

    let attack = Arc::new(Attack::default());
    let attacking = tokio::spawn(keep_attacking(attackers, Arc::clone(&attack)));
    let time = Duration::from_secs_f64(options.seconds);
    let mut seen = Seen::default();
    for session in [&victim, &hop_session] {
        calls(session, WARM_UP).await?;
    }
    for round in 0..options.rounds {
        // In turn, and each first in every other round.
        for step in 0..4 {
            let step = (step + round) % 4;
            let (noisy, is_ours) = (step / 2, step % 2 == 0);
            attack.on.store(noisy == 1, Ordering::Relaxed);
            settle(&gateway, noisy == 1).await?;
            let session = if is_ours { &victim } else { &hop_session };
            let sample = calls(session, time).await?;
            let p99 = sample.percentile(0.99);
            let of = if is_ours {
                &mut seen.ours
            } else {
                &mut seen.hop
            };
            of[noisy].push(p99);
            seen.calls += sample.latencies.len();
            eprintln!(
                "round {round}: {}, {}: p50 {:.0} µs, p99 {p99:.0} µs",
                if is_ours { "ours" } else { "bare hop" },
                if noisy == 1 { "attacked" } else { "quiet" },
                sample.percentile(0.50),
            );
        }
    }
    attack.over.store(true, Ordering::Relaxed);
    attack.on.store(false, Ordering::Relaxed);
    tokio::time::timeout(PATIENCE, attacking).await???;
    let verdicts = verdicts(&gateway)?;
    Ok(report(options, &seen, &attack, &verdicts))
}

/// One call after the other; all must be right.
async fn calls(session: &Session, time: Duration) -> Result<Sample> {
    let sample = load::run(std::slice::from_ref(session), 1, time).await?;
    ensure!(sample.bad == 0, "bad answers: {:?}", sample.errors);
    Ok(sample)
}

/// Waits until the attack is under way, or over.
async fn settle(gateway: &Gateway, wanted: bool) -> Result<()> {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let list = gateway.json(&["isolate", "list"])?;
            let all = list.as_array().or_else(|| list["isolates"].as_array());
            let busy = all
                .into_iter()
                .flatten()
                .any(|one| one["mcp"] == "attack" && one["in_flight"].as_u64() > Some(0));
            if busy == wanted {
                return Ok::<_, anyhow::Error>(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.context("the attack does not come and go")?
}

/// One attacker after the other, each until it is ended.
async fn keep_attacking(attackers: Vec<Client>, attack: Arc<Attack>) -> Result<()> {
    let mut turns = attackers.iter().cycle();
    while !attack.over.load(Ordering::Relaxed) {
        if !attack.on.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(5)).await;
            continue;
        }
        let client = turns.next().context("nobody attacks")?;
        let bomb = json!({"mib_per_second": ATTACK_MIB_PER_SECOND});
        let reply = client.call("attack.bomb", bomb).await?;
        match reply.failure()? {
            "out_of_memory" => drop(attack.ended.fetch_add(1, Ordering::Relaxed)),
            "backing_off" | "starting" => sleep(Duration::from_millis(20)).await,
            other => bail!("an attacker's call ended with {other}: {}", reply.body),
        }
    }
    Ok(())
}

/// How the attackers' isolates ended last: each by its own limit, each its user's.
fn verdicts(gateway: &Gateway) -> Result<Vec<String>> {
    let list = gateway.json(&["isolate", "list"])?;
    let all = list.as_array().or_else(|| list["isolates"].as_array());
    let mut told = Vec::new();
    for one in all
        .into_iter()
        .flatten()
        .filter(|one| one["mcp"] == "attack")
    {
        let (user, verdict) = (&one["user"], &one["last_verdict"]);
        let (Some(user), Some(verdict)) = (user.as_str(), verdict.as_str()) else {
            continue;
        };
        ensure!(
            user.starts_with("mallory") && verdict.contains("the isolate's limit of 256 MiB"),
            "{user}: {verdict}"
        );
        told.push(format!("{user}: {verdict}"));
    }
    ensure!(!told.is_empty(), "nobody was ended: {list}");
    Ok(told)
}

fn report(
    options: &Options,
    seen: &Seen,
    attack: &Attack,
    verdicts: &[String],
) -> (String, Vec<String>) {
    let over = |ours: &[f64], base: &[f64]| {
        median(
            ours.iter()
                .zip(base)
                .map(|(ours, base)| ours / base)
                .collect(),
        )
    };
    let mut text = report::preamble();
    let _ = write!(
        text,
        "\n### A noisy neighbour\n\nOne call after the other, {} alternating rounds of {} s each; {} calls, all right; {} attackers \
         were ended for want of memory meanwhile. Load average at the end {}.\n\n\
         | | p99 µs quiet | p99 µs attacked | attacked × quiet | by round, quiet | by round, attacked |\n|---|---|---|---|---|---|\n",
        options.rounds,
        options.seconds,
        seen.calls,
        attack.ended.load(Ordering::Relaxed),
        proc::load_average(),
    );
    for (name, [quiet, noisy]) in [("bare hop", &seen.hop), ("legation", &seen.ours)] {
        let list = |of: &[f64]| {
            let all: Vec<String> = of.iter().map(|p99| format!("{p99:.0}")).collect();
            all.join(", ")
        };
        let _ = writeln!(
            text,
            "| {name} | {:.0} | {:.0} | {:.2} | {} | {} |",
            median(quiet.clone()),
            median(noisy.clone()),
            over(noisy, quiet),
            list(quiet),
            list(noisy),
        );
    }
    let _ = writeln!(
        text,
        "\nHow attackers ended, by `isolate list`: {}.",
        verdicts.join("; ")
    );
    let [quiet, noisy] = &seen.ours;
    let [_, hop] = &seen.hop;
    let mut missed = Vec::new();
    for (what, is, max) in [
        (
            "p99 × the bare hop's under the same attack",
            over(noisy, hop),
            HOP_RATIO_MAX,
        ),
        ("p99 × its own without", over(noisy, quiet), QUIET_RATIO_MAX),
    ] {
        let word = if is <= max { "held" } else { "**MISSED**" };
        let _ = writeln!(text, "\n* {what}: {is:.2}, bar ≤ {max}: {word}");
        if is > max {
            missed.push(format!("{what}: {is:.2} > {max}"));
        }
    }
    (text, missed)
}
