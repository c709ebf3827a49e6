//! The face for MCP clients: warm `tools/call` over Streamable HTTP in both eras beside the bare hop, in alternating
//! rounds of one run; what an envelope costs, what an open stream costs, what a large result and a long list cost.
//!
//! ```text
//! cargo bench --bench face -- [--rounds N] [--seconds S] [--peers] [--only PART] [--streams FROM,TO]
//!     [--product PATH] [--out FILE]
//! ```
//!
//! The parts are `calls`, `envelope`, `streams`, `large` and `list`. All sessions use the same ids; an answer with another
//! call's nonce ends the run. A missed bar is an exit code.

#![expect(clippy::print_stdout, reason = "a bench talks on stdout")]

#[expect(dead_code, reason = "each bench uses a part of the rig")]
mod rig;

use std::fmt::Write as _;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{BufMut as _, BytesMut};
use legation::protocol::envelope::{self, Incoming};
use legation::protocol::jsonrpc::{self, Message};
use rig::face::{Era, ask};
use rig::http::Connection;
use rig::ours::{Gateway, Settings};
use rig::peers::Peer;
use rig::report::{self, Row, median};
use rig::target::{Scenario, Target, default_product};
use rig::{proc, rounds, words};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The bars.
const P50_MAX: f64 = 1.5;
const RATE_MIN: f64 = 0.8;
const CPU_MAX: f64 = 1.5;
const SMALL_US_MAX: f64 = 1.0;
const LIST_US_MAX: f64 = 200.0;
const STREAM_KIB_MAX: f64 = 32.0;
const FRAMES_MAX: f64 = 2.0;
const LIST_MS_MAX: f64 = 5.0;

/// Streams of one key.
const STREAMS_PER_KEY: usize = 200;
/// What was allocated on the way is given back within this.
const SETTLE: Duration = Duration::from_secs(4);
const LARGE_BYTES: usize = 10 << 20;
const TOOLS: usize = 1000;

struct Options {
    role: Option<String>,
    rounds: usize,
    seconds: f64,
    peers: bool,
    only: Option<String>,
    streams: (usize, usize),
    product: PathBuf,
    out: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = options()?;
    match &options.role {
        None => rounds::block_on(measure(&options)),
        Some(role) => rounds::play(role, options.product.clone()),
    }
}

fn options() -> Result<Options> {
    let mut options = Options {
        role: None,
        rounds: 5,
        seconds: 3.0,
        peers: false,
        only: None,
        streams: (100, 600),
        product: default_product()?,
        out: None,
    };
    words::read("face", |word, value| {
        match word {
            "--role" => options.role = Some(value()?),
            "--rounds" => options.rounds = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--peers" => options.peers = true,
            "--only" => options.only = Some(value()?),
            "--streams" => {
                let range = value()?;
                let (low, high) = range.split_once(',').context("expected FROM,TO")?;
                options.streams = (low.parse()?, high.parse()?);
            }
            "--product" => options.product = value()?.into(),
            "--out" => options.out = Some(value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(options)
}

/// What is written, and which bars were missed.
#[derive(Default)]
struct Report {
    text: String,
    missed: Vec<String>,
}

impl Report {
    fn bar(&mut self, what: &str, is: f64, unit: &str, holds: bool) {
        let word = if holds { "held" } else { "**MISSED**" };
        let _ = writeln!(self.text, "* {what}: {is:.2}{unit}, {word}");
        eprintln!("{what}: {is:.2}{unit}, {word}");
        if !holds {
            self.missed.push(format!("{what}: {is:.2}{unit}"));
        }
    }
}

async fn measure(options: &Options) -> Result<()> {
    let mut report = Report {
        text: report::preamble(),
        missed: Vec::new(),
    };
    let wants = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if wants("envelope") {
        of_envelopes(&mut report);
    }
    if wants("calls") {
        for (name, connections, sessions) in [
            ("MCP face, concurrency 1", 1, 1),
            ("MCP face, concurrency 64 over 16 isolates", 64, 16),
        ] {
            let scenario = Scenario {
                name: name.to_owned(),
                connections,
                sessions,
                shared: false,
                product: options.product.clone(),
            };
            calls(options, &scenario, &mut report).await?;
        }
    }
    if wants("streams") {
        streams(options, &mut report).await?;
    }
    if wants("large") {
        large(options, &mut report).await?;
    }
    if wants("list") {
        list(options, &mut report).await?;
    }
    println!("{}", report.text);
    if let Some(path) = &options.out {
        std::fs::write(path, &report.text)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    ensure!(
        report.missed.is_empty(),
        "missed: {}",
        report.missed.join("; ")
    );
    Ok(())
}

/// Warm calls in both eras beside the bare hop.
async fn calls(options: &Options, scenario: &Scenario, report: &mut Report) -> Result<()> {
    let mut chosen = vec![Target::Hop];
    chosen.extend(Era::BOTH.map(Target::Face));
    if options.peers {
        chosen.extend(Peer::ISOLATING.map(Target::Peer));
    }
    let mut running = Vec::new();
    for target in chosen {
        match rounds::start(&target, scenario).await {
            Ok(started) => running.push((target, started)),
            Err(why) if matches!(target, Target::Peer(_)) => {
                let _ = writeln!(report.text, "\n`{}` FAILED: {why:#}", target.name());
            }
            Err(why) => return Err(why.context(format!("cannot start {}", target.name()))),
        }
    }
    let time = Duration::from_secs_f64(options.seconds);
    let mut rows: Vec<Row> = running.iter().map(|one| rounds::row(&one.1)).collect();
    for round in 0..options.rounds {
        for turn in rounds::turns(round, running.len()) {
            let (kind, target) = &running[turn];
            let cell = rounds::cell(kind, target, scenario.connections, time, round).await?;
            rows[turn].cells.push(cell);
            rows[turn].loaded = proc::memory(target.pid);
        }
    }
    let hop = rows.first().context("no hop")?.clone();
    let text = report::scenario(&scenario.name, &rows, &hop.name, options.seconds);
    report.text.push_str(&text);
    report.text.push('\n');
    for ((kind, _), ours) in running.iter().zip(&rows) {
        let Target::Face(era) = kind else { continue };
        let (name, alone) = (era.version(), scenario.connections == 1);
        if alone {
            let p50 = ours.ratio(&hop, |cell| cell.p50);
            let what = format!("{name}, alone: p50 ≤ {P50_MAX} × the bare hop");
            report.bar(&what, p50, "", p50 <= P50_MAX);
        } else {
            let rate = ours.ratio(&hop, |cell| cell.per_second);
            let what = format!("{name}, 64: req/s ≥ {RATE_MIN} × the bare hop");
            report.bar(&what, rate, "", rate >= RATE_MIN);
            let cpu = ours.ratio(&hop, |cell| cell.cpu_own);
            let what = format!("{name}, 64: own CPU per request ≤ {CPU_MAX} × the bare hop");
            report.bar(&what, cpu, "", cpu <= CPU_MAX);
        }
        let foreign: u64 = ours.cells.iter().map(|cell| cell.foreign).sum();
        let what = format!("{name}: replies with another call's nonce");
        report.bar(&what, foreign as f64, "", foreign == 0);
        for ((other, _), peer) in running.iter().zip(&rows) {
            if matches!(other, Target::Peer(_)) && peer.failed_rounds() == 0 {
                let ahead = ours.ratio(peer, |cell| cell.per_second);
                let what = format!("{name}: req/s ahead of {}", peer.name);
                report.bar(&what, ahead, " ×", ahead > 1.0);
            }
        }
    }
    Ok(())
}

/// What reading a message and writing it under another id costs, without anything around it.
fn of_envelopes(report: &mut Report) {
    report.text.push_str("\n### Envelopes\n\n");
    let text = "x".repeat(265 - 88);
    let request = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"e","arguments":{{"t":"{text}"}}}}}}"#
    );
    let answer = format!(
        r#"{{"jsonrpc":"2.0","id":7,"result":{{"content":[{{"type":"text","text":"{text}"}}]}}}}"#
    );
    let tool = json!({"name": "tool", "description": "d".repeat(180),
        "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}}});
    let tools = serde_json::to_string(&vec![tool; 200]).unwrap_or_default();
    let listed = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"tools":{tools}}}}}"#);
    let small = per_turn(|| {
        if let Ok(Message::Request { method, params, .. }) = jsonrpc::read(request.as_bytes()) {
            let params = params.map_or("", |params| params.get());
            black_box(envelope::request(8, &method, params.as_bytes()));
        }
    });
    let what = format!("a request of {} bytes ≤ {SMALL_US_MAX} µs", request.len());
    report.bar(&what, small, " µs", small <= SMALL_US_MAX);
    for (line, most) in [(&answer, SMALL_US_MAX), (&listed, LIST_US_MAX)] {
        let took = per_turn(|| {
            if let Some(Incoming::Response { body, .. }) = envelope::parse(line.as_bytes()) {
                let mut out = BytesMut::with_capacity(line.len() + 64);
                out.put_slice(br#"{"jsonrpc":"2.0","id":"mine","result":"#);
                out.put_slice(line.as_bytes().get(body).unwrap_or_default());
                out.put_u8(b'}');
                black_box(out.freeze());
            }
        });
        let what = format!("an answer of {} bytes ≤ {most} µs", line.len());
        report.bar(&what, took, " µs", took <= most);
    }
}

/// Microseconds of one turn: the median of many stretches.
fn per_turn(mut turn: impl FnMut()) -> f64 {
    let mut stretches = Vec::new();
    for _ in 0..21 {
        let (mut turns, began) = (0_u32, Instant::now());
        while began.elapsed() < Duration::from_millis(10) {
            for _ in 0..16 {
                turn();
            }
            turns += 16;
        }
        stretches.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(turns));
    }
    median(stretches)
}

async fn gateway(options: &Options, more: &str) -> Result<Gateway> {
    let settings = Settings {
        more: more.to_owned().into(),
        ..Settings::default()
    };
    Gateway::start("legation".to_owned(), &options.product, settings).await
}

/// Memory of the gateway for each open `GET` stream, its connection included, its session not.
async fn streams(options: &Options, report: &mut Report) -> Result<()> {
    let gateway = gateway(options, "").await?;
    gateway.publish("bench", &[], &["demo-mcp", "--echo"])?;
    let (low, high) = options.streams;
    let mut heads = Vec::new();
    let mut key = String::new();
    for number in 0..high {
        if number.is_multiple_of(STREAMS_PER_KEY) {
            let user = format!("user{}", number / STREAMS_PER_KEY);
            gateway.user(&user)?;
            key = gateway.key(&user)?;
        }
        let head = gateway.face(&key, "/mcp", Era::Sessions).await?;
        heads.push(head.replacen("POST", "GET", 1));
    }
    let mut open = Vec::new();
    let mut memory = Vec::new();
    for (number, head) in heads.iter().enumerate() {
        if number == low {
            tokio::time::sleep(SETTLE).await;
            memory.push(proc::memory(gateway.running.pid).pss_kib);
        }
        let mut stream = tokio::net::TcpStream::connect(gateway.endpoint().addr).await?;
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        let mut first = vec![0; 4096];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut first).await?;
        let first = String::from_utf8_lossy(first.get(..read).unwrap_or_default());
        ensure!(first.contains("200 OK"), "no stream: {first}");
        open.push(stream);
    }
    tokio::time::sleep(SETTLE).await;
    memory.push(proc::memory(gateway.running.pid).pss_kib);
    let [before, after] = memory[..] else {
        anyhow::bail!("FROM must be less than TO");
    };
    let each = after.saturating_sub(before) as f64 / (high - low) as f64;
    let _ = writeln!(
        report.text,
        "\n### Streams\n\n{low} to {high} open streams.\n"
    );
    let what = format!("memory of an open stream ≤ {STREAM_KIB_MAX} KiB");
    report.bar(&what, each, " KiB", each <= STREAM_KIB_MAX);
    Ok(())
}

/// The highest memory while a large result passes, in its own lengths.
async fn large(options: &Options, report: &mut Report) -> Result<()> {
    let gateway = gateway(options, "").await?;
    gateway.publish("bench", &[], &["demo-mcp"])?;
    gateway.user("ada")?;
    let key = gateway.key("ada")?;
    report.text.push_str("\n### A large result\n\n");
    for era in Era::BOTH {
        let mut head = gateway.face(&key, "/mcp/bench", era).await?;
        let mut params = json!({"name": "big", "arguments": {"bytes": 1000}});
        if era == Era::Stateless {
            head.push_str("mcp-method: tools/call\r\nmcp-name: big\r\n");
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": era.version(),
                "io.modelcontextprotocol/clientCapabilities": {}});
        }
        let mut connection = Connection::open(gateway.endpoint()).await?;
        ask(&mut connection, &head, "tools/call", &params).await?;
        params["arguments"]["bytes"] = json!(LARGE_BYTES);
        let pid = gateway.running.pid;
        let mut most = Vec::new();
        for _ in 0..3 {
            let before = proc::memory(pid).rss_kib;
            proc::forget_peak(pid)?;
            let answer = ask(&mut connection, &head, "tools/call", &params).await?;
            ensure!(answer.len() > LARGE_BYTES, "{} bytes", answer.len());
            let grown = proc::peak_kib(pid).saturating_sub(before) as f64 * 1024.0;
            most.push(grown / answer.len() as f64);
        }
        let most = median(most);
        let what = format!(
            "{}: memory for a result of 10 MiB ≤ {FRAMES_MAX} × its length",
            era.version()
        );
        report.bar(&what, most, "", most <= FRAMES_MAX);
    }
    Ok(())
}

/// Answers like a server that has a list of tools in a file.
const LISTER: &str = r#"
while IFS= read -r line; do
  id=${line#*\"id\":}; id=${id%%[,\}]*}
  case $line in
    *'"method":"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"lister","version":"1"}}}\n' "$id" ;;
    *'"method":"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
    *'"method":"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":' "$id"; cat "$1"; printf '}}\n' ;;
  esac
done"#;

/// How long a list of many tools takes that is known.
async fn list(options: &Options, report: &mut Report) -> Result<()> {
    let dir = TempDir::new()?;
    let file = dir.path().join("tools.json");
    let tools: Vec<_> = (0..TOOLS)
        .map(|number| {
            json!({"name": format!("tool_{number}"), "description": "d".repeat(180),
                "inputSchema": {"type": "object", "properties": {"a": {"type": "string"}}}})
        })
        .collect();
    std::fs::write(&file, serde_json::to_string(&tools)?)?;
    let roots = format!("path_roots = [{:?}]", dir.path());
    let gateway = gateway(options, &roots).await?;
    let (place, file) = (dir.path().to_str(), file.to_str());
    let (place, file) = place.zip(file).context("a path is not UTF-8")?;
    let command = ["/bin/sh", "-c", LISTER, "sh", file];
    gateway.publish_program("bench", &["--read", place], &command)?;
    gateway.user("ada")?;
    let key = gateway.key("ada")?;
    let _ = writeln!(report.text, "\n### A list of {TOOLS} tools\n");
    for era in Era::BOTH {
        let mut head = gateway.face(&key, "/mcp", era).await?;
        let mut params = json!({});
        if era == Era::Stateless {
            head.push_str("mcp-method: tools/list\r\n");
            params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": era.version(),
                "io.modelcontextprotocol/clientCapabilities": {}});
        }
        let mut connection = Connection::open(gateway.endpoint()).await?;
        let mut took = Vec::new();
        for _ in 0..51 {
            let began = Instant::now();
            let answer = ask(&mut connection, &head, "tools/list", &params).await?;
            took.push(began.elapsed().as_secs_f64() * 1000.0);
            let last = format!("\"tool_{}\"", TOOLS - 1);
            let whole = String::from_utf8_lossy(&answer).contains(&last);
            ensure!(whole, "not all tools are listed");
        }
        let took = median(took);
        let what = format!(
            "{}: {TOOLS} tools listed in ≤ {LIST_MS_MAX} ms",
            era.version()
        );
        report.bar(&what, took, " ms", took <= LIST_MS_MAX);
    }
    Ok(())
}
