//! The lists that are gathered, and what is gathered of them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::code::Code;
use crate::domain::limits::{PROMPT_NAME_BYTES_MAX, WATCHED_URI_BYTES_MAX};
use crate::domain::name::Name;
use crate::protocol::handshake::Abilities;

/// A list that is gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listing {
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    Templates,
    /// `prompts/list`
    Prompts,
}

impl Listing {
    /// The list that a method asks for.
    #[must_use]
    pub fn of(method: &str) -> Option<Self> {
        let all = [Self::Resources, Self::Templates, Self::Prompts];
        all.into_iter().find(|listing| listing.method() == method)
    }

    pub(super) const fn method(self) -> &'static str {
        match self {
            Self::Resources => "resources/list",
            Self::Templates => "resources/templates/list",
            Self::Prompts => "prompts/list",
        }
    }

    /// Where a result has its items.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }

    /// What is another one where all servers are, and how long it may be.
    pub(super) const fn renamed(self) -> (&'static str, usize) {
        match self {
            Self::Resources => ("uri", WATCHED_URI_BYTES_MAX),
            Self::Templates => ("uriTemplate", WATCHED_URI_BYTES_MAX),
            Self::Prompts => ("name", PROMPT_NAME_BYTES_MAX),
        }
    }

    pub(super) const fn is_of(self, able: Abilities) -> bool {
        match self {
            Self::Resources | Self::Templates => able.resources,
            Self::Prompts => able.prompts,
        }
    }
}

/// What was gathered.
#[derive(Debug, Default)]
pub struct Gathered {
    /// The items, as their servers wrote them but for what is renamed.
    pub items: Vec<String>,
    /// Mcps whose items are not all there.
    pub missing: Vec<Missing>,
}

/// Why items of an mcp are not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub mcp: Name,
    /// Why.
    pub code: Code,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page<'a> {
    #[serde(borrow, default)]
    resources: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    resource_templates: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    prompts: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) next_cursor: Option<&'a RawValue>,
}

impl<'a> Page<'a> {
    /// Its items, as their server wrote them.
    pub(super) fn items(&self, listing: Listing) -> &[&'a RawValue] {
        match listing {
            Listing::Resources => &self.resources,
            Listing::Templates => &self.resource_templates,
            Listing::Prompts => &self.prompts,
        }
    }
}
