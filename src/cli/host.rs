//! What a configuration needs of this host: files that are there and right, a group, directories that can be written to.
//!
//! Looked at as the account that asks: what it may not see is said, and is not called wrong. Nothing is bound, made or written.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, getxattr, statfs};
use rustix::io::Errno;

use super::error::chain;
use super::socket::{RUN_DIR, SOCKET_NAME};
use crate::actors::clock::{Clock, HostClock};
use crate::actors::roots;
use crate::api::admin::group_id;
use crate::api::ops::{Token, TokenError};
use crate::api::tls::{self, TlsError};
use crate::config::client::Tls;
use crate::config::regular;
use crate::config::{Config, Origins, Problem};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// With this the server does not start, or does not do what is written.
    pub(super) wrong: Vec<Problem>,
    /// What this account may not see, or what may be meant.
    pub(super) notes: Vec<String>,
}

/// The group whose members may administer, if there is to be one.
///
/// # Errors
/// The host has none of this name.
pub(super) fn admin_group(config: &Config) -> Result<Option<u32>, String> {
    let Some(name) = config
        .admin
        .group
        .as_deref()
        .filter(|name| !name.is_empty())
    else {
        return Ok(None);
    };
    group_id(name).map(Some).ok_or_else(|| {
        format!(
            "there is no group `{name}` in /etc/group: make it (groupadd --system {name}), or leave admin.group out"
        )
    })
}

/// Whether members of the group get as far as the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As far as is seen.
    Open,
    /// The data directory is shut to them, and the socket is in it because nobody said otherwise.
    Never(String),
    /// A directory that somebody chose is shut to them, unless they are let in by another group.
    Doubtful(String),
}

/// Looks at the directories on the way to the socket.
pub(super) fn reach(config: &Config, gid: u32) -> Reach {
    let socket = config.admin_socket();
    let Some(shut) = shut_to(&socket, gid) else {
        return Reach::Open;
    };
    let group = config.admin.group.as_deref().unwrap_or_default();
    let (shut, place) = (shut.display(), format!("{RUN_DIR}/{SOCKET_NAME}"));
    match config.admin.socket {
        None => Reach::Never(format!(
            "members of `{group}` cannot enter {shut}, where the admin socket is if nobody says otherwise: set \
             admin.socket to a place that they reach, such as \"{place}\""
        )),
        Some(_) => Reach::Doubtful(format!(
            "members of `{group}` cannot enter {shut} on the way to the admin socket, unless another group lets \
             them: open it to them (chmod, chgrp), or set admin.socket to another place, such as \"{place}\""
        )),
    }
}

/// The first directory above `socket` that this group's members may not enter. One that is not there yet is made
/// for the server alone.
fn shut_to(socket: &Path, gid: u32) -> Option<PathBuf> {
    let lets_in = |folder: &Path| match fs::metadata(folder) {
        Ok(meta) if meta.mode() & 0o001 != 0 => true,
        Ok(meta) if meta.gid() == gid && meta.mode() & 0o010 != 0 => true,
        Ok(_) => has_acl(folder),
        // That of the claims is made by the first server under root, and anybody may enter.
        Err(error) if error.kind() == ErrorKind::NotFound => folder == Path::new(RUN_DIR),
        Err(_) => true,
    };
    let shut = |folder: &&Path| !folder.as_os_str().is_empty() && !lets_in(folder);
    socket.ancestors().skip(1).find(shut).map(Path::to_owned)
}

/// Whether more is said of a directory than its mode.
fn has_acl(folder: &Path) -> bool {
    let mut room = [0_u8; 256];
    match getxattr(folder, "system.posix_acl_access", &mut room[..]) {
        Ok(_) | Err(Errno::RANGE) => true,
        Err(_) => false,
    }
}

/// Looks at everything that can be looked at without being the server.
pub(super) fn look(config: &Config, origins: &Origins) -> Findings {
    let mut look = Look {
        origins,
        is_root: rustix::process::geteuid().is_root(),
        found: Findings::default(),
    };
    look.certificates(config);
    look.group(config);
    look.files(config);
    let socket = config.admin_socket();
    look.folder("server.data_dir", &config.server.data_dir);
    if config.audit.dir.is_some() {
        look.folder("audit.dir", &config.audit_dir());
    }
    if let (Some(_), Some(folder)) = (&config.admin.socket, socket.parent()) {
        // A name alone is beside whoever starts the server.
        let here = folder.as_os_str().is_empty();
        look.socket_folder(if here { Path::new(".") } else { folder });
    }
    look.socket_place(&socket);
    look.found
}

struct Look<'a> {
    origins: &'a Origins,
    is_root: bool,
    found: Findings,
}

// === impl Look ===

impl Look<'_> {
    fn wrong(&mut self, key: &str, what: impl Into<String>) {
        self.found.wrong.push(Problem {
            key: key.to_owned(),
            origin: self.origins.of(key),
            what: what.into(),
        });
    }

    /// What only the server's account can tell is not wrong.
    fn failed(&mut self, key: &str, what: String, kind: Option<ErrorKind>) {
        if kind == Some(ErrorKind::PermissionDenied) && !self.is_root {
            self.found
                .notes
                .push(format!("{key}: not looked at by this account: {what}"));
        } else {
            self.wrong(key, what);
        }
    }

    fn certificates(&mut self, config: &Config) {
        let (client, ops) = (&config.client, &config.ops);
        let pair = |wanted: Tls, cert: &Option<PathBuf>, key: &Option<PathBuf>| match wanted {
            Tls::Files => cert.clone().zip(key.clone()),
            Tls::SelfSigned | Tls::Off => None,
        };
        let files = pair(client.tls, &client.cert_file, &client.key_file);
        self.certificate("client", files, None);
        if ops.listen.address().is_some() {
            let files = pair(ops.tls, &ops.cert_file, &ops.key_file);
            self.certificate("ops", files, ops.client_ca_file.as_deref());
        }
    }

    fn certificate(
        &mut self,
        section: &str,
        files: Option<(PathBuf, PathBuf)>,
        client_ca: Option<&Path>,
    ) {
        let (cert, key) = match &files {
            Some((cert, key)) => (Some(cert.as_path()), Some(key.as_path())),
            None => (None, None),
        };
        match tls::look(cert.zip(key), client_ca) {
            Ok(Some(end)) if end < HostClock.wall_ms() => {
                let what = "the certificate has ended, so no client connects: replace it";
                self.wrong(&format!("{section}.cert_file"), what);
            }
            Ok(_) => {}
            Err(error) => {
                let (path, kind) = match &error {
                    TlsError::Read { path, source } => (Some(path.as_path()), Some(source.kind())),
                    TlsError::Content { path, .. } => (Some(path.as_path()), None),
                    _ => (None, None),
                };
                let name = match path {
                    Some(path) if client_ca == Some(path) => "client_ca_file",
                    Some(path) if cert == Some(path) => "cert_file",
                    _ => "key_file",
                };
                self.failed(&format!("{section}.{name}"), chain(&error), kind);
            }
        }
    }

    fn group(&mut self, config: &Config) {
        match admin_group(config) {
            Ok(None) => {}
            Err(what) => self.wrong("admin.group", what),
            Ok(Some(gid)) => match reach(config, gid) {
                Reach::Open => {}
                Reach::Never(what) => self.wrong("admin.group", what),
                Reach::Doubtful(what) => self.found.notes.push(format!("admin.group: {what}")),
            },
        }
    }

    fn files(&mut self, config: &Config) {
        let (ops, storage, install) = (&config.ops, &config.storage, &config.install);
        if let (Some(_), Some(file)) = (ops.listen.address(), &ops.token_file)
            && let Err(error) = Token::load(file)
        {
            let kind = match &error {
                TokenError::Read { source, .. } => Some(source.kind()),
                TokenError::Content { .. } => None,
            };
            self.failed("ops.token_file", chain(&error), kind);
        }
        let files = [
            ("storage.password_file", &storage.password_file),
            ("storage.ca_file", &storage.ca_file),
            ("install.ca_file", &install.ca_file),
            ("install.npm_login_file", &install.npm_login_file),
            ("install.python_login_file", &install.python_login_file),
            ("install.proxy_login_file", &install.proxy_login_file),
        ];
        for (key, file) in files {
            let Some(file) = file else { continue };
            if let Err(error) = opens(file) {
                let what = format!("cannot read {}: {error}", file.display());
                self.failed(key, what, Some(error.kind()));
            } else if key.ends_with(".ca_file")
                && let Err(what) = roots::of_file(file)
            {
                self.wrong(key, what);
            }
        }
    }

    /// A directory that is there and can be written to, or that can be made.
    fn folder(&mut self, key: &str, folder: &Path) {
        let mut nearest = folder;
        while !nearest.exists() {
            match nearest.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => nearest = parent,
                _ => return,
            }
        }
        if !nearest.is_dir() {
            self.wrong(key, format!("{} is no directory", nearest.display()));
        } else if is_the_kernels(nearest) {
            let what = format!(
                "{} is the kernel's own, and holds no files: choose a place on a disk",
                nearest.display()
            );
            self.wrong(key, what);
        } else if let Err(error) = access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
            let error = io::Error::from(error);
            let what = format!("{} cannot be written to: {error}", nearest.display());
            self.failed(key, what, Some(error.kind()));
        }
    }

    /// A start takes the place of a socket that an earlier one left, and of nothing else.
    fn socket_place(&mut self, socket: &Path) {
        if let Ok(found) = fs::symlink_metadata(socket)
            && !found.file_type().is_socket()
        {
            let what = format!(
                "{} is there and is no socket: move it away",
                socket.display()
            );
            self.wrong("admin.socket", what);
        }
    }

    /// Nobody makes the socket's directory, but that of all servers.
    fn socket_folder(&mut self, folder: &Path) {
        if folder.exists() {
            self.folder("admin.socket", folder);
        } else if folder != Path::new(RUN_DIR) {
            let what = format!("there is no directory {}: make it", folder.display());
            self.wrong("admin.socket", what);
        }
    }
}

/// Whether a directory shows what the kernel knows. Its modes may say that one can be made there, and none can.
fn is_the_kernels(folder: &Path) -> bool {
    const PROC: i128 = 0x9fa0;
    const SYSFS: i128 = 0x6265_6572;
    const CGROUP: i128 = 0x0027_e0eb;
    const CGROUP2: i128 = 0x6367_7270;
    const DEVPTS: i128 = 0x1cd1;
    const DEBUGFS: i128 = 0x6462_6720;
    const TRACEFS: i128 = 0x7472_6163;
    const SECURITYFS: i128 = 0x7363_6673;
    let found = statfs(folder).map(|found| i128::from(found.f_type));
    matches!(
        found,
        Ok(PROC | SYSFS | CGROUP | CGROUP2 | DEVPTS | DEBUGFS | TRACEFS | SECURITYFS)
    )
}

/// Whether a file can be read.
fn opens(path: &Path) -> io::Result<()> {
    regular::open(path).map(|_| ())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn found(text: &str) -> Findings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("legation.toml");
        let data = folder.path().join("data");
        let text = text.replace("HERE", &folder.path().display().to_string());
        fs::write(&file, text).unwrap();
        let (pipe, fifo) = (folder.path().join("pipe"), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, fifo, 0o600.into(), 0).unwrap();
        let flag = ("server.data_dir".to_owned(), data.display().to_string());
        let mut sources = crate::config::Sources::standard(Some(file), vec![flag]);
        sources.env.clear();
        let (config, origins) = Config::load(&sources).unwrap();
        let found = look(&config, &origins);
        assert!(!data.exists(), "nothing is made");
        found
    }

    #[test]
    fn what_is_missing_is_named_with_its_key() {
        assert!(found("").wrong.is_empty());
        for (text, key, word) in [
            (
                "[client]\ntls = \"files\"\ncert_file = \"/nowhere/c.pem\"\nkey_file = \"/nowhere/k.pem\"\n",
                "client.cert_file",
                "/nowhere/c.pem",
            ),
            (
                "[admin]\ngroup = \"no-such-group\"\n",
                "admin.group",
                "groupadd",
            ),
            (
                "[ops]\ntoken_file = \"/nowhere/t\"\n",
                "ops.token_file",
                "/nowhere/t",
            ),
            (
                "[ops]\ntoken_file = \"HERE/pipe\"\n",
                "ops.token_file",
                "no regular file",
            ),
            (
                "[client]\ntls = \"files\"\ncert_file = \"HERE/pipe\"\nkey_file = \"HERE/pipe\"\n",
                "client.cert_file",
                "no regular file",
            ),
            (
                "[ops]\ntls = \"self\"\nclient_ca_file = \"/nowhere/ca\"\n",
                "ops.client_ca_file",
                "/nowhere/ca",
            ),
            (
                "[install]\nca_file = \"/nowhere/ca\"\n",
                "install.ca_file",
                "/nowhere/ca",
            ),
            (
                "[install]\nca_file = \"HERE/legation.toml\"\n",
                "install.ca_file",
                "no certificate",
            ),
            (
                "[admin]\nsocket = \"/nowhere/admin.sock\"\n",
                "admin.socket",
                "/nowhere",
            ),
            (
                "[admin]\nsocket = \"HERE/legation.toml\"\n",
                "admin.socket",
                "no socket",
            ),
            (
                "[audit]\ndir = \"HERE/legation.toml/audit\"\n",
                "audit.dir",
                "no directory",
            ),
            (
                "[audit]\ndir = \"/proc/x/audit\"\n",
                "audit.dir",
                "the kernel's own",
            ),
        ] {
            let found = found(text);
            let [one] = &found.wrong[..] else {
                panic!("{text}: {found:?}")
            };
            assert_eq!(one.key, key, "{one}");
            assert!(one.to_string().contains(word), "{one}");
        }
    }

    #[test]
    fn a_socket_without_a_directory_is_beside_whoever_starts_it() {
        let found = found("[admin]\nsocket = \"admin.sock\"\n");
        assert!(found.wrong.is_empty(), "{found:?}");
    }

    #[test]
    fn who_gets_to_the_socket_is_told_by_the_directories_above() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("inner");
        fs::create_dir(&folder).unwrap();
        let set = |path: &Path, mode: u32| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let socket = folder.join("admin.sock");
        let gid = fs::metadata(&folder).unwrap().gid();
        set(outer.path(), 0o755);
        for (mode, group, shut) in [
            (0o755, gid + 1, false),
            (0o711, gid + 1, false),
            (0o750, gid, false),
            (0o710, gid, false),
            (0o750, gid + 1, true),
            (0o700, gid, true),
        ] {
            set(&folder, mode);
            let found = shut_to(&socket, group);
            assert_eq!(found, shut.then(|| folder.clone()), "{mode:o}");
        }
        set(outer.path(), 0o700);
        set(&folder, 0o755);
        assert_eq!(shut_to(&socket, gid).as_deref(), Some(outer.path()));
        let missing = Path::new("/nowhere/admin.sock");
        assert_eq!(
            shut_to(missing, gid).as_deref(),
            Some(Path::new("/nowhere"))
        );
    }
}
