//! Bounds of lists that are gathered from all servers of a key.

use std::time::Duration;

limits! {
    /// Lists of a key that are gathered at a time; others wait.
    pub const GATHERS_KEY_MAX: usize = 2;
    /// Servers that are asked for a key's lists at a time.
    pub const GATHER_SERVERS_MAX: usize = 4;
    /// How long one of them may take, its start included.
    pub const GATHER_WAIT: Duration = Duration::from_secs(10);
    /// How long a list waits for all of them.
    pub const GATHER_ALL_WAIT: Duration = Duration::from_secs(25);
    /// Pages of one server's list.
    pub const GATHER_PAGES_MAX: usize = 16;
    /// Items of one server's list.
    pub const GATHER_ITEMS_MAX: usize = 2000;
    /// Bytes of them.
    pub const GATHER_SERVER_BYTES_MAX: usize = 2 << 20;
    /// Bytes of the items of all servers.
    pub const GATHER_BYTES_MAX: usize = 8 << 20;
    /// How long what a server says of its tools is gathered before they are read again.
    pub const TOOLS_SETTLE: Duration = Duration::from_millis(500);
    /// How long it then is before they are read again once more.
    pub const TOOLS_AGAIN: Duration = Duration::from_secs(30);
    /// How long it is at least from one time that an mcp's tools are taken over to the next.
    pub const TOOLS_ADOPT_AGAIN: Duration = Duration::from_secs(60);
    /// Tools that a record of such a change names.
    pub const TOOLS_NAMED_MAX: usize = 20;
    /// Tools of one server that are gone and whose names are kept, for one key: of more, those that went first lose theirs.
    pub const TOOLS_GONE_NAMED_MAX: usize = 1000;
    /// Keys that the record of an administrator's act for many of them names.
    pub const KEYS_NAMED_MAX: usize = 20;
    /// Bytes of the name of a prompt that is offered where all servers are.
    pub const PROMPT_NAME_BYTES_MAX: usize = 512;
    /// Prompts of one server that have ever had a name there, for one key.
    pub const PROMPTS_NAMED_MAX: usize = 1000;
    /// Keys whose prompts' names are kept in memory.
    pub const PROMPT_NAMES_KEPT_MAX: usize = 1000;
}
