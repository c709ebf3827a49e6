//! The direction rule, checked: a module imports only from the floors before it.

use std::fs;
use std::path::{Path, PathBuf};

/// Each top-level module and what it may import.
const MAY: &[(&str, &[&str])] = &[
    ("domain", &["domain"]),
    ("protocol", &["domain", "protocol"]),
    ("config", &["domain", "config"]),
    ("telemetry", &["domain", "telemetry"]),
    ("storage", &["domain", "protocol", "telemetry", "storage"]),
    (
        "actors",
        &[
            "domain",
            "protocol",
            "config",
            "telemetry",
            "storage",
            "actors",
        ],
    ),
    (
        "api",
        &[
            "domain",
            "protocol",
            "config",
            "telemetry",
            "storage",
            "actors",
            "api",
        ],
    ),
    (
        "cli",
        &[
            "domain",
            "protocol",
            "config",
            "telemetry",
            "storage",
            "actors",
            "api",
            "cli",
            "demo",
            "installer",
        ],
    ),
    ("installer", &["domain", "installer"]),
    ("demo", &["demo"]),
];

/// Crates that `domain` must never know.
const NOT_IN_DOMAIN: &[&str] = &["tokio", "sqlx", "axum", "ractor", "hyper"];

fn files(of: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = vec![src.join(format!("{of}.rs"))];
    walk(&src.join(of), &mut found);
    found
}

/// The text before the file's tests, which may reach where they like.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let test_file = path.to_string_lossy().contains("test");
    if test_file || path.ends_with("api/admin/house.rs") || path.ends_with("api/admin/suite.rs") {
        return String::new();
    }
    text.split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn imports_point_one_way() {
    let mut breaches = Vec::new();
    let mut seen = 0;
    for (module, may) in MAY {
        for path in files(module) {
            let text = code(&path);
            // `crate::` starts a path wherever it stands; documentation may link anywhere.
            for line in text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
            {
                for path_of in line.split("crate::").skip(1) {
                    seen += 1;
                    let target: String = path_of
                        .chars()
                        .take_while(|c| c.is_alphanumeric() || *c == '_')
                        .collect();
                    if MAY.iter().any(|(name, _)| *name == target)
                        && !may.contains(&target.as_str())
                    {
                        breaches.push(format!("{}: {}", path.display(), line.trim()));
                    }
                }
            }
        }
    }
    assert!(seen > 100, "the test reads nothing");
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn domain_knows_no_runtime() {
    for path in files("domain") {
        let text = code(&path);
        for foreign in NOT_IN_DOMAIN {
            assert!(
                !text.contains(&format!("{foreign}::")),
                "{} knows {foreign}",
                path.display()
            );
        }
    }
}
