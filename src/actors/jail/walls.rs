//! From a launch to what the sandbox is asked for: the home and its uid, the profile, and what an
//! operator allows a definition to declare.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use sandbox::SpawnSpec;
use sandbox::cgroup::{Disk, IoLimit, LeafName, Limits as KernelLimits};
use sandbox::homes::{Home, Homes, no_link};
use sandbox::plan::Program;
use sandbox::plan::secret::{Secret, SecretFiles};
use sandbox::reach::{Astray, Declared, trusted_end};
use sandbox::uids::{CLAIMS, Claim, Range, RangeError, subordinate};
use secrecy::{ExposeSecret, SecretSlice};

use crate::actors::launcher::{Forbidden, Launch, LaunchError};
use crate::config::Config;
use crate::domain::confinement::{Confinement, Network, Profile};
use crate::domain::limits::UID_RANGES_TRIED;
use crate::domain::mcp::Limits;

/// What the operator says about walls.
#[derive(Debug, Clone)]
pub struct Walls {
    /// The profile of mcps that do not say otherwise.
    pub profile: Profile,
    /// Whether mcps may ask for the host's network.
    pub allow_network_host: bool,
    /// Whether hosts on an allowlist may have private addresses.
    pub allow_network_private: bool,
    /// Mcps may declare paths beneath these.
    pub path_roots: Vec<PathBuf>,
    /// The first of the uids isolates run as.
    pub uid_base: u32,
    /// How many there are.
    pub uid_count: u32,
    /// What each isolate may have of the disk of the homes.
    pub io: Option<IoLimit>,
    /// If the range is in use, the next ones are tried (`serve --dev`).
    pub any_range: bool,
}

impl Walls {
    /// From a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let sandbox = &config.sandbox;
        let homes = config.server.data_dir.join("homes");
        let limit = |bytes_per_second| IoLimit {
            disk: Disk::of(&homes),
            bytes_per_second,
        };
        Self {
            io: config.isolates.disk_bytes_per_second.map(limit),
            profile: sandbox.profile,
            allow_network_host: sandbox.allow_network_host,
            allow_network_private: sandbox.allow_network_private,
            path_roots: sandbox.path_roots.iter().map(PathBuf::from).collect(),
            uid_base: sandbox.uid_base,
            uid_count: sandbox.uid_count,
            any_range: config.server.dev,
        }
    }

    /// The range of uids; `None` if we are not root and cannot choose.
    pub(super) fn range(&self) -> Result<Option<Range>, LaunchError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let range = Range::new(self.uid_base, self.uid_count);
        range.map(Some).map_err(refused)
    }

    /// Claims the range of uids.
    pub(super) fn claim(&self) -> Result<Option<Claim>, LaunchError> {
        let Some(mut range) = self.range()? else {
            return Ok(None);
        };
        let tries = if self.any_range { UID_RANGES_TRIED } else { 1 };
        for _ in 1..tries {
            match range.claim(Path::new(CLAIMS)) {
                Err(RangeError::Taken(_) | RangeError::Overlap { .. }) => {
                    range = range.next().map_err(refused)?;
                }
                other => return other.map(Some).map_err(refused),
            }
        }
        range.claim(Path::new(CLAIMS)).map(Some).map_err(refused)
    }

    /// Who is not root: the ids that the host gives its account, or the part of them that was set, and claimed among
    /// the account's servers; why there are none.
    pub(super) fn subordinate(&self) -> Result<Claim, String> {
        let range = self.given()?;
        let folder = subordinate::claims().map_err(|error| error.to_string())?;
        range
            .claim_given(&folder)
            .map_err(|error| error.to_string())
    }

    /// The same, not claimed.
    pub(super) fn given(&self) -> Result<Range, String> {
        subordinate::of_account(Range::new(self.uid_base, self.uid_count).ok())
    }

    /// What the sandbox is asked for. Makes the home; touches the disk.
    pub(super) fn spec(
        &self,
        homes: &Homes,
        secrets: &Path,
        launch: Launch,
    ) -> Result<SpawnSpec, LaunchError> {
        let home = home(homes, &launch.home)?;
        let walls = &launch.confinement;
        let network = self.network(walls, launch.extra.trusted)?;
        let mut read = self.allowed(&walls.read)?;
        let installed = launch.extra.tree.is_some();
        // The gateway itself put it there.
        read.extend(launch.extra.tree.map(|tree| (tree.clone(), tree)));
        let declared = Declared {
            read,
            write: self.allowed(&walls.write)?.into_keys().collect(),
            homes: Some(homes.root().to_owned()),
            packages: Some(packages_beside(homes.root())),
            programs: launch.extra.programs,
            installed,
        };
        Ok(SpawnSpec {
            leaf: LeafName {
                user: launch.user.as_ref().map(|user| user.short().to_owned()),
                isolate: launch.isolate.short().to_owned(),
            },
            limits: kernel(&launch.limits),
            user_limits: kernel(&launch.user_limits),
            open_files: launch.limits.open_files,
            file_bytes: launch.limits.file_bytes,
            workdir: home.path,
            profile: profile(walls.profile.unwrap_or(self.profile)),
            network,
            ports: walls.ports(),
            identity: home.identity,
            declared,
            program: Program {
                path: launch.program,
                args: launch.args,
                env: launch.env,
            },
            secrets: files(secrets, &launch.secrets.files),
            descriptors: descriptors(&launch.secrets.descriptors),
            opening: launch.opening.to_vec(),
        })
    }

    fn network(&self, walls: &Confinement, trusted: bool) -> Result<sandbox::Network, LaunchError> {
        // What is started for the gateway itself reaches what the operator names.
        let withheld = match walls.network {
            Network::Allowlist if trusted => None,
            _ => self.withheld(walls),
        };
        if let Some(Forbidden { why, next }) = withheld {
            return Err(LaunchError::Refused {
                step: "network".to_owned(),
                detail: format!("{why}; {next}"),
            });
        }
        Ok(match walls.network {
            Network::None => sandbox::Network::None,
            Network::Loopback => sandbox::Network::Loopback,
            Network::Allowlist => sandbox::Network::Allowlist,
            Network::Host => sandbox::Network::Host,
        })
    }

    /// Why these walls' network is not given.
    pub(super) fn withheld(&self, walls: &Confinement) -> Option<Forbidden> {
        match walls.network {
            Network::Host if !self.allow_network_host => Some(Forbidden {
                why: "the definition asks for the host's network, which this server does not give"
                    .to_owned(),
                next: "set sandbox.allow_network_host, or ask for another one (--network none)"
                    .to_owned(),
            }),
            Network::Allowlist if !self.allow_network_private => {
                let private = walls.hosts.iter().find(|rule| rule.is_private())?;
                Some(Forbidden {
                    why: format!(
                        "the definition asks for `{private}`, and this server lets nobody reach \
                         private addresses"
                    ),
                    next: "set sandbox.allow_network_private, or name other hosts (--host)"
                        .to_owned(),
                })
            }
            _ => None,
        }
    }

    /// Why these walls' paths are refused whatever is there: one leads, or would lead, to none of the roots. What is not there
    /// yet is seen at the start.
    pub(super) fn outside(&self, walls: &Confinement) -> Option<Forbidden> {
        let roots: Vec<PathBuf> = self.path_roots.iter().map(|root| nearest(root)).collect();
        let mut paths = walls.read.iter().chain(&walls.write);
        let outside = |path: &&PathBuf| {
            let end = nearest(path);
            !roots.iter().any(|root| end.starts_with(root))
        };
        paths.find(outside).map(|path| leads_nowhere(path))
    }

    /// The paths and where they lead, if each leads beneath one of the roots.
    fn allowed(&self, paths: &[PathBuf]) -> Result<BTreeMap<PathBuf, PathBuf>, LaunchError> {
        let roots: Vec<PathBuf> = self
            .path_roots
            .iter()
            .filter_map(|root| root.canonicalize().ok())
            .collect();
        let refused = |path: &Path, why: String| LaunchError::Refused {
            step: "paths".to_owned(),
            detail: format!("the definition declares `{}`, {why}", path.display()),
        };
        paths
            .iter()
            .map(|path| {
                let end = trusted_end(path).map_err(|astray| {
                    let why = match astray {
                        Astray::Unopened(error) => format!("which cannot be opened: {error}"),
                        Astray::Foreign(link) => format!(
                            "and `{}` on the way is a link that neither root nor the gateway's \
                             account made; declare where it leads",
                            link.display()
                        ),
                    };
                    refused(path, why)
                })?;
                if roots.iter().any(|root| end.starts_with(root)) {
                    // The view holds it at its own path; a link on the way is followed only to read, and
                    // must lead there still when it is.
                    return Ok((path.clone(), end));
                }
                let Forbidden { why, next } = leads_nowhere(path);
                Err(LaunchError::Refused {
                    step: "paths".to_owned(),
                    detail: format!("{why}; {next}"),
                })
            })
            .collect()
    }
}

fn leads_nowhere(path: &Path) -> Forbidden {
    Forbidden {
        why: format!(
            "the definition declares `{}`, which leads to none of sandbox.path_roots",
            path.display()
        ),
        next: "add its root to sandbox.path_roots, or name another path (--read, --write)"
            .to_owned(),
    }
}

/// Where a path leads, as far as it is there.
fn nearest(path: &Path) -> PathBuf {
    for above in path.ancestors() {
        if let Ok(end) = above.canonicalize() {
            let rest = path.strip_prefix(above).unwrap_or(Path::new(""));
            // An empty rest would add a slash.
            return match rest.as_os_str().is_empty() {
                true => end,
                false => end.join(rest),
            };
        }
    }
    path.to_owned()
}

/// Makes the directory that profile `none` mounts secret files on, beside the homes: everybody may
/// pass it, and it stays empty.
pub(super) fn secrets_beside(homes: &Path) -> Result<PathBuf, LaunchError> {
    let dir = homes.parent().unwrap_or(homes).join("secrets");
    let made = DirBuilder::new().recursive(true).mode(0o755).create(&dir);
    let plain = made.and_then(|()| no_link(&dir));
    let set = plain.and_then(|()| std::fs::set_permissions(&dir, Permissions::from_mode(0o755)));
    match set {
        Ok(()) => Ok(dir),
        Err(error) => Err(LaunchError::Refused {
            step: "secrets".to_owned(),
            detail: format!("cannot make {}: {error}", dir.display()),
        }),
    }
}

/// Where installed packages are.
pub(in crate::actors) fn packages_beside(homes: &Path) -> PathBuf {
    homes.parent().unwrap_or(homes).join("packages")
}

fn files(dir: &Path, values: &BTreeMap<String, SecretSlice<u8>>) -> Option<SecretFiles> {
    let secret = |value: &SecretSlice<u8>| Secret::new(value.expose_secret().to_vec().into());
    (!values.is_empty()).then(|| SecretFiles {
        dir: dir.to_owned(),
        files: values
            .iter()
            .map(|(name, value)| (name.clone(), secret(value)))
            .collect(),
    })
}

fn descriptors(values: &BTreeMap<i32, SecretSlice<u8>>) -> BTreeMap<i32, Secret> {
    let secret = |value: &SecretSlice<u8>| Secret::new(value.expose_secret().to_vec().into());
    values
        .iter()
        .map(|(number, value)| (*number, secret(value)))
        .collect()
}

fn refused(error: RangeError) -> LaunchError {
    LaunchError::Refused {
        step: sandbox::Facility::UserRange.name().to_owned(),
        detail: error.to_string(),
    }
}

/// The home of a launch, `<homes>/<owner>/<name>`.
fn home(homes: &Homes, path: &Path) -> Result<Home, LaunchError> {
    let refused = |why: String| LaunchError::Refused {
        step: "home".to_owned(),
        detail: format!("cannot make {}: {why}", path.display()),
    };
    let text =
        |part: Option<&std::ffi::OsStr>| part.and_then(|part| part.to_str()).map(str::to_owned);
    let owner = text(path.parent().and_then(Path::file_name));
    match (owner, text(path.file_name())) {
        (Some(owner), Some(name)) if homes.root().join(&owner).join(&name) == path => homes
            .prepare(&owner, &name)
            .map_err(|error| match error.raw_os_error() {
                // A disk that is full now.
                Some(errno) if super::is_passing(errno) => {
                    LaunchError::Busy(format!("cannot make {}: {error}", path.display()))
                }
                _ => refused(error.to_string()),
            }),
        _ => Err(refused(format!(
            "no home is beneath {}",
            homes.root().display()
        ))),
    }
}

/// The sandbox's word for a profile.
pub(super) const fn profile(profile: Profile) -> sandbox::Profile {
    match profile {
        Profile::None => sandbox::Profile::None,
        Profile::Standard => sandbox::Profile::Standard,
        Profile::Strict => sandbox::Profile::Strict,
    }
}

pub(super) const fn kernel(limits: &Limits) -> KernelLimits {
    KernelLimits {
        memory_bytes: limits.memory_bytes,
        pids: limits.pids,
        cpu_millis: limits.cpu_millis,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walls(root: &Path, allow_network_host: bool) -> Walls {
        Walls {
            profile: Profile::Strict,
            allow_network_host,
            allow_network_private: false,
            path_roots: vec![root.to_owned()],
            uid_base: 1_800_000_000,
            uid_count: 2,
            io: None,
            any_range: false,
        }
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, LaunchError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn the_host_s_network_is_the_operator_s_to_give() {
        let wanted = Confinement {
            network: Network::Host,
            ..Confinement::default()
        };
        let root = Path::new("/srv");
        let text = refusal(walls(root, false).network(&wanted, false));
        assert!(text.contains("set sandbox.allow_network_host"), "{text}");
        let given = walls(root, true).network(&wanted, false).unwrap();
        assert_eq!(given, sandbox::Network::Host);
    }

    #[test]
    fn private_addresses_are_the_operator_s_to_give() {
        let wanted = |host: &str| Confinement {
            network: Network::Allowlist,
            hosts: vec![host.parse().unwrap()],
            ..Confinement::default()
        };
        let mut walls = walls(Path::new("/srv"), false);
        assert!(walls.network(&wanted("api.example.com"), false).is_ok());
        let text = refusal(walls.network(&wanted("db.corp:5432/private"), false));
        assert!(
            text.contains("db.corp:5432/private") && text.contains("allow_network_private"),
            "{text}"
        );
        walls.allow_network_private = true;
        assert!(
            walls
                .network(&wanted("db.corp:5432/private"), false)
                .is_ok()
        );
    }

    #[test]
    fn an_isolate_s_proxy_is_where_the_sandbox_puts_it() {
        use crate::domain::limits::{EGRESS_PORTS_MAX, EGRESS_PROXY_PORT};
        assert_eq!(EGRESS_PROXY_PORT, sandbox::plan::PROXY_PORT);
        assert_eq!(EGRESS_PORTS_MAX, sandbox::plan::PORTS_MAX);
    }

    /// A gateway was made to open /etc and /root to everybody by a link in its data directory.
    #[test]
    fn a_link_in_the_place_of_homes_or_secrets_is_refused_and_not_followed() {
        let tree = tempfile::tempdir().unwrap();
        let (private, data) = (tree.path().join("private"), tree.path().join("data"));
        std::fs::create_dir(&data).unwrap();
        DirBuilder::new().mode(0o700).create(&private).unwrap();
        for name in ["homes", "secrets"] {
            std::os::unix::fs::symlink(&private, data.join(name)).unwrap();
        }
        let homes = data.join("homes");
        let error = Homes::open(&homes, None, None).unwrap_err();
        assert!(error.to_string().contains("symbolic link"), "{error}");
        let text = refusal(secrets_beside(&homes));
        assert!(
            text.contains("symbolic link") && text.contains("secrets"),
            "{text}"
        );
        let mode = private.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "nothing was changed");
    }

    #[test]
    fn declared_paths_stay_beneath_the_roots_wherever_links_lead() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().join("root");
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("link")).unwrap();
        let walls = walls(&root, false);
        let docs = vec![root.join("docs")];
        let allowed = walls.allowed(&docs).unwrap();
        assert_eq!(allowed.into_keys().collect::<Vec<_>>(), docs);
        for bad in [root.join("link"), "/etc".into(), root.join("../root-2")] {
            let text = refusal(walls.allowed(&[bad]));
            assert!(text.starts_with("paths: the definition declares"), "{text}");
        }
        // At once, as far as it can be known without anything being there.
        let declares = |path: PathBuf| Confinement {
            read: vec![path],
            ..Confinement::default()
        };
        for good in ["docs", "later", "later/and/deeper"] {
            assert_eq!(walls.outside(&declares(root.join(good))), None, "{good}");
        }
        for bad in [
            root.join("link/passwd"),
            "/etc/x".into(),
            tree.path().join("root-2"),
        ] {
            assert!(walls.outside(&declares(bad.clone())).is_some(), "{bad:?}");
        }
    }

    /// One mcp's server put a link to another's files where a third one reads.
    #[test]
    fn a_link_that_an_isolate_made_is_not_followed() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path().join("root");
        std::fs::create_dir_all(root.join("secret")).unwrap();
        std::fs::create_dir_all(root.join("written")).unwrap();
        let link = root.join("written/docs");
        std::os::unix::fs::symlink(root.join("secret"), &link).unwrap();
        std::os::unix::fs::symlink(&link, root.join("by-way-of")).unwrap();
        let walls = walls(&root, false);
        for path in [link.clone(), root.join("by-way-of")] {
            assert!(walls.allowed(&[path]).is_ok(), "the operator's own");
        }
        std::os::unix::fs::lchown(&link, Some(1_800_000_000), None).unwrap();
        for path in [link, root.join("by-way-of")] {
            let text = refusal(walls.allowed(&[path]));
            assert!(
                text.contains("written/docs` on the way is a link"),
                "{text}"
            );
        }
    }
}
