//! JSON in memory, within bounds, and only what everybody reads alike: a name that comes twice means
//! one thing to us and another to the server behind us.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// How much is read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Objects and arrays within each other.
    pub(super) depth: usize,
    /// Values in all.
    pub(super) values: usize,
}

/// Why something cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It nests too deeply.
    #[error("nests deeper than {0} levels")]
    Deep(usize),
    /// It has too many values.
    #[error("has more than {0} values")]
    Many(usize),
    /// An object has a name twice.
    #[error("has a name twice in one object")]
    Twice,
    /// A number has more digits than are looked at here, and others may look at them.
    #[error("has a number of more digits than can be read exactly")]
    Inexact,
    /// It is no JSON, or has a number out of range.
    #[error("is no JSON, or has a number out of range")]
    Malformed,
}

/// A text as a value, and how many values are in it.
pub(super) fn read(text: &str, bounds: Bounds) -> Result<(Value, usize), Unreadable> {
    let seen = Seen {
        bounds,
        values: Cell::new(0),
        why: Cell::new(Unreadable::Malformed),
    };
    let mut from = serde_json::Deserializer::from_str(text);
    let one = One {
        seen: &seen,
        depth: 0,
    };
    let value = one.deserialize(&mut from).map_err(|_| seen.why.get())?;
    from.end().map_err(|_| Unreadable::Malformed)?;
    Ok((value, seen.values.get()))
}

struct Seen {
    bounds: Bounds,
    values: Cell<usize>,
    why: Cell<Unreadable>,
}

#[derive(Clone, Copy)]
struct One<'a> {
    seen: &'a Seen,
    depth: usize,
}

impl One<'_> {
    fn refuse<E: Error>(self, why: Unreadable) -> E {
        self.seen.why.set(why);
        E::custom(why)
    }

    fn inner<E: Error>(self) -> Result<Self, E> {
        let most = self.seen.bounds.depth;
        if self.depth >= most {
            return Err(self.refuse(Unreadable::Deep(most)));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }
}

impl<'de> DeserializeSeed<'de> for One<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        let count = self.seen.values.get() + 1;
        self.seen.values.set(count);
        if count > self.seen.bounds.values {
            return Err(self.refuse(Unreadable::Many(self.seen.bounds.values)));
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for One<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(is.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(self.refuse(Unreadable::Twice));
            }
            let value = map.next_value_seed(inner)?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds {
        depth: 3,
        values: 10,
    };

    #[test]
    fn what_is_too_much_or_ambiguous_is_refused() {
        let why = |text: &str| read(text, BOUNDS).unwrap_err();
        assert!(read("[[[]]]", BOUNDS).is_ok());
        assert_eq!(why("[[[[]]]]"), Unreadable::Deep(3));
        assert_eq!(why(&"[".repeat(100_000)), Unreadable::Deep(3));
        assert_eq!(read("[1,2,3,4,5,6,7,8,9]", BOUNDS).unwrap().1, 10);
        assert_eq!(why("[1,2,3,4,5,6,7,8,9,0]"), Unreadable::Many(10));
        assert_eq!(why(r#"{"a":1,"\u0061":2}"#), Unreadable::Twice);
        assert_eq!(why(r#"[{"b":{"a":1,"a":1}}]"#), Unreadable::Twice);
        for text in ["", "{", "[1,]", "1 2", "1e999", r#"{"a":}"#] {
            assert_eq!(why(text), Unreadable::Malformed, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_serde_reads(text in r#"[\[\]{}",:0-9a-c.e-]{0,24}"#) {
            let most = Bounds { depth: 100, values: 100 };
            match (read(&text, most), serde_json::from_str::<Value>(&text)) {
                (Ok((ours, _)), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(Unreadable::Twice), _) => {}
                (ours, theirs) => prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{}", text),
            }
        }
    }
}
