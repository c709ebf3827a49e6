//! How far a run is, as its init and its own end tell it.

use sandbox::host::End;
use sandbox::status::{Failure, Record};

use super::KILLED;
use crate::actors::launcher::Exit;

/// How far a server is.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// The init follows its plan.
    Starting,
    /// A step of the plan failed.
    Failed(Failure),
    /// The server was executed.
    Started,
    /// The server has ended.
    Ended(Exit),
}

/// How far a run is. The phases of a short run may pass unseen, but never the reason of its end.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) phase: Phase,
    /// The init has ended and is reaped.
    pub(super) reaped: bool,
}

impl Stage {
    pub(super) const NEW: Self = Self {
        phase: Phase::Starting,
        reaped: false,
    };

    /// How the server ended, once it has.
    pub(super) fn exit(&self) -> Option<Exit> {
        match &self.phase {
            Phase::Ended(exit) => Some(exit.clone()),
            Phase::Failed(failure) => Some(Exit::NotStarted {
                step: failure.step.clone(),
                detail: failure.advice(),
            }),
            Phase::Starting | Phase::Started => None,
        }
    }

    pub(super) fn told(&mut self, record: Record) {
        self.phase = match record {
            Record::Failed(failure) => Phase::Failed(failure),
            Record::Started => Phase::Started,
            Record::Exited(code) => Phase::Ended(Exit::Code(code)),
            Record::Signaled(signal) => Phase::Ended(Exit::Signal(signal)),
        };
    }

    /// The init ended like this. Where it told nothing of the server's end, its own end is the
    /// server's: killed with it, or never started.
    pub(super) fn reaped(&mut self, end: Option<End>) {
        self.reaped = true;
        match self.phase {
            Phase::Starting => {
                self.phase = Phase::Ended(Exit::NotStarted {
                    step: "init".to_owned(),
                    detail: match end {
                        Some(End::Code(code)) => format!("the init exited with code {code}"),
                        Some(End::Signal(signal)) => format!("signal {signal} ended the init"),
                        None => "somebody else reaped the init".to_owned(),
                    },
                });
            }
            Phase::Started => {
                self.phase = Phase::Ended(Exit::Signal(match end {
                    Some(End::Signal(signal)) => signal,
                    // Its lifeline was cut: it left without a word, and the kernel killed the rest.
                    _ => KILLED,
                }));
            }
            Phase::Failed(_) | Phase::Ended(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(records: &[Record], end: Option<End>) -> Stage {
        let mut stage = Stage::NEW;
        for record in records {
            stage.told(record.clone());
        }
        stage.reaped(end);
        stage
    }

    #[test]
    fn the_end_of_init_completes_the_story() {
        let exit = |records: &[Record], end| after(records, Some(end)).exit();
        assert_eq!(
            exit(&[Record::Started], End::Signal(15)),
            Some(Exit::Signal(15))
        );
        // Init told how the server ended, then went itself: the server's end counts.
        let told = [Record::Started, Record::Exited(3)];
        assert_eq!(exit(&told, End::Code(0)), Some(Exit::Code(3)));
        // The lifeline was cut: init leaves with 0 and says nothing.
        assert_eq!(
            exit(&[Record::Started], End::Code(0)),
            Some(Exit::Signal(KILLED))
        );
        let never = exit(&[], End::Code(125));
        assert!(matches!(never, Some(Exit::NotStarted { step, .. }) if step == "init"));
    }

    #[test]
    fn a_failure_is_not_forgotten_when_init_is_gone() {
        let failure = Failure {
            step: "exec".to_owned(),
            errno: 2,
            text: "cannot execute `x`".to_owned(),
        };
        let stage = after(&[Record::Failed(failure)], Some(End::Code(126)));
        assert!(matches!(&stage.phase, Phase::Failed(f) if f.step == "exec"));
        assert!(matches!(stage.exit(), Some(Exit::NotStarted { step, .. }) if step == "exec"));
        assert!(Stage::NEW.exit().is_none());
    }
}
