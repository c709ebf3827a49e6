//! What the bridge is told: a configuration file, then the environment, then flags.
//!
//! The key never stands on a command line, where everybody on the machine can read it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::endpoint::Endpoint;
use crate::cli::error::CliError;
use crate::domain::code::Code;
use crate::domain::hex::hex;
use crate::domain::limits::{BRIDGE_FILE_BYTES_MAX, PRESENTED_KEY_BYTES_MAX};

/// The variable that holds the address.
pub(in crate::cli) const URL_VARIABLE: &str = "LEGATION_URL";
/// The variable that holds the key.
pub(in crate::cli) const KEY_VARIABLE: &str = "LEGATION_KEY";

#[derive(Debug, Args)]
pub(in crate::cli) struct BridgeArgs {
    /// Where the server is: https://HOST:8443/mcp, or /mcp/NAME (also: the variable LEGATION_URL)
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A file with the key alone, mode 0600 (else the variable LEGATION_KEY)
    #[arg(long, value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// A TOML file with url, key_file, ca_file, log_file, cache_file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Certificate authorities to trust, PEM [default: the system's]
    #[arg(long, value_name = "PEM")]
    ca_file: Option<PathBuf>,
    /// Take any certificate; only for a server on this machine
    #[arg(long)]
    allow_self_signed: bool,
    /// Where the bridge logs [default: legation/bridge.log in the user's state directory]
    #[arg(long, value_name = "FILE")]
    log_file: Option<PathBuf>,
    /// Where the last good answers are kept [default: in the user's cache directory]
    #[arg(long, value_name = "FILE")]
    cache_file: Option<PathBuf>,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    url: Option<String>,
    key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    log_file: Option<PathBuf>,
    cache_file: Option<PathBuf>,
}

/// Whom to trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) enum Trust {
    /// The system's authorities.
    System,
    /// Those in a file.
    File(PathBuf),
    /// Anybody on this machine.
    Anybody,
}

/// What the bridge works with.
#[derive(Debug)]
pub(in crate::cli) struct Settings {
    pub(in crate::cli) endpoint: Endpoint,
    pub(in crate::cli) key: SecretString,
    /// Where that came from, if from a file.
    pub(super) key_file: Option<PathBuf>,
    pub(in crate::cli) trust: Trust,
    pub(super) log_file: Option<PathBuf>,
    pub(super) cache_file: Option<PathBuf>,
}

/// The variables that are looked at.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

// === impl Settings ===

impl Settings {
    /// Puts the layers together.
    ///
    /// # Errors
    /// What is missing or wrong, and where it is to be mended.
    pub(super) fn of(args: BridgeArgs, environment: Environment<'_>) -> Result<Self, CliError> {
        let variable = |name: &str| environment(name).filter(|text| !text.is_empty());
        let file = match &args.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        let url = args.url.or_else(|| variable(URL_VARIABLE)).or(file.url);
        let endpoint = endpoint(url.as_deref())?;
        let (key, key_file) = match (args.key_file, variable(KEY_VARIABLE), file.key_file) {
            (Some(path), ..) | (None, None, Some(path)) => (key_of_file(&path)?, Some(path)),
            (None, Some(text), _) => (key(&text, &format!("the variable {KEY_VARIABLE}"))?, None),
            (None, None, None) => return Err(no_key()),
        };
        let trust = trust(
            args.ca_file.or(file.ca_file),
            args.allow_self_signed,
            &endpoint,
        )?;
        let home = |first: &str, then: &str| {
            variable(first)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
                .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(then)))
                .map(|folder| folder.join("legation"))
        };
        let cache_name = format!("bridge-{}.json", short(&endpoint, &key));
        Ok(Self {
            log_file: args
                .log_file
                .or(file.log_file)
                .or_else(|| Some(home("XDG_STATE_HOME", ".local/state")?.join("bridge.log"))),
            cache_file: args
                .cache_file
                .or(file.cache_file)
                .or_else(|| Some(home("XDG_CACHE_HOME", ".cache")?.join(cache_name))),
            endpoint,
            key,
            key_file,
            trust,
        })
    }

    /// Names this server and this key, and tells neither.
    pub(super) fn fingerprint(&self) -> String {
        fingerprint(&self.endpoint, &self.key)
    }
}

/// What is wrong with a file, and where; not the line, which may be somebody's key.
pub(in crate::cli) fn unquoted(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    format!("line {line}: {}", error.message())
}

// === impl ConfigFile ===

impl ConfigFile {
    fn read(path: &Path) -> Result<Self, CliError> {
        let text = read_small(path).map_err(|why| {
            wrong(
                format!("cannot read the configuration {}: {why}", path.display()),
                "name another one with --config FILE",
            )
        })?;
        let mut file: Self = toml::from_str(&text).map_err(|error| {
            wrong(
                format!(
                    "{} is not usable: {}",
                    path.display(),
                    unquoted(&error, &text)
                ),
                "it may have url, key_file, ca_file, log_file and cache_file, each a text",
            )
        })?;
        // Relative to the file itself: an AI tool starts the bridge anywhere.
        let folder = path.parent().unwrap_or(Path::new(""));
        for one in [
            &mut file.key_file,
            &mut file.ca_file,
            &mut file.log_file,
            &mut file.cache_file,
        ] {
            *one = one.take().map(|path| folder.join(path));
        }
        Ok(file)
    }
}

/// The address that was given, or what is wrong with it.
pub(in crate::cli) fn endpoint(url: Option<&str>) -> Result<Endpoint, CliError> {
    let next = format!("--url https://HOST:8443/mcp, or the variable {URL_VARIABLE}");
    match url {
        None => Err(wrong("no address of a server is given".to_owned(), &next)),
        Some(url) => Endpoint::parse(url)
            .map_err(|why| wrong(format!("the server's address is wrong: {why}"), &next)),
    }
}

/// Whom to trust for this address.
pub(in crate::cli) fn trust(
    ca_file: Option<PathBuf>,
    anybody: bool,
    endpoint: &Endpoint,
) -> Result<Trust, CliError> {
    match (ca_file, anybody) {
        (Some(_), true) => Err(wrong(
            "a CA file and --allow-self-signed do not go together".to_owned(),
            "leave --allow-self-signed away: the file can have a self-signed certificate",
        )),
        (None, true) if !endpoint.is_loopback() => Err(wrong(
            format!("--allow-self-signed is only for a server on this machine, not {endpoint}"),
            "give the server's certificate, or its CA's, with --ca-file PEM",
        )),
        (None, true) => Ok(Trust::Anybody),
        (Some(path), false) => Ok(Trust::File(path)),
        (None, false) => Ok(Trust::System),
    }
}

fn no_key() -> CliError {
    wrong(
        "no key is given".to_owned(),
        &format!(
            "put it into the variable {KEY_VARIABLE}, or into a file for --key-file PATH; \
             `legation key create USER` makes one"
        ),
    )
}

/// A key that a file holds. The file must be nobody else's to read.
pub(in crate::cli) fn key_of_file(path: &Path) -> Result<SecretString, CliError> {
    let name = format!("the key file {}", path.display());
    let cannot = |why: String| wrong(format!("cannot use {name}: {why}"), "check --key-file PATH");
    let mode = std::fs::metadata(path)
        .map_err(|error| cannot(error.to_string()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(wrong(
            format!(
                "{name} can be read by others: its mode is {:o}",
                mode & 0o777
            ),
            &format!("chmod 600 {}", path.display()),
        ));
    }
    let text = SecretString::from(read_small(path).map_err(cannot)?);
    key(text.expose_secret(), &name)
}

/// A key, as it was given by `from`.
pub(in crate::cli) fn key(text: &str, from: &str) -> Result<SecretString, CliError> {
    let text = text.trim();
    let is_key = text.bytes().all(|byte| byte.is_ascii_graphic());
    if text.is_empty() || !is_key || text.len() > PRESENTED_KEY_BYTES_MAX {
        return Err(wrong(
            format!(
                "{from} holds no key: it must be one word of at most {PRESENTED_KEY_BYTES_MAX} characters"
            ),
            "copy what `legation key create USER` printed, and nothing else",
        ));
    }
    Ok(SecretString::from(text.to_owned()))
}

fn fingerprint(endpoint: &Endpoint, key: &SecretString) -> String {
    let mut digest = Sha256::new();
    for part in [endpoint.url(), "\0", key.expose_secret()] {
        digest.update(part.as_bytes());
    }
    hex(&digest.finalize())
}

/// The beginning of it, for a file's name.
fn short(endpoint: &Endpoint, key: &SecretString) -> String {
    fingerprint(endpoint, key).chars().take(16).collect()
}

/// Reads a file that is small.
fn read_small(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(BRIDGE_FILE_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > BRIDGE_FILE_BYTES_MAX {
        return Err(format!("it has more than {BRIDGE_FILE_BYTES_MAX} bytes"));
    }
    Ok(text)
}

fn wrong(message: String, next: &str) -> CliError {
    CliError::Told {
        code: Code::ConfigInvalid,
        message,
        next: next.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "amb_pk_secretsecretsecret";

    fn args() -> BridgeArgs {
        BridgeArgs {
            url: None,
            key_file: None,
            config: None,
            ca_file: None,
            allow_self_signed: false,
            log_file: None,
            cache_file: None,
        }
    }

    fn environment(name: &str) -> Option<String> {
        let value = match name {
            URL_VARIABLE => "https://environment.example/mcp",
            KEY_VARIABLE => KEY,
            "HOME" => "/home/ada",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn nothing(_: &str) -> Option<String> {
        None
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bridge.toml");
        write(&folder.path().join("key"), "of_the_file\n", 0o600);
        let text = "url = \"https://file.example/mcp\"\nkey_file = \"key\"\nlog_file = \"x.log\"\n";
        write(&config, text, 0o644);
        let file = || BridgeArgs {
            config: Some(config.clone()),
            ..args()
        };
        let of_file = Settings::of(file(), &nothing).unwrap();
        assert_eq!(of_file.endpoint.url(), "https://file.example/mcp");
        assert_eq!(of_file.key.expose_secret(), "of_the_file");
        assert_eq!(of_file.log_file, Some(folder.path().join("x.log")));
        let of_environment = Settings::of(file(), &environment).unwrap();
        let url = "https://environment.example/mcp";
        assert_eq!(of_environment.endpoint.url(), url);
        assert_eq!(of_environment.key.expose_secret(), KEY);
        let flag = BridgeArgs {
            url: Some("https://flag.example/mcp".to_owned()),
            ..file()
        };
        let of_flag = Settings::of(flag, &environment).unwrap();
        assert_eq!(of_flag.endpoint.url(), "https://flag.example/mcp");
        assert!(!format!("{of_flag:?}").contains("secretsecret"));
    }

    #[test]
    fn each_wrong_value_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        write(&at("open"), KEY, 0o644);
        write(&at("two"), "a b", 0o600);
        write(&at("odd.toml"), "uri = \"x\"", 0o600);
        let url = || Some("https://127.0.0.1:1/mcp".to_owned());
        for (args, why) in [
            (args(), "no address"),
            (
                BridgeArgs {
                    url: url(),
                    ..args()
                },
                "no key",
            ),
            (
                BridgeArgs {
                    url: Some("x".into()),
                    ..args()
                },
                "address is wrong",
            ),
            (
                BridgeArgs {
                    url: url(),
                    key_file: Some(at("open")),
                    ..args()
                },
                "mode is 644",
            ),
            (
                BridgeArgs {
                    url: url(),
                    key_file: Some(at("two")),
                    ..args()
                },
                "no key",
            ),
            (
                BridgeArgs {
                    url: url(),
                    key_file: Some(at("none")),
                    ..args()
                },
                "none",
            ),
            (
                BridgeArgs {
                    config: Some(at("odd.toml")),
                    ..args()
                },
                "uri",
            ),
            (
                BridgeArgs {
                    config: Some(at("no.toml")),
                    ..args()
                },
                "no.toml",
            ),
        ] {
            let told = Settings::of(args, &nothing).unwrap_err();
            let text = told.render(false);
            assert!(text.contains(why) && text.contains("try: "), "{text}");
            assert!(!text.contains(KEY), "{text}");
            assert_eq!(told.exit().code(), 2);
        }
        let far = BridgeArgs {
            allow_self_signed: true,
            ..args()
        };
        let told = Settings::of(far, &environment).unwrap_err().to_string();
        assert!(told.contains("on this machine"), "{told}");
    }
}
