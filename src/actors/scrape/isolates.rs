//! The page `/metrics/isolates`: single isolates under their opaque ids, the largest and the sick.
//!
//! It is a page of its own so that it can be scraped apart and less often. Its series end with
//! their isolate, which the exporter cannot do. Nobody is named: the user is a keyed hash whose key
//! lives as long as the gateway.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::time::Instant;

use crate::domain::hex::hex;
use crate::domain::ids::{IsolateId, UserId};
use crate::domain::limits::{ISOLATE_SERIES_MAX, ISOLATES_TOP_STAY};
use crate::domain::usage::Usage;
use crate::telemetry::metrics::families as f;
use crate::telemetry::metrics::family::Family;
use crate::telemetry::metrics::page::Page;

use super::super::clock::random;
use super::super::ctx::Ctx;
use super::super::ops::Which;
use super::super::slot::{Occupant, Slot, SlotState};
use super::super::sync::Mutex;
use super::{flag, float, seconds};

/// Which isolates were among the largest, and when.
#[derive(Debug, Default)]
pub(in super::super) struct Shown {
    last: Mutex<HashMap<IsolateId, Instant>>,
    key: OnceLock<[u8; 32]>,
}

struct One {
    slot: Arc<Slot>,
    run: Option<Occupant>,
    usage: Usage,
    ready: bool,
}

/// The page. An isolate at rest has no process and no series.
pub(in super::super) fn page(ctx: &Ctx, which: Which) -> String {
    let mut all: Vec<One> = ctx
        .slots
        .pin()
        .values()
        .filter(|slot| !slot.key.is_probe())
        .filter_map(one)
        .collect();
    if let Which::Top(most) = which {
        let shown = &ctx.ops.shown;
        shown.keep(&mut all, One::looks, most, Instant::now());
    }
    let left_off = all.len().saturating_sub(ISOLATE_SERIES_MAX);
    if left_off > 0 {
        // Who is sick, then who is large: the end of the list is what can be spared.
        all.sort_by_key(|one| (one.ready, Reverse(one.working_set())));
        all.truncate(ISOLATE_SERIES_MAX);
    }
    ctx.metrics.isolates_left_off.increment(left_off as u64);
    all.sort_by(|a, b| a.slot.id.cmp(&b.slot.id));
    write(ctx, &all)
}

fn one(slot: &Arc<Slot>) -> Option<One> {
    let state = slot.state();
    if matches!(state, SlotState::Resting | SlotState::Closed) {
        return None;
    }
    let run = slot.occupant();
    Some(One {
        usage: run
            .as_ref()
            .map(|run| run.record.usage())
            .unwrap_or_default(),
        ready: matches!(state, SlotState::Ready(_)),
        slot: Arc::clone(slot),
        run,
    })
}

/// What decides about a place on the page.
struct Looks<'a> {
    id: &'a IsolateId,
    working_set: u64,
    ready: bool,
}

impl One {
    fn looks(&self) -> Looks<'_> {
        Looks {
            id: &self.slot.id,
            working_set: self.working_set(),
            ready: self.ready,
        }
    }

    fn working_set(&self) -> u64 {
        self.usage
            .memory
            .map_or(0, |memory| memory.working_set_bytes())
    }
}

impl Shown {
    /// Keeps the largest, the sick, and who was among the largest a moment ago.
    fn keep<T>(
        &self,
        all: &mut Vec<T>,
        looks: impl Fn(&T) -> Looks<'_>,
        most: usize,
        now: Instant,
    ) {
        all.sort_by_key(|one| Reverse(looks(one).working_set));
        let mut last = self.last.lock();
        for one in all.iter().take(most) {
            last.insert(looks(one).id.clone(), now);
        }
        last.retain(|_, at| now - *at < ISOLATES_TOP_STAY);
        all.retain(|one| {
            let looks = looks(one);
            !looks.ready || last.contains_key(looks.id)
        });
    }

    /// A reference to a user that says nothing of them.
    fn user_ref(&self, user: Option<&UserId>) -> String {
        let Some(user) = user else {
            return String::new();
        };
        let key = self.key.get_or_init(random);
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
            return String::new();
        };
        mac.update(user.as_str().as_bytes());
        hex(mac.finalize().into_bytes().get(..8).unwrap_or_default())
    }
}

fn write(ctx: &Ctx, all: &[One]) -> String {
    let mut page = Page::default();
    page.family(&f::I_INFO);
    for one in all {
        let generation = one.run.as_ref().map_or(0, |run| run.epoch).to_string();
        let meter = ctx.metrics.mcp(one.slot.mcp.name.as_str());
        let user_ref = ctx.ops.shown.user_ref(one.slot.key.principal.user());
        let labels = [
            ("isolate", one.slot.id.as_str()),
            ("mcp", meter.name()),
            ("user_ref", &user_ref),
            ("generation", &generation),
        ];
        page.sample(&labels, 1.0);
    }
    let born = |one: &One| {
        let age = one.run.as_ref()?.record.started.elapsed();
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Some(seconds(ctx.wall_ms().saturating_sub(age)))
    };
    let of = |page: &mut Page, family: &'static Family, value: &dyn Fn(&One) -> Option<f64>| {
        page.family(family);
        for one in all {
            if let Some(value) = value(one) {
                page.sample(&[("isolate", one.slot.id.as_str())], value);
            }
        }
    };
    of(&mut page, &f::I_READY, &|one| Some(flag(one.ready)));
    of(&mut page, &f::I_MEMORY, &|one| {
        one.usage
            .memory
            .map(|memory| float(memory.working_set_bytes()))
    });
    of(&mut page, &f::I_MEMORY_LIMIT, &|one| {
        Some(float(one.slot.limits().memory_bytes))
    });
    of(&mut page, &f::I_PROCESSES, &|one| one.usage.pids.map(float));
    of(&mut page, &f::I_CPU, &|one| {
        let cpu = std::time::Duration::from_micros(one.usage.cpu_micros?);
        Some(cpu.as_secs_f64())
    });
    of(&mut page, &f::I_RUNS, &|one| {
        Some(f64::from(one.slot.restarts()))
    });
    of(&mut page, &f::I_OOM, &|one| {
        one.usage.memory_events.map(|events| float(events.oom_kill))
    });
    of(&mut page, &f::I_START, &born);
    of(&mut page, &f::I_CALLS, &|one| Some(float(one.slot.calls())));
    page.finish(&f::I_SERIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ID_BYTES;

    type Row = (IsolateId, u8, u64, bool);

    fn row((id, _, working_set, ready): &Row) -> Looks<'_> {
        Looks {
            id,
            working_set: *working_set,
            ready: *ready,
        }
    }

    fn shown(of: &Shown, rows: &[(u8, u64, bool)], most: usize, now: Instant) -> Vec<u8> {
        let mut all: Vec<Row> = rows
            .iter()
            .map(|(n, size, ready)| (IsolateId::from_random([*n; ID_BYTES]), *n, *size, *ready))
            .collect();
        of.keep(&mut all, row, most, now);
        let mut left: Vec<u8> = all.into_iter().map(|one| one.1).collect();
        left.sort_unstable();
        left
    }

    #[test]
    fn the_largest_and_the_sick_are_shown_and_do_not_flap() {
        let of = Shown::default();
        let start = Instant::now();
        let rows = [(1, 30, true), (2, 20, true), (3, 10, true), (4, 0, false)];
        assert_eq!(shown(&of, &rows, 1, start), [1, 4]);
        // Another one is the largest now; the first stays for a while.
        let rows = [(1, 5, true), (2, 20, true), (3, 10, true), (4, 0, true)];
        let soon = start + ISOLATES_TOP_STAY / 2;
        assert_eq!(shown(&of, &rows, 1, soon), [1, 2]);
        let later = start + ISOLATES_TOP_STAY;
        assert_eq!(shown(&of, &rows, 1, later), [2]);
        // Who is gone is not remembered for ever.
        assert!(shown(&of, &[], 1, later + ISOLATES_TOP_STAY).is_empty());
        assert!(of.last.lock().is_empty());
    }

    #[test]
    fn a_user_is_a_hash_that_is_the_same_until_the_restart() {
        let (one, two) = (Shown::default(), Shown::default());
        let user = UserId::from_random([7; ID_BYTES]);
        let other = UserId::from_random([8; ID_BYTES]);
        let name = one.user_ref(Some(&user));
        assert_eq!(name.len(), 16);
        assert_eq!(name, one.user_ref(Some(&user)));
        assert_ne!(name, one.user_ref(Some(&other)));
        assert_ne!(name, two.user_ref(Some(&user)), "the key is this life's");
        assert_eq!(one.user_ref(None), "");
    }
}
