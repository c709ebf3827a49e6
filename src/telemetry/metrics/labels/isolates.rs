//! Labels of isolates and of what they use.

use super::{Label, Labelled, Values};

labels! {
    /// Why a run was started.
    StartCause "cause" {
        /// A call wanted it.
        Demand "demand",
        /// The last one failed.
        Restart "restart",
        /// One try after a quarantine.
        HalfOpen "half_open",
        /// An administrator.
        Admin "admin",
        /// To see what tools a server has.
        Discovery "discovery",
        /// To install its package.
        Install "install",
    }

    /// Why a slot is left alone for a while.
    GaveUp "reason" {
        /// It failed too often.
        Failures "failures",
        /// It cannot be otherwise before somebody does something.
        Hopeless "hopeless",
        /// A credential is not set or not taken: its user's to mend, mostly.
        Credential "credential",
    }

    /// A step of a start.
    Phase "phase" {
        /// Waiting for a start permit.
        Permit "permit",
        /// Cgroup, clone, exec.
        Spawn "spawn",
        /// Connecting to a server behind HTTP.
        Connect "connect",
        /// The MCP handshake.
        Initialize "initialize",
        /// Reading the tools.
        ListTools "list_tools",
        /// A round trip, for servers without tools.
        Ping "ping",
    }

    /// How an install ended.
    InstallResult "result" {
        /// It is there.
        Installed "installed",
        /// It could not be made.
        Failed "failed",
        /// It took too long.
        Slow "slow",
        /// Somebody stopped it.
        Stopped "stopped",
    }

    /// Where a slot is.
    SlotWord "state" {
        /// No run, and none wanted.
        Resting "resting",
        /// On its way to ready.
        Starting "starting",
        /// Serves.
        Ready "ready",
        /// Being cleared away.
        Stopping "stopping",
        /// Waits after a failure.
        Backoff "backoff",
        /// Failed too often.
        Quarantined "quarantined",
        /// Its processes do not die.
        Stuck "stuck",
    }

    /// An event of the memory controller.
    MemoryEvent "event" {
        /// Throttled above the soft limit.
        High "high",
        /// The limit was hit.
        Max "max",
        /// Nothing could be freed.
        Oom "oom",
        /// A process was killed.
        OomKill "oom_kill",
    }

    /// What is waited for.
    Resource "resource" {
        /// A core.
        Cpu "cpu",
        /// Memory.
        Memory "memory",
        /// A disk.
        Io "io",
    }

    /// What the kernel limits.
    Controller "controller" {
        /// Bandwidth.
        Cpu "cpu",
        /// Bytes.
        Memory "memory",
        /// Processes and threads.
        Pids "pids",
    }
}
