//! What of the host's files a program needs to see, found from its path: where it is installed, the
//! interpreters its first lines name, the script an interpreter is given. All of it is shown
//! read-only. What a program reads besides must be declared.
//!
//! Reads a few files; not for a runtime's worker.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plan::Program;
use crate::plan::view::Needs;

/// Interpreters of interpreters, and links to links, that are followed.
const STEPS_MAX: usize = 8;
/// Bytes of a first line; the kernel reads no more.
const SHEBANG_BYTES: usize = 256;
/// What is shown to everybody.
const SHOWN: [&str; 7] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
];
/// What a directory holds that is the top of a project.
const PROJECT: [&str; 4] = ["package.json", "pyproject.toml", "pyvenv.cfg", "deno.json"];
/// Programs whose first argument is a program.
const INTERPRETERS: [&str; 9] = [
    "node", "python", "deno", "bun", "ruby", "perl", "sh", "bash", "php",
];

/// What a definition declares.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Declared {
    /// Shown read-only.
    pub read: Vec<PathBuf>,
    /// Shown as they are; the isolate's uid decides what it may write.
    pub write: Vec<PathBuf>,
}

/// What the view of a run must hold.
#[must_use]
pub fn needs(program: &Program, home: &Path, declared: &Declared) -> Needs {
    let mut read = BTreeSet::new();
    let mut todo = vec![program.path.clone()];
    if is_interpreter(&program.path) {
        let script = program
            .args
            .iter()
            .find(|argument| !argument.starts_with('-'));
        let script = script.map(PathBuf::from).filter(|path| path.is_absolute());
        todo.extend(script.filter(|path| path.is_file()));
    }
    let search = program.env.get("PATH").map_or("", String::as_str);
    for _ in 0..STEPS_MAX {
        let Some(path) = todo.pop() else { break };
        let Ok(end) = path.canonicalize() else {
            continue;
        };
        for step in links(&path).into_iter().chain([end.clone()]) {
            if !is_shown(&step) {
                read.insert(root_of(&step, home));
            }
        }
        todo.extend(interpreters(&end, search));
    }
    read.extend(declared.read.iter().cloned());
    let mut needed: Vec<&Path> = read.iter().map(PathBuf::as_path).collect();
    needed.extend(declared.write.iter().map(PathBuf::as_path));
    needed.push(home);
    let closed: BTreeSet<PathBuf> = needed.into_iter().filter_map(closed_above).collect();
    Needs {
        read: read.into_iter().collect(),
        write: declared.write.clone(),
        closed: closed.into_iter().collect(),
    }
}

fn is_shown(path: &Path) -> bool {
    SHOWN.iter().any(|shown| path.starts_with(shown))
}

fn is_interpreter(path: &Path) -> bool {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    INTERPRETERS.contains(&plain)
}

/// A path and all links on the way to its end, without the end.
fn links(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut at = path.to_owned();
    while let Ok(to) = at.read_link() {
        if found.len() >= STEPS_MAX {
            break;
        }
        let next = at.parent().unwrap_or(Path::new("/")).join(to);
        found.push(at);
        at = plain(&next);
    }
    found
}

/// A path without `.` and `..`, by its text; good enough for a link, which is checked by opening.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// What a script's first line names: an interpreter, and the program `env` is to look up.
fn interpreters(file: &Path, search: &str) -> Vec<PathBuf> {
    let mut first = Vec::new();
    let read = File::open(file).map(|file| {
        let limit = u64::try_from(SHEBANG_BYTES).unwrap_or(u64::MAX);
        file.take(limit).read_to_end(&mut first).ok();
    });
    let line = first
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let Some(line) = read.ok().and_then(|()| line.strip_prefix(b"#!")) else {
        return Vec::new();
    };
    let line = String::from_utf8_lossy(line).into_owned();
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
    match parents.iter().find(is_top) {
        Some(dir) if fits(dir) => (*dir).to_owned(),
        _ => file.to_owned(),
    }
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
    use std::collections::BTreeMap;
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
                    self.at("node/bin").display().to_string(),
                )]),
            };
            needs(&program, &self.at("data/home"), &Declared::default()).read
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
