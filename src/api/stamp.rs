//! Times on the wire: RFC 3339 in UTC with milliseconds, written by hand because every answer
//! carries one and a formatter costs more than the rest of the answer's head.

use crate::domain::account::Millis;

const DAY_MS: Millis = 86_400_000;
/// 0000-01-01 and 9999-12-31, in days since the epoch: what four digits can say.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// A day of the proleptic Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Day {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
}

impl Day {
    /// The day that is this many days after 1970-01-01 (Howard Hinnant's `civil_from_days`).
    pub(crate) fn from_epoch(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        Self {
            year: year_of_era + era * 400 + i64::from(month <= 2),
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
        }
    }

    /// Days since 1970-01-01 (`days_from_civil`).
    pub(crate) fn to_epoch(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = if self.month > 2 {
            self.month - 3
        } else {
            self.month + 9
        };
        let of_year = (153 * shifted_month + 2) / 5 + self.day - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
    }
}

/// The day a time falls on.
pub(crate) fn day_of(at: Millis) -> Day {
    Day::from_epoch(at.div_euclid(DAY_MS))
}

/// Writes `at` as `2026-11-21T10:00:00.000Z`. Times outside the years 0 to 9999 are clamped.
#[must_use]
pub fn rfc3339(at: Millis) -> [u8; 24] {
    let day = Day::from_epoch(at.div_euclid(DAY_MS).clamp(*DAYS.start(), *DAYS.end()));
    let of_day = at.rem_euclid(DAY_MS);
    let mut out = *b"0000-00-00T00:00:00.000Z";
    let fields = [
        (3, 4, day.year),
        (6, 2, day.month),
        (9, 2, day.day),
        (12, 2, of_day / 3_600_000),
        (15, 2, of_day / 60_000 % 60),
        (18, 2, of_day / 1_000 % 60),
        (22, 3, of_day % 1_000),
    ];
    for (last, width, value) in fields {
        digits(&mut out, last, width, value);
    }
    out
}

/// Writes `value` right-aligned so that its last digit is at `last`.
fn digits(out: &mut [u8; 24], last: usize, width: usize, mut value: i64) {
    for at in (0..width).map(|back| last - back) {
        let digit = u8::try_from(value % 10).unwrap_or_default();
        if let Some(slot) = out.get_mut(at) {
            *slot = b'0' + digit;
        }
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(at: Millis) -> String {
        String::from_utf8(rfc3339(at).to_vec()).unwrap()
    }

    #[test]
    fn known_times() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(text(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(text(1_795_255_445_678), "2026-11-21T10:04:05.678Z");
        assert!(text(Millis::MAX).starts_with("9999-12-31"));
        assert!(text(Millis::MIN).starts_with("0000-01-01"));
    }

    proptest! {
        #[test]
        fn agrees_with_the_calendar_library(at in -62_135_596_800_000i64..253_402_300_799_999) {
            let theirs = jiff::Timestamp::from_millisecond(at).unwrap();
            prop_assert_eq!(text(at), format!("{theirs:.3}"));
            prop_assert_eq!(day_of(at).to_epoch(), at.div_euclid(DAY_MS));
        }
    }
}
