//! Binding: a TCP port, or a Unix socket whose stale predecessor is replaced.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::net::{TcpListener, UnixListener};
use tokio::time::sleep;

use crate::domain::limits::SOCKET_LOOK;

/// The longest path a Unix socket may have: `sun_path` is 108 bytes with its terminator, and the
/// socket is made beside its place first.
const SOCKET_PATH_BYTES_MAX: usize = 107 - NEW.len();
/// What a socket is called until it is ready to take its place.
const NEW: &str = ".new";

/// Whether another port will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherPort {
    /// No: whoever configured the port relies on it.
    Refuse,
    /// Yes, any free one (`serve --dev`).
    Take,
}

/// Who may connect to a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketMode {
    /// Its owner only (0600).
    Owner,
    /// Its owner and this group (0660).
    Group(u32),
}

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody has the port.
    #[error(
        "cannot listen on {address}: another program has the port; stop it, or set another port"
    )]
    InUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The system refused it.
    #[error(
        "cannot listen on {address}; check that the address is this machine's and the port allowed"
    )]
    Tcp {
        /// What was asked for.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A server answers on the socket.
    #[error(
        "cannot listen on {path}: a running server answers there; stop it first, or use another data directory"
    )]
    Answers {
        /// The socket.
        path: PathBuf,
    },
    /// Something else is in the socket's place.
    #[error("cannot listen on {path}: that is not a socket; move it away")]
    NotASocket {
        /// What is in the way.
        path: PathBuf,
    },
    /// The path does not fit into a socket address.
    #[error(
        "cannot listen on {path}: a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes; use a shorter one"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
    },
    /// A step of making the socket failed.
    #[error("cannot listen on {path}: {step} failed")]
    Unix {
        /// The socket.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// A Unix socket's place in the file system; removed with it, unless another one took it over.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    mode: SocketMode,
    is: Inode,
}

/// Which file: a number is given again once its file is gone, but not with the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Inode {
    number: u64,
    made: Option<SystemTime>,
}

impl Inode {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            number: meta.ino(),
            // Not when it was changed: a touched socket is still ours.
            made: meta.created().ok(),
        }
    }
}

/// Binds a TCP port.
///
/// # Errors
/// [`BindError::InUse`] or [`BindError::Tcp`].
pub(super) async fn tcp(asked: SocketAddr, other: OtherPort) -> Result<TcpListener, BindError> {
    let taken = match TcpListener::bind(asked).await {
        Ok(listener) => return Ok(listener),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
        Err(source) => {
            return Err(BindError::Tcp {
                address: asked,
                source,
            });
        }
    };
    if other == OtherPort::Refuse {
        tracing::debug!(error = %taken, "port taken");
        return Err(BindError::InUse { address: asked });
    }
    let any = SocketAddr::new(asked.ip(), 0);
    TcpListener::bind(any)
        .await
        .map_err(|source| BindError::Tcp {
            address: any,
            source,
        })
}

/// Binds a Unix socket: beside its place, with its mode, and then renamed into it, so that it is
/// never there with a mode it should not have, and a stale one is replaced in one step.
///
/// # Errors
/// [`BindError`], of which [`BindError::Answers`] means that a server is running.
pub(super) fn unix(path: &Path, mode: SocketMode) -> Result<(UnixListener, Place), BindError> {
    let owned = || path.to_owned();
    if path.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        return Err(BindError::PathTooLong { path: owned() });
    }
    let failed = |step| {
        move |source| BindError::Unix {
            path: path.to_owned(),
            step,
            source,
        }
    };
    refuse_if_alive(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(NEW);
    let beside = PathBuf::from(beside);
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(failed("removing what an earlier start left")(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&beside).map_err(failed("binding"))?;
    let bits = match mode {
        SocketMode::Owner => 0o600,
        SocketMode::Group(gid) => {
            chown(&beside, None, Some(gid)).map_err(failed(
                "giving it to the group admin.group (this server must be root or a member)",
            ))?;
            0o660
        }
    };
    fs::set_permissions(&beside, Permissions::from_mode(bits))
        .map_err(failed("setting its mode"))?;
    let is = fs::metadata(&beside).map_err(failed("reading its inode"))?;
    let is = Inode::of(&is);
    fs::rename(&beside, path).map_err(failed("moving it into place"))?;
    Ok((
        listener,
        Place {
            path: owned(),
            mode,
            is,
        },
    ))
}

fn refuse_if_alive(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            let step = "looking at its place";
            return Err(BindError::Unix {
                path: path.to_owned(),
                step,
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket {
            path: path.to_owned(),
        });
    }
    match std::os::unix::net::UnixStream::connect(path) {
        // Nobody listens: it is what an earlier life left behind.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(_) => Err(BindError::Answers {
            path: path.to_owned(),
        }),
        Err(source) => {
            let step = "asking whether somebody answers";
            Err(BindError::Unix {
                path: path.to_owned(),
                step,
                source,
            })
        }
    }
}

// === impl Place ===

impl Place {
    /// Whether it is still there, and still this one.
    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| Inode::of(&found) == self.is)
    }

    /// A new socket in this place.
    ///
    /// # Errors
    /// As [`unix`].
    pub(super) fn again(&self) -> Result<(UnixListener, Self), BindError> {
        unix(&self.path, self.mode)
    }

    /// Returns when it is not there any more: removed, or another one is in its place.
    pub(super) async fn lost(&self) {
        while self.is_there() {
            sleep(SOCKET_LOOK).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_there()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_refused_or_replaced_as_asked() {
        let first = tcp("127.0.0.1:0".parse().unwrap(), OtherPort::Refuse)
            .await
            .unwrap();
        let taken = first.local_addr().unwrap();
        let refused = tcp(taken, OtherPort::Refuse).await.unwrap_err();
        assert!(
            matches!(refused, BindError::InUse { address } if address == taken),
            "{refused}"
        );
        let second = tcp(taken, OtherPort::Take)
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        assert_eq!(second.ip(), taken.ip());
        assert_ne!(second.port(), taken.port());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket outlives its listener");

        let gid = fs::metadata(dir.path()).unwrap().gid();
        let (listener, place) = unix(&path, SocketMode::Group(gid)).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let refused = unix(&path, SocketMode::Owner).unwrap_err();
        assert!(matches!(refused, BindError::Answers { .. }), "{refused}");
        assert!(path.exists());
        drop((listener, place));
        assert!(!path.exists(), "the socket goes with its listener");

        let (_listener, _place) = unix(&path, SocketMode::Owner).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "precious").unwrap();
        let refused = unix(&path, SocketMode::Owner).unwrap_err();
        assert!(matches!(refused, BindError::NotASocket { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(
            unix(&long, SocketMode::Owner),
            Err(BindError::PathTooLong { .. })
        ));
    }

    #[tokio::test]
    async fn a_successors_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let (old, place) = unix(&path, SocketMode::Owner).unwrap();
        drop(old);
        let (_new, _place) = unix(&path, SocketMode::Owner).unwrap();
        drop(place);
        assert!(path.exists());
    }
}
