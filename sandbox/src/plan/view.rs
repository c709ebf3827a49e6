//! What an isolate sees of the file system, as a value.
//!
//! Everything stands at the path it has on the host, so that a definition's paths, a script's first
//! line and a home in the environment mean the same on both sides. The invariant, checked by
//! [`View::check`]: parents come before what is beneath them, and nothing is mounted beneath a place
//! the isolate can write to, where it could put a symbolic link in our way.

mod common;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::PlanError;
use crate::profile::Network;

pub use common::Accounts;
pub(crate) use common::PROGRAMS;
use common::{READABLE, common};

/// Mounts of one view.
pub const MOUNTS_MAX: usize = 256;
/// Bytes of the root, and of a closed directory's stand-in: names of mount points only.
const ROOT_BYTES: u64 = 1 << 20;
/// Files in either.
const ROOT_FILES: u64 = 1024;
/// Where credentials that are files are.
pub const SECRETS: &str = "/run/secrets";
/// Names are looked up by the gateway.
const RESOLVER: &str = "nameserver 127.0.0.1\noptions timeout:3 attempts:2\n";

/// What everything is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// An empty, read-only root, with `pivot_root` into it.
    Empty,
    /// The host's root as it is (profile `none`).
    Host,
}

/// What may be done with what is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Read and execute.
    Read,
    /// Write as well.
    Write,
    /// A device node.
    Device,
}

/// What happens if the host does not have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// The step fails.
    Required,
    /// It is left out.
    IfThere,
}

/// One thing in the view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The host's, at the same path.
    Bind(Access, Presence),
    /// An own tmpfs.
    Tmpfs {
        /// Bytes it may hold.
        bytes: u64,
        /// Files it may hold.
        files: u64,
        /// Mode of its root.
        mode: u32,
    },
    /// The isolate's own processes.
    Proc,
    /// An empty directory.
    Dir,
    /// A file with this text.
    Text(String),
    /// A symbolic link.
    Link(PathBuf),
    /// An empty directory in the place of the host's, read-only, for what is shown beneath it.
    StandIn,
    /// Nothing, in the place of what is there: an empty file or directory that cannot be written to.
    Cover,
}

/// One thing and its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// An absolute, plain path.
    pub at: PathBuf,
    /// What is there.
    pub kind: Kind,
}

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// What the rest stands on.
    pub base: Base,
    /// Parents before what is beneath them.
    pub mounts: Vec<Mount>,
    /// Where what is read must lead when it is mounted: somebody may have put a link in its place since it
    /// was checked.
    #[serde(default)]
    pub ends: BTreeMap<PathBuf, PathBuf>,
}

/// What a run needs to see beyond what everybody does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Needs {
    /// The program's own files and what the definition declares.
    pub read: Vec<PathBuf>,
    /// What the definition declares, for writing.
    pub write: Vec<PathBuf>,
    /// Where what is read led when it was found or checked.
    pub ends: BTreeMap<PathBuf, PathBuf>,
    /// What of that is nobody's to see: a project's history and secrets.
    pub covered: Vec<PathBuf>,
    /// Private directories of which a part is shown: that alone is in them.
    pub hollow: Vec<PathBuf>,
    /// Directories of the host nobody but their owner may pass, above what is needed.
    pub closed: Vec<PathBuf>,
}

impl View {
    /// An empty root with what every program needs, the home, and `needs`.
    #[must_use]
    pub fn own(needs: &Needs, home: &Path, network: Network, accounts: Accounts) -> Self {
        let mut mounts = common();
        let mut put = |at: &str, kind| {
            mounts.push(Mount {
                at: at.into(),
                kind,
            });
        };
        put("/etc/passwd", Kind::Text(accounts.passwd(home)));
        put("/etc/group", Kind::Text(accounts.group()));
        match network {
            Network::Host => put("/etc/resolv.conf", READABLE),
            Network::Allowlist => put("/etc/resolv.conf", Kind::Text(RESOLVER.to_owned())),
            Network::None | Network::Loopback => {}
        }
        put("/proc", Kind::Proc);
        mounts.extend(binds(needs, home));
        Self {
            base: Base::Empty,
            mounts: in_order(mounts),
            ends: needs.ends.clone(),
        }
    }

    /// The host's root, with what is needed shown through closed directories; `None` if nothing is
    /// in the way.
    #[must_use]
    pub fn of_host(needs: &Needs, home: &Path) -> Option<Self> {
        let mut mounts: Vec<Mount> = needs.closed.iter().map(|at| stand_in(at)).collect();
        if mounts.is_empty() {
            return None;
        }
        let behind = |mount: &Mount| needs.closed.iter().any(|dir| mount.at.starts_with(dir));
        mounts.extend(binds(needs, home).into_iter().filter(behind));
        Some(Self {
            base: Base::Host,
            mounts: in_order(mounts),
            ends: needs.ends.clone(),
        })
    }

    /// The host's root as it is, but with own mounts.
    #[must_use]
    pub const fn host() -> Self {
        Self {
            base: Base::Host,
            mounts: Vec::new(),
            ends: BTreeMap::new(),
        }
    }

    /// With an empty directory for files to be mounted on, where the view hides the host's.
    #[must_use]
    pub fn with_dir(mut self, at: &Path) -> Self {
        let hidden = match self.base {
            Base::Empty => true,
            Base::Host => self.mounts.iter().any(|mount| at.starts_with(&mount.at)),
        };
        if hidden && self.mounts.iter().all(|mount| mount.at != at) {
            self.mounts.push(Mount {
                at: at.to_owned(),
                kind: Kind::Dir,
            });
            self.mounts = in_order(self.mounts);
        }
        self
    }

    /// The options of the tmpfs everything stands on.
    pub(crate) fn root_options() -> String {
        format!("mode=755,{}", Self::root_size())
    }

    /// How much it holds: names of mount points only.
    pub(crate) fn root_size() -> String {
        format!("size={ROOT_BYTES},nr_inodes={ROOT_FILES}")
    }

    /// Checks that it can be built as it stands.
    ///
    /// # Errors
    /// [`PlanError::View`] names the path.
    pub fn check(&self) -> Result<(), PlanError> {
        let refused = |mount: &Mount, why| {
            Err(PlanError::View {
                path: mount.at.clone(),
                why,
            })
        };
        for (index, mount) in self.mounts.iter().enumerate() {
            if index >= MOUNTS_MAX {
                return refused(mount, "it holds too much already");
            }
            if !is_plain(&mount.at) {
                return refused(
                    mount,
                    "it is not an absolute path without `.`, `..` or zero bytes",
                );
            }
            for earlier in self.mounts.iter().take(index) {
                if is_at_or_beneath(&earlier.at, &mount.at) {
                    return refused(mount, "it hides what stands before it");
                }
                let movable = matches!(
                    earlier.kind,
                    Kind::Bind(Access::Write, _) | Kind::Bind(Access::Device, _) | Kind::Proc
                );
                if movable && is_at_or_beneath(&mount.at, &earlier.at) {
                    return refused(mount, "what it stands on can be written to");
                }
            }
        }
        Ok(())
    }

    /// Where files can be written, for landlock.
    #[must_use]
    pub fn writable(&self) -> Vec<PathBuf> {
        let writable = |mount: &&Mount| {
            matches!(
                mount.kind,
                Kind::Tmpfs { .. } | Kind::Bind(Access::Write, _)
            )
        };
        let dev = std::iter::once(PathBuf::from("/dev"));
        dev.chain(
            self.mounts
                .iter()
                .filter(writable)
                .map(|mount| mount.at.clone()),
        )
        .collect()
    }
}

/// An empty directory in the place of the host's, for what is shown beneath it.
fn stand_in(at: &Path) -> Mount {
    Mount {
        at: at.to_owned(),
        kind: Kind::StandIn,
    }
}

fn binds(needs: &Needs, home: &Path) -> Vec<Mount> {
    let bind = |at: &Path, access| Mount {
        at: at.to_owned(),
        kind: Kind::Bind(access, Presence::Required),
    };
    let read = needs.read.iter().map(|at| bind(at, Access::Read));
    let write = needs.write.iter().map(|at| bind(at, Access::Write));
    let cover = |at: &PathBuf| Mount {
        at: at.clone(),
        kind: Kind::Cover,
    };
    std::iter::once(bind(home, Access::Write))
        .chain(write)
        .chain(read)
        .chain(needs.covered.iter().map(cover))
        .chain(needs.hollow.iter().map(|at| stand_in(at)))
        .collect()
}

/// Parents first; what is bound twice, or already to be seen in what is bound above, once; of two
/// for the same place the one that may be written to. A directory that is closed and private has two
/// reasons for one stand-in.
fn in_order(mut mounts: Vec<Mount>) -> Vec<Mount> {
    // Stable: of equal paths the first stays first.
    mounts.sort_by(|one, two| one.at.cmp(&two.at));
    let mut kept: Vec<Mount> = Vec::with_capacity(mounts.len());
    for mount in mounts {
        let Kind::Bind(access, _) = mount.kind else {
            if mount.kind != Kind::StandIn || kept.last() != Some(&mount) {
                kept.push(mount);
            }
            continue;
        };
        // The nearest above decides what is to be seen here.
        let above = kept
            .iter_mut()
            .rev()
            .find(|above| is_at_or_beneath(&mount.at, &above.at));
        let seen = match above {
            Some(above) if above.at == mount.at => {
                if access == Access::Write && matches!(above.kind, Kind::Bind(Access::Read, _)) {
                    above.kind = mount.kind.clone();
                }
                true
            }
            Some(above) => match above.kind {
                Kind::Bind(above, _) => above == access || above == Access::Write,
                _ => false,
            },
            None => false,
        };
        if !seen {
            kept.push(mount);
        }
    }
    kept
}

/// Whether a path is absolute and names every step of itself.
pub(super) fn is_plain(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let mut parts = path.components();
    let rebuilt: PathBuf = path.components().collect();
    parts.next() == Some(Component::RootDir)
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && path.parent().is_some()
        && rebuilt.as_os_str() == path.as_os_str()
        && !path.as_os_str().as_bytes().contains(&0)
}

/// [`Path::starts_with`] of plain paths, by their bytes: every pair of a view is compared with each
/// start, twice, and taking paths apart was a quarter of what the gateway does for one.
fn is_at_or_beneath(path: &Path, dir: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let (path, dir) = (path.as_os_str().as_bytes(), dir.as_os_str().as_bytes());
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/') || dir == b"/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beneath_is_by_whole_names() {
        for (path, dir) in [
            ("/usr", "/usr"),
            ("/usr/bin", "/usr"),
            ("/usr2", "/usr"),
            ("/us", "/usr"),
            ("/usr", "/"),
            ("/", "/"),
            ("/a/b", "/a/b/c"),
        ] {
            let (path, dir) = (Path::new(path), Path::new(dir));
            assert_eq!(
                is_at_or_beneath(path, dir),
                path.starts_with(dir),
                "{path:?} {dir:?}"
            );
        }
    }

    const ACCOUNTS: Accounts = Accounts {
        uid: 200_001,
        gid: 200_001,
    };

    fn needs(read: &[&str], write: &[&str], closed: &[&str]) -> Needs {
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        Needs {
            ends: BTreeMap::new(),
            covered: Vec::new(),
            hollow: Vec::new(),
            read: paths(read),
            write: paths(write),
            closed: paths(closed),
        }
    }

    fn own(needs: &Needs) -> View {
        View::own(needs, Path::new("/srv/h/u/m"), Network::None, ACCOUNTS)
    }

    fn at<'a>(view: &'a View, path: &str) -> Option<&'a Kind> {
        let found = view.mounts.iter().find(|mount| mount.at == Path::new(path));
        found.map(|mount| &mount.kind)
    }

    #[test]
    fn what_is_made_in_advance_and_what_is_left_are_the_whole() {
        let made = View::in_advance();
        made.check().unwrap();
        for needs in [
            needs(&[], &[], &[]),
            needs(
                &["/opt/app", "/usr/local/app", "/etc/ssl/x"],
                &["/data/docs"],
                &[],
            ),
            needs(
                &[],
                &["/usr/share/data", "/tmp/shared", "/etc/fonts/own"],
                &[],
            ),
        ] {
            let view = own(&needs);
            let rest = view.beyond(&made).unwrap();
            let all = made.mounts.iter().chain(rest).cloned().collect();
            assert_eq!(in_order(all), view.mounts);
        }
    }

    #[test]
    fn what_lies_over_what_was_made_is_made_whole() {
        let made = View::in_advance();
        for path in ["/etc", "/dev", "/run", "/"] {
            let view = own(&needs(&[path], &[], &[]));
            assert_eq!(view.beyond(&made), None, "{path}");
        }
        for path in ["/usr", "/etc/ssl"] {
            let view = own(&needs(&[], &[path], &[]));
            assert_eq!(view.beyond(&made), None, "{path} written to");
        }
        let mut led = own(&needs(&[], &[], &[]));
        led.ends.insert("/etc/ssl".into(), "/etc/ssl".into());
        assert_eq!(led.beyond(&made), None);
        assert_eq!(View::host().beyond(&made), None);
    }

    #[test]
    fn a_view_is_read_only_but_for_the_home_and_what_was_declared() {
        let view = own(&needs(&["/opt/app"], &["/data/docs"], &["/root"]));
        view.check().unwrap();
        assert_eq!(view.base, Base::Empty);
        assert_eq!(
            view.writable(),
            ["/dev", "/data/docs", "/dev/shm", "/srv/h/u/m", "/tmp"].map(PathBuf::from)
        );
        let read = Kind::Bind(Access::Read, Presence::Required);
        assert_eq!(at(&view, "/opt/app"), Some(&read));
        assert_eq!(at(&view, "/etc/resolv.conf"), None);
        assert_eq!(at(&view, "/etc/shadow"), None);
        assert_eq!(at(&view, "/root"), None, "closed directories stay away");
        assert!(matches!(at(&view, "/etc/passwd"), Some(Kind::Text(text))
            if text.contains("isolate:x:200001:200001::/srv/h/u/m:")));
    }

    #[test]
    fn what_is_seen_already_is_not_mounted_again() {
        let view = own(&needs(
            &[
                "/usr/local/app",
                "/opt/a",
                "/opt/a/b",
                "/srv/h/u/m/bin/server",
                "/tmp/tool",
            ],
            &["/usr/local/state"],
            &[],
        ));
        view.check().unwrap();
        assert_eq!(at(&view, "/usr/local/app"), None);
        assert_eq!(at(&view, "/opt/a/b"), None);
        assert_eq!(at(&view, "/srv/h/u/m/bin/server"), None);
        assert!(at(&view, "/usr/local/state").is_some());
        assert!(
            at(&view, "/tmp/tool").is_some(),
            "the own /tmp hides the host's"
        );
    }

    #[test]
    fn the_host_s_root_is_touched_only_where_a_directory_is_closed() {
        let home = Path::new("/var/lib/x/homes/u/m");
        assert_eq!(View::of_host(&needs(&["/opt/a"], &[], &[]), home), None);
        let view = View::of_host(&needs(&["/opt/a"], &[], &["/var/lib/x"]), home).unwrap();
        view.check().unwrap();
        let paths: Vec<_> = view.mounts.iter().map(|mount| mount.at.as_path()).collect();
        assert_eq!(paths, [Path::new("/var/lib/x"), home]);
        // What is mounted over later has a place there; elsewhere the host's is good.
        let view = view.with_dir(Path::new("/var/lib/x/secrets"));
        view.check().unwrap();
        assert_eq!(at(&view, "/var/lib/x/secrets"), Some(&Kind::Dir));
        let view = View::host().with_dir(Path::new("/var/lib/x/secrets"));
        assert_eq!(view, View::host());
    }

    #[test]
    fn a_directory_that_is_closed_and_private_is_stood_in_for_once() {
        let mut needs = needs(&["/srv/p", "/srv/p/.git/HEAD"], &[], &["/srv/p/.git"]);
        needs.hollow = vec!["/srv/p/.git".into()];
        let view = View::of_host(&needs, Path::new("/var/lib/x/homes/u/m")).unwrap();
        view.check().unwrap();
        assert_eq!(at(&view, "/srv/p/.git"), Some(&Kind::StandIn));
        assert!(at(&view, "/srv/p/.git/HEAD").is_some());
    }

    #[test]
    fn paths_that_could_lead_elsewhere_are_refused() {
        for path in ["relative", "/a/../b", "/", "/a/./b", "/a/", "/tmp/\0"] {
            let view = own(&needs(&[path], &[], &[]));
            assert!(
                matches!(view.check(), Err(PlanError::View { .. })),
                "{path:?}"
            );
        }
        let beneath = View {
            ends: BTreeMap::new(),
            base: Base::Empty,
            mounts: vec![
                Mount {
                    at: "/data".into(),
                    kind: Kind::Bind(Access::Write, Presence::Required),
                },
                Mount {
                    at: "/data/x".into(),
                    kind: Kind::Dir,
                },
            ],
        };
        assert!(beneath.check().is_err());
    }
}
