//! Holding a call's arguments against the schema that its tool declares.
//!
//! Schema and arguments are written by people who may mean harm, so both are measured first: what a
//! schema may hold when it is compiled, and how many steps arguments may take when they are checked.
//! Nothing is fetched, no pattern backtracks, and what is too much is said to be, not tried. What a
//! complaint quotes is the schema's and the names in the arguments, never a value.

mod misfit;
mod numbers;
mod places;
mod read;
mod shape;

use jsonschema::{PatternOptions, Validator};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::limits::{
    ARGUMENT_DEPTH_MAX, ARGUMENT_STEPS_MAX, ARGUMENT_VALUES_MAX, SCHEMA_BYTES_MAX,
    SCHEMA_DEPTH_MAX, SCHEMA_PATTERN_BYTES_MAX, SCHEMA_PATTERNS_MAX, SCHEMA_VALUES_MAX,
};

pub use misfit::Misfit;
pub use read::Unreadable;

use read::Bounds;
use shape::Shape;

/// The longest text of ours about somebody else's words.
const QUOTED_CHARS_MAX: usize = 200;

/// Levels of a schema's text: a schema within another is two of them, and no reader takes more than
/// 127.
const SCHEMA_LEVELS_MAX: usize = 120;

/// A tool's schema, ready to be used.
#[derive(Debug)]
pub struct ArgumentSchema {
    validator: Validator,
    shape: Shape,
}

/// Why a schema is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has too many bytes.
    #[error("it has {0} bytes, more than {SCHEMA_BYTES_MAX}")]
    Large(usize),
    /// It cannot be read as JSON in one way.
    #[error("it {0}")]
    Unreadable(Unreadable),
    /// It, or what its references lead to, nests too deeply.
    #[error("it nests deeper than {SCHEMA_DEPTH_MAX} schemas")]
    Deep,
    /// Its references multiply.
    #[error("written out, its references make more than {SCHEMA_VALUES_MAX} values")]
    Many,
    /// It has too many patterns.
    #[error("it has more than {SCHEMA_PATTERNS_MAX} patterns")]
    Patterns,
    /// A reference leads back to itself without going into the arguments.
    #[error("a `$ref` of it leads back to itself")]
    Endless,
    /// A reference leads out of it, or to nothing.
    #[error("its `$ref` to `{0}` leads to nothing in it; nothing else is ever fetched")]
    Outside(String),
    /// It uses what is not supported here.
    #[error("it uses `{0}`, which is not supported here")]
    Unsupported(&'static str),
    /// It is no valid schema.
    #[error("{0}")]
    Invalid(String),
    /// There is no room for more schemas.
    #[error("the schemas in use are as many as there is room for")]
    NoRoom,
}

/// Why arguments were not held against a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unchecked {
    /// They cannot be read as JSON in one way.
    #[error("{0}")]
    Unreadable(Unreadable),
    /// Checking them would take too long.
    #[error("would take more than {ARGUMENT_STEPS_MAX} steps to check")]
    Costly,
    /// Others are being checked, and have been for too long.
    #[error("could not be checked in time, because others are being checked")]
    Busy,
}

/// What became of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// They fit.
    Fit,
    /// They do not.
    Misfit(Misfit),
    /// It was not found out.
    Unchecked(Unchecked),
}

#[derive(Deserialize)]
struct Definition<'a> {
    #[serde(borrow, default, rename = "inputSchema")]
    schema: Option<&'a RawValue>,
}

// === impl ArgumentSchema ===

impl ArgumentSchema {
    /// From a tool's whole definition; `None` if it declares nothing. May take a while, and needs a
    /// deep stack: see [`SCHEMA_DEPTH_MAX`].
    ///
    /// # Errors
    /// [`Unfit`].
    pub fn compile(definition: &str) -> Result<Option<Self>, Unfit> {
        let Ok(Definition {
            schema: Some(schema),
        }) = serde_json::from_str::<Definition<'_>>(definition)
        else {
            return Ok(None);
        };
        let text = schema.get();
        if text.len() > SCHEMA_BYTES_MAX {
            return Err(Unfit::Large(text.len()));
        }
        let bounds = Bounds {
            depth: SCHEMA_LEVELS_MAX,
            values: SCHEMA_VALUES_MAX,
        };
        let (mut schema, _) = read::read(text, bounds).map_err(Unfit::Unreadable)?;
        let Some(members) = schema.as_object_mut() else {
            return Ok(None);
        };
        // Nothing may refer to its name; with it, references would be looked up under that.
        for name in ["$id", "id"] {
            if members.get(name).is_some_and(Value::is_string) {
                members.remove(name);
            }
        }
        let shape = Shape::of(&schema)?;
        let patterns = PatternOptions::regex()
            .size_limit(SCHEMA_PATTERN_BYTES_MAX)
            .dfa_size_limit(SCHEMA_PATTERN_BYTES_MAX);
        let validator = jsonschema::options()
            .offline()
            .with_pattern_options(patterns)
            .should_validate_formats(false)
            .without_content_media_type_support("application/json")
            .without_content_encoding_support("base64")
            .build(&schema)
            .map_err(|error| Unfit::Invalid(misfit::of_schema(&error)))?;
        Ok(Some(Self { validator, shape }))
    }

    /// Its share of the room that there is for schemas.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.shape.weight()
    }

    /// Whether what a check of it costs is plain to see: only then it may be made on a runtime's worker.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.shape.is_plain()
    }

    /// Holds arguments against it, if that takes no more steps than these.
    #[must_use]
    pub fn hold(&self, arguments: &str, steps_max: u64) -> Held {
        let bounds = Bounds {
            depth: ARGUMENT_DEPTH_MAX,
            values: ARGUMENT_VALUES_MAX,
        };
        let (value, count) = match read::read(arguments, bounds) {
            Ok(read) => read,
            Err(why) => return Held::Unchecked(Unchecked::Unreadable(why)),
        };
        if !numbers::are_exact(arguments) {
            return Held::Unchecked(Unchecked::Unreadable(Unreadable::Inexact));
        }
        if !self
            .shape
            .is_walked_in(steps_max, &value, count, arguments.len())
        {
            return Held::Unchecked(Unchecked::Costly);
        }
        if self.validator.is_valid(&value) {
            return Held::Fit;
        }
        match self.validator.validate(&value) {
            Ok(()) => Held::Fit,
            Err(error) => Held::Misfit(Misfit::of(&error)),
        }
    }
}

/// Somebody else's words, short and on one line.
fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short.escape_debug().to_string()
}

#[cfg(test)]
mod tests;
