//! Limits and statistics of v1 controllers, by cgroups-rs. The controllers are built on existing
//! directories: its `Cgroup` would make one in all mounted hierarchies, from the host's root.

use std::io;
use std::path::Path;

use cgroups_rs::fs::MaxValue;
use cgroups_rs::fs::cpu::CpuController;
use cgroups_rs::fs::memory::MemController;
use cgroups_rs::fs::pid::PidController;

use super::{CgroupError, Counters, read_number};

/// The default period of the CPU controller.
const PERIOD_MICROS: u64 = 100_000;
/// The kernel refuses less.
const QUOTA_MICROS_MIN: u64 = 1_000;

fn memory_controller(dir: &Path) -> MemController {
    MemController::new(dir.to_owned(), dir.to_owned(), false)
}

/// The kernel's error inside one of cgroups-rs.
fn cause(error: &cgroups_rs::fs::error::Error) -> io::Error {
    std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<io::Error>())
        .map_or_else(
            || io::Error::other(error.to_string()),
            |e| {
                e.raw_os_error()
                    .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
            },
        )
}

/// Bytes that memory+swap may exceed memory by: the kernel charges memory+swap first, in batches on
/// every CPU, and newer kernels count `failcnt` for memory only. With equal limits no counter would
/// say whose limit it was.
fn swap_margin(bytes: u64) -> u64 {
    (bytes / 64).max(1 << 20)
}

/// What data in TCP's buffers may be of memory: v1 counts it apart, and without a limit not at all. v2 counts it with
/// the rest.
const TCP_SHARE: u64 = 4;
/// But that much, a few connections.
const TCP_BYTES_MIN: u64 = 4 << 20;

/// Limits memory, memory with swap, where the host counts it, to hardly more, and TCP's to its share, where it can.
pub(super) fn limit_memory(dir: &Path, bytes: u64) -> Result<(), CgroupError> {
    limit_most(dir, bytes)?;
    let controller = memory_controller(dir);
    let tcp = i64::try_from((bytes / TCP_SHARE).max(TCP_BYTES_MIN)).unwrap_or(i64::MAX);
    let file = dir.join("memory.kmem.tcp.limit_in_bytes");
    match controller.set_tcp_limit(tcp) {
        Err(e) if file.exists() => Err(CgroupError::io("write", &file, cause(&e))),
        // A kernel without it, or one that is told not to count the kernel's own.
        _ => Ok(()),
    }
}

fn limit_most(dir: &Path, bytes: u64) -> Result<(), CgroupError> {
    let limit = i64::try_from(bytes).unwrap_or(i64::MAX);
    let controller = memory_controller(dir);
    let memory = |controller: &MemController| {
        controller
            .set_limit(limit)
            .map_err(|e| CgroupError::io("write", &dir.join("memory.limit_in_bytes"), cause(&e)))
    };
    if !dir.join("memory.memsw.limit_in_bytes").exists() {
        return memory(&controller);
    }
    let swap = |controller: &MemController| {
        let limit = i64::try_from(bytes.saturating_add(swap_margin(bytes))).unwrap_or(i64::MAX);
        controller.set_memswap_limit(limit).map_err(|e| {
            CgroupError::io("write", &dir.join("memory.memsw.limit_in_bytes"), cause(&e))
        })
    };
    // Memory may never exceed memory+swap: lower the one first, raise the other first.
    match memory(&controller) {
        Err(error) if error.errno() == Some(libc::EINVAL) => {
            swap(&controller)?;
            memory(&controller)
        }
        Err(error) => Err(error),
        Ok(()) => swap(&controller),
    }
}

/// Limits processes and threads.
pub(super) fn limit_pids(dir: &Path, pids: u64) -> Result<(), CgroupError> {
    let pids = i64::try_from(pids).unwrap_or(i64::MAX);
    PidController::new(dir.to_owned(), dir.to_owned(), false)
        .set_pid_max(MaxValue::Value(pids))
        .map_err(|e| CgroupError::io("write", &dir.join("pids.max"), cause(&e)))
}

/// Limits CPU time. v1 refuses a share above its parent's; the parent's then holds for us, which is
/// stricter than what was asked.
pub(super) fn limit_cpu(dir: &Path, millis: u64) -> Result<(), CgroupError> {
    let controller = CpuController::new(dir.to_owned(), dir.to_owned(), false);
    let quota = (millis.saturating_mul(PERIOD_MICROS) / 1000).max(QUOTA_MICROS_MIN);
    let quota = i64::try_from(quota).unwrap_or(i64::MAX);
    let fail = |e: &cgroups_rs::fs::error::Error| {
        CgroupError::io("write", &dir.join("cpu.cfs_quota_us"), cause(e))
    };
    match controller.set_cfs_quota(quota) {
        Ok(()) => Ok(()),
        Err(error) if cause(&error).raw_os_error() == Some(libc::EINVAL) => {
            // Lowering a user below what its isolates have: theirs first.
            for child in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if child.file_type().is_ok_and(|kind| kind.is_dir()) {
                    let path = child.path();
                    CpuController::new(path.clone(), path, false)
                        .set_cfs_quota(-1)
                        .map_err(|e| fail(&e))?;
                }
            }
            match controller.set_cfs_quota(quota) {
                Err(e) if cause(&e).raw_os_error() == Some(libc::EINVAL) => {
                    controller.set_cfs_quota(-1).map_err(|e| fail(&e))
                }
                other => other.map_err(|e| fail(&e)),
            }
        }
        Err(error) => Err(fail(&error)),
    }
}

/// What the kernel counted for memory. Four files, where cgroups-rs' `memory_stat` reads eleven:
/// this is read at every start and end.
pub(super) fn counters(dir: &Path) -> Counters {
    let oom = std::fs::read_to_string(dir.join("memory.oom_control")).unwrap_or_default();
    Counters {
        kills: super::text::keyed(&oom, "oom_kill").unwrap_or(0),
        hits: read_number(&dir.join("memory.failcnt")).unwrap_or(0)
            + read_number(&dir.join("memory.memsw.failcnt")).unwrap_or(0),
    }
}
