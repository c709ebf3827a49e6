//! Bounds of packages and their installs.

use std::time::Duration;

limits! {
    /// Installs at once, host-wide.
    pub const INSTALLS_MAX: usize = 2;
    /// How long an install that failed is not tried again by itself; it doubles with each failure.
    pub const INSTALL_RETRY: Duration = Duration::from_secs(5);
    /// The longest such wait.
    pub const INSTALL_RETRY_MAX: Duration = Duration::from_secs(300);
    /// Bytes of memory of an install.
    pub const INSTALL_MEMORY_BYTES: u64 = 2 << 30;
    /// Bytes of all files of what is installed for one mcp.
    pub const PACKAGE_BYTES_MAX: u64 = 4 << 30;
    /// Files, directories and links of what is installed for one mcp.
    pub const PACKAGE_ENTRIES_MAX: u64 = 400_000;
    /// Directories in each other in it.
    pub const PACKAGE_DEPTH_MAX: usize = 128;
    /// Bytes of a lock file that is kept, so that what is lost is installed again as it was.
    pub const PACKAGE_LOCK_BYTES_MAX: u64 = 4 << 20;
    /// Packages that one command line names.
    pub const PACKAGE_SPECS_MAX: usize = 16;
    /// Bytes of the name of a package with its version.
    pub const PACKAGE_SPEC_BYTES_MAX: usize = 256;
}
