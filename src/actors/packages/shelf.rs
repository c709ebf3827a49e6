//! What is installed, on the disk: `<data>/packages/<mcp>/<generation>/` and beside it `current.json`, which
//! says what that is. A generation is complete when it has its name; the record is written last.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hex;
use super::seal::{self, Sealed};
use crate::domain::account::Millis;
use crate::domain::ids::McpId;
use crate::domain::package::{Done, Manager};

/// Bytes of a record.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a lock file.
const LOCK_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a first line.
const FIRST_LINE_BYTES_MAX: u64 = 256;
const CURRENT: &str = "current.json";
/// Generations that stay: the newest, and the one that isolates may still run.
const GENERATIONS_KEPT: usize = 2;

/// How what is installed is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::actors) enum Runner {
    /// It is a program by itself.
    Itself,
    /// By an interpreter of the host.
    Interpreter {
        /// Its name.
        name: String,
        /// Its arguments before the script.
        args: Vec<String>,
    },
    /// By the Python of its environment.
    Environment {
        /// The host's Python that this stands on.
        python: PathBuf,
    },
}

/// What is installed for an mcp.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::actors) struct Record {
    /// Of the definition's install.
    pub(super) key: String,
    /// Its directory.
    pub(super) generation: String,
    pub(super) manager: Manager,
    /// What the installer says.
    pub(super) done: Done,
    pub(super) runner: Runner,
    /// SHA-256 of the lock file.
    pub(super) lock_sha256: String,
    /// SHA-256 over the whole tree.
    pub(super) tree_sha256: String,
    pub(super) bytes: u64,
    pub(super) entries: u64,
    /// Whether programs of packages ran.
    pub(super) scripts: bool,
    pub(super) installed_at: Millis,
    pub(super) took_ms: u64,
}

/// What is to be put on the shelf.
pub(super) struct Delivery {
    pub(super) key: String,
    pub(super) manager: Manager,
    pub(super) done: Done,
    /// The host's Python, for uv.
    pub(super) python: Option<PathBuf>,
    pub(super) scripts: bool,
    pub(super) installed_at: Millis,
    pub(super) took_ms: u64,
}

/// The directory of an mcp.
fn place(root: &Path, mcp: &McpId) -> PathBuf {
    root.join(mcp.as_str())
}

/// The tree of a record.
pub(super) fn tree(root: &Path, mcp: &McpId, record: &Record) -> PathBuf {
    place(root, mcp).join(&record.generation)
}

/// What is installed; `None` if nothing is. Blocks.
///
/// # Errors
/// The record cannot be read, or the tree it tells of is gone.
pub(super) fn load(root: &Path, mcp: &McpId) -> io::Result<Option<Record>> {
    let path = place(root, mcp).join(CURRENT);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
    let record: Record = serde_json::from_slice(&text)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    let there = tree(root, mcp, &record).symlink_metadata();
    Ok(there.is_ok_and(|meta| meta.is_dir()).then_some(record))
}

/// Takes a tree over and makes it what is installed. Blocks.
///
/// # Errors
/// The disk, or a tree that is none, in words.
pub(super) fn put(root: &Path, mcp: &McpId, from: &Path, delivery: Delivery) -> io::Result<Record> {
    let place = place(root, mcp);
    for dir in [root, place.as_path()] {
        made(dir)?;
    }
    let fresh = place.join("fresh");
    remove(&fresh)?;
    let sealed = seal::copy(from, &fresh)?;
    let lock = lock_digest(&fresh, &delivery.done.lock)?;
    let runner = runner(&fresh, &delivery)?;
    let Sealed {
        digest,
        bytes,
        entries,
    } = sealed;
    let record = Record {
        key: delivery.key,
        generation: digest.get(..16).unwrap_or_default().to_owned(),
        manager: delivery.manager,
        done: delivery.done,
        runner,
        lock_sha256: lock,
        tree_sha256: digest,
        bytes,
        entries,
        scripts: delivery.scripts,
        installed_at: delivery.installed_at,
        took_ms: delivery.took_ms,
    };
    let to = place.join(&record.generation);
    if to.symlink_metadata().is_ok() {
        // The same, to the last byte: what runs of it goes on.
        remove(&fresh)?;
    } else {
        // All of it is on the disk before it has its name.
        rustix::fs::syncfs(File::open(&fresh)?)?;
        fs::rename(&fresh, &to)?;
    }
    write(&place, &record)?;
    tidy(&place, &record.generation);
    Ok(record)
}

/// A directory of ours that everybody passes and nobody lists.
fn made(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    sandbox::homes::no_link(dir)?;
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))
}

/// Removes a directory, if there is one; no link is followed.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn write(place: &Path, record: &Record) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(record)?;
    let half = place.join("current.json.new");
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&half, place.join(CURRENT))?;
    File::open(place)?.sync_all()
}

/// Removes older generations, the oldest first; what cannot be removed is tried again the next time.
fn tidy(place: &Path, current: &str) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut old: Vec<_> = entries
        .filter(|entry| entry.file_name() != current)
        .filter_map(|entry| {
            let meta = entry.metadata().ok()?;
            meta.is_dir()
                .then_some((meta.modified().ok()?, entry.path()))
        })
        .collect();
    old.sort();
    for (_, path) in old.iter().rev().skip(GENERATIONS_KEPT - 1) {
        if let Err(error) = remove(path) {
            tracing::warn!("{} stays: {error}", path.display());
        }
    }
}

/// A file in a tree, wherever links in it lead, if that is in the tree.
fn inside(tree: &Path, name: &str) -> io::Result<PathBuf> {
    let top = tree.canonicalize()?;
    let path = tree.join(name).canonicalize()?;
    if name.starts_with('/') || !path.starts_with(&top) || !path.is_file() {
        return Err(io::Error::other(format!("`{name}` is no file in it")));
    }
    Ok(path)
}

fn lock_digest(tree: &Path, name: &str) -> io::Result<String> {
    let mut text = Vec::new();
    let file = File::open(inside(tree, name)?)?;
    file.take(LOCK_BYTES_MAX).read_to_end(&mut text)?;
    Ok(hex(&Sha256::digest(&text)))
}

/// How the entry is run: by its first line, of which only the interpreter's name counts.
fn runner(tree: &Path, delivery: &Delivery) -> io::Result<Runner> {
    let mut first = Vec::new();
    let file = File::open(inside(tree, &delivery.done.entry)?)?;
    file.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut first)?;
    if first.starts_with(b"\x7fELF") {
        return Ok(Runner::Itself);
    }
    if let Some(python) = delivery.python.clone() {
        return Ok(Runner::Environment { python });
    }
    let line = first
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!").unwrap_or_default());
    let mut words = line.split_ascii_whitespace().filter(|word| *word != "-S");
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let mut name = words.next().map(base);
    if name.as_deref() == Some("env") {
        name = words.next().map(base);
    }
    match name {
        Some(name) if !name.is_empty() => Ok(Runner::Interpreter {
            name,
            args: words.map(ToOwned::to_owned).collect(),
        }),
        // As npm has it on systems without first lines.
        _ => Ok(Runner::Interpreter {
            name: "node".to_owned(),
            args: Vec::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::domain::ids::ID_BYTES;

    struct Place(tempfile::TempDir, McpId);

    impl Place {
        fn new() -> Self {
            let place = Self(
                tempfile::tempdir().unwrap(),
                McpId::from_random([1; ID_BYTES]),
            );
            fs::create_dir(place.from()).unwrap();
            place.file("lock", "a");
            place.file("run.js", "#!/usr/bin/env -S node --no-warnings\n");
            place
        }

        fn from(&self) -> PathBuf {
            self.0.path().join("from")
        }

        fn root(&self) -> PathBuf {
            self.0.path().join("packages")
        }

        fn file(&self, name: &str, text: &str) {
            fs::write(self.from().join(name), text).unwrap();
        }

        fn put(&self, entry: &str) -> io::Result<Record> {
            let done = Done {
                entry: entry.to_owned(),
                lock: "lock".to_owned(),
                name: "x".to_owned(),
                version: "1".to_owned(),
                integrity: String::new(),
                packages: 1,
            };
            let delivery = Delivery {
                key: "k".to_owned(),
                manager: Manager::Npm,
                done,
                python: None,
                scripts: false,
                installed_at: 5,
                took_ms: 6,
            };
            put(&self.root(), &self.1, &self.from(), delivery)
        }

        fn generations(&self) -> usize {
            let entries = fs::read_dir(self.root().join(self.1.as_str())).unwrap();
            entries
                .filter(|entry| entry.as_ref().unwrap().path().is_dir())
                .count()
        }
    }

    #[test]
    fn what_was_put_there_is_found_again() {
        let place = Place::new();
        assert_eq!(load(&place.root(), &place.1).unwrap(), None);
        let record = place.put("run.js").unwrap();
        assert_eq!(load(&place.root(), &place.1).unwrap(), Some(record.clone()));
        let expected = Runner::Interpreter {
            name: "node".to_owned(),
            args: vec!["--no-warnings".to_owned()],
        };
        assert_eq!(record.runner, expected);
        assert_eq!(record.lock_sha256, hex(&Sha256::digest(b"a")));
        assert_eq!(place.put("run.js").unwrap(), record, "the same is the same");
        assert_eq!(place.generations(), 1);
        fs::remove_dir_all(tree(&place.root(), &place.1, &record)).unwrap();
        assert_eq!(load(&place.root(), &place.1).unwrap(), None);
        fs::write(place.root().join(place.1.as_str()).join(CURRENT), "{").unwrap();
        assert!(load(&place.root(), &place.1).is_err());
    }

    #[test]
    fn the_generation_before_stays_and_older_ones_go() {
        let place = Place::new();
        for text in ["1", "2", "3", "4"] {
            place.file("lock", text);
            place.put("run.js").unwrap();
        }
        assert_eq!(place.generations(), 2);
    }

    /// What an installer claims is no reason to look anywhere else.
    #[test]
    fn an_entry_outside_of_the_tree_is_refused() {
        let place = Place::new();
        symlink("/etc/passwd", place.from().join("link")).unwrap();
        symlink("run.js", place.from().join("fine")).unwrap();
        fs::create_dir(place.from().join("dir")).unwrap();
        for entry in ["link", "/etc/passwd", "../from/run.js", "dir", "gone", ""] {
            assert!(place.put(entry).is_err(), "{entry}");
        }
        assert!(place.put("fine").is_ok());
        place.file("run.js", "#!/root/secret/sh\n");
        let Runner::Interpreter { name, .. } = place.put("run.js").unwrap().runner else {
            panic!("no interpreter");
        };
        assert_eq!(name, "sh", "its place is not the package's to say");
    }
}
