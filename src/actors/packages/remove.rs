//! Removing a tree that others made, however deep it is.
//!
//! Not by recursion: its depth is theirs to choose, and each level would cost a stack frame and a descriptor.
//! Directories are moved up to the top, one level after the other, until there are none.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// What a directory is called while it waits for its turn at the top.
const WAITING: &str = ".legation-removed-";

/// Removes what is at `path`, if anything is; no link is followed. Nobody else may write there any more.
/// Blocks.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(meta) if !meta.is_dir() => return fs::remove_file(path),
        Ok(_) => open(path),
    }
    let mut number = 0;
    loop {
        let mut flat = true;
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                flat = false;
                lift(&entry.path(), path, &mut number)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        if flat {
            return fs::remove_dir(path);
        }
    }
}

/// Removes a directory at the top; directories in it come to the top in its stead.
fn lift(dir: &Path, top: &Path, number: &mut u64) -> io::Result<()> {
    open(dir);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            continue;
        }
        open(&entry.path());
        loop {
            *number += 1;
            let to = top.join(format!("{WAITING}{number}"));
            if to.symlink_metadata().is_err() {
                fs::rename(entry.path(), to)?;
                break;
            }
        }
    }
    fs::remove_dir(dir)
}

/// Who is not root must be allowed to look into what it removes.
fn open(dir: &Path) {
    // Where that fails, so will what follows, and says so.
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags, mkdirat, open as open_dir, openat};

    use super::*;

    #[test]
    fn links_are_removed_and_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let (other, tree) = (place.path().join("other"), place.path().join("tree"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        for dir in ["", "a", "a/b/c"] {
            symlink(&other, tree.join(dir).join("link")).unwrap();
            fs::write(tree.join(dir).join("file"), "").unwrap();
        }
        fs::create_dir(tree.join(format!("{WAITING}1"))).unwrap();
        fs::set_permissions(tree.join("a/b"), Permissions::from_mode(0o0)).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists());
        assert!(other.join("kept").exists());
        remove(&tree).unwrap();
        symlink(&other, &tree).unwrap();
        remove(&tree).unwrap();
        assert!(other.join("kept").exists());
    }

    /// A package nested directories until the gateway's stack was used up, and it aborted.
    #[test]
    fn a_tree_of_any_depth_goes_on_a_small_stack() {
        let place = tempfile::tempdir().unwrap();
        let tree = place.path().join("tree");
        fs::create_dir(&tree).unwrap();
        // Deeper than any path may be long: made from within.
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = open_dir(&tree, flags, Mode::empty()).unwrap();
        for _ in 0..20_000 {
            mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = openat(&at, "d", flags, Mode::empty()).unwrap();
        }
        drop(at);
        let removed = std::thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || remove(&tree).map(|()| tree.exists()));
        assert!(!removed.unwrap().join().unwrap().unwrap());
    }
}
