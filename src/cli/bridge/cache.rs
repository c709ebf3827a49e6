//! The last good answers to `initialize` and `tools/list`, kept in a file for when the server is away.
//!
//! A file of another server or another key is as good as none. Whatever is wrong with it is told in
//! the log and stops nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::limits::BRIDGE_CACHE_BYTES_MAX;

/// Versions whose answers are kept.
const VERSIONS_MAX: usize = 8;

/// What the file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Kept {
    /// The server and the key it is of, as a digest.
    of: String,
    /// By the version that was asked for: the answer depends on it.
    #[serde(default)]
    begun: BTreeMap<String, Box<RawValue>>,
    #[serde(default)]
    tools: Option<Box<RawValue>>,
}

/// The answers, and their file.
#[derive(Debug)]
pub(super) struct Cache {
    path: Option<PathBuf>,
    kept: Mutex<Kept>,
    /// One writes at a time.
    writing: tokio::sync::Mutex<()>,
}

// === impl Cache ===

impl Cache {
    /// Reads what there is. `of` names the server and the key.
    pub(super) fn open(path: Option<PathBuf>, of: String) -> Self {
        let found = path.as_deref().and_then(|path| match read(path) {
            Ok(kept) => Some(kept),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the cache cannot be read; it is begun anew");
                None
            }
        });
        let kept = found.filter(|kept| kept.of == of).unwrap_or(Kept {
            of,
            ..Kept::default()
        });
        Self {
            path,
            kept: Mutex::new(kept),
            writing: tokio::sync::Mutex::new(()),
        }
    }

    /// What was answered to an `initialize` that asked for this version.
    pub(super) fn initialize(&self, version: &str) -> Option<Box<RawValue>> {
        self.lock().begun.get(version).cloned()
    }

    pub(super) fn tools(&self) -> Option<Box<RawValue>> {
        self.lock().tools.clone()
    }

    pub(super) async fn keep_initialize(&self, version: &str, result: &RawValue) {
        let changed = differs(self.lock().begun.get(version).map(|known| &**known), result);
        if changed {
            {
                let begun = &mut self.lock().begun;
                if begun.len() >= VERSIONS_MAX {
                    begun.pop_first();
                }
                begun.insert(version.to_owned(), result.to_owned());
            }
            self.save().await;
        }
    }

    /// Its key is not good any more: what was seen with it is nobody's.
    pub(super) fn forget(&self) {
        {
            let mut kept = self.lock();
            (kept.begun, kept.tools) = (BTreeMap::new(), None);
        }
        if let Some(path) = &self.path {
            // It may not be there.
            _ = fs::remove_file(path);
        }
    }

    pub(super) async fn keep_tools(&self, result: &RawValue) {
        let changed = differs(self.lock().tools.as_deref(), result);
        if changed {
            self.lock().tools = Some(result.to_owned());
            self.save().await;
        }
    }

    async fn save(&self) {
        let Some(path) = self.path.clone() else {
            return;
        };
        let _one = self.writing.lock().await;
        let kept = self.lock().clone();
        let shown = path.display().to_string();
        let written = tokio::task::spawn_blocking(move || write(&path, &kept)).await;
        if let Err(error) = written.unwrap_or_else(|died| Err(io::Error::other(died))) {
            tracing::warn!(path = shown, %error, "the cache cannot be written");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn differs(before: Option<&RawValue>, now: &RawValue) -> bool {
    before.is_none_or(|before| before.get() != now.get())
}

fn read(path: &Path) -> io::Result<Kept> {
    let most = BRIDGE_CACHE_BYTES_MAX;
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    serde_json::from_slice(&bytes).map_err(io::Error::from)
}

/// The whole file or none of it.
fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let bytes = serde_json::to_vec(kept)?;
    if bytes.len() > BRIDGE_CACHE_BYTES_MAX {
        let most = BRIDGE_CACHE_BYTES_MAX;
        return Err(io::Error::other(format!(
            "it would have more than {most} bytes"
        )));
    }
    if let Some(folder) = path.parent().filter(|path| !path.as_os_str().is_empty()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let half = PathBuf::from(name);
    // One that a bridge left which was killed while it wrote.
    _ = fs::remove_file(&half);
    let open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half);
    let written = open.and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    let renamed = written.and_then(|()| fs::rename(&half, path));
    if renamed.is_err() {
        _ = fs::remove_file(&half);
    }
    renamed
}

/// An answer to `initialize` that also says this.
pub(super) fn with_notice(result: &RawValue, notice: &str) -> Option<Box<RawValue>> {
    let mut result: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(result.get()).ok()?;
    let before = result.get("instructions").and_then(|text| text.as_str());
    let text = match before {
        Some(before) if !before.is_empty() => format!("{before}\n\n{notice}"),
        _ => notice.to_owned(),
    };
    result.insert("instructions".to_owned(), text.into());
    serde_json::value::to_raw_value(&result).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[tokio::test]
    async fn what_is_kept_is_found_again_by_the_same_key_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/cache.json");
        let open = |of: &str| Cache::open(Some(path.clone()), of.to_owned());
        let cache = open("a");
        assert!(cache.initialize("v").is_none() && cache.tools().is_none());
        cache.keep_initialize("v", &raw("{\"x\":1.0e2}")).await;
        cache.keep_tools(&raw("{\"tools\":[]}")).await;
        let again = open("a");
        assert!(
            again.initialize("w").is_none(),
            "the answer to another version"
        );
        assert_eq!(again.initialize("v").unwrap().get(), "{\"x\":1.0e2}");
        assert_eq!(again.tools().unwrap().get(), "{\"tools\":[]}");
        assert!(open("b").tools().is_none());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let files = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(files, 1);
        fs::write(&path, "nonsense").unwrap();
        assert!(open("a").tools().is_none());
    }

    #[tokio::test]
    async fn too_much_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.json");
        let cache = Cache::open(Some(path.clone()), String::new());
        let long = format!("\"{}\"", "x".repeat(BRIDGE_CACHE_BYTES_MAX));
        cache.keep_tools(&raw(&long)).await;
        assert!(!path.exists());
    }

    #[test]
    fn a_notice_stands_after_what_the_server_said() {
        let told = |text: &str| with_notice(&raw(text), "away").unwrap().get().to_owned();
        assert_eq!(told("{}"), r#"{"instructions":"away"}"#);
        assert_eq!(
            told(r#"{"instructions":"be good"}"#),
            r#"{"instructions":"be good\n\naway"}"#
        );
    }
}
