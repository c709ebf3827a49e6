//! Tools about what this process holds: notes, and plain memory.

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Context, Outcome, arguments, text};
use crate::demo::wire::{Fault, lock};

/// Notes one process keeps.
const NOTES_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    key: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Allocate {
    mib: usize,
}

pub(super) fn note_put(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Put { key, value } = arguments(raw)?;
    let mut notes = lock(&context.server.notes);
    if notes.len() >= NOTES_MAX && !notes.contains_key(&key) {
        return Ok(Outcome::Failed(format!(
            "{NOTES_MAX} notes are kept already; use a key that exists"
        )));
    }
    notes.insert(key.clone(), value);
    Ok(text(format!("kept {key}")))
}

pub(super) fn note_get(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Get { key } = arguments(raw)?;
    Ok(match lock(&context.server.notes).get(&key) {
        Some(value) => text(value.clone()),
        None => Outcome::Failed(format!("no note {key}; note_list shows those there are")),
    })
}

pub(super) fn note_list(context: &Context, _: &RawValue) -> Result<Outcome, Fault> {
    let notes = lock(&context.server.notes);
    let keys: Vec<&String> = notes.keys().collect();
    Ok(Outcome::Json(json!({ "keys": keys })))
}

pub(super) fn allocate(context: &Context, raw: &RawValue) -> Result<Outcome, Fault> {
    let Allocate { mib } = arguments(raw)?;
    let bytes = mib.saturating_mul(1 << 20);
    // The old block goes first: what is asked for is what is held.
    let mut held = lock(&context.server.held);
    *held = Vec::new();
    let mut block = Vec::new();
    if let Err(why) = block.try_reserve_exact(bytes) {
        return Ok(Outcome::Failed(format!("no room for {mib} MiB: {why}")));
    }
    // Ones, not zeros: zeroed memory would come from untouched pages.
    block.resize(bytes, 1_u8);
    *held = block;
    Ok(text(format!("holding {mib} MiB")))
}
