//! What registries and proxies ask for, from the operator's files to the installer: in a file that only its isolate
//! sees, or in its environment; never on a command line, in the definition or in a record.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretSlice, SecretString};

use crate::config::install::Install as Settings;
use crate::domain::login::Login;
use crate::domain::name::CredentialName;
use crate::domain::package::Manager;
use crate::domain::redact::Redactor;

/// Bytes of a file with a login.
const LOGIN_BYTES_MAX: u64 = 4 << 10;
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
/// npm's own configuration, among the secret files of the installer.
pub(super) const NPMRC: &str = "npmrc";

/// What an install is let in with.
#[derive(Debug, Default)]
pub(super) struct Logins {
    /// Files that only the installer sees.
    pub(super) files: BTreeMap<String, SecretSlice<u8>>,
    /// Variables of its environment.
    pub(super) env: BTreeMap<String, SecretString>,
    /// Said by the gateway, not by the installer.
    pub(super) proxy: Option<Arc<Login>>,
    /// Takes all of it out of what is written.
    pub(super) redactor: Option<Arc<Redactor>>,
}

impl Logins {
    /// Reads what is set for a package manager. Blocks.
    ///
    /// # Errors
    /// A file that is not there, that others may read, or that holds no login: in words, without what it holds.
    pub(super) fn read(settings: &Settings, manager: Manager) -> Result<Self, String> {
        let mut all = Self::default();
        let mut hidden: Vec<(CredentialName, SecretString)> = Vec::new();
        let mut hide = |name: &str, login: &Login| {
            if let Ok(name) = CredentialName::parse(name) {
                hidden.push((name, login.secret().clone()));
            }
        };
        let (key, file, site) = match manager {
            Manager::Npm => (
                "install.npm_login_file",
                &settings.npm_login_file,
                &settings.npm_registry,
            ),
            Manager::Uv => (
                "install.python_login_file",
                &settings.python_login_file,
                &settings.python_index,
            ),
        };
        if let (Some(file), Some(site)) = (file, site) {
            let login = read(key, file)?;
            hide("registry", &login);
            match manager {
                Manager::Npm => {
                    let text = login.npmrc(site);
                    let text = text.expose_secret().as_bytes().to_vec();
                    all.files.insert(NPMRC.to_owned(), text.into());
                }
                Manager::Uv => {
                    let url = login.url(site);
                    let url = url.ok_or_else(|| {
                        format!("{key}, {}: an index wants USER:PASSWORD", file.display())
                    })?;
                    all.env.insert("UV_DEFAULT_INDEX".to_owned(), url);
                }
            }
        }
        if let (Some(file), Some(_)) = (&settings.proxy_login_file, &settings.proxy) {
            let login = read("install.proxy_login_file", file)?;
            hide("proxy", &login);
            all.proxy = Some(Arc::new(login));
        }
        let texts = hidden
            .iter()
            .map(|(name, secret)| (name, secret.expose_secret().as_bytes()));
        all.redactor = Redactor::new(texts).map(Arc::new);
        Ok(all)
    }

    /// Whether whoever runs in the installer's isolate could read one.
    pub(super) fn is_inside(&self) -> bool {
        !self.files.is_empty() || !self.env.is_empty()
    }
}

/// Reads a file that is nobody else's to read.
fn read(key: &str, path: &Path) -> Result<Login, String> {
    let wrong = |why: String| format!("{key}, {}: {why}", path.display());
    let mut options = File::options();
    // A pipe in its place would be waited for.
    let opened = options.read(true).custom_flags(NONBLOCK).open(path);
    let file = opened.map_err(|error| wrong(error.to_string()))?;
    let meta = file.metadata().map_err(|error| wrong(error.to_string()))?;
    let mode = meta.permissions().mode();
    if !meta.is_file() {
        return Err(wrong("it is no file".to_owned()));
    }
    if mode & 0o077 != 0 {
        let why = format!("its mode is {:o}; run: chmod 600", mode & 0o777);
        return Err(wrong(why));
    }
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = file.take(LOGIN_BYTES_MAX + 1).read_to_string(&mut text);
    read.map_err(|error| wrong(error.to_string()))?;
    if text.len() as u64 > LOGIN_BYTES_MAX {
        return Err(wrong(format!("it has more than {LOGIN_BYTES_MAX} bytes")));
    }
    Login::parse(&text).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: &Path, text: &str, mode: u32) -> Settings {
        let file = dir.join("login");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        Settings {
            npm_registry: Some("https://npm.corp/".parse().unwrap()),
            python_index: Some("https://pypi.corp/simple".parse().unwrap()),
            proxy: Some("http://proxy.corp:8080".parse().unwrap()),
            npm_login_file: Some(file.clone()),
            python_login_file: Some(file.clone()),
            proxy_login_file: Some(file),
            ..Settings::default()
        }
    }

    #[test]
    fn each_is_given_its_own_and_what_is_written_is_without() {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path(), "ada:S3cret-of-Ada\n", 0o600);
        let npm = Logins::read(&settings, Manager::Npm).unwrap();
        let file = npm.files[NPMRC].expose_secret();
        assert!(file.starts_with(b"//npm.corp/:_auth="));
        assert!(npm.env.is_empty() && npm.is_inside());
        let uv = Logins::read(&settings, Manager::Uv).unwrap();
        let url = uv.env["UV_DEFAULT_INDEX"].expose_secret();
        assert_eq!(url, "https://ada:S3cret-of-Ada@pypi.corp/simple");
        assert!(uv.files.is_empty() && uv.proxy.is_some());
        let clean = uv.redactor.unwrap().redact_text(&format!("{url} {npm:?}"));
        assert!(!clean.contains("S3cret"), "{clean}");
        let encoded = String::from_utf8(file.to_vec()).unwrap();
        let clean = npm.redactor.unwrap().redact_text(&encoded);
        assert!(clean.contains("[redacted:registry]"), "{clean}");
    }

    #[test]
    fn a_file_that_others_may_read_or_that_is_none_is_refused_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for (text, mode, why) in [
            ("ada:S3cret\n", 0o640, "chmod 600"),
            ("S3cret S3cret\n", 0o600, "a token has"),
            ("", 0o600, "it is empty"),
        ] {
            let settings = settings(dir.path(), text, mode);
            let error = Logins::read(&settings, Manager::Npm).unwrap_err();
            assert!(error.contains("install.npm_login_file"), "{error}");
            assert!(error.contains(why) && !error.contains("S3cret"), "{error}");
        }
        let token = settings(dir.path(), "a-token\n", 0o600);
        let error = Logins::read(&token, Manager::Uv).unwrap_err();
        assert!(error.contains("USER:PASSWORD"), "{error}");
        let alone = Settings {
            npm_registry: None,
            ..settings(dir.path(), "ada:x\n", 0o600)
        };
        let none = Logins::read(&alone, Manager::Npm).unwrap();
        assert!(!none.is_inside(), "there is nobody to say it to");
    }
}
