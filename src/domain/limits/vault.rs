//! Bounds of credentials and of the keys they are sealed with.

use std::time::Duration;

use super::STDERR_LINE_BYTES_MAX;

limits! {
    /// Bytes of one sealed value before it is sealed.
    pub const SEALED_BYTES_MAX: usize = 64 << 10;
    /// Characters of a credential's name.
    pub const CREDENTIAL_NAME_CHARS_MAX: usize = 64;
    /// Characters of a variable that a credential is put into.
    pub const VARIABLE_CHARS_MAX: usize = 128;
    /// Credentials one mcp may declare.
    pub const CREDENTIALS_PER_MCP_MAX: usize = 16;
    /// Bytes of one credential that is put into a variable.
    pub const CREDENTIAL_BYTES_MAX: usize = SEALED_BYTES_MAX;
    /// Users that `mcp show` names of those who have set a credential; the others it counts.
    pub const USERS_NAMED_MAX: usize = 20;
    /// Bytes of a credential below which it is not looked for in what servers write.
    pub const REDACT_BYTES_MIN: usize = 4;
    /// The same for one line of a credential that has several.
    pub const REDACT_LINE_BYTES_MIN: usize = 8;
    /// Bytes of a line that are searched for credentials; what is longer is cut first.
    pub const REDACT_TEXT_BYTES_MAX: usize = STDERR_LINE_BYTES_MAX;
    /// Bytes of the master key file.
    pub const MASTER_FILE_BYTES_MAX: u64 = 4 << 10;
    /// Master keys kept at once: one seals, the others wait until nothing is sealed under them.
    pub const MASTER_KEYS_MAX: usize = 8;
    /// Credentials that a rotation of the master key seals anew in one transaction.
    pub const RESEAL_BATCH_MAX: usize = 64;
    /// How long a rotation that the store refused waits before it goes on.
    pub const RESEAL_RETRY: Duration = Duration::from_secs(2);
}
