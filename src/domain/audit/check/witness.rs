//! Who knows from outside where a log was: the index, the running server, a checkpoint in a file.

use super::CHECKPOINT;
use crate::domain::account::Millis;
use crate::domain::audit::chain::{Line, Tip};
use crate::domain::audit::checkpoint::{Checkpoint, PublicKey};

/// Somebody outside the log who knows where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Who, for people.
    pub name: String,
    /// Where the log was.
    pub tip: Tip,
    /// The signed checkpoint that says so. It is a record as well, the one behind the tip, and is written before
    /// anybody can know it from elsewhere.
    pub checkpoint: Option<Checkpoint>,
}

// === impl Witness ===

impl Witness {
    /// Somebody who knows of this record.
    #[must_use]
    pub fn new(name: impl Into<String>, tip: Tip) -> Self {
        Self {
            name: name.into(),
            tip,
            checkpoint: None,
        }
    }

    /// A checkpoint outside the chain; `None` if its hash is none.
    #[must_use]
    pub fn signed(name: impl Into<String>, checkpoint: Checkpoint) -> Option<Self> {
        Some(Self {
            name: name.into(),
            tip: checkpoint.tip()?,
            checkpoint: Some(checkpoint),
        })
    }

    /// The last record it knows of.
    #[must_use]
    pub fn upto(&self) -> u64 {
        self.tip.seq + u64::from(self.checkpoint.is_some())
    }

    /// Whether another record stands in the place of one it knows.
    #[must_use]
    pub fn contradicts(&self, line: &Line<'_>, bytes: &[u8]) -> bool {
        if line.seq == self.tip.seq {
            return line.hash != self.tip.hash;
        }
        let is_it = |ours: &Checkpoint| {
            line.event == CHECKPOINT
                && serde_json::from_slice(bytes)
                    .is_ok_and(|there: Checkpoint| there.signature == ours.signature)
        };
        let ours = self.checkpoint.as_ref();
        ours.is_some_and(|ours| line.seq == ours.upto + 1 && !is_it(ours))
    }

    /// When this key signed that the log was there, if it did.
    pub(super) fn signed_by(&self, key: Option<&PublicKey>) -> Option<Millis> {
        let checkpoint = self.checkpoint.as_ref()?;
        key.filter(|key| checkpoint.is_signed_by(key))?;
        Some(checkpoint.at)
    }
}
