//! What the ops listener may ask of the tree: is it alive, is it ready, what are the numbers.
//!
//! Writing a page takes milliseconds and reads files, so it runs on the blocking pool, one page at
//! a time; whoever scrapes too often waits a bounded while and is then told so.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::domain::account::Millis;
use crate::domain::limits::{ROOT_SILENCE_MAX, SCRAPE_WAIT_MAX};
use crate::telemetry::metrics::families as f;
use crate::telemetry::metrics::http::HttpMeter;
use crate::telemetry::metrics::labels::{Labelled, Listener};

use super::ctx::Ctx;
use super::scrape::{self, isolates::Shown};
use super::sync::Mutex;

/// What is kept between scrapes.
#[derive(Debug)]
pub struct OpsState {
    /// One page is written at a time.
    page: Arc<Semaphore>,
    /// Where it is.
    pub(super) url: Mutex<String>,
    /// Which isolates were on their page.
    pub(super) shown: Shown,
    /// The last kill whose time is in the metrics.
    pub(super) kills_seen: Mutex<u64>,
}

impl Default for OpsState {
    fn default() -> Self {
        Self {
            page: Arc::new(Semaphore::new(1)),
            url: Mutex::default(),
            shown: Shown::default(),
            kills_seen: Mutex::default(),
        }
    }
}

/// Which isolates are on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those with the most memory, so many, and all that are not ready.
    Top(usize),
    /// All that are not at rest.
    All,
}

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// Why it is not well, if it is not.
    pub trouble: Option<String>,
}

/// No page in time: another one is being written, or the host hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another scrape is being answered; scrape less often, or look why reading cgroups hangs")]
pub struct ScrapeBusy;

/// The tree, as the ops listener sees it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ops {
    ctx: Arc<Ctx>,
}

impl Ops {
    pub(super) fn new(ctx: Arc<Ctx>) -> Self {
        Self { ctx }
    }

    /// Whether calls are taken: every check, in a fixed order.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        readiness(&self.ctx)
    }

    /// What isolates run without, each with why and how to get it. Calls are taken nevertheless.
    #[must_use]
    pub fn not_enforced(&self) -> Vec<String> {
        self.ctx.launcher.enforcement().missing
    }

    /// The page `/metrics`.
    ///
    /// # Errors
    /// [`ScrapeBusy`] after [`SCRAPE_WAIT_MAX`].
    pub async fn metrics(&self) -> Result<String, ScrapeBusy> {
        self.page(scrape::house).await
    }

    /// The page `/metrics/isolates`.
    ///
    /// # Errors
    /// As [`Ops::metrics`].
    pub async fn isolates(&self, which: Which) -> Result<String, ScrapeBusy> {
        self.page(move |ctx| scrape::isolates::page(ctx, which))
            .await
    }

    async fn page(
        &self,
        write: impl FnOnce(&Ctx) -> String + Send + 'static,
    ) -> Result<String, ScrapeBusy> {
        let ctx = Arc::clone(&self.ctx);
        let written = async {
            let page = Arc::clone(&self.ctx.ops.page);
            // Never closed, so there always is one.
            let turn = page.acquire_owned().await.ok();
            spawn_blocking(move || {
                // Given back when the writing is over, also if nobody waits for it any more.
                let _turn = turn;
                write(&ctx)
            })
            .await
        };
        match timeout(SCRAPE_WAIT_MAX, written).await {
            Ok(Ok(text)) => Ok(text),
            _ => Err(ScrapeBusy),
        }
    }

    /// Where the ops listener came to be, for people.
    pub fn listening(&self, url: &str) {
        *self.ctx.ops.url.lock() = url.to_owned();
    }

    /// When a listener's certificate ends, for the next page.
    pub fn certificate(&self, listener: Listener, ends: Option<Millis>) {
        if let Some(ends) = ends {
            let labels = [(Listener::NAME, listener.as_str())];
            self.ctx
                .metrics
                .set(&f::TLS_EXPIRY, &labels, scrape::seconds(ends));
        }
    }

    /// Where a listener's requests are counted.
    #[must_use]
    pub fn http(&self, listener: Listener) -> Option<Arc<HttpMeter>> {
        self.ctx.metrics.http(listener)
    }
}

/// All checks; the first ones are the gates, by name.
pub(super) fn readiness(ctx: &Ctx) -> Vec<Check> {
    let gates = &ctx.gates;
    let check = |name, well: bool, why: &dyn Fn() -> String| Check {
        name,
        trouble: (!well).then(why),
    };
    let store = || match &*ctx.store_away.load() {
        Some(why) => format!("the database does not answer: {why}"),
        None => "the database was not asked yet".to_owned(),
    };
    let audit = || {
        let written = ctx.audit.written();
        let written = written.borrow();
        match &written.failing {
            Some(why) => format!("the audit log cannot be written: {why}"),
            None if written.overflowing => "the audit log's queue is full".to_owned(),
            None => "the audit log is not open yet".to_owned(),
        }
    };
    let silence = ctx.heart.silent_for();
    vec![
        check("spawn", gates.spawn.is_open(), &|| {
            "spawnd is gone; no process can be started".to_owned()
        }),
        check("store", gates.store.is_open(), &store),
        check("audit", gates.audit.is_open(), &audit),
        check("kill", gates.kill.is_open(), &|| {
            "the deny table is not loaded".to_owned()
        }),
        check("vault", gates.vault.is_open(), &|| {
            "the keys are not loaded".to_owned()
        }),
        check("catalog", gates.catalog.is_open(), &|| {
            "no routes are published yet".to_owned()
        }),
        check("listeners", gates.listeners.is_open(), &|| {
            "the client port is closed".to_owned()
        }),
        check("root", silence < ROOT_SILENCE_MAX, &|| {
            format!(
                "the root supervisor has not answered for {} s",
                silence.as_secs()
            )
        }),
        check("running", !ctx.is_stopping(), &|| {
            "the gateway is draining and will stop".to_owned()
        }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::audit::{Audit, Durability};
    use crate::actors::clock::SetClock;
    use crate::actors::scripted::Scripted;
    use crate::config::Config;
    use crate::storage::Store;

    pub(crate) async fn ctx(dir: &std::path::Path) -> Arc<Ctx> {
        let mut config = Config::default();
        config.server.data_dir = dir.to_owned();
        let store = Store::open(&dir.join("db")).await.unwrap();
        let audit = Audit::open(&dir.join("audit"), Durability::Durable).unwrap();
        Arc::new(Ctx::new(
            config,
            Arc::new(SetClock::at(1)),
            store,
            audit,
            Arc::new(Scripted::default()),
        ))
    }

    fn troubled(ctx: &Ctx) -> Vec<&'static str> {
        readiness(ctx)
            .into_iter()
            .filter(|check| check.trouble.is_some())
            .map(|check| check.name)
            .collect()
    }

    #[tokio::test]
    async fn readiness_names_every_trouble_and_a_drain_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = ctx(dir.path()).await;
        let gates = [
            "spawn",
            "store",
            "audit",
            "kill",
            "vault",
            "catalog",
            "listeners",
        ];
        assert_eq!(troubled(&ctx), gates);
        for gate in [
            &ctx.gates.spawn,
            &ctx.gates.store,
            &ctx.gates.audit,
            &ctx.gates.kill,
            &ctx.gates.vault,
            &ctx.gates.catalog,
            &ctx.gates.listeners,
        ] {
            gate.set(true);
        }
        assert_eq!(troubled(&ctx), [""; 0]);
        tokio::time::pause();
        tokio::time::advance(ROOT_SILENCE_MAX).await;
        assert_eq!(troubled(&ctx), ["root"], "it has not answered");
        ctx.heart.beat();
        ctx.stopping.send_replace(true);
        assert_eq!(troubled(&ctx), ["running"]);
    }

    #[tokio::test]
    async fn a_page_that_hangs_refuses_the_next_and_holds_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = ctx(dir.path()).await;
        let ops = Ops::new(Arc::clone(&ctx));
        assert!(ops.metrics().await.is_ok());
        let turn = ctx.ops.page.acquire().await.unwrap();
        tokio::time::pause();
        assert_eq!(ops.metrics().await, Err(ScrapeBusy));
        tokio::time::resume();
        drop(turn);
        assert!(ops.metrics().await.is_ok(), "the turn came back");
    }
}
