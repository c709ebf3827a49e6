//! The key in each request: that of the file it came from, as the file is now.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

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
    changed: Option<SystemTime>,
}

impl Bearer {
    pub(super) fn new(key: &SecretString, file: Option<PathBuf>) -> Self {
        let known = Known {
            header: header(key),
            changed: file.as_deref().and_then(changed),
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
            let now = changed(file);
            if now != known.changed {
                known.changed = now;
                match key_of_file(file) {
                    Ok(key) => {
                        tracing::info!(file = %file.display(), "the key is read again");
                        known.header = header(&key);
                    }
                    // Half written, perhaps: what was good before goes on.
                    Err(error) => {
                        tracing::warn!("the key is not read again: {}", error.render(false))
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

fn changed(file: &Path) -> Option<SystemTime> {
    fs::metadata(file).and_then(|meta| meta.modified()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

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
}
