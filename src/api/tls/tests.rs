use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

const START: Millis = 1_795_000_000_000;
const DAY: Millis = 86_400_000;

fn clock(at: Millis) -> (WallClock, Arc<AtomicI64>) {
    let time = Arc::new(AtomicI64::new(at));
    let read = Arc::clone(&time);
    (Arc::new(move || read.load(Ordering::SeqCst)), time)
}

fn own(dir: &Path) -> Source {
    Source::Own {
        dir: dir.join("tls"),
        names: local_names(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// What `Own` makes, as the operator's own files.
fn files(dir: &Path) -> Source {
    Tls::load(own(dir), clock(START).0).unwrap();
    let (cert, key) = own(dir).paths();
    Source::Files { cert, key }
}

#[test]
fn the_self_made_certificate_is_kept_and_its_key_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = Tls::load(own(dir.path()), clock(START).0).unwrap();
    let (cert, key) = own(dir.path()).paths();
    assert_eq!(first.cert_path(), cert);
    assert_eq!((mode(&cert), mode(&key)), (0o644, 0o600));
    assert_eq!(first.fingerprint().len(), 95);

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let second = Tls::load(own(dir.path()), clock(START + 100 * DAY).0).unwrap();
    assert_eq!(second.fingerprint(), first.fingerprint());
    assert_eq!(mode(&key), 0o600, "put right");
    assert_eq!(
        fs::read_dir(dir.path().join("tls")).unwrap().count(),
        2,
        "nothing left beside"
    );
}

#[test]
fn near_its_end_it_is_renewed_with_the_same_key() {
    let dir = tempfile::tempdir().unwrap();
    let (now, time) = clock(START);
    let tls = Tls::load(own(dir.path()), now).unwrap();
    let (before, key) = (
        tls.fingerprint(),
        fs::read(own(dir.path()).paths().1).unwrap(),
    );
    assert_eq!(tls.refresh().unwrap(), Refreshed::Same);

    time.store(tls.not_after().unwrap() - 29 * DAY, Ordering::SeqCst);
    assert_eq!(tls.refresh().unwrap(), Refreshed::Exchanged);
    assert_ne!(tls.fingerprint(), before);
    assert_eq!(fs::read(own(dir.path()).paths().1).unwrap(), key);
    assert_eq!(tls.refresh().unwrap(), Refreshed::Same, "and only once");
}

#[test]
fn a_damaged_certificate_or_key_of_our_own_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = Tls::load(own(dir.path()), clock(START).0)
        .unwrap()
        .fingerprint();
    let (cert, key) = own(dir.path()).paths();
    fs::write(&cert, "rubbish").unwrap();
    let second = Tls::load(own(dir.path()), clock(START).0)
        .unwrap()
        .fingerprint();
    assert_ne!(second, first);
    fs::write(&key, [0xff, 0xfe]).unwrap();
    let third = Tls::load(own(dir.path()), clock(START).0)
        .unwrap()
        .fingerprint();
    assert_ne!(third, second);
}

/// A certificate of ours as it was made before: it says what its key is for.
fn of_the_old_kind(key: &Path) -> String {
    let pair = rcgen::KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Legation, self-signed");
    params.self_signed(&pair).unwrap().pem()
}

/// What somebody else made, of these names: a leaf of an authority, or signed by itself.
fn theirs(key: &rcgen::KeyPair, is_leaf: bool) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    params.not_after = rcgen::date_time_ymd(2026, 12, 1);
    match is_leaf {
        true => {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, "Legation, self-signed");
            let of = rcgen::CertificateParams::new(Vec::new()).unwrap();
            let issuer = rcgen::Issuer::new(of, rcgen::KeyPair::generate().unwrap());
            params.signed_by(key, &issuer).unwrap().pem()
        }
        false => params.self_signed(key).unwrap().pem(),
    }
}

#[test]
fn a_certificate_that_somebody_put_in_the_place_of_ours_stays() {
    for is_leaf in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = own(dir.path()).paths();
        fs::create_dir_all(dir.path().join("tls")).unwrap();
        let pair = rcgen::KeyPair::generate().unwrap();
        let (pem, secret) = (theirs(&pair, is_leaf), pair.serialize_pem());
        fs::write(&cert, &pem).unwrap();
        fs::write(&key, &secret).unwrap();
        // Near its end, and of the kind that some clients refuse: theirs to renew.
        let (now, time) = clock(START);
        let tls = Tls::load(own(dir.path()), now).unwrap();
        assert_eq!(tls.refresh().unwrap(), Refreshed::Same);
        time.store(tls.not_after().unwrap() + DAY, Ordering::SeqCst);
        assert_eq!(tls.refresh().unwrap(), Refreshed::Same, "nothing is made");
        assert_eq!(fs::read_to_string(&cert).unwrap(), pem);
        assert_eq!(fs::read_to_string(&key).unwrap(), secret);
        // With a key that does not fit, it is said and not replaced.
        let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
        fs::write(&key, &other).unwrap();
        let wrong = Tls::load(own(dir.path()), clock(START).0).unwrap_err();
        assert!(matches!(wrong, TlsError::Pair { .. }), "{wrong}");
        assert_eq!(fs::read_to_string(&cert).unwrap(), pem);
        assert_eq!(fs::read_to_string(&key).unwrap(), other);
    }
}

#[test]
fn what_is_replaced_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    Tls::load(own(dir.path()), clock(START).0).unwrap();
    let (cert, key) = own(dir.path()).paths();
    fs::write(&cert, "rubbish").unwrap();
    fs::write(&key, "no key").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    Tls::load(own(dir.path()), clock(START).0).unwrap();
    let old = |name: &str| dir.path().join("tls").join(name);
    assert_eq!(fs::read_to_string(old("cert.pem.old")).unwrap(), "rubbish");
    assert_eq!(fs::read_to_string(old("key.pem.old")).unwrap(), "no key");
    assert_eq!(mode(&old("key.pem.old")), 0o600);
}

#[test]
fn a_certificate_of_our_own_that_boringssl_refuses_is_made_again_with_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let source = files(dir.path());
    let (cert, key) = source.paths();
    let kept = fs::read(&key).unwrap();
    fs::write(&cert, of_the_old_kind(&key)).unwrap();
    // An operator's own is none of our business.
    let theirs = Tls::load(source, clock(START).0).unwrap().fingerprint();
    assert!(x509::has_key_usage(&read_chain(&cert).unwrap()[0]));
    let tls = Tls::load(own(dir.path()), clock(START).0).unwrap();
    assert_ne!(tls.fingerprint(), theirs);
    assert!(!x509::has_key_usage(&read_chain(&cert).unwrap()[0]));
    assert_eq!(fs::read(&key).unwrap(), kept);
    let again = Tls::load(own(dir.path()), clock(START).0).unwrap();
    assert_eq!(again.fingerprint(), tls.fingerprint(), "and only once");
}

#[test]
fn the_operators_files_are_read_again_when_they_change() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tls = Tls::load(files(dir.path()), clock(START).0).unwrap();
    let before = tls.fingerprint();
    assert_eq!(tls.refresh().unwrap(), Refreshed::Same);

    let (cert, key) = files(other.path()).paths();
    let (our_cert, our_key) = tls.source.paths();
    fs::rename(&cert, &our_cert).unwrap();
    let half = tls.refresh().unwrap_err();
    assert!(matches!(half, TlsError::Pair { .. }), "{half}");
    assert_eq!(tls.fingerprint(), before, "the old one stays");
    assert_eq!(
        tls.refresh().unwrap(),
        Refreshed::Same,
        "said once, not every time"
    );

    fs::rename(&key, &our_key).unwrap();
    assert_eq!(tls.refresh().unwrap(), Refreshed::Exchanged);
    assert_ne!(tls.fingerprint(), before);

    fs::remove_file(&our_key).unwrap();
    let gone = tls.refresh().unwrap_err().to_string();
    assert!(gone.contains("key.pem"), "{gone}");
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = files(dir.path()).paths();
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    let huge = dir.path().join("huge.pem");
    fs::File::create(&huge)
        .unwrap()
        .set_len(PEM_BYTES_MAX + 1)
        .unwrap();
    for (cert, key, word) in [
        (dir.path().join("nowhere.pem"), key.clone(), "nowhere.pem"),
        (empty.clone(), key.clone(), "no certificate"),
        (cert.clone(), empty, "no private key"),
        (cert.clone(), cert.clone(), "no private key"),
        (huge, key, "larger than"),
    ] {
        let text = Tls::load(Source::Files { cert, key }, clock(START).0)
            .unwrap_err()
            .to_string();
        assert!(text.contains(word), "{text}");
    }
}

/// The wall time of a handshake, so that no certificate is too new or too old.
#[derive(Debug)]
struct Fixed;

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<rustls_pki_types::UnixTime> {
        let since = std::time::Duration::from_secs(1_795_000_000);
        Some(rustls_pki_types::UnixTime::since_unix_epoch(since))
    }
}

/// An authority, and a certificate of its own for somebody.
struct Authority {
    pem: String,
    client: (CertificateDer<'static>, PrivateKeyDer<'static>),
}

fn authority(name: &str) -> Authority {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::from_params(&params, &key);
    let own = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(vec!["scraper".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let cert = leaf.signed_by(&own, &issuer).unwrap();
    Authority {
        pem,
        client: (
            cert.der().clone(),
            PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
        ),
    }
}

/// Whether a client gets in, with this certificate or none.
fn gets_in(server: &Tls, shows: Option<&Authority>) -> bool {
    let mut roots = RootCertStore::empty();
    let chain = read_chain(&server.cert_path()).unwrap();
    roots.add(chain.first().unwrap().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_details(provider, Arc::new(Fixed))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shows {
        Some(authority) => {
            let (cert, key) = &authority.client;
            let shown = config.with_client_auth_cert(vec![cert.clone()], key.clone_key());
            shown.unwrap()
        }
        None => config.with_no_client_auth(),
    };
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut server = rustls::ServerConnection::new(server.server_config()).unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        if server.process_new_packets().is_err() {
            return false;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets().unwrap();
    }
    !server.is_handshaking()
}

#[test]
fn only_who_shows_a_certificate_of_the_authority_gets_in() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let file = dir.path().join("ca.pem");
    fs::write(&file, &ours.pem).unwrap();
    let open = Tls::load(own(dir.path()), clock(START).0).unwrap();
    assert!(gets_in(&open, None));
    let guarded = Tls::load_trusting(own(dir.path()), Some(file.clone()), clock(START).0).unwrap();
    assert!(!gets_in(&guarded, None));
    assert!(!gets_in(&guarded, Some(&theirs)));
    assert!(gets_in(&guarded, Some(&ours)));
    // Another authority from now on.
    fs::write(&file, format!("{}\n", theirs.pem)).unwrap();
    assert_eq!(guarded.refresh().unwrap(), Refreshed::Exchanged);
    assert!(!gets_in(&guarded, Some(&ours)) && gets_in(&guarded, Some(&theirs)));
    fs::write(&file, "nonsense").unwrap();
    assert!(guarded.refresh().is_err());
    assert!(gets_in(&guarded, Some(&theirs)), "the last good one stays");
    let nothing = Tls::load_trusting(own(dir.path()), Some(file), clock(START).0);
    assert!(nothing.unwrap_err().to_string().contains("ca.pem"));
}
