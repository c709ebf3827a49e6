//! What the kill switches, the vault, the host's room, the audit log and the store count of themselves, put
//! into the metrics.

use std::time::Duration;

use crate::domain::account::Millis;
use crate::domain::audit::Category;
use crate::domain::kill::{Kind, Scope};
use crate::domain::pressure::Share;
use crate::storage::stats::{Class, ClassNumbers};
use crate::telemetry::metrics::families as f;
use crate::telemetry::metrics::labels::{Connection, Labelled, Resource};
use crate::telemetry::metrics::page::Page;

use super::super::audit::SyncTimes;
use super::super::ctx::Ctx;
use super::super::killswitch::Action;
use super::{flag, float, seconds};

/// The histograms that are counted elsewhere, for the page.
pub(super) struct Watched {
    sync: SyncTimes,
    queries: [(Class, ClassNumbers); Class::ALL.len()],
}

/// Reads all of it.
pub(super) fn read(ctx: &Ctx) -> Watched {
    kill(ctx);
    vault(ctx);
    room(ctx);
    Watched {
        sync: audit(ctx),
        queries: store(ctx),
    }
}

impl Watched {
    pub(super) fn write(&self, page: &mut Page) {
        page.family(&f::AUDIT_SYNC);
        let sum = Duration::from_micros(self.sync.sum_us);
        page.counts(&[], &self.sync.buckets, sum);
        page.family(&f::DB_QUERY);
        for (class, numbers) in &self.queries {
            let op = [(OP, class.as_str())];
            page.counts(&op, &numbers.durations, numbers.total);
        }
    }
}

const OP: &str = "op";

fn kill(ctx: &Ctx) {
    let metrics = &ctx.metrics;
    propagations(ctx);
    let listing = ctx.kill.listing();
    for kind in Kind::ALL {
        for scope in Scope::ALL {
            let of = listing.active.iter();
            let count = of.filter(|deny| deny.kind == kind && deny.target.scope() == scope);
            let labels = [(Kind::NAME, kind.word()), (Scope::NAME, scope.word())];
            metrics.set(&f::KILL_SWITCHES, &labels, float(count.count() as u64));
        }
    }
    let stats = &ctx.kill.stats;
    for scope in Scope::ALL {
        let of = (Scope::NAME, scope.word());
        metrics.counted(&f::KILL_DENIED, &[of], stats.denied(scope));
        metrics.counted(&f::KILL_CANCELLED, &[of], stats.cancelled(scope));
        for action in Action::ALL {
            let labels = [of, ("action", action.word())];
            metrics.counted(&f::KILL_CHANGES, &labels, stats.changes(scope, action));
        }
    }
    metrics.counted(&f::KILL_UNKILLABLE, &[], stats.unkillable());
    metrics.set(&f::KILL_UNSAVED, &[], float(ctx.kill.unsaved()));
    let failing = flag(ctx.kill.is_journal_failing());
    metrics.set(&f::KILL_JOURNAL_FAILING, &[], failing);
}

/// Takes over the times of kills that were not yet. Their ring is short: call it every second, and
/// before a page is written.
pub(in crate::actors) fn propagations(ctx: &Ctx) {
    let mut known = ctx.ops.kills_seen.lock();
    for one in ctx.kill.stats.propagations_after(*known) {
        *known = one.number;
        ctx.metrics.propagation.record(one.took);
    }
}

fn vault(ctx: &Ctx) {
    let (metrics, stats) = (&ctx.metrics, ctx.vault.stats());
    let set = ctx.credentials.count() as u64;
    metrics.set(&f::VAULT_CREDENTIALS, &[], float(set));
    metrics.counted(&f::VAULT_ROTATIONS, &[], stats.rotations());
    metrics.counted(&f::VAULT_RESEALED, &[], stats.resealed());
    metrics.set(&f::VAULT_REMAINING, &[], float(stats.remaining()));
    metrics.set(&f::VAULT_DAMAGED, &[], float(stats.damaged()));
}

fn room(ctx: &Ctx) {
    let (metrics, room) = (&ctx.metrics, ctx.room.view());
    metrics.set(&f::ROOM_ISOLATES, &[], float(room.isolates_max));
    metrics.set(&f::ROOM_USED, &[], float(room.used_bytes));
    metrics.set(&f::ROOM_BUDGET, &[], float(room.budget_bytes));
    let free = room.free_bytes.map_or(f64::NAN, float);
    metrics.set(&f::ROOM_FREE, &[], free);
    let disk = room.disk_free_bytes.map_or(f64::NAN, float);
    metrics.set(&f::ROOM_DISK_FREE, &[], disk);
    metrics.set(&f::ROOM_DISK_MIN, &[], float(room.disk_free_min_bytes));
    metrics.counted(&f::ROOM_DISK_ENDED, &[], room.disk_ended);
    metrics.counted(&f::ROOM_REFUSED, &[], room.refused);
    let pressure = room.pressure;
    for (resource, psi) in [
        (Resource::Cpu, pressure.cpu),
        (Resource::Memory, pressure.memory),
        (Resource::Io, pressure.io),
    ] {
        let shares = psi.map(|psi| [psi.some, psi.full].map(Share::ratio));
        for (kind, share) in ["some", "full"]
            .into_iter()
            .zip(shares.unwrap_or([f64::NAN; 2]))
        {
            let labels = [(Resource::NAME, resource.as_str()), ("kind", kind)];
            metrics.set(&f::HOST_PRESSURE, &labels, share);
        }
    }
    metrics.set(&f::HOST_PRESSED, &[], flag(pressure.shut));
}

fn audit(ctx: &Ctx) -> SyncTimes {
    let metrics = &ctx.metrics;
    let stats = ctx.audit.stats();
    for (category, (taken, lost)) in Category::ALL
        .iter()
        .zip(stats.events.iter().zip(stats.dropped))
    {
        let of = [(Category::NAME, category.as_str())];
        metrics.counted(&f::AUDIT_EVENTS, &of, *taken);
        metrics.counted(&f::AUDIT_DROPPED, &of, lost);
    }
    metrics.counted(&f::AUDIT_WRITE_ERRORS, &[], stats.write_errors);
    let failing = ctx.audit.written().borrow().failing.is_some();
    metrics.set(&f::AUDIT_FAILING, &[], flag(failing));
    metrics.set(&f::AUDIT_QUEUE, &[], float(stats.queued));
    metrics.set(&f::AUDIT_LAG, &[], stats.lag.as_secs_f64());
    metrics.counted(&f::AUDIT_WRITTEN, &[], stats.seq);
    let behind = stats.seq.saturating_sub(stats.indexed_seq);
    metrics.set(&f::AUDIT_INDEX_LAG, &[], float(behind));
    metrics.set(
        &f::AUDIT_CHAIN_OK,
        &[],
        stats.chain_ok.map_or(f64::NAN, flag),
    );
    let at = |at: Option<Millis>| at.map_or(f64::NAN, seconds);
    metrics.set(&f::AUDIT_CHECKPOINT, &[], at(stats.checkpoint_at));
    metrics.set(&f::AUDIT_BYTES, &[], float(stats.bytes));
    metrics.set(&f::AUDIT_SEGMENTS, &[], float(stats.segments));
    metrics.counted(&f::AUDIT_REMOVED, &[], stats.segments_removed);
    stats.sync
}

fn store(ctx: &Ctx) -> [(Class, ClassNumbers); Class::ALL.len()] {
    let (metrics, store) = (&ctx.metrics, &ctx.store);
    metrics.set(&f::STORE_UP, &[], flag(ctx.gates.store.is_open()));
    let pool = store.connections();
    for (state, count) in [
        (Connection::InUse, pool.open.saturating_sub(pool.idle)),
        (Connection::Idle, pool.idle),
    ] {
        let labels = [(Connection::NAME, state.as_str())];
        metrics.set(&f::DB_CONNECTIONS, &labels, f64::from(count));
    }
    metrics.set(&f::DB_CONNECTIONS_MAX, &[], f64::from(pool.max));
    metrics.set(&f::DB_SIZE, &[], float(bytes(ctx)));
    Class::ALL.map(|class| {
        let numbers = store.stats().of(class);
        let op = [(OP, class.as_str())];
        metrics.counted(&f::DB_ERRORS, &op, numbers.failed);
        metrics.counted(&f::DB_RETRIES, &op, numbers.again);
        (class, numbers)
    })
}

/// What the embedded database takes. A server is asked by its own exporter, not by each of its
/// clients: it would be a query with every scrape, on a database that may be away.
fn bytes(ctx: &Ctx) -> u64 {
    if ctx.store.is_server() {
        return 0;
    }
    let file = |name: &str| {
        std::fs::metadata(ctx.settings.data_dir.join(name)).map_or(0, |meta| meta.len())
    };
    file("legation.db") + file("legation.db-wal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::audit::SYNC_BOUNDS_US;
    use crate::storage::stats::DURATION_BOUNDS;
    use crate::telemetry::metrics::family::{Family, Kind as Type, Values};

    fn bounds(family: &Family) -> Vec<Duration> {
        match family.kind {
            Type::Histogram(bounds) => bounds
                .iter()
                .copied()
                .map(Duration::from_secs_f64)
                .collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_table_has_the_bounds_and_words_of_those_who_count() {
        let syncs: Vec<_> = SYNC_BOUNDS_US.map(Duration::from_micros).into();
        assert_eq!(bounds(&f::AUDIT_SYNC), syncs);
        assert_eq!(bounds(&f::DB_QUERY), DURATION_BOUNDS);
        let words = |family: &Family, at: usize| family.labels[at].values;
        let classes: Vec<_> = Class::ALL.iter().map(|one| one.as_str()).collect();
        let actions: Vec<_> = Action::ALL.iter().map(|one| one.word()).collect();
        for (is, wanted) in [
            (words(&f::DB_QUERY, 0), classes),
            (words(&f::KILL_CHANGES, 1), actions),
        ] {
            assert!(
                matches!(is, Values::Of(is) if is == wanted),
                "{is:?} {wanted:?}"
            );
        }
    }
}
