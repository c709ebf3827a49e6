//! What a server says of itself to those who use it: who it is, and how it is meant to be used.
//!
//! Sources: MCP 2025-11-25, lifecycle (`serverInfo`, `instructions`); 2026-07-28, `server/discover`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::limits::{INSTRUCTIONS_BYTES_MAX, SERVER_NAME_CHARS_MAX};

use super::extensions::Extensions;

/// A server's own words; what it does not say is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its own version.
    pub version: String,
    /// Its name for people.
    pub title: String,
    /// How it is meant to be used, for models.
    pub instructions: String,
    /// Its extensions of the protocol.
    pub extensions: Extensions,
}

/// `serverInfo`, as far as it is passed on.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Named<'a> {
    name: String,
    version: String,
    #[serde(borrow)]
    title: Option<&'a RawValue>,
}

// === impl Card ===

impl Card {
    /// What was said, cut to what is kept of it.
    pub(super) fn of(
        named: &Named<'_>,
        instructions: Option<&RawValue>,
        capabilities: Option<&RawValue>,
    ) -> Self {
        let text = |said: Option<&RawValue>| {
            let said = said.and_then(|said| serde_json::from_str::<Cow<'_, str>>(said.get()).ok());
            said.unwrap_or_default().into_owned()
        };
        let mut instructions = text(instructions);
        let end = instructions.floor_char_boundary(INSTRUCTIONS_BYTES_MAX);
        instructions.truncate(end);
        let cut = |said: &str| said.chars().take(SERVER_NAME_CHARS_MAX).collect();
        Self {
            name: cut(&named.name),
            version: cut(&named.version),
            title: cut(&text(named.title)),
            instructions,
            extensions: Extensions::declared(capabilities.map_or("", RawValue::get)),
        }
    }

    /// With each of its texts as `clean` makes it.
    #[must_use]
    pub fn cleaned(mut self, clean: impl Fn(&str) -> String) -> Self {
        for said in [
            &mut self.name,
            &mut self.version,
            &mut self.title,
            &mut self.instructions,
        ] {
            *said = clean(said);
        }
        self.extensions = self.extensions.cleaned(clean);
        self
    }

    /// `serverInfo` as clients are told it; JSON. `None` if the server has no name.
    #[must_use]
    pub fn info(&self) -> Option<String> {
        #[derive(Serialize)]
        struct Info<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            title: &'a str,
            version: &'a str,
        }
        let info = Info {
            name: &self.name,
            title: &self.title,
            version: &self.version,
        };
        (!self.name.is_empty())
            .then(|| serde_json::to_string(&info).ok())
            .flatten()
    }
}

/// `serverInfo` of what the gateway answers itself, under this name; JSON.
#[must_use]
pub fn own_info(name: &str) -> String {
    let card = Card {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..Card::default()
    };
    card.info().unwrap_or_else(|| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_server_says_is_cut_and_what_it_does_not_say_is_left_out() {
        let said = format!("\"{}ä\"", "x".repeat(INSTRUCTIONS_BYTES_MAX - 1));
        let said: &RawValue = serde_json::from_str(&said).unwrap();
        let named = json!({"name": "n".repeat(1000), "version": "1", "title": 7, "more": []});
        let named = named.to_string();
        let card = Card::of(&serde_json::from_str(&named).unwrap(), Some(said), None);
        assert_eq!(card.instructions.len(), INSTRUCTIONS_BYTES_MAX - 1);
        assert_eq!(card.name.len(), SERVER_NAME_CHARS_MAX);
        assert!(!card.info().unwrap().contains("title"));
        assert_eq!(Card::default().info(), None);
        let titled = Card {
            name: "a\"}".to_owned(),
            title: "A".to_owned(),
            ..Card::default()
        };
        let info = titled.info().unwrap();
        assert_eq!(info, r#"{"name":"a\"}","title":"A","version":""}"#);
        assert_eq!(titled.cleaned(|_| "b".to_owned()).title, "b");
    }
}
