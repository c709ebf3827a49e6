//! Name queries: enough of DNS to answer a stub resolver that asks about one name at a time.

use std::net::Ipv4Addr;

/// Bytes of the longest query that is read; longer ones are no stub resolver's.
pub const QUERY_BYTES_MAX: usize = 512;
const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const CLASS_IN: u16 = 1;
/// Addresses hold as long as the run; resolvers need not know.
const TTL_SECONDS: u32 = 60;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Something else.
    Other,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    id: [u8; 2],
    recursion: bool,
    question: &'a [u8],
    /// The name, without a dot at its end.
    pub name: String,
    /// What of it.
    pub kind: Kind,
}

/// What is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This address.
    Address(Ipv4Addr),
    /// The name is there, what was asked of it is not.
    Nothing,
    /// There is no such name.
    NoName,
    /// Ask later.
    Failed,
}

impl<'a> Query<'a> {
    /// Reads a query; `None` if it is no plain question about one name.
    #[must_use]
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let [id0, id1, flags, _, 0, 1, 0, 0, 0, 0, _, _] = *header else {
            return None;
        };
        // A query, of the ordinary kind.
        if flags & 0xf8 != 0 {
            return None;
        }
        let (name, after) = name(rest)?;
        let [t0, t1, c0, c1, ..] = *rest.get(after..)? else {
            return None;
        };
        if u16::from_be_bytes([c0, c1]) != CLASS_IN {
            return None;
        }
        let kind = match u16::from_be_bytes([t0, t1]) {
            TYPE_A => Kind::A,
            TYPE_AAAA => Kind::Aaaa,
            _ => Kind::Other,
        };
        Some(Self {
            id: [id0, id1],
            recursion: flags & 1 != 0,
            question: rest.get(..after + 4)?,
            name,
            kind,
        })
    }

    /// The whole answer to it.
    #[must_use]
    pub fn answer(&self, answer: Answer) -> Vec<u8> {
        let code = match answer {
            Answer::Address(_) | Answer::Nothing => 0,
            Answer::Failed => 2,
            Answer::NoName => 3,
        };
        let records = u8::from(matches!(answer, Answer::Address(_)));
        let mut out = Vec::with_capacity(HEADER_BYTES + self.question.len() + 16);
        out.extend(self.id);
        // A response, recursion available.
        out.extend([0x80 | u8::from(self.recursion), 0x80 | code]);
        out.extend([0, 1, 0, records, 0, 0, 0, 0]);
        out.extend(self.question);
        if let Answer::Address(address) = answer {
            // The name is that of the question.
            out.extend([0xc0, 0x0c, 0, 1, 0, 1]);
            out.extend(TTL_SECONDS.to_be_bytes());
            out.extend([0, 4]);
            out.extend(address.octets());
        }
        out
    }
}

/// A name in labels, and where what follows it begins. No compression: a question needs none.
fn name(bytes: &[u8]) -> Option<(String, usize)> {
    let mut name = String::new();
    let mut at = 0;
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        if length > 63 {
            return None;
        }
        let label = bytes.get(at..at + length)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        // A dot inside a label would make another name of it.
        if label.contains(&b'.') {
            return None;
        }
        name.push_str(std::str::from_utf8(label).ok()?);
        if name.len() > 253 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            out.push(u8::try_from(label.len()).unwrap());
            out.extend(label.as_bytes());
        }
        out.push(0);
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        // EDNS, as glibc and c-ares send it.
        out.extend([0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        out
    }

    #[test]
    fn a_question_is_read_and_answered() {
        let bytes = query("api.Example.com", 1);
        let question = Query::read(&bytes).unwrap();
        assert_eq!(question.name, "api.Example.com");
        assert_eq!(question.kind, Kind::A);
        let answer = question.answer(Answer::Address([198, 18, 0, 1].into()));
        assert_eq!(answer[..2], bytes[..2]);
        assert_eq!(answer[2..8], [0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(answer[answer.len() - 4..], [198, 18, 0, 1]);
        let none = question.answer(Answer::NoName);
        assert_eq!(none[3], 0x83);
        assert_eq!(none.len(), HEADER_BYTES + "api.Example.com".len() + 2 + 4);
        assert_eq!(Query::read(&query("x.y", 28)).unwrap().kind, Kind::Aaaa);
        assert_eq!(Query::read(&query("x.y", 16)).unwrap().kind, Kind::Other);
    }

    #[test]
    fn what_is_no_plain_question_is_none() {
        let whole = query("a.b", 1);
        let end = whole.len() - 11;
        for cut in 0..end {
            assert_eq!(Query::read(&whole[..cut]), None, "{cut}");
        }
        let mut answer = whole.clone();
        answer[2] |= 0x80;
        assert_eq!(Query::read(&answer), None);
        let mut pointer = whole.clone();
        pointer[12] = 0xc0;
        assert_eq!(Query::read(&pointer), None);
        let mut dot = whole;
        dot[13] = b'.';
        assert_eq!(Query::read(&dot), None);
    }

    proptest! {
        #[test]
        fn anything_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Some(query) = Query::read(&bytes) {
                prop_assert!(query.answer(Answer::NoName).len() <= bytes.len());
            }
        }
    }
}
