//! A task of ours, as it is written for clients.

use std::time::Duration;

use super::Status;

/// A task of ours, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What we call it.
    pub id: Box<str>,
    /// How it stands.
    pub status: Status,
    /// In words.
    pub message: Option<Box<str>>,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_at: i64,
    /// When it last changed.
    pub updated_at: i64,
    /// How long it is kept from its beginning on, in milliseconds.
    pub ttl: u64,
    /// How often to look.
    pub poll: Duration,
}

impl Shown {
    /// Its members for a client of 2025-11-25, without braces.
    #[must_use]
    pub fn core(&self) -> String {
        self.members(self.status, "ttl", "pollInterval")
    }

    /// Its members for a client of 2026-07-28, without braces. What is no error of the protocol has not failed
    /// there: `status` says.
    #[must_use]
    pub fn extension(&self, status: Status) -> String {
        self.members(status, "ttlMs", "pollIntervalMs")
    }

    fn members(&self, status: Status, ttl: &str, poll: &str) -> String {
        let message = match &self.message {
            Some(text) => format!(
                ",\"statusMessage\":{}",
                serde_json::to_string(text).unwrap_or_default()
            ),
            None => String::new(),
        };
        format!(
            "\"taskId\":\"{}\",\"status\":\"{}\"{message},\"createdAt\":\"{}\",\"lastUpdatedAt\":\"{}\",\"{ttl}\":{},\"{poll}\":{}",
            self.id,
            status.word(),
            time(self.created_at),
            time(self.updated_at),
            self.ttl,
            self.poll.as_millis(),
        )
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(
        |_| String::new(),
        |at| at.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
    )
}
