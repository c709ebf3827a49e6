//! npm: one `npm install` in a project of its own, and the command of the package that is to be run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use serde_json::Value;

use super::{Failure, lay, tool};
use crate::domain::package::{Done, Order, TREE};

const PROJECT: &str = "package.json";
const LOCK: &str = "package-lock.json";
const MODULES: &str = "node_modules";
/// Where scripts are off, so is git, of which a dependency may be: npm installs what is in a repository by a
/// second npm, which takes the repository's word for which program is git. Older ones know only the second.
const NO_GIT: [(&str, &str); 2] = [
    ("npm_config_allow_git", "none"),
    ("npm_config_git", NO_PROGRAM),
];
const NO_PROGRAM: &str = "/bin/false";
/// Of npm, where it fetched nothing by git.
const GIT_REFUSED: &str = "EALLOWGIT";

#[derive(Deserialize)]
struct Lock {
    packages: serde_json::Map<String, Value>,
}

pub(super) fn install(order: &Order) -> Result<Done, Failure> {
    let tree = PathBuf::from(TREE);
    fs::create_dir(&tree).map_err(|error| Failure::io("cannot make the tree", &error))?;
    let locked = lay(order, &tree, &[PROJECT, LOCK])?;
    if !locked {
        let project = "{\"private\": true}\n";
        fs::write(tree.join(PROJECT), project)
            .map_err(|error| Failure::io("cannot write package.json", &error))?;
    }
    // `ci` takes what the lock file says, and nothing whose content is another.
    let (verb, words) = match locked {
        true => ("ci", &[][..]),
        false => ("install", &["--save-exact"][..]),
    };
    let mut npm = Command::new(&order.program);
    npm.current_dir(&tree)
        .arg(verb)
        .args(words)
        .args(["--omit=dev", "--no-audit", "--no-fund"])
        .args(["--no-progress", "--loglevel=http", "--no-update-notifier"])
        .arg(format!("--ignore-scripts={}", !order.scripts));
    if !locked {
        npm.arg("--").args(&order.specs);
    }
    if !order.scripts {
        npm.envs(NO_GIT);
    }
    tool::run(&format!("npm {verb}"), &mut npm, "").map_err(explained)?;
    let name = name_of(order)?;
    let lock: Lock = read(&tree.join(LOCK))?;
    let main = lock.packages.get(&format!("{MODULES}/{name}"));
    let said = |key: &str| {
        let text = main.and_then(|main| main.get(key)).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    Ok(Done {
        entry: entry(&tree, name, order.command.as_deref())?,
        lock: LOCK.to_owned(),
        name: name.to_owned(),
        version: said("version"),
        integrity: said("integrity"),
        // The first is the project itself.
        packages: lock.packages.len().saturating_sub(1) as u64,
    })
}

/// With what can be done about it, where git was needed.
fn explained(failure: Failure) -> Failure {
    let text = failure.to_string();
    if !text.contains(GIT_REFUSED) && !text.contains(NO_PROGRAM) {
        return failure;
    }
    Failure::new(format!(
        "a package comes from a git repository, whose programs npm would run; take a version that is all of the \
         registry's, or let programs of packages run (--install-scripts true): {text}"
    ))
}

/// The name of the first package, without its version.
fn name_of(order: &Order) -> Result<&str, Failure> {
    let spec = order.specs.first().map_or("", String::as_str);
    let end = spec.char_indices().skip(1).find(|(_, c)| *c == '@');
    let name = spec.get(..end.map_or(spec.len(), |(at, _)| at));
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| Failure::new("no package is named"))
}

/// The program to run, from the top of the tree.
fn entry(tree: &Path, name: &str, command: Option<&str>) -> Result<String, Failure> {
    let modules = tree.join(MODULES);
    if let Some(command) = command {
        let link = modules.join(".bin").join(command);
        let found = fs::canonicalize(&link).ok();
        let top = fs::canonicalize(tree).ok();
        let inside = found
            .zip(top)
            .and_then(|(found, top)| Some(found.strip_prefix(top).ok()?.to_str()?.to_owned()));
        return inside.ok_or_else(|| {
            let there = names(&modules.join(".bin"));
            Failure::new(format!(
                "no package has the command `{command}`; there are: {there}"
            ))
        });
    }
    let package: Value = read(&modules.join(name).join("package.json"))?;
    let bare = name.rsplit('/').next().unwrap_or(name);
    let file = match package.get("bin") {
        Some(Value::String(file)) => Some(file.as_str()),
        Some(Value::Object(files)) if files.len() == 1 => {
            files.values().next().and_then(Value::as_str)
        }
        Some(Value::Object(files)) => files
            .get(bare)
            .or_else(|| only(files))
            .and_then(Value::as_str),
        _ => None,
    };
    match (file, package.get("bin")) {
        (Some(file), _) => Ok(format!(
            "{MODULES}/{name}/{}",
            file.trim_start_matches("./")
        )),
        (None, Some(Value::Object(files))) => {
            let all: Vec<&str> = files.keys().map(String::as_str).collect();
            Err(Failure::new(format!(
                "`{name}` has several commands and none that is called like it; say which with \
                 `npx -p {name} COMMAND`, of: {}",
                all.join(", ")
            )))
        }
        _ => Err(Failure::new(format!(
            "`{name}` has no command that could be run"
        ))),
    }
}

/// The file of all commands, if it is one.
fn only(files: &serde_json::Map<String, Value>) -> Option<&Value> {
    let plain = |file: &Value| {
        file.as_str()
            .map(|file| file.trim_start_matches("./").to_owned())
    };
    let first = files.values().next()?;
    files
        .values()
        .all(|file| plain(file) == plain(first))
        .then_some(first)
}

fn names(dir: &Path) -> String {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    all.sort();
    all.join(", ")
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let what = || format!("cannot read {}", path.display());
    let text = fs::read(path).map_err(|error| Failure::io(&what(), &error))?;
    serde_json::from_slice(&text).map_err(|error| Failure::new(format!("{}: {error}", what())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_of(package: &str, command: Option<&str>) -> Result<String, String> {
        let tree = tempfile::tempdir().unwrap();
        let modules = tree.path().join(MODULES);
        for dir in ["@a/server-x/dist", ".bin"] {
            fs::create_dir_all(modules.join(dir)).unwrap();
        }
        fs::write(modules.join("@a/server-x/package.json"), package).unwrap();
        fs::write(modules.join("@a/server-x/dist/run.js"), "").unwrap();
        std::os::unix::fs::symlink("../@a/server-x/dist/run.js", modules.join(".bin/run")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", modules.join(".bin/out")).unwrap();
        entry(tree.path(), "@a/server-x", command).map_err(|failure| failure.to_string())
    }

    #[test]
    fn the_command_is_found_as_npx_finds_it() {
        let file = "node_modules/@a/server-x/dist/run.js";
        for bin in [
            r#""./dist/run.js""#,
            r#"{"anything":"dist/run.js"}"#,
            r#"{"server-x":"dist/run.js","other":"o.js"}"#,
            r#"{"a":"dist/run.js","b":"./dist/run.js"}"#,
        ] {
            let found = entry_of(&format!("{{\"bin\":{bin}}}"), None);
            assert_eq!(found.as_deref(), Ok(file), "{bin}");
        }
        assert_eq!(entry_of("{}", Some("run")).as_deref(), Ok(file));
        let several = entry_of(r#"{"bin":{"a":"a.js","b":"b.js"}}"#, None).unwrap_err();
        assert!(
            several.contains("npx -p @a/server-x COMMAND`, of: a, b"),
            "{several}"
        );
        assert!(entry_of("{}", None).unwrap_err().contains("no command"));
        let missing = entry_of("{}", Some("walk")).unwrap_err();
        assert!(missing.contains("there are: out, run"), "{missing}");
        assert!(entry_of("{}", Some("out")).is_err(), "outside of the tree");
    }

    #[test]
    fn who_needed_git_is_told_what_to_do() {
        for text in [
            "npm error code EALLOWGIT",
            "npm error command /bin/false --no-replace-objects ls-remote",
        ] {
            let told = explained(Failure::new(text)).to_string();
            assert!(told.contains("--install-scripts"), "{told}");
            assert!(told.ends_with(text), "{told}");
        }
        let other = Failure::new("npm error code E404");
        assert_eq!(explained(other.clone()), other);
    }

    #[test]
    fn a_package_s_name_is_without_its_version() {
        for (spec, name) in [
            ("x", "x"),
            ("x@1", "x"),
            ("@a/x", "@a/x"),
            ("@a/x@^1", "@a/x"),
        ] {
            let order = Order {
                manager: crate::domain::package::Manager::Npm,
                program: PathBuf::new(),
                specs: vec![spec.to_owned()],
                command: None,
                python: None,
                scripts: false,
                locked: std::collections::BTreeMap::new(),
            };
            assert_eq!(name_of(&order), Ok(name));
        }
    }
}
