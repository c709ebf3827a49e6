//! How people write and read durations, sizes and parts of a core.
//!
//! Parsing is strict and exact (no floating point): a value that is not understood is refused
//! with the forms that are.

use std::time::Duration;

/// A text that is not of the wanted form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {wanted}")]
pub(super) struct UnitError {
    text: String,
    wanted: &'static str,
}

const DURATION: &str = "a duration: a whole number with ms, s, m, h or d, like 300s or 1h30m";
const MOMENT: &str = "a moment: a day that there is, a time and a zone, like 2026-01-31T08:00:00Z or 2026-01-31T08:00:00+02:00";
const SIZE: &str = "a size: a number with B, KiB, MiB, GiB or TiB, like 512MiB or 1.5GiB";
const CPU: &str = "a number of cores, like 1, 0.5 or 1.25 (thousandths at most)";

fn refuse(text: &str, wanted: &'static str) -> UnitError {
    UnitError {
        text: text.chars().take(64).collect(),
        wanted,
    }
}

/// Splits `digits` off the front; both parts may be empty.
fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// Parses `250ms`, `30s`, `15m`, `2h`, `7d`, and sums such as `1h30m`.
///
/// # Errors
/// [`UnitError`] if it is of another form or does not fit.
pub(super) fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || refuse(text, DURATION);
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let (digits, after) = split_digits(rest);
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        let unit_end = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, next) = after.split_at_checked(unit_end).ok_or_else(wrong)?;
        let ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        total = count
            .checked_mul(ms)
            .and_then(|part| total.checked_add(part))
            .ok_or_else(wrong)?;
        rest = next;
    }
    Ok(Duration::from_millis(total))
}

/// Says of what looks like a moment and is none how one is written; of anything else, what a duration is.
pub(super) fn no_moment(text: &str, error: UnitError) -> UnitError {
    let (year, rest) = split_digits(text.trim());
    match year.len() == 4 && rest.starts_with('-') {
        true => refuse(text, MOMENT),
        false => error,
    }
}

/// As [`parse_duration`], but zero is refused: a deadline of nothing never passes.
///
/// # Errors
/// [`UnitError`].
pub(super) fn parse_deadline(text: &str) -> Result<Duration, UnitError> {
    match parse_duration(text)? {
        Duration::ZERO => Err(refuse(text, "more than zero")),
        some => Ok(some),
    }
}

/// How long without calls until an isolate stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Idle {
    /// After this time.
    After(Duration),
    /// Not at all.
    Never,
}

/// Parses a duration or `never`.
///
/// # Errors
/// [`UnitError`].
pub(super) fn parse_idle(text: &str) -> Result<Idle, UnitError> {
    if text == "never" {
        return Ok(Idle::Never);
    }
    parse_deadline(text).map(Idle::After)
}

/// A decimal number as `(whole, fraction, 10^digits of the fraction)`.
fn decimal(text: &str) -> Option<(u64, u64, u64)> {
    let (whole, fraction) = match text.split_once('.') {
        None => (text, ""),
        Some((_, "")) => return None,
        Some(parts) => parts,
    };
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits = u32::try_from(fraction.len()).ok()?;
    let fraction = if fraction.is_empty() {
        0
    } else {
        fraction.parse().ok()?
    };
    Some((whole.parse().ok()?, fraction, 10_u64.pow(digits)))
}

fn scale(text: &str, unit: u64) -> Option<u64> {
    let (whole, fraction, one) = decimal(text)?;
    let part = fraction.checked_mul(unit)? / one;
    whole.checked_mul(unit)?.checked_add(part)
}

/// Parses bytes: `512MiB`, `1.5GiB`, `64k`; the letters alone mean the binary units, as in
/// systemd; a bare number is bytes.
///
/// # Errors
/// [`UnitError`] if it is of another form, zero, or does not fit.
pub(super) fn parse_size(text: &str) -> Result<u64, UnitError> {
    let wrong = || refuse(text, SIZE);
    let trimmed = text.trim();
    let end = trimmed
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let (number, unit) = trimmed.split_at_checked(end).ok_or_else(wrong)?;
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "k" | "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(wrong()),
    };
    scale(number, 1_u64 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wrong)
}

/// Parses cores into thousandths: `1.5` is 1500.
///
/// # Errors
/// [`UnitError`] if it is of another form, zero, or finer than thousandths.
pub(super) fn parse_cpu(text: &str) -> Result<u64, UnitError> {
    let wrong = || refuse(text, CPU);
    if text.split_once('.').is_some_and(|(_, part)| part.len() > 3) {
        return Err(wrong());
    }
    scale(text, 1000)
        .filter(|millis| *millis > 0)
        .ok_or_else(wrong)
}

/// A duration for people: two units at most, `2h14m`, `3.9s`, `240ms`.
#[must_use]
pub(super) fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..10 => format!("{seconds}.{}s", ms % 1000 / 100),
        10..60 => format!("{seconds}s"),
        60..3600 => two(seconds / 60, "m", seconds % 60, "s"),
        3600..86_400 => two(seconds / 3600, "h", seconds % 3600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

fn two(big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    }
}

/// Bytes for people: `512 MiB`, `1.5 GiB`, `840 KiB`.
#[must_use]
pub(super) fn size(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..0x10_0000 => (10, "KiB"),
        0x10_0000..0x4000_0000 => (20, "MiB"),
        _ => (30, "GiB"),
    };
    let whole = bytes >> shift;
    let tenth = ((bytes & ((1 << shift) - 1)) * 10) >> shift;
    if whole >= 10 || tenth == 0 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

/// Thousandths of a core as cores: `1.5`.
#[must_use]
pub(super) fn cpu(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Thousandths of one core as people read them: `1.2%`.
pub(super) fn percent(millis: u32) -> String {
    format!("{}.{}%", millis / 10, millis % 10)
}

/// CPU time for people: `12ms`, `3.4s`, `1m30s`.
#[must_use]
pub(super) fn cpu_time(micros: u64) -> String {
    age(micros / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(ms)),
                "{text}"
            );
        }
        for bad in [
            "",
            "5",
            "s",
            "1.5h",
            "-1s",
            "5 m",
            "5min",
            "99999999999999999999s",
            "ä",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        assert!(parse_deadline("0s").is_err());
        assert_eq!(parse_idle("never"), Ok(Idle::Never));
        assert_eq!(parse_idle("1m"), Ok(Idle::After(Duration::from_secs(60))));
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512MiB", 512 << 20),
            ("512M", 512 << 20),
            ("1.5GiB", 3 << 29),
            ("64k", 64 << 10),
            ("4096", 4096),
            ("0.5 GiB", 512 << 20),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for bad in [
            "",
            "0",
            "MiB",
            "1.MiB",
            "1..5G",
            "5MB",
            "-1G",
            "99999999999TiB",
            "0.0000001B",
        ] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cores() {
        for (text, millis) in [("1", 1000), ("0.5", 500), ("1.25", 1250), ("64", 64_000)] {
            assert_eq!(parse_cpu(text), Ok(millis), "{text}");
        }
        for bad in ["", "0", "0.0", "1.2345", "1.", ".5", "x", "500m"] {
            assert!(parse_cpu(bad).is_err(), "{bad}");
        }
        assert_eq!(cpu(1500), "1.5");
        assert_eq!(cpu(1000), "1");
        assert_eq!(cpu(250), "0.25");
    }

    #[test]
    fn what_people_read() {
        for (ms, text) in [
            (0, "0ms"),
            (240, "240ms"),
            (3_940, "3.9s"),
            (59_999, "59s"),
            (60_000, "1m"),
            (8_040_000, "2h14m"),
            (90_000_000, "1d1h"),
        ] {
            assert_eq!(age(ms), text);
        }
        for (bytes, text) in [
            (12, "12 B"),
            (1536, "1.5 KiB"),
            (512 << 20, "512 MiB"),
            (3 << 29, "1.5 GiB"),
            (84 << 20, "84 MiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
