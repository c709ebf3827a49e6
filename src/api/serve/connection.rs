//! One connection: HTTP/1.1 on a stream, guarded, drained when its listener stops.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::response::Response;
use bytes::Bytes;
use http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::Bounds;
use super::pulse::{Guard, Pulse, Serving, Watched};
use crate::api::peer::{PeerAddress, PeerCred};
use crate::telemetry::metrics::http::HttpMeter;

/// With less than this share of its connections left, a listener is crowded.
const CROWDED_SHARE: usize = 8;

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Who {
    Address(PeerAddress),
    Cred(PeerCred),
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) bounds: Bounds,
    pub(super) meter: Option<Arc<HttpMeter>>,
    /// Set before `wake` is cancelled. Polling the token takes a lock that all connections share,
    /// so a connection polls it once to be woken and reads this after.
    draining: AtomicBool,
    /// Few connections more are taken: idle ones make room.
    crowded: AtomicBool,
    wake: CancellationToken,
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Its client or the drain closed it.
    Closed,
    /// The stream or the protocol broke.
    Broken(hyper::Error),
    /// Its client kept it waiting longer than a bound allows.
    Overdue,
}

// === impl Shared ===

impl Shared {
    pub(super) fn new(bounds: Bounds, meter: Option<Arc<HttpMeter>>) -> Self {
        Self {
            bounds,
            meter,
            draining: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            wake: CancellationToken::new(),
        }
    }

    /// Notes how many connections more are taken.
    pub(super) fn left(&self, left: usize) {
        let crowded = left < self.bounds.connections / CROWDED_SHARE;
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// Whether idle connections are to make room.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowded.load(Ordering::Relaxed)
    }

    /// Tells all connections to finish what they have and to take nothing more.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.wake.cancel();
    }

    /// Returns when the drain begins.
    pub(super) async fn drained(&self) {
        self.wake.cancelled().await;
    }
}

/// Serves requests on `stream` until one side has had enough.
///
/// A client that closes while its request is served drops the request's future: hyper watches for
/// the end of the stream as long as half-closed connections are not allowed, which is its default
/// and stated here.
pub(super) async fn drive<I>(stream: I, who: Who, shared: Arc<Shared>, router: Router) -> Ended
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pulse = Arc::new(Pulse::default());
    let io = TokioIo::new(Watched::new(stream, Arc::clone(&pulse)));
    let serving = Arc::clone(&pulse);
    let meter = shared.meter.clone();
    let service =
        service_fn(move |request| answer(request, who, &serving, &router, meter.as_ref()));
    let mut http = http1::Builder::new();
    http.half_close(false)
        .header_read_timeout(None)
        .max_header_size(shared.bounds.header_bytes);
    let mut connection = pin!(http.serve_connection(io, service));

    let mut guard = Guard::new(&shared.bounds, Instant::now());
    let mut wake = pin!(shared.wake.cancelled());
    let mut tick = pin!(sleep(guard.tick()));
    let (mut registered, mut stopping) = (false, false);
    poll_fn(|cx| {
        if !registered {
            registered = true;
            // Ready or not: the flag tells. Pending only has to leave our waker behind.
            let _ = wake.as_mut().poll(cx);
        }
        if !stopping && shared.draining.load(Ordering::Acquire) {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        match connection.as_mut().poll(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ended::Closed),
            Poll::Ready(Err(error)) => return Poll::Ready(Ended::Broken(error)),
            Poll::Pending => {}
        }
        while tick.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let crowded = shared.is_crowded();
            if guard.is_overdue(&pulse, now, crowded) {
                return Poll::Ready(Ended::Overdue);
            }
            tick.as_mut().reset(now + guard.tick());
        }
        Poll::Pending
    })
    .await
}

fn answer(
    mut request: Request<Incoming>,
    who: Who,
    pulse: &Arc<Pulse>,
    router: &Router,
    meter: Option<&Arc<HttpMeter>>,
) -> impl Future<Output = Result<Response, Infallible>> + use<> {
    match who {
        Who::Address(address) => drop(request.extensions_mut().insert(address)),
        Who::Cred(cred) => drop(request.extensions_mut().insert(cred)),
    }
    let serving = Serving::begin(pulse);
    let counted = meter.map(|meter| {
        let route = meter.route(request.uri().path());
        (Arc::clone(meter), route, Instant::now())
    });
    // A router is one reference count; axum's is always ready.
    let answered = router.clone().call(request);
    async move {
        let response = answered.await?;
        if let Some((meter, route, began)) = counted {
            meter.answered(route, response.status().as_u16(), began.elapsed());
        }
        // A body of known size is written from here on; a stream is a request still served.
        if response.body().size_hint().exact().is_some() {
            return Ok(response);
        }
        Ok(response.map(|body| {
            Body::new(Streamed {
                body,
                _serving: serving,
            })
        }))
    }
}

/// A body whose end ends its request.
#[derive(Debug)]
struct Streamed {
    body: Body,
    _serving: Serving,
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
