//! Processes as the host's `/proc` shows them.

use std::process::Command;

use serde_json::Value;

use crate::world::{World, pids};

/// The fields of `/proc/PID/stat` after the name: state, ppid, pgrp, session, …
pub(crate) fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    Some(rest.split_whitespace().map(ToOwned::to_owned).collect())
}

/// Children of a process: pid and state.
pub(crate) fn children_of(parent: i32) -> Vec<(i32, String)> {
    let parent = parent.to_string();
    let child = |pid| {
        let stat = stat(pid)?;
        (stat.get(1)? == &parent).then(|| (pid, stat.first().cloned().unwrap_or_default()))
    };
    pids().into_iter().filter_map(child).collect()
}

/// After a crash, no dead child waits for the gateway to look at it.
pub(crate) fn no_zombies(world: &World) {
    world.until("no dead child is left", |world| {
        children_of(world.pid())
            .iter()
            .all(|(_, state)| state != "Z")
            .then_some(())
    });
}

/// One line's value of `/proc/PID/status`.
pub(crate) fn status_of(pid: i32, key: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with(&format!("{key}:")));
    line.and_then(|line| line.split_once(':'))
        .unwrap()
        .1
        .trim()
        .to_owned()
}

/// A pid as a view shows it.
pub(crate) fn pid_of(view: &Value) -> i32 {
    let pid = view["pid"]
        .as_i64()
        .unwrap_or_else(|| panic!("no pid: {view}"));
    i32::try_from(pid).unwrap()
}

/// Processes in the pid namespace of an isolate, its init left out.
pub(crate) fn inhabitants(isolate: &Value) -> Vec<i32> {
    let init = pid_of(isolate);
    let room = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let theirs = room(init).expect("the init lives");
    let in_it = |pid: &i32| *pid != init && room(*pid).as_ref() == Some(&theirs);
    pids().into_iter().filter(in_it).collect()
}

/// kill -9; the process may be gone in this moment.
pub(crate) fn kill_9(pid: i32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).output();
}
