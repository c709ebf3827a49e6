//! What the AI tool has asked for that its session holds: subscriptions to resources, and the level of logs.
//!
//! A session outlives the gateway, and what it holds does not; one that is gone is begun again unseen. So it is asked for
//! again whenever the stream of news is opened anew: asking twice changes nothing.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::domain::limits::BRIDGE_WATCHED_MAX;

const LEVEL: &str = "logging/setLevel";
const SUBSCRIBE: &str = "resources/subscribe";
const UNSUBSCRIBE: &str = "resources/unsubscribe";

/// What was granted and not taken back.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    level: Option<Box<RawValue>>,
    uris: BTreeSet<String>,
}

impl Wishes {
    /// A request of the AI tool went well.
    pub(super) fn granted(&mut self, method: &str, params: Option<&RawValue>) {
        #[derive(Deserialize)]
        struct Watched {
            uri: String,
        }
        let uri = || {
            let watched = serde_json::from_str::<Watched>(params?.get());
            watched.ok().map(|watched| watched.uri)
        };
        match method {
            LEVEL => self.level = params.map(ToOwned::to_owned),
            SUBSCRIBE if self.uris.len() < BRIDGE_WATCHED_MAX => self.uris.extend(uri()),
            UNSUBSCRIBE => _ = uri().is_some_and(|uri| self.uris.remove(&uri)),
            _ => {}
        }
    }

    /// What is to be asked for again.
    pub(super) fn all(&self) -> Vec<(&'static str, Box<RawValue>)> {
        let level = self.level.clone().map(|params| (LEVEL, params));
        let watched = self.uris.iter().filter_map(|uri| {
            let params = serde_json::value::to_raw_value(&json!({"uri": uri}));
            params.ok().map(|params| (SUBSCRIBE, params))
        });
        level.into_iter().chain(watched).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_back_is_not_asked_for_again() {
        let mut wishes = Wishes::default();
        let mut granted = |method: &str, params: &str| {
            let params = RawValue::from_string(params.to_owned()).unwrap();
            wishes.granted(method, Some(&params));
        };
        for uri in ["a:1", "a:2", "a:1"] {
            granted(SUBSCRIBE, &format!("{{\"uri\":\"{uri}\"}}"));
        }
        granted(UNSUBSCRIBE, "{\"uri\":\"a:2\"}");
        granted(LEVEL, "{\"level\":\"error\"}");
        granted("tools/call", "{\"uri\":\"a:3\"}");
        for n in 0..2 * BRIDGE_WATCHED_MAX {
            granted(SUBSCRIBE, &format!("{{\"uri\":\"b:{n}\"}}"));
        }
        let all = wishes.all();
        assert_eq!(all.len(), 1 + BRIDGE_WATCHED_MAX);
        assert_eq!((all[0].0, all[0].1.get()), (LEVEL, "{\"level\":\"error\"}"));
        assert_eq!((all[1].0, all[1].1.get()), (SUBSCRIBE, "{\"uri\":\"a:1\"}"));
        assert!(all.iter().all(|(_, params)| !params.get().contains("a:2")));
    }
}
