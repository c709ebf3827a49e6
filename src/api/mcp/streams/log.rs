//! The events of one stream that its client may have missed: numbered, bounded, thrown away from the front. What
//! nobody has read is never thrown away: whoever writes waits for room.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::api::shares::Share;
use crate::domain::limits::{MCP_KEPT_BYTES_MAX, MCP_KEPT_EVENTS_MAX};

/// One event, as it goes over the wire.
#[derive(Debug)]
struct Event {
    text: Bytes,
    /// Of a large one, until it is sent.
    _share: Option<Share>,
}

/// The events of one stream. They are numbered from 1 on.
#[derive(Debug)]
pub(super) struct Log {
    events: VecDeque<Event>,
    /// The number of the first of them.
    first: u64,
    bytes: usize,
    /// Whether there will be no more.
    ended: bool,
}

/// What comes after a number.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    /// This, or what will come yet.
    From(u64),
    /// Nothing, ever.
    Nothing,
    /// Something that is not kept.
    Lost,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            first: 1,
            bytes: 0,
            ended: false,
        }
    }
}

impl Log {
    /// The number of the event that comes next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// Bytes that are kept.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn is_ended(&self) -> bool {
        self.ended
    }

    /// There will be no more.
    pub(super) const fn end(&mut self) {
        self.ended = true;
    }

    /// One more event.
    pub(super) fn push(&mut self, text: Bytes, share: Option<Share>) {
        self.bytes += text.len();
        self.events.push_back(Event {
            text,
            _share: share,
        });
    }

    /// The event of this number.
    pub(super) fn get(&self, number: u64) -> Option<&Bytes> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.events.get(at).map(|event| &event.text)
    }

    /// Throws away what comes before this number.
    pub(super) fn forget_before(&mut self, number: u64) {
        while self.first < number
            && let Some(event) = self.events.pop_front()
        {
            self.bytes -= event.text.len();
            self.first += 1;
        }
    }

    /// Throws away all.
    pub(super) fn clear(&mut self) {
        self.forget_before(self.next());
    }

    /// Whether one more may come, when what comes before `read` has been read. Of that, so much is thrown away as
    /// must be.
    pub(super) fn has_room(&mut self, read: u64) -> bool {
        let full =
            |log: &Self| log.events.len() >= MCP_KEPT_EVENTS_MAX || log.bytes >= MCP_KEPT_BYTES_MAX;
        while full(self) && self.first < read {
            self.forget_before(self.first + 1);
        }
        !full(self)
    }

    /// What comes after the event of this number.
    pub(super) fn after(&self, number: u64) -> After {
        let next = self.next();
        match number.saturating_add(1) {
            // Of a number that was never given away.
            after if after > next => After::Lost,
            after if after == next && self.ended => After::Nothing,
            // News in between may be missed; an end may not.
            after if after < self.first && self.events.is_empty() && self.ended => After::Lost,
            after => After::From(after.max(self.first)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: u64) -> Bytes {
        Bytes::from(format!("event {number}"))
    }

    fn of(events: u64) -> Log {
        let mut log = Log::default();
        for number in 1..=events {
            log.push(text(number), None);
        }
        log
    }

    #[test]
    fn what_comes_after_an_event_is_found() {
        let mut log = of(3);
        assert_eq!(log.get(3), Some(&text(3)));
        assert_eq!((log.get(0), log.get(4)), (None, None));
        assert_eq!(log.after(0), After::From(1));
        assert_eq!(log.after(3), After::From(4), "it will come yet");
        assert_eq!(log.after(4), After::Lost, "nobody was told this number");
        assert_eq!(log.after(u64::MAX), After::Lost);
        log.end();
        assert_eq!(log.after(2), After::From(3));
        assert_eq!(log.after(3), After::Nothing);
        log.forget_before(3);
        assert_eq!(log.after(1), After::From(3), "news are missed");
        log.clear();
        assert_eq!(log.after(1), After::Lost, "the answer is not");
        assert_eq!(log.bytes(), 0);
    }

    #[test]
    fn what_nobody_has_read_is_never_thrown_away() {
        let mut log = of(MCP_KEPT_EVENTS_MAX as u64);
        assert!(!log.has_room(1));
        assert!(log.has_room(2));
        assert_eq!((log.get(1), log.get(2)), (None, Some(&text(2))));
        let mut log = Log::default();
        log.push(Bytes::from(vec![b'x'; MCP_KEPT_BYTES_MAX]), None);
        assert!(!log.has_room(1));
        assert!(log.has_room(2));
        assert_eq!(log.bytes(), 0);
    }

    proptest! {
        /// Whatever is written, read, lost and asked for again: whoever names what it has seen gets what comes after it,
        /// in order, and never something twice, or of before.
        #[test]
        fn a_reader_that_comes_back_gets_exactly_what_it_missed(
            steps in proptest::collection::vec((0u8..4, 1u64..40), 1..200)
        ) {
            let mut log = Log::default();
            let (mut written, mut next, mut seen) = (0u64, 1u64, 0u64);
            for (step, many) in steps {
                match step {
                    0 => for _ in 0..many {
                        if log.has_room(next) {
                            written += 1;
                            log.push(text(written), None);
                        } else {
                            prop_assert!(written + 1 - next >= MCP_KEPT_EVENTS_MAX as u64 - 1);
                        }
                    },
                    // The connection takes; the client sees a part of it.
                    1 => next = log.next().min(next + many),
                    2 => seen = (next - 1).min(seen + many),
                    _ => match log.after(seen) {
                        After::From(from) => {
                            prop_assert!(from > seen && from <= next.max(seen + 1), "{from} {seen} {next}");
                            next = from;
                        }
                        other => prop_assert!(false, "{other:?}"),
                    },
                }
                for number in next..=written {
                    prop_assert_eq!(log.get(number), Some(&text(number)));
                }
                prop_assert!(log.next() - 1 == written);
            }
        }
    }
}
