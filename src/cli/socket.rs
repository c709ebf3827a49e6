//! Which server a command talks to.
//!
//! `--socket`, then the socket in `--data-dir`, then the one in `./legation-data` (where
//! `serve --dev` puts it), then those in `/var/lib/legation` and `/run/legation`. A socket nobody named must
//! belong to the caller or to root, or to whom root gave the directory it is in: a directory somebody else
//! prepared must not get to hear commands.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::CliError;
use super::output::Out;
use super::serve::{Holder, holder};
use crate::config::Config;

/// The socket's name in the data directory.
pub(super) const SOCKET_NAME: &str = "admin.sock";
/// Where `serve --dev` keeps its data.
pub(super) const DEV_DATA_DIR: &str = "legation-data";
/// Where `serve` keeps its data.
pub(super) const SYSTEM_DATA_DIR: &str = "/var/lib/legation";

/// Where a socket is that others than the server's own account may reach.
pub(super) const RUN_DIR: &str = "/run/legation";

/// The socket to connect to.
///
/// # Errors
/// If none was named and none is there, or if the one that is there is somebody else's.
pub(super) fn find(named: Option<PathBuf>, data_dir: Option<PathBuf>) -> Result<PathBuf, CliError> {
    if let Some(socket) = named {
        return Ok(socket);
    }
    if let Some(folder) = data_dir {
        return Ok(folder.join(SOCKET_NAME));
    }
    let own = rustix::process::geteuid().as_raw();
    first(
        &[DEV_DATA_DIR, SYSTEM_DATA_DIR, RUN_DIR].map(Path::new),
        own,
    )
}

/// The socket of a server with this configuration, for commands that need no server and ask one that is there: `named`,
/// what the configuration says, or else the usual places. Says why one that is there is not asked.
pub(super) fn of_config(named: Option<PathBuf>, config: &Config, out: &Out) -> Option<PathBuf> {
    let usual = Config::default().server.data_dir;
    let folder = Some(&config.server.data_dir).filter(|folder| **folder != usual);
    match find(
        named.or_else(|| config.admin.socket.clone()),
        folder.cloned(),
    ) {
        Ok(socket) => Some(socket),
        Err(CliError::NoSocket { .. }) => None,
        Err(error) => {
            out.say(&format!(
                "a running server was not asked: {error}; name its socket with --socket to ask it"
            ));
            None
        }
    }
}

fn first(folders: &[&Path], own_uid: u32) -> Result<PathBuf, CliError> {
    let (mut denied, mut last_seen) = (None, None);
    for folder in folders {
        let socket = folder.join(SOCKET_NAME);
        match std::fs::symlink_metadata(&socket) {
            Ok(found)
                if found.uid() == own_uid || found.uid() == 0 || is_given(folder, found.uid()) =>
            {
                return Ok(socket);
            }
            Ok(found) => {
                let owner = found.uid();
                return Err(CliError::ForeignSocket { socket, owner });
            }
            // The data directory is shut to members of the admin group, who have a socket elsewhere.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                denied.get_or_insert((socket, *folder));
            }
            Err(_) if denied.is_some() && folder.is_dir() => last_seen = Some(socket),
            Err(_) => {}
        }
    }
    if let Some((denied, shut)) = denied {
        return Err(match last_seen {
            // Where a member of the admin group would find it, it is not.
            Some(socket) => CliError::NoneSeen {
                socket,
                shut: shut.to_owned(),
            },
            None => CliError::SocketDenied(denied),
        });
    }
    if let Some(held) = folders.iter().find_map(|folder| held(folder)) {
        return Err(held);
    }
    let looked = folders.iter().map(|folder| folder.join(SOCKET_NAME));
    Err(CliError::NoSocket {
        looked: looked.collect(),
    })
}

/// Why a server that has this directory does not answer; `None` if no server is seen to have it.
pub(super) fn held(folder: &Path) -> Option<CliError> {
    let Holder { pid, is_stopping } = holder(folder)?;
    Some(match is_stopping {
        true => CliError::Stopping { pid },
        false => CliError::Silent {
            pid,
            folder: folder.to_owned(),
        },
    })
}

/// Whether the directory belongs to this account by root's will: nobody else can put one there.
fn is_given(folder: &Path, owner: u32) -> bool {
    let meta = |path: &Path| std::fs::metadata(path).ok();
    let Some(above) = folder.canonicalize().ok().and_then(|path| {
        let above = path.parent()?;
        meta(above)
    }) else {
        return false;
    };
    let shut = above.uid() == 0 && above.mode() & 0o022 == 0;
    shut && std::fs::symlink_metadata(folder)
        .is_ok_and(|own| own.is_dir() && own.uid() == owner && own.mode() & 0o022 == 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_named_wins() {
        let named = find(Some("/a".into()), Some("/b".into())).unwrap();
        assert_eq!(named, Path::new("/a"));
        let in_folder = find(None, Some("/b".into())).unwrap();
        assert_eq!(in_folder, Path::new("/b/admin.sock"));
    }

    #[test]
    fn whom_the_data_directory_is_shut_to_is_told_of_the_place_where_they_may_look() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (folder.path().join("data"), folder.path().join("run"));
        std::fs::create_dir(&data).unwrap();
        let own = rustix::process::geteuid().as_raw();
        if own == 0 {
            return eprintln!("skipped: nothing is shut to root");
        }
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o000)).unwrap();
        let folders = [data.as_path(), run.as_path()];
        let nowhere = first(&folders, own).unwrap_err();
        assert!(matches!(nowhere, CliError::SocketDenied(_)), "{nowhere}");
        std::fs::create_dir(&run).unwrap();
        let stopped = first(&folders, own).unwrap_err();
        let text = stopped.to_string();
        assert_eq!(stopped.exit().code(), 3, "{text}");
        for path in [run.join(SOCKET_NAME), data.clone()] {
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
        std::fs::write(run.join(SOCKET_NAME), "").unwrap();
        assert_eq!(first(&folders, own).unwrap(), run.join(SOCKET_NAME));
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn the_first_that_is_there_is_taken_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let (dev, system) = (folder.path().join("dev"), folder.path().join("system"));
        for one in [&dev, &system] {
            std::fs::create_dir(one).unwrap();
        }
        let folders = [dev.as_path(), system.as_path()];
        let own = rustix::process::geteuid().as_raw();
        let error = first(&folders, own).unwrap_err();
        assert_eq!(error.exit().code(), 3);
        std::fs::write(system.join(SOCKET_NAME), "").unwrap();
        assert_eq!(first(&folders, own).unwrap(), system.join(SOCKET_NAME));
        std::fs::write(dev.join(SOCKET_NAME), "").unwrap();
        assert_eq!(first(&folders, own).unwrap(), dev.join(SOCKET_NAME));
        if own == 0 {
            eprintln!(
                "skipped: root trusts what root made; a foreign owner is tested without root"
            );
        } else {
            let error = first(&folders, own + 1).unwrap_err();
            assert_eq!(error.exit().code(), 4);
        }
    }
}
