//! The master key file: private, replaced whole, on the disk before a key in it is used.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::SecretBox;
use zeroize::Zeroizing;

use super::super::clock::random;
use super::VaultError;
use crate::domain::limits::MASTER_FILE_BYTES_MAX;
use crate::domain::seal::{MASTER_BYTES, MasterKeys};

/// Where a house has its master keys.
pub(super) fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("keys").join("master.key")
}

/// A fresh master key.
pub(super) fn fresh() -> SecretBox<[u8; MASTER_BYTES]> {
    SecretBox::init_with_mut(|bytes: &mut [u8; MASTER_BYTES]| *bytes = random())
}

/// Reads the file; `None` if there is none.
pub(super) async fn load(path: &Path) -> Result<Option<MasterKeys>, VaultError> {
    blocking(path, |path| match read(path) {
        Ok(bytes) => MasterKeys::parse_file(&bytes)
            .map(Some)
            .map_err(|error| error.to_string()),
        Err(Unreadable::Missing) => Ok(None),
        Err(Unreadable::Refused(why)) => Err(why),
    })
    .await
}

/// Makes the file of a new house with its first key, mode 0600.
pub(super) async fn make(path: &Path) -> Result<MasterKeys, VaultError> {
    blocking(path, |path| {
        if let Some(dir) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|error| error.to_string())?;
        }
        let keys = MasterKeys::first(fresh());
        replace(path, &keys).map_err(|error| error.to_string())?;
        Ok(keys)
    })
    .await
}

/// Puts these keys into the file: on the disk when it returns, and at no moment in between is there
/// less than the old ones.
pub(super) async fn write(path: &Path, keys: &MasterKeys) -> Result<(), VaultError> {
    let keys = keys.clone();
    blocking(path, move |path| {
        replace(path, &keys).map_err(|error| error.to_string())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce(&Path) -> Result<T, String> + Send + 'static,
) -> Result<T, VaultError> {
    let owned = path.to_owned();
    let done = tokio::task::spawn_blocking(move || work(&owned)).await;
    done.unwrap_or_else(|error| Err(error.to_string()))
        .map_err(|why| VaultError::File {
            path: path.to_owned(),
            why,
        })
}

enum Unreadable {
    Missing,
    Refused(String),
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Unreadable> {
    let refused = |why: String| Unreadable::Refused(why);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Unreadable::Missing),
        Err(error) => return Err(refused(error.to_string())),
    };
    let about = file.metadata().map_err(|e| refused(e.to_string()))?;
    let mode = about.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(refused(format!(
            "its mode is {:o}; run: chmod 600",
            mode & 0o777
        )));
    }
    // All the room at once: a buffer that grows leaves copies behind.
    let room = usize::try_from(MASTER_FILE_BYTES_MAX).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
    file.take(MASTER_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| refused(e.to_string()))?;
    if bytes.len() > room {
        return Err(refused(format!("it is larger than {room} bytes")));
    }
    Ok(bytes)
}

fn replace(path: &Path, keys: &MasterKeys) -> std::io::Result<()> {
    let new = path.with_extension("key.new");
    // What a life before this one did not finish.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(&keys.to_file())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn keys_are_made_once_and_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        assert!(load(&path).await.unwrap().is_none());
        let first = make(&path).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap().len(), MASTER_BYTES);
        let read = load(&path).await.unwrap().unwrap();
        assert_eq!(read.to_file(), first.to_file());
        let two = first.rotated(fresh()).unwrap();
        // As a crash in the middle of an earlier write leaves it.
        std::fs::write(path.with_extension("key.new"), "half").unwrap();
        write(&path, &two).await.unwrap();
        let back = load(&path).await.unwrap().unwrap();
        assert_eq!((back.ids(), back.to_file()), (vec![1, 2], two.to_file()));
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn what_is_no_key_or_not_private_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        make(&path).await.unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let open = load(&path).await.unwrap_err().to_string();
        assert!(
            open.contains("chmod 600") && open.contains("master.key"),
            "{open}"
        );
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        for bad in [vec![], vec![9; 3], vec![9; 10_000]] {
            std::fs::write(&path, bad).unwrap();
            let error = load(&path).await.unwrap_err();
            assert!(matches!(error, VaultError::File { .. }) && error.is_lasting());
        }
    }
}
