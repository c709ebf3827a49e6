//! Checking a log: a walk over its lines that knows what must come next, and stops at the first
//! record that is not it.
//!
//! It finds an edited byte, a record that was dropped, added, doubled or moved, a segment that is
//! missing, foreign or out of place, an end that was cut off before what a checkpoint (or any
//! other witness) knows, and checkpoints that nobody trusted signed.

mod witness;

use serde::{Deserialize, Serialize};

use super::chain::{Hash, Line, NUMBER_MAX, Tip};
use super::checkpoint::{Checkpoint, PublicKey};
use crate::domain::account::Millis;

pub use witness::Witness;

/// The first record of all.
pub const GENESIS: &str = "system.genesis";
/// The first record of every other segment.
pub const SEGMENT: &str = "system.segment";
/// A signed checkpoint.
pub const CHECKPOINT: &str = "system.checkpoint";
/// Says what was removed by retention, before it is.
pub const REMOVED: &str = "system.removed";
/// Digits in a segment's file name: it is the number of its first record.
pub const NAME_DIGITS: usize = 20;

/// What a segment begins with, and what binds it to the one before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Whose log it is.
    pub installation: String,
    /// The key that signs its checkpoints, in hex.
    pub public_key: String,
    /// The hash of the record before.
    pub prev: String,
}

/// What a [`REMOVED`] record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The last record of the removed segment.
    pub last_seq: u64,
    /// Its hash.
    pub last_hash: String,
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", self.text())]
pub struct Fault {
    /// The segment's file; none if it is about the log as a whole.
    pub segment: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u64>,
    /// The number of the record that should be there, or is.
    pub seq: Option<u64>,
    /// What is wrong.
    pub what: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Nothing is wrong.
    pub whole: bool,
    /// The first thing that is.
    pub fault: Option<Fault>,
    /// Segments looked at.
    pub segments: u64,
    /// Records that are right.
    pub records: u64,
    /// The first of them.
    pub first_seq: u64,
    /// The last of them.
    pub last_seq: u64,
    /// Its hash.
    pub last_hash: String,
    /// Checkpoints whose signature is right.
    pub checkpoints: u64,
    /// The last record that a signed checkpoint covers.
    pub signed_upto: u64,
    /// When that checkpoint was made.
    pub signed_at: Option<Millis>,
    /// What is not wrong, and should be known.
    pub notes: Vec<String>,
}

impl Fault {
    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(segment) = &self.segment {
            text.push_str(segment);
            if let Some(line) = self.line {
                text.push_str(&format!(":{line}"));
            }
            text.push_str(": ");
        }
        if let Some(seq) = self.seq {
            text.push_str(&format!("record {seq}: "));
        }
        text + &self.what
    }
}

/// A check under way.
#[derive(Debug)]
pub struct Walk {
    trusted: Option<PublicKey>,
    witnesses: Vec<Witness>,
    segment: String,
    line: u64,
    tip: Option<Tip>,
    /// Where the log begins, if its oldest segments were removed.
    origin: Option<Tip>,
    /// The record that says so.
    removal: Option<u64>,
    installation: Option<String>,
    told: Told,
    report: Report,
}

/// Records that say something about the log itself.
#[derive(Debug, Default)]
struct Told {
    torn: u64,
    damaged: u64,
    lost: u64,
}

// === impl Walk ===

impl Walk {
    /// A check with this key and these witnesses. Without a key, signatures are not checked.
    #[must_use]
    pub fn new(trusted: Option<PublicKey>, witnesses: Vec<Witness>) -> Self {
        Self {
            trusted,
            witnesses,
            segment: String::new(),
            line: 0,
            tip: None,
            origin: None,
            removal: None,
            installation: None,
            told: Told::default(),
            report: Report::default(),
        }
    }

    /// The last record that was right.
    #[must_use]
    pub fn tip(&self) -> Option<Tip> {
        self.tip
    }

    fn fault(&self, seq: u64, what: impl Into<String>) -> Fault {
        Fault {
            segment: Some(self.segment.clone()).filter(|name| !name.is_empty()),
            line: (self.line > 0).then_some(self.line),
            seq: Some(seq),
            what: what.into(),
        }
    }

    /// The next segment begins. `name` is its file's.
    ///
    /// # Errors
    /// The [`Fault`]: it is not the one that must follow.
    pub fn segment(&mut self, name: &str) -> Result<(), Fault> {
        let before = std::mem::replace(&mut self.segment, name.to_owned());
        let was_empty = self.line == 0 && self.report.segments > 0;
        self.line = 0;
        self.report.segments += 1;
        if was_empty {
            let what = format!("segment {before} has no records");
            return Err(self.fault(self.tip.map_or(1, |tip| tip.seq + 1), what));
        }
        let first = first_seq(name).ok_or_else(|| self.fault(0, "is not named like a segment"))?;
        match self.tip {
            Some(tip) if first > tip.seq + 1 => {
                let what = format!(
                    "records {} to {} are missing before this segment",
                    tip.seq + 1,
                    first - 1
                );
                Err(self.fault(tip.seq + 1, what))
            }
            Some(tip) if first <= tip.seq => {
                let what = format!("this segment repeats records; {} was the last", tip.seq);
                Err(self.fault(first, what))
            }
            _ => Ok(()),
        }
    }

    /// The next line, without its newline.
    ///
    /// # Errors
    /// The [`Fault`]: it is not the record that must follow.
    pub fn line(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.line += 1;
        let named = first_seq(&self.segment).unwrap_or_default();
        let due = self.tip.map_or(named, |tip| tip.seq + 1);
        let Some(line) = Line::parse(bytes) else {
            return Err(self.fault(due, "this line is not a record, or no longer one"));
        };
        let before = match self.tip {
            Some(tip) => tip,
            None => self.begin(bytes, named)?,
        };
        if line.seq != due {
            let what = match line.seq > due {
                true => format!("records {due} to {} are missing here", line.seq - 1),
                false => format!("record {} stands here, again or out of order", line.seq),
            };
            return Err(self.fault(due, what));
        }
        if !line.follows(&before.hash) {
            let what = "its hash does not fit: it, or what stood before it, was changed";
            return Err(self.fault(due, what));
        }
        if self.line == 1 && self.report.records > 0 {
            self.bound(bytes, line.event, &before)?;
        }
        self.tip = Some(line.tip());
        self.report.records += 1;
        self.judge(&line, bytes, &before)
    }

    /// The very first line: it says where the log begins.
    fn begin(&mut self, bytes: &[u8], named: u64) -> Result<Tip, Fault> {
        let Some(head) = head(bytes) else {
            let what = "the log does not begin with the head of a segment";
            return Err(self.fault(named, what));
        };
        let hash = Hash::parse(head.prev.as_bytes())
            .ok_or_else(|| self.fault(named, "the segment's head names no hash before it"))?;
        self.installation = Some(head.installation);
        let seq = named.saturating_sub(1);
        let origin = Tip { seq, hash };
        if seq == 0 && hash != Hash::ZERO {
            return Err(self.fault(named, "the first record of all has something before it"));
        }
        self.origin = (seq > 0).then_some(origin);
        self.report.first_seq = named;
        Ok(origin)
    }

    /// The first line of every other segment.
    fn bound(&self, bytes: &[u8], event: &str, before: &Tip) -> Result<(), Fault> {
        let seq = before.seq + 1;
        let head = head(bytes).filter(|_| event == SEGMENT);
        let head =
            head.ok_or_else(|| self.fault(seq, "the segment does not begin with its head"))?;
        if head.prev != before.hash.as_str() {
            return Err(self.fault(
                seq,
                "the segment is bound to another one than stands before",
            ));
        }
        match &self.installation {
            Some(ours) if *ours != head.installation => {
                let what = format!(
                    "the segment is of another installation, {}",
                    head.installation
                );
                Err(self.fault(seq, what))
            }
            _ => Ok(()),
        }
    }

    /// What a right record says about the log.
    fn judge(&mut self, line: &Line<'_>, bytes: &[u8], before: &Tip) -> Result<(), Fault> {
        for witness in &self.witnesses {
            if witness.contradicts(line, bytes) {
                let what = format!("{} knows another record with this number", witness.name);
                return Err(self.fault(line.seq, what));
            }
            if witness.tip.seq == line.seq
                && let Some(at) = witness.signed_by(self.trusted.as_ref())
            {
                self.report.signed_upto = line.seq;
                self.report.signed_at = Some(at);
            }
        }
        match line.event {
            CHECKPOINT => self.checkpoint(line.seq, bytes, before)?,
            REMOVED => {
                let removed: Option<Removed> = serde_json::from_slice(bytes).ok();
                let is_ours = |removed: &Removed| {
                    self.origin.is_some_and(|origin| {
                        removed.last_seq == origin.seq && removed.last_hash == origin.hash.as_str()
                    })
                };
                if removed.as_ref().is_some_and(is_ours) {
                    self.removal = Some(line.seq);
                }
            }
            "system.torn" => self.told.torn += 1,
            "system.damaged" => self.told.damaged += 1,
            "system.lost" => self.told.lost += 1,
            _ => {}
        }
        Ok(())
    }

    fn checkpoint(&mut self, seq: u64, bytes: &[u8], before: &Tip) -> Result<(), Fault> {
        let wrong = |what: &str| self.fault(seq, what);
        let checkpoint: Checkpoint =
            serde_json::from_slice(bytes).map_err(|_| wrong("the checkpoint is not understood"))?;
        if checkpoint.tip() != Some(*before) {
            return Err(wrong(
                "the checkpoint is of another chain than it stands in",
            ));
        }
        if self.installation.as_deref() != Some(checkpoint.installation.as_str()) {
            return Err(wrong("the checkpoint is of another installation"));
        }
        if let Some(key) = &self.trusted {
            if !checkpoint.is_signed_by(key) {
                let what = format!(
                    "the checkpoint is not signed by the trusted key {}, but says {}",
                    key.id(),
                    checkpoint.key
                );
                return Err(wrong(&what));
            }
            self.report.checkpoints += 1;
            self.report.signed_upto = checkpoint.upto;
            self.report.signed_at = Some(checkpoint.at);
        }
        Ok(())
    }

    /// The log has ended here. `partial` is how many bytes stand behind the last newline.
    #[must_use]
    pub fn finish(mut self, broken: Option<Fault>, partial: u64) -> Report {
        let fault = broken.or_else(|| self.at_the_end());
        if let Some(tip) = self.tip {
            self.report.last_seq = tip.seq;
            self.report.last_hash = tip.hash.to_string();
        }
        self.note(partial);
        self.report.whole = fault.is_none();
        self.report.fault = fault;
        self.report
    }

    fn at_the_end(&self) -> Option<Fault> {
        let last = self.tip.map_or(0, |tip| tip.seq);
        let missing = |witness: &&Witness| witness.upto() > last;
        if let Some(witness) = self
            .witnesses
            .iter()
            .filter(missing)
            .max_by_key(|w| w.upto())
        {
            let (name, upto) = (&witness.name, witness.upto());
            return Some(match self.tip {
                Some(_) => {
                    let what = format!(
                        "the end is missing: the log stops at record {last}, but {name} knows of record {upto}"
                    );
                    self.fault(last + 1, what)
                }
                None => whole(format!(
                    "the whole log is missing: there are no records, but {name} knows of record {upto}"
                )),
            });
        }
        let origin = self.origin?;
        match self.removal {
            None => Some(whole(format!(
                "the log begins with record {}, and no record says that what stood before was \
                 removed by retention",
                origin.seq + 1
            ))),
            Some(at) if self.trusted.is_some() && at > self.report.signed_upto => {
                Some(whole(format!(
                    "record {at} says that records up to {} were removed, but no signed \
                     checkpoint covers it",
                    origin.seq
                )))
            }
            Some(_) => None,
        }
    }

    fn note(&mut self, partial: u64) {
        let Told {
            torn,
            damaged,
            lost,
        } = self.told;
        let notes = &mut self.report.notes;
        if let (Some(origin), Some(_)) = (self.origin, self.removal) {
            notes.push(format!(
                "records up to {} were removed by retention",
                origin.seq
            ));
        }
        if partial > 0 {
            notes.push(format!(
                "{partial} bytes of an unfinished record stand at the end: a write that was never \
                 acknowledged, or is under way"
            ));
        }
        for (count, what) in [
            (torn, "unfinished records of a crash were set aside"),
            (damaged, "damage was found and put on record by the server"),
            (lost, "records were lost to a full queue, and counted"),
        ] {
            if count > 0 {
                notes.push(format!("{count} times {what}"));
            }
        }
        let unsigned = self
            .tip
            .map_or(0, |tip| tip.seq.saturating_sub(self.report.signed_upto + 1));
        if self.trusted.is_none() {
            notes.push("no public key: signatures were not checked".to_owned());
        } else if unsigned > 0 {
            notes.push(format!(
                "{unsigned} records stand behind the last signed checkpoint"
            ));
        }
    }
}

/// A fault of the log as a whole.
fn whole(what: String) -> Fault {
    Fault {
        segment: None,
        line: None,
        seq: Some(1),
        what,
    }
}

/// Reads a line as the head of a segment; `None` if it is none.
#[must_use]
pub fn head(bytes: &[u8]) -> Option<Head> {
    let line = Line::parse(bytes)?;
    let heads = matches!(line.event, GENESIS | SEGMENT);
    heads.then(|| serde_json::from_slice(bytes).ok()).flatten()
}

/// The name of the segment that begins with this record.
#[must_use]
pub fn segment_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The first record of the segment with this name; `None` if it is none of ours.
#[must_use]
pub fn first_seq(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    let ours = digits.len() == NAME_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = ours.then(|| digits.parse().ok()).flatten()?;
    (number < NUMBER_MAX).then_some(number)
}

#[cfg(test)]
mod tests;
