//! What stands in every view with an empty root, and what of a view is left when that was built before it was known
//! for whom.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Access, Base, Kind, Mount, Presence, SECRETS, View, in_order, is_at_or_beneath};

/// Bytes of the isolate's `/tmp`; they count against its memory.
const TMP_BYTES: u64 = 64 << 20;
/// Files in it.
const TMP_FILES: u64 = 4096;
/// Bytes of `/dev/shm`.
const SHM_BYTES: u64 = 16 << 20;
/// Files in it.
const SHM_FILES: u64 = 256;
/// The host's programs; what of it is a symbolic link into `/usr` stays one.
pub(crate) const PROGRAMS: [&str; 8] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
];
/// Of `/etc` only what programs need and what tells nothing of the host's users and keys.
const ETC: [&str; 18] = [
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/gai.conf",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki",
    "/etc/protocols",
    "/etc/python3",
    "/etc/services",
    "/etc/ssl",
    "/etc/terminfo",
    "/etc/timezone",
];
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];
const LINKS: [(&str, &str); 4] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
];

/// The host's, for reading, if it is there.
pub(super) const READABLE: Kind = Kind::Bind(Access::Read, Presence::IfThere);

/// What stands in every view with an empty root.
pub(super) fn common() -> Vec<Mount> {
    let mut mounts = Vec::new();
    let mut put = |at: &str, kind| {
        mounts.push(Mount {
            at: at.into(),
            kind,
        });
    };
    for at in PROGRAMS.iter().chain(&ETC) {
        put(at, READABLE);
    }
    put(
        "/etc/hosts",
        Kind::Text("127.0.0.1 localhost isolate\n::1 localhost\n".to_owned()),
    );
    put(
        "/etc/nsswitch.conf",
        Kind::Text("passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    );
    for at in DEVICES {
        put(at, Kind::Bind(Access::Device, Presence::Required));
    }
    for (at, to) in LINKS {
        put(at, Kind::Link(to.into()));
    }
    let tmpfs = |bytes, files| Kind::Tmpfs {
        bytes,
        files,
        mode: 0o1777,
    };
    put("/dev/shm", tmpfs(SHM_BYTES, SHM_FILES));
    put("/tmp", tmpfs(TMP_BYTES, TMP_FILES));
    put(SECRETS, Kind::Dir);
    mounts
}

impl View {
    /// What of every view can be built before it is known for whom.
    pub(crate) fn in_advance() -> Self {
        Self {
            base: Base::Empty,
            mounts: in_order(common()),
            ends: BTreeMap::new(),
        }
    }

    /// What is left to be built once `made` is there; `None` if that is not a part of this one, or if
    /// something here would come to lie over it.
    pub(crate) fn beyond(&self, made: &Self) -> Option<Vec<&Mount>> {
        if self.base != made.base {
            return None;
        }
        let mut rest = Vec::new();
        // Both are in order.
        let mut common = made.mounts.iter().peekable();
        for mount in &self.mounts {
            if common.next_if_eq(&mount).is_none() {
                rest.push(mount);
            }
        }
        let is_free = |mount: &&Mount| {
            !self.ends.contains_key(&mount.at)
                && rest.iter().all(|own| !is_at_or_beneath(&mount.at, &own.at))
        };
        (common.next().is_none() && made.mounts.iter().all(|mount| is_free(&mount))).then_some(rest)
    }
}

/// Whose names `/etc/passwd` and `/etc/group` hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accounts {
    /// The isolate's uid.
    pub uid: u32,
    /// Its gid.
    pub gid: u32,
}

impl Accounts {
    pub(super) fn passwd(self, home: &Path) -> String {
        let Self { uid, gid } = self;
        // A home with a colon or a line break cannot be written there; nobody needs it there.
        let home = home.to_str().filter(|home| !home.contains([':', '\n']));
        let home = home.unwrap_or("/");
        format!(
            "root:x:0:0::/:/sbin/nologin\nisolate:x:{uid}:{gid}::{home}:/bin/sh\n\
             nobody:x:65534:65534::/:/sbin/nologin\n"
        )
    }

    pub(super) fn group(self) -> String {
        let gid = self.gid;
        format!("root:x:0:\nisolate:x:{gid}:\nnogroup:x:65534:\n")
    }
}
