//! Which of an isolate's tools ask their callers. A server does not say for which call it asks, so a call whose tool
//! asks, or is not known yet, has a turn: what is asked then is asked for it.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::domain::limits::ASKERS_MAX;
use crate::domain::name::ToolName;

use super::super::sync::Mutex;
use super::turn::InTurn;

/// What is known. Outlives the isolate's runs.
#[derive(Debug)]
pub struct Askers {
    /// Whether it asks.
    known: Mutex<HashMap<ToolName, bool>>,
    turns: Arc<Semaphore>,
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
    pub(in crate::actors) fn needs_turn(&self, tool: &ToolName) -> bool {
        self.known.lock().get(tool) != Some(&false)
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
    pub(super) fn asks(&self, tool: &ToolName) {
        self.learn(tool, true);
    }

    /// A call of the tool has ended; if nothing was asked meanwhile, others need no turn.
    pub(in crate::actors) fn ended(&self, tool: &ToolName) {
        if !self.known.lock().contains_key(tool) {
            self.learn(tool, false);
        }
    }

    fn learn(&self, tool: &ToolName, asks: bool) {
        let mut known = self.known.lock();
        if let Some(known) = known.get_mut(tool) {
            *known = asks;
        } else if known.len() < ASKERS_MAX {
            // Those beyond have a turn each time.
            known.insert(tool.clone(), asks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_has_a_turn_until_it_is_known_not_to_ask() {
        let askers = Askers::default();
        let [silent, asks] = ["silent", "asks"].map(|name| ToolName::parse(name).unwrap());
        assert!(askers.needs_turn(&silent));
        askers.asks(&asks);
        askers.ended(&silent);
        askers.ended(&asks);
        assert!(!askers.needs_turn(&silent));
        assert!(askers.needs_turn(&asks));
        askers.asks(&silent);
        assert!(askers.needs_turn(&silent));
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let askers = Askers::default();
        for n in 0..ASKERS_MAX + 1 {
            askers.ended(&ToolName::parse(&format!("t{n}")).unwrap());
        }
        let last = ToolName::parse(&format!("t{ASKERS_MAX}")).unwrap();
        assert!(askers.needs_turn(&last));
        assert_eq!(askers.known.lock().len(), ASKERS_MAX);
    }
}
