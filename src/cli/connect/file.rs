//! An AI tool's configuration file: read, kept as it was, and replaced whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::actors::clock::{Clock, HostClock};
use crate::domain::limits::CONNECT_FILE_BYTES_MAX;

/// Links that are followed to a file that is not there yet.
const LINKS_MAX: usize = 16;

/// What a file holds; nothing if it is not there.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(CONNECT_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > CONNECT_FILE_BYTES_MAX {
        let why = format!("it has more than {CONNECT_FILE_BYTES_MAX} bytes");
        return Err(io::Error::other(why));
    }
    Ok(Some(text))
}

/// Replaces a file, or makes it; one that was there is kept beside it. Gives the path of that one.
///
/// # Errors
/// What was done with which file. The file itself is whole at any time.
pub(super) fn write(
    path: &Path,
    before: Option<&str>,
    text: &str,
) -> Result<Option<PathBuf>, String> {
    let path = end_of(path);
    let cannot = |what: &str, path: &Path, error: io::Error| {
        format!("cannot {what} {}: {error}", path.display())
    };
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(|error| cannot("make", folder, error))?;
    }
    let owner = fs::metadata(&path).ok();
    let mode = owner
        .as_ref()
        .map_or(0o600, |found| found.permissions().mode() & 0o7777);
    let owner = owner.map(|found| (found.uid(), found.gid()));
    let backup = match before {
        Some(before) => {
            let backup = beside(&path, &format!("legation-backup-{}", stamp()));
            create(&backup, before, mode, owner).map_err(|error| {
                // A part of it would pass for the whole.
                _ = fs::remove_file(&backup);
                cannot("keep the old file as", &backup, error)
            })?;
            Some(backup)
        }
        None => None,
    };
    let half = beside(&path, &format!("legation-{}", std::process::id()));
    let written = create(&half, text, mode, owner).and_then(|()| {
        // An AI tool may have saved its settings meanwhile.
        match read(&path)?.as_deref() == before {
            true => fs::rename(&half, &path),
            false => Err(io::Error::other("it was changed meanwhile; the same again")),
        }
    });
    if let Err(error) = written {
        _ = fs::remove_file(&half);
        if let Some(backup) = &backup {
            _ = fs::remove_file(backup);
        }
        return Err(cannot("write", &path, error));
    }
    Ok(backup)
}

/// Keeps other runs away from a file's directory until it is dropped; where that cannot be had, nobody.
pub(super) fn lock(path: &Path) -> Option<File> {
    let path = end_of(path);
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    folder.lock().ok().map(|()| folder)
}

/// Where a link leads, as people who keep their configuration elsewhere have: it stays one, also if nothing is there
/// yet.
fn end_of(path: &Path) -> PathBuf {
    let mut end = path.to_owned();
    for _ in 0..LINKS_MAX {
        if let Ok(whole) = fs::canonicalize(&end) {
            return whole;
        }
        let Ok(to) = fs::read_link(&end) else { break };
        end = end.parent().unwrap_or(Path::new("")).join(to);
    }
    end
}

fn create(path: &Path, text: &str, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    if let Some((user, group)) = owner {
        // Only root can give it away, and only root needs to.
        _ = fchown(&file, Some(user), Some(group));
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{end}"));
    PathBuf::from(name)
}

/// The time, as a part of a file's name.
fn stamp() -> String {
    let ms = HostClock.wall_ms();
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    let time = time.to_zoned(TimeZone::UTC);
    format!("{}", time.strftime("%Y%m%dT%H%M%S%3fZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_file_is_kept_and_the_new_one_has_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/settings.json");
        assert_eq!(read(&path).unwrap(), None);
        assert_eq!(write(&path, None, "{}").unwrap(), None);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let link = folder.path().join("link.json");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        // Saved by the AI tool between the look and the write.
        assert!(write(&link, Some("{\"old\":1}"), "{}").is_err());
        let backup = write(&link, Some("{}"), "{\"a\":1}").unwrap().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path).unwrap().as_deref(), Some("{\"a\":1}"));
        assert_eq!(read(&backup).unwrap().as_deref(), Some("{}"));
        assert_eq!((mode(&path), mode(&backup)), (0o640, 0o640));
        let name = backup.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name.starts_with("settings.json.legation-backup-2"),
            "{name}"
        );
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
        // A link to nothing yet.
        let (far, near) = (
            folder.path().join("far.json"),
            folder.path().join("near.json"),
        );
        std::os::unix::fs::symlink("far.json", &near).unwrap();
        write(&near, None, "{}").unwrap();
        assert!(fs::symlink_metadata(&near).unwrap().is_symlink() && far.is_file());
    }
}
