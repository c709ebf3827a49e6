//! By a Unix socket, and by TLS.

use rustls::pki_types::ServerName;

use super::super::super::tls::Source;
use super::*;

#[tokio::test]
async fn a_unix_socket_tells_who_asks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let stop = CancellationToken::new();
    let bound = bind_unix(&path, SocketMode::Owner).unwrap();
    let mut listener = bound.serve(router(&Seen::default()), None, quick(), stop.clone());
    assert_eq!(listener.address(), &Address::Unix(path.clone()));
    let mut stream = UnixStream::connect(&path).await.unwrap();
    let expected = format!(
        "{} Some({})",
        stream.peer_cred().unwrap().uid(),
        std::process::id()
    );
    let text = get_on(&mut stream, "/cred").await;
    assert!(text.ends_with(&expected), "{text}");
    stop.cancel();
    timeout(PATIENCE, listener.stopped())
        .await
        .unwrap()
        .unwrap();
    assert!(!path.exists());
}

/// Nobody could tell a running server anything any more when its socket's file was removed.
#[tokio::test]
async fn a_socket_that_was_removed_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("admin.sock");
    let stop = CancellationToken::new();
    let gid = std::os::unix::fs::MetadataExt::gid(&dir.path().metadata().unwrap());
    let bound = bind_unix(&path, SocketMode::Group(gid)).unwrap();
    let mut listener = bound.serve(router(&Seen::default()), None, quick(), stop.clone());
    let mut before = UnixStream::connect(&path).await.unwrap();
    assert!(get_on(&mut before, "/hello").await.ends_with("hello"));
    // One that is only touched is ours still.
    let touched = std::process::Command::new("touch").arg(&path).status();
    assert!(touched.unwrap().success());
    sleep(2 * limits::SOCKET_LOOK).await;
    let mut touched = UnixStream::connect(&path).await.unwrap();
    assert!(get_on(&mut touched, "/hello").await.ends_with("hello"));
    std::fs::remove_file(&path).unwrap();
    let again = async {
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => break stream,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let mut after = timeout(PATIENCE, again).await.unwrap();
    assert!(get_on(&mut after, "/hello").await.ends_with("hello"));
    let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o660);
    // What is no socket is left alone, and the listener waits until it is gone.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    sleep(2 * limits::SOCKET_LOOK).await;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    stop.cancel();
    timeout(PATIENCE, listener.stopped())
        .await
        .unwrap()
        .unwrap();
    assert!(path.exists(), "not ours to remove");
}

/// With few connections left, who never begins its handshake makes room.
#[tokio::test]
async fn a_silent_handshake_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Own {
        dir: dir.path().join("tls"),
        names: vec!["localhost".to_owned()],
    };
    let tls = Tls::load(source, Arc::new(|| 1_795_000_000_000)).unwrap();
    let bounds = Bounds {
        connections: 16,
        tls_handshake: PATIENCE * 10,
        ..Bounds::default()
    };
    let server = start(bounds, Some(tls)).await;
    let mut first = server.connect().await;
    // One that came early and saw no crowd is held against nobody.
    sleep(Duration::from_millis(50)).await;
    let mut others = Vec::new();
    for _ in 0..15 {
        others.push(server.connect().await);
    }
    let (_, took) = until_closed(&mut first).await;
    assert!(took < 2 * limits::CROWDED_HANDSHAKE_MAX, "{took:?}");
}

#[tokio::test]
async fn tls_serves_and_a_silent_handshake_ends() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Own {
        dir: dir.path().join("tls"),
        names: vec!["localhost".to_owned()],
    };
    let tls = Tls::load(source, Arc::new(|| 1_795_000_000_000)).unwrap();
    let server = start(quick(), Some(Arc::clone(&tls))).await;

    // The same trust as NODE_EXTRA_CA_CERTS gives: the file alone.
    let pem = std::fs::read(tls.cert_path()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let cert = rustls_pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
    roots.add(cert).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let time = rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(1_795_000_000));
    let mut config = rustls::ClientConfig::builder_with_details(provider, Arc::new(Fixed(time)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = connector
        .connect(name, server.connect().await)
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(get_on(&mut stream, "/hello").await.ends_with("hello"));

    let (_, took) = until_closed(&mut server.connect().await).await;
    assert!(
        took >= Duration::from_millis(250) && took < PATIENCE / 2,
        "{took:?}"
    );
}

/// A browser or a client with http:// in its address is told so, and holds its place no longer than a handshake.
#[tokio::test]
async fn plain_http_on_a_tls_port_is_answered_once_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let source = Source::Own {
        dir: dir.path().join("tls"),
        names: vec!["localhost".to_owned()],
    };
    let tls = Tls::load(source, Arc::new(|| 1_795_000_000_000)).unwrap();
    let server = start(quick(), Some(Arc::clone(&tls))).await;
    let mut stream = server.connect().await;
    send(
        &mut stream,
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let (bytes, _) = until_closed(&mut stream).await;
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 400 ")
            && text.contains("connection: close")
            && text.contains("https://"),
        "{text}"
    );
    drop(stream);
    assert_eq!(server.seen.served.load(Ordering::SeqCst), 0);

    // One that goes on writing, and one that never leaves, hold their places for the time of a handshake.
    let mut flood = server.connect().await;
    let flooding =
        tokio::spawn(async move { while flood.write_all(&[b'x'; 16 << 10]).await.is_ok() {} });
    timeout(PATIENCE, flooding).await.unwrap().unwrap();
    let bounds = Bounds {
        connections: 1,
        ..quick()
    };
    let narrow = start(bounds, Some(tls)).await;
    let mut silent = narrow.connect().await;
    send(&mut silent, "GET").await;
    assert!(
        until_closed(&mut silent)
            .await
            .0
            .starts_with(b"HTTP/1.1 400 ")
    );
    let again = async {
        loop {
            let mut next = narrow.connect().await;
            // Over the cap it is closed, with or without a reset.
            let mut got = Vec::new();
            let _ = next.write_all(b"GET").await;
            let _ = next.read_to_end(&mut got).await;
            if got.starts_with(b"HTTP/1.1 400 ") {
                return;
            }
        }
    };
    timeout(PATIENCE, again).await.expect("the place was kept");
}

#[derive(Debug)]
struct Fixed(rustls::pki_types::UnixTime);

impl rustls::time_provider::TimeProvider for Fixed {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(self.0)
    }
}
