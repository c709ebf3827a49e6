//! Bounds of isolates: how many, how large, how they start, stop and come back.

use std::time::Duration;

limits! {
    /// Runs remembered per slot (`isolate show`).
    pub const HISTORY_RUNS_MAX: usize = 16;
    /// How many of the last verdicts `ps` shows of an isolate.
    pub const VERDICTS_SHOWN: usize = 5;
    /// Isolates one user may have at once.
    pub const ISOLATES_PER_USER_MAX: usize = 20;
    /// First of the uids isolates run as: above those of systemd's containers and subordinate ranges.
    pub const UID_BASE: u32 = 2_000_000_000;
    /// How many there are.
    pub const UID_COUNT: u32 = 65_536;
    /// Ranges a trial run looks through for a free one.
    pub const UID_RANGES_TRIED: u32 = 64;
    /// Demand starts waiting for a start permit, host-wide.
    pub const START_QUEUE_MAX: usize = 256;
    /// Restarts per second, host-wide.
    pub const RESTARTS_PER_SECOND: u32 = 10;
    /// From spawn to ready.
    pub const START_DEADLINE: Duration = Duration::from_secs(30);
    /// How long the install of a package may take; from spawn to ready for a launcher that installs as it runs.
    pub const INSTALL_DEADLINE: Duration = Duration::from_secs(120);
    /// An isolate without calls stops after this.
    pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);
    /// A kill that took longer leaves the slot stuck.
    pub const KILL_WAIT: Duration = Duration::from_secs(5);
    /// Who was killed and lives on is killed again after this.
    pub const KILL_AGAIN: Duration = Duration::from_millis(20);
    /// Isolates on one host, where `isolates.max` says nothing.
    pub const ISOLATES_MAX: usize = 5_000;
    /// Starts that may be at work with files at the same time.
    pub const START_WORK_MAX: usize = 64;
    /// How long a start waits until another one has done with its files.
    pub const START_WORK_WAIT: Duration = Duration::from_secs(10);
    /// Dead isolates whose cgroups are removed at the same time.
    pub const BURIALS_MAX: usize = 2;
    /// How long a cgroup stays after its isolate's end while other isolates still have to die.
    pub const BURIAL_PATIENCE: Duration = Duration::from_millis(500);
    /// First step of the stop ladder: stdin closed.
    pub const STOP_STDIN: Duration = Duration::from_secs(2);
    /// Second step of the stop ladder: SIGTERM.
    pub const STOP_TERM: Duration = Duration::from_secs(3);
    /// Bytes of memory of one isolate.
    pub const ISOLATE_MEMORY_BYTES: u64 = 512 << 20;
    /// Processes and threads of one isolate.
    pub const ISOLATE_PIDS: u64 = 128;
    /// CPU of one isolate, in thousandths of a core.
    pub const ISOLATE_CPU_MILLIS: u64 = 1000;
    /// Bytes of memory of all isolates of one user.
    pub const USER_MEMORY_BYTES: u64 = 2 << 30;
    /// Processes and threads of all isolates of one user.
    pub const USER_PIDS: u64 = 512;
    /// CPU of all isolates of one user, in thousandths of a core.
    pub const USER_CPU_MILLIS: u64 = 2000;
    /// Open files of one process in an isolate.
    pub const ISOLATE_OPEN_FILES: u64 = 1024;
    /// Bytes of the largest file a process in an isolate may write.
    pub const ISOLATE_FILE_BYTES: u64 = 1 << 30;
    /// A start holds its permit at most this long, so that one slow server never delays others.
    pub const START_PERMIT_HOLD: Duration = Duration::from_secs(2);
    /// The stop ladder of one isolate, all steps together.
    pub const ISOLATE_STOP_MAX: Duration = Duration::from_secs(8);
    /// Wait after a server's first failure; doubled by each further one.
    pub const RESTART_FLOOR: Duration = Duration::from_millis(250);
    /// The longest wait before a restart.
    pub const RESTART_CAP: Duration = Duration::from_secs(60);
    /// How long a server that failed too often is left alone.
    pub const RESTART_QUARANTINE: Duration = Duration::from_secs(300);
    /// Failures that lead to quarantine, unless a ready time forgave them.
    pub const RESTART_FAILURES_MAX: u32 = 5;
    /// A server that was ready for this long is forgiven its failures.
    pub const RESTART_WINDOW: Duration = Duration::from_secs(60);
}
