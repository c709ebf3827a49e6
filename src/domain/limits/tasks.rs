//! Bounds of tasks: calls whose client does not wait for them.

use std::time::Duration;

limits! {
    /// How long a task and what it ended with are kept where neither client nor server says.
    pub const TASK_TTL: Duration = Duration::from_secs(3600);
    /// The longest that a client or a server may ask for.
    pub const TASK_TTL_MAX: Duration = Duration::from_secs(4 * 3600);
    /// Tasks of one user that are under way.
    pub const TASKS_LIVING_MAX: usize = 32;
    /// Tasks of one user, with those that have ended; of more, those that ended first are forgotten.
    pub const TASKS_USER_MAX: usize = 128;
    /// Tasks of all users.
    pub const TASKS_MAX: usize = 8192;
    /// Bytes of what one user's tasks have ended with.
    pub const TASK_BYTES_USER_MAX: usize = 32 << 20;
    /// The same of all users.
    pub const TASK_BYTES_ALL_MAX: usize = 256 << 20;
    /// Tasks on one page of a list.
    pub const TASKS_PAGE: usize = 50;
    /// How long what a server said of a task is good for who asks again.
    pub const TASK_FRESH: Duration = Duration::from_millis(500);
    /// How long a server may take to say how a task stands, or to take note that it is cancelled.
    pub const TASK_ASK_WAIT: Duration = Duration::from_secs(5);
    /// How often a server is told an answer that it does not take note of.
    pub const TASK_UPDATE_TRIES: usize = 3;
    /// The shortest pause between two looks at a task.
    pub const TASK_POLL_MIN: Duration = Duration::from_millis(100);
    /// The pause between two looks at a task where its server says none.
    pub const TASK_POLL: Duration = Duration::from_secs(1);
    /// The longest pause between two looks at a task.
    pub const TASK_POLL_MAX: Duration = Duration::from_secs(60);
    /// How long what a server asks for a task waits until the server has said that there is one.
    pub const TASK_PARKED_MAX: Duration = Duration::from_secs(2);
    /// Characters of what a server says of how a task stands.
    pub const TASK_MESSAGE_CHARS_MAX: usize = 1000;
    /// Bytes of a server's own name of a task.
    pub const TASK_ID_BYTES_MAX: usize = 1024;
    /// What happens to a task and a stream has not passed on yet.
    pub const TASK_NEWS_MAX: usize = 64;
    /// Tasks that one subscription of a client without a session names.
    pub const MCP_LISTEN_TASKS_MAX: usize = 64;
}
