//! Pressure of the host (PSI, `Documentation/accounting/psi.rst` of the kernel): for what share of the last ten
//! seconds tasks waited for a resource, and when that is too much.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A share of time, in hundredths of a percent, which is what the kernel says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Share(u32);

/// All of the time.
const WHOLE: u32 = 100 * 100;

/// What one file of `/proc/pressure` says of the last ten seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Psi {
    /// At least one task waited.
    #[serde(rename = "some_basis_points")]
    pub some: Share,
    /// All tasks that had something to do waited.
    #[serde(rename = "full_basis_points")]
    pub full: Share,
}

/// Shut by too much, open again well below: what comes and goes about the limit does not flap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Valve {
    shut: bool,
}

// === impl Share ===

impl Share {
    /// From whole percents; 100 at most.
    #[must_use]
    pub fn percent(percent: u32) -> Self {
        Self(percent.min(100) * 100)
    }

    /// As a fraction of 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    /// Three quarters of it: below that a valve opens.
    #[must_use]
    pub fn release(self) -> Self {
        Self(self.0 / 4 * 3)
    }

    /// `26.33`, as the kernel writes it.
    fn parse(text: &str) -> Option<Self> {
        let (whole, rest) = text.split_once('.')?;
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || rest.len() != 2 || !digits(rest) {
            return None;
        }
        let whole: u32 = whole.parse().ok()?;
        let rest: u32 = rest.parse().ok()?;
        let share = whole.checked_mul(100)?.checked_add(rest)?;
        (share <= WHOLE).then_some(Self(share))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole} %"),
            (whole, rest) => write!(f, "{whole}.{rest:02} %"),
        }
    }
}

// === impl Psi ===

impl Psi {
    /// The text of a file of `/proc/pressure`. A kernel that has no line `full` for the CPU (before 5.13) means 0;
    /// what has no line `some` is no such file.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let line = |name: &str| {
            text.lines().find_map(|line| {
                let mut fields = line.split_ascii_whitespace();
                (fields.next() == Some(name)).then(|| fields.next())?
            })
        };
        let share = |field: &str| Share::parse(field.strip_prefix("avg10=")?);
        Some(Self {
            some: share(line("some")?)?,
            full: match line("full") {
                Some(field) => share(field)?,
                None => Share::default(),
            },
        })
    }
}

// === impl Valve ===

impl Valve {
    /// Takes over what was seen. What is not known, or has no limit, leaves it open.
    pub fn see(&mut self, seen: Option<Share>, limit: Option<Share>) {
        self.shut = match (seen, limit) {
            (Some(seen), Some(limit)) if self.shut => seen >= limit.release(),
            (Some(seen), Some(limit)) => seen >= limit,
            _ => false,
        };
    }

    /// Whether nothing is let through.
    #[must_use]
    pub fn is_shut(self) -> bool {
        self.shut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_kernel_s_text_is_read() {
        let text = "some avg10=26.33 avg60=13.66 avg300=5.78 total=26596945\n\
                    full avg10=0.07 avg60=0.00 avg300=0.00 total=0\n";
        let psi = Psi::parse(text).unwrap();
        assert_eq!((psi.some, psi.full), (Share(2633), Share(7)));
        assert_eq!(
            (psi.some.to_string(), Share::percent(20).to_string()),
            ("26.33 %".to_owned(), "20 %".to_owned())
        );
        let old = Psi::parse("some avg10=100.00 avg60=1.00 avg300=0.00 total=1\n").unwrap();
        assert_eq!(
            (old.some, old.full),
            (Share::percent(100), Share::default())
        );
        for wrong in [
            "",
            "some",
            "some avg10=",
            "some avg10=1",
            "some avg10=1.5 avg60=0.00",
            "some avg10=-1.00",
            "some avg10=+1.00",
            "some avg10=100.01",
            "some avg10=99999999999.00",
            "some avg60=1.00",
            "full avg10=1.00",
            "some avg10=1.00\nfull avg10=x",
        ] {
            assert_eq!(Psi::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_valve_does_not_flap_about_its_limit() {
        let mut valve = Valve::default();
        let limit = Some(Share::percent(20));
        let mut see = |percent| {
            valve.see(Some(Share::percent(percent)), limit);
            valve.is_shut()
        };
        assert!(!see(19));
        assert!(see(20));
        assert!(see(19) && see(15), "not at once");
        assert!(!see(14));
        assert!(!see(19), "nor back");
        assert!(see(100));
        valve.see(None, limit);
        assert!(!valve.is_shut(), "what is not known shuts nothing");
        valve.see(Some(Share::percent(100)), None);
        assert!(!valve.is_shut());
    }

    proptest! {
        #[test]
        fn whatever_the_text_nothing_panics_and_nothing_exceeds_the_whole(text in "\\PC*") {
            if let Some(psi) = Psi::parse(&text) {
                prop_assert!(psi.some.0 <= WHOLE && psi.full.0 <= WHOLE);
            }
        }

        #[test]
        fn what_the_kernel_would_write_is_read_back(
            some in 0u32..=WHOLE, full in 0u32..=WHOLE, total in any::<u64>(),
        ) {
            let line = |name: &str, share: u32| {
                format!("{name} avg10={}.{:02} avg60=1.00 avg300=0.10 total={total}\n",
                    share / 100, share % 100)
            };
            let text = line("some", some) + &line("full", full);
            prop_assert_eq!(Psi::parse(&text), Some(Psi { some: Share(some), full: Share(full) }));
            let cut = text.get(..text.len() / 2).unwrap_or_default();
            // A text that was cut off is read without its end, or not at all.
            prop_assert!(Psi::parse(cut).is_none_or(|psi| psi.some == Share(some)));
        }

        #[test]
        fn between_its_two_limits_a_valve_stays_as_it_is(
            shares in proptest::collection::vec(0u32..=WHOLE, 1..50), limit in 1u32..=100,
        ) {
            let limit = Share::percent(limit);
            let mut valve = Valve::default();
            for share in shares.into_iter().map(Share) {
                let before = valve.is_shut();
                valve.see(Some(share), Some(limit));
                match share {
                    high if high >= limit => prop_assert!(valve.is_shut()),
                    low if low < limit.release() => prop_assert!(!valve.is_shut()),
                    _ => prop_assert_eq!(valve.is_shut(), before),
                }
            }
        }
    }
}
