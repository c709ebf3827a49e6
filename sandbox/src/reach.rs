//! What of the host's files a program needs to see, found from its path: where it is installed, the
//! interpreters its first lines name, the script an interpreter is given. All of it is shown
//! read-only. What a program reads besides must be declared.
//!
//! Reads a few files; not for a runtime's worker.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Program;
use crate::plan::view::{Needs, PROGRAMS};

/// Interpreters of interpreters that are followed.
const STEPS_MAX: usize = 8;
/// Entries of a project's directory that are looked through for what is private.
const ENTRIES_MAX: usize = 10_000;
/// What is hidden of all projects of one view.
const COVERED_MAX: usize = 64;
/// Links that are followed in one path; the kernel's own bound.
const LINKS_MAX: usize = 40;
/// Bytes of a first line; the kernel reads no more.
const SHEBANG_BYTES: usize = 256;
/// What a directory holds that is the top of a project.
const PROJECT: [&str; 4] = ["package.json", "pyproject.toml", "pyvenv.cfg", "deno.json"];
/// Programs whose first argument is a program.
const INTERPRETERS: [&str; 9] = [
    "node", "python", "deno", "bun", "ruby", "perl", "sh", "bash", "php",
];

/// What a definition declares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Declared {
    /// Shown read-only, with where each led when it was checked.
    pub read: BTreeMap<PathBuf, PathBuf>,
    /// Shown as they are; the isolate's uid decides what it may write.
    pub write: Vec<PathBuf>,
    /// Where everybody's homes are; the run's own alone, if that is not said.
    pub homes: Option<PathBuf>,
    /// Where installed packages are: others wrote them, so nothing is found by way of what is there either.
    pub packages: Option<PathBuf>,
    /// Programs that it runs besides: shown as the first one is.
    pub programs: Vec<PathBuf>,
    /// Whether its arguments are others' words, a package's: then no script is looked for among them.
    pub installed: bool,
}

/// What the view of a run must hold.
///
/// Nothing is found by way of a place that isolates can write to (any home, and what is declared for
/// writing) or once could (a package): a link or a first line put there would name files of the host,
/// and the gateway may read them all. What is there is seen by its own mount.
#[must_use]
pub fn needs(program: &Program, home: &Path, declared: &Declared) -> Needs {
    let mut written = vec![declared.homes.as_deref().unwrap_or(home)];
    written.extend(declared.write.iter().map(PathBuf::as_path));
    written.extend(declared.packages.as_deref());
    let mut read = BTreeSet::new();
    let mut covered = BTreeSet::new();
    let mut ends = BTreeMap::new();
    let mut todo = declared.programs.clone();
    todo.push(program.path.clone());
    if is_interpreter(&program.path) && !declared.installed {
        let script = program
            .args
            .iter()
            .find(|argument| !argument.starts_with('-'));
        todo.extend(script.map(PathBuf::from).filter(|path| path.is_absolute()));
    }
    let search = program.env.get("PATH").map_or("", |path| path.as_str());
    for _ in 0..STEPS_MAX + declared.programs.len() {
        let Some(path) = todo.pop() else { break };
        let Some(way) = Way::to(&path, &written) else {
            continue;
        };
        let is_file = |meta: std::fs::Metadata| meta.is_file();
        if !way.end.symlink_metadata().is_ok_and(is_file) {
            continue;
        }
        // A program may be executable and not readable.
        let next = open(&way.end).map(|file| interpreters(file, search));
        todo.extend(next.unwrap_or_default());
        if !is_shown(&way.end) {
            let root = root_of(&way.end, home);
            covered.extend(private_of(&way.end, &root));
            // Without links, when it was followed: so it must be when it is mounted.
            ends.insert(root.clone(), root.clone());
            read.insert(root);
        }
        for link in way.links {
            if !is_shown(&link) {
                let root = root_of(&link, home);
                covered.extend(private_of(&link, &root));
                if let Ok(end) = root.canonicalize() {
                    ends.entry(root.clone()).or_insert(end);
                }
                read.insert(root);
            }
        }
    }
    // What is declared is shown as it is, and so is what the program itself needs: a virtualenv may be called `.env`.
    let shown = || {
        let declared = declared.read.keys().chain(&declared.write);
        declared.map(PathBuf::as_path).chain([home])
    };
    covered.retain(|path| {
        let needed = read.iter().any(|root| root.starts_with(path));
        !needed && !shown().any(|shown| path.starts_with(shown))
    });
    // A file of a private directory tells nothing of its neighbours.
    let (hollow, covered): (BTreeSet<_>, _) = covered
        .into_iter()
        .partition(|path: &PathBuf| shown().any(|shown| shown.starts_with(path)));
    read.extend(declared.read.keys().cloned());
    ends.extend(declared.read.clone());
    let mut needed: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
    needed.extend(declared.write.iter().map(PathBuf::as_path));
    needed.push(home);
    let closed: BTreeSet<PathBuf> = needed.into_iter().filter_map(closed_above).collect();
    Needs {
        read: read.into_iter().collect(),
        write: declared.write.clone(),
        covered: shortest_first(covered),
        hollow: hollow.into_iter().collect(),
        ends,
        closed: closed.into_iter().collect(),
    }
}

/// Of more than can be hidden, those with the shortest names: `.git` and `.env` before the hundredth `.env.backup-…`.
fn shortest_first(covered: BTreeSet<PathBuf>) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = covered.into_iter().collect();
    if all.len() > COVERED_MAX {
        all.sort_by_key(|path| path.file_name().map_or(0, |name| name.len()));
        all.truncate(COVERED_MAX);
        all.sort();
    }
    all
}

/// A path, followed link by link.
struct Way {
    /// The path and the links it led to, if it is one.
    links: Vec<PathBuf>,
    /// What is at its end.
    end: PathBuf,
}

impl Way {
    /// Follows an absolute path; `None` if it leads nowhere, or at any step to one of `written`.
    fn to(path: &Path, written: &[&Path]) -> Option<Self> {
        let mut links = Vec::new();
        let mut followed = 0;
        let mut at = PathBuf::from("/");
        let mut rest = parts(path);
        while let Some(part) = rest.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(part);
            if written.iter().any(|dir| next.starts_with(dir)) {
                return None;
            }
            match next.read_link() {
                Ok(to) => {
                    followed += 1;
                    if followed > LINKS_MAX {
                        return None;
                    }
                    if rest.is_empty() {
                        // By the name the program is called by, if it is the first.
                        links.push(if links.is_empty() {
                            path.to_owned()
                        } else {
                            next
                        });
                    }
                    if to.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    rest.extend(parts(&to));
                }
                // It is there, and no link.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => at = next,
                Err(_) => return None,
            }
        }
        Some(Self { links, end: at })
    }
}

/// Why nobody can say where a path leads.
#[derive(Debug)]
pub enum Astray {
    /// This link on the way is neither root's nor ours: who writes there may put one to anything.
    Foreign(PathBuf),
    /// Something on the way cannot be opened.
    Unopened(io::Error),
}

/// Where a path leads by links that root or we made. Owner and end of each link are of one look: in two,
/// another could lie there.
///
/// # Errors
/// [`Astray`].
pub fn trusted_end(path: &Path) -> Result<PathBuf, Astray> {
    let own = nix::unistd::geteuid().as_raw();
    let mut followed = 0;
    let mut at = PathBuf::from("/");
    let mut rest = parts(path);
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        let next = at.join(part);
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
        let opened = options.open(&next).map_err(Astray::Unopened)?;
        let meta = opened.metadata().map_err(Astray::Unopened)?;
        if !meta.is_symlink() {
            at = next;
            continue;
        }
        followed += 1;
        if followed > LINKS_MAX || (meta.uid() != 0 && meta.uid() != own) {
            return Err(Astray::Foreign(next));
        }
        let to = nix::fcntl::readlinkat(&opened, c"").map_err(|e| Astray::Unopened(e.into()))?;
        let to = PathBuf::from(to);
        if to.is_absolute() {
            at = PathBuf::from("/");
        }
        rest.extend(parts(&to));
    }
    Ok(at)
}

/// The names in a path, the last first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part: Component<'_>| match part {
        Component::ParentDir => Some("..".into()),
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    };
    path.components().rev().filter_map(named).collect()
}

/// Opens a file for its first line; a pipe in its place would wait for whoever writes it.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    options.read(true).custom_flags(flags).open(path)
}

fn is_shown(path: &Path) -> bool {
    PROGRAMS.iter().any(|shown| path.starts_with(shown))
}

fn is_interpreter(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&plain)
}

/// What a script's first line names: an interpreter, and the program `env` is to look up.
fn interpreters(mut file: File, search: &str) -> Vec<PathBuf> {
    let mut first = [0; SHEBANG_BYTES];
    let length = file.read(&mut first).unwrap_or(0);
    let first = first.get(..length).unwrap_or_default();
    let line = first.split(|byte| *byte == b'\n').next();
    let Some(line) = line.and_then(|line| line.strip_prefix(b"#!")) else {
        return Vec::new();
    };
    let line = String::from_utf8_lossy(line);
    let mut words = line.split_ascii_whitespace();
    let Some(program) = words.next().map(PathBuf::from) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if program.file_name().is_some_and(|name| name == "env")
        && let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('='))
    {
        let dirs = search.split(':').filter(|dir| dir.starts_with('/'));
        found.extend(
            dirs.map(|dir| Path::new(dir).join(name))
                .find(|file| file.is_file()),
        );
    }
    found.push(program);
    found.retain(|path| path.is_absolute());
    found
}

/// The directory a file is installed in, with what it needs beside it; the file alone where that
/// cannot be told, or would be somebody's home or more.
fn root_of(file: &Path, home: &Path) -> PathBuf {
    let fits = |dir: &Path| !is_wide(dir) && !home.starts_with(dir);
    let parents: Vec<&Path> = file.ancestors().skip(1).collect();
    // The outermost `node_modules`: packages look for each other in all above them.
    let modules = parents
        .iter()
        .rev()
        .find(|dir| dir.ends_with("node_modules"));
    if let Some(dir) = modules {
        return (*dir).to_owned();
    }
    if let [bin, prefix, ..] = parents.as_slice()
        && bin.ends_with("bin")
        && fits(prefix)
        && (prefix.join("lib").is_dir() || prefix.join("pyvenv.cfg").is_file())
    {
        return (*prefix).to_owned();
    }
    let is_top = |dir: &&&Path| PROJECT.iter().any(|name| dir.join(name).is_file());
    match parents.iter().take_while(|dir| !is_wide(dir)).find(is_top) {
        Some(dir) if fits(dir) => (*dir).to_owned(),
        _ => file.to_owned(),
    }
}

/// What a project holds that its program has no business with: its history, and what its developers and their tools
/// are let in with. In the directories from the program up to the project's top.
fn private_of(file: &Path, root: &Path) -> Vec<PathBuf> {
    let within = file.ancestors().skip(1);
    let dirs = within.take_while(|dir| dir.starts_with(root));
    let named = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let private = entries
            .take(ENTRIES_MAX)
            .filter(|entry| is_private(entry.file_name().as_encoded_bytes()));
        private.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    dirs.flat_map(named).flat_map(ends_within(root)).collect()
}

/// A path, and where it leads if it is a link within the project.
fn ends_within(root: &Path) -> impl Fn(PathBuf) -> Vec<PathBuf> {
    let root = root.to_owned();
    move |path| match path.canonicalize() {
        Ok(end) if end != path && end.starts_with(&root) => vec![end],
        _ => vec![path],
    }
}

fn is_private(name: &[u8]) -> bool {
    const NAMES: [&str; 9] = [
        ".git", ".hg", ".svn", ".env", ".envrc", ".npmrc", ".pypirc", ".netrc", ".ssh",
    ];
    NAMES.iter().any(|private| name == private.as_bytes()) || name.starts_with(b".env.")
}

/// Whether a directory is no program's: a top one, or a home.
fn is_wide(dir: &Path) -> bool {
    let depth = dir.components().count();
    depth <= 2 || (depth == 3 && (dir.starts_with("/home") || dir.starts_with("/var")))
}

/// The topmost directory above `path` that others may not pass.
fn closed_above(path: &Path) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let closed = above.into_iter().find(|dir| {
        dir.metadata()
            .is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0)
    });
    closed
        .filter(|dir| *dir != Path::new("/"))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new(files: &[(&str, &str)]) -> Self {
            let tree = Self(tempfile::tempdir().unwrap());
            for (name, text) in files {
                let path = tree.at(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            tree
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().canonicalize().unwrap().join(name)
        }

        fn reads(&self, program: &Path, args: &[&Path]) -> Vec<PathBuf> {
            let program = Program {
                path: program.to_owned(),
                args: args.iter().map(|arg| arg.display().to_string()).collect(),
                env: BTreeMap::from([(
                    "PATH".to_owned(),
                    self.at("node/bin").display().to_string().into(),
                )]),
            };
            let declared = Declared {
                homes: Some(self.at("data/homes")),
                ..Declared::default()
            };
            needs(&program, &self.at("data/homes/ada/m"), &declared).read
        }
    }

    #[test]
    fn what_everybody_sees_needs_nothing() {
        let tree = Tree::new(&[]);
        assert!(tree.reads(Path::new("/bin/sh"), &[]).is_empty());
    }

    #[test]
    fn a_plain_binary_is_itself() {
        let tree = Tree::new(&[("target/debug/server", "\x7fELF"), ("target/debug/key", "")]);
        let server = tree.at("target/debug/server");
        assert_eq!(tree.reads(&server, &[]), [server]);
    }

    #[test]
    fn a_package_of_npm_comes_with_all_beside_it_and_its_node() {
        let tree = Tree::new(&[
            (
                "npm/node_modules/server/dist/index.js",
                "#!/usr/bin/env node\n",
            ),
            ("npm/secret", ""),
            ("node/bin/node", "\x7fELF"),
            ("node/lib/x", ""),
        ]);
        fs::create_dir_all(tree.at("npm/node_modules/.bin")).unwrap();
        let link = tree.at("npm/node_modules/.bin/server");
        symlink("../server/dist/index.js", &link).unwrap();
        let expected = [tree.at("node"), tree.at("npm/node_modules")];
        assert_eq!(tree.reads(&link, &[]), expected);
        let script = tree.at("npm/node_modules/server/dist/index.js");
        assert_eq!(tree.reads(&tree.at("node/bin/node"), &[&script]), expected);
    }

    #[test]
    fn a_venv_comes_whole_with_the_python_it_links_to() {
        let tree = Tree::new(&[
            ("venv/pyvenv.cfg", ""),
            ("python/bin/python3.11", "\x7fELF"),
            ("python/lib/x", ""),
        ]);
        fs::create_dir_all(tree.at("venv/bin")).unwrap();
        symlink(tree.at("python/bin/python3.11"), tree.at("venv/bin/python")).unwrap();
        let line = format!("#!{}\n", tree.at("venv/bin/python").display());
        fs::write(tree.at("venv/bin/server"), line).unwrap();
        let found = tree.reads(&tree.at("venv/bin/server"), &[]);
        assert_eq!(found, [tree.at("python"), tree.at("venv")]);
    }

    /// A server in its home made a link there, and was shown whose name the link had.
    #[test]
    fn nothing_is_found_by_way_of_a_home_or_of_what_is_written() {
        let tree = Tree::new(&[
            ("secret/notes.txt", "#!/bin/sh\n"),
            ("data/homes/bob/m/notes.txt", ""),
            ("data/homes/ada/m/line.js", ""),
            ("srv/x", ""),
        ]);
        let secret = tree.at("secret/notes.txt");
        let home = tree.at("data/homes/ada/m");
        symlink(&secret, home.join("link.js")).unwrap();
        symlink(tree.at("secret"), home.join("dir")).unwrap();
        symlink(home.join("link.js"), tree.at("srv/outside.js")).unwrap();
        symlink(&home, tree.at("srv/home")).unwrap();
        let line = format!("#!{}\n", secret.display());
        fs::write(home.join("line.js"), line).unwrap();
        let node = Path::new("/usr/bin/node");
        for script in [
            "data/homes/ada/m/link.js",
            "data/homes/ada/m/line.js",
            "data/homes/ada/m/dir/notes.txt",
            "data/homes/bob/m/notes.txt",
            "srv/outside.js",
            "srv/home/link.js",
            "srv/../data/homes/ada/m/link.js",
        ] {
            let script = tree.at(script);
            assert!(tree.reads(node, &[&script]).is_empty(), "{script:?}");
            assert!(tree.reads(&script, &[]).is_empty(), "{script:?}");
        }
        let declared = Declared {
            read: BTreeMap::new(),
            write: vec![tree.at("srv")],
            homes: None,
            ..Declared::default()
        };
        let program = Program {
            path: tree.at("srv/x"),
            args: Vec::new(),
            env: BTreeMap::new(),
        };
        assert!(needs(&program, &home, &declared).read.is_empty());
        // The same files without that way are found.
        assert_eq!(tree.reads(node, &[&secret]), [secret]);
    }

    #[test]
    fn a_package_is_seen_and_its_links_and_first_lines_are_not_followed() {
        let tree = Tree::new(&[
            ("secret/notes.txt", ""),
            ("node/bin/node", "\x7fELF"),
            ("node/lib/x", ""),
            ("data/packages/m/1/run.js", ""),
        ]);
        let package = tree.at("data/packages/m/1");
        let line = format!("#!{}\n", tree.at("secret/notes.txt").display());
        fs::write(package.join("run.js"), line).unwrap();
        symlink(tree.at("secret/notes.txt"), package.join("link.js")).unwrap();
        let declared = Declared {
            read: BTreeMap::from([(package.clone(), package.clone())]),
            homes: Some(tree.at("data/homes")),
            packages: Some(tree.at("data/packages")),
            programs: vec![tree.at("node/bin/node")],
            installed: true,
            ..Declared::default()
        };
        // A package's first line may give its interpreter any word.
        let words = [
            "--rcfile".to_owned(),
            tree.at("secret/notes.txt").display().to_string(),
        ];
        let program = Program {
            path: tree.at("node/bin/node"),
            args: words.to_vec(),
            env: BTreeMap::new(),
        };
        let found = needs(&program, &tree.at("data/homes/ada/m"), &declared).read;
        assert_eq!(found, [package.clone(), tree.at("node")], "an argument");
        for script in ["run.js", "link.js"] {
            let program = Program {
                path: package.join(script),
                args: Vec::new(),
                env: BTreeMap::new(),
            };
            let found = needs(&program, &tree.at("data/homes/ada/m"), &declared).read;
            assert_eq!(found, [package.clone(), tree.at("node")], "{script}");
        }
    }

    /// The first line of a pipe would be waited for without end.
    #[test]
    fn what_is_no_file_is_not_opened_for_its_first_line() {
        let tree = Tree::new(&[("app/x", "")]);
        let pipe = tree.at("app/pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(tree.at("app/x"), format!("#!{}\n", pipe.display())).unwrap();
        assert_eq!(tree.reads(&tree.at("app/x"), &[]), [tree.at("app/x")]);
    }

    #[test]
    fn a_script_brings_its_project_but_never_the_data_directory() {
        let tree = Tree::new(&[("app/package.json", ""), ("app/dist/main.js", "")]);
        let node = Path::new("/usr/bin/node");
        let script = tree.at("app/dist/main.js");
        assert_eq!(tree.reads(node, &[&script]), [tree.at("app")]);
        let home = tree.at("app/data/home");
        assert_eq!(root_of(&script, &home), script);
    }

    #[test]
    fn a_project_comes_without_its_history_and_secrets_unless_they_are_declared() {
        let tree = Tree::new(&[
            ("app/package.json", ""),
            ("app/dist/main.js", ""),
            ("app/dist/.env", ""),
            ("app/.env.production", ""),
            ("app/.environment", ""),
            ("app/.git/config", ""),
            ("app/conf/real.env", ""),
            ("app/other/.env", ""),
        ]);
        symlink("conf/real.env", tree.at("app/.env")).unwrap();
        let script = tree.at("app/dist/main.js");
        let program = Program {
            path: "/usr/bin/node".into(),
            args: vec![script.display().to_string()],
            env: BTreeMap::new(),
        };
        let covered =
            |declared: &Declared| needs(&program, &tree.at("data/homes/ada/m"), declared).covered;
        let expected = [".env.production", ".git", "conf/real.env", "dist/.env"]
            .map(|name| tree.at("app").join(name));
        assert_eq!(covered(&Declared::default()), expected);
        let mut declared = Declared::default();
        let env = tree.at("app/dist/.env");
        declared.read.insert(env.clone(), env);
        assert_eq!(covered(&declared), expected[..3]);
        let one = tree.at("app/.git/config");
        declared.read.insert(one.clone(), one.clone());
        let needs = needs(&program, &tree.at("data/homes/ada/m"), &declared);
        assert_eq!(needs.hollow, [tree.at("app/.git")]);
        assert!(needs.read.contains(&one) && !needs.covered.contains(&tree.at("app/.git")));
        let app = tree.at("app");
        declared.read.insert(app.clone(), app);
        assert!(covered(&declared).is_empty());
    }

    #[test]
    fn closed_directories_are_found_from_the_top() {
        let tree = Tree::new(&[("a/b/c/file", "")]);
        let mode = |name: &str, mode| {
            fs::set_permissions(tree.at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        mode("", 0o755);
        assert_eq!(closed_above(&tree.at("a/b/c/file")), None);
        mode("a/b", 0o700);
        mode("a/b/c", 0o750);
        assert_eq!(closed_above(&tree.at("a/b/c/file")), Some(tree.at("a/b")));
    }

    #[test]
    fn homes_and_top_directories_are_too_wide() {
        for dir in ["/", "/srv", "/root", "/home/ada", "/var/lib"] {
            assert!(is_wide(Path::new(dir)), "{dir}");
        }
        assert!(!is_wide(Path::new("/srv/app")));
    }
}
