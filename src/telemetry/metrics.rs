//! The metrics: every family in one table, one recorder that `Ctx` owns, and the meters that the
//! rest of the house counts on.
//!
//! * [`families`] is the table: name, type, help, labels with their fixed sets, buckets. The
//!   reference in `docs/metrics.md` is rendered from it, and nothing outside it can be registered.
//! * [`labels`] are the sets: enums, so that a label value is never anybody's input.
//! * [`mcp`], [`http`], [`actor`] are meters: handles registered once and then counted on.
//! * [`page`] writes what the exporter cannot: counters of fractions (its are whole numbers),
//!   series that end (`/metrics/isolates`), and the histograms of the call path, which must cost
//!   two atomic adds and no memory (its collect every sample until the next upkeep).
//!
//! Invariant: the number of series is bounded by the table, whatever users and servers do.

pub mod actor;
pub mod families;
pub mod family;
pub mod histogram;
pub mod http;
pub mod labels;
pub mod mcp;
pub mod page;
mod recorder;
#[cfg(test)]
mod reference;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram};

use actor::ActorMeter;
use families as f;
use family::Family;
use histogram::Timings;
use http::HttpMeter;
use labels::{
    ActorKind, Auth, AuthMethod, InstallResult, Labelled, Listener, Phase, RpcMethod, RpcOutcome,
    SessionEnd, known,
};
use mcp::{McpMeter, Mcps};
use page::Page;
pub use recorder::{CounterBy, Recorder};

/// All of them.
#[derive(Debug)]
pub struct Metrics {
    recorder: Recorder,
    /// By mcp.
    pub mcps: Mcps,
    http: Vec<Arc<HttpMeter>>,
    actors: Vec<Arc<ActorMeter>>,
    auth: Vec<(CounterBy<Auth>, Timings)>,
    rpc: Vec<CounterBy<RpcOutcome>>,
    phases: Vec<Histogram>,
    installs: CounterBy<InstallResult>,
    install_duration: Histogram,
    degraded_starts: Vec<(&'static str, Counter)>,
    /// Why sessions ended.
    pub session_ends: CounterBy<SessionEnd>,
    /// Calls of keys that made more than they may.
    pub calls_over_rate: Counter,
    /// Cgroups of an earlier life that were cleared away.
    pub orphans_reaped: Counter,
    /// Isolates that had no place on their page.
    pub isolates_left_off: Counter,
    /// Late timers of the probe.
    pub scheduler_lag: Histogram,
    /// The last sweep of isolates' counters.
    pub sweep: Histogram,
    /// How long kill switches took to reach the last process.
    pub propagation: Histogram,
    /// Microseconds the last rendering of `/metrics` took.
    rendered_micros: AtomicU64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Fresh metrics: every known label set is there, at 0.
    #[must_use]
    pub fn new() -> Self {
        let recorder = Recorder::new();
        let http = Listener::ALL
            .iter()
            .map(|listener| Arc::new(HttpMeter::new(&recorder, *listener)))
            .collect();
        let actors = ActorKind::ALL
            .iter()
            .map(|kind| Arc::new(ActorMeter::new(&recorder, *kind)))
            .collect();
        let auth = AuthMethod::ALL
            .iter()
            .map(|method| {
                let labels = [(AuthMethod::NAME, method.as_str())];
                let counters = recorder.counters(&f::AUTH_ATTEMPTS, &labels);
                (counters, Timings::of(&f::AUTH_DURATION))
            })
            .collect();
        let rpc = RpcMethod::ALL
            .iter()
            .map(|method| {
                let labels = [(RpcMethod::NAME, method.as_str())];
                recorder.counters(&f::RPC_REQUESTS, &labels)
            })
            .collect();
        Self {
            mcps: Mcps::new(&recorder),
            http,
            actors,
            auth,
            rpc,
            phases: Phase::ALL
                .iter()
                .map(|phase| {
                    let labels = [(Phase::NAME, phase.as_str())];
                    recorder.histogram(&f::ISOLATE_PHASE, &labels)
                })
                .collect(),
            installs: recorder.counters(&f::INSTALLS, &[]),
            install_duration: recorder.histogram(&f::INSTALL_DURATION, &[]),
            degraded_starts: f::FACILITIES
                .iter()
                .map(|name| {
                    let labels = [("facility", *name)];
                    (*name, recorder.counter(&f::DEGRADED_STARTS, &labels))
                })
                .collect(),
            session_ends: recorder.counters(&f::SESSION_ENDS, &[]),
            calls_over_rate: recorder.counter(&f::CALLS_OVER_RATE, &[]),
            orphans_reaped: recorder.counter(&f::ORPHANS_REAPED, &[]),
            isolates_left_off: recorder.counter(&f::SERIES_DROPPED, &[("family", "isolate")]),
            scheduler_lag: recorder.histogram(&f::SCHEDULER_LAG, &[]),
            sweep: recorder.histogram(&f::SWEEP_DURATION, &[]),
            propagation: recorder.histogram(&f::KILL_PROPAGATION, &[]),
            rendered_micros: AtomicU64::new(0),
            recorder,
        }
    }

    /// The meter of an mcp, by its name; beyond the bound all share one.
    #[must_use]
    pub fn mcp(&self, name: &str) -> Arc<McpMeter> {
        self.mcps.get(&self.recorder, name)
    }

    /// The meter of calls that no mcp was found for.
    #[must_use]
    pub fn no_mcp(&self) -> &Arc<McpMeter> {
        self.mcps.none()
    }

    /// The meter of a listener.
    #[must_use]
    pub fn http(&self, listener: Listener) -> Option<Arc<HttpMeter>> {
        self.http.get(listener as usize).cloned()
    }

    /// All listeners' meters.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<HttpMeter>> {
        self.http.iter()
    }

    /// The meter of a kind of actor.
    #[must_use]
    pub fn actor(&self, kind: ActorKind) -> Option<Arc<ActorMeter>> {
        self.actors.get(kind as usize).cloned()
    }

    /// A supervisor gave up on an actor that failed too often.
    pub fn given_up(&self, kind: ActorKind) {
        if let Some(meter) = self.actor(kind) {
            meter.given_up();
        }
    }

    /// An authentication was decided.
    pub fn auth(&self, method: AuthMethod, outcome: Auth, took: Duration) {
        if let Some((counters, timings)) = self.auth.get(method as usize) {
            counters.increment(outcome, 1);
            timings.observe(took);
        }
    }

    /// A message of an MCP client was answered.
    pub fn rpc(&self, method: RpcMethod, outcome: RpcOutcome) {
        if let Some(counters) = self.rpc.get(method as usize) {
            counters.increment(outcome, 1);
        }
    }

    /// An install ended.
    pub fn installed(&self, result: InstallResult, took: Duration) {
        self.installs.increment(result, 1);
        self.install_duration.record(took);
    }

    /// An isolate was started without these.
    pub fn started_without(&self, facilities: &[String]) {
        for (name, starts) in &self.degraded_starts {
            if facilities.iter().any(|missing| missing == name) {
                starts.increment(1);
            }
        }
    }

    /// A step of a start that became ready.
    pub fn phase(&self, name: &str, took: Duration) {
        let phase = known::<Phase>(name).and_then(|phase| self.phases.get(phase.index()));
        if let Some(phase) = phase {
            phase.record(took);
        }
    }

    /// Sets a gauge.
    pub fn set(&self, family: &'static Family, labels: &[(&'static str, &str)], value: f64) {
        self.recorder.gauge(family, labels).set(value);
    }

    /// Moves a counter to what somebody else counted.
    pub fn counted(&self, family: &'static Family, labels: &[(&'static str, &str)], total: u64) {
        self.recorder.counter(family, labels).absolute(total);
    }

    /// Keeps what the exporter collected from growing; call it every second.
    pub fn upkeep(&self) {
        self.recorder.upkeep();
    }

    /// The text of `/metrics`: the exporter's, then what `by_hand` writes of the caller's own
    /// numbers. Takes milliseconds: not for a runtime's worker.
    #[must_use]
    pub fn render(&self, by_hand: impl FnOnce(&mut Page)) -> String {
        let began = std::time::Instant::now();
        for actors in &self.actors {
            self.set(
                &f::ACTORS,
                &[(ActorKind::NAME, actors.kind().as_str())],
                actors.live(),
            );
        }
        for http in &self.http {
            self.set(
                &f::HTTP_CONNECTIONS,
                &[(Listener::NAME, http.listener().as_str())],
                http.connections(),
            );
        }
        for mcp in self.mcps.all() {
            self.set(
                &f::CALLS_IN_FLIGHT,
                &[(mcp::LABEL, mcp.name())],
                mcp.in_flight(),
            );
        }
        let last = Duration::from_micros(self.rendered_micros.load(Ordering::Relaxed));
        self.set(&f::RENDER_DURATION, &[], last.as_secs_f64());
        let mut page = Page::new(self.recorder.render());
        self.write_mcps(&mut page);
        page.family(&f::HTTP_REQUEST_DURATION);
        for http in &self.http {
            http.write(&mut page);
        }
        page.family(&f::AUTH_DURATION);
        for (method, (_, took)) in AuthMethod::ALL.iter().zip(&self.auth) {
            page.histogram(&[(AuthMethod::NAME, method.as_str())], took);
        }
        by_hand(&mut page);
        let text = page.finish(&f::SERIES);
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.rendered_micros.store(took, Ordering::Relaxed);
        text
    }

    fn write_mcps(&self, page: &mut Page) {
        let mcps = self.mcps.all();
        for (family, of) in mcp::HISTOGRAMS {
            page.family(family);
            for mcp in &mcps {
                page.histogram(&[(mcp::LABEL, mcp.name())], of(mcp));
            }
        }
        for (family, of) in mcp::SECONDS {
            page.family(family);
            for mcp in &mcps {
                page.sample(&[(mcp::LABEL, mcp.name())], of(mcp));
            }
        }
        mcp::write_pressure(page, &mcps);
    }
}
