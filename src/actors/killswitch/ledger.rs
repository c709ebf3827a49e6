//! The ledger: what is in force, what of it the store does not have yet, and the journal both
//! stand on. Everything here may wait for the disk: it is used off the runtime's workers.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use crate::domain::account::Millis;
use crate::domain::ids::DenyId;
use crate::domain::kill::{Deny, Ending, Kind, Lifted, Target};
use crate::domain::limits::KILL_ACTIVE_MAX;

use super::journal::{Journal, JournalError, Record};

/// Why nothing was switched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SwitchError {
    /// One is on already.
    #[error("{} is on already: {}, set by {}: {}", .0.title(), .0.id, .0.author, .0.reason)]
    Taken(Arc<Deny>),
    /// None is on.
    #[error("none is on")]
    NotOn,
    /// As many are on as may be.
    #[error("{KILL_ACTIVE_MAX} kill switches and suspensions are on, which is the most")]
    Full,
    /// The journal is not read yet.
    #[error("the journal of kill switches is not read yet")]
    Starting,
    /// The disk refuses.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    journal: Option<Journal>,
    active: HashMap<(Kind, Target), Arc<Deny>>,
    /// By the order in which they happened; the newest of each deny alone.
    unsaved: BTreeMap<u64, Arc<Deny>>,
    seq: u64,
}

/// What a start found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Bytes of a last line that was never acknowledged.
    pub(super) torn: usize,
    /// What the store did not know.
    pub(super) unsaved: usize,
}

impl Ledger {
    /// Whether the journal was read.
    pub(super) fn is_open(&self) -> bool {
        self.journal.is_some()
    }

    /// Reads the journal of a data directory and settles it with what the store holds: where the
    /// two differ the journal wins, and what only the store holds in force stays in force.
    pub(super) fn open(
        &mut self,
        dir: &Path,
        active: Vec<Deny>,
        history: Vec<Deny>,
    ) -> Result<Found, JournalError> {
        let opened = Journal::open(dir)?;
        let (mut journal, mut told) = (opened.journal, Told::default());
        let stored: HashMap<DenyId, Deny> = history
            .into_iter()
            .chain(active.iter().cloned())
            .map(|deny| (deny.id.clone(), deny))
            .collect();
        for record in opened.records {
            told.hear(record, &stored);
        }
        let only_stored: Vec<Deny> = active
            .into_iter()
            .filter(|deny| !told.denies.contains_key(&deny.id))
            .collect();
        for deny in told.order.iter().filter_map(|id| told.denies.get(id)) {
            if stored.get(&deny.id) != Some(deny) {
                self.note(Arc::new(deny.clone()));
            }
            if deny.lifted.is_none() {
                self.activate(Arc::new(deny.clone()));
            }
        }
        let mut missing = Vec::new();
        for deny in only_stored {
            let key = (deny.kind, deny.target.clone());
            if !self.active.contains_key(&key) {
                missing.push(Record::On { deny: deny.clone() });
                self.activate(Arc::new(deny));
            }
        }
        journal.append(&missing)?;
        self.journal = Some(journal);
        Ok(Found {
            torn: opened.torn,
            unsaved: self.unsaved.len(),
        })
    }

    fn activate(&mut self, deny: Arc<Deny>) {
        self.active.insert((deny.kind, deny.target.clone()), deny);
    }

    /// Notes that the store must hear of this; gives its number.
    fn note(&mut self, deny: Arc<Deny>) -> u64 {
        self.unsaved.retain(|_, older| older.id != deny.id);
        self.seq += 1;
        self.unsaved.insert(self.seq, deny);
        self.seq
    }

    /// Appends; a journal that somebody removed is made again first, with all that is in force.
    fn append(&mut self, records: &[Record]) -> Result<(), SwitchError> {
        let journal = self.journal.as_mut().ok_or(SwitchError::Starting)?;
        if !journal.is_in_place() {
            tracing::error!("kill.journal was removed or replaced; it is written anew");
            journal.rewrite(&in_force(&self.active))?;
        }
        Ok(journal.append(records)?)
    }

    /// Brings a deny into force; gives the number under which the store will have it.
    pub(crate) fn on(&mut self, deny: Deny) -> Result<(Arc<Deny>, u64), SwitchError> {
        let key = (deny.kind, deny.target.clone());
        if let Some(first) = self.active.get(&key) {
            return Err(SwitchError::Taken(Arc::clone(first)));
        }
        if self.active.len() >= KILL_ACTIVE_MAX {
            return Err(SwitchError::Full);
        }
        self.append(&[Record::On { deny: deny.clone() }])?;
        let deny = Arc::new(deny);
        self.activate(Arc::clone(&deny));
        let seq = self.note(Arc::clone(&deny));
        Ok((deny, seq))
    }

    /// Ends the deny of a target.
    pub(crate) fn off(
        &mut self,
        kind: Kind,
        target: &Target,
        lifted: Lifted,
    ) -> Result<(Arc<Deny>, u64), SwitchError> {
        let key = (kind, target.clone());
        let Some(deny) = self.active.get(&key).cloned() else {
            return Err(SwitchError::NotOn);
        };
        let record = Record::Off {
            id: deny.id.clone(),
            lifted: lifted.clone(),
        };
        self.append(&[record])?;
        self.active.remove(&key);
        let mut past = (*deny).clone();
        past.lifted = Some(lifted);
        let past = Arc::new(past);
        let seq = self.note(Arc::clone(&past));
        Ok((past, seq))
    }

    /// Ends what is expired, and gives it. A clock that jumps back later does not revive it.
    pub(crate) fn expire(&mut self, now: Millis) -> Result<Vec<Arc<Deny>>, SwitchError> {
        let over: Vec<Arc<Deny>> = self
            .active
            .values()
            .filter(|deny| deny.is_expired(now))
            .cloned()
            .collect();
        if over.is_empty() {
            return Ok(over);
        }
        let lifted = Lifted {
            at: now,
            by: "clock".to_owned(),
            how: Ending::Expired,
        };
        let off = |deny: &Arc<Deny>| Record::Off {
            id: deny.id.clone(),
            lifted: lifted.clone(),
        };
        let records: Vec<Record> = over.iter().map(off).collect();
        self.append(&records)?;
        let mut past = Vec::new();
        for deny in over {
            self.active.remove(&(deny.kind, deny.target.clone()));
            let mut one = (*deny).clone();
            one.lifted = Some(lifted.clone());
            let one = Arc::new(one);
            self.note(Arc::clone(&one));
            past.push(one);
        }
        Ok(past)
    }

    /// What is in force.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Arc<Deny>> {
        self.active.values()
    }

    /// The deny in force of a target.
    pub(crate) fn find(&self, kind: Kind, target: &Target) -> Option<&Arc<Deny>> {
        self.active.get(&(kind, target.clone()))
    }

    /// The oldest that the store does not have, at most so many.
    pub(super) fn unsaved(&self, most: usize) -> Vec<(u64, Arc<Deny>)> {
        let some = self.unsaved.iter().take(most);
        some.map(|(seq, deny)| (*seq, Arc::clone(deny))).collect()
    }

    /// All that the store does not have.
    pub(crate) fn all_unsaved(&self) -> impl Iterator<Item = &Arc<Deny>> {
        self.unsaved.values()
    }

    /// The store has these.
    pub(super) fn saved(&mut self, seqs: &[u64]) {
        for seq in seqs {
            self.unsaved.remove(seq);
        }
    }

    /// Writes the journal anew if it is large and the store has all of it.
    pub(super) fn compact(&mut self) -> Result<bool, JournalError> {
        let Some(journal) = &mut self.journal else {
            return Ok(false);
        };
        if !self.unsaved.is_empty() || !journal.is_large() {
            return Ok(false);
        }
        journal.rewrite(&in_force(&self.active))?;
        Ok(true)
    }
}

fn in_force(active: &HashMap<(Kind, Target), Arc<Deny>>) -> Vec<Record> {
    let mut all: Vec<&Arc<Deny>> = active.values().collect();
    all.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    let on = |deny: &&Arc<Deny>| Record::On {
        deny: (***deny).clone(),
    };
    all.iter().map(on).collect()
}

/// What the journal says of each deny, in the order in which it first spoke of it.
#[derive(Default)]
struct Told {
    denies: HashMap<DenyId, Deny>,
    order: Vec<DenyId>,
}

impl Told {
    fn hear(&mut self, record: Record, stored: &HashMap<DenyId, Deny>) {
        match record {
            Record::On { deny } => {
                if !self.denies.contains_key(&deny.id) {
                    self.order.push(deny.id.clone());
                }
                self.denies.insert(deny.id.clone(), deny);
            }
            Record::Off { id, lifted } => {
                let known = self.denies.get(&id).or_else(|| stored.get(&id)).cloned();
                // Neither has ever heard of it: then there is nothing to end.
                if let Some(mut deny) = known {
                    if !self.denies.contains_key(&id) {
                        self.order.push(id.clone());
                    }
                    deny.lifted = Some(lifted);
                    self.denies.insert(id, deny);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{ID_BYTES, McpId};

    fn target(n: u8) -> Target {
        Target::Mcp(McpId::from_random([n; ID_BYTES]))
    }

    fn deny(n: u8) -> Deny {
        Deny {
            id: DenyId::from_random([n; ID_BYTES]),
            kind: Kind::KillSwitch,
            target: target(n),
            label: format!("mcp{n}"),
            reason: format!("reason {n}"),
            author: "root".into(),
            created_at: i64::from(n),
            expires_at: None,
            lifted: None,
        }
    }

    fn lifted(at: Millis) -> Lifted {
        Lifted {
            at,
            by: "root".into(),
            how: Ending::Lifted,
        }
    }

    fn open(dir: &Path, stored: Vec<Deny>) -> Ledger {
        let mut ledger = Ledger::default();
        let active = stored.iter().filter(|deny| deny.lifted.is_none());
        ledger.open(dir, active.cloned().collect(), stored).unwrap();
        ledger
    }

    fn reasons(ledger: &Ledger) -> Vec<String> {
        let mut all: Vec<String> = ledger.active().map(|deny| deny.reason.clone()).collect();
        all.sort();
        all
    }

    #[test]
    fn the_journal_alone_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        ledger.on(deny(2)).unwrap();
        ledger.off(Kind::KillSwitch, &target(1), lifted(9)).unwrap();
        let again = open(dir.path(), vec![]);
        assert_eq!(reasons(&again), ["reason 2"]);
        assert_eq!(again.unsaved(9).len(), 2, "the store knows of neither");
    }

    #[test]
    fn the_journal_wins_and_what_only_the_store_knows_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        ledger.on(deny(2)).unwrap();
        ledger.off(Kind::KillSwitch, &target(2), lifted(9)).unwrap();
        // The store says the contrary of both, and knows a third.
        let mut gone = deny(1);
        gone.lifted = Some(lifted(3));
        let again = open(dir.path(), vec![gone, deny(2), deny(3)]);
        assert_eq!(reasons(&again), ["reason 1", "reason 3"]);
        let unsaved = again.unsaved(9);
        let told: Vec<_> = unsaved
            .iter()
            .map(|(_, d)| (&*d.reason, d.lifted.is_some()))
            .collect();
        assert_eq!(told, [("reason 1", false), ("reason 2", true)]);
        // The third is in the journal now: losing the store does not lose it.
        assert_eq!(reasons(&open(dir.path(), vec![])), ["reason 1", "reason 3"]);
    }

    #[test]
    fn nothing_is_unsaved_when_both_say_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        let (past, _) = ledger.off(Kind::KillSwitch, &target(1), lifted(9)).unwrap();
        ledger.on(deny(2)).unwrap();
        let again = open(dir.path(), vec![(*past).clone(), deny(2)]);
        assert_eq!(again.unsaved(9), []);
    }

    #[test]
    fn a_second_on_the_same_target_names_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        let mut second = deny(2);
        second.target = target(1);
        let error = ledger.on(second.clone()).unwrap_err().to_string();
        assert!(
            error.contains(deny(1).id.as_str()) && error.contains("reason 1"),
            "{error}"
        );
        // A suspension of the same target is another thing.
        second.kind = Kind::Suspension;
        ledger.on(second).unwrap();
        let none = ledger.off(Kind::KillSwitch, &target(7), lifted(9));
        assert!(matches!(none, Err(SwitchError::NotOn)));
    }

    #[test]
    fn what_expired_stays_over_when_the_clock_jumps_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        let mut short = deny(1);
        short.expires_at = Some(100);
        ledger.on(short).unwrap();
        assert!(ledger.expire(99).unwrap().is_empty());
        let over = ledger.expire(100).unwrap();
        assert_eq!(over[0].lifted.as_ref().unwrap().how, Ending::Expired);
        assert!(ledger.expire(0).unwrap().is_empty());
        assert_eq!(reasons(&ledger), [""; 0]);
        assert_eq!(reasons(&open(dir.path(), vec![])), [""; 0]);
    }

    #[test]
    fn a_removed_journal_is_made_again_with_all_that_is_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        std::fs::remove_file(dir.path().join(super::super::journal::FILE)).unwrap();
        ledger.on(deny(2)).unwrap();
        assert_eq!(reasons(&open(dir.path(), vec![])), ["reason 1", "reason 2"]);
    }

    #[test]
    fn a_large_journal_keeps_what_is_in_force_and_only_when_the_store_has_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = open(dir.path(), vec![]);
        ledger.on(deny(1)).unwrap();
        let mut wide = deny(2);
        wide.reason = "x".repeat(400);
        let before = |ledger: &Ledger| {
            let path = dir.path().join(super::super::journal::FILE);
            assert!(ledger.is_open());
            std::fs::metadata(path).unwrap().len()
        };
        while before(&ledger) <= crate::domain::limits::KILL_JOURNAL_COMPACT_BYTES {
            // Not through the disk's every sync: what counts here is the size.
            let records: Vec<Record> = (0..500)
                .flat_map(|_| {
                    let on = Record::On { deny: wide.clone() };
                    let (id, lifted) = (wide.id.clone(), lifted(5));
                    [on, Record::Off { id, lifted }]
                })
                .collect();
            ledger.append(&records).unwrap();
        }
        assert!(!ledger.compact().unwrap(), "the store has not heard of it");
        let seqs: Vec<u64> = ledger.unsaved(9).iter().map(|(seq, _)| *seq).collect();
        ledger.saved(&seqs);
        assert!(ledger.compact().unwrap());
        assert!(before(&ledger) < 1000);
        assert_eq!(reasons(&open(dir.path(), vec![])), ["reason 1"]);
    }
}
