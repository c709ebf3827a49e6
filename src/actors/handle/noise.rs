//! What a server writes to stdout that is no JSON-RPC: named to whoever waits for an answer in vain,
//! since it may have been meant as one.

use std::sync::atomic::{AtomicU64, Ordering};

use super::super::sync::Mutex;
use super::Handle;

/// Bytes of a line that are named.
const SHOWN_BYTES: usize = 48;

/// Noise of a run.
#[derive(Debug, Default)]
pub(super) struct Noise {
    lines: AtomicU64,
    /// How the newest one begins, and what is wrong with it.
    newest: Mutex<String>,
}

impl Handle {
    /// The server wrote a line that is no JSON-RPC; `clean`: without known credentials.
    pub(in crate::actors) fn noisy(&self, line: &[u8], clean: &[u8]) {
        let shown = clean.get(..SHOWN_BYTES).unwrap_or(clean);
        let more = if shown.len() < clean.len() { "…" } else { "" };
        let mut text = format!("`{}{more}`", shown.escape_ascii());
        if let Err(error) = std::str::from_utf8(line) {
            let place = error.valid_up_to() + 1;
            text.push_str(&format!(" and is not UTF-8 at its byte {place}"));
        }
        *self.noise.newest.lock() = text;
        self.noise.lines.fetch_add(1, Ordering::Release);
    }

    /// Lines of noise so far.
    pub(in crate::actors) fn noise_lines(&self) -> u64 {
        self.noise.lines.load(Ordering::Acquire)
    }

    /// The noise since there were `before` lines, in words for a caller who got no answer. What it
    /// says is kept back where others are served by the same process.
    pub(in crate::actors) fn noise_since(&self, before: u64, shared: bool) -> Option<String> {
        let lines = match self.noise_lines().saturating_sub(before) {
            0 => return None,
            1 => "1 line".to_owned(),
            lines => format!("{lines} lines"),
        };
        let last = match shared {
            true => String::new(),
            false => format!("; the last one begins with {}", self.noise.newest.lock()),
        };
        Some(format!(
            " Meanwhile its server wrote {lines} to stdout that are not JSON-RPC, so that an answer \
             among them was not understood{last}."
        ))
    }
}
