//! What is installed, on the disk: `<data>/packages/<mcp>/<generation>/` and beside it `current.json`, which
//! says what that is. Each install is a generation of its own, complete when it has its name; the record is written
//! last.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::hex;
pub(super) use super::remove::remove;
use super::seal::{self, Sealed};
use crate::domain::account::Millis;
use crate::domain::ids::McpId;
use crate::domain::package::{Done, Manager, VENV};

/// Bytes of a record.
const RECORD_BYTES_MAX: u64 = 64 << 10;
/// Bytes of a lock file.
const LOCK_BYTES_MAX: u64 = 64 << 20;
/// Bytes of a first line.
const FIRST_LINE_BYTES_MAX: u64 = 256;
const CURRENT: &str = "current.json";
/// A tree that is not there yet.
const FRESH: &str = "fresh";
/// What runs commands of packages, besides the Python of an environment.
const INTERPRETERS: [&str; 4] = ["node", "sh", "bash", "dash"];
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
    /// The lock file it was to be installed by, if it was.
    pub(super) lock_sha256: Option<String>,
    pub(super) installed_at: Millis,
    /// Since when it is made.
    pub(super) since: Instant,
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

/// Takes a tree over and makes it what is installed. `stop` is asked on the way whether to go on, `used` for the
/// trees that somebody runs. Blocks.
///
/// # Errors
/// The disk, a stop, or a tree that is none, in words; then nothing of it stays.
pub(super) fn put(
    root: &Path,
    mcp: &McpId,
    from: &Path,
    delivery: Delivery,
    stop: &dyn Fn() -> Option<String>,
    used: &dyn Fn() -> Vec<PathBuf>,
) -> io::Result<Record> {
    let place = place(root, mcp);
    for dir in [root, place.as_path()] {
        made(dir)?;
    }
    let fresh = place.join(FRESH);
    remove(&fresh)?;
    let put = taken(&place, from, &fresh, delivery, stop);
    match &put {
        Ok(record) => tidy(&place, &record.generation, &used()),
        Err(_) => {
            if let Err(error) = remove(&fresh) {
                tracing::warn!("{} stays: {error}", fresh.display());
            }
        }
    }
    put
}

fn taken(
    place: &Path,
    from: &Path,
    fresh: &Path,
    delivery: Delivery,
    stop: &dyn Fn() -> Option<String>,
) -> io::Result<Record> {
    let sealed = seal::copy(from, fresh, stop)?;
    let lock = lock_digest(fresh, &delivery.done.lock)?;
    if delivery
        .lock_sha256
        .as_ref()
        .is_some_and(|wanted| *wanted != lock)
    {
        let what = "it is not what its lock file says";
        return Err(io::Error::other(what));
    }
    let runner = runner(fresh, &delivery)?;
    let Sealed {
        digest,
        bytes,
        entries,
    } = sealed;
    let record = Record {
        key: delivery.key,
        generation: format!("{digest}-{}", delivery.installed_at),
        manager: delivery.manager,
        done: delivery.done,
        runner,
        lock_sha256: lock,
        tree_sha256: digest,
        bytes,
        entries,
        scripts: delivery.scripts,
        installed_at: delivery.installed_at,
        took_ms: millis(delivery.since.elapsed()),
    };
    // All of it is on the disk before it has its name.
    rustix::fs::syncfs(File::open(fresh)?)?;
    fs::rename(fresh, place.join(&record.generation))?;
    write(place, &record)?;
    Ok(record)
}

/// A directory of ours that everybody passes and nobody lists.
fn made(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o711).create(dir)?;
    sandbox::homes::no_link(dir)?;
    fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))
}

/// Removes what a life of the gateway that was cut off has left half made. Blocks.
pub(super) fn sweep(root: &Path) {
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let fresh = entry.path().join(FRESH);
        if let Err(error) = remove(&fresh) {
            tracing::warn!("{} stays: {error}", fresh.display());
        }
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

/// Removes older generations that nobody runs; what cannot be removed is tried again the next time.
fn tidy(place: &Path, current: &str, used: &[PathBuf]) {
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
    let unused = old.iter().rev().skip(GENERATIONS_KEPT - 1);
    for (_, path) in unused.filter(|(_, path)| !used.contains(path)) {
        if let Err(error) = remove(path) {
            tracing::warn!("{} stays: {error}", path.display());
        }
    }
}

/// A file in a tree, wherever links in it lead, if that is in the tree.
fn inside(tree: &Path, name: &str) -> io::Result<PathBuf> {
    let not = |error: io::Error| io::Error::other(format!("`{name}` is no file in it: {error}"));
    let top = tree.canonicalize()?;
    let path = tree.join(name).canonicalize().map_err(not)?;
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
    let line = first
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!").unwrap_or_default());
    let mut words = line.split_ascii_whitespace();
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let mut name = words.next().map(base);
    if name.as_deref() == Some("env") {
        // Its options and variables are not the interpreter's.
        let mut rest = words
            .by_ref()
            .skip_while(|word| word.starts_with('-') || word.contains('='));
        name = rest.next().map(base);
    }
    if let Some(python) = delivery.python.clone() {
        // uv's scripts begin as the shell's, and have themselves run by the Python beside them.
        let is_shell_first = memchr::memmem::find(&first, b"exec' \"$(dirname").is_some();
        let is_python = name.as_ref().is_none_or(|name| name.starts_with("python"));
        if is_shell_first || is_python {
            own_python(tree, &python)?;
            return Ok(Runner::Environment { python });
        }
    }
    match name {
        // Any other program of the host's would come with all that is installed beside it.
        Some(name) if !name.is_empty() && !INTERPRETERS.contains(&name.as_str()) => {
            Err(io::Error::other(format!(
                "its command is run by `{name}`; packages are run by {}",
                INTERPRETERS.join(", ")
            )))
        }
        Some(name) if !name.is_empty() => Ok(Runner::Interpreter {
            name,
            // Options; never a path, which could be of the host's.
            args: words
                .filter(|word| word.starts_with('-') && !word.contains('/'))
                .map(ToOwned::to_owned)
                .collect(),
        }),
        // As npm has it on systems without first lines.
        _ => Ok(Runner::Interpreter {
            name: "node".to_owned(),
            args: Vec::new(),
        }),
    }
}

/// The Python of an environment is the host's that it was made for, whatever was installed into it.
fn own_python(tree: &Path, python: &Path) -> io::Result<()> {
    let found = tree.join(VENV).join("bin/python").canonicalize()?;
    if found == python.canonicalize()? {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{VENV}/bin/python is not the Python it was made for, but {}",
        found.display()
    )))
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::domain::ids::ID_BYTES;

    struct Place {
        dir: tempfile::TempDir,
        mcp: McpId,
        used: Vec<PathBuf>,
        at: std::cell::Cell<i64>,
    }

    impl Place {
        fn new() -> Self {
            let place = Self {
                dir: tempfile::tempdir().unwrap(),
                mcp: McpId::from_random([1; ID_BYTES]),
                used: Vec::new(),
                at: std::cell::Cell::new(0),
            };
            fs::create_dir(place.from()).unwrap();
            place.file("lock", "a");
            place.file("run.js", "#!/usr/bin/env -S node --no-warnings\n");
            place
        }

        fn from(&self) -> PathBuf {
            self.dir.path().join("from")
        }

        fn root(&self) -> PathBuf {
            self.dir.path().join("packages")
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
                lock_sha256: None,
                installed_at: self.at.replace(self.at.get() + 1),
                since: Instant::now(),
            };
            let (root, none) = (self.root(), || None);
            put(&root, &self.mcp, &self.from(), delivery, &none, &|| {
                self.used.clone()
            })
        }

        fn generations(&self) -> usize {
            let entries = fs::read_dir(self.root().join(self.mcp.as_str())).unwrap();
            entries
                .filter(|entry| entry.as_ref().unwrap().path().is_dir())
                .count()
        }
    }

    #[test]
    fn what_was_put_there_is_found_again() {
        let place = Place::new();
        assert_eq!(load(&place.root(), &place.mcp).unwrap(), None);
        let record = place.put("run.js").unwrap();
        assert_eq!(
            load(&place.root(), &place.mcp).unwrap(),
            Some(record.clone())
        );
        let expected = Runner::Interpreter {
            name: "node".to_owned(),
            args: vec!["--no-warnings".to_owned()],
        };
        assert_eq!(record.runner, expected);
        assert_eq!(record.lock_sha256, hex(&Sha256::digest(b"a")));
        fs::remove_dir_all(tree(&place.root(), &place.mcp, &record)).unwrap();
        assert_eq!(load(&place.root(), &place.mcp).unwrap(), None);
        fs::write(place.root().join(place.mcp.as_str()).join(CURRENT), "{").unwrap();
        assert!(load(&place.root(), &place.mcp).is_err());
    }

    #[test]
    fn the_generation_before_stays_and_older_ones_go_that_nobody_runs() {
        let mut place = Place::new();
        for text in ["1", "2", "3", "4"] {
            place.file("lock", text);
            place.put("run.js").unwrap();
        }
        assert_eq!(place.generations(), 2);
        // One that runs stays as long as it does.
        let record = place.put("run.js").unwrap();
        place.used.push(tree(&place.root(), &place.mcp, &record));
        for _ in 0..4 {
            place.put("run.js").unwrap();
        }
        assert_eq!(place.generations(), 3);
        assert!(place.used[0].exists());
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
        place.file("run.js", "#!/elsewhere/secret/sh\n");
        let Runner::Interpreter { name, .. } = place.put("run.js").unwrap().runner else {
            panic!("no interpreter");
        };
        assert_eq!(name, "sh", "its place is not the package's to say");
        for (line, expected) in [
            (
                "#!/usr/bin/env -S bash --rcfile /elsewhere/x -e",
                "bash --rcfile -e",
            ),
            ("#!/usr/bin/env -i A=b node --title=a/b", "node"),
            ("#!/bin/sh -e", "sh -e"),
            ("no first line", "node"),
        ] {
            place.file("run.js", line);
            let Runner::Interpreter { name, args } = place.put("run.js").unwrap().runner else {
                panic!("no interpreter");
            };
            let words: Vec<String> = std::iter::once(name).chain(args).collect();
            assert_eq!(words.join(" "), expected, "{line}");
        }
    }

    #[test]
    fn a_package_chooses_no_program_of_the_host_beyond_a_few() {
        let place = Place::new();
        place.file("run.js", "#!/usr/bin/env python3\n");
        let text = place.put("run.js").unwrap_err().to_string();
        assert!(text.contains("run by `python3`"), "{text}");
    }

    #[test]
    fn a_stop_on_the_way_leaves_nothing() {
        let place = Place::new();
        let done = Done {
            entry: "run.js".to_owned(),
            lock: "lock".to_owned(),
            name: String::new(),
            version: String::new(),
            integrity: String::new(),
            packages: 1,
        };
        let delivery = Delivery {
            key: String::new(),
            manager: Manager::Npm,
            done,
            python: None,
            scripts: false,
            lock_sha256: None,
            installed_at: 1,
            since: Instant::now(),
        };
        let (root, stop) = (place.root(), || Some("enough".to_owned()));
        let put = put(&root, &place.mcp, &place.from(), delivery, &stop, &Vec::new);
        assert!(put.unwrap_err().to_string().contains("enough"));
        assert_eq!(place.generations(), 0);
    }
}
