//! Rounds in which everybody has a turn, and the roles that a bench plays for itself.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::load::{self, Sample};
use super::report::{Cell, Row};
use super::target::{Running, Scenario, Target};
use super::{bare, proc};

/// Loaded before a target's first round, not measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// Whose turn it is, one after the other: rotated, and back to front in every other round.
pub(crate) fn turns(round: usize, targets: usize) -> impl Iterator<Item = usize> {
    (0..targets).map(move |step| {
        let turn = (step + round) % targets;
        if round.is_multiple_of(2) {
            turn
        } else {
            targets - 1 - turn
        }
    })
}

/// One target in one round. Of ours, nothing may fail.
pub(crate) async fn cell(
    kind: &Target,
    target: &Running,
    connections: usize,
    time: Duration,
    round: usize,
) -> Result<Cell> {
    let before = proc::cpu(target.pid);
    let sample = load::run(&target.sessions, connections, time)
        .await
        .unwrap_or_else(|why| Sample::failed(&why));
    let cell = Cell::new(&sample, proc::cpu(target.pid).since(before));
    eprintln!(
        "{} round {round}: {:.0}/s, p50 {:.0} µs, {} bad",
        target.name, cell.per_second, cell.p50, cell.bad
    );
    ensure!(
        !kind.is_ours() || (cell.bad == 0 && cell.good > 0),
        "{} failed round {round}: {} bad answers, {} of them another call's: {:?}",
        target.name,
        cell.bad,
        cell.foreign,
        cell.errors
    );
    Ok(cell)
}

/// Starts a target and calls each of its sessions before anything is measured.
pub(crate) async fn start(target: &Target, scenario: &Scenario) -> Result<Running> {
    let started = target.start(scenario).await?;
    let warm = load::run(&started.sessions, scenario.connections, WARM_UP).await?;
    ensure!(
        warm.bad == 0,
        "{} bad answers in the warm-up: {:?}",
        warm.bad,
        warm.errors
    );
    Ok(started)
}

/// An empty row of a target.
pub(crate) fn row(running: &Running) -> Row {
    Row {
        name: running.name.clone(),
        cells: Vec::new(),
        started_ms: running.started_in.as_secs_f64() * 1000.0,
        idle: proc::memory(running.pid),
        loaded: proc::memory(running.pid),
    }
}

/// Plays what the product is compared with. The roles use both cores, as the product does.
pub(crate) fn play(role: &str, product: PathBuf) -> Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match role {
        "floor" => threads.block_on(bare::floor()),
        "hop" => threads.block_on(bare::hop(product, false)),
        "hop-shared" => threads.block_on(bare::hop(product, true)),
        other => bail!("no role {other}"),
    }
}

/// The generator is one thread: more would only take cores from what is measured.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(future)
}
