//! What the audit log costs: records appended and committed through the product's own writer against
//! a loop that serialises, hashes and appends the same records with fdatasync, at several batches;
//! and what durable audit adds to a call over buffered, against an append of 4 KiB with fdatasync.
//!
//! ```text
//! cargo bench --bench audit -- [--rounds N] [--seconds S] [--dir DIR] [--no-calls] [--product PATH]
//!     [--out FILE]
//! ```
//!
//! Everything alternates in one run, and figures are medians of rounds. A missed bar is an exit code.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use legation::actors::audit::{Audit, Durability, Entry, Setup, Verify};
use legation::domain::audit::chain::Tip;
use rig::load::{self, Sample};
use rig::report::{self, median};
use rig::target::{Scenario, Target, default_product};
use rig::words;
use rig::{disk, proc};
use serde::Serialize;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Records per sync.
const BATCHES: [usize; 4] = [1, 16, 64, 256];
/// The bar on our rate over the loop's.
const RATE_MIN: f64 = 0.5;
/// The bars on what durable adds to a call's p50 and p99, in bare appends of [`APPEND_BYTES`].
const P50_MAX: f64 = 3.0;
const P99_MAX: f64 = 4.0;
/// Bytes of the bare append.
const APPEND_BYTES: usize = 4096;

struct Options {
    rounds: usize,
    seconds: f64,
    dir: Option<PathBuf>,
    calls: bool,
    product: PathBuf,
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = options()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut text = report::preamble();
    let mut missed = Vec::new();
    appends(&options, &runtime, &mut text, &mut missed)?;
    if options.calls {
        runtime.block_on(Box::pin(calls(&options, &mut text, &mut missed)))?;
    }
    println!("{text}");
    if let Some(path) = &options.out {
        std::fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}

fn options() -> Result<Options> {
    let mut options = Options {
        rounds: 5,
        seconds: 1.0,
        dir: None,
        calls: true,
        product: default_product()?,
        out: None,
    };
    words::read("audit", |word, value| {
        match word {
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--dir" => options.dir = Some(value()?.into()),
            "--no-calls" => options.calls = false,
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// The record of a call's start, as anybody would write it down.
#[derive(Serialize)]
struct Plain<'a> {
    at: i64,
    event: &'a str,
    call: &'a str,
    session: &'a str,
    user: &'a str,
    key: &'a str,
    mcp: &'a str,
    tool: &'a str,
    arguments_bytes: u64,
    arguments_sha256: &'a str,
}

const CALL: &str = "call_0123456789abcdef";
const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn plain(number: u64) -> Plain<'static> {
    Plain {
        at: 1_770_000_000_000 + i64::try_from(number).unwrap_or(0),
        event: "call.start",
        call: CALL,
        session: "ses_0123456789abcdef",
        user: "usr_0123456789abcdef",
        key: "key_0123456789abcdef",
        mcp: "mcp_0123456789abcdef",
        tool: "echo",
        arguments_bytes: 57,
        arguments_sha256: DIGEST,
    }
}

fn entry(number: u64) -> Entry {
    let of = plain(number);
    Entry::new("call.start", of.at)
        .field("call", of.call)
        .field("session", of.session)
        .field("user", of.user)
        .field("key", of.key)
        .field("mcp", of.mcp)
        .field("tool", of.tool)
        .number("arguments_bytes", of.arguments_bytes)
        .field("arguments_sha256", of.arguments_sha256)
}

fn appends(
    options: &Options,
    runtime: &tokio::runtime::Runtime,
    text: &mut String,
    missed: &mut Vec<String>,
) -> Result<()> {
    let place = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir_in(".")?,
    };
    let audit = Audit::start(Setup::new(&place.path().join("audit"), Durability::Durable))?;
    let time = Duration::from_secs_f64(options.seconds);
    let _ = write!(
        text,
        "\n### Records per second\n\nMedians of {} alternating rounds of {} s; the loop serialises \
         with serde_json, hashes and appends the same records with fdatasync.\n\n\
         | records per sync | the loop | ours, a batch at once | × the loop | ours, as many callers at once | × the loop |\n\
         |---|---|---|---|---|---|\n",
        options.rounds, options.seconds
    );
    for batch in BATCHES {
        let (mut bare, mut ours, mut callers) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..options.rounds {
            let mut one = |which: usize| -> Result<()> {
                match which {
                    0 => bare.push(looped(place.path(), batch, time)?),
                    1 => ours.push(runtime.block_on(batches(&audit, batch, time))?),
                    _ => callers.push(runtime.block_on(at_once(&audit, batch, time))?),
                }
                Ok(())
            };
            for step in 0..3 {
                one((step + round) % 3)?;
            }
        }
        let ratio = |of: &[f64]| median(of.iter().zip(&bare).map(|(a, b)| a / b).collect());
        let (by_batch, by_callers) = (ratio(&ours), ratio(&callers));
        let _ = writeln!(
            text,
            "| {batch} | {:.0} | {:.0} | {by_batch:.2} | {:.0} | {by_callers:.2} |",
            median(bare.clone()),
            median(ours.clone()),
            median(callers.clone()),
        );
        if by_batch < RATE_MIN {
            missed.push(format!(
                "{by_batch:.2} × the loop at a batch of {batch} < {RATE_MIN}"
            ));
        }
    }
    let closed = runtime.block_on(audit.close(Duration::from_secs(30)));
    ensure!(closed, "the log did not close whole");
    let report = Verify::of(&place.path().join("audit"), None)?.run()?;
    ensure!(report.whole, "the log is broken: {report:?}");
    let _ = writeln!(
        text,
        "\nThe bar is ≥ {RATE_MIN} × the loop for a batch. Afterwards all {} records were checked and whole. \
         Load average at the end {}.",
        report.records,
        proc::load_average()
    );
    Ok(())
}

/// Serialise, hash, append, sync.
fn looped(place: &Path, batch: usize, time: Duration) -> Result<f64> {
    let path = place.join("bare.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let (mut tip, mut out, mut fields) = (Tip::START, Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed() < time {
        out.clear();
        for _ in 0..batch {
            fields.clear();
            serde_json::to_writer(&mut fields, &plain(tip.seq))?;
            // The inside of the object, behind its number.
            fields[0] = b',';
            fields.pop();
            tip.seal(&fields, &mut out);
        }
        file.write_all(&out)?;
        file.sync_data()?;
    }
    let rate = tip.seq as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Appends a batch and waits for its last record, and with it for all.
async fn batches(audit: &Audit, batch: usize, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut made = 0u64;
    while began.elapsed() < time {
        for _ in 1..batch {
            audit.post(entry(made));
            made += 1;
        }
        audit.commit(entry(made)).await?;
        made += 1;
    }
    Ok(made as f64 / began.elapsed().as_secs_f64())
}

/// As many callers, each of which waits for its own record.
async fn at_once(audit: &Audit, callers: usize, time: Duration) -> Result<f64> {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let audit = audit.clone();
        tasks.spawn(async move {
            let mut made = 0u64;
            while began.elapsed() < time {
                audit.commit(entry(made)).await?;
                made += 1;
            }
            anyhow::Ok(made)
        });
    }
    let mut made = 0;
    while let Some(done) = tasks.join_next().await {
        made += done??;
    }
    Ok(made as f64 / began.elapsed().as_secs_f64())
}

/// What durable adds to a call over buffered.
async fn calls(options: &Options, text: &mut String, missed: &mut Vec<String>) -> Result<()> {
    let scenario = Scenario {
        name: "one caller".to_owned(),
        connections: 1,
        sessions: 1,
        shared: false,
        product: options.product.clone(),
    };
    let buffered = Target::Buffered.start(&scenario).await?;
    let durable = Target::Durable.start(&scenario).await?;
    let beside = durable
        .file("data/audit/any")
        .context("no data directory")?;
    let time = Duration::from_secs_f64(options.seconds);
    let (mut added50, mut added99) = (Vec::new(), Vec::new());
    let (mut rows, mut page) = (String::new(), vec![b'x'; APPEND_BYTES]);
    page[APPEND_BYTES - 1] = b'\n';
    for round in 0..options.rounds {
        let mut samples: [Option<Sample>; 3] = [None, None, None];
        for step in 0..3 {
            let which = (step + round) % 3;
            samples[which] = Some(match which {
                0 => load::run(&buffered.sessions, 1, time).await?,
                1 => load::run(&durable.sessions, 1, time).await?,
                _ => disk::run(&beside, &page, time)?,
            });
        }
        let at = |which: usize, share: f64| {
            samples[which]
                .as_ref()
                .map_or(f64::NAN, |sample| sample.percentile(share))
        };
        ensure!(
            samples.iter().flatten().all(|sample| sample.bad == 0),
            "a round failed"
        );
        let added = |share: f64| (at(1, share) - at(0, share)) / at(2, share);
        added50.push(added(0.50));
        added99.push(added(0.99));
        let _ = writeln!(
            rows,
            "| {round} | {:.0} / {:.0} | {:.0} / {:.0} | {:.0} / {:.0} | {:.2} | {:.2} |",
            at(0, 0.50),
            at(0, 0.99),
            at(1, 0.50),
            at(1, 0.99),
            at(2, 0.50),
            at(2, 0.99),
            added(0.50),
            added(0.99),
        );
    }
    let (p50, p99) = (median(added50), median(added99));
    let _ = write!(
        text,
        "\n### A call\n\nOne caller, plain HTTP on loopback; p50 / p99 in µs; “added” is durable minus \
         buffered, in appends of {APPEND_BYTES} bytes with fdatasync of the same round.\n\n\
         | round | buffered | durable | bare append | added to p50 | added to p99 |\n\
         |---|---|---|---|---|---|\n{rows}\n\
         * added to p50: {p50:.2} appends, bar ≤ {P50_MAX}\n* added to p99: {p99:.2} appends, bar ≤ {P99_MAX}\n\
         \nLoad average at the end {}.\n",
        proc::load_average()
    );
    if p50 > P50_MAX {
        missed.push(format!("{p50:.2} appends added to p50 > {P50_MAX}"));
    }
    if p99 > P99_MAX {
        missed.push(format!("{p99:.2} appends added to p99 > {P99_MAX}"));
    }
    Ok(())
}
