//! The forms in which a value may be written.

use base64::Engine as _;
use base64::engine::GeneralPurpose;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::domain::limits::{REDACT_BYTES_MIN, REDACT_LINE_BYTES_MIN};

type Form = Zeroizing<Vec<u8>>;

/// Every form of a value worth looking for in texts of so many bytes, each once. None, if it is too
/// short to be told from chance.
pub(super) fn of(value: &[u8], text_max: usize) -> Vec<Form> {
    let value = trimmed(value);
    if value.len() < REDACT_BYTES_MIN {
        return Vec::new();
    }
    let mut all = vec![form(value)];
    let lines: Vec<&[u8]> = value.split(|byte| *byte == b'\n').map(trimmed).collect();
    if lines.len() > 1 {
        let long = lines
            .iter()
            .filter(|line| line.len() >= REDACT_LINE_BYTES_MIN);
        all.extend(long.map(|line| form(line)));
    }
    // Of an encoded value no more than a line can be seen: no more of it is encoded.
    let seen = value.get(..text_max + 1).unwrap_or(value);
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        all.extend(base64(engine, seen));
    }
    all.extend([
        percent(seen, "0123456789ABCDEF"),
        percent(seen, "0123456789abcdef"),
    ]);
    all.extend(json(seen));
    all.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    all.dedup();
    all
}

fn form(bytes: &[u8]) -> Form {
    Zeroizing::new(bytes.to_vec())
}

/// Without the line break at its end, which a log line would not show either.
fn trimmed(value: &[u8]) -> &[u8] {
    let end = value
        .iter()
        .rposition(|byte| !matches!(byte, b'\n' | b'\r'))
        .map_or(0, |last| last + 1);
    value.get(..end).unwrap_or_default()
}

/// The base64 text of a value by itself, and what is the same of it wherever the value stands in a
/// longer one (`user:token`, encoded together).
fn base64(engine: &GeneralPurpose, value: &[u8]) -> Vec<Form> {
    let mut all = vec![Zeroizing::new(engine.encode(value).into_bytes())];
    for before in 0..3usize {
        let mut padded = Zeroizing::new(Vec::with_capacity(before + value.len()));
        padded.resize(before, 0);
        padded.extend_from_slice(value);
        let text = Zeroizing::new(engine.encode(padded.as_slice()));
        // Six bits a character: those that hold bits of a neighbour are not the value's.
        let (first, last) = ((before * 8).div_ceil(6), (before + value.len()) * 8 / 6);
        let core = text.as_bytes().get(first..last).unwrap_or_default();
        if core.len() >= REDACT_LINE_BYTES_MIN {
            all.push(form(core));
        }
    }
    all
}

/// Percent-encoded as RFC 3986 would: all but its unreserved characters.
fn percent(value: &[u8], digits: &str) -> Form {
    let digits = digits.as_bytes();
    let digit = |nibble: u8| digits.get(usize::from(nibble)).copied().unwrap_or(b'0');
    let mut out = Zeroizing::new(Vec::with_capacity(value.len() * 3));
    for byte in value {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(*byte);
        } else {
            out.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    out
}

/// Escaped as in a JSON string, if it is text at all.
fn json(value: &[u8]) -> Option<Form> {
    // A value cut in the middle of a character: what comes before it.
    let text = match std::str::from_utf8(value) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(value.get(..error.valid_up_to())?).ok()?
        }
        Err(_) => return None,
    };
    let quoted = Zeroizing::new(serde_json::to_vec(text).ok()?);
    let inner = quoted.get(1..quoted.len().checked_sub(1)?)?;
    (inner.len() >= REDACT_BYTES_MIN).then(|| form(inner))
}
