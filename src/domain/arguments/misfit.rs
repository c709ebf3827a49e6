//! What does not fit, in words that quote the schema and names, and no value.

use std::fmt;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use serde_json::Value;

use super::quoted;

/// Options, names and types that one complaint lists.
const LISTED_MAX: usize = 8;
/// Characters of each.
const LISTED_CHARS_MAX: usize = 40;

/// The first thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// The keyword of the schema.
    pub keyword: String,
    /// Where in the schema it is, as a JSON pointer.
    pub rule: String,
    /// Where in the arguments it is, as a JSON pointer; empty for the whole.
    pub path: String,
    /// What is wanted there.
    pub wanted: String,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at: &dyn fmt::Display = match self.path.is_empty() {
            true => &"the arguments",
            false => &format_args!("`{}`", self.path),
        };
        write!(f, "{at}: {} (`{}`)", self.wanted, self.keyword)
    }
}

impl Misfit {
    pub(super) fn of(error: &ValidationError<'_>) -> Self {
        Self {
            keyword: quoted(error.kind().keyword()),
            rule: quoted(error.schema_path().as_str()),
            path: quoted(error.instance_path().as_str()),
            wanted: wanted(error.kind()),
        }
    }
}

/// Why a schema is none.
pub(super) fn of_schema(error: &ValidationError<'_>) -> String {
    let path = quoted(error.instance_path().as_str());
    match error.kind() {
        Kind::Referencing(why) => quoted(&format!("its references lead nowhere: {why}")),
        Kind::Format { format } if format == "regex" => format!(
            "its pattern at `{path}` is none that can be matched in linear time and within bounds"
        ),
        kind => format!("it is no valid schema at `{path}`: {}", wanted(kind)),
    }
}

fn wanted(kind: &Kind) -> String {
    match kind {
        Kind::Required { property } => format!("{} is required", word(property)),
        Kind::Type { kind } => format!("must be of type {}", types(kind)),
        Kind::Enum { options } => match &**options {
            Value::Array(options) => format!("must be one of {}", listed(options.iter().map(word))),
            _ => "must be one of the options".to_owned(),
        },
        Kind::Constant { expected_value } => format!("must be {}", word(expected_value)),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            format!(
                "has no member {}",
                listed(unexpected.iter().map(|name| name_of(name)))
            )
        }
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} members"),
        Kind::MinProperties { limit } => format!("must have at least {limit} members"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::Maximum { limit } => format!("must be at most {}", word(limit)),
        Kind::Minimum { limit } => format!("must be at least {}", word(limit)),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {}", word(limit)),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {}", word(limit)),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::Pattern { pattern } => format!("must match {}", name_of(pattern)),
        Kind::UniqueItems => "must not have an item twice".to_owned(),
        Kind::Contains => "must have an item of the wanted kind".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => {
            "fits none of the alternatives".to_owned()
        }
        Kind::OneOfMultipleValid { .. } => "fits more than one of the alternatives".to_owned(),
        Kind::Not { .. } => "fits what it must not".to_owned(),
        Kind::FalseSchema => "must not be there".to_owned(),
        Kind::PropertyNames { error } => {
            format!("has a member whose name {}", wanted(error.kind()))
        }
        _ => "does not fit".to_owned(),
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.to_string(),
        TypeKind::Multiple(several) => {
            let words: Vec<_> = several.iter().map(|one| one.to_string()).collect();
            words.join(" or ")
        }
    }
}

/// A value of the schema.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => name_of(text),
        Value::Array(_) => "a certain array".to_owned(),
        Value::Object(_) => "a certain object".to_owned(),
        plain => plain.to_string(),
    }
}

fn name_of(text: &str) -> String {
    let short: String = text.chars().take(LISTED_CHARS_MAX).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{more}`", short.escape_debug())
}

fn listed(words: impl ExactSizeIterator<Item = String>) -> String {
    let more = words.len().saturating_sub(LISTED_MAX);
    let some: Vec<_> = words.take(LISTED_MAX).collect();
    match more {
        0 => some.join(", "),
        more => format!("{} and {more} more", some.join(", ")),
    }
}
