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
