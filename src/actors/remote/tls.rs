//! Whose certificates a server behind HTTP may have.

use std::sync::{Arc, Weak};

use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;

use crate::actors::roots;
use crate::actors::sync::Mutex;
use crate::domain::remote::{Remote, Scheme};
use crate::domain::verdict::Verdict;

/// What trusts the system's authorities: one for all runs, and read again once none uses it.
static SYSTEM: Mutex<Weak<ClientConfig>> = Mutex::new(Weak::new());

/// What connects to a server with TLS; none if it is spoken to in the clear. Reads a file.
///
/// # Errors
/// There are no authorities, as a verdict.
pub(in crate::actors) fn configure(remote: &Remote) -> Result<Option<Arc<ClientConfig>>, Verdict> {
    let refused = |detail: String| Verdict::NotStarted {
        step: "certificates".to_owned(),
        detail: format!(
            "{detail}; name a PEM file with the server's CA (legation mcp update --ca)"
        ),
    };
    if remote.url.scheme() == Scheme::Http {
        return Ok(None);
    }
    if let Some(file) = &remote.ca {
        let roots = roots::of_file(file).map_err(refused)?;
        return config(roots).map(Some).map_err(refused);
    }
    let mut system = SYSTEM.lock();
    if let Some(config) = system.upgrade() {
        return Ok(Some(config));
    }
    let made = roots::system().and_then(config).map_err(refused)?;
    *system = Arc::downgrade(&made);
    Ok(Some(made))
}

fn config(roots: rustls::RootCertStore) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
