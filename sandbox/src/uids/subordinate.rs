//! Ids for isolates of a gateway that is not root: the range of `/etc/subuid` and `/etc/subgid` that the host gives its
//! account, put into a user namespace of the spawner's by `newuidmap` and `newgidmap`, which the host trusts with that.
//!
//! Each id is the same number inside and outside. Only the spawner and what it clones are in that namespace: the
//! gateway stays who it is.

use std::fs::{DirBuilder, Permissions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Uid, User, getegid, geteuid};

use super::{CLAIMS, Range};

/// Uids of one account that are used, at most.
const COUNT_MAX: u64 = 1 << 24;
/// Ids for as many users that no other range is looked for.
const COUNT_GOOD: u32 = 4096;
/// How long a program may take that puts ids into a namespace.
const WAIT: Duration = Duration::from_secs(10);
/// Between two looks at it: it takes about a millisecond.
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// Bytes of what it says that are read.
const SAID_BYTES_MAX: usize = 4096;
/// Where the programs are looked for.
const PATH: &str = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin";

/// The range this account was given, or what of it was asked for; why there is none.
///
/// # Errors
/// In words.
pub fn of_account(wanted: Option<Range>) -> Result<Range, String> {
    let own = geteuid();
    let name = User::from_uid(own).ok().flatten().map(|user| user.name);
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (uids, gids) = (read("/etc/subuid"), read("/etc/subgid"));
    let whole = common(name.as_deref(), own, &uids, &gids).ok_or_else(|| {
        let who = name.as_deref().unwrap_or("our account");
        format!(
            "we are not root, and /etc/subuid and /etc/subgid give {who} (uid {own}) no range of ids in both"
        )
    })?;
    let range = wanted
        .filter(|part| whole.contains(part.base) && whole.contains(part.last()))
        .unwrap_or(whole);
    let files = [("/etc/subuid", uids), ("/etc/subgid", gids)];
    for (file, text) in &files {
        if let Some(other) = shared(range, name.as_deref(), own, text) {
            return Err(format!(
                "{file} gives {other} some of our range {range}, and who has it may signal our isolates and read what \
                 is theirs; give this account a range of its own"
            ));
        }
    }
    Ok(range)
}

/// Another account that has some of a range, and what it has. Root needs no range to be anybody.
fn shared(range: Range, name: Option<&str>, uid: Uid, text: &str) -> Option<String> {
    let uid = uid.to_string();
    text.lines().find_map(|line| {
        let (whose, first, end) = entry(line)?;
        let is_ours = name == Some(whose) || whose == uid;
        let is_root = matches!(whose, "root" | "0");
        let meets = first <= u64::from(range.last()) && end > u64::from(range.base);
        (meets && first < end && !is_ours && !is_root)
            .then(|| format!("{whose} (ids {first}-{})", end - 1))
    })
}

/// A line: whose, the first and the end. `NAME:FIRST:COUNT`, or the account's uid in the name's place.
fn entry(line: &str) -> Option<(&str, u64, u64)> {
    let mut fields = line.split(':');
    let whose = fields.next()?;
    let first: u64 = fields.next()?.trim().parse().ok()?;
    let count: u64 = fields.next()?.trim().parse().ok()?;
    Some((whose, first, first.saturating_add(count)))
}

/// The first range of a good size that both texts give this account, else the largest: one that is added later
/// must not take the place of that which homes belong to.
fn common(name: Option<&str>, uid: Uid, subuid: &str, subgid: &str) -> Option<Range> {
    let (uids, gids) = (given(name, uid, subuid), given(name, uid, subgid));
    let pairs = uids
        .iter()
        .flat_map(|one| gids.iter().map(move |other| (one, other)));
    let ranges = pairs.filter_map(|(one, other)| {
        let first = one.0.max(other.0);
        let count = one.1.min(other.1).checked_sub(first)?.min(COUNT_MAX);
        Range::new(u32::try_from(first).ok()?, u32::try_from(count).ok()?).ok()
    });
    // Of one id, the probe's, nothing is left.
    ranges.filter(|range| range.count > 1).reduce(|best, next| {
        match best.count < COUNT_GOOD && next.count > best.count {
            true => next,
            false => best,
        }
    })
}

/// First and end of each range of an account.
fn given(name: Option<&str>, uid: Uid, text: &str) -> Vec<(u64, u64)> {
    let uid = uid.to_string();
    let ours = |line| {
        let (whose, first, end) = entry(line)?;
        (name == Some(whose) || whose == uid).then_some((first, end))
    };
    text.lines().filter_map(ours).collect()
}

/// Puts our own ids and the range into the user namespace of a process of ours.
///
/// # Errors
/// In words: a program is missing, or refused.
pub(crate) fn map(pid: i32, range: Range) -> Result<(), String> {
    let ids = [
        ("newuidmap", geteuid().to_string()),
        ("newgidmap", getegid().to_string()),
    ];
    for (program, own) in ids {
        let (first, count) = (range.base.to_string(), range.count.to_string());
        let found = find(program)
            .ok_or_else(|| format!("`{program}` is not installed (package uidmap)"))?;
        let mut command = Command::new(found);
        command
            .arg(pid.to_string())
            .args([&own, &own, "1"])
            .args([&first, &first, &count])
            .env_clear();
        run(&mut command, WAIT).map_err(|why| format!("{program}: {range}: {why}"))?;
    }
    Ok(())
}

/// Runs a program to its good end, for so long: where accounts come from a directory service, it asks that.
fn run(command: &mut Command, wait: Duration) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("it was not started: {error}"))?;
    let until = Instant::now() + wait;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                // Its real user is ours, so that we may, though it is root's program.
                let ended = child.kill().and_then(|()| child.wait());
                let more =
                    ended.map_or_else(|error| format!(", nor ended: {error}"), |_| String::new());
                return Err(format!("it was not done within {wait:?}{more}"));
            }
            Err(error) => return Err(format!("it cannot be waited for: {error}")),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut said = [0; SAID_BYTES_MAX];
    let count = child.stderr.take().map_or(0, |mut stderr| {
        // What it left running may hold the pipe open: only what is there is read.
        let mut there = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
        match poll(&mut there, PollTimeout::ZERO) {
            Ok(1..) => stderr.read(&mut said).unwrap_or(0),
            _ => 0,
        }
    });
    let said = String::from_utf8_lossy(said.get(..count).unwrap_or_default());
    let said: String = said.trim().chars().take(200).collect();
    Err(format!("it refused ({status}): {said}"))
}

fn find(program: &str) -> Option<PathBuf> {
    let mut files = PATH.split(':').map(|dir| Path::new(dir).join(program));
    files.find(|file| file.is_file())
}

/// Where servers of one account meet, to claim parts of its range: the host's place, where it is ours (systemd's
/// `RuntimeDirectory=legation`), else a directory that only this account can write to.
///
/// # Errors
/// Somebody else's directory is in its place.
pub fn claims() -> io::Result<PathBuf> {
    let own = geteuid().as_raw();
    let is_ours = |dir: &Path| {
        let meta = dir.symlink_metadata();
        meta.is_ok_and(|meta| meta.is_dir() && meta.uid() == own && meta.mode() & 0o022 == 0)
    };
    if is_ours(Path::new(CLAIMS)) {
        return Ok(CLAIMS.into());
    }
    let dir = std::env::temp_dir().join(format!("legation-{own}"));
    match DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => std::fs::set_permissions(&dir, Permissions::from_mode(0o700))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    if is_ours(&dir) {
        return Ok(dir);
    }
    let text = format!("{} is somebody else's", dir.display());
    Err(io::Error::other(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_not_waited_for() {
        let ran = |script: &str, wait| run(Command::new("sh").args(["-c", script]), wait);
        let since = Instant::now();
        let why = ran("exec sleep 60", Duration::from_millis(50)).unwrap_err();
        assert!(why.contains("not done within 50ms"), "{why}");
        assert!(since.elapsed() < WAIT, "it was waited for");
        assert_eq!(ran("true", WAIT), Ok(()));
        let why = ran("echo no such range >&2; exit 3", WAIT).unwrap_err();
        assert!(
            why.contains("refused") && why.contains("no such range"),
            "{why}"
        );
    }

    #[test]
    fn a_range_that_another_account_has_some_of_is_told() {
        let range = Range::new(300_000, 65_536).unwrap();
        let shared = |text: &str| shared(range, Some("ada"), Uid::from_raw(1000), text);
        let ben = |first, last| Some(format!("ben (ids {first}-{last})"));
        assert_eq!(shared("ben:296608:65536"), ben(296_608, 362_143));
        assert_eq!(shared("ben:365535:1"), ben(365_535, 365_535));
        for free in [
            "ada:300000:65536\n1000:300000:65536\nroot:0:4294967295",
            "ben:234464:65536\nben:365536:65536\nben:300000:0",
            "ben:x:1\nben",
        ] {
            assert_eq!(shared(free), None, "{free}");
        }
    }

    #[test]
    fn an_account_has_what_both_files_give_it_by_name_or_uid() {
        let common = |uids: &str, gids: &str| {
            let range = common(Some("ada"), Uid::from_raw(1000), uids, gids);
            range.map(|range| range.to_string())
        };
        let both = "bob:100000:65536\nada:165536:65536\n";
        assert_eq!(common(both, both).as_deref(), Some("165536-231071"));
        assert_eq!(common("1000:300000:10", both), None);
        let by_uid = common("1000:165540:10", both);
        assert_eq!(by_uid.as_deref(), Some("165540-165549"));
        // The larger of two.
        let two = "ada:200000:10\nada:300000:20\n";
        assert_eq!(common(two, two).as_deref(), Some("300000-300019"));
        // One that is added is not taken for that which homes belong to.
        let added = "ada:200000:65536\nada:300000:65536\nada:400000:131072\n";
        assert_eq!(common(added, added).as_deref(), Some("200000-265535"));
        for bad in [
            "",
            "ada",
            "ada:x:5",
            "ada:1000:65536",
            "ada:200000:1",
            "ada:0:0",
        ] {
            assert_eq!(common(bad, bad), None, "{bad}");
        }
        let huge = format!("ada:100000:{}", u64::MAX);
        let most = common(&huge, &huge);
        assert_eq!(most.as_deref(), Some("100000-16877215"));
    }
}
