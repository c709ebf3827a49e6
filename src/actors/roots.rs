//! Certificate authorities: the system's, or those of a file.

use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::config::regular;
use crate::domain::limits::BRIDGE_ROOTS_BYTES_MAX;

/// The variable that names the system's bundle, as OpenSSL reads it.
const BUNDLE_VARIABLE: &str = "SSL_CERT_FILE";

/// Where Linux distributions keep their bundle.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The system's. Reads a file.
///
/// # Errors
/// It has none that can be read, in words.
pub fn system() -> Result<RootCertStore, String> {
    let named = std::env::var_os(BUNDLE_VARIABLE).filter(|path| !path.is_empty());
    if let Some(path) = named {
        return of_file(Path::new(&path));
    }
    let found = BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    match found {
        Some(path) => of_file(&path),
        None => Err(format!(
            "this machine has no bundle of certificate authorities: neither {}",
            BUNDLES.join(" nor ")
        )),
    }
}

/// Those of a file.
///
/// # Errors
/// It cannot be read, is too large, or has none, in words.
pub fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let cannot = |why: String| {
        let path = path.display();
        format!("cannot use the certificate authorities in {path}: {why}")
    };
    let mut pem = Vec::new();
    regular::open(path)
        .and_then(|file| file.take(BRIDGE_ROOTS_BYTES_MAX + 1).read_to_end(&mut pem))
        .map_err(|error| cannot(error.to_string()))?;
    if pem.len() as u64 > BRIDGE_ROOTS_BYTES_MAX {
        return Err(cannot(format!(
            "it has more than {BRIDGE_ROOTS_BYTES_MAX} bytes"
        )));
    }
    let mut store = RootCertStore::empty();
    // A bundle may have some that rustls does not take; those are nobody's to trust.
    let (added, _) = store
        .add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
    match added {
        0 => Err(cannot("it has no certificate in PEM".to_owned())),
        _ => Ok(store),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    /// Two definitions that named one held both workers of the runtime, and the gateway stood still.
    #[test]
    fn a_pipe_in_place_of_a_file_of_authorities_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("ca.pem");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for path in [pipe.as_path(), folder.path()] {
            let why = of_file(path).unwrap_err();
            assert!(why.contains("it is no regular file"), "{why}");
        }
    }
}
