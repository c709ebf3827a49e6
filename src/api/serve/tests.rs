//! Real sockets on loopback, short bounds.

mod doors;

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Extension;
use axum::extract::Request;
use axum::routing::{get, post};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Default)]
struct Seen {
    began: Arc<Notify>,
    dropped: Arc<Notify>,
    release: Arc<Notify>,
    served: Arc<AtomicUsize>,
}

/// Tells when the handler's future is gone, however it went.
struct Gone(Seen);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.dropped.notify_one();
    }
}

fn router(seen: &Seen) -> Router {
    let (hang, count) = (seen.clone(), seen.clone());
    Router::new()
        .route("/hello", get(move || async move {
            count.served.fetch_add(1, Ordering::SeqCst);
            "hello"
        }))
        .route("/hang", get(move || async move {
            let gone = Gone(hang.clone());
            hang.began.notify_one();
            hang.release.notified().await;
            drop(gone);
            "late"
        }))
        .route("/echo", post(|request: Request| async move {
            request.into_body().collect().await.unwrap().to_bytes()
        }))
        .route("/big", get(|| async { vec![b'x'; 64 << 20] }))
        .route("/stream", get(|| async { slow(2) }))
        .route("/flood", get(|| async { slow(100_000) }))
        .route("/panic", get(|| async { panic!("a bug") as String }))
        .route("/from", get(|Extension(PeerAddress(from)): Extension<PeerAddress>| async move {
            from.to_string()
        }))
        .route("/cred", get(|Extension(cred): Extension<PeerCred>| async move {
            format!("{} {:?}", cred.uid, cred.pid)
        }))
}

fn quick() -> Bounds {
    Bounds {
        connections: 8,
        tls_handshake: Duration::from_millis(300),
        header_read: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        drain: Duration::from_secs(5),
        ..Bounds::default()
    }
}

struct Running {
    at: SocketAddr,
    listener: Listener,
    stop: CancellationToken,
    seen: Seen,
}

/// A body without a known size: its frames, and a pause before the last of them.
struct Slow {
    pause: std::pin::Pin<Box<tokio::time::Sleep>>,
    frames: usize,
}

impl axum::body::HttpBody for Slow {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, Self::Error>>> {
        if self.frames == 1 && self.pause.as_mut().poll(cx).is_pending() {
            return std::task::Poll::Pending;
        }
        let more = self.frames.checked_sub(1);
        self.frames = more.unwrap_or_default();
        let frame = bytes::Bytes::from(vec![b'z'; 64 << 10]);
        std::task::Poll::Ready(more.map(|_| Ok(hyper::body::Frame::data(frame))))
    }
}

fn slow(frames: usize) -> axum::body::Body {
    let pause = Box::pin(sleep(Duration::from_millis(1_800)));
    axum::body::Body::new(Slow { pause, frames })
}

async fn start(bounds: Bounds, tls: Option<Arc<Tls>>) -> Running {
    let bound = bind_tcp("127.0.0.1:0".parse().unwrap(), OtherPort::Refuse)
        .await
        .unwrap();
    let (at, seen, stop) = (
        bound.tcp().unwrap(),
        Seen::default(),
        CancellationToken::new(),
    );
    let listener = bound.serve(router(&seen), tls, bounds, stop.clone());
    Running {
        at,
        listener,
        stop,
        seen,
    }
}

impl Running {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.at).await.unwrap()
    }
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
}

async fn get_on<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, path: &str) -> String {
    send(stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    answer(stream).await
}

/// One answer with a content-length.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut text = Vec::new();
    let whole = async {
        loop {
            let head = String::from_utf8_lossy(&text).into_owned();
            if let Some((head, body)) = head.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.unwrap_or("0").parse().unwrap() {
                    return;
                }
            }
            if stream.read_buf(&mut text).await.unwrap_or(0) == 0 {
                return;
            }
        }
    };
    timeout(PATIENCE, whole).await.expect("no answer");
    String::from_utf8(text).unwrap()
}

/// Reads until the other side closes, and says how long that took.
async fn until_closed<S: AsyncRead + Unpin>(stream: &mut S) -> (Vec<u8>, Duration) {
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("never closed");
    (bytes, begun.elapsed())
}

#[tokio::test]
async fn serves_keeps_alive_and_reads_chunked_bodies() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    for _ in 0..3 {
        assert!(
            get_on(&mut stream, "/hello")
                .await
                .ends_with("\r\n\r\nhello")
        );
    }
    let chunked = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    send(
        &mut stream,
        &format!("{chunked}3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),
    )
    .await;
    assert!(answer(&mut stream).await.ends_with("\r\n\r\nabcdefg"));
    assert_eq!(server.seen.served.load(Ordering::SeqCst), 3);
    let from = stream.local_addr().unwrap().to_string();
    assert!(get_on(&mut stream, "/from").await.ends_with(&from));
}

#[tokio::test]
async fn a_client_that_goes_away_drops_its_request() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    send(&mut stream, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.seen.began.notified().await;
    drop(stream);
    timeout(PATIENCE, server.seen.dropped.notified())
        .await
        .expect("the call went on");
}

#[tokio::test]
async fn a_client_that_goes_away_after_a_chunked_body_drops_its_request() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    let head = "GET /hang HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    send(&mut stream, &format!("{head}2\r\n{{}}\r\n0\r\n\r\n")).await;
    server.seen.began.notified().await;
    drop(stream);
    timeout(PATIENCE, server.seen.dropped.notified())
        .await
        .expect("the call went on");
}

#[tokio::test]
async fn a_request_in_hand_outlives_all_idle_bounds() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    send(&mut stream, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.seen.began.notified().await;
    sleep(Duration::from_millis(1_500)).await;
    server.seen.release.notify_one();
    assert!(answer(&mut stream).await.ends_with("late"));
}

#[tokio::test]
async fn slow_headers_end_the_connection() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    let (mut read, mut write) = stream.split();
    let trickle = async {
        for byte in b"GET /hello HTTP/1.1\r\nx-slow: ".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        pending::<()>().await;
    };
    let (_, took) = tokio::select! {
        closed = until_closed(&mut read) => closed,
        () = trickle => unreachable!(),
    };
    assert!(
        took >= Duration::from_millis(250) && took < PATIENCE / 2,
        "{took:?}"
    );

    let (nothing, took) = until_closed(&mut server.connect().await).await;
    assert!(
        nothing.is_empty() && took < PATIENCE / 2,
        "a connection that says nothing"
    );
}

#[tokio::test]
async fn an_idle_connection_and_one_that_never_reads_are_closed() {
    let server = start(quick(), None).await;
    let mut idle = server.connect().await;
    get_on(&mut idle, "/hello").await;
    let (_, took) = until_closed(&mut idle).await;
    assert!(
        took >= Duration::from_millis(850),
        "longer than for headers: {took:?}"
    );

    let mut deaf = server.connect().await;
    send(&mut deaf, "GET /big HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_secs(3)).await;
    let (bytes, _) = until_closed(&mut deaf).await;
    assert!(
        bytes.len() < 64 << 20,
        "its connection was kept: {}",
        bytes.len()
    );
}

#[tokio::test]
async fn a_quiet_stream_is_kept_and_one_that_nobody_reads_is_not() {
    let server = start(quick(), None).await;
    let mut quiet = server.connect().await;
    send(&mut quiet, "GET /stream HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let (bytes, _) = until_closed(&mut quiet).await;
    assert!(
        bytes.ends_with(b"z\r\n0\r\n\r\n"),
        "cut off after {}",
        bytes.len()
    );

    let mut deaf = server.connect().await;
    send(&mut deaf, "GET /flood HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_secs(3)).await;
    let (bytes, took) = until_closed(&mut deaf).await;
    assert!(
        bytes.len() < 64 << 20 && took < PATIENCE / 2,
        "{} in {took:?}",
        bytes.len()
    );
}

#[tokio::test]
async fn large_headers_are_refused() {
    let server = start(quick(), None).await;
    let mut stream = server.connect().await;
    let fat = "x".repeat(quick().header_bytes);
    send(
        &mut stream,
        &format!("GET /hello HTTP/1.1\r\nhost: x\r\nx-fat: {fat}\r\n\r\n"),
    )
    .await;
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 431"), "{text}");
    assert_eq!(server.seen.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn connections_over_the_cap_are_closed_and_a_place_is_free_again() {
    let server = start(
        Bounds {
            connections: 1,
            ..quick()
        },
        None,
    )
    .await;
    let mut first = server.connect().await;
    assert!(get_on(&mut first, "/hello").await.ends_with("hello"));
    let mut second = server.connect().await;
    let (nothing, _) = until_closed(&mut second).await;
    assert!(nothing.is_empty());
    drop(first);
    let again = async {
        loop {
            let mut third = server.connect().await;
            let _ = third
                .write_all(b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n")
                .await;
            if answer(&mut third).await.ends_with("hello") {
                return;
            }
        }
    };
    timeout(PATIENCE, again)
        .await
        .expect("the place was not given back");
}

#[tokio::test]
async fn draining_finishes_what_is_in_hand_and_closes_the_rest() {
    let mut server = start(
        Bounds {
            idle: PATIENCE * 6,
            header_read: PATIENCE * 6,
            ..quick()
        },
        None,
    )
    .await;
    let mut idle = server.connect().await;
    get_on(&mut idle, "/hello").await;
    let mut fresh = server.connect().await;
    let mut busy = server.connect().await;
    send(&mut busy, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.seen.began.notified().await;

    server.stop.cancel();
    until_closed(&mut idle).await;
    until_closed(&mut fresh).await;
    assert!(
        TcpStream::connect(server.at).await.is_err(),
        "the port is closed"
    );
    server.seen.release.notify_one();
    let text = answer(&mut busy).await;
    assert!(
        text.ends_with("late") && text.contains("connection: close"),
        "{text}"
    );
    let drained = timeout(PATIENCE, server.listener.stopped())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained { dropped: 0 });
}

#[tokio::test]
async fn draining_has_an_end() {
    let bounds = Bounds {
        drain: Duration::from_millis(200),
        ..quick()
    };
    let mut server = start(bounds, None).await;
    let mut busy = server.connect().await;
    send(&mut busy, "GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    server.seen.began.notified().await;
    server.stop.cancel();
    let drained = timeout(PATIENCE, server.listener.stopped())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(drained, Drained { dropped: 1 });
    timeout(PATIENCE, server.seen.dropped.notified())
        .await
        .expect("its future is dropped");
}

#[tokio::test]
async fn a_panic_takes_only_its_own_connection() {
    let server = start(quick(), None).await;
    let mut steady = server.connect().await;
    get_on(&mut steady, "/hello").await;
    let mut unlucky = server.connect().await;
    send(&mut unlucky, "GET /panic HTTP/1.1\r\nhost: x\r\n\r\n").await;
    until_closed(&mut unlucky).await;
    assert!(get_on(&mut steady, "/hello").await.ends_with("hello"));
}
