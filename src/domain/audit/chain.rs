//! One record as a line, and the chain of their hashes.
//!
//! A line is `{"seq":N,"at":T,"event":"E",…,"hash":"H"}` and a newline. Its *body* is the same
//! line without `,"hash":"H"` and without the newline: exactly the bytes in the file, so nobody
//! has to serialise anything again. `H` is the lower-case hex of
//! `SHA-256(hash of the record before, as 64 hex characters ‖ body)`; before the first record
//! stand 64 zeros.

use std::fmt;
use std::io::Write;

use aws_lc_rs::digest;

use crate::domain::account::Millis;

/// Characters of a hash as text.
pub const HASH_CHARS: usize = 64;
/// No record of ours ever has this number: what is beyond it need not be counted with care.
pub const NUMBER_MAX: u64 = 1 << 62;
/// What a line begins with.
const HEAD: &[u8] = b"{\"seq\":";
/// What stands before the hash.
const MARK: &[u8] = b",\"hash\":\"";
/// What stands behind it.
const TAIL: &[u8] = b"\"}";
/// Bytes of a line's end: mark, hash, tail.
const END: usize = MARK.len() + HASH_CHARS + TAIL.len();

/// A record's hash, as its hex text.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash([u8; HASH_CHARS]);

/// Where a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The last record's number; 0 before the first.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

/// A line that has the form of a record. Whether its hash is right is another question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number.
    pub seq: u64,
    /// When, in milliseconds since the epoch.
    pub at: Millis,
    /// What happened.
    pub event: &'a str,
    /// The hash it carries.
    pub hash: Hash,
    /// The whole line but `,"hash":"…"}`.
    open_body: &'a [u8],
}

// === impl Hash ===

impl Hash {
    /// What stands before the first record.
    pub const ZERO: Self = Self([b'0'; HASH_CHARS]);

    /// The text form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Parses exactly 64 lower-case hex characters.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        let text: [u8; HASH_CHARS] = text.try_into().ok()?;
        text.iter().all(hex).then_some(Self(text))
    }

    fn of(before: &Self, body: &[&[u8]]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&before.0);
        for part in body {
            context.update(part);
        }
        Self(hex(context.finish().as_ref()))
    }

    /// SHA-256 of these bytes alone: of a call's arguments, of a file that was set aside.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(hex(digest::digest(&digest::SHA256, bytes).as_ref()))
    }
}

fn hex(bytes: &[u8]) -> [u8; HASH_CHARS] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'0'; HASH_CHARS];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        if let [high, low] = pair {
            *high = DIGITS[usize::from(byte >> 4)];
            *low = DIGITS[usize::from(byte & 15)];
        }
    }
    text
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// SHA-256 of what arrives piece by piece.
pub struct Hasher(digest::Context);

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(self) -> Hash {
        Hash(hex(self.0.finish().as_ref()))
    }
}

// === impl Tip ===

impl Default for Tip {
    fn default() -> Self {
        Self::START
    }
}

impl Tip {
    /// Before the first record.
    pub const START: Self = Self {
        seq: 0,
        hash: Hash::ZERO,
    };

    /// Appends the next record as a line, newline included, and moves on. `fields` is the inside
    /// of the record after its number: `,"at":…,"event":…`.
    pub fn seal(&mut self, fields: &[u8], out: &mut Vec<u8>) {
        let start = out.len();
        self.seq += 1;
        out.extend_from_slice(HEAD);
        // Writing to a vector cannot fail.
        let _ = write!(out, "{}", self.seq);
        out.extend_from_slice(fields);
        let body = out.get(start..).unwrap_or_default();
        self.hash = Hash::of(&self.hash, &[body, b"}"]);
        out.extend_from_slice(MARK);
        out.extend_from_slice(&self.hash.0);
        out.extend_from_slice(TAIL);
        out.push(b'\n');
    }
}

// === impl Line ===

impl<'a> Line<'a> {
    /// Reads a line without its newline; `None` if it is none of ours.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        let (open_body, end) = line.split_at_checked(line.len().checked_sub(END)?)?;
        let hash = end.strip_prefix(MARK)?.strip_suffix(TAIL)?;
        let rest = open_body.strip_prefix(HEAD)?;
        let (seq, rest) = number(rest)?;
        let rest = rest.strip_prefix(b",\"at\":")?;
        let (negative, rest) = match rest.strip_prefix(b"-") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let (at, rest) = number(rest)?;
        let at = Millis::try_from(at).ok()?;
        let rest = rest.strip_prefix(b",\"event\":\"")?;
        let length = memchr::memchr(b'"', rest)?;
        Some(Self {
            seq,
            at: if negative { -at } else { at },
            event: std::str::from_utf8(rest.get(..length)?).ok()?,
            hash: Hash::parse(hash)?,
            open_body,
        })
    }

    /// Whether its hash is what it should be behind the record before.
    #[must_use]
    pub fn follows(&self, before: &Hash) -> bool {
        Hash::of(before, &[self.open_body, b"}"]) == self.hash
    }

    /// Where the chain is with this record.
    #[must_use]
    pub fn tip(&self) -> Tip {
        Tip {
            seq: self.seq,
            hash: self.hash,
        }
    }
}

/// Digits without a sign or a leading zero, and what follows them.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(length)?;
    if digits.is_empty() || (length > 1 && digits.starts_with(b"0")) {
        return None;
    }
    let value: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (value < NUMBER_MAX).then_some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_body_and_its_hash() {
        let mut tip = Tip::START;
        let mut out = Vec::new();
        tip.seal(b",\"at\":7,\"event\":\"a.b\"", &mut out);
        let first = tip;
        tip.seal(b",\"at\":-3,\"event\":\"c.d\",\"x\":\"y\"", &mut out);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        // As anybody would do it by hand.
        let body = format!("{}}}", lines[0].split(",\"hash\"").next().unwrap());
        assert_eq!(body, r#"{"seq":1,"at":7,"event":"a.b"}"#);
        let by_hand = Hash::of_bytes(format!("{}{body}", "0".repeat(64)).as_bytes());
        assert_eq!(by_hand, first.hash);
        let line = Line::parse(lines[1].as_bytes()).unwrap();
        assert_eq!((line.seq, line.at, line.event), (2, -3, "c.d"));
        assert!(line.follows(&first.hash) && !line.follows(&Hash::ZERO));
        assert_eq!(line.tip(), tip);
        assert!(serde_json::from_str::<serde_json::Value>(lines[1]).is_ok());
    }

    #[test]
    fn what_is_no_record_is_not_read_as_one() {
        let mut out = Vec::new();
        let mut tip = Tip::START;
        tip.seal(b",\"at\":7,\"event\":\"a\"", &mut out);
        out.pop();
        assert!(Line::parse(&out).is_some());
        for bad in [
            &out[1..],
            &out[..out.len() - 1],
            b"",
            b"{}",
            &[0; 200],
            &[&b" "[..], &out[..]].concat(),
        ] {
            assert!(Line::parse(bad).is_none());
        }
    }
}
