//! One audit record: a flat JSON object, built in place.

use std::fmt::Write;

use crate::domain::account::Millis;

/// A record under construction. Its sequence number is given when it is appended.
#[derive(Debug, Clone)]
pub struct Entry(String);

impl Entry {
    /// A record of this event at this time.
    #[must_use]
    pub fn new(event: &'static str, at: Millis) -> Self {
        let mut text = String::with_capacity(320);
        // Writing to a string cannot fail.
        let _ = write!(text, ",\"at\":{at},\"event\":\"{event}\"");
        Self(text)
    }

    /// Adds a text. `name` is ours and needs no escaping.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.0.push_str(",\"");
        self.0.push_str(name);
        self.0.push_str("\":");
        let plain = !value
            .bytes()
            .any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        if plain {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        } else {
            self.0
                .push_str(&serde_json::to_string(value).unwrap_or_default());
        }
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        let _ = write!(self.0, ",\"{name}\":{value}");
        self
    }

    /// Writes the line with its number.
    pub(super) fn append_to(&self, seq: u64, buffer: &mut Vec<u8>) {
        buffer.extend_from_slice(b"{\"seq\":");
        buffer.extend_from_slice(seq.to_string().as_bytes());
        buffer.extend_from_slice(self.0.as_bytes());
        buffer.extend_from_slice(b"}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_of_json_whatever_is_in_it() {
        let mut line = Vec::new();
        Entry::new("call.start", 7)
            .field("tool", "a\"b\n\u{1}ü")
            .number("bytes", 12)
            .append_to(3, &mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["seq"], 3);
        assert_eq!(value["tool"], "a\"b\n\u{1}ü");
        assert_eq!(value["bytes"], 12);
    }
}
