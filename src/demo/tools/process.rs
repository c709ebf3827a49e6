//! Tools about this process as the kernel sees it: what it is, how it dies, what it leaves.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio, exit};
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, Outcome, arguments};
use crate::demo::wire::{Fault, INVALID_PARAMS};

/// How long a fatal signal may take to arrive.
const SIGNAL_WAIT: Duration = Duration::from_millis(200);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Crash {
    code: Option<u8>,
    signal: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fork {
    n: u32,
    seconds: u32,
    #[serde(default)]
    hold_pipes: bool,
}

pub(super) fn whoami(context: &Context, _: &RawValue) -> Result<Outcome, Fault> {
    let mut names: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    let uid = std::fs::metadata("/proc/self")
        .map(|about| about.uid())
        .ok();
    let cwd = std::env::current_dir()
        .map(|dir| dir.display().to_string())
        .ok();
    Ok(Outcome::Json(json!({
        "pid": std::process::id(),
        "uid": uid,
        "run": context.server.run,
        "cwd": cwd,
        "env": names,
        "calls": context.server.calls_received.load(Ordering::Relaxed),
        "protocol": context.server.agreed(),
    })))
}

pub(super) fn crash(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Crash { code, signal } = arguments(raw)?;
    match signal {
        Some(signal) => die_by(&signal),
        None => exit(i32::from(code.unwrap_or(1))),
    }
}

/// Ends this process by a signal. The shell sends it: it needs neither `unsafe` nor `/bin/kill`.
pub(in crate::demo) fn die_by(signal: &str) -> Result<Outcome, Fault> {
    if signal.is_empty() || !signal.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Fault::new(
            INVALID_PARAMS,
            format!("{signal:?} is no signal name; use one such as KILL"),
        ));
    }
    // Rust's own handler swallows the first SEGV or BUS that is not a real fault, so twice.
    for _ in 0..2 {
        let sent = Command::new("/bin/sh")
            .args(["-c", "kill -s \"$0\" \"$PPID\"", signal])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        match sent {
            Ok(status) if status.success() => std::thread::sleep(SIGNAL_WAIT),
            Ok(status) => return Ok(Outcome::Failed(format!("no signal sent: kill {status}"))),
            Err(why) => return Ok(Outcome::Failed(format!("no signal sent: /bin/sh: {why}"))),
        }
    }
    Ok(Outcome::Failed(format!("survived SIG{signal}")))
}

pub(super) fn fork(_: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Fork {
        n,
        seconds,
        hold_pipes,
    } = arguments(raw)?;
    // The shell forks each sleeper in the background and ends: that is the double fork, and
    // `setsid` takes the orphan out of our session and process group. The pids come back on
    // stderr, so that stdout stays free to be held.
    let stdout = if hold_pipes { "" } else { ">/dev/null" };
    let script = format!(
        "i=0; while [ $i -lt {n} ]; do \
         setsid sleep {seconds} </dev/null 2>/dev/null {stdout} & \
         echo $! >&2; i=$((i+1)); done"
    );
    let done = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .output();
    match done {
        Ok(done) => {
            let pids: Vec<u32> = String::from_utf8_lossy(&done.stderr)
                .lines()
                .filter_map(|line| line.parse().ok())
                .collect();
            if done.status.success() {
                Ok(Outcome::Json(json!({ "pids": pids })))
            } else {
                Ok(Outcome::Failed(format!(
                    "forked {} of {n}: the shell ended with {}",
                    pids.len(),
                    done.status
                )))
            }
        }
        Err(why) => Ok(Outcome::Failed(format!("forked nothing: /bin/sh: {why}"))),
    }
}
