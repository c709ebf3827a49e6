//! The probe: a timer whose lateness says what a call waits for a worker, and the metrics'
//! clean-up. Ten wake-ups a second, for as long as the house stands.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use crate::domain::limits::{METRICS_UPKEEP, SCHEDULER_PROBE};

use super::ctx::Ctx;
use super::scrape::watched::propagations;

/// Runs until it is dropped.
pub(super) async fn probe(ctx: Arc<Ctx>) {
    let mut cleaned = Instant::now();
    loop {
        let due = Instant::now() + SCHEDULER_PROBE;
        sleep_until(due).await;
        let now = Instant::now();
        // Timers are kept in whole milliseconds and come up to one late by design.
        let late = now.saturating_duration_since(due);
        ctx.metrics
            .scheduler_lag
            .record(late.saturating_sub(Duration::from_millis(1)));
        if now.saturating_duration_since(cleaned) >= METRICS_UPKEEP {
            cleaned = now;
            let ctx = Arc::clone(&ctx);
            // It walks all histograms. Nobody waits for it, and it cannot fail.
            drop(spawn_blocking(move || {
                propagations(&ctx);
                ctx.metrics.upkeep();
            }));
        }
    }
}
