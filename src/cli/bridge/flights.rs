//! The AI tool's requests under way, by their ids, and how one is let go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::http::OPEN;
use super::link::Link;
use crate::domain::limits::{BRIDGE_BEGIN_WAIT, BRIDGE_CANCEL_WAIT};

/// How often a cancellation is told: it may overtake the request it is about.
const TELLS: usize = 2;

type Open = Arc<Mutex<HashMap<String, Arc<Flight>>>>;

/// All of them.
#[derive(Debug, Default, Clone)]
pub(super) struct Flights(Open);

/// One.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// It may have reached the server.
    sent: AtomicBool,
    /// The AI tool wants no answer any more.
    cancelled: AtomicBool,
    /// Nobody waits for it any more.
    pub(super) dropped: CancellationToken,
    over: CancellationToken,
}

/// A place among them, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    flight: Arc<Flight>,
    id: String,
    open: Open,
}

// === impl Flights ===

impl Flights {
    /// A place for this id; `None` if a request with it is under way.
    pub(super) fn enter(&self, id: &str) -> Option<Place> {
        let mut open = lock(&self.0);
        if open.contains_key(id) {
            return None;
        }
        let flight = Arc::new(Flight::default());
        open.insert(id.to_owned(), Arc::clone(&flight));
        Some(Place {
            flight,
            id: id.to_owned(),
            open: Arc::clone(&self.0),
        })
    }

    /// The AI tool wants no answer to a request: none is given from here on. What is left to do is
    /// [`Flight::let_go`]. `None` if there is no such request.
    pub(super) fn cancel(&self, params: &str) -> Option<Arc<Flight>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Cancelled<'a> {
            #[serde(borrow)]
            request_id: &'a RawValue,
        }
        let cancelled: Cancelled<'_> = serde_json::from_str(params).ok()?;
        let flight = lock(&self.0).get(cancelled.request_id.get()).cloned()?;
        flight.cancelled.store(true, Ordering::Relaxed);
        Some(flight)
    }
}

fn lock(open: &Open) -> MutexGuard<'_, HashMap<String, Arc<Flight>>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Flight ===

impl Flight {
    /// Whether it may be sent; it counts as sent from here on.
    pub(super) fn take_off(&self) -> bool {
        let may = !self.dropped.is_cancelled() && !self.is_cancelled();
        if may {
            self.sent.store(true, Ordering::Relaxed);
        }
        may
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Tells the server that nobody wants the answer, and waits for the request to end by itself: a
    /// connection that is merely lost cancels nothing.
    pub(super) async fn let_go(&self, link: &Link, message: Bytes) {
        if self.sent.load(Ordering::Relaxed) {
            for _ in 0..TELLS {
                let Some(session) = link.current() else {
                    break;
                };
                let told = link
                    .post(&session, message.clone(), BRIDGE_BEGIN_WAIT, OPEN)
                    .await;
                if let Err(error) = told {
                    tracing::warn!(%error, "the server could not be told of a cancellation");
                }
                if timeout(BRIDGE_CANCEL_WAIT, self.over.cancelled())
                    .await
                    .is_ok()
                {
                    break;
                }
            }
        }
        self.dropped.cancel();
    }
}

// === impl Place ===

impl std::ops::Deref for Place {
    type Target = Flight;

    fn deref(&self) -> &Flight {
        &self.flight
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flight.over.cancel();
        lock(&self.open).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_place_until_its_request_is_over() {
        let flights = Flights::default();
        let place = flights.enter("1").unwrap();
        assert!(flights.enter("1").is_none());
        assert!(flights.enter("\"1\"").is_some());
        drop(place);
        assert!(flights.enter("1").is_some());
    }

    #[test]
    fn what_is_cancelled_before_it_was_sent_is_never_sent() {
        let flights = Flights::default();
        let (first, second) = (flights.enter("1").unwrap(), flights.enter("2").unwrap());
        assert!(first.take_off());
        for nothing in ["{}", "", "{\"requestId\":3}", "{\"requestId\":\"1\"}"] {
            assert!(flights.cancel(nothing).is_none(), "{nothing}");
        }
        assert!(flights.cancel("{\"requestId\":2}").is_some());
        assert!(second.is_cancelled() && !second.take_off());
        assert!(!first.is_cancelled());
    }
}
