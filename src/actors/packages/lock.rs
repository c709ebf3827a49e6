//! What was resolved for an mcp, kept apart from what was installed: `<data>/package-locks/<mcp>.json`. A tree that
//! is lost is installed again as it was, the same versions with the same content, not the newest ones.
//!
//! It is what the installer wrote, taken from the tree when that was taken over: a text for a package manager in an
//! isolate, nothing the gateway acts on.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::shelf::{self, Record};
use crate::domain::ids::McpId;
use crate::domain::limits::PACKAGE_LOCK_BYTES_MAX;
use crate::domain::package::Manager;

/// Room for what stands around the texts, and for what has to be escaped in them.
const KEPT_BYTES_MAX: u64 = 2 * PACKAGE_LOCK_BYTES_MAX + (64 << 10);

/// The files of one install that say what was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Of the definition's install.
    pub(super) key: String,
    /// SHA-256 of the lock file among them.
    pub(super) lock_sha256: String,
    /// Their texts, by their names in the tree.
    pub(super) files: BTreeMap<String, String>,
}

/// The directory, beside the packages.
fn place(root: &Path) -> PathBuf {
    root.with_file_name("package-locks")
}

fn path(root: &Path, mcp: &McpId) -> PathBuf {
    place(root).join(format!("{}.json", mcp.as_str()))
}

/// Keeps what was resolved for a tree, unless it is kept already. Blocks.
///
/// # Errors
/// The disk, or files that are too large; then what was kept before is gone too, since it is another install's.
pub(super) fn keep(root: &Path, mcp: &McpId, record: &Record) -> io::Result<()> {
    let before = find(root, mcp, &record.key);
    if before.is_ok_and(|kept| kept.is_some_and(|kept| kept.lock_sha256 == record.lock_sha256)) {
        return Ok(());
    }
    forget(root, mcp)?;
    let tree = shelf::tree(root, mcp, record);
    let mut files = BTreeMap::new();
    for name in names(record.manager) {
        files.insert((*name).to_owned(), text(&tree.join(name))?);
    }
    let kept = Kept {
        key: record.key.clone(),
        lock_sha256: record.lock_sha256.clone(),
        files,
    };
    let dir = place(root);
    DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    sandbox::homes::no_link(&dir)?;
    let path = path(root, mcp);
    let half = path.with_extension("new");
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&half)?;
    file.write_all(&serde_json::to_vec(&kept)?)?;
    file.sync_all()?;
    fs::rename(&half, &path)?;
    File::open(&dir)?.sync_all()
}

/// What was resolved for this install; `None` if it is not kept. Blocks.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn find(root: &Path, mcp: &McpId, key: &str) -> io::Result<Option<Kept>> {
    let path = path(root, mcp);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(KEPT_BYTES_MAX).read_to_end(&mut text)?;
    let kept: Kept = serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    Ok(Some(kept).filter(|kept| kept.key == key))
}

/// Forgets what was resolved for an mcp. Blocks.
pub(super) fn forget(root: &Path, mcp: &McpId) -> io::Result<()> {
    match fs::remove_file(path(root, mcp)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files that say what was resolved.
const fn names(manager: Manager) -> &'static [&'static str] {
    match manager {
        Manager::Npm => &["package.json", "package-lock.json"],
        Manager::Uv => &["requirements.lock"],
    }
}

fn text(path: &Path) -> io::Result<String> {
    // Of our own copy, where links are texts of packages.
    if !path.symlink_metadata()?.is_file() {
        let what = format!("{} is no file", path.display());
        return Err(io::Error::other(what));
    }
    let mut text = String::new();
    let read = File::open(path)?
        .take(PACKAGE_LOCK_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > PACKAGE_LOCK_BYTES_MAX {
        let what = format!(
            "{} has more than {PACKAGE_LOCK_BYTES_MAX} bytes",
            path.display()
        );
        return Err(io::Error::other(what));
    }
    Ok(text)
}
