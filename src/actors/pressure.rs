//! The host's pressure, looked at beside its room: a host whose tasks wait for memory is short of it, whatever its
//! counters say.
//!
//! Pressure on memory counts while the host has little left: an isolate that struggles against a limit of its own
//! raises the host's figure too, and must not keep others from starting. CPU and disks are looked at where the
//! operator says from when on.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::jail::{Finding, Verdict};
use crate::config::isolates::Isolates;
use crate::domain::pressure::{Psi, Share, Valve};

/// Where the kernel tells it.
const DIR: &str = "/proc/pressure";

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signal {
    MemoryFull,
    MemorySome,
    CpuSome,
    IoFull,
}

/// The guard.
#[derive(Debug)]
pub(super) struct Pressure {
    dir: PathBuf,
    limits: [Option<Share>; Signal::ALL.len()],
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Seen {
    memory: Option<Psi>,
    cpu: Option<Psi>,
    io: Option<Psi>,
    valves: [Valve; Signal::ALL.len()],
}

/// Pressure as it is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureView {
    /// Waiting for memory; none if the kernel does not say.
    pub memory: Option<Psi>,
    /// Waiting for a core.
    pub cpu: Option<Psi>,
    /// Waiting for a disk.
    pub io: Option<Psi>,
    /// No isolate is started because of it.
    pub shut: bool,
    /// It is to be looked at, and the kernel does not say.
    pub unknown: bool,
}

// === impl Signal ===

impl Signal {
    const ALL: [Self; 4] = [
        Self::MemoryFull,
        Self::MemorySome,
        Self::CpuSome,
        Self::IoFull,
    ];

    /// The setting it is compared with.
    fn limit(self, isolates: &Isolates) -> Option<Share> {
        let percent = match self {
            Self::MemoryFull => isolates.memory_pressure_full_percent,
            Self::MemorySome => isolates.memory_pressure_some_percent,
            Self::CpuSome => isolates.cpu_pressure_percent,
            Self::IoFull => isolates.io_pressure_percent,
        };
        (percent > 0).then(|| Share::percent(percent))
    }

    const fn key(self) -> &'static str {
        match self {
            Self::MemoryFull => "isolates.memory_pressure_full_percent",
            Self::MemorySome => "isolates.memory_pressure_some_percent",
            Self::CpuSome => "isolates.cpu_pressure_percent",
            Self::IoFull => "isolates.io_pressure_percent",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::MemoryFull => "everything on this host waited for memory",
            Self::MemorySome => "something on this host waited for memory",
            Self::CpuSome => "something on this host waited for a core",
            Self::IoFull => "everything on this host waited for a disk",
        }
    }

    const fn is_memory(self) -> bool {
        matches!(self, Self::MemoryFull | Self::MemorySome)
    }
}

// === impl Pressure ===

impl Pressure {
    /// Of the real host.
    pub(super) fn of(isolates: &Isolates) -> Self {
        Self::at(DIR.into(), isolates)
    }

    /// Of a directory that is like `/proc/pressure`.
    fn at(dir: PathBuf, isolates: &Isolates) -> Self {
        Self {
            dir,
            limits: Signal::ALL.map(|signal| signal.limit(isolates)),
            seen: Mutex::default(),
        }
    }

    /// Looks again. Reads files.
    pub(super) fn look(&self, short_of_memory: bool) {
        let file = |name| read(&self.dir, name).ok();
        let (memory, cpu, io) = (file("memory"), file("cpu"), file("io"));
        let mut seen = self.seen();
        let before = seen.is_shut();
        (seen.memory, seen.cpu, seen.io) = (memory, cpu, io);
        for (index, signal) in Signal::ALL.into_iter().enumerate() {
            let counts = short_of_memory || !signal.is_memory();
            let share = seen.share(signal).filter(|_| counts);
            let limit = self.limits.get(index).copied().flatten();
            if let Some(valve) = seen.valves.get_mut(index) {
                valve.see(share, limit);
            }
        }
        let now = seen.is_shut();
        drop(seen);
        match (before, now) {
            (false, true) => {
                let why = self.refuses().unwrap_or_default();
                tracing::warn!("no isolate is started for now: {why}");
            }
            (true, false) => tracing::info!("the host's pressure is gone: isolates start again"),
            _ => {}
        }
    }

    /// Why no isolate is started; `None` if one is.
    pub(super) fn refuses(&self) -> Option<String> {
        let seen = *self.seen();
        let (signal, limit) = seen.shut(&self.limits).next()?;
        Some(format!(
            "{} for {} of the last ten seconds; from {limit} on no server is started ({}), and \
             again below {}",
            signal.words(),
            seen.share(signal).unwrap_or_default(),
            signal.key(),
            limit.release(),
        ))
    }

    /// Whether it is memory that is waited for too long.
    pub(super) fn is_memory_short(&self) -> bool {
        let seen = *self.seen();
        seen.shut(&self.limits)
            .any(|(signal, _)| signal.is_memory())
    }

    /// As it is shown.
    pub(super) fn view(&self) -> PressureView {
        let seen = *self.seen();
        let mut limited = Signal::ALL.into_iter().zip(self.limits);
        PressureView {
            memory: seen.memory,
            cpu: seen.cpu,
            io: seen.io,
            shut: seen.is_shut(),
            unknown: limited.any(|(signal, limit)| limit.is_some() && seen.share(signal).is_none()),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Seen ===

impl Seen {
    fn share(&self, signal: Signal) -> Option<Share> {
        match signal {
            Signal::MemoryFull => self.memory.map(|psi| psi.full),
            Signal::MemorySome => self.memory.map(|psi| psi.some),
            Signal::CpuSome => self.cpu.map(|psi| psi.some),
            Signal::IoFull => self.io.map(|psi| psi.full),
        }
    }

    fn is_shut(&self) -> bool {
        self.valves.iter().any(|valve| valve.is_shut())
    }

    fn shut<'a>(
        &'a self,
        limits: &'a [Option<Share>],
    ) -> impl Iterator<Item = (Signal, Share)> + 'a {
        let all = Signal::ALL.into_iter().zip(&self.valves).zip(limits);
        all.filter_map(|((signal, valve), limit)| {
            Some((signal, (*limit)?)).filter(|_| valve.is_shut())
        })
    }
}

/// For `legation doctor`; `None` where the configuration looks at no pressure.
#[must_use]
pub fn finding(isolates: &Isolates) -> Option<Finding> {
    let limited = |signal: Signal| signal.limit(isolates).is_some();
    Signal::ALL
        .into_iter()
        .any(limited)
        .then(|| find(Path::new(DIR)))
}

fn find(dir: &Path) -> Finding {
    let (verdict, evidence) = match read(dir, "memory") {
        Ok(psi) => (
            Verdict::Ok,
            format!(
                "{DIR}/memory: some {}, full {} of ten seconds",
                psi.some, psi.full
            ),
        ),
        Err(error) => (Verdict::Degraded, format!("{DIR}/memory: {error}")),
    };
    let fix = "boot with psi=1; or set isolates.memory_pressure_full_percent and \
               isolates.memory_pressure_some_percent to 0";
    Finding {
        facility: "host_pressure".to_owned(),
        verdict,
        evidence,
        fix: (verdict != Verdict::Ok).then(|| fix.to_owned()),
    }
}

fn read(dir: &Path, name: &str) -> io::Result<Psi> {
    let text = std::fs::read_to_string(dir.join(name))?;
    Psi::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a pressure"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host whose kernel says what a test writes.
    struct Host(tempfile::TempDir);

    impl Host {
        fn says(&self, name: &str, some: u32, full: u32) {
            let text = format!(
                "some avg10={some}.00 avg60=0.00 avg300=0.00 total=1\n\
                 full avg10={full}.00 avg60=0.00 avg300=0.00 total=1\n"
            );
            std::fs::write(self.0.path().join(name), text).unwrap();
        }

        fn guard(&self, isolates: &Isolates) -> Pressure {
            Pressure::at(self.0.path().to_owned(), isolates)
        }
    }

    fn host() -> Host {
        Host(tempfile::tempdir().unwrap())
    }

    #[test]
    fn pressure_refuses_names_itself_and_does_not_flap() {
        let host = host();
        let guard = host.guard(&Isolates::default());
        let at = |some, full| {
            host.says("memory", some, full);
            guard.look(true);
            guard.refuses()
        };
        assert_eq!(at(10, 5), None);
        let why = at(50, 31).unwrap();
        assert_eq!(
            why,
            "everything on this host waited for memory for 31 % of the last ten seconds; from 20 % \
             on no server is started (isolates.memory_pressure_full_percent), and again below 15 %"
        );
        assert!(at(50, 16).is_some(), "still");
        assert_eq!(at(50, 14), None);
        assert_eq!(at(50, 19), None);
        let why = at(61, 0).unwrap();
        assert!(
            why.contains("isolates.memory_pressure_some_percent"),
            "{why}"
        );
        assert!(guard.is_memory_short() && guard.view().shut);
        // Somebody's own limit, not the host's want: there is memory left.
        guard.look(false);
        assert_eq!(guard.refuses(), None);
        assert!(!guard.is_memory_short());
    }

    #[test]
    fn cpu_and_disks_count_where_the_operator_says_so() {
        let host = host();
        host.says("memory", 0, 0);
        host.says("cpu", 99, 0);
        host.says("io", 99, 99);
        let silent = host.guard(&Isolates::default());
        silent.look(true);
        assert_eq!(silent.refuses(), None);
        assert_eq!(silent.view().cpu.unwrap().some, Share::percent(99));
        let strict = host.guard(&Isolates {
            cpu_pressure_percent: 90,
            io_pressure_percent: 100,
            ..Isolates::default()
        });
        strict.look(false);
        let why = strict.refuses().unwrap();
        assert!(
            why.contains("a core for 99 %") && why.contains("from 90 %"),
            "{why}"
        );
        assert!(!strict.is_memory_short());
    }

    #[test]
    fn a_kernel_that_does_not_say_is_shown_and_held_against_nobody() {
        let host = host();
        let guard = host.guard(&Isolates::default());
        host.says("memory", 99, 99);
        guard.look(true);
        assert!(guard.refuses().is_some() && !guard.view().unknown);
        std::fs::write(host.0.path().join("memory"), "nonsense").unwrap();
        guard.look(true);
        assert_eq!(guard.refuses(), None);
        assert!(guard.view().unknown);
        assert_eq!(find(host.0.path()).verdict, Verdict::Degraded);
        assert_eq!(find(Path::new("/nowhere")).verdict, Verdict::Degraded);
        let off = Isolates {
            memory_pressure_full_percent: 0,
            memory_pressure_some_percent: 0,
            ..Isolates::default()
        };
        let off_guard = host.guard(&off);
        off_guard.look(true);
        assert!(!off_guard.view().unknown, "nobody asked");
        assert_eq!(finding(&off), None);
    }

    #[test]
    fn the_real_host_is_read() {
        let guard = Pressure::of(&Isolates::default());
        guard.look(false);
        let told = std::fs::read_to_string("/proc/pressure/memory").is_ok();
        let view = guard.view();
        assert_eq!(view.memory.is_some(), told);
        assert_eq!(view.unknown, !told);
        assert!(!view.shut);
        let verdict = finding(&Isolates::default()).unwrap().verdict;
        assert_eq!(verdict == Verdict::Ok, told);
    }
}
