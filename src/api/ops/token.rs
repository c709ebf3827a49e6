//! The bearer token of the ops listener: read from a file, and again when that changes.
//!
//! Only its digest is kept. A file that cannot be read later leaves the token in use in place, with
//! an error in the log: locking out the scraper would hide the very trouble it watches for.

use std::convert::Infallible;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::config::regular;
use crate::domain::limits::{TOKEN_CHARS_MIN, TOKEN_FILE_BYTES_MAX, TOKEN_RELOAD_EVERY};

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It cannot be read.
    #[error(
        "cannot read the token file {}; check that it exists and that this user may read it",
        path.display()
    )]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What is in it is no token.
    #[error("the token file {} is not usable: {what}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// The token.
#[derive(Debug)]
pub struct Token {
    path: PathBuf,
    current: ArcSwap<Known>,
}

#[derive(Debug, PartialEq, Eq)]
struct Known {
    digest: [u8; 32],
    /// How the file looked: time, length, inode.
    looks: Option<(i64, i64, u64, u64)>,
}

impl Token {
    /// Reads the file.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load(path: &Path) -> Result<Arc<Self>, TokenError> {
        Ok(Arc::new(Self {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(read(path)?),
        }))
    }

    /// Whether this is the token; takes the same time whatever is given.
    #[must_use]
    pub fn matches(&self, given: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(given.as_bytes()).into();
        digest.ct_eq(&self.current.load().digest).into()
    }

    /// Reads the file if it changed; tells whether it did.
    ///
    /// # Errors
    /// [`TokenError`]; the token in use stays.
    pub fn refresh(&self) -> Result<bool, TokenError> {
        if looks(&self.path) == self.current.load().looks {
            return Ok(false);
        }
        self.current.store(Arc::new(read(&self.path)?));
        Ok(true)
    }

    /// Refreshes every [`TOKEN_RELOAD_EVERY`], for as long as it is polled.
    pub async fn watch(self: &Arc<Self>) -> Infallible {
        let mut failing = false;
        loop {
            tokio::time::sleep(TOKEN_RELOAD_EVERY).await;
            let token = Arc::clone(self);
            match tokio::task::spawn_blocking(move || token.refresh()).await {
                Ok(Ok(changed)) => {
                    failing = false;
                    if changed {
                        tracing::info!(file = %self.path.display(), "ops token exchanged");
                    }
                }
                // Said once, not every few seconds.
                Ok(Err(error)) if !std::mem::replace(&mut failing, true) => {
                    tracing::error!(%error, "ops token not exchanged; the old one stays");
                }
                Ok(Err(_)) => {}
                Err(error) => tracing::error!(%error, "looking at the ops token failed"),
            }
        }
    }
}

fn looks(path: &Path) -> Option<(i64, i64, u64, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.len(), meta.ino()))
}

fn read(path: &Path) -> Result<Known, TokenError> {
    let failed = |source| TokenError::Read {
        path: path.to_owned(),
        source,
    };
    let content = |what: String| TokenError::Content {
        path: path.to_owned(),
        what,
    };
    // Before the content: a change in between is seen as one.
    let looks = looks(path);
    let mut text = Zeroizing::new(String::new());
    let file = regular::open(path).map_err(failed)?;
    file.take(TOKEN_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > TOKEN_FILE_BYTES_MAX {
        return Err(content(format!(
            "it is larger than {TOKEN_FILE_BYTES_MAX} bytes"
        )));
    }
    let token = text.trim();
    if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(content(format!(
            "it must hold one line of at least {TOKEN_CHARS_MIN} visible characters, such as the \
             output of: head -c 24 /dev/urandom | base64"
        )));
    }
    Ok(Known {
        digest: Sha256::digest(token.as_bytes()).into(),
        looks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "0123456789abcdef";
    const TWO: &str = "fedcba9876543210-";

    #[test]
    fn a_changed_file_is_a_changed_token_and_a_lost_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, format!("{ONE}\n")).unwrap();
        let token = Token::load(&path).unwrap();
        assert!(token.matches(ONE) && !token.matches(TWO) && !token.matches(""));
        assert!(!token.refresh().unwrap());
        std::fs::write(&path, TWO).unwrap();
        assert!(token.refresh().unwrap());
        assert!(token.matches(TWO) && !token.matches(ONE));
        std::fs::write(&path, "short").unwrap();
        assert!(token.refresh().is_err());
        std::fs::remove_file(&path).unwrap();
        assert!(token.refresh().is_err());
        assert!(token.matches(TWO), "the scraper is not locked out");
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for bad in ["", "short", "sixteen chars with blanks", &"x".repeat(5000)] {
            std::fs::write(&path, bad).unwrap();
            let refused = Token::load(&path).unwrap_err();
            assert!(matches!(refused, TokenError::Content { .. }), "{bad}");
        }
        let absent = Token::load(&dir.path().join("none")).unwrap_err();
        assert!(absent.to_string().contains("none"), "{absent}");
    }
}
