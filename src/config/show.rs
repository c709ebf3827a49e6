//! The configuration for people: `legation config show`, and the reference in `docs/config.md`.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Config, ENV_PREFIX, Key, Origins};
use crate::domain::limits;

/// One effective value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `section.key`.
    pub key: String,
    /// The value as TOML, `<set>` in place of a secret, `None` if it is not set.
    pub value: Option<String>,
    /// Where it came from.
    pub origin: String,
}

/// What `legation config show` prints as JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Every setting, section by section.
    pub settings: Vec<Value>,
    /// Every fixed bound.
    pub bounds: Vec<Bound>,
}

/// A setting whose value is JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Value {
    /// `section.key`.
    pub key: String,
    /// The value, `<set>` in place of a secret, `None` if it is not set.
    pub value: Option<serde_json::Value>,
    /// Where it came from.
    pub origin: String,
}

/// A fixed bound.
#[derive(Debug, Clone, Serialize)]
pub struct Bound {
    /// Its name.
    pub name: &'static str,
    /// Its value, with the unit if it is a duration.
    pub value: String,
    /// What it bounds.
    pub about: &'static str,
}

impl Shown {
    /// All of a configuration.
    #[must_use]
    pub fn of(config: &Config, origins: &Origins) -> Self {
        let json = |key: &Key| match config.get(key) {
            Some(_) if is_secret(key) => Some("<set>".into()),
            value => value.and_then(|value| serde_json::to_value(value).ok()),
        };
        let keys = Config::keys().into_iter();
        let settings = keys
            .zip(entries(config, origins))
            .map(|(key, entry)| Value {
                value: json(key),
                key: entry.key,
                origin: entry.origin,
            });
        let bound = |(name, value, about)| Bound { name, value, about };
        Self {
            settings: settings.collect(),
            bounds: limits::table().into_iter().map(bound).collect(),
        }
    }
}

/// Whether a key's value must not be shown. A key that names a file holds no secret.
pub(super) fn is_secret(key: &Key) -> bool {
    ["secret", "password", "passphrase", "token"]
        .into_iter()
        .any(|ending| key.name.ends_with(ending))
}

fn shown(key: &Key, value: &toml::Value) -> String {
    if is_secret(key) {
        "<set>".to_owned()
    } else {
        value.to_string()
    }
}

/// Every effective value with its origin, section by section.
#[must_use]
pub fn entries(config: &Config, origins: &Origins) -> Vec<Entry> {
    let entry = |key: &Key| {
        let dotted = format!("{}.{}", key.section, key.name);
        Entry {
            value: config.get(key).map(|value| shown(key, &value)),
            origin: origins.of(&dotted).to_string(),
            key: dotted,
        }
    };
    Config::keys().into_iter().map(entry).collect()
}

/// What `legation config show` prints: TOML that could be loaded again, each value's origin beside
/// it, and every fixed bound below, as comments.
#[must_use]
pub fn render(config: &Config, origins: &Origins) -> String {
    let mut out = String::new();
    for (section, _) in Config::SECTIONS {
        let _ = writeln!(out, "[{section}]");
        let prefix = format!("{section}.");
        for entry in entries(config, origins) {
            let Some(name) = entry.key.strip_prefix(&prefix) else {
                continue;
            };
            let line = match &entry.value {
                Some(value) => format!("{name} = {value}"),
                None => format!("# {name} is not set"),
            };
            let _ = writeln!(out, "{line:<48}  # {}", entry.origin);
        }
        out.push('\n');
    }
    out.push_str("# Fixed bounds:\n");
    for (name, value, doc) in limits::table() {
        let _ = writeln!(out, "# {name} = {value}: {doc}");
    }
    out
}

/// Renders `docs/config.md`.
#[must_use]
pub fn render_reference() -> String {
    let defaults = Config::default();
    let mut out = format!(
        "# Configuration\n\n\
         Rendered from `src/config/` and `src/domain/limits.rs`; do not edit.\n\n\
         Later overrides earlier, key by key: built-in values; `{file}` or the file given with\n\
         `--config`; `conf.d/*.toml` beside it, in the order of their names; the environment, as\n\
         `{ENV_PREFIX}SECTION__KEY`; flags. An unknown key is an error. `legation config show`\n\
         prints every value and where it came from, `legation config check` only what is wrong.\n\
         Durations are whole milliseconds (`_ms`), sizes whole bytes.\n",
        file = super::DEFAULT_FILE,
    );
    for (section, about) in Config::SECTIONS {
        let _ = write!(
            out,
            "\n## `[{section}]`\n\n{}\n\n\
             | key | kind | built-in | bounds | what |\n|---|---|---|---|---|\n",
            about.trim()
        );
        for key in Config::keys() {
            if key.section != *section {
                continue;
            }
            let default = defaults
                .get(key)
                .map_or_else(|| "not set".to_owned(), |value| format!("`{value}`"));
            let bounds = key
                .range
                .map_or_else(String::new, |(min, max)| format!("{min} to {max}"));
            let _ = writeln!(
                out,
                "| `{}` | {} | {default} | {bounds} | {} |",
                key.name,
                key.kind.word(),
                key.doc.trim(),
            );
        }
    }
    out.push_str(
        "\n## Fixed bounds\n\nNot configurable, or the built-in value of what is.\n\n\
         | bound | value | what |\n|---|---|---|\n",
    );
    for (name, value, doc) in limits::table() {
        let _ = writeln!(out, "| `{name}` | {value} | {doc} |");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::Kind;
    use crate::domain::bless;

    #[test]
    fn secrets_are_not_shown() {
        let key = |name| Key {
            section: "x",
            name,
            doc: "",
            kind: Kind::Text,
            range: None,
        };
        let value = toml::Value::String("hunter2".into());
        assert_eq!(shown(&key("smtp_password"), &value), "<set>");
        assert_eq!(shown(&key("key_file"), &value), "\"hunter2\"");
    }

    #[test]
    fn values_are_json_where_json_is_wanted() {
        let mut config = Config::default();
        config.admin.group = Some("ops".into());
        let shown = Shown::of(&config, &Origins::default());
        let value = |name: &str| {
            let found = shown.settings.iter().find(|one| one.key == name);
            found.unwrap().value.clone()
        };
        assert_eq!(value("admin.group"), Some("ops".into()));
        assert!(value("calls.in_flight_max").unwrap().is_u64());
        assert_eq!(value("admin.socket"), None);
        assert_eq!(shown.bounds.len(), limits::table().len());
    }

    #[test]
    fn the_reference_is_current() {
        bless::assert_current("docs/config.md", &render_reference());
    }

    #[test]
    fn what_is_shown_loads_again() {
        let mut config = Config::default();
        config.client.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
        config.admin.group = Some("legation \"admin\"".into());
        let text = render(&config, &Origins::default());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("legation.toml");
        std::fs::write(&file, &text).unwrap();
        let sources = crate::config::Sources {
            file: Some(file),
            ..Default::default()
        };
        let (loaded, _) = Config::load(&sources).unwrap();
        assert_eq!(loaded, config);
        assert!(text.contains("# LINE_BYTES_MAX = 16777216: "), "{text}");
        assert_eq!(
            entries(&config, &Origins::default()).len(),
            Config::keys().len()
        );
    }
}
