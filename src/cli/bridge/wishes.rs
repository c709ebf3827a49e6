//! What the AI tool has asked for that its session holds: subscriptions to resources, and the level of logs.
//!
//! A session outlives the gateway, and what it holds does not; one that is gone is begun again unseen. So it is asked for
//! again whenever the stream of news is opened anew ([`super::again`]): asking twice changes nothing.
//!
//! Invariant: what the AI tool takes back stays taken back. What was asked for again meanwhile is looked at once more when
//! the answer is there, and not while a request of the AI tool's own about it is under way.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::link::Link;
use crate::domain::limits::BRIDGE_WATCHED_MAX;

const LEVEL: &str = "logging/setLevel";
const SUBSCRIBE: &str = "resources/subscribe";
const UNSUBSCRIBE: &str = "resources/unsubscribe";

/// What a request can be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wish {
    Level,
    Watched(String),
}

/// What is to be done about a wish.
#[derive(Debug)]
pub(super) enum Step {
    /// It is to be asked for.
    Ask(&'static str, Box<RawValue>),
    /// The AI tool asks for it itself.
    Wait,
    Nothing,
}

/// What was granted and not taken back.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    level: Option<Box<RawValue>>,
    uris: BTreeSet<String>,
    /// What requests of the AI tool under way are about: no more than there can be of those.
    asking: BTreeMap<Wish, usize>,
    /// Asked for again and not settled: the server may hold it though nobody wants it any more.
    unsettled: BTreeSet<Wish>,
}

/// A request of the AI tool, until this is dropped.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    link: &'a Link,
    wish: Option<Wish>,
}

// === impl Wish ===

impl Wish {
    /// What a request is about.
    fn of(method: &str, params: Option<&RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Watched {
            uri: String,
        }
        match method {
            LEVEL => Some(Self::Level),
            SUBSCRIBE | UNSUBSCRIBE => {
                let watched: Watched = serde_json::from_str(params?.get()).ok()?;
                Some(Self::Watched(watched.uri))
            }
            _ => None,
        }
    }
}

// === impl Step ===

impl Step {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ask(one, of), Self::Ask(other, to)) => one == other && of.get() == to.get(),
            _ => false,
        }
    }

    /// Whether it takes something back.
    pub(super) fn takes_back(&self) -> bool {
        matches!(self, Self::Ask(UNSUBSCRIBE, _))
    }
}

// === impl Wishes ===

impl Wishes {
    /// The AI tool begins again, and wants nothing yet.
    pub(super) fn begin_again(&mut self) {
        self.level = None;
        self.uris.clear();
        self.unsettled.clear();
    }

    /// A new session holds nothing.
    pub(super) fn nothing_held(&mut self) {
        self.unsettled.clear();
    }

    /// A request of the AI tool went well.
    pub(super) fn granted(&mut self, method: &str, params: Option<&RawValue>) {
        match (method, Wish::of(method, params)) {
            (LEVEL, _) => self.level = params.map(ToOwned::to_owned),
            (SUBSCRIBE, Some(Wish::Watched(uri))) if self.uris.len() < BRIDGE_WATCHED_MAX => {
                self.uris.insert(uri);
            }
            (UNSUBSCRIBE, Some(Wish::Watched(uri))) => _ = self.uris.remove(&uri),
            _ => {}
        }
    }

    /// What is to be asked for again, or looked at.
    pub(super) fn all(&self) -> BTreeSet<Wish> {
        let level = self.level.iter().map(|_| Wish::Level);
        let watched = self.uris.iter().cloned().map(Wish::Watched);
        let unsettled = self.unsettled.iter().cloned();
        level.chain(watched).chain(unsettled).collect()
    }

    /// What is to be done about a wish now. What is to be asked for counts as unsettled from here on.
    pub(super) fn begin(&mut self, wish: &Wish) -> Step {
        let step = self.step(wish);
        if let Step::Ask(..) = step {
            self.unsettled.insert(wish.clone());
        }
        step
    }

    /// A step was granted: whether that is all there is to do about the wish.
    pub(super) fn is_settled(&mut self, wish: &Wish, step: &Step) -> bool {
        let is_settled = self.step(wish).is_same(step);
        if is_settled {
            self.unsettled.remove(wish);
        }
        is_settled
    }

    fn step(&self, wish: &Wish) -> Step {
        if self.asking.contains_key(wish) {
            return Step::Wait;
        }
        let method = match wish {
            Wish::Level => match &self.level {
                Some(params) => return Step::Ask(LEVEL, params.clone()),
                None => return Step::Nothing,
            },
            Wish::Watched(uri) if self.uris.contains(uri) => SUBSCRIBE,
            unwanted if self.unsettled.contains(unwanted) => UNSUBSCRIBE,
            Wish::Watched(_) => return Step::Nothing,
        };
        let Wish::Watched(uri) = wish else {
            return Step::Nothing;
        };
        let params = serde_json::value::to_raw_value(&json!({"uri": uri}));
        params.map_or(Step::Nothing, |params| Step::Ask(method, params))
    }
}

// === impl Asking ===

impl<'a> Asking<'a> {
    /// A request of the AI tool is to be sent.
    pub(super) fn of(link: &'a Link, method: &str, params: Option<&RawValue>) -> Self {
        let wish = Wish::of(method, params);
        if let Some(wish) = wish.clone() {
            link.wishes(|wishes| *wishes.asking.entry(wish).or_default() += 1);
        }
        Self { link, wish }
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(wish) = &self.wish else { return };
        self.link.wishes(|wishes| {
            if let Some(count) = wishes.asking.get_mut(wish) {
                *count -= 1;
                if *count == 0 {
                    wishes.asking.remove(wish);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(wishes: &mut Wishes, method: &str, params: &str) {
        let params = RawValue::from_string(params.to_owned()).unwrap();
        wishes.granted(method, Some(&params));
    }

    fn watched(uri: &str) -> Wish {
        Wish::Watched(uri.to_owned())
    }

    #[test]
    fn what_was_taken_back_is_not_asked_for_again() {
        let mut wishes = Wishes::default();
        for uri in ["a:1", "a:2", "a:1"] {
            granted(&mut wishes, SUBSCRIBE, &format!("{{\"uri\":\"{uri}\"}}"));
        }
        granted(&mut wishes, UNSUBSCRIBE, "{\"uri\":\"a:2\"}");
        granted(&mut wishes, LEVEL, "{\"level\":\"error\"}");
        granted(&mut wishes, "tools/call", "{\"uri\":\"a:3\"}");
        for n in 0..2 * BRIDGE_WATCHED_MAX {
            granted(&mut wishes, SUBSCRIBE, &format!("{{\"uri\":\"b:{n}\"}}"));
        }
        let all = wishes.all();
        assert_eq!(all.len(), 1 + BRIDGE_WATCHED_MAX);
        assert!(all.contains(&watched("a:1")) && !all.contains(&watched("a:2")));
        assert!(
            matches!(wishes.begin(&Wish::Level), Step::Ask(LEVEL, params)
            if params.get() == "{\"level\":\"error\"}")
        );
        assert!(
            matches!(wishes.begin(&watched("a:1")), Step::Ask(SUBSCRIBE, params)
                if params.get() == "{\"uri\":\"a:1\"}")
        );
        assert!(matches!(wishes.begin(&watched("a:2")), Step::Nothing));
    }

    #[test]
    fn what_is_taken_back_while_it_is_asked_for_again_is_taken_back_once_more() {
        let mut wishes = Wishes::default();
        let one = watched("a:1");
        granted(&mut wishes, SUBSCRIBE, "{\"uri\":\"a:1\"}");
        let asked = wishes.begin(&one);
        // Under way, and then answered before the answer to ours is looked at.
        wishes.asking.insert(one.clone(), 1);
        assert!(!wishes.is_settled(&one, &asked));
        assert!(matches!(wishes.begin(&one), Step::Wait));
        wishes.asking.clear();
        granted(&mut wishes, UNSUBSCRIBE, "{\"uri\":\"a:1\"}");
        // Also where the stream was opened anew meanwhile.
        assert!(wishes.all().contains(&one));
        let back = wishes.begin(&one);
        assert!(back.takes_back());
        assert!(wishes.is_settled(&one, &back));
        assert!(matches!(wishes.begin(&one), Step::Nothing) && wishes.all().is_empty());
    }
}
