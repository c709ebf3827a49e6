//! The layers: reading each, and laying one over the other.

use std::borrow::Cow;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{Key, Kind};
use super::{Config, ConfigError, DEFAULT_FILE, ENV_PREFIX, Origin, Origins, Problem, nearest};
use crate::domain::limits;

/// Where values may come from, besides those built in.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The main file; it must exist.
    pub file: Option<PathBuf>,
    /// A folder whose `*.toml` are read in the order of their names; it may be missing.
    pub fragments: Option<PathBuf>,
    /// Environment variables; only those that start with `LEGATION__` count.
    pub env: Vec<(String, String)>,
    /// Flags: `section.key` and a value.
    pub flags: Vec<(String, String)>,
}

impl Sources {
    /// What a command reads: the file it was given, or the default one if that exists; `conf.d`
    /// beside it; the process's environment; the command's flags.
    #[must_use]
    pub fn standard(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        let file = file.or_else(|| Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.exists()));
        let beside = |file: &PathBuf| file.parent().map(|folder| folder.join("conf.d"));
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            fragments: file.as_ref().and_then(beside),
            file,
            env: std::env::vars_os().filter_map(text).collect(),
            flags,
        }
    }
}

/// A configuration in the making.
struct Merge<'a> {
    keys: Vec<&'static Key>,
    config: Config,
    origins: Origins,
    problems: &'a mut Vec<Problem>,
}

/// Reads and lays over each other all layers. What is wrong with single keys is added to
/// `problems`.
pub(super) fn merge(
    sources: &Sources,
    problems: &mut Vec<Problem>,
) -> Result<(Config, Origins), ConfigError> {
    let mut merge = Merge {
        keys: Config::keys(),
        config: Config::default(),
        origins: Origins::default(),
        problems,
    };
    for path in files(sources)? {
        merge.file(&path)?;
    }
    let mut env: Vec<&(String, String)> = sources.env.iter().collect();
    env.sort();
    for (name, value) in env {
        let Some(rest) = name.strip_prefix(ENV_PREFIX) else {
            continue;
        };
        let dotted = rest.to_ascii_lowercase().replacen("__", ".", 1);
        merge.text(&dotted, value, Origin::Env(name.clone()));
    }
    for (dotted, value) in &sources.flags {
        merge.text(dotted, value, Origin::Flag(dotted.clone()));
    }
    Ok((merge.config, merge.origins))
}

/// The main file, then the fragments by name.
fn files(sources: &Sources) -> Result<Vec<PathBuf>, ConfigError> {
    let mut files: Vec<PathBuf> = sources.file.iter().cloned().collect();
    let Some(folder) = &sources.fragments else {
        return Ok(files);
    };
    let failed = |source| ConfigError::Read {
        path: folder.clone(),
        source,
    };
    let listing = match std::fs::read_dir(folder) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(failed(error)),
    };
    let mut fragments = Vec::new();
    for entry in listing {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            fragments.push(path);
        }
        if fragments.len() > limits::CONFIG_FILES_MAX {
            return Err(ConfigError::TooLarge {
                path: folder.clone(),
                what: format!("more than {} files", limits::CONFIG_FILES_MAX),
            });
        }
    }
    fragments.sort();
    files.extend(fragments);
    Ok(files)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.to_owned(),
        source,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(limits::CONFIG_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > limits::CONFIG_BYTES_MAX {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            what: format!("more than {} bytes", limits::CONFIG_BYTES_MAX),
        });
    }
    Ok(text)
}

/// The line a byte is on, counted from one.
fn line_at(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

impl Merge<'_> {
    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = read(path)?;
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(&text, span.start)),
            message: error.message().trim().to_owned(),
        };
        let places = DeTable::parse(&text).map_err(syntax)?;
        let mut values: toml::Table = toml::from_str(&text).map_err(syntax)?;
        let origin = |name: &Spanned<Cow<'_, str>>| Origin::File {
            path: path.to_owned(),
            line: line_at(&text, name.span().start),
        };
        // The parser sorts by name; people read problems from top to bottom.
        let mut sections: Vec<_> = places.get_ref().iter().collect();
        sections.sort_by_key(|(name, _)| name.span().start);
        for (section, place) in sections {
            let name = section.get_ref().as_ref();
            let (DeValue::Table(keys), Some(toml::Value::Table(mut values))) =
                (place.get_ref(), values.remove(name))
            else {
                let what = "is a value outside of any section; write it under a [section]";
                self.problem(name, origin(section), what);
                continue;
            };
            if self.keys.iter().all(|key| key.section != name) {
                self.unknown_section(name, origin(section));
                continue;
            }
            let mut keys: Vec<_> = keys.keys().collect();
            keys.sort_by_key(|key| key.span().start);
            for key in keys {
                if let Some(value) = values.remove(key.get_ref().as_ref()) {
                    self.value(name, key.get_ref(), value, origin(key));
                }
            }
        }
        Ok(())
    }

    /// A value that comes as text: the key's kind says how to read it.
    fn text(&mut self, dotted: &str, text: &str, origin: Origin) {
        let Some((section, name)) = dotted.split_once('.') else {
            self.problem(
                dotted,
                origin,
                "names no key; a key is a section and a name",
            );
            return;
        };
        let kind = self.find(section, name).map(|key| key.kind);
        let value = match kind {
            Some(Kind::Integer) => text.parse().ok().map(toml::Value::Integer),
            Some(Kind::Boolean) => text.parse().ok().map(toml::Value::Boolean),
            Some(Kind::List) => Some(list(text)),
            Some(Kind::Text) | None => Some(toml::Value::String(text.to_owned())),
        };
        // What does not read as its kind stays text and is refused as such.
        let value = value.unwrap_or_else(|| toml::Value::String(text.to_owned()));
        self.value(section, name, value, origin);
    }

    fn find(&self, section: &str, name: &str) -> Option<&'static Key> {
        self.keys
            .iter()
            .find(|key| key.section == section && key.name == name)
            .copied()
    }

    /// Takes one value over, or says why not.
    fn value(&mut self, section: &str, name: &str, value: toml::Value, origin: Origin) {
        let dotted = format!("{section}.{name}");
        let Some(key) = self.find(section, name) else {
            self.unknown_key(section, name, origin);
            return;
        };
        if let Some(what) = refused(key, &value) {
            self.problem(&dotted, origin, &what);
            return;
        }
        // A URL may hold a password, so it is not repeated.
        let hidden = super::show::is_secret(key) || key.name.ends_with("url");
        let given = value.to_string();
        match self.config.set(key, value) {
            Ok(()) => {
                self.origins.0.insert(dotted, origin);
            }
            Err(error) => {
                let why = error.message().trim();
                let mut what = match hidden {
                    true => why.to_owned(),
                    false => format!("{given}: {why}"),
                };
                if let Some(example) = Config::default().get(key).filter(toml::Value::is_str) {
                    what.push_str(&format!("; the built-in value is {example}"));
                }
                self.problem(&dotted, origin, &what);
            }
        }
    }

    fn unknown_section(&mut self, name: &str, origin: Origin) {
        let mut known: Vec<&str> = Config::SECTIONS.iter().map(|(name, _)| *name).collect();
        let what = match nearest::word(&known, name) {
            Some(near) => format!("there is no such section; did you mean [{near}]?"),
            None => {
                known.sort_unstable();
                format!("there is no such section; there are {}", known.join(", "))
            }
        };
        self.problem(name, origin, &what);
    }

    fn unknown_key(&mut self, section: &str, name: &str, origin: Origin) {
        let what = match nearest::key(&self.keys, section, name) {
            Some(near) => format!(
                "there is no such key; did you mean {}.{}?",
                near.section, near.name
            ),
            None => "there is no such key; legation config show lists them all".to_owned(),
        };
        self.problem(&format!("{section}.{name}"), origin, &what);
    }

    fn problem(&mut self, key: &str, origin: Origin, what: &str) {
        self.problems.push(Problem {
            key: key.to_owned(),
            origin,
            what: what.to_owned(),
        });
    }
}

/// Whether the value is of the wrong kind or out of its bounds.
fn refused(key: &Key, value: &toml::Value) -> Option<String> {
    let fits = match key.kind {
        Kind::Text => value.is_str(),
        Kind::Integer => value.is_integer(),
        Kind::Boolean => value.is_bool(),
        Kind::List => value.is_array(),
    };
    if !fits {
        let unit = match key.kind {
            Kind::Integer if key.name.ends_with("_ms") => " of milliseconds, without a unit",
            Kind::Integer if key.name.contains("bytes") => " of bytes, without a unit",
            _ => "",
        };
        return Some(format!("must be {}{unit}, not {value}", key.kind.word()));
    }
    let (min, max) = key.range?;
    let within = value
        .as_integer()
        .and_then(|value| u64::try_from(value).ok())
        .is_some_and(|value| (min..=max).contains(&value));
    (!within).then(|| format!("must be from {min} to {max}, not {value}"))
}

/// `["a", "b"]` as TOML, or `a,b`.
fn list(text: &str) -> toml::Value {
    if text.trim_start().starts_with('[') {
        let parsed = toml::from_str::<toml::Table>(&format!("list = {text}"));
        if let Some(value) = parsed.ok().and_then(|mut table| table.remove("list")) {
            return value;
        }
        return toml::Value::String(text.to_owned());
    }
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    toml::Value::Array(parts.map(|part| part.to_owned().into()).collect())
}
