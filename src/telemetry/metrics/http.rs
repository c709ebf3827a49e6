//! The meter of a listener: requests by route and class of status, connections.
//!
//! A route is found by comparing the path with the few the listener has, so a request costs no
//! map and a path nobody has is `unmatched`, never a label.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::actor::float;
use super::families as f;
use super::histogram::Timings;
use super::labels::{Class, Labelled, Listener};
use super::page::Page;
use super::recorder::{CounterBy, Recorder};

/// The route of a path that is none.
pub const UNMATCHED: &str = "unmatched";
/// All routes of all listeners: what can be a label value. The admin socket's are counted as one.
pub const ROUTES: &[&str] = &[
    "/v1/tools/invoke",
    "/v1/tools",
    "/v1/sessions/register",
    "/v1/sessions/heartbeat",
    "/v1/sessions/connections/{id}",
    "/mcp",
    "/mcp/{name}",
    "/sse",
    "/sse/{name}",
    "/messages",
    "/v1/",
    "/livez",
    "/readyz",
    "/metrics",
    "/metrics/isolates",
    UNMATCHED,
];

const fn routes_of(listener: Listener) -> &'static [&'static str] {
    match listener {
        Listener::Client => &[
            "/v1/tools/invoke",
            "/v1/tools",
            "/v1/sessions/register",
            "/v1/sessions/heartbeat",
            "/v1/sessions/connections/{id}",
            "/mcp",
            "/mcp/{name}",
            "/sse",
            "/sse/{name}",
            "/messages",
        ],
        Listener::Admin => &["/v1/"],
        Listener::Ops => &["/livez", "/readyz", "/metrics", "/metrics/isolates"],
    }
}

/// What one listener serves.
#[derive(Debug)]
pub struct HttpMeter {
    listener: Listener,
    connections: AtomicI64,
    /// The last one is for what matches none.
    routes: Vec<RouteMeter>,
}

#[derive(Debug)]
struct RouteMeter {
    route: &'static str,
    /// What its paths begin with, if they have parts of their own.
    prefix: Option<&'static str>,
    requests: CounterBy<Class>,
    took: Timings,
}

impl HttpMeter {
    pub(super) fn new(recorder: &Recorder, listener: Listener) -> Self {
        let routes = routes_of(listener)
            .iter()
            .chain([&UNMATCHED])
            .map(|route| RouteMeter {
                route,
                prefix: match route.split_once('{') {
                    Some((prefix, _)) => Some(prefix),
                    // A whole tree under one name.
                    None => route.ends_with('/').then_some(*route),
                },
                requests: recorder.counters(
                    &f::HTTP_REQUESTS,
                    &[(Listener::NAME, listener.as_str()), ("route", route)],
                ),
                took: Timings::of(&f::HTTP_REQUEST_DURATION),
            })
            .collect();
        Self {
            listener,
            connections: AtomicI64::new(0),
            routes,
        }
    }

    /// Which listener.
    #[must_use]
    pub fn listener(&self) -> Listener {
        self.listener
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection has ended.
    pub fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number of a path's route, for [`HttpMeter::answered`].
    #[must_use]
    pub fn route(&self, path: &str) -> usize {
        let fits = |one: &RouteMeter| match one.prefix {
            Some(prefix) => path.starts_with(prefix),
            None => one.route == path,
        };
        let last = self.routes.len().saturating_sub(1);
        self.routes.iter().position(fits).unwrap_or(last)
    }

    /// A request was answered with this status.
    pub fn answered(&self, route: usize, status: u16, took: Duration) {
        if let Some(route) = self.routes.get(route) {
            route.requests.increment(Class::of(status), 1);
            route.took.observe(took);
        }
    }

    pub(super) fn connections(&self) -> f64 {
        float(self.connections.load(Ordering::Relaxed))
    }

    pub(super) fn write(&self, page: &mut Page) {
        for route in &self.routes {
            let labels = [
                (Listener::NAME, self.listener.as_str()),
                ("route", route.route),
            ];
            page.histogram(&labels, &route.took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_route_of_the_router_or_none() {
        let meter = HttpMeter::new(&Recorder::new(), Listener::Client);
        let all = Listener::ALL.iter().flat_map(|one| routes_of(*one));
        assert!(all.into_iter().all(|route| ROUTES.contains(route)));
        let route = |path: &str| meter.routes[meter.route(path)].route;
        assert_eq!(route("/v1/tools"), "/v1/tools");
        assert_eq!(route("/v1/tools/"), UNMATCHED);
        assert_eq!(
            route("/v1/sessions/connections/con_x"),
            "/v1/sessions/connections/{id}"
        );
        for (path, is) in [
            ("/sse", "/sse"),
            ("/sse/demo", "/sse/{name}"),
            ("/messages", "/messages"),
            ("/ssex", UNMATCHED),
        ] {
            assert_eq!(route(path), is);
        }
        assert_eq!(route("/etc/passwd"), UNMATCHED);
    }
}
