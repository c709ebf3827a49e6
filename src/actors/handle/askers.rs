//! Which of an isolate's tools ask their callers. A server does not say for which call it asks, so a call whose tool
//! asks, or is not known yet, has a turn: what is asked then is asked for it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use serde::Deserialize;
use tokio::sync::Semaphore;

use crate::domain::limits::ASKERS_MAX;
use crate::domain::name::ToolName;

use super::super::sync::Mutex;
use super::turn::InTurn;

/// What is known. Outlives the isolate's runs.
#[derive(Debug)]
pub struct Askers {
    /// Whether it asks, by [`asker`].
    known: Mutex<HashMap<u64, bool>>,
    turns: Arc<Semaphore>,
}

/// What is learned together: calls of one tool, of one prompt, and all reads of resources.
pub(in crate::actors) fn asker(tool: &ToolName, params: Option<&[u8]>) -> u64 {
    #[derive(Deserialize, Default)]
    struct Named<'a> {
        #[serde(borrow, default)]
        name: Option<Cow<'a, str>>,
    }
    let named = params.and_then(|params| serde_json::from_slice(params).ok());
    let Named { name } = named.unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    (tool.as_str(), name).hash(&mut hasher);
    hasher.finish()
}

impl Default for Askers {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            turns: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Askers {
    /// Whether a call of this tool needs a turn: not if it was called before and did not ask.
    pub(in crate::actors) fn needs_turn(&self, what: u64) -> bool {
        self.known.lock().get(&what) != Some(&false)
    }

    /// A turn, if there is one now.
    pub(in crate::actors) fn try_turn(&self) -> Option<InTurn> {
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        Some(InTurn::new(Arc::clone(&self.turns), permit))
    }

    /// Waits for a turn. `None` never comes: nobody closes this.
    pub(in crate::actors) async fn turn(&self) -> Option<InTurn> {
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        Some(InTurn::new(Arc::clone(&self.turns), permit))
    }

    /// The tool asks.
    pub(super) fn asks(&self, what: u64) {
        self.learn(what, true);
    }

    /// A call of the tool has ended; if nothing was asked meanwhile, others need no turn.
    pub(in crate::actors) fn ended(&self, what: u64) {
        if !self.known.lock().contains_key(&what) {
            self.learn(what, false);
        }
    }

    fn learn(&self, what: u64, asks: bool) {
        let mut known = self.known.lock();
        if let Some(known) = known.get_mut(&what) {
            *known = asks;
        } else if known.len() < ASKERS_MAX {
            // Those beyond have a turn each time.
            known.insert(what, asks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_has_a_turn_until_it_is_known_not_to_ask() {
        let askers = Askers::default();
        let tool = |name| asker(&ToolName::parse(name).unwrap(), None);
        let (silent, asks) = (tool("silent"), tool("asks"));
        assert!(askers.needs_turn(silent));
        askers.asks(asks);
        askers.ended(silent);
        askers.ended(asks);
        assert!(!askers.needs_turn(silent));
        assert!(askers.needs_turn(asks));
        askers.asks(silent);
        assert!(askers.needs_turn(silent));
    }

    #[test]
    fn prompts_are_known_one_by_one() {
        let get = ToolName::parse("prompts.get").unwrap();
        let of = |params: &str| asker(&get, Some(params.as_bytes()));
        assert_eq!(
            of(r#"{"name":"a","arguments":{"x":1}}"#),
            of(r#"{"name":"a"}"#)
        );
        assert_ne!(of(r#"{"name":"a"}"#), of(r#"{"name":"b"}"#));
        assert_eq!(of("[]"), of("nonsense"));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let askers = Askers::default();
        for n in 0..=ASKERS_MAX as u64 {
            askers.ended(n);
        }
        assert!(askers.needs_turn(ASKERS_MAX as u64));
        assert_eq!(askers.known.lock().len(), ASKERS_MAX);
    }
}
