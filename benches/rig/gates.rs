//! What must hold whatever the speed: no foreign reply, every call at its server exactly once (also
//! when time runs out), one process after concurrent first calls, no zombie after a crash.
//!
//! Driven with the product's full demo server, which counts what it receives.
//! The standard client's calls carry no JSON-RPC id, so "equal ids" are equal requests at the same
//! time here: what keeps replies apart is the gateway's own numbering, and the nonce shows it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::load;
use super::ours::{Client, Gateway, Settings};
use super::proc;

const USERS: usize = 16;
const CONNECTIONS: usize = 64;
/// Calls that find a cold isolate at the same time.
const FIRST_CALLS: usize = 32;
/// Calls that run out of time together.
const SLOW_CALLS: usize = 8;
/// How long a reaped process may take to leave the process table.
const REAPED_MAX: Duration = Duration::from_secs(5);

/// Runs all gates; the Markdown of what was seen, or the first that does not hold.
pub(crate) async fn run(product: &Path, time: Duration) -> Result<String> {
    let gateway = Gateway::start("gates".to_owned(), product, Settings::default()).await?;
    gateway.publish("own", &[], &["demo-mcp"])?;
    gateway.publish("everyones", &["--sharing", "shared"], &["demo-mcp"])?;
    let slow = ["--call-timeout", "1s"];
    gateway.publish("slow", &slow, &["demo-mcp"])?;
    let mut clients = Vec::new();
    for number in 0..USERS {
        clients.push(gateway.client(&format!("user{number}")).await?);
    }
    let mut text = String::from("\n### Hard gates\n\n| gate | seen |\n|---|---|\n");
    let mut line = |gate: &str, seen: &str| {
        eprintln!("gate: {gate}: {seen}");
        let _ = writeln!(text, "| {gate} | {seen} |");
    };

    let first = first_calls(&gateway).await?;
    line("concurrent first calls start one process", &first);
    let (calls, seen) = loaded(&clients, "own.echo", time).await?;
    ensure!(calls == seen, "per user: made {calls:?}, received {seen:?}");
    let sum: u64 = calls.iter().sum();
    line(
        "0 foreign replies and each call once, 64 callers on 16 isolates",
        &format!("{sum} calls made, {sum} received, each isolate its own number"),
    );
    let (calls, seen) = loaded(&clients, "everyones.echo", time).await?;
    let sum: u64 = calls.iter().sum();
    // One server: whoever asks hears of all.
    let all = seen.last().copied().unwrap_or_default();
    ensure!(sum == all, "shared: made {sum}, received {all}");
    line(
        "0 foreign replies and each call once, 64 callers in 16 sessions on one shared instance",
        &format!("{sum} calls made, {all} received"),
    );
    let late = out_of_time(&clients).await?;
    line("each call once when time runs out", &late);
    let crash = no_zombie(&gateway, &clients).await?;
    line("no zombie after a crash", &crash);
    Ok(text)
}

/// Loads every client's echo; the calls made by each, and those its server says it received.
async fn loaded(clients: &[Client], tool: &str, time: Duration) -> Result<(Vec<u64>, Vec<u64>)> {
    let mcp = tool.split('.').next().unwrap_or(tool);
    let sessions: Vec<_> = clients.iter().map(|client| client.session(tool)).collect();
    let before = counted(clients, mcp, "echo").await?;
    let sample = load::run(&sessions, CONNECTIONS, time).await?;
    ensure!(
        sample.bad == 0 && sample.foreign == 0,
        "{tool}: {} bad answers, {} foreign: {:?}",
        sample.bad,
        sample.foreign,
        sample.errors
    );
    let after = counted(clients, mcp, "echo").await?;
    let received = after
        .iter()
        .zip(&before)
        .map(|(after, before)| after - before);
    Ok((sample.made, received.collect()))
}

/// Calls of a tool that each client's server of an mcp has received so far.
async fn counted(clients: &[Client], mcp: &str, tool: &str) -> Result<Vec<u64>> {
    let mut counts = Vec::new();
    for client in clients {
        let reply = client.call(&format!("{mcp}.count"), json!({})).await?;
        let counted: Value = serde_json::from_str(reply.text()?)?;
        counts.push(counted["tools"][tool].as_u64().unwrap_or(0));
    }
    Ok(counts)
}

async fn first_calls(gateway: &Gateway) -> Result<String> {
    let client = gateway.client("newcomer").await?;
    let mut calls = JoinSet::new();
    for _ in 0..FIRST_CALLS {
        let client = client.clone();
        calls.spawn(async move { client.call("own.whoami", json!({})).await });
    }
    let mut runs = std::collections::BTreeSet::new();
    while let Some(reply) = calls.join_next().await {
        let reply = reply??;
        let who: Value = serde_json::from_str(reply.text()?)?;
        runs.insert(who["run"].to_string());
    }
    ensure!(runs.len() == 1, "answered by {} processes", runs.len());
    let list = gateway.json(&["isolate", "list"])?;
    let of_newcomer = list.as_array().context("no list")?.iter();
    let isolates = of_newcomer.filter(|one| one["user"] == "newcomer").count();
    ensure!(isolates == 1, "{isolates} isolates");
    Ok(format!("{FIRST_CALLS} calls, 1 isolate, 1 process"))
}

async fn out_of_time(clients: &[Client]) -> Result<String> {
    let client = clients.first().context("no client")?;
    let one = std::slice::from_ref(client);
    let before = counted(one, "slow", "sleep").await?;
    let mut calls = JoinSet::new();
    for _ in 0..SLOW_CALLS {
        let client = client.clone();
        calls.spawn(async move { client.call("slow.sleep", json!({"ms": 5000})).await });
    }
    while let Some(reply) = calls.join_next().await {
        let reply = reply??;
        let code = reply.failure()?;
        ensure!(code.contains("time"), "not timed out but {code}");
    }
    // Longer than any repetition would wait.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let after = counted(one, "slow", "sleep").await?;
    let received = after[0] - before[0];
    ensure!(received == SLOW_CALLS as u64, "{received} received");
    Ok(format!("{SLOW_CALLS} calls timed out, {received} received"))
}

async fn no_zombie(gateway: &Gateway, clients: &[Client]) -> Result<String> {
    for client in clients {
        let reply = client.call("own.crash", json!({"signal": "KILL"})).await?;
        reply.failure()?;
    }
    let until = Instant::now() + REAPED_MAX;
    loop {
        let zombies = proc::zombies(gateway.running.pid);
        if zombies.is_empty() {
            break;
        }
        ensure!(Instant::now() < until, "zombies: {zombies:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let status = gateway.json(&["status"])?;
    let unowned = &status["unowned_processes"];
    ensure!(unowned == 0, "{unowned} processes without an owner");
    Ok(format!("{} servers killed, 0 zombies", clients.len()))
}
