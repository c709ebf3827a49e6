//! The bare pipe: a blocking round trip to the echo child, nothing between.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::load::Sample;

/// Calls the echo child over and over for `time`.
pub(crate) fn run(program: &Path, time: Duration) -> Result<Sample> {
    let mut child = Command::new(program)
        .args(["demo-mcp", "--echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no stdin")?;
    let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
    let mut sample = Sample::default();
    let mut line = String::new();
    let began = Instant::now();
    let mut id = 0_u64;
    while began.elapsed() < time {
        id += 1;
        let call = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\"arguments\":{{\"text\":\"nonce-{id}\"}}}}}}\n"
        );
        line.clear();
        let sent = Instant::now();
        stdin.write_all(call.as_bytes())?;
        stdout.read_line(&mut line)?;
        let took = sent.elapsed();
        ensure!(
            line.contains(&format!("\"nonce-{id}\"")),
            "wrong answer {line}"
        );
        sample
            .latencies
            .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
    sample.seconds = began.elapsed().as_secs_f64();
    sample.latencies.sort_unstable();
    drop(stdin);
    child.wait()?;
    Ok(sample)
}
