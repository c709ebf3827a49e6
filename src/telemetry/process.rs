//! The gateway's own process, as the kernel counts it. Reads a few files of `/proc/self`.

use std::time::Duration;

/// The kernel's unit of CPU time in `/proc`, the same on every architecture we build for.
const TICKS_PER_SECOND: u64 = 100;

/// What it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// CPU time.
    pub cpu: Duration,
    /// Bytes in memory.
    pub resident_bytes: u64,
    /// Bytes of address space.
    pub virtual_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open files.
    pub open_fds: u64,
    /// Files it may have open.
    pub max_fds: u64,
}

/// Reads it; `None` where there is no `/proc`.
#[must_use]
pub fn read() -> Option<Process> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    let status = read("status")?;
    Some(Process {
        cpu: cpu(&read("stat")?)?,
        resident_bytes: kib(&status, "VmRSS:").unwrap_or(0),
        virtual_bytes: kib(&status, "VmSize:").unwrap_or(0),
        threads: field(&status, "Threads:").unwrap_or(0),
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |fds| fds.count() as u64),
        max_fds: read("limits").and_then(|text| max_fds(&text)).unwrap_or(0),
    })
}

/// User and system time, behind the command's name in brackets, which may hold anything.
fn cpu(stat: &str) -> Option<Duration> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(
        (user + system) * 1000 / TICKS_PER_SECOND,
    ))
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn kib(status: &str, name: &str) -> Option<u64> {
    field(status, name).map(|kib| kib << 10)
}

fn max_fds(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 4 0 1 2 3";
        assert_eq!(cpu(stat), Some(Duration::from_secs(4)));
        let status = "Name:\tx\nVmSize:\t  2048 kB\nVmRSS:\t  512 kB\nThreads:\t4\n";
        assert_eq!(kib(status, "VmRSS:"), Some(512 << 10));
        assert_eq!(field(status, "Threads:"), Some(4));
        let limits = "Limit  Soft  Hard  Units\nMax open files            1024                 4096                 files\n";
        assert_eq!(max_fds(limits), Some(1024));
        let own = read().unwrap();
        assert!(own.resident_bytes > 0 && own.open_fds > 2 && own.max_fds >= own.open_fds);
    }
}
