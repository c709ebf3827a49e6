//! What one install is started with: the installer's own definition, its order, what it reaches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{SecretSlice, SecretString};

use super::super::ctx::Ctx;
use super::super::launcher::Extra;
use super::super::plan::{beside, find_program};
use super::super::sync::Mutex;
use super::login::{Logins, NPMRC};
use crate::config::install::Install as Settings;
use crate::domain::confinement::{Confinement, Network, Profile};
use crate::domain::credential::CredentialSlots;
use crate::domain::egress::Rule;
use crate::domain::egress::site::Site;
use crate::domain::limits::INSTALL_MEMORY_BYTES;
use crate::domain::mcp::{Capture, Limits, Mcp, McpState, Program, Sharing, Times};
use crate::domain::package::{Install, Manager, Order, Package, Step};
use crate::domain::redact::Redactor;
use crate::domain::talk::Talk;

/// The file of the operator's authorities, beneath the secrets of an install.
const CA_FILE: &str = "ca.pem";
/// Bytes of it.
const CA_BYTES_MAX: u64 = 4 << 20;
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
/// The port of a registry that nobody named.
const HTTPS: u16 = 443;

/// One install.
#[derive(Debug)]
pub(super) struct Job {
    /// The installer, as a definition of its own under the mcp's name and id.
    pub(super) mcp: Mcp,
    /// What it is asked to do.
    pub(super) order: Order,
    /// What it has besides.
    pub(super) extra: Extra,
    /// Files that only it sees.
    pub(super) files: BTreeMap<String, SecretSlice<u8>>,
    /// Variables that are in no definition.
    pub(super) env: BTreeMap<String, SecretString>,
    /// Takes what it is let in with out of what is written.
    pub(super) redactor: Option<Arc<Redactor>>,
    /// The first host it was not let go to, and why.
    pub(super) denied: Mutex<Option<String>>,
}

impl Job {
    /// Looks up what an install needs. Blocks.
    ///
    /// # Errors
    /// A program of the host is missing, or the operator's file of authorities: in words.
    pub(super) fn new(ctx: &Ctx, mcp: &Mcp, package: &Package) -> Result<Self, String> {
        let settings = &ctx.config.install;
        let path = &beside(&mcp.program.command, &ctx.settings.path);
        let manager = package.manager;
        let program = find_program(manager.as_str(), path).map_err(|error| error.to_string())?;
        let (python, programs) = match manager {
            Manager::Npm => {
                let node = find_program("node", path).map_err(|error| error.to_string())?;
                (None, vec![program.clone(), node])
            }
            Manager::Uv => {
                let python = python(package.python.as_deref(), path)?;
                (Some(python.clone()), vec![program.clone(), python])
            }
        };
        let logins = Logins::read(settings, manager)?;
        if mcp.install.scripts && logins.is_inside() {
            // Theirs is all that the installer's isolate holds.
            let why = "its packages' own programs are to run during the install (--install-scripts), which would \
                       have them read what the registry is opened with";
            return Err(why.to_owned());
        }
        let mut files = logins.files;
        if let Some(file) = &settings.ca_file {
            files.insert(CA_FILE.to_owned(), read(file)?.into());
        }
        let executable = ctx.packages.executable.as_ref();
        let executable = executable.ok_or("the gateway's own program was not found")?;
        let profile = mcp
            .confinement
            .profile
            .unwrap_or(ctx.config.sandbox.profile);
        // Without walls it would have the host's network, and no list held it.
        let profile = match profile {
            Profile::None => Profile::Standard,
            walls => walls,
        };
        let confinement = Confinement {
            network: Network::Allowlist,
            hosts: hosts(settings, manager),
            ..Confinement::default()
        };
        Ok(Self {
            mcp: Mcp {
                id: mcp.id.clone(),
                name: mcp.name.clone(),
                description: String::new(),
                state: McpState::Published,
                sharing: Sharing::Shared,
                program: Program {
                    command: executable.display().to_string(),
                    args: vec!["installer".to_owned()],
                    env: variables(settings, manager, files.contains_key(NPMRC)),
                    remote: None,
                },
                limits: Limits {
                    memory_bytes: INSTALL_MEMORY_BYTES,
                    cpu_millis: 2 * Limits::default().cpu_millis,
                    pids: 2 * Limits::default().pids,
                    ..Limits::default()
                },
                times: Times {
                    idle_ms: None,
                    ..Times::default()
                },
                as_configured: BTreeSet::new(),
                confinement: Confinement {
                    profile: Some(profile),
                    ..confinement
                },
                install: Install {
                    step: Step::Off,
                    ..Install::default()
                },
                audit_arguments: Capture::None,
                talk: Talk::default(),
                credentials: CredentialSlots::new(),
            },
            order: Order {
                manager,
                program,
                specs: package.specs.clone(),
                command: package.command.clone(),
                python,
                scripts: mcp.install.scripts,
                locked: BTreeMap::new(),
            },
            extra: Extra {
                remote: None,
                programs,
                tree: None,
                trusted: true,
                proxy: settings.proxy.clone(),
                proxy_login: logins.proxy,
            },
            files,
            env: logins.env,
            redactor: logins.redactor,
            denied: Mutex::default(),
        })
    }
}

/// The registry of a package manager, if one is set.
const fn registry(settings: &Settings, manager: Manager) -> Option<&Site> {
    match manager {
        Manager::Npm => settings.npm_registry.as_ref(),
        Manager::Uv => settings.python_index.as_ref(),
    }
}

fn hosts(settings: &Settings, manager: Manager) -> Vec<Rule> {
    let named = settings.hosts.iter().filter_map(|host| host.parse().ok());
    let registry = registry(settings, manager).map(Site::rule);
    let all: Vec<Rule> = registry.into_iter().chain(named).collect();
    if all.is_empty() {
        return vec![Rule::anywhere(HTTPS)];
    }
    all
}

/// The environment of the package manager. `{home}` and `{secrets}` are filled in as everywhere.
fn variables(settings: &Settings, manager: Manager, has_npmrc: bool) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut set = |name: &str, value: &str| all.insert(name.to_owned(), value.to_owned());
    let ca_file = format!("{{secrets}}/{CA_FILE}");
    let ca_file = settings.ca_file.as_ref().map(|_| ca_file.as_str());
    match manager {
        Manager::Npm => {
            set("npm_config_cache", "{home}/cache");
            let own = match has_npmrc {
                true => "{secrets}/npmrc",
                false => "{home}/npmrc",
            };
            set("npm_config_userconfig", own);
            if let Some(file) = ca_file {
                set("npm_config_cafile", file);
                set("NODE_EXTRA_CA_CERTS", file);
            }
        }
        Manager::Uv => {
            set("UV_CACHE_DIR", "{home}/cache");
            set("UV_NO_CONFIG", "1");
            set("UV_NO_PROGRESS", "1");
            set("UV_PYTHON_DOWNLOADS", "never");
            if let Some(file) = ca_file {
                set("SSL_CERT_FILE", file);
            }
        }
    }
    if let Some(registry) = registry(settings, manager) {
        match manager {
            Manager::Npm => set("npm_config_registry", registry.url()),
            Manager::Uv => set("UV_DEFAULT_INDEX", registry.url()),
        };
    }
    all
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let mut options = File::options();
    // A pipe in its place would be waited for.
    let opened = options.read(true).custom_flags(NONBLOCK).open(file);
    let opened = opened.and_then(|file| match file.metadata()?.is_file() {
        true => file.take(CA_BYTES_MAX).read_to_end(&mut text),
        false => Err(std::io::Error::other("it is no file")),
    });
    match opened {
        Ok(_) => Ok(text),
        Err(error) => Err(format!("install.ca_file, {}: {error}", file.display())),
    }
}

/// The host's Python: the program itself, not a script that looks for one.
fn python(version: Option<&str>, path: &str) -> Result<PathBuf, String> {
    let name = format!("python{}", version.unwrap_or("3"));
    let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
    let found = dirs
        .filter_map(|dir| Path::new(dir).join(&name).canonicalize().ok())
        .find(|file| is_program(file));
    found.ok_or_else(|| {
        format!("`{name}` was not found in {path}; install it, or set isolates.path")
    })
}

fn is_program(file: &Path) -> bool {
    let mut first = [0; 4];
    let read = File::open(file).and_then(|mut file| file.read_exact(&mut first));
    read.is_ok() && first == *b"\x7fELF"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_install_reaches_its_registry_or_the_world_and_never_both() {
        let mut settings = Settings::default();
        let shown = |settings: &Settings, manager| -> Vec<String> {
            hosts(settings, manager)
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(shown(&settings, Manager::Npm), ["*:443"]);
        settings.npm_registry = Some("http://10.0.0.7:4873/".parse().unwrap());
        assert_eq!(shown(&settings, Manager::Npm), ["10.0.0.7:4873/private"]);
        assert_eq!(shown(&settings, Manager::Uv), ["*:443"]);
        settings.hosts = vec!["files.corp".to_owned()];
        assert_eq!(
            shown(&settings, Manager::Npm),
            ["10.0.0.7:4873/private", "files.corp:443"]
        );
        assert_eq!(shown(&settings, Manager::Uv), ["files.corp:443"]);
    }

    #[test]
    fn a_python_is_a_program_and_not_a_script() {
        let dirs = tempfile::tempdir().unwrap();
        let (shims, real) = (dirs.path().join("shims"), dirs.path().join("real"));
        for (dir, text) in [(&shims, "#!/bin/sh\n"), (&real, "\x7fELF")] {
            std::fs::create_dir(dir).unwrap();
            std::fs::write(dir.join("python3"), text).unwrap();
        }
        let path = format!("{}:{}", shims.display(), real.display());
        let found = python(None, &path).unwrap();
        assert_eq!(found, real.join("python3").canonicalize().unwrap());
        let text = python(Some("3.99"), &path).unwrap_err();
        assert!(text.contains("`python3.99` was not found"), "{text}");
    }
}
