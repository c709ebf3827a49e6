//! Who descends from whom, from `/proc`: for hosts that offer neither a pid namespace nor a cgroup.

use std::collections::HashMap;
use std::fs;

/// Every living descendant of a process, nearest first. A snapshot: who kills by it looks again.
pub(crate) fn descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()) {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if let Some((state, parent)) = state_and_parent(&stat)
            && state != 'Z'
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut wave = children.remove(&root).unwrap_or_default();
    while let Some(pid) = wave.pop() {
        found.push(pid);
        wave.extend(children.remove(&pid).unwrap_or_default());
    }
    found
}

/// Our own children with one of these names, dead or alive.
pub(crate) fn children_named(names: &[&str]) -> Vec<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let comm = stat
                .split_once('(')
                .and_then(|(_, rest)| rest.rsplit_once(')'));
            state_and_parent(&stat).is_some_and(|(_, parent)| parent == own)
                && comm.is_some_and(|(comm, _)| names.contains(&comm))
        })
        .collect()
}

/// The state and parent in a `/proc/<pid>/stat`. The name before them may hold anything, even
/// `) R 1`, so they are looked for behind the last parenthesis.
pub(crate) fn state_and_parent(stat: &str) -> Option<(char, i32)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_forge_its_parent() {
        assert_eq!(state_and_parent("12 (a) R 1 (x) S 77 5 6"), Some(('S', 77)));
        assert_eq!(state_and_parent("nonsense"), None);
    }

    #[test]
    fn a_child_and_a_grandchild_are_found() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sleep 30 & echo up; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 3];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let shell = i32::try_from(child.id()).unwrap();
        let found = descendants(own);
        let below = descendants(shell);
        for pid in &below {
            nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(*pid),
                nix::sys::signal::Signal::SIGKILL,
            )
            .unwrap();
        }
        child.wait().unwrap();
        assert!(found.contains(&shell) && below.len() == 1);
        assert!(found.contains(&below[0]));
    }
}
