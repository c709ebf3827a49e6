//! Where in a schema schemas can be, whether something leads there or not.
//!
//! A checker looks through all of them for what names itself, and counts references from that, also
//! those on whose way it is. So one that names itself is refused wherever it is, and a reference may
//! lead only to where none can be.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::Unfit;

/// What holds values, and no schemas.
const VALUES: [&str; 5] = ["const", "default", "enum", "example", "examples"];
/// What holds schemas by names that are no keywords.
const NAMED: [&str; 6] = [
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Everything that can be a schema.
///
/// # Errors
/// One of them names itself, or says what it is written in, and is not the whole.
pub(super) fn places(root: &Value) -> Result<HashSet<*const Value>, Unfit> {
    let mut found = HashSet::from([std::ptr::from_ref(root)]);
    let mut open = Vec::new();
    push_members(root, &mut open);
    while let Some((value, named)) = open.pop() {
        found.insert(std::ptr::from_ref(value));
        match value {
            Value::Object(members) => {
                if let Some(keyword) = names_itself(members) {
                    return Err(Unfit::Unsupported(keyword));
                }
                match named {
                    true => open.extend(members.values().map(|one| (one, false))),
                    false => push_members(value, &mut open),
                }
            }
            Value::Array(items) => open.extend(items.iter().map(|one| (one, false))),
            _ => {}
        }
    }
    Ok(found)
}

/// What is in a schema, and whether that is a list of names.
fn push_members<'a>(schema: &'a Value, open: &mut Vec<(&'a Value, bool)>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        if !VALUES.contains(&keyword.as_str()) {
            open.push((value, NAMED.contains(&keyword.as_str())));
        }
    }
}

/// The keyword by which what it refers to would be counted from itself, or read in another way.
fn names_itself(schema: &Map<String, Value>) -> Option<&'static str> {
    ["$id", "id", "$schema"]
        .into_iter()
        .find(|keyword| schema.get(*keyword).is_some_and(Value::is_string))
}
