//! What a log is made from: where it is, when it turns a page, what it keeps, with which key it
//! signs.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::config::server::Durability as Wanted;
use crate::domain::audit::checkpoint::{KEY_BYTES, PublicKey, Signer};
use crate::domain::audit::{Category, Required};
use crate::domain::limits;

use super::super::clock::{Clock, HostClock, random};
use super::Durability;

/// The secret key's file.
const KEY_NAME: &str = "audit.key";
/// The public key's file.
pub const PUBLIC_KEY_NAME: &str = "audit.pub";

/// What makes bytes durable.
type SyncFn = dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync;

/// How bytes are made durable. A value of its own, so that tests can have a disk that fails.
#[derive(Clone)]
pub struct Sync(Arc<SyncFn>);

impl Sync {
    /// With this in place of `fdatasync`.
    pub fn with(
        sync: impl Fn(&File) -> io::Result<()> + Send + std::marker::Sync + 'static,
    ) -> Self {
        Self(Arc::new(sync))
    }

    pub(super) fn data(&self, file: &File) -> io::Result<()> {
        (self.0)(file)
    }
}

impl Default for Sync {
    fn default() -> Self {
        Self::with(File::sync_data)
    }
}

impl fmt::Debug for Sync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sync")
    }
}

/// What a log is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Its directory.
    pub dir: PathBuf,
    /// Where its keys are.
    pub keys: PathBuf,
    /// Whose log it is, where that is known.
    pub installation: Option<String>,
    /// Whether calls wait for the disk.
    pub durability: Durability,
    /// What is refused while the log cannot be written.
    pub required: Required,
    /// Bytes of a segment before the next begins.
    pub segment_bytes_max: u64,
    /// Age of a segment before the next begins.
    pub segment_age: Duration,
    /// Segments older than this are removed.
    pub retention: Option<Duration>,
    /// The oldest segments beyond this many bytes are removed.
    pub retention_bytes_max: Option<u64>,
    /// Between two checkpoints.
    pub checkpoint_every: Duration,
    /// Records between two checkpoints.
    pub checkpoint_records: u64,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// How bytes are made durable.
    pub sync: Sync,
}

impl Setup {
    /// A log with its keys in its own directory, for tests and benches; nothing is ever removed.
    #[must_use]
    pub fn new(dir: &Path, durability: Durability) -> Self {
        Self {
            dir: dir.to_owned(),
            keys: dir.join("keys"),
            installation: None,
            durability,
            required: Required::all(),
            segment_bytes_max: limits::AUDIT_SEGMENT_BYTES_MAX,
            segment_age: limits::AUDIT_SEGMENT_AGE,
            retention: None,
            retention_bytes_max: None,
            checkpoint_every: limits::AUDIT_CHECKPOINT_EVERY,
            checkpoint_records: limits::AUDIT_CHECKPOINT_RECORDS,
            clock: Arc::new(HostClock),
            sync: Sync::default(),
        }
    }

    /// As the configuration says.
    #[must_use]
    pub fn of(config: &Config, clock: Arc<dyn Clock>) -> Self {
        let audit = &config.audit;
        let data = &config.server.data_dir;
        let some = |value: u64| (value > 0).then_some(value);
        // The server's own name, for people; a log without one has a name of its own.
        let installation = std::fs::read_to_string(data.join("installation"));
        Self {
            dir: config.audit_dir(),
            keys: data.join("keys"),
            installation: installation.ok().map(|text| text.trim().to_owned()),
            durability: match audit.durability {
                Wanted::Durable => Durability::Durable,
                Wanted::Buffered => Durability::Buffered,
            },
            required: audit
                .required
                .iter()
                .filter_map(|word| Category::parse(word))
                .collect(),
            segment_bytes_max: audit.segment_bytes_max,
            segment_age: Duration::from_millis(audit.segment_age_ms),
            retention: some(audit.retention_ms).map(Duration::from_millis),
            retention_bytes_max: some(audit.retention_bytes_max),
            checkpoint_every: Duration::from_millis(audit.checkpoint_ms),
            checkpoint_records: audit.checkpoint_records,
            clock,
            sync: Sync::default(),
        }
    }
}

/// Reads the key that signs checkpoints, or makes it, mode 0600, with its public half beside it.
///
/// # Errors
/// What the file system says, or that the file holds no key.
pub(super) fn signer(dir: &Path) -> io::Result<Signer> {
    let path = dir.join(KEY_NAME);
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(named)?;
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
    {
        Ok(mut file) => {
            let seed: [u8; KEY_BYTES] = random();
            file.write_all(Signer::seed_to_pem(&seed).as_bytes())?;
            file.sync_all()?;
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(named(error)),
    }
    let mode = std::fs::metadata(&path)
        .map_err(named)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        let why = format!("its mode is {:o}; run: chmod 600", mode & 0o777);
        return Err(named(io::Error::other(why)));
    }
    let text = std::fs::read_to_string(&path).map_err(named)?;
    let signer = Signer::from_pem(&text).map_err(|error| named(io::Error::other(error)))?;
    publish(dir, &signer.public())?;
    Ok(signer)
}

/// Writes the public key beside the secret one, unless it is there.
fn publish(dir: &Path, key: &PublicKey) -> io::Result<()> {
    let path = dir.join(PUBLIC_KEY_NAME);
    if std::fs::read_to_string(&path).is_ok_and(|text| PublicKey::from_pem(&text) == Ok(*key)) {
        return Ok(());
    }
    std::fs::write(&path, key.to_pem())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_kept_private_and_refused_if_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let first = signer(&keys).unwrap().public();
        assert_eq!(signer(&keys).unwrap().public(), first);
        let text = std::fs::read_to_string(keys.join(PUBLIC_KEY_NAME)).unwrap();
        assert_eq!(PublicKey::from_pem(&text), Ok(first));
        let secret = keys.join(KEY_NAME);
        let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = signer(&keys).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&secret, "nonsense").unwrap();
        assert!(signer(&keys).is_err());
    }
}
