//! Medians over rounds, ratios within a round, and the Markdown of both.

use std::fmt::Write as _;
use std::process::Command;

use super::load::Sample;
use super::proc::{Cpu, Memory, load_average};

/// One target in one round.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// CPU microseconds per request of the process itself.
    pub(crate) cpu_own: f64,
    /// Its descendants included.
    pub(crate) cpu_all: f64,
    pub(crate) good: usize,
    pub(crate) bad: u64,
    pub(crate) foreign: u64,
    pub(crate) errors: Vec<String>,
}

/// One target in all rounds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) cells: Vec<Cell>,
    pub(crate) started_ms: f64,
    pub(crate) idle: Memory,
    pub(crate) loaded: Memory,
}

impl Cell {
    pub(crate) fn new(sample: &Sample, cpu: Cpu) -> Self {
        let calls = (sample.latencies.len() as f64).max(1.0);
        Self {
            per_second: sample.per_second(),
            p50: sample.percentile(0.50),
            p99: sample.percentile(0.99),
            cpu_own: cpu.own * 1e6 / calls,
            cpu_all: (cpu.own + cpu.children) * 1e6 / calls,
            good: sample.latencies.len(),
            bad: sample.bad,
            foreign: sample.foreign,
            errors: sample.errors.clone(),
        }
    }
}

impl Row {
    /// Of what is no process of its own.
    pub(crate) fn bare(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cells: Vec::new(),
            started_ms: f64::NAN,
            idle: Memory::default(),
            loaded: Memory::default(),
        }
    }

    pub(crate) fn median(&self, of: impl Fn(&Cell) -> f64) -> f64 {
        median(self.cells.iter().map(of).collect())
    }

    /// The median over rounds of our figure divided by `base`'s in the same round.
    pub(crate) fn ratio(&self, base: &Self, of: impl Fn(&Cell) -> f64) -> f64 {
        let ratios = self.cells.iter().zip(&base.cells);
        median(ratios.map(|(ours, base)| of(ours) / of(base)).collect())
    }

    /// A round in which any answer was wrong or missing counts as failed.
    pub(crate) fn failed_rounds(&self) -> usize {
        self.cells
            .iter()
            .filter(|cell| cell.bad > 0 || cell.good == 0)
            .count()
    }
}

/// The middle value; NaN of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(high), 0) => values
            .get(middle.saturating_sub(1))
            .map_or(*high, |low| (low + high) / 2.0),
        (Some(high), _) => *high,
        (None, _) => f64::NAN,
    }
}

/// The machine and the commit, as the head of a report.
pub(crate) fn preamble() -> String {
    let run = |program: &str, args: &[&str]| {
        Command::new(program)
            .args(args)
            .output()
            .ok()
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
            .unwrap_or_default()
    };
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = cpuinfo.matches("processor\t").count();
    let dirty = if run("git", &["status", "--porcelain"]).is_empty() {
        ""
    } else {
        " with local changes"
    };
    format!(
        "Commit {}{dirty}, {}. Machine: {cores} × {model}, Linux {}. {}.\n",
        run("git", &["rev-parse", "--short=12", "HEAD"]),
        run("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        run("uname", &["-r"]),
        run("rustc", &["--version"]),
    )
}

/// The tables of one scenario; ratios are against the row called `base`.
pub(crate) fn scenario(title: &str, rows: &[Row], base: &str, seconds: f64) -> String {
    let rounds = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let base_row = rows.iter().find(|row| row.name == base);
    let mut text = format!(
        "\n### {title}\n\nMedians of {rounds} alternating rounds of {seconds} s; ratios are medians of the ratio to “{base}” in the same round. Load average at the end {}.\n\n\
         | target | req/s | × base | p50 µs | × base | p99 µs | CPU µs/req, own | × base | with children | × base | bad / foreign / good | failed rounds | start ms | RSS MiB idle → loaded | PSS |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
        load_average()
    );
    for row in rows {
        let ratio = |of: fn(&Cell) -> f64| {
            base_row.map_or_else(String::new, |base| format!("{:.2}", row.ratio(base, of)))
        };
        let sum = |of: fn(&Cell) -> u64| row.cells.iter().map(of).sum::<u64>();
        let _ = writeln!(
            text,
            "| {} | {:.0} | {} | {:.0} | {} | {:.0} | {:.1} | {} | {:.1} | {} | {} / {} / {} | {} | {:.0} | {:.1} → {:.1} | {:.1} |",
            row.name,
            row.median(|cell| cell.per_second),
            ratio(|cell| cell.per_second),
            row.median(|cell| cell.p50),
            ratio(|cell| cell.p50),
            row.median(|cell| cell.p99),
            row.median(|cell| cell.cpu_own),
            ratio(|cell| cell.cpu_own),
            row.median(|cell| cell.cpu_all),
            ratio(|cell| cell.cpu_all),
            sum(|cell| cell.bad),
            sum(|cell| cell.foreign),
            sum(|cell| cell.good as u64),
            row.failed_rounds(),
            row.started_ms,
            row.idle.rss_kib as f64 / 1024.0,
            row.loaded.rss_kib as f64 / 1024.0,
            row.loaded.pss_kib as f64 / 1024.0,
        );
    }
    let _ = writeln!(
        text,
        "\n| target | req/s by round | p50 µs by round |\n|---|---|---|"
    );
    for row in rows {
        let list = |of: fn(&Cell) -> f64| {
            let values: Vec<String> = row
                .cells
                .iter()
                .map(|cell| format!("{:.0}", of(cell)))
                .collect();
            values.join(", ")
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} |",
            row.name,
            list(|cell| cell.per_second),
            list(|cell| cell.p50)
        );
    }
    for row in rows {
        for error in row.cells.iter().flat_map(|cell| &cell.errors).take(3) {
            let error = error.replace(['\n', '|'], " ");
            let _ = writeln!(text, "\n`{}`: {error}", row.name);
        }
    }
    text
}

/// How much of a durable call is the disk: each call waits for two records, one after the other.
pub(crate) fn disk_share(durable: &Row, disk: &Row, records: usize) -> String {
    let call = durable.median(|cell| cell.p50);
    let sync = disk.median(|cell| cell.p50);
    format!(
        "\n* durable audit: a call waits for the disk twice (start and end record). A bare \
         append and fdatasync of {records} records takes {sync:.0} µs, so two are {:.0} µs of the \
         call's {call:.0} µs p50: fsync share {:.0} %\n",
        2.0 * sync,
        (200.0 * sync / call).min(100.0),
    )
}
