//! What a server tells of itself, on its way to who listens ([`super::super::ears`]).

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::limits::{NEWS_BYTES_MAX, WATCH_AGAIN_WAIT};
use crate::protocol::envelope;

use super::super::ears::{Ears, Told, Watched};
use super::super::slot::SlotKey;
use super::Handle;

/// For whom a run's server speaks.
#[derive(Debug)]
pub(in crate::actors) struct Voice {
    pub(in crate::actors) ears: Arc<Ears>,
    pub(in crate::actors) key: SlotKey,
    pub(in crate::actors) watched: Arc<Watched>,
    /// Its list of tools is another one, as it says.
    pub(in crate::actors) tools: Notify,
}

impl Handle {
    /// The server tells something to all whom it serves.
    pub(in crate::actors) fn tells(&self, told: &Told) {
        // What waits for those who do not read it must be small.
        let fits = !matches!(told, Told::Elicited(line) if line.len() > NEWS_BYTES_MAX);
        if let Some(voice) = self.asking.voice.as_ref().filter(|_| fits) {
            voice.ears.tell(&voice.key, told);
        }
    }

    /// The server says that its tools have changed.
    pub(in crate::actors) fn tells_of_tools(&self) {
        if let Some(voice) = &self.asking.voice {
            voice.tools.notify_one();
        }
    }

    /// Waits until it says so; whatever was said since the last time is one.
    pub(in crate::actors) async fn tools_told(&self) {
        match &self.asking.voice {
            Some(voice) => voice.tools.notified().await,
            None => std::future::pending().await,
        }
    }

    /// A resource of the server's has changed.
    pub(in crate::actors) fn updated(&self, line: Bytes) {
        if let Some(voice) = &self.asking.voice
            && line.len() <= NEWS_BYTES_MAX
            && let Some(uri) = envelope::updated_uri(&line)
        {
            let who = voice.watched.who(&uri);
            let told = Told::Updated(match self.is_modern() {
                // What it says beside is of our subscription.
                true => {
                    let params = serde_json::json!({ "uri": uri }).to_string();
                    let line = envelope::notification(
                        "notifications/resources/updated",
                        params.as_bytes(),
                    );
                    line.slice(..line.len() - 1)
                }
                false => line,
            });
            voice.ears.tell_some(&voice.key, &who, &told);
        }
    }

    /// Subscribes a new run to what the one before it was.
    pub(in crate::actors) fn watch_again(self: &Arc<Self>) {
        let uris = self
            .asking
            .voice
            .as_ref()
            .map(|voice| voice.watched.uris())
            .unwrap_or_default();
        if uris.is_empty() {
            return;
        }
        let handle = Arc::clone(self);
        tokio::spawn(async move {
            for uri in uris {
                let params = serde_json::json!({ "uri": uri }).to_string();
                let deadline = Instant::now() + WATCH_AGAIN_WAIT;
                // One that it does not know any more is its own affair.
                let _ = handle
                    .ask("resources/subscribe", params.as_bytes(), deadline)
                    .await;
            }
        });
    }
}
