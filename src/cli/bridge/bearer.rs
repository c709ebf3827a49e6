//! The key in each request: that of the file it came from, as the file is now.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::settings::key_of_file;

/// A key, and its file if it has one.
pub(super) struct Bearer {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

struct Known {
    header: Option<HeaderValue>,
    /// The file that it was read from.
    read: Option<State>,
    /// One that could not be read, or was not there, and was told in the log.
    told: Option<Option<State>>,
}

/// What changes with a file: its place, what is in it, and also its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    file: (u64, u64),
    bytes: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Bearer {
    pub(super) fn new(key: &SecretString, file: Option<PathBuf>) -> Self {
        let known = Known {
            header: header(key),
            read: file.as_deref().and_then(State::of),
            told: None,
        };
        Self {
            file,
            known: Mutex::new(known),
        }
    }

    /// What says it to the server; `None` if it cannot be sent.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &self.file {
            let now = State::of(file);
            if now != known.read {
                match key_of_file(file) {
                    Ok(key) => {
                        tracing::info!(file = %file.display(), "the key is read again");
                        known.header = header(&key);
                        known.read = now;
                        known.told = None;
                    }
                    // Half written, perhaps: what was good before goes on, and this is tried with the next request.
                    Err(error) => {
                        if known.told != Some(now) {
                            let why = error.render(false);
                            tracing::warn!("the key is not read again: {why}");
                        }
                        known.told = Some(now);
                    }
                }
            }
        }
        known.header.clone()
    }
}

fn header(key: &SecretString) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", key.expose_secret())).ok()?;
    header.set_sensitive(true);
    Some(header)
}

// === impl State ===

impl State {
    /// `None`: there is no such file.
    fn of(file: &Path) -> Option<Self> {
        let meta = fs::metadata(file).ok()?;
        Some(Self {
            file: (meta.dev(), meta.ino()),
            bytes: meta.len(),
            written: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_key_that_is_replaced_in_its_file_is_the_next_requests() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let write = |text: &str, age: u64| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
            fs::File::options()
                .write(true)
                .open(&file)
                .unwrap()
                .set_modified(at)
                .unwrap();
        };
        write("amb_pk_one", 9);
        let bearer = Bearer::new(&key_of_file(&file).unwrap(), Some(file.clone()));
        let said = |wanted: &str| assert_eq!(bearer.header().unwrap(), format!("Bearer {wanted}"));
        said("amb_pk_one");
        write("amb_pk_two", 5);
        said("amb_pk_two");
        write("", 3);
        said("amb_pk_two");
        fs::remove_file(&file).unwrap();
        said("amb_pk_two");
    }

    #[test]
    fn a_file_that_others_could_read_is_read_when_its_mode_is_right() {
        let folder = tempfile::tempdir().unwrap();
        let (file, new) = (folder.path().join("key"), folder.path().join("new"));
        let allow = |path: &Path, mode| {
            fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        fs::write(&file, "amb_pk_one").unwrap();
        allow(&file, 0o600);
        let bearer = Bearer::new(&key_of_file(&file).unwrap(), Some(file.clone()));
        let said = |wanted: &str| assert_eq!(bearer.header().unwrap(), format!("Bearer {wanted}"));
        fs::write(&new, "amb_pk_two").unwrap();
        allow(&new, 0o644);
        fs::rename(&new, &file).unwrap();
        said("amb_pk_one");
        said("amb_pk_one");
        allow(&file, 0o600);
        said("amb_pk_two");
    }
}
