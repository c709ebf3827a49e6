//! Statistics of a group: a few small files of each hierarchy, read into one buffer.
//!
//! A sweep over a thousand groups must be cheap, and what costs is opening: 5 µs of the 6 µs a file
//! takes (`memory.stat` takes 12). Opening below a descriptor of the group saves 1.6 µs a file and
//! costs 3.3 for that descriptor, so it gains nothing; a descriptor kept for each file would cost the
//! kernel a page of buffer each, and us our limit of open files. So a sweep reads what changes
//! always, `memory.stat` with every third, and of the rare counters a sixth, in turn ([`Rare`]). What was not read, or is not counted on
//! this host, is `None`; a group that is gone reads as nothing.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::mounts::{Hierarchy, Kind};
use super::{Memory, MemoryEvents, Stall, Throttling, Usage};
use crate::facility::Facility;

/// The longest file is `memory.stat`, some 2 KiB; `total_inactive_file` of v1 stands in its last third.
const BUFFER_BYTES: usize = 8 << 10;

/// Which of the rare counters are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rare {
    /// All of them.
    All,
    /// Those whose turn it is.
    Turn(u32),
}

impl Rare {
    /// Events at the memory limit.
    const EVENTS: u32 = 0;
    /// Refused forks.
    const PIDS: u32 = 1;
    /// Bandwidth control, where it has a file of its own (v1).
    const BANDWIDTH: u32 = 2;
    /// Waiting for a core.
    const CPU_STALL: u32 = 3;
    /// Waiting for memory.
    const MEMORY_STALL: u32 = 4;
    /// Waiting for disks.
    const IO_STALL: u32 = 5;
    const TURNS: u32 = 6;
    /// `memory.stat` is twice as dear as any other file, and tells but of page cache.
    const CACHE_EVERY: u32 = 3;

    fn has(self, part: u32) -> bool {
        match self {
            Self::All => true,
            Self::Turn(turn) => turn % Self::TURNS == part,
        }
    }

    fn has_cache(self) -> bool {
        match self {
            Self::All => true,
            Self::Turn(turn) => turn % Self::CACHE_EVERY == Self::CACHE_EVERY - 1,
        }
    }
}

/// Reads everything but the peak.
pub(super) fn read(hierarchies: &[Hierarchy], rel: &str, rare: Rare) -> Usage {
    let mut buffer = [0; BUFFER_BYTES];
    let mut usage = Usage::default();
    for hierarchy in hierarchies {
        let mut group = Group::new(&hierarchy.base, rel, &mut buffer);
        match hierarchy.kind {
            Kind::V2 | Kind::Unified => v2(&mut group, hierarchy, rare, &mut usage),
            Kind::V1 => v1(&mut group, hierarchy, rare, &mut usage),
            Kind::Freezer => {}
        }
    }
    usage
}

/// The most memory the group ever had (v2: from kernel 5.19).
pub(super) fn peak(hierarchies: &[Hierarchy], rel: &str) -> Option<u64> {
    let hierarchy = hierarchies
        .iter()
        .find(|h| h.facilities.contains(&Facility::CgroupMemory))?;
    let mut buffer = [0; BUFFER_BYTES];
    let mut group = Group::new(&hierarchy.base, rel, &mut buffer);
    group.number(match hierarchy.kind {
        Kind::V2 | Kind::Unified => "memory.peak",
        Kind::V1 | Kind::Freezer => "memory.max_usage_in_bytes",
    })
}

fn v2(group: &mut Group<'_>, hierarchy: &Hierarchy, rare: Rare, usage: &mut Usage) {
    // A v2 group counts CPU time even without the controller.
    if let Some(stat) = group.text("cpu.stat") {
        usage.cpu_micros = keyed(stat, "usage_usec");
        usage.throttling = keyed(stat, "nr_periods").map(|periods| Throttling {
            periods,
            throttled_periods: keyed(stat, "nr_throttled").unwrap_or(0),
            throttled_micros: keyed(stat, "throttled_usec").unwrap_or(0),
        });
    }
    if hierarchy.facilities.contains(&Facility::CgroupMemory) {
        usage.memory = group.number("memory.current").map(|bytes| {
            let cache = rare
                .has_cache()
                .then(|| group.text("memory.stat"))
                .flatten();
            memory(bytes, cache.and_then(|stat| keyed(stat, "inactive_file")))
        });
        if rare.has(Rare::EVENTS) {
            usage.memory_events = group.text("memory.events").map(|events| MemoryEvents {
                high: keyed(events, "high").unwrap_or(0),
                max: keyed(events, "max").unwrap_or(0),
                oom: keyed(events, "oom").unwrap_or(0),
                oom_kill: keyed(events, "oom_kill").unwrap_or(0),
            });
        }
    }
    if hierarchy.facilities.contains(&Facility::CgroupPids) {
        pids(group, rare, usage);
    }
    if rare.has(Rare::CPU_STALL) {
        usage.cpu_stall = stall(group, "cpu.pressure");
    }
    if rare.has(Rare::MEMORY_STALL) {
        usage.memory_stall = stall(group, "memory.pressure");
    }
    if rare.has(Rare::IO_STALL) {
        usage.io_stall = stall(group, "io.pressure");
    }
}

fn v1(group: &mut Group<'_>, hierarchy: &Hierarchy, rare: Rare, usage: &mut Usage) {
    for facility in &hierarchy.facilities {
        match facility {
            Facility::CgroupMemory => {
                usage.memory = group.number("memory.usage_in_bytes").map(|bytes| {
                    let cache = rare
                        .has_cache()
                        .then(|| group.text("memory.stat"))
                        .flatten();
                    memory(
                        bytes,
                        cache.and_then(|stat| keyed(stat, "total_inactive_file")),
                    )
                });
                if rare.has(Rare::EVENTS) {
                    usage.memory_events = group.number("memory.failcnt").map(|max| MemoryEvents {
                        high: 0,
                        max,
                        oom: 0,
                        oom_kill: group
                            .text("memory.oom_control")
                            .and_then(|text| keyed(text, "oom_kill"))
                            .unwrap_or(0),
                    });
                }
            }
            Facility::CgroupPids => pids(group, rare, usage),
            Facility::CgroupCpu => {
                if rare.has(Rare::BANDWIDTH) {
                    usage.throttling = group.text("cpu.stat").and_then(|stat| {
                        Some(Throttling {
                            periods: keyed(stat, "nr_periods")?,
                            throttled_periods: keyed(stat, "nr_throttled")?,
                            throttled_micros: keyed(stat, "throttled_time")? / 1000,
                        })
                    });
                }
                // There where cpu and cpuacct are mounted together.
                if usage.cpu_micros.is_none() {
                    usage.cpu_micros = group.number("cpuacct.usage").map(|nanos| nanos / 1000);
                }
            }
            _ => {}
        }
    }
}

fn pids(group: &mut Group<'_>, rare: Rare, usage: &mut Usage) {
    usage.pids = group.number("pids.current");
    if rare.has(Rare::PIDS) {
        usage.pids_refused = group
            .text("pids.events")
            .and_then(|events| keyed(events, "max"));
    }
}

fn memory(bytes: u64, cache_bytes: Option<u64>) -> Memory {
    Memory { bytes, cache_bytes }
}

/// `some avg10=… avg60=… avg300=… total=…`, and the same with `full`.
fn stall(group: &mut Group<'_>, file: &str) -> Option<Stall> {
    stall_of(group.text(file)?)
}

pub(super) fn stall_of(text: &str) -> Option<Stall> {
    let total = |kind: &str| {
        let line = text.lines().find(|line| line.starts_with(kind))?;
        line.rsplit_once("total=")?.1.parse().ok()
    };
    Some(Stall {
        some_micros: total("some")?,
        full_micros: total("full").unwrap_or(0),
    })
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    super::text::keyed(text, key)
}

/// One group in one hierarchy, and the buffer its files are read into.
struct Group<'a> {
    path: PathBuf,
    buffer: &'a mut [u8; BUFFER_BYTES],
}

impl<'a> Group<'a> {
    fn new(base: &Path, rel: &str, buffer: &'a mut [u8; BUFFER_BYTES]) -> Self {
        Self {
            path: base.join(rel),
            buffer,
        }
    }

    fn text(&mut self, file: &str) -> Option<&str> {
        self.path.push(file);
        let read = File::open(&self.path).and_then(|mut file| file.read(self.buffer));
        self.path.pop();
        std::str::from_utf8(self.buffer.get(..read.ok()?)?).ok()
    }

    fn number(&mut self, file: &str) -> Option<u64> {
        self.text(file)?.trim_ascii().parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("leaf")).unwrap();
        for (file, text) in files {
            fs::write(dir.path().join("leaf").join(file), text).unwrap();
        }
        dir
    }

    fn hierarchy(dir: &tempfile::TempDir, kind: Kind, facilities: &[Facility]) -> Hierarchy {
        Hierarchy {
            kind,
            base: dir.path().to_owned(),
            facilities: facilities.to_vec(),
        }
    }

    const PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n\
                            full avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";

    #[test]
    fn v2_is_read_whole() {
        let dir = group(&[
            (
                "cpu.stat",
                "usage_usec 70\nuser_usec 60\nnr_periods 9\nnr_throttled 4\nthrottled_usec 50\n",
            ),
            ("memory.current", "1000\n"),
            ("memory.peak", "2000\n"),
            ("memory.stat", "anon 1\ninactive_file 300\n"),
            ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n"),
            ("pids.current", "5\n"),
            ("pids.events", "max 6\n"),
            ("cpu.pressure", PRESSURE),
            ("memory.pressure", PRESSURE),
            ("io.pressure", PRESSURE),
        ]);
        let all = [
            Facility::CgroupMemory,
            Facility::CgroupPids,
            Facility::CgroupCpu,
        ];
        let hierarchies = [hierarchy(&dir, Kind::V2, &all)];
        let stall = Stall {
            some_micros: 12,
            full_micros: 3,
        };
        let expected = Usage {
            memory: Some(Memory {
                bytes: 1000,
                cache_bytes: Some(300),
            }),
            memory_peak_bytes: None,
            memory_events: Some(MemoryEvents {
                high: 1,
                max: 2,
                oom: 3,
                oom_kill: 4,
            }),
            pids: Some(5),
            pids_refused: Some(6),
            cpu_micros: Some(70),
            throttling: Some(Throttling {
                periods: 9,
                throttled_periods: 4,
                throttled_micros: 50,
            }),
            cpu_stall: Some(stall),
            memory_stall: Some(stall),
            io_stall: Some(stall),
        };
        assert_eq!(read(&hierarchies, "leaf", Rare::All), expected);
        // Six turns read all of it, each what changes and a part of the rest.
        for turn in 0..6 {
            let read = read(&hierarchies, "leaf", Rare::Turn(turn));
            assert_eq!((read.pids, read.cpu_micros), (Some(5), Some(70)));
            let cache = read.memory.unwrap().cache_bytes;
            assert_eq!(cache.is_some(), turn == 2 || turn == 5, "{turn}");
            let parts = [
                read.memory_events.is_some(),
                read.pids_refused.is_some(),
                // Here it stands in a file that is read anyway.
                turn == 2 && read.throttling.is_some(),
                read.cpu_stall.is_some(),
                read.memory_stall.is_some(),
                read.io_stall.is_some(),
            ];
            let turns = [0, 1, 2, 3, 4, 5].map(|part| part == turn);
            assert_eq!(parts, turns);
        }
        assert_eq!(peak(&hierarchies, "leaf"), Some(2000));
    }

    #[test]
    fn hybrid_takes_each_number_from_where_it_is() {
        let unified = group(&[("cpu.stat", "usage_usec 70\n"), ("cpu.pressure", PRESSURE)]);
        let cpu = group(&[(
            "cpu.stat",
            "nr_periods 9\nnr_throttled 4\nthrottled_time 50000\n",
        )]);
        let memory = group(&[
            ("memory.usage_in_bytes", "1000\n"),
            ("memory.max_usage_in_bytes", "2000\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
            ("memory.failcnt", "2\n"),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            ),
        ]);
        let hierarchies = [
            hierarchy(&unified, Kind::Unified, &[Facility::CgroupKill]),
            hierarchy(&memory, Kind::V1, &[Facility::CgroupMemory]),
            hierarchy(&cpu, Kind::V1, &[Facility::CgroupCpu]),
        ];
        let usage = read(&hierarchies, "leaf", Rare::All);
        assert_eq!(usage.cpu_micros, Some(70));
        assert_eq!(usage.throttling.unwrap().throttled_micros, 50);
        assert_eq!(usage.memory.unwrap().cache_bytes, Some(300));
        assert_eq!(usage.memory_events.unwrap().oom_kill, 4);
        assert!(usage.cpu_stall.is_some() && usage.memory_stall.is_none());
        assert_eq!((usage.pids, usage.pids_refused), (None, None));
        assert_eq!(peak(&hierarchies, "leaf"), Some(2000));
        for turn in 0..6 {
            let read = read(&hierarchies, "leaf", Rare::Turn(turn));
            assert_eq!(read.throttling.is_some(), turn == 2, "{turn}");
            assert_eq!(read.memory_events.is_some(), turn == 0, "{turn}");
        }
    }

    #[test]
    fn a_group_that_is_gone_reads_as_nothing() {
        let dir = group(&[]);
        let hierarchies = [hierarchy(&dir, Kind::V2, &[Facility::CgroupMemory])];
        assert_eq!(read(&hierarchies, "gone", Rare::All), Usage::default());
    }
}
