//! One audit record: a flat JSON object, built in place.

use std::fmt::Write;

use crate::domain::account::Millis;
use crate::domain::audit::Category;
use crate::domain::audit::events::EVENTS;

/// Somebody was kept off the admin socket.
pub(in crate::actors) const ADMIN_DENIED: &str = "auth.admin_denied";

/// Who causes a record: what callers and their servers cause has no end, and must not take the last
/// places of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Callers, and the servers they call.
    Callers,
    /// Administrators, and the server itself.
    House,
}

impl Cause {
    fn of(event: &str, category: Category) -> Self {
        match category {
            Category::Admin | Category::Kill | Category::Credential | Category::System => {
                Self::House
            }
            // Of many tries the first is recorded, then how many.
            Category::Auth if event == ADMIN_DENIED => Self::House,
            Category::Auth | Category::Call | Category::Isolate => Self::Callers,
        }
    }
}

/// A record under construction. Its number and its hash are given when it is written.
#[derive(Debug, Clone)]
pub struct Entry {
    category: Category,
    cause: Cause,
    text: String,
}

impl Entry {
    /// A record of this event at this time. The event's first word is its category.
    #[must_use]
    pub fn new(event: &'static str, at: Millis) -> Self {
        // Who looks for an event that is not on the list is told that there is none.
        debug_assert!(cfg!(test) || EVENTS.contains(&event), "{event}");
        let mut text = String::with_capacity(320);
        // Writing to a string cannot fail.
        let _ = write!(text, ",\"at\":{at},\"event\":\"{event}\"");
        let category = Category::of(event);
        Self {
            category,
            cause: Cause::of(event, category),
            text,
        }
    }

    /// Adds a text. `name` is ours and needs no escaping.
    #[must_use]
    pub fn field(mut self, name: &'static str, value: &str) -> Self {
        self.text.push_str(",\"");
        self.text.push_str(name);
        self.text.push_str("\":");
        let plain = !value
            .bytes()
            .any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        if plain {
            self.text.push('"');
            self.text.push_str(value);
            self.text.push('"');
        } else {
            self.text
                .push_str(&serde_json::to_string(value).unwrap_or_default());
        }
        self
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, name: &'static str, value: u64) -> Self {
        let _ = write!(self.text, ",\"{name}\":{value}");
        self
    }

    /// Its category.
    #[must_use]
    pub fn category(&self) -> Category {
        self.category
    }

    /// Who causes such records.
    pub(super) fn cause(&self) -> Cause {
        self.cause
    }

    /// The inside of the record, without its number and its hash: one line, as JSON has no
    /// newlines that are not escaped.
    pub(in crate::actors) fn fields(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::chain::Tip;

    #[test]
    fn a_record_is_one_line_of_json_whatever_is_in_it() {
        let entry = Entry::new("call.start", 7)
            .field("tool", "a\"b\n\u{1}ü")
            .number("bytes", 12);
        assert_eq!(entry.category(), Category::Call);
        let mut line = Vec::new();
        Tip::START.clone().seal(entry.fields(), &mut line);
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["seq"], 1);
        assert_eq!(value["tool"], "a\"b\n\u{1}ü");
        assert_eq!(value["bytes"], 12);
    }
}
