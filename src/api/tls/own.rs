//! The certificate we make ourselves: for a first start without a certificate authority.
//!
//! The key is made once and kept (mode 0600); the certificate is made again from it when it is
//! near its end, missing, unusable, or of the kind that some clients refuse. Clients that trust the file by name keep working after a
//! look at it; those that pinned the fingerprint see the new one in the banner. What is replaced is kept beside
//! (`cert.pem.old`); a certificate that we did not make is used as it is.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};

use super::{TlsError, x509};
use crate::api::stamp::day_of;
use crate::config::regular;
use crate::domain::account::Millis;
use crate::domain::limits::{PEM_BYTES_MAX, SELF_CERT_DAYS, SELF_CERT_RENEW_DAYS};

const DAY_MS: Millis = 86_400_000;
const HOSTNAME: &str = "/proc/sys/kernel/hostname";
/// Whose a certificate of ours says it is.
const COMMON_NAME: &str = "Legation, self-signed";

/// Certificate and key of a directory.
pub(super) fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("cert.pem"), dir.join("key.pem"))
}

/// Whether it is time to renew.
pub(super) fn is_ending(not_after: Millis, now: Millis) -> bool {
    not_after - now < SELF_CERT_RENEW_DAYS * DAY_MS
}

/// What a certificate for this machine is for: `localhost`, both loopback addresses, and the
/// machine's name where it is one that a certificate can carry.
#[must_use]
pub fn local_names() -> Vec<String> {
    let mut names: Vec<String> = ["localhost", "127.0.0.1", "::1"]
        .into_iter()
        .map(str::to_owned)
        .collect();
    let host = fs::read_to_string(HOSTNAME).unwrap_or_default();
    let host = host.trim();
    let fits = !host.is_empty()
        && host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    if fits && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    names
}

/// Whether we made this certificate.
pub(super) fn is_ours(der: &[u8]) -> bool {
    x509::is_self_signed_by(der, COMMON_NAME)
}

/// Makes what is missing, unusable, near its end, or not for every client. A certificate that somebody put there stays,
/// and so does its key.
pub(super) fn ensure(dir: &Path, names: &[String], now: Millis) -> Result<(), TlsError> {
    let (cert, key) = paths(dir);
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(write(dir))?;
    let found = match super::read_chain(&cert) {
        Ok(chain) => chain,
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            Vec::new()
        }
        // Nobody knows whose it is.
        Err(unread @ TlsError::Read { .. }) => return Err(unread),
        Err(_) => Vec::new(),
    };
    if found.first().is_some_and(|leaf| !is_ours(leaf)) {
        tracing::warn!(
            path = %cert.display(),
            "this certificate is not one that the gateway made: it is used as it is and not renewed; say so with \
             tls = \"files\", or move it away to have one made"
        );
        return Ok(());
    }
    let pair = match read_pair(&key)? {
        Some(pair) => pair,
        None => {
            let pair = KeyPair::generate().map_err(|source| TlsError::Make { source })?;
            let pem = zeroize::Zeroizing::new(pair.serialize_pem());
            keep_beside(&key, 0o600).map_err(write(&key))?;
            replace(&key, pem.as_bytes(), 0o600).map_err(write(&key))?;
            pair
        }
    };
    if is_good(&cert, &key, now) {
        return Ok(());
    }
    let pem = make(names, &pair, now).map_err(|source| TlsError::Make { source })?;
    keep_beside(&cert, 0o644).map_err(write(&cert))?;
    replace(&cert, pem.as_bytes(), 0o644).map_err(write(&cert))
}

/// Whether the certificate is there, belongs to the key, is not near its end and is for every client.
fn is_good(cert: &Path, key: &Path, now: Millis) -> bool {
    match super::load(cert, key, None) {
        Ok(loaded) if loaded.has_key_usage => {
            tracing::warn!(
                path = %cert.display(),
                "the self-signed certificate is of the kind that clients on BoringSSL refuse (Bun: Claude Code, OpenCode); \
                 making a new one with the same key, to be given to those who trust a copy or its fingerprint"
            );
            false
        }
        Ok(loaded) => loaded.not_after.is_some_and(|end| !is_ending(end, now)),
        Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            tracing::warn!(%error, "the self-signed certificate is unusable; making a new one");
            false
        }
    }
}

/// The key that is kept, with its mode put right; nothing if there is none or it is damaged.
fn read_pair(path: &Path) -> Result<Option<KeyPair>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut pem = zeroize::Zeroizing::new(String::new());
    let read =
        regular::open(path).and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_string(&mut pem));
    match read {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!(path = %path.display(), "the private key is damaged; making a new one");
            return Ok(None);
        }
        Err(source) => return Err(failed(source)),
    }
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the private key; now 0600");
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
    }
    match KeyPair::from_pem(&pem) {
        Ok(pair) => Ok(Some(pair)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the private key is damaged; making a new one");
            Ok(None)
        }
    }
}

fn make(names: &[String], pair: &KeyPair, now: Millis) -> Result<String, rcgen::Error> {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, COMMON_NAME);
    // No key usage: BoringSSL (Bun: Claude Code, OpenCode) takes a certificate for its own issuer only if it may sign
    // certificates or does not say, and rustls refuses one that says it is an authority.
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A day back: clocks of clients differ.
    let (year, month, day) = ymd(now - DAY_MS);
    params.not_before = rcgen::date_time_ymd(year, month, day);
    let (year, month, day) = ymd(now + SELF_CERT_DAYS * DAY_MS);
    params.not_after = rcgen::date_time_ymd(year, month, day);
    Ok(params.self_signed(pair)?.pem())
}

/// The day that `at` falls on, as rcgen wants it.
fn ymd(at: Millis) -> (i32, u8, u8) {
    let day = day_of(at);
    (
        i32::try_from(day.year).unwrap_or(1970),
        u8::try_from(day.month).unwrap_or(1),
        u8::try_from(day.day).unwrap_or(1),
    )
}

/// Keeps what is about to be replaced, in place of what was kept before.
fn keep_beside(path: &Path, mode: u32) -> io::Result<()> {
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    let read =
        regular::open(path).and_then(|file| file.take(PEM_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => replace(&path.with_extension("pem.old"), &bytes, mode),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            tracing::warn!(path = %path.display(), "what is replaced is not kept: {error}");
            Ok(())
        }
    }
}

/// Writes beside the file and renames, so that a crash leaves the old one or the new one.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    match path.parent() {
        Some(dir) => fs::File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}
