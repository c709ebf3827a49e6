//! TLS: where the certificate comes from, and exchanging it without a restart.
//!
//! `self` makes a certificate on the first start and keeps it; `files` reads what the operator
//! gives and reads it again when it changes; `off` is no [`Tls`] at all. A certificate that cannot
//! be loaded later leaves the one in use in place, with an error in the log.
//!
//! rustls with aws-lc-rs, named explicitly: the process has no default provider.

mod own;
mod x509;

use std::convert::Infallible;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::config::regular;
use crate::domain::account::Millis;
use crate::domain::limits::{PEM_BYTES_MAX, TLS_RELOAD_EVERY};

pub use own::local_names;

/// Tells the wall time; the caller's clock, so that tests can set it.
pub type WallClock = Arc<dyn Fn() -> Millis + Send + Sync>;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Self-signed, made on the first start and kept in `dir`, for these names and addresses.
    Own {
        /// Where certificate and key are kept.
        dir: PathBuf,
        /// What the certificate is for; see [`local_names`].
        names: Vec<String>,
    },
    /// The operator's files, PEM.
    Files {
        /// The certificate and its chain.
        cert: PathBuf,
        /// The private key.
        key: PathBuf,
    },
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file could not be read.
    #[error("cannot read {path}; check that it exists and that this user may read it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} is not usable: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what it should be.
        reason: String,
    },
    /// Certificate and key do not belong together, or rustls does not take them.
    #[error("the certificate in {cert} cannot be used with the key in {key}")]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// A self-signed certificate could not be made.
    #[error("cannot make a self-signed certificate")]
    Make {
        /// Why.
        source: rcgen::Error,
    },
    /// A self-signed certificate could not be kept.
    #[error("cannot write {path}; check that the data directory is writable")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What a look at the files came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing changed.
    Same,
    /// New handshakes get a new certificate.
    Exchanged,
}

/// The certificate in use. New handshakes take the newest; connections keep theirs.
pub struct Tls {
    source: Source,
    /// Whose certificates clients must show, if they must.
    client_ca: Option<PathBuf>,
    now: WallClock,
    current: ArcSwap<Loaded>,
    /// What the files looked like when they were last read, whether that went well or not.
    seen: Mutex<Option<Seen>>,
}

#[derive(Debug)]
struct Loaded {
    config: Arc<ServerConfig>,
    fingerprint: String,
    not_after: Option<Millis>,
    /// Whether it says what its key is for; see [`own`].
    has_key_usage: bool,
    /// Whether we made it, and make it again.
    is_ours: bool,
}

/// Changes whenever a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen([(i64, i64, u64, u64); 3]);

// === impl Tls ===

impl Tls {
    /// Loads the certificate, and makes it first where it is our own and missing, unusable or
    /// near its end. Reads files: not for a runtime thread in use.
    ///
    /// # Errors
    /// [`TlsError`], which names the file and the reason.
    pub fn load(source: Source, now: WallClock) -> Result<Arc<Self>, TlsError> {
        Self::load_trusting(source, None, now)
    }

    /// The same for clients who must show a certificate of these authorities.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn load_trusting(
        source: Source,
        client_ca: Option<PathBuf>,
        now: WallClock,
    ) -> Result<Arc<Self>, TlsError> {
        let loaded = prepare(&source, client_ca.as_deref(), now())?;
        let seen = Seen::of(&source, client_ca.as_deref());
        let current = ArcSwap::from_pointee(loaded);
        Ok(Arc::new(Self {
            source,
            client_ca,
            now,
            current,
            seen: Mutex::new(seen),
        }))
    }

    /// The configuration for the next handshake.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// SHA-256 of the certificate, as browsers and `openssl x509 -fingerprint -sha256` show it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.current.load().fingerprint.clone()
    }

    /// When the certificate in use ends.
    #[must_use]
    pub fn not_after(&self) -> Option<Millis> {
        self.current.load().not_after
    }

    /// The file that a client may be told to trust.
    #[must_use]
    pub fn cert_path(&self) -> PathBuf {
        self.source.paths().0
    }

    /// Looks whether the files changed (or our own certificate is near its end) and loads them if
    /// so. After a failure the old certificate stays, and the next change is tried again.
    ///
    /// # Errors
    /// [`TlsError`], as [`Tls::load`].
    pub fn refresh(&self) -> Result<Refreshed, TlsError> {
        let now = (self.now)();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let client_ca = self.client_ca.as_deref();
        let looks = Seen::of(&self.source, client_ca);
        let ending = matches!(self.source, Source::Own { .. })
            && self.current.load().is_ours
            && self.not_after().is_some_and(|end| own::is_ending(end, now));
        if looks == *seen && !ending {
            return Ok(Refreshed::Same);
        }
        *seen = looks;
        let loaded = prepare(&self.source, client_ca, now)?;
        // Making a certificate changes the files.
        *seen = Seen::of(&self.source, client_ca);
        self.current.store(Arc::new(loaded));
        Ok(Refreshed::Exchanged)
    }

    /// Refreshes every [`TLS_RELOAD_EVERY`], for as long as it is polled.
    pub async fn watch(self: &Arc<Self>) -> Infallible {
        loop {
            tokio::time::sleep(TLS_RELOAD_EVERY).await;
            let tls = Arc::clone(self);
            match tokio::task::spawn_blocking(move || tls.refresh()).await {
                Ok(Ok(Refreshed::Same)) => {}
                Ok(Ok(Refreshed::Exchanged)) => {
                    tracing::info!(fingerprint = self.fingerprint(), "certificate exchanged");
                }
                Ok(Err(error)) => {
                    let why = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::error!(%error, why, "certificate not exchanged; the old one stays");
                }
                Err(error) => tracing::error!(%error, "looking at the certificate failed"),
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("source", &self.source)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

// === impl Source ===

impl Source {
    fn paths(&self) -> (PathBuf, PathBuf) {
        match self {
            Self::Own { dir, .. } => own::paths(dir),
            Self::Files { cert, key } => (cert.clone(), key.clone()),
        }
    }
}

// === impl Seen ===

impl Seen {
    /// `None` while a file is missing.
    fn of(source: &Source, client_ca: Option<&Path>) -> Option<Self> {
        let look = |path: &Path| {
            let found = fs::metadata(path).ok()?;
            Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
        };
        let (cert, key) = source.paths();
        let ca = match client_ca {
            Some(file) => look(file)?,
            None => (0, 0, 0, 0),
        };
        Some(Self([look(&cert)?, look(&key)?, ca]))
    }
}

/// Looks whether the operator's files could be served with: certificate and key, and the authorities whose clients are let
/// in. Makes nothing. The end of the certificate, where there is one.
///
/// # Errors
/// As [`Tls::load`].
pub fn look(
    files: Option<(&Path, &Path)>,
    client_ca: Option<&Path>,
) -> Result<Option<Millis>, TlsError> {
    if let Some((cert, key)) = files {
        return load(cert, key, client_ca).map(|loaded| loaded.not_after);
    }
    if let Some(file) = client_ca {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        verifier(file, &provider)?;
    }
    Ok(None)
}

fn prepare(source: &Source, client_ca: Option<&Path>, now: Millis) -> Result<Loaded, TlsError> {
    if let Source::Own { dir, names } = source {
        own::ensure(dir, names, now)?;
    }
    let (cert, key) = source.paths();
    load(&cert, &key, client_ca)
}

fn load(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Loaded, TlsError> {
    let chain = read_chain(cert)?;
    let private = read_key(key)?;
    let Some(leaf) = chain.first() else {
        return Err(content(
            cert,
            "it holds no certificate; a PEM file with one is wanted",
        ));
    };
    let fingerprint = fingerprint(leaf);
    let not_after = x509::not_after(leaf);
    let has_key_usage = x509::has_key_usage(leaf);
    let is_ours = own::is_ours(leaf);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = client_ca
        .map(|file| verifier(file, &provider))
        .transpose()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            match clients {
                Some(clients) => builder.with_client_cert_verifier(clients),
                None => builder.with_no_client_auth(),
            }
            .with_single_cert(chain, private)
        })
        .map_err(|source| TlsError::Pair {
            cert: cert.into(),
            key: key.into(),
            source,
        })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Loaded {
        config: Arc::new(config),
        fingerprint,
        not_after,
        has_key_usage,
        is_ours,
    })
}

/// Lets in only who has a certificate of the authorities in this file.
fn verifier(
    file: &Path,
    provider: &Arc<rustls::crypto::CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in read_chain(file)? {
        roots
            .add(authority)
            .map_err(|error| content(file, format!("it holds no authority: {error}")))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| content(file, format!("it holds no authority to trust: {error}")))
}

fn content(path: &Path, reason: impl Into<String>) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        reason: reason.into(),
    }
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(&read_bounded(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| content(path, format!("it is not PEM: {error}")))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = zeroize::Zeroizing::new(read_bounded(path)?);
    // The text of the cause never quotes the key.
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| {
        content(
            path,
            format!("it holds no private key (PKCS#8, PKCS#1 or SEC1, PEM): {error}"),
        )
    })
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = regular::open(path).map_err(failed)?;
    file.take(PEM_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read > PEM_BYTES_MAX) {
        return Err(content(
            path,
            format!("it is larger than {PEM_BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

fn fingerprint(cert: &CertificateDer<'_>) -> String {
    let hex: Vec<String> = Sha256::digest(cert)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    hex.join(":")
}

#[cfg(test)]
mod tests;
