//! Bounds of names and of what defines an mcp.

limits! {
    /// Characters in the name of a user, group or mcp.
    pub const NAME_CHARS_MAX: usize = 64;
    /// Characters in a tool's own name.
    pub const TOOL_NAME_CHARS_MAX: usize = 128;
    /// Characters in a tool name as a client sees it.
    pub const EXPOSED_NAME_CHARS_MAX: usize = 64;
    /// Tools one mcp may declare.
    pub const TOOLS_PER_MCP_MAX: usize = 1000;
    /// Arguments of an mcp's program.
    pub const PROGRAM_ARGS_MAX: usize = 256;
    /// Paths of the host an mcp declares for its isolates.
    pub const CONFINEMENT_PATHS_MAX: usize = 32;
    /// Bytes of such a path.
    pub const CONFINEMENT_PATH_BYTES_MAX: usize = 1024;
    /// Variables an mcp adds to the environment.
    pub const PROGRAM_ENV_MAX: usize = 256;
    /// Bytes of an mcp's program, its arguments and environment together.
    pub const PROGRAM_BYTES_MAX: usize = 64 << 10;
    /// Characters of a description or a reason.
    pub const DESCRIPTION_CHARS_MAX: usize = 500;
    /// Pages of `tools/list` that are followed.
    pub const TOOL_PAGES_MAX: usize = 64;
    /// Characters of a server's output in a verdict or a log line.
    pub const SERVER_DETAIL_CHARS_MAX: usize = 300;
    /// Bytes of one tool's definition; a tool with a larger one is not offered.
    pub const TOOL_DEFINITION_BYTES_MAX: usize = 256 << 10;
    /// Bytes of a server's whole tool list, all pages together.
    pub const TOOL_LIST_BYTES_MAX: usize = 4 << 20;
    /// Tools of one list that are logged and shown as left out; more are counted.
    pub const TOOLS_REFUSED_LOGGED_MAX: usize = 16;
}
