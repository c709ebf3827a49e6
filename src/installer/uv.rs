//! uv: the versions are resolved into a lock file with hashes, then exactly those are installed into an
//! environment that may be moved.

use std::fs;
use std::io::{Write, stderr};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Failure, lay, tool};
use crate::domain::package::{Done, Order, TREE, VENV};

const LOCK: &str = "requirements.lock";

pub(super) fn install(order: &Order) -> Result<Done, Failure> {
    let tree = PathBuf::from(TREE);
    fs::create_dir(&tree).map_err(|error| Failure::io("cannot make the tree", &error))?;
    let python = order.python.as_deref().unwrap_or(Path::new("python3"));
    let (lock, venv) = (tree.join(LOCK), tree.join(VENV));
    let uv = || Command::new(&order.program);
    let mut compile = uv();
    compile
        .args([
            "pip",
            "compile",
            "--generate-hashes",
            "--no-annotate",
            "--no-header",
            "--quiet",
        ])
        .args(wheels(order))
        .arg("--python")
        .arg(python)
        .arg("--output-file")
        .arg(&lock)
        .arg("-");
    if !lay(order, &tree, &[LOCK])? {
        tool::run("uv pip compile", &mut compile, &order.specs.join("\n"))?;
    }
    let mut make = uv();
    make.args(["venv", "--relocatable", "--python"])
        .arg(python)
        .arg(&venv);
    tool::run("uv venv", &mut make, "")?;
    let mut sync = uv();
    sync.args(["pip", "sync", "--require-hashes", "--link-mode=copy"])
        .args(wheels(order))
        .arg("--python")
        .arg(venv.join("bin/python"))
        .arg(&lock);
    tool::run("uv pip sync", &mut sync, "")?;
    // The host's own Python, and without what packages put into an environment's start: none of their code
    // runs here. Later nobody can write beside the sources.
    let mut compile = Command::new(python);
    compile
        .args(["-I", "-S", "-m", "compileall", "-q", "-j", "0"])
        .arg(venv.join("lib"));
    if let Err(failure) = tool::run("compileall", &mut compile, "") {
        // A source that does not compile is no reason to refuse the rest.
        let _ = writeln!(stderr(), "legation: {failure}");
    }
    let text = fs::read_to_string(&lock)
        .map_err(|error| Failure::io("cannot read the lock file", &error))?;
    let spec = order.specs.first().map_or("", String::as_str);
    let (name, version, integrity) = locked(&text, spec);
    Ok(Done {
        entry: entry(&venv, order.command.as_deref().unwrap_or(&name))?,
        lock: LOCK.to_owned(),
        packages: text.lines().filter(|line| line.contains("==")).count() as u64,
        name,
        version,
        integrity,
    })
}

/// A package without a wheel is built by a program of its own.
fn wheels(order: &Order) -> &'static [&'static str] {
    if order.scripts {
        &[]
    } else {
        &["--only-binary", ":all:"]
    }
}

/// Name, version and first hash of the first package, as the lock file has them.
fn locked(lock: &str, spec: &str) -> (String, String, String) {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '.'], "-");
    let end = spec.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let wanted = plain(spec.get(..end.unwrap_or(spec.len())).unwrap_or_default());
    let mut lines = lock.lines();
    let version = lines.find_map(|line| {
        let (name, rest) = line.split_once("==")?;
        let name = name.split('[').next().unwrap_or(name);
        (plain(name) == wanted).then(|| rest.split([' ', ';', '\\']).next().unwrap_or_default())
    });
    let hash = lines.next().and_then(|line| line.split_once("--hash="));
    let hash = hash.map_or("", |(_, hash)| hash.trim_end_matches(['\\', ' ']));
    (
        wanted,
        version.unwrap_or_default().to_owned(),
        hash.to_owned(),
    )
}

fn entry(venv: &Path, command: &str) -> Result<String, Failure> {
    let bin = venv.join("bin");
    if bin.join(command).is_file() {
        return Ok(format!("{VENV}/bin/{command}"));
    }
    let entries = fs::read_dir(&bin).into_iter().flatten().flatten();
    let ours = |name: &String| {
        let not = ["python", "activate", "pydoc", "deactivate"];
        !not.iter().any(|word| name.starts_with(word))
    };
    let mut all: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(ours)
        .collect();
    all.sort();
    Err(Failure::new(format!(
        "no package has the command `{command}`; say which with `uvx --from PACKAGE COMMAND`, of: {}",
        all.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_says_version_and_hash() {
        let lock = "anyio==4.1.0 \\\n    --hash=sha256:aa\nmy-server[cli]==2.0.1 ; x \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\n";
        for spec in ["my-server", "My_Server>=2", "my.server[cli]"] {
            let (name, version, hash) = locked(lock, spec);
            assert_eq!(
                (name.as_str(), version.as_str(), hash.as_str()),
                ("my-server", "2.0.1", "sha256:bb")
            );
        }
        assert_eq!(locked(lock, "other").1, "");
    }

    #[test]
    fn a_command_that_is_not_there_names_those_that_are() {
        let venv = tempfile::tempdir().unwrap();
        fs::create_dir(venv.path().join("bin")).unwrap();
        for name in ["serve", "python3", "activate.fish"] {
            fs::write(venv.path().join("bin").join(name), "").unwrap();
        }
        assert_eq!(entry(venv.path(), "serve").as_deref(), Ok("venv/bin/serve"));
        let text = entry(venv.path(), "run").unwrap_err().to_string();
        assert!(text.ends_with("of: serve"), "{text}");
    }
}
