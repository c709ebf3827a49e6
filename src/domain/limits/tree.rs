//! Bounds of the supervision tree, of those who watch it, and of the server's own life.

use std::time::Duration;

limits! {
    /// Transitions remembered per actor (`tree`).
    pub const TRANSITIONS_MAX: usize = 10;
    /// Changes of the tree kept for those who follow it; who is further behind gets a fresh picture.
    pub const CHANGES_KEPT_MAX: usize = 1024;
    /// Users' supervisors whose last transitions are remembered.
    pub const TREE_USERS_MAX: usize = 4096;
    /// Followers of the tree at once.
    pub const FOLLOWERS_MAX: usize = 16;
    /// Between two lines that show a follower that its connection lives.
    pub const FOLLOW_BEAT: Duration = Duration::from_secs(10);
    /// How long a follower may leave lines unread before it is let go.
    pub const FOLLOW_STALL_MAX: Duration = Duration::from_secs(30);
    /// Between two readings of the isolates' counters for a follower.
    pub const FOLLOW_USAGE_EVERY: Duration = Duration::from_secs(5);
    /// Bytes of a runtime thread's stack.
    pub const THREAD_STACK_BYTES: usize = 1 << 20;
    /// How long blocked threads are waited for when the process ends.
    pub const RUNTIME_STOP_MAX: Duration = Duration::from_secs(1);
    /// How long the whole server may take to stop.
    pub const SHUTDOWN_MAX: Duration = Duration::from_secs(40);
    /// How long listeners wait for requests in flight when the server stops.
    pub const DRAIN_MAX: Duration = Duration::from_secs(10);
    /// A second signal this soon after the first that stops the server is the same one, sent to its group as well.
    pub const SAME_STOP: Duration = Duration::from_millis(500);
    /// How long the answers to calls that a stopping server cuts short may take to leave.
    pub const LAST_ANSWERS: Duration = Duration::from_secs(2);
    /// Restarts of one of our own actors in [`INTENSITY_PERIOD`] before its supervisor gives up on it.
    pub const INTENSITY_MAX: usize = 3;
    /// The period of [`INTENSITY_MAX`].
    pub const INTENSITY_PERIOD: Duration = Duration::from_secs(60);
    /// This many different users given up on in [`INTENSITY_PERIOD`] is our bug, not theirs.
    pub const USERS_GIVEN_UP_MAX: usize = 10;
    /// How long all services may take to start.
    pub const BOOT_MAX: Duration = Duration::from_secs(60);
    /// Bytes of one configuration file.
    pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
    /// Files read from `conf.d`.
    pub const CONFIG_FILES_MAX: usize = 256;
}
