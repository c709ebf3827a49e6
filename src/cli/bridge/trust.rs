//! TLS of the bridge: whose certificates are taken.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::TlsConnector;

use super::settings::Trust;
use crate::cli::error::CliError;
use crate::domain::code::Code;
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

/// What connects with TLS.
///
/// # Errors
/// No authorities are found, or the file has none.
pub(super) fn connector(trust: &Trust) -> Result<TlsConnector, CliError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("TLS cannot be set up: {error}")))?;
    let mut config = match trust {
        Trust::Anybody => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
            .with_no_client_auth(),
        Trust::File(path) => builder
            .with_root_certificates(roots(path).map_err(unusable)?)
            .with_no_client_auth(),
        Trust::System => builder
            .with_root_certificates(system()?)
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn system() -> Result<RootCertStore, CliError> {
    let named = std::env::var_os(BUNDLE_VARIABLE).filter(|path| !path.is_empty());
    if let Some(path) = named {
        return roots(Path::new(&path)).map_err(unusable);
    }
    let found = BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    match found {
        Some(path) => roots(&path).map_err(unusable),
        None => Err(unusable(format!(
            "this machine has no bundle of certificate authorities: neither {}",
            BUNDLES.join(" nor ")
        ))),
    }
}

/// The authorities in a file.
fn roots(path: &Path) -> Result<RootCertStore, String> {
    let cannot = |why: String| {
        let path = path.display();
        format!("cannot use the certificate authorities in {path}: {why}")
    };
    let mut pem = Vec::new();
    File::open(path)
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

fn unusable(message: String) -> CliError {
    CliError::Told {
        code: Code::ConfigInvalid,
        message,
        next: "name a PEM file with the server's certificate, or its CA's, with --ca-file"
            .to_owned(),
    }
}

/// Takes every certificate. Who speaks must still hold its key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_refused_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        for text in [None, Some("nothing")] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            let told = connector(&Trust::File(path.clone()))
                .err()
                .unwrap()
                .render(false);
            assert!(
                told.contains("ca.pem") && told.contains("--ca-file"),
                "{told}"
            );
        }
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert!(connector(&Trust::File(path)).is_ok());
        assert!(connector(&Trust::Anybody).is_ok());
    }
}
