//! Bounds of checking a call's arguments against the schema of its tool.

use std::time::Duration;

limits! {
    /// Bytes of a schema that arguments are checked against.
    pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
    /// Values in such a schema, and half of those it may make when its references are written out.
    pub const SCHEMA_VALUES_MAX: usize = 20_000;
    /// Schemas within each other, also by way of references.
    pub const SCHEMA_DEPTH_MAX: usize = 64;
    /// Patterns in such a schema.
    pub const SCHEMA_PATTERNS_MAX: usize = 80;
    /// Bytes that one pattern of a schema takes, compiled.
    pub const SCHEMA_PATTERN_BYTES_MAX: usize = 64 << 10;
    /// Values of all schemas that are kept compiled.
    pub const SCHEMAS_VALUES_MAX: usize = 1_000_000;
    /// Schemas that are compiled, and long checks that are made, at once.
    pub const SCHEMAS_AT_ONCE: usize = 2;
    /// Levels of arguments that are checked.
    pub const ARGUMENT_DEPTH_MAX: usize = 64;
    /// Values in arguments that are checked.
    pub const ARGUMENT_VALUES_MAX: usize = 200_000;
    /// Steps that a check may take: a subschema held against a value is one or a few.
    pub const ARGUMENT_STEPS_MAX: u64 = 4_000_000;
    /// A check of more steps is made off the runtime's workers.
    pub const ARGUMENT_STEPS_INLINE: u64 = 20_000;
    /// Arguments of more bytes are read and checked off the runtime's workers.
    pub const ARGUMENT_BYTES_INLINE: usize = 32 << 10;
    /// How long a call waits for its turn to be checked.
    pub const ARGUMENT_WAIT: Duration = Duration::from_secs(5);
    /// How often the log tells of calls of one tool whose arguments do not fit.
    pub const ARGUMENT_LOG_EVERY: Duration = Duration::from_secs(60);
}
